package engine_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/api"
	"github.com/skald-io/skald/sagas"
)

// simple is a definition of one step, on the topic of orders.
func (w *world) simple(name, version, eventType string, timeout time.Duration) orchestrator.Definition {
	do := sagas.NewCommand[Reserve, struct{}](w.cmds(), name+"-"+version)
	undo := sagas.NewCommand[Reserve, struct{}](w.cmds(), "undo-"+name)
	return sagas.Define(name, version,
		sagas.StartOn(sagas.NewEvent[Order](w.orders(), eventType), startOrder),
		sagas.Step("do", do, plainReserve, nil).Undo(sagas.With(undo, plainReserve)).Timeout(timeout)).Retention(time.Hour)
}

func runs(defs ...orchestrator.Definition) func(*orchestrator.Config) {
	return func(c *orchestrator.Config) { c.Definitions = defs }
}

func named(name string) func(*orchestrator.Config) {
	return func(c *orchestrator.Config) { c.Node = name }
}

// event puts an event of some type on a partition.
func (w *world) event(t *testing.T, partition int32, typ, key string) {
	t.Helper()
	r := order(key, "")
	r.Headers = headers(events.HeaderType, typ, events.HeaderID, key)
	w.put(t, w.orders(), partition, r)
}

// of waits until one of the nodes shows the instance of a definition in the state.
func (w *world) of(t *testing.T, definition, key string, want events.State, nodes ...*node) orchestrator.Instance {
	t.Helper()
	var inst orchestrator.Instance
	id := events.NewInstanceID(w.app, definition, key, key, w.shards*events.SlotsPerShard)
	until(t, fmt.Sprintf("%s %s is %s", definition, key, want), func() bool {
		for _, n := range nodes {
			if i, ok, err := n.Get(id); err == nil && ok {
				inst = i
			}
		}
		return inst.State == want
	})
	return inst
}

// refusal runs an engine and gives the error that it ends with.
func (w *world) refusal(t *testing.T, adjust ...func(*orchestrator.Config)) string {
	t.Helper()
	n := w.start(t, adjust...)
	select {
	case err := <-n.err:
		if err == nil {
			t.Fatal("it ended without an error")
		}
		return err.Error()
	case <-bounded(t).Done():
		t.Fatal("it runs")
	}
	return ""
}

// L12.
func TestAnotherTreeUnderTheSameVersionIsRefusedAtTheStart(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 1)
		n := w.start(t, named("first"), runs(w.simple("order", "1", "OrderPlaced", time.Minute)))
		n.owns(t, 1)
		n.stop(t)
		err := w.refusal(t, runs(w.simple("order", "1", "OrderPlaced", time.Hour)))
		for _, want := range []string{"definition-changed: ", "order version 1", "node first", "\n- step \"do\"", "timeout 1m0s", "\n+ step \"do\"", "timeout 1h0m0s", "new version"} {
			if !strings.Contains(err, want) {
				t.Errorf("%q is not in: %s", want, err)
			}
		}
		// With a new version it runs, and so does the old one again.
		w.start(t, runs(w.simple("order", "2", "OrderPlaced", time.Hour), w.simple("order", "1", "OrderPlaced", time.Minute))).owns(t, 1)
	})
}

// L12: an instance ends under the version it began with, and new ones start under the first that is listed.
func TestTwoVersionsOfADefinitionRunSideBySide(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 1)
		w.hold("old")
		w.participant(t)
		one, two := w.simple("order", "1", "OrderPlaced", time.Minute), w.simple("order", "2", "OrderPlaced", time.Minute)
		n := w.start(t, runs(one))
		w.event(t, 0, "OrderPlaced", "old")
		w.command(t, "old", "order-1")
		n.stop(t)
		n = w.start(t, runs(two, one))
		w.event(t, 0, "OrderPlaced", "new")
		w.command(t, "new", "order-2")
		w.release(t, "old")
		if i := w.of(t, "order", "old", events.Completed, n); i.Version != "1" {
			t.Errorf("it ended under version %s", i.Version)
		}
		if i := w.of(t, "order", "new", events.Completed, n); i.Version != "2" {
			t.Errorf("it started under version %s", i.Version)
		}
	})
}

