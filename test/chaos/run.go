package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	connector "github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/test/check/checker"
	"github.com/skald-io/skald/test/check/redecide"
	"github.com/skald-io/skald/test/kafka"
)

// options say how to run.
type options struct {
	brokers  []string
	app      string
	dir      string // for stores, ledgers and logs
	rate     int    // sagas a second
	seed     uint64
	duration time.Duration // at least; 0: the schedule once
	out      io.Writer

	kinds         []string       // names of the sagas; all without
	schedule      []string       // of kills and troubles, in turns; the whole schedule without
	cluster       *kafka.Cluster // whose brokers may be killed, when there are three; nil: it is somebody else's
	transactional bool           // nodes emit in transactions, and are killed in them
}

const (
	shards       = 12
	eventParts   = 5 // a topic that lines up with nothing
	nodeCount    = 3
	takeOverTime = 30 * time.Second // the most that a shard may be without a living owner
	endTime      = time.Minute      // the most that open sagas take to end, once the load has stopped
)

// schedule is the order of kills and troubles. Each word is one event; a double is two nodes at once, a triple all three.
var schedule = strings.Fields(`appended decided pause appended random flip double decided reset appended participant decided slow
	appended triple decided deaf appended participant storm decided random double appended decided`)

// outcome is what a run has to show.
type outcome struct {
	report    *checker.Report
	evidence  *checker.Evidence
	again     *redecide.Report // decisions made once more
	kills     map[string]int   // of nodes, by class
	partKills int
	whole     bool // the whole schedule
	seed      uint64
	elapsed   time.Duration
	troubles  map[string]int // that landed
	proven    []string       // kills at a point, with what proves it
	takeOvers []time.Duration
	orders    int
	zombie    zombie
	broken    []broken // transactions in which a node was killed
	committed map[string]map[string]int
}

// zombie is what became of the owner that was stopped.
type zombie struct {
	node      string
	moved     int   // shards it owned and lost
	trimmed   int   // of them, those whose journal was trimmed past its claim meanwhile
	attempted int   // records with its old nonces that were appended after it woke
	accepted  int   // of them; must be 0
	woken     int64 // ms since 1970
}

func (o *outcome) nodeKills() (n int) {
	for _, k := range o.kills {
		n += k
	}
	return n
}

type harness struct {
	options
	cast  *cast
	admin *kadm.Client
	load  *kgo.Client
	rec   *checker.Recorder
	track *track
	// Of a run in transactions: somebody who reads committed records only.
	reader *committedReader
	rand   *rand.Rand
	out    *outcome

	mu     sync.Mutex // of the nodes' children, which whoever acts looks at
	nodes  []*node1
	parts  []*part
	placed atomic.Int64
	acts   atomic.Int64
	tended []tended
	began  time.Time
	epochs map[string]int64 // nonces of the stopped node → where its shard's journal ended when it woke
}

// node1 is one of the nodes, through its incarnations.
type node1 struct {
	n    int
	life int
	*child
}

type part struct {
	n        int
	life     int
	services string
	*child
}

func (h *harness) logf(format string, args ...any) {
	fmt.Fprintf(h.options.out, "%6.1fs  %s\n", time.Since(h.began).Seconds(), fmt.Sprintf(format, args...))
}

// run does all of it. An error says what kept it from being judged; what is wrong with the engine is in the outcome.
func run(ctx context.Context, o options) (*outcome, error) {
	h := &harness{options: o, cast: newCast(o.app).only(o.kinds), track: newTrack(o.app), rand: rand.New(rand.NewPCG(o.seed, 1)), began: time.Now(),
		out: &outcome{whole: len(o.schedule) == 0, seed: o.seed, kills: map[string]int{}, troubles: map[string]int{}}}
	h.logf("app %s, seed %d, %d sagas/s, files in %s", o.app, o.seed, o.rate, o.dir)
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.brokers...))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	h.load, h.admin = cl, kadm.NewClient(cl)
	if err := h.prepare(ctx); err != nil {
		return nil, unjudged{err}
	}
	defer h.rec.Close()
	defer h.reader.close()
	defer h.killAll()
	if err := h.begin(); err != nil {
		return nil, err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	telling, quiet := context.WithCancel(ctx)
	defer quiet()
	go h.tellCopied(telling)
	go h.tend(telling)
	loaded := make(chan error, 1)
	go func() { loaded <- h.place(loading) }()

	end := time.Now().Add(o.duration)
	schedule := schedule
	switch {
	case h.replicas() > 1 && len(o.schedule) == 0 && !o.transactional:
		schedule = append(slices.Clone(schedule), "broker", "controller")
	case len(o.schedule) > 0:
		schedule = o.schedule
	case o.transactional:
		schedule = transactionalSchedule
	}
	for n := 0; n < len(schedule) || time.Now().Before(end); n++ {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		what := schedule[n%len(schedule)]
		strike := h.strike
		if troubles[what] != nil {
			strike = func(what string) error { return h.suffer(ctx, what) }
		}
		if err := strike(what); err != nil {
			return nil, err
		}
	}
	if !o.transactional {
		if err := h.stopAndWake(ctx); err != nil {
			return nil, err
		}
	}
	stop()
	if err := <-loaded; err != nil {
		return nil, err
	}
	err = h.judge(ctx)
	h.out.elapsed = time.Since(h.began)
	return h.out, err
}

