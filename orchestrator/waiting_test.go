package orchestrator

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/sagas"
)

var (
	bill   = sagas.NewCommand[charge, charged]("billing", "bill")
	unbill = sagas.NewCommand[charge, charged]("billing", "unbill")

	// known is what every node runs; billing is what only the newer ones do, on the same topic.
	known = sagas.Define("known", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("orders", "Placed"), func(e orderPlaced) order { return order(e) }),
		sagas.Step("pay", pay, toCharge, nil).Undo(sagas.With(refund, toCharge)).Timeout(time.Minute))
	billing = sagas.Define("billing", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("orders", "Billed"), func(e orderPlaced) order { return order(e) }),
		sagas.Step("bill", bill, toCharge, nil).Undo(sagas.With(unbill, toCharge)).Timeout(time.Minute))
)

func plansOf(t *testing.T, defs ...Definition) (out []*sagas.Plan) {
	t.Helper()
	for _, d := range defs {
		p, err := d.Plan()
		must(t, err)
		out = append(out, p)
	}
	return out
}

// knows is the meta topic after the definitions were published, as a node that has own reads it.
func knows(t *testing.T, k Kafka, own, published []*sagas.Plan) *meta {
	t.Helper()
	m := &meta{kafka: k, tp: TopicPartition{"shop.meta", 0}, log: slog.New(slog.DiscardHandler), state: events.NewMetaState(), changed: make(chan struct{})}
	for _, p := range own {
		m.own = append(m.own, refOf(p))
	}
	for i, p := range published {
		d := &events.DefinitionInfo{Name: p.Name, Version: p.Version, Hash: p.Hash, Events: eventsOf(p)}
		m.Records(m.tp, []events.Message{{Offset: int64(i), Key: []byte(events.DefinitionKey(d.Ref())), Value: (&events.MetaRecord{Definition: d}).Encode(nil)}})
	}
	return m
}

// rolling is an application with two builds: old nodes run known, new ones billing as well.
type rolling struct {
	*story
	waits []events.DefinitionRef
}

func newRolling(t *testing.T, shards int) *rolling {
	return &rolling{story: newStory(t, shards, known)}
}

func (r *rolling) node(id int32, build string) *Shard {
	r.t.Helper()
	all := plansOf(r.t, billing, known)
	own := all
	if build == "old" {
		own = all[1:]
	}
	r.tune = func(c *ShardConfig) {
		c.Machine = machine.New(machine.Config{App: app, Slots: r.shards * events.SlotsPerShard, Plans: own})
		c.Meta = knows(r.t, r.kafka, own, all)
		c.Waits = func(d events.DefinitionRef) { r.waits = append(r.waits, d) }
	}
	return r.open(id, build)
}

// settle drives shards, and what runs beside them.
func (r *rolling) settle(shards ...*Shard) {
	r.t.Helper()
	waitFor(r.t, func() bool {
		must(r.t, r.turn(shards...))
		return !slices.ContainsFunc(shards, func(s *Shard) bool {
			return s.hasMail() || slices.ContainsFunc(s.inputs, func(in *input) bool { return in.asking })
		})
	})
}

func (r *rolling) event(partition int32, typ, key string) {
	r.kafka.put(events.Message{Topic: "orders", Partition: partition, Key: []byte(key), Value: []byte(`{"id":"` + key + `"}`),
		Headers: []events.Header{{Key: events.HeaderType, Value: []byte(typ)}}})
}

// states are how the instances of a definition stand, in order.
func (r *rolling) states(id int32, definition string) (out []events.State) {
	for _, h := range r.heads(id) {
		if h.Definition == definition {
			out = append(out, h.State)
		}
	}
	slices.Sort(out)
	return out
}

func (r *rolling) want(id int32, definition string, states ...events.State) {
	r.t.Helper()
	slices.Sort(states)
	if got := r.states(id, definition); !slices.Equal(got, states) {
		r.t.Errorf("instances of %s are %v, want %v", definition, got, states)
	}
}