// L12: two builds are rolled back and forth. What an old node cannot decide waits, and moves to a node that can.
func TestAShardGoesToANodeThatHasTheDefinitionItWaitsFor(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		known, bills := w.simple("order", "1", "OrderPlaced", time.Minute), w.simple("bill", "1", "OrderBilled", time.Minute)
		fresh := w.start(t, named("new-0"), runs(bills, known))
		fresh.owns(t, 2)
		for round := range 2 {
			w.hold("*")
			for p := range int32(2) {
				w.event(t, p, "OrderBilled", fmt.Sprintf("begun-%d-%d", p, round))
			}
			for p := range 2 {
				w.command(t, fmt.Sprintf("begun-%d-%d", p, round), "bill-1")
			}
			fresh.stop(t)
			// Taken back: the old build is alone.
			old := w.start(t, named(fmt.Sprint("old-", round)), runs(known))
			old.owns(t, 2)
			for p := range int32(2) {
				w.event(t, p, "OrderBilled", fmt.Sprintf("late-%d-%d", p, round))
				w.event(t, p, "OrderPlaced", fmt.Sprintf("neighbour-%d-%d", p, round))
			}
			w.release(t, "*")
			for p := range 2 {
				w.of(t, "order", fmt.Sprintf("neighbour-%d-%d", p, round), events.Completed, old)
			}
			until(t, "two replies and two events wait", func() bool { return old.Stats().Waiting == 4 })
			// And forward again, beside it.
			fresh = w.start(t, named(fmt.Sprint("new-", round+1)), runs(bills, known))
			for p := range 2 {
				for _, what := range []string{"begun", "late"} {
					w.of(t, "bill", fmt.Sprintf("%s-%d-%d", what, p, round), events.Completed, fresh)
				}
			}
			until(t, "nothing waits any more", func() bool { return old.Stats().Waiting == 0 })
			old.stop(t)
			fresh.owns(t, 2)
		}
		for place, ds := range w.decisions(t) {
			for _, d := range ds {
				if d.Outcome == events.Quarantined || slices.ContainsFunc(d.Entries, func(e events.Entry) bool { return e.To == events.Parked }) {
					t.Errorf("%s: %s %s", place, d.Outcome, d.Reason)
				}
			}
		}
	})
}

// L13.
func TestABuildThatDoesNotReadTheFormatOfTheLevelIsRefused(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	w.put(t, w.own().Meta(), 0, &kgo.Record{Key: []byte(events.LevelKey), Value: (&events.MetaRecord{Level: &events.FormatLevel{Level: events.Format + 1}}).Encode(nil)})
	if err := w.refusal(t); !strings.Contains(err, "newer-level: ") {
		t.Error(err)
	}
}

// formats are those of the records of a journal partition, in order, without repeats.
func (w *world) formats(t *testing.T) (out []byte) {
	t.Helper()
	for _, r := range w.everything(t, w.own().Journal()) {
		out = append(out, r.Value[0])
	}
	return slices.Compact(out)
}

// L13: the level rises once every member reads the newer format, and not before. A member that says nothing of
// itself is one of a build that knows no levels.
func TestTheFormatIsRaisedOnceEveryMemberReadsIt(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	node := func(name string, format uint32) *kgo.Record {
		return &kgo.Record{Key: []byte(events.NodeKey(name)), Value: (&events.MetaRecord{Node: &events.NodeInfo{Name: name, Format: format}}).Encode(nil)}
	}
	w.put(t, w.own().Meta(), 0, node("old", 1))
	silent := w.dial(t)
	leave, err := silent.Join(w.app, w.own().Inbox(), orchestrator.Member{Assigned: func(int32, []int32) {}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "there is a member that says nothing", func() bool { return silent.MemberID(w.app) != "" })
	n := w.start(t, func(c *orchestrator.Config) { c.FormatAfter = time.Millisecond })
	until(t, "the node takes part", func() bool { m, _ := n.client.Members(bounded(t), w.app); return len(m) == 2 })
	w.put(t, w.own().Meta(), 0, &kgo.Record{Key: []byte(events.NodeKey("old"))})
	until(t, "it has seen that the old node is gone", func() bool { return n.Level() == 1 && len(n.log.find("a member of a build that says nothing")) > 0 })
	leave()
	until(t, "the level is raised", func() bool { return n.Level() == events.Format })
	n.owns(t, 1)
	w.event(t, 0, "OrderPlaced", "x")
	until(t, "it writes the newest format", func() bool { f := w.formats(t); return len(f) > 0 && f[len(f)-1] == events.Format })
}

// door is a way to a node's address that a test can shut.
type door struct {
	listener net.Listener
	mu       sync.Mutex
	to       string
	conns    []net.Conn
}

func newDoor(t *testing.T) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{listener: l}
	t.Cleanup(d.shut)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			to := d.to
			d.mu.Unlock()
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			d.mu.Lock()
			d.conns = append(d.conns, c, s)
			d.mu.Unlock()
			go func() { _, _ = io.Copy(s, c); s.Close() }()
			go func() { _, _ = io.Copy(c, s); c.Close() }()
		}
	}()
	return d
}

func (d *door) shut() {
	d.listener.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.Close()
	}
	d.conns = nil
}

// free is a port that nobody has.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// patient nodes would be missed only after a minute, were it for their sessions.
func (w *world) patient(t *testing.T, adjust ...func(*orchestrator.Config)) *node {
	t.Helper()
	l := &logs{}
	c := w.dial(t, func(c *kafka.Config) { c.Session = time.Minute })
	return w.launch(t, l, c, adjust...)
}