// prepare makes the topics, and begins to record before anybody writes.
func (h *harness) prepare(ctx context.Context) error {
	c, err := connector.Dial(connector.Config{Brokers: h.brokers})
	if err != nil {
		return err
	}
	defer c.Close()
	plan := connector.Plan(connector.PlanOptions{App: h.app, Partitions: shards, Replication: h.replicas(), MinISR: (h.replicas() + 1) / 2, Commands: h.cast.topics, Create: true})
	if _, err := plan.Apply(ctx, c); err != nil {
		return err
	}
	for _, topic := range h.cast.inputs() {
		if _, err := h.admin.CreateTopic(ctx, eventParts, int16(h.replicas()), nil, topic); err != nil {
			return err
		}
	}
	if h.transactional {
		if h.reader, err = readCommitted(h.brokers, h.cast.transactional(true)); err != nil {
			return err
		}
	}
	h.rec, err = checker.NewRecorder(ctx, h.app, h.brokers, append(h.cast.inputs(), h.cast.topics...), h.track.watch)
	return err
}

// replicas is how many of each partition there are.
func (h *harness) replicas() int {
	if h.cluster == nil {
		return 1
	}
	return len(h.brokers)
}

func (h *harness) begin() error {
	for n := range nodeCount {
		h.nodes = append(h.nodes, &node1{n: n})
		if err := h.startNode(h.nodes[n]); err != nil {
			return err
		}
	}
	for n, services := range []string{"stock,courier", "payments,notices"} {
		h.parts = append(h.parts, &part{n: n, services: services})
		if err := h.startPart(h.parts[n]); err != nil {
			return err
		}
	}
	return h.owned(time.Minute)
}

func (h *harness) startNode(n *node1) error {
	n.life++
	name := fmt.Sprintf("n%d.%d", n.n, n.life)
	c, err := spawn(name, h.dir, envRole+"=node", envApp+"="+h.app, envBrokers+"="+strings.Join(h.brokers, ","), envName+"="+name,
		envDir+"="+h.storeDir(n), envCopied+"="+h.copied(),
		envKinds+"="+strings.Join(h.kinds, ","), envTxn+"="+strconv.Itoa(b2n(h.transactional)))
	h.mu.Lock()
	n.child = c
	h.mu.Unlock()
	return err
}

func (h *harness) copied() string { return filepath.Join(h.dir, "copied.json") }

// tellCopied lets the nodes trim what is recorded.
func (h *harness) tellCopied(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ends := map[string]int64{}
		h.rec.With(func(e *checker.Evidence) {
			for p, l := range e.Logs {
				ends[p.Topic+"/"+strconv.Itoa(int(p.Partition))] = l.End
			}
		})
		if err := writeCopied(h.copied(), ends); err != nil && ctx.Err() == nil {
			h.logf("%v", err)
		}
	}
}

func (h *harness) storeDir(n *node1) string {
	return filepath.Join(h.dir, "stores", strconv.Itoa(n.n))
}

func (h *harness) ledgerDir(p *part) string {
	return filepath.Join(h.dir, "ledgers", strconv.Itoa(p.n))
}

func (h *harness) startPart(p *part) error {
	p.life++
	c, err := spawn(fmt.Sprintf("p%d.%d", p.n, p.life), h.dir, envRole+"=participant", envApp+"="+h.app, envBrokers+"="+strings.Join(h.brokers, ","),
		envName+"="+fmt.Sprintf("p%d", p.n), envDir+"="+h.ledgerDir(p), envWork+"="+p.services)
	p.child = c
	return err
}

func (h *harness) killAll() {
	for _, n := range h.nodes {
		if n.child != nil {
			n.kill()
		}
	}
	for _, p := range h.parts {
		if p.child != nil {
			p.kill()
		}
	}
}

// alive are the names of the nodes that run.
func (h *harness) alive() map[string]bool {
	names := map[string]bool{}
	for _, n := range h.nodes {
		if n.child != nil && !n.gone() {
			names[n.name] = true
		}
	}
	return names
}

// owned waits until every shard's last claim is by a node that runs.
func (h *harness) owned(timeout time.Duration) error {
	names := h.alive()
	return h.track.until(timeout, "every shard has a living owner", func() bool {
		for _, o := range h.track.owners {
			if !names[o.node] {
				return false
			}
		}
		return len(h.track.owners) == shards
	})
}