// L12: during a rolling deployment an old node takes a shard with new sagas, and a new one takes it back, and so on.
func TestRollingBackAndForthParksAndLosesNothing(t *testing.T) {
	r := newRolling(t, 1)
	sh := r.node(0, "new")
	answered := map[string]bool{}
	answer := func(topic string) (n int) {
		ids, _ := r.commands(topic)
		for _, id := range ids {
			if !answered[id] {
				answered[id] = true
				r.reply(0, id, "")
				n++
			}
		}
		return n
	}
	for turn := range 3 {
		// The new build starts one of each kind.
		r.event(0, "Billed", fmt.Sprint("bill-", turn))
		r.event(0, "Placed", fmt.Sprint("order-", turn))
		r.settle(sh)
		// It goes before it is answered, and a new event waits already.
		answer("billing")
		r.event(0, "Billed", fmt.Sprint("late-", turn))
		sh.close()
		sh = r.node(0, "old")
		r.settle(sh)
		answer("payments")
		r.event(0, "Placed", fmt.Sprint("neighbour-", turn))
		r.settle(sh)
		if n := answer("billing"); n != 0 {
			t.Fatalf("an old node sent %d commands of a saga it does not have", n)
		}
		// Neighbours go on; a time-out of theirs fires, and none of what waits does.
		r.advance(2 * time.Minute)
		before := r.timersFired(0)
		r.settle(sh)
		if got := r.timersFired(0) - before; got != 1 {
			t.Errorf("turn %d: %d timers fired on the old node, want the neighbour's", turn, got)
		}
		if n := sh.cfg.Stats.waiting.Load(); n != 2 {
			t.Errorf("turn %d: %d inputs wait, want the reply and the event", turn, n)
		}
		r.advance(time.Minute)
		r.settle(sh)
		for answer("payments") > 0 {
			r.settle(sh)
		}
		must(t, sh.drain())
		sh.close()
		if n := sh.cfg.Stats.waiting.Load(); n != 0 {
			t.Errorf("turn %d: %d inputs wait where no shard is", turn, n)
		}
		sh = r.node(0, "new")
		r.settle(sh)
		for answer("billing")+answer("payments") > 0 {
			r.settle(sh)
		}
	}
	all := func(s events.State) []events.State { return slices.Repeat([]events.State{s}, 6) }
	r.want(0, "billing", all(events.Completed)...)
	r.want(0, "known", all(events.Completed)...)
	for _, rec := range r.kafka.part(TopicPartition{"shop.journal", 0}).records {
		d, err := events.DecodeRecord(rec.Value)
		must(t, err)
		if d.Decision != nil && (d.Decision.Outcome == machine.Waits || d.Decision.Outcome == events.Quarantined) {
			t.Errorf("journal offset %d: %s %s", rec.Offset, d.Decision.Outcome, d.Decision.Reason)
		}
	}
	if len(r.waits) == 0 || r.waits[0].Name != "billing" {
		t.Errorf("it was said that these are waited for: %v", r.waits)
	}
	r.wantRebuilt(0)
}

// L7, L12: a new node forwards the start of a new saga to the shard of an old one, and further forwards follow it,
// whose low mark says that it is in the inbox.
func TestAForwardWaitsForItsDefinitionAndIsNotTakenForADuplicate(t *testing.T) {
	r := newRolling(t, 2)
	sender, old := r.node(0, "new"), r.node(1, "old")
	r.event(0, "Billed", keyOn(1, 2, 1))
	r.settle(sender, old)
	r.event(0, "Placed", keyOn(1, 2, 2))
	r.settle(sender, old)
	r.event(0, "Placed", keyOn(1, 2, 3))
	r.settle(sender, old)
	r.want(1, "known", events.Running, events.Running)
	r.want(1, "billing")
	if n := len(r.kafka.messages("shop.quarantine", 0)); n != 0 {
		t.Errorf("%d records in quarantine", n)
	}
	must(t, old.drain())
	old.close()
	next := r.node(1, "new")
	r.settle(sender, next)
	r.want(1, "billing", events.Running)
	r.want(1, "known", events.Running, events.Running)
	if ids, repeats := r.commands("billing"); len(ids) != 1 || repeats != 0 {
		t.Errorf("%d commands, %d repeats", len(ids), repeats)
	}
	r.wantRebuilt(1)
}

// L12: a command of an absent definition is refused by Kafka when an old node emits it again.
func TestARefusalWaitsForItsDefinition(t *testing.T) {
	r := newRolling(t, 1)
	sh := r.node(0, "new")
	r.kafka.manual = true
	r.event(0, "Billed", "x")
	must(t, r.turn(sh))
	r.kafka.step() // the decision is in the journal, and its owner dies before it emits
	sh.close()
	r.kafka.manual = false
	r.kafka.queue = nil
	r.kafka.refused["billing"] = fmt.Errorf("%w: gone", ErrRefused)
	sh = r.node(0, "old")
	r.settle(sh)
	r.want(0, "billing", events.Running)
	must(t, sh.drain())
	sh.close()
	delete(r.kafka.refused, "billing")
	sh = r.node(0, "new")
	r.settle(sh)
	if ids, _ := r.commands("billing"); len(ids) != 1 {
		t.Errorf("%d commands, want the one that was decided", len(ids))
	}
}