func listens(at, told string) func(*orchestrator.Config) {
	return func(c *orchestrator.Config) { c.Listen, c.Advertise = at, told }
}

// L5: B cannot reach A any more, though A lives. A is evicted once, comes back, and both settle.
func TestNodesThatCannotReachEachOtherSettle(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 4)
		w.participant(t)
		d, at := newDoor(t), free(t)
		d.to = at
		a := w.patient(t, named("a"), listens(at, d.listener.Addr().String()))
		a.owns(t, 4)
		z := w.patient(t, named("b"))
		both := func() bool { return len(a.Shards()) == 2 && len(z.Shards()) == 2 }
		until(t, "they share", both)
		until(t, "b holds a connection to a", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.conns) > 0 })
		d.shut()
		until(t, "a was evicted", func() bool { return z.Stats().Evictions == 1 })
		until(t, "b has tried again and again", func() bool { return len(z.log.find("no connection to a node", "to", "a")) > 8 })
		until(t, "they share again", both)
		for p := range int32(4) {
			w.place(t, p, fmt.Sprint("after-", p))
		}
		for p := range 4 {
			w.state(t, fmt.Sprint("after-", p), events.Completed, a, z)
		}
		if n := z.Stats().Evictions; n != 1 || a.Stats().Evictions != 0 {
			t.Errorf("b evicted %d times, a %d times", n, a.Stats().Evictions)
		}
	})
}

// L5: who was never reached may be anything but dead.
func TestANodeThatWasNeverReachedIsNotEvicted(t *testing.T) {
	w := newWorld(t, embedded(t), 2)
	a := w.patient(t, named("a"), listens("127.0.0.1:0", free(t)))
	a.owns(t, 2)
	z := w.patient(t, named("b"))
	until(t, "they share", func() bool { return len(a.Shards()) == 1 && len(z.Shards()) == 1 })
	until(t, "b has tried again and again", func() bool { return len(z.log.find("no connection to a node", "to", "a")) > 5 })
	if n := z.Stats().Evictions; n != 0 {
		t.Errorf("b evicted %d times", n)
	}
}

// blinkered is a connection on which a topic shows two partitions, until it is opened.
type blinkered struct {
	orchestrator.Kafka
	open atomic.Bool
}

func (b *blinkered) Topics(ctx context.Context, names ...string) (map[string]orchestrator.Topic, error) {
	found, err := b.Kafka.Topics(ctx, names...)
	for name, t := range found {
		if !b.open.Load() {
			t.Partitions = min(t.Partitions, 2)
			found[name] = t
		}
	}
	return found, err
}

// L8.
func TestPartitionsAddedToATopicAreReadFromTheirStart(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		k := &blinkered{}
		n := w.start(t, func(c *orchestrator.Config) {
			k.Kafka = c.Kafka
			c.Kafka, c.From, c.TopicsEvery = k, orchestrator.FromLatest, 50*time.Millisecond
		})
		n.owns(t, 2)
		w.place(t, 0, "before")
		w.completed(t, n, "before")
		if _, err := w.admin.UpdatePartitions(bounded(t), 5, w.orders()); err != nil {
			t.Fatal(err)
		}
		until(t, "the new partitions are there", func() bool {
			ts, err := n.client.Topics(bounded(t), w.orders())
			return err == nil && ts[w.orders()].Partitions == 5
		})
		var err error // what others write with does not know them yet
		if w.plain, err = kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.plain.Close)
		// Some before the node looks, and some after.
		for p := range int32(5) {
			w.place(t, p, fmt.Sprint("early-", p))
		}
		k.open.Store(true)
		for p := range int32(5) {
			w.completed(t, n, fmt.Sprint("early-", p))
			w.place(t, p, fmt.Sprint("late-", p))
			w.completed(t, n, fmt.Sprint("late-", p))
		}
		n.stop(t)
		n = w.start(t)
		for p := range int32(5) {
			w.place(t, p, fmt.Sprint("again-", p))
			w.completed(t, n, fmt.Sprint("again-", p))
		}
		for place, ds := range w.decisions(t) {
			if len(ds) > 1 {
				t.Errorf("%s was decided %d times", place, len(ds))
			}
		}
	})
}

func TestANodeAnswersOverHTTPWhetherItIsReady(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	at := free(t)
	n := w.start(t, func(c *orchestrator.Config) {
		c.Listen, c.HTTP = at, func(e *orchestrator.Engine) http.Handler { return api.New(e) }
	})
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + at + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	until(t, "it is ready and owns its shard", func() bool {
		status, body := get("/readyz")
		return status == 200 && strings.Contains(body, `"shards":{"owned":1}`)
	})
	if status, body := get("/livez"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	n.stop(t)
	if _, err := http.Get("http://" + at + "/livez"); err == nil {
		t.Error("it answers after its end")
	}
}