// place is the load: orders at a steady rate, the kinds and their modes in turn; now and then something nobody can
// read. It ends when everything is acknowledged.
func (h *harness) place(ctx context.Context) error {
	tick := time.NewTicker(time.Second / time.Duration(h.rate))
	defer tick.Stop()
	var failed atomic.Pointer[error]
	note := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.Store(&err)
		}
	}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			if err := h.load.Flush(context.WithoutCancel(ctx)); err != nil {
				return err
			}
			if err := failed.Load(); err != nil {
				return *err
			}
			return nil
		case <-tick.C:
		}
		k := h.cast.kinds[n%len(h.cast.kinds)]
		mode := k.modes[n/len(h.cast.kinds)%len(k.modes)]
		id := fmt.Sprintf("order-%06d", n)
		rec := func(value string) *kgo.Record {
			return &kgo.Record{Topic: h.cast.events, Key: []byte(id), Value: []byte(value), Headers: []kgo.RecordHeader{
				{Key: events.HeaderType, Value: []byte(k.typ)}, {Key: events.HeaderID, Value: []byte("event-" + id)}}}
		}
		h.load.Produce(context.WithoutCancel(ctx), rec(fmt.Sprintf(`{"id":%q,"mode":%q,"customer":%q,"note":"%s"}`, id, mode, customer(id), strings.Repeat("x", n%200))), note)
		h.placed.Add(1)
		h.around(context.WithoutCancel(ctx), k.def.Name(), id, mode, n, note)
		switch {
		case n%163 == 162 && k.typ == "basket.placed":
			again := rec(fmt.Sprintf(`{"id":%q,"mode":%q}`, id, mode))
			again.Headers[1].Value = []byte("again-" + id)
			h.load.Produce(context.WithoutCancel(ctx), again, note)
		case n%151 == 150:
			h.load.Produce(context.WithoutCancel(ctx), rec(`{"id":`), note)
		case n%157 == 156:
			h.load.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: h.app + ".replies", Value: []byte("{}"), Headers: []kgo.RecordHeader{
				{Key: events.HeaderCausationID, Value: []byte("cForged")}}}, note)
		}
	}
}

// strike is one event of the schedule.
func (h *harness) strike(what string) error {
	var victims []*node1
	switch what {
	case "participant":
		p := h.parts[h.rand.IntN(len(h.parts))]
		p.kill()
		h.out.partKills++
		h.logf("killed participant %s", p.name)
		h.pause(300 * time.Millisecond)
		return h.startPart(p)
	case "random":
		victims = []*node1{h.owner()}
	case "double":
		victims = slices.Clone(h.nodes)
		victims = slices.Delete(victims, h.rand.IntN(nodeCount), nodeCount)
		for len(victims) < 2 {
			n := h.nodes[h.rand.IntN(nodeCount)]
			if !slices.Contains(victims, n) {
				victims = append(victims, n)
			}
		}
		victims = victims[:2]
	case "triple":
		victims = slices.Clone(h.nodes)
	default:
		n := h.owner()
		if err := n.tell("arm %s %d", what, h.rand.IntN(12)); err != nil {
			return err
		}
		select {
		case line := <-n.said:
			if what == pointCommit || what == pointCommitted {
				if err := h.inTransaction(what, n.name, line); err != nil {
					return err
				}
			} else {
				h.out.proven = append(h.out.proven, n.name+" "+line)
			}
			victims = []*node1{n}
		case <-n.ended:
			return fmt.Errorf("%s ended by itself: %w (%s)", n.name, n.err, n.log)
		case <-time.After(20 * time.Second):
			return fmt.Errorf("%s came to no point %q within 20 s", n.name, what)
		}
	}
	var lost []int32
	h.track.mu.Lock()
	for _, v := range victims {
		lost = append(lost, h.track.shardsOf(v.name)...)
	}
	h.track.mu.Unlock()
	at := time.Now()
	for _, v := range victims {
		_ = v.cmd.Process.Kill() // all first, then wait
	}
	for _, v := range victims {
		v.kill()
		h.out.kills[what]++
	}
	restarted := make(chan error, 1)
	back := time.Duration(h.rand.IntN(2500)) * time.Millisecond
	if what == "triple" {
		back /= 4
	}
	forget := h.rand.IntN(3) == 0
	// Half of the time the others have taken over before the dead are back.
	go func() {
		<-time.After(back)
		for _, v := range victims {
			if forget {
				if err := os.RemoveAll(h.storeDir(v)); err != nil {
					restarted <- err
					return
				}
			}
			if err := h.startNode(v); err != nil {
				restarted <- err
				return
			}
		}
		restarted <- nil
	}()
	dead := map[string]bool{}
	for _, v := range victims {
		dead[v.name] = true
	}
	err := h.track.until(takeOverTime, "what a killed node owned is taken over", func() bool {
		for _, s := range lost {
			if dead[h.track.owners[s].node] {
				return false
			}
		}
		return true
	})
	took := time.Since(at)
	if err := errors.Join(err, <-restarted); err != nil {
		return err
	}
	h.out.takeOvers = append(h.out.takeOvers, took)
	h.logf("killed %-8s %v: %d shards, taken over after %v; back after %v, store deleted: %v", what, slices.Sorted(keysOf(dead)), len(lost), took.Round(time.Millisecond), back, forget)
	if err := h.owned(takeOverTime); err != nil {
		return err
	}
	h.pause(time.Duration(h.rand.IntN(1500)) * time.Millisecond)
	return h.healthy()
}

