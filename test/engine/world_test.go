package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
	real "github.com/skald-io/skald/test/kafka"
)

// broker is a cluster that a story runs on.
type broker struct{ addr string }

func onEach(t *testing.T, story func(t *testing.T, b broker)) {
	t.Run("embedded", func(t *testing.T) { story(t, embedded(t)) })
	t.Run("real", func(t *testing.T) { story(t, broker{real.Require(t).Addr()}) })
}

func embedded(t *testing.T) broker {
	t.Helper()
	d, err := kafka.StartDev(kafka.DevOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return broker{d.Addr()}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(30 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it never came to pass that %s", what)
		}
	}
}

// world is one application on a broker: its topics, its saga, its only participant.
type world struct {
	b      broker
	app    string
	shards int
	plain  *kgo.Client // for what others write
	admin  *kadm.Client

	mu       sync.Mutex
	commands []command
	held     map[string]bool // orders whose commands are not answered yet
}

// command is one as the participant read it.
type command struct {
	key, typ, id, idempotency string
	replied                   bool
}

var apps atomic.Int64

// newWorld has its topics created, with one partition of orders a shard.
func newWorld(t *testing.T, b broker, shards int) *world {
	t.Helper()
	// Real Kafka outlives the process that ran the tests before.
	w := &world{b: b, app: fmt.Sprintf("engine-%d-%d-%d", os.Getpid(), time.Now().UnixMilli()%1e6, apps.Add(1)), shards: shards, held: map[string]bool{}}
	var err error
	w.plain, err = kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.ProducerBatchMaxBytes(16<<20), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.plain.Close)
	w.admin = kadm.NewClient(w.plain)
	w.create(t)
	return w
}

func (w *world) orders() string     { return w.app + "-orders" }
func (w *world) cmds() string       { return w.app + "-commands" }
func (w *world) own() events.Topics { return events.Topics{App: w.app} }

func (w *world) plan() kafka.PlanOptions {
	return kafka.PlanOptions{App: w.app, Partitions: w.shards, Replication: 1, MinISR: 1, Inputs: []string{w.orders()}, Commands: []string{w.cmds()}, Create: true}
}

// create makes the topics that are missing.
func (w *world) create(t *testing.T) {
	t.Helper()
	c := w.dial(t)
	defer c.Close()
	if _, err := kafka.Plan(w.plan()).Apply(bounded(t), c); err != nil {
		t.Fatal(err)
	}
	var all []orchestrator.TopicPartition
	for _, p := range kafka.Plan(w.plan()).Topics {
		for i := range p.Partitions {
			all = append(all, orchestrator.TopicPartition{Topic: p.Name, Partition: int32(i)})
		}
	}
	until(t, "every partition has a leader", func() bool {
		_, err := c.Bounds(bounded(t), all)
		return err == nil
	})
}