// L8: a shard that an old node owned while a definition was published begins to read its topic where it ended then.
func TestAShardThatReadsATopicLaterThanOthersMissesNothing(t *testing.T) {
	st := newStory(t, 1, known)
	st.order(0, "before")
	d := &events.DefinitionInfo{Name: "known", Version: "1", Events: []events.EventRef{{Topic: "orders", Type: "Placed"}},
		Positions: []events.Position{{Topic: "shop.journal"}, {Topic: "orders", Partition: 0, Low: 1}}}
	st.kafka.put(events.Message{Topic: "orders", Key: []byte("after"), Value: []byte(`{"id":"after"}`), Headers: []events.Header{{Key: events.HeaderType, Value: []byte("Placed")}}})
	st.tune = func(c *ShardConfig) {
		c.From = FromLatest
		c.Meta = knows(t, st.kafka, plansOf(t, known), nil)
		c.Meta.Records(c.Meta.tp, []events.Message{{Key: []byte(events.DefinitionKey(d.Ref())), Value: (&events.MetaRecord{Definition: d}).Encode(nil)}})
	}
	must(t, st.turn(st.open(0, "a")))
	st.wantStates(0, events.Running)
}

// L13: an owner writes the format that every node reads, and a newer one once all do.
func TestAnOwnerWritesTheFormatOfTheLevel(t *testing.T) {
	st := newStory(t, 1, oneStep)
	m := knows(t, st.kafka, nil, nil)
	put := func(key string, r *events.MetaRecord) {
		msg := events.Message{Offset: m.state.Next, Key: []byte(key)}
		if r != nil {
			msg.Value = r.Encode(nil)
		}
		m.Records(m.tp, []events.Message{msg})
	}
	raise := func() { put(events.LevelKey, &events.MetaRecord{Level: &events.FormatLevel{Level: 2}}) }
	put(events.NodeKey("new"), &events.MetaRecord{Node: &events.NodeInfo{Name: "new", Format: 2}})
	put(events.NodeKey("old"), &events.MetaRecord{Node: &events.NodeInfo{Name: "old", Format: 1}})
	st.tune = func(c *ShardConfig) { c.Meta = m }
	sh := st.open(0, "new")
	written := func() (formats []byte) {
		for _, r := range st.kafka.part(TopicPartition{"shop.journal", 0}).records {
			formats = append(formats, r.Value[0])
		}
		return slices.Compact(formats)
	}
	raise() // while an old node is there
	st.order(0, "x")
	must(t, st.turn(sh))
	if got := written(); !slices.Equal(got, []byte{1}) {
		t.Fatalf("formats %v beside a node that reads only format 1", got)
	}
	put(events.NodeKey("old"), nil)
	raise()
	st.order(0, "y")
	must(t, st.turn(sh))
	if got := written(); !slices.Equal(got, []byte{1, 2}) {
		t.Fatalf("formats %v once every node reads format 2", got)
	}
	st.wantRebuilt(0)
}

// L13: what only the newer format can say waits for it, and neighbours go on; no older build ever meets it.
func TestWhatTheLevelCannotSayWaitsUntilItCan(t *testing.T) {
	told := sagas.NewEvent[order]("orders-told", "Told")
	telling := sagas.Define("telling", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("orders", "Telling"), func(e orderPlaced) order { return order(e) }),
		sagas.Emit("tell", told, func(o order) order { return o }))
	st := newStory(t, 1, known)
	plans := plansOf(t, telling, known)
	m := knows(t, st.kafka, plans, plans)
	level := func(n uint32) {
		m.Records(m.tp, []events.Message{{Offset: m.state.Next, Key: []byte(events.LevelKey), Value: (&events.MetaRecord{Level: &events.FormatLevel{Level: n}}).Encode(nil)}})
	}
	level(1)
	st.tune = func(c *ShardConfig) {
		c.Machine = machine.New(machine.Config{App: app, Slots: st.shards * events.SlotsPerShard, Plans: plans})
		c.Meta = m
	}
	r := &rolling{story: st}
	sh := st.open(0, "new")
	r.event(0, "Telling", "t")
	r.event(0, "Placed", "p")
	r.settle(sh)
	r.want(0, "telling")
	r.want(0, "known", events.Running)
	for _, rec := range st.kafka.part(TopicPartition{"shop.journal", 0}).records {
		x, err := events.DecodeRecord(rec.Value)
		must(t, err)
		if x.Format != 1 || x.Decision != nil && x.Decision.NeedsFormat() > 1 {
			t.Fatalf("record %d, of format %d, needs another", x.Seq, x.Format)
		}
	}
	level(2)
	if err := st.turn(sh); !errors.Is(err, errLevelRaised) {
		t.Fatalf("after the level was raised the shard ends with %v", err)
	}
	sh = st.open(0, "new")
	r.settle(sh)
	r.want(0, "telling", events.Completed)
	r.want(0, "known", events.Running)
	st.wantRebuilt(0)
}