// pause lets load run for a while; nothing is waited for.
func (h *harness) pause(d time.Duration) { <-time.After(d) }

// healthy fails when a child has ended that nobody killed.
func (h *harness) healthy() error {
	for _, n := range h.nodes {
		if n.gone() {
			return fmt.Errorf("node %s ended by itself: %w (%s)", n.name, n.err, n.log)
		}
	}
	for _, p := range h.parts {
		if p.gone() {
			return fmt.Errorf("participant %s ended by itself: %w (%s)", p.name, p.err, p.log)
		}
	}
	return nil
}

// owner is a node that owns something.
func (h *harness) owner() *node1 {
	h.track.mu.Lock()
	defer h.track.mu.Unlock()
	for _, i := range h.rand.Perm(len(h.nodes)) {
		if len(h.track.shardsOf(h.nodes[i].name)) > 0 {
			return h.nodes[i]
		}
	}
	return h.nodes[0]
}

// stopAndWake stops an owner that is about to append, waits until its shards have others, whose journals are trimmed
// past its claims, wakes it, and counts what of it was accepted.
func (h *harness) stopAndWake(ctx context.Context) error {
	z := h.owner()
	if err := z.tell("arm %s 3", pointAppend); err != nil {
		return err
	}
	select {
	case line := <-z.said:
		h.logf("%s holds: %s", z.name, line)
	case <-z.ended:
		return fmt.Errorf("%s ended by itself: %w (%s)", z.name, z.err, z.log)
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s came to no append within 20 s", z.name)
	}
	h.track.mu.Lock()
	old := map[int32]owner{}
	for _, s := range h.track.shardsOf(z.name) {
		old[s] = h.track.owners[s]
	}
	h.track.mu.Unlock()
	if err := z.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	h.out.zombie = zombie{node: z.name, moved: len(old)}
	successors := map[int32]owner{}
	if err := h.track.until(takeOverTime, "the stopped node's shards are taken over", func() bool {
		for s := range old {
			if successors[s] = h.track.owners[s]; successors[s].node == z.name {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	h.logf("%s is stopped; its %d shards are taken over", z.name, len(old))
	// The load goes on, so their journals grow and are compacted.
	late := time.Now().Add(90 * time.Second)
	for {
		starts, err := h.admin.ListStartOffsets(ctx, h.app+".journal")
		if err != nil {
			return err
		}
		h.out.zombie.trimmed = 0
		for s := range old {
			if o, ok := starts.Lookup(h.app+".journal", s); ok && o.Offset > successors[s].offset {
				h.out.zombie.trimmed++
			}
		}
		if h.out.zombie.trimmed == len(old) {
			break
		}
		if time.Now().After(late) {
			return fmt.Errorf("only %d of %d journals were trimmed past the claims of %s's successors within 90 s", h.out.zombie.trimmed, len(old), z.name)
		}
		h.pause(200 * time.Millisecond)
	}
	if err := h.rec.CatchUp(ctx, h.app+".journal"); err != nil {
		return err
	}
	ends, err := h.admin.ListEndOffsets(ctx, h.app+".journal")
	if err != nil {
		return err
	}
	h.logf("all trimmed; it wakes")
	h.out.zombie.woken = time.Now().UnixMilli()
	if err := z.tell("go"); err != nil {
		return err
	}
	if err := z.signal(syscall.SIGCONT); err != nil {
		return err
	}
	if err := h.track.until(30*time.Second, "the woken node writes with its old nonce", func() bool {
		for s, o := range old {
			end, _ := ends.Lookup(h.app+".journal", s)
			if h.track.byNonce[o.nonce][s] >= end.Offset {
				return true
			}
		}
		return false
	}); err != nil {
		return err
	}
	h.pause(3 * time.Second) // whatever else it has in mind
	nonces := map[string]int64{}
	for s, o := range old {
		end, _ := ends.Lookup(h.app+".journal", s)
		nonces[o.nonce.String()] = end.Offset
	}
	h.epochs = nonces
	return h.healthy()
}
