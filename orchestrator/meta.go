package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// ErrDefinitionChanged says that a definition of this name and version was published with another tree.
var ErrDefinitionChanged = errors.New("a definition was changed without a new version")

// ErrLevel says that the application writes a journal format that this build does not read.
var ErrLevel = errors.New("the application's journal is of a newer format")

// meta follows <app>.meta: it reads the topic wholly, and then what is added. It is safe for concurrent use, and a
// nil one knows nothing.
type meta struct {
	kafka Kafka
	tp    TopicPartition
	log   *slog.Logger

	mu      sync.Mutex
	state   *events.MetaState
	closed  bool
	changed chan struct{} // closed by the next change
	own     []events.DefinitionRef

	written atomic.Uint32                        // the level, which every append asks for
	lacking atomic.Pointer[map[string][]lacking] // by topic; see lacks
}

// lacking is an event that a published definition takes and this node does not have.
type lacking struct {
	events.EventRef
	def events.DefinitionRef
	// other is set when this node has another version of the definition: what that one takes, it takes.
	other bool
}

// metaTimeout bounds one question to the meta topic: it is small.
const metaTimeout = 30 * time.Second

// openMeta reads the topic. own are the definitions of this node.
func openMeta(ctx context.Context, k Kafka, app string, own []events.DefinitionRef, log *slog.Logger) (*meta, error) {
	m := &meta{kafka: k, tp: TopicPartition{events.Topics{App: app}.Meta(), 0}, own: own, log: log, state: events.NewMetaState(), changed: make(chan struct{})}
	b, err := m.bounds(ctx)
	if err != nil {
		return nil, err
	}
	m.state.Next = b.Start
	k.Consume(m.tp, b.Start, m)
	if err := m.await(ctx, b.End); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *meta) bounds(ctx context.Context) (Bounds, error) {
	b, err := m.kafka.Bounds(ctx, []TopicPartition{m.tp})
	return b[m.tp], err
}

func (m *meta) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.kafka.Stop(m.tp)
}

// Records implements Sink.
func (m *meta) Records(_ TopicPartition, batch []events.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batch {
		if err := m.state.Fold(&batch[i]); err != nil {
			m.log.Warn("a record of the meta topic is passed over", "err", err)
		}
	}
	m.note()
}

// Reached is told where offsets hold no record.
func (m *meta) Reached(_ TopicPartition, next int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Next = max(m.state.Next, next)
	m.note()
}

// Failed implements Sink. The topic holds nothing that its readers could not read again.
func (m *meta) Failed(_ TopicPartition, err error) {
	m.log.Error("the meta topic is read from its start again: its records at the position are gone", "err", err)
	time.AfterFunc(time.Second, m.restart)
}

func (m *meta) restart() {
	ctx, cancel := context.WithTimeout(context.Background(), metaTimeout)
	defer cancel()
	b, err := m.bounds(ctx)
	m.mu.Lock()
	closed := m.closed
	if !closed && err == nil {
		level := m.state.Level
		m.state = events.NewMetaState()
		m.state.Next, m.state.Level = b.Start, level
	}
	m.mu.Unlock()
	switch {
	case closed:
	case err != nil:
		time.AfterFunc(time.Second, m.restart)
	default:
		m.kafka.Consume(m.tp, b.Start, m)
	}
}

// note is called with mu held after a change.
func (m *meta) note() {
	found := map[string][]lacking{}
	for _, list := range m.state.Definitions {
		d := &list[0]
		if !m.newest(d) || slices.ContainsFunc(m.own, func(r events.DefinitionRef) bool { return r.Name == d.Name && r.Version == d.Version }) {
			continue
		}
		other := slices.ContainsFunc(m.own, func(r events.DefinitionRef) bool { return r.Name == d.Name })
		for _, ev := range d.Events {
			found[ev.Topic] = append(found[ev.Topic], lacking{ev, d.Ref(), other})
		}
	}
	m.lacking.Store(&found)
	m.written.Store(uint32(m.state.Level))
	close(m.changed)
	m.changed = make(chan struct{})
}

// newest reports whether no version of the definition was published later. What an earlier one took and the newest
// does not, is nobody's any more.
func (m *meta) newest(d *events.FirstDef) bool {
	for _, list := range m.state.Definitions {
		if list[0].Name == d.Name && list[0].Offset > d.Offset {
			return false
		}
	}
	return true
}

// next is the channel that the next change closes.
func (m *meta) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// await waits until everything below the offset was read.
func (m *meta) await(ctx context.Context, offset int64) error {
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	defer cancel()
	for {
		m.mu.Lock()
		at, changed := m.state.Next, m.changed
		m.mu.Unlock()
		if at >= offset {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("topic %s: reading up to offset %d, and it gives no more than %d: %w", m.tp.Topic, offset, at, ctx.Err())
		}
	}
}