func (w *world) dial(t *testing.T, adjust ...func(*kafka.Config)) *kafka.Client {
	t.Helper()
	// Rebalances are noticed by heartbeats.
	cfg := kafka.Config{Brokers: []string{w.b.addr}, Opts: []kgo.Opt{kgo.HeartbeatInterval(100 * time.Millisecond)}}
	for _, f := range adjust {
		f(&cfg)
	}
	c, err := kafka.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Order is the event and the saga's data. Trouble asks one of the saga's functions to misbehave.
type Order struct {
	ID      string  `json:"id"`
	Trouble string  `json:"trouble,omitempty"`
	Weight  float64 `json:"weight,omitempty"`
	Got     string  `json:"got,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// Reserve is the command; a weight that is no number cannot be printed as JSON.
type Reserve struct {
	ID     string  `json:"id"`
	Weight float64 `json:"weight"`
}

// Reserved is its reply.
type Reserved struct {
	Shelf string `json:"shelf"`
}

var zero float64

// The saga's functions, each of which falls over when the order asks for it.
func startOrder(o Order) Order {
	if o.Trouble == "start" {
		panic("the start went wrong")
	}
	return o
}

func plainReserve(o Order) Reserve { return Reserve{o.ID, o.Weight} }

func buildReserve(o Order) Reserve {
	switch o.Trouble {
	case "build":
		panic("the builder fell over")
	case "encode":
		o.Weight = 1 / zero
	}
	return plainReserve(o)
}

func takeReserved(o *Order, r Reserved) {
	if o.Trouble == "reply" {
		panic("the reply was too much")
	}
	o.Got = r.Shelf
}

func weigh(o *Order) {
	if o.Trouble == "do" {
		var scales *Order
		o.Weight = scales.Weight
	}
}

// definition is a saga of one step that can be undone, one that only computes, and one past the pivot.
func (w *world) definition() orchestrator.Definition {
	reserve := sagas.NewCommand[Reserve, Reserved](w.cmds(), "reserve")
	release := sagas.NewCommand[Reserve, struct{}](w.cmds(), "release")
	ship := sagas.NewCommand[Reserve, struct{}](w.cmds(), "ship")
	return sagas.Define("order", "1",
		sagas.StartOn(sagas.NewEvent[Order](w.orders(), "OrderPlaced"), startOrder),
		sagas.Seq(
			sagas.Step("reserve", reserve, buildReserve, takeReserved).Undo(sagas.With(release, plainReserve)),
			sagas.Do("weigh", weigh),
			sagas.Step("ship", ship, plainReserve, nil).Pivot(),
		)).Retention(time.Hour)
}

// id is that of the instance which the order starts: its event has the key for id as well.
func (w *world) id(key string) events.InstanceID {
	return events.NewInstanceID(w.app, "order", key, key, w.shards*events.SlotsPerShard)
}

func order(key, trouble string) *kgo.Record {
	value, err := json.Marshal(Order{ID: key, Trouble: trouble})
	if err != nil {
		panic(err)
	}
	return &kgo.Record{Key: []byte(key), Value: value, Headers: headers(events.HeaderType, "OrderPlaced", events.HeaderID, key)}
}

func headers(pairs ...string) []kgo.RecordHeader {
	var out []kgo.RecordHeader
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return out
}

// put writes a record to one partition and says where it stands.
func (w *world) put(t *testing.T, topic string, partition int32, r *kgo.Record) (place string) {
	t.Helper()
	r.Topic, r.Partition = topic, partition
	got, err := w.plain.ProduceSync(bounded(t), r).First()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s/%d/%d", topic, partition, got.Offset)
}

// place puts orders on a partition, whatever their hash: any will do.
func (w *world) place(t *testing.T, partition int32, keys ...string) {
	t.Helper()
	for _, k := range keys {
		w.put(t, w.orders(), partition, order(k, ""))
	}
}

// participant answers every command done, apart from held ones, until the test ends or it is stopped.
func (w *world) participant(t *testing.T) (stop func()) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.b.addr), kgo.ConsumeTopics(w.cmds()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(50*time.Millisecond), kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			f := cl.PollFetches(context.Background())
			if f.IsClientClosed() {
				return
			}
			f.EachRecord(func(r *kgo.Record) { w.take(cl, r) })
			w.answer(cl)
		}
	}()
	stop = sync.OnceFunc(func() { cl.Close(); <-ended })
	t.Cleanup(stop)
	return stop
}

func (w *world) take(cl *kgo.Client, r *kgo.Record) {
	c := command{key: string(r.Key)}
	for _, h := range r.Headers {
		switch h.Key {
		case events.HeaderType:
			c.typ = string(h.Value)
		case events.HeaderID:
			c.id = string(h.Value)
		case events.HeaderIdempotencyKey:
			c.idempotency = string(h.Value)
		}
	}
	w.mu.Lock()
	w.commands = append(w.commands, c)
	w.mu.Unlock()
	w.answer(cl)
}

// answer replies to whatever is not held and has no reply.
func (w *world) answer(cl *kgo.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.commands {
		c := &w.commands[i]
		if c.replied || w.held[c.key] || w.held["*"] {
			continue
		}
		c.replied = true
		value := `{"shelf":"A7"}`
		if c.key == "garbled" {
			value = `{"shelf":`
		}
		cl.Produce(context.Background(), &kgo.Record{Topic: w.own().Replies(), Key: []byte(c.key), Value: []byte(value),
			Headers: headers(events.HeaderCausationID, c.id)}, nil)
	}
}

func (w *world) hold(key string) { w.mu.Lock(); w.held[key] = true; w.mu.Unlock() }

// release lets the order's commands be answered. The participant notices with the next command.
func (w *world) release(t *testing.T, key string) {
	t.Helper()
	w.mu.Lock()
	delete(w.held, key)
	w.mu.Unlock()
	w.answer(w.plainJava(t))
}

func (w *world) plainJava(t *testing.T) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.b.addr), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// command waits for the first command of that type for an order.
func (w *world) command(t *testing.T, key, typ string) command {
	t.Helper()
	var found command
	until(t, "order "+key+" has the command "+typ, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.commands {
			if c.key == key && c.typ == typ {
				found = c
				return true
			}
		}
		return false
	})
	return found
}

// node is an engine that runs.
type node struct {
	*orchestrator.Engine
	log    *logs
	client *kafka.Client
	cancel context.CancelFunc
	err    chan error
}

// engine builds one without running it.
func (w *world) engine(t *testing.T, l *logs, k orchestrator.Kafka, adjust ...func(*orchestrator.Config)) *orchestrator.Engine {
	t.Helper()
	cfg := orchestrator.Config{App: w.app, Kafka: k, Definitions: []orchestrator.Definition{w.definition()}, From: orchestrator.FromEarliest,
		Logger: slog.New(l), CacheBytes: 32 << 20}
	for _, f := range adjust {
		f(&cfg)
	}
	e, err := orchestrator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// start runs an engine with a connection of its own.
func (w *world) start(t *testing.T, adjust ...func(*orchestrator.Config)) *node {
	t.Helper()
	l := &logs{}
	c := w.dial(t, func(c *kafka.Config) { c.Logger = slog.New(l); c.MaxBatchBytes = 2 << 20 })
	return w.launch(t, l, c, adjust...)
}

// launch runs an engine on a connection until the test ends.
func (w *world) launch(t *testing.T, l *logs, c *kafka.Client, adjust ...func(*orchestrator.Config)) *node {
	t.Helper()
	n := &node{Engine: w.engine(t, l, c, adjust...), log: l, client: c, err: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.err <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Log(l.tail())
		}
	})
	return n
}

// stop ends it and holds it to its contract.
func (n *node) stop(t *testing.T) {
	t.Helper()
	n.cancel()
	select {
	case err := <-n.err:
		if err != nil {
			t.Errorf("a shutdown ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("the engine does not stop\n%s", buf[:runtime.Stack(buf, true)])
	}
	n.client.Close()
}

func (n *node) owns(t *testing.T, shards int) {
	t.Helper()
	until(t, fmt.Sprintf("the node owns %d shards", shards), func() bool { return len(n.Shards()) == shards })
}

// state waits until one of the nodes shows the order in the state.
func (w *world) state(t *testing.T, key string, want events.State, nodes ...*node) orchestrator.Instance {
	t.Helper()
	var inst orchestrator.Instance
	until(t, fmt.Sprintf("order %s is %s", key, want), func() bool {
		for _, n := range nodes {
			if i, ok, err := n.Get(w.id(key)); err == nil && ok {
				inst = i
			}
		}
		return inst.State == want
	})
	return inst
}

func (w *world) completed(t *testing.T, n *node, keys ...string) {
	t.Helper()
	for _, k := range keys {
		w.state(t, k, events.Completed, n)
	}
}

// decisions reads the whole journal: every decision that was accepted, by the place of its input, a
// forwarded one's origin included.
func (w *world) decisions(t *testing.T) map[string][]*events.Decision {
	t.Helper()
	c := w.dial(t)
	defer c.Close()
	out := map[string][]*events.Decision{}
	for p := range w.shards {
		log, st := c.Log(w.own().Journal(), int32(p)), journal.NewState()
		_, err := log.Read(bounded(t), 0, func(r orchestrator.LogRecord) error {
			v, rec, err := st.Fold(r.Offset, r.Offset == 0, bytes.Clone(r.Value), &store.Batch{})
			if err != nil || v != journal.Accepted {
				return err
			}
			if d := rec.Decision; d != nil && d.Input.Topic != "" {
				at := events.Message{Topic: d.Input.Topic, Partition: d.Input.Partition, Offset: d.Input.Offset}
				if o := d.Input.Origin; o != nil {
					at = events.Message{Topic: o.Topic, Partition: o.Partition, Offset: o.Offset}
				}
				out[at.Place()] = append(out[at.Place()], d)
			}
			return nil
		})
		log.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// everything reads a topic from its start to its end.
func (w *world) everything(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	ends, err := w.admin.ListEndOffsets(bounded(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	starts, err := w.admin.ListStartOffsets(bounded(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	want := int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		s, _ := starts.Lookup(o.Topic, o.Partition)
		want += o.Offset - s.Offset
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.b.addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out []*kgo.Record
	for ctx := bounded(t); int64(len(out)) < want; {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records of %s", len(out), want, topic)
		}
		out = append(out, f.Records()...)
	}
	return out
}

// logs keeps what was logged.
type logs struct {
	mu    sync.Mutex
	lines []line
	attrs []slog.Attr
	root  *logs
}

type line struct {
	level slog.Level
	msg   string
	attrs map[string]string
}

func (l line) String() string { return fmt.Sprintf("%s %s %v", l.level, l.msg, l.attrs) }

// Enabled, Handle, WithAttrs and WithGroup make it a slog.Handler.
func (l *logs) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelDebug }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	x := line{r.Level, r.Message, map[string]string{}}
	for _, a := range l.attrs {
		x.attrs[a.Key] = a.Value.String()
	}
	r.Attrs(func(a slog.Attr) bool { x.attrs[a.Key] = a.Value.String(); return true })
	if offset, ok := x.attrs["offset"]; ok {
		x.attrs["at"] = x.attrs["topic"] + "/" + x.attrs["partition"] + "/" + offset
	}
	if x.attrs["client"] != "" && r.Level < slog.LevelWarn {
		return nil // the Kafka library's own bookkeeping
	}
	top := l
	if l.root != nil {
		top = l.root
	}
	top.mu.Lock()
	defer top.mu.Unlock()
	top.lines = append(top.lines, x)
	return nil
}

func (l *logs) WithAttrs(attrs []slog.Attr) slog.Handler {
	top := l
	if l.root != nil {
		top = l.root
	}
	return &logs{attrs: slices.Concat(l.attrs, attrs), root: top}
}

func (l *logs) WithGroup(string) slog.Handler { return l }

// find gives the lines with that message and those attributes, a value being what it begins with.
func (l *logs) find(msg string, attrs ...string) []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []line
	for _, x := range l.lines {
		ok := strings.Contains(x.msg, msg)
		for i := 0; i < len(attrs); i += 2 {
			ok = ok && strings.HasPrefix(x.attrs[attrs[i]], attrs[i+1])
		}
		if ok {
			out = append(out, x)
		}
	}
	return out
}

func (l *logs) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, x := range l.lines[max(0, len(l.lines)-40):] {
		fmt.Fprintln(&b, x)
	}
	return b.String()
}

// inDir keeps the engine's stores in a folder.
func inDir(dir string) func(*orchestrator.Config) {
	return func(c *orchestrator.Config) { c.Dir = dir }
}

func storeFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "LOCK" {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