// sync reads up to the end as it is now.
func (m *meta) sync(ctx context.Context) error {
	b, err := m.bounds(ctx)
	if err != nil {
		return err
	}
	return m.await(ctx, b.End)
}

// put writes a record, or removes it when r is nil, and returns when Kafka has it.
func (m *meta) put(ctx context.Context, key string, r *events.MetaRecord) error {
	msg := &events.Message{Topic: m.tp.Topic, Partition: m.tp.Partition, Key: []byte(key)}
	if r != nil {
		if msg.Value = r.Encode(nil); len(msg.Value) > events.MaxMeta {
			return fmt.Errorf("topic %s, key %.200q: a record of %d bytes, at most %d", m.tp.Topic, key, len(msg.Value), events.MaxMeta)
		}
	}
	acked := make(chan error, 1)
	m.kafka.Produce(msg, func(err error) { acked <- err })
	select {
	case err := <-acked:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nodes are the known nodes, by key.
func (m *meta) nodes() map[string]events.KnownNode {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]events.KnownNode, len(m.state.Nodes))
	for k, n := range m.state.Nodes {
		out[k] = n
	}
	return out
}

// node is what is known under the name.
func (m *meta) node(name string) (events.KnownNode, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.state.Nodes[events.NodeKey(name)]
	return n, ok
}

// Level is the format that owners write: the application's, but none that this build does not know.
func (m *meta) Level() uint8 {
	if m == nil || mutant.On("shard-writes-the-newest-format") {
		return events.Format
	}
	return min(max(uint8(m.written.Load()), 1), events.Format)
}

// reads reports whether a published definition takes events of the topic.
func (m *meta) reads(topic string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, list := range m.state.Definitions {
		if slices.ContainsFunc(list[0].Events, func(e events.EventRef) bool { return e.Topic == topic }) {
			return true
		}
	}
	return false
}

// begins is where the application begins to read a partition of a domain topic: where it ended when the first
// definition that reads it was published, so that a shard which begins later misses nothing. ids are those of the
// topics as they are; what was said of topics that were created anew since does not count.
func (m *meta) begins(tp TopicPartition, ids map[string][16]byte) (low int64, ok bool) {
	if m == nil {
		return 0, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	same := func(p *events.Position) bool {
		id := ids[p.Topic]
		return id == p.TopicID || id == [16]byte{} || p.TopicID == [16]byte{}
	}
	at := int64(-1)
	for _, list := range m.state.Definitions {
		d := &list[0]
		if at >= 0 && d.Offset > at || !slices.ContainsFunc(d.Positions, func(p events.Position) bool { return p.Topic == tp.Topic }) {
			continue
		}
		found, valid := int64(0), true // a partition that was not there yet begins at its start
		for i := range d.Positions {
			p := &d.Positions[i]
			if i == 0 || p.Topic == tp.Topic {
				valid = valid && same(p)
			}
			if p.Topic == tp.Topic && p.Partition == tp.Partition {
				found = p.Low
			}
		}
		if valid {
			low, at, ok = found, d.Offset, true
		}
	}
	return low, ok
}

// lacks says which published definition, that this node does not have, takes the event. own says that a definition
// of this node takes it.
func (m *meta) lacks(msg *events.Message, own bool) (ref events.DefinitionRef, ok bool) {
	if m == nil {
		return ref, false
	}
	all := m.lacking.Load()
	if all == nil || len(*all) == 0 {
		return ref, false
	}
	for _, l := range (*all)[msg.Topic] {
		if own && l.other {
			continue
		}
		typ, _ := msg.Header(events.HeaderType)
		if l.Reads || l.Type == "" || l.Type == typ {
			return l.def, true
		}
	}
	return ref, false
}

// capable reports whether the node can run the definition: one of that name will do where no version is given.
func capable(n *events.NodeInfo, d events.DefinitionRef) bool {
	return slices.ContainsFunc(n.Definitions, func(r events.DefinitionRef) bool {
		return r.Name == d.Name && (d.Version == "" || r.Version == d.Version) && (d.Hash == [8]byte{} || r.Hash == d.Hash)
	})
}

// suits is the preference of rule L12: a shard with inputs that wait for a definition goes to members that have it.
func (m *meta) suits(member string, shard int32) bool {
	if mutant.On("engine-shards-go-to-anybody") {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var waits []events.DefinitionRef
	var who *events.NodeInfo
	for _, n := range m.state.Nodes {
		for _, w := range n.Waiting {
			if w.Shard == shard {
				waits = append(waits, w.Definition)
			}
		}
		if n.Member == member {
			who = &n.NodeInfo
		}
	}
	for _, d := range waits {
		if who == nil || !capable(who, d) {
			return false
		}
	}
	return true
}

// better reports whether a shard with waiting inputs, of those assigned to a node, would be better off with another.
func (m *meta) better() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.state.Nodes {
		for _, w := range n.Waiting {
			if !slices.Contains(n.Shards, w.Shard) {
				continue
			}
			for _, o := range m.state.Nodes {
				if o.Member != "" && o.Name != n.Name && capable(&o.NodeInfo, w.Definition) {
					return true
				}
			}
		}
	}
	return false
}

func refOf(p *sagas.Plan) events.DefinitionRef {
	return events.DefinitionRef{Name: p.Name, Version: p.Version, Hash: p.Hash}
}

// eventsOf are the events that a definition takes.
func eventsOf(p *sagas.Plan) []events.EventRef {
	var out []events.EventRef
	add := func(e *sagas.EventPlan) {
		ref := events.EventRef{Topic: e.Topic, Type: e.Type, Reads: e.TypeOf != nil && e.Type != ""}
		if !slices.ContainsFunc(out, func(o events.EventRef) bool {
			return o.Topic == ref.Topic && o.Type == ref.Type && o.Reads == ref.Reads
		}) {
			out = append(out, ref)
		}
	}
	add(&p.Start.EventPlan)
	for _, n := range p.Nodes {
		if n.Wait != nil && n.Wait.Event != nil {
			add(n.Wait.Event)
		}
	}
	return out
}

// publish makes this node's definitions known, and refuses one whose name and version stand for another tree.
func (m *meta) publish(ctx context.Context, e *Engine, l layout) error {
	for {
		var fresh []*sagas.Plan
		var errs []error
		for _, p := range e.plans {
			m.mu.Lock()
			first := m.state.First(p.Name, p.Version)
			m.mu.Unlock()
			switch {
			case first == nil:
				fresh = append(fresh, p)
			case first.Hash != p.Hash && !mutant.On("engine-another-tree-taken"):
				errs = append(errs, fmt.Errorf("%w: %s version %s is another tree than the one that node %s published (build %s): give it a new version, and keep the old one until its instances have ended:\n%s",
					ErrDefinitionChanged, p.Name, p.Version, first.Node, first.Build, diffLines(first.Export, p.Export())))
			}
		}
		if len(errs) > 0 || len(fresh) == 0 {
			return errors.Join(errs...)
		}
		for _, p := range fresh {
			d := &events.DefinitionInfo{Name: p.Name, Version: p.Version, Hash: p.Hash, Export: p.Export(), Events: eventsOf(p), Node: e.cfg.Node, Build: Build()}
			var err error
			if d.Positions, err = m.positions(ctx, e, l, d.Events); err != nil {
				return err
			}
			if err := m.put(ctx, events.DefinitionKey(d.Ref()), &events.MetaRecord{Definition: d}); err != nil {
				return fmt.Errorf("publishing definition %s version %s: %w", p.Name, p.Version, err)
			}
			// Another node may have been faster, with another tree; and the next definition may read the same topics.
			if err := m.sync(ctx); err != nil {
				return err
			}
		}
	}
}

// positions says where topics begin that no definition reads yet. The journal's topic stands beside them: if it is
// created anew, they mean nothing.
func (m *meta) positions(ctx context.Context, e *Engine, l layout, takes []events.EventRef) ([]events.Position, error) {
	var tps []TopicPartition
	for _, ev := range takes {
		if m.reads(ev.Topic) || slices.ContainsFunc(tps, func(tp TopicPartition) bool { return tp.Topic == ev.Topic }) {
			continue
		}
		for p := range l.domain[ev.Topic] {
			tps = append(tps, TopicPartition{ev.Topic, int32(p)})
		}
	}
	if len(tps) == 0 {
		return nil, nil
	}
	bounds, err := e.cfg.Kafka.Bounds(ctx, tps)
	if err != nil {
		return nil, err
	}
	journal := e.topics.Journal()
	out := []events.Position{{Topic: journal, TopicID: l.ids[journal]}}
	for _, tp := range tps {
		low := bounds[tp].End
		if e.cfg.From == FromEarliest {
			low = bounds[tp].Start
		}
		out = append(out, events.Position{Topic: tp.Topic, TopicID: l.ids[tp.Topic], Partition: tp.Partition, Low: low})
	}
	return out, nil
}

// diffLines shows how two texts differ: what only was in the first with '-', what only is in the second with '+'.
func diffLines(was, is string) string {
	const most = 40 // lines
	a, b := strings.Split(strings.TrimSuffix(was, "\n"), "\n"), strings.Split(strings.TrimSuffix(is, "\n"), "\n")
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a)*len(b) > 1<<20 {
		a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	}
	// common[i][j] is how many lines a[i:] and b[j:] have in common, in order.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+events.Cut(a[i], 400))
			i++
		default:
			out = append(out, "+ "+events.Cut(b[j], 400))
			j++
		}
	}
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("... and %d lines more", len(out)-most))
	}
	return strings.Join(out, "\n")
}

func refsOf(plans []*sagas.Plan) (out []events.DefinitionRef) {
	for _, p := range plans {
		out = append(out, refOf(p))
	}
	return out
}
