package checker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skald-io/skald/events"
)

// world is a run told line by line: what the owners appended, what came in, what went out. Tests change it before
// it is built. Nothing of it uses the engine.
type world struct {
	t       *testing.T
	app     string
	lines   []*line
	inputs  []events.Message // events, replies, inboxes, quarantine; offsets are given by hand
	effects []Effect
	sent    []events.Message // built from lines; change it with after
	after   func(*world)     // once commands are known, before they are written to topics
	resend  map[string]bool  // labels whose commands are sent twice
	mute    map[string]bool  // labels whose commands are not sent
	cut     map[int32]int    // shard → number of its first lines that were trimmed

	now     int64
	offsets map[Part]int64
}

type line struct {
	label string
	shard int32
	rec   events.Record // without chain
	raw   func(*events.Record)
	lost  bool // of the chain: it is appended, the next does not build on it
}

const app = "shop"

var (
	order1 = idOn(0, "order-1")
	order2 = idOn(1, "order-2")
)

// idOn is the id of an instance on one of two shards.
func idOn(shard int32, key string) events.InstanceID {
	for n := 0; ; n++ {
		id := events.NewInstanceID(app, "place-order", key, fmt.Sprintf("%s-%d", key, n), 128)
		id[1] = byte(shard)
		id[0] = 0
		return id
	}
}

func (w *world) add(label string, shard int32, rec events.Record) *line {
	w.now += 10
	if rec.Kind != events.KindClaim {
		rec.Time = w.now
	}
	l := &line{label: label, shard: shard, rec: rec}
	w.lines = append(w.lines, l)
	return l
}

func (w *world) claim(label string, shard int32, node string, term uint64) {
	w.add(label, shard, events.Record{Kind: events.KindClaim, Term: term, Claim: &events.Claim{Node: node, Shards: 2, Slots: 128}})
}

// line finds a line by its label.
func (w *world) line(label string) *line {
	for _, l := range w.lines {
		if l.label == label {
			return l
		}
	}
	w.t.Fatalf("no line %q", label)
	return nil
}

func (w *world) index(label string) int { return slices.Index(w.lines, w.line(label)) }

func (w *world) remove(label string) {
	w.lines = slices.Delete(w.lines, w.index(label), w.index(label)+1)
}

// in puts a message on a topic, at the next offset, and returns its place as an input.
func (w *world) in(topic string, partition int32, key, value string, headers ...string) events.Input {
	p := Part{topic, partition}
	m := events.Message{Topic: topic, Partition: partition, Offset: w.offsets[p], Key: []byte(key), Value: []byte(value)}
	for i := 0; i < len(headers); i += 2 {
		m.Headers = append(m.Headers, events.Header{Key: headers[i], Value: []byte(headers[i+1])})
	}
	w.offsets[p]++
	w.inputs = append(w.inputs, m)
	return events.Input{Topic: topic, Partition: partition, Offset: m.Offset, Low: m.Offset + 1, MessageID: events.MessageIDOf(&m)}
}

func (w *world) reply(partition int32, id events.CommandID, outcome string) events.Input {
	in := w.in(app+".replies", partition, "", "{}", events.HeaderCausationID, id.Text(app), events.HeaderOutcome, outcome)
	in.Kind = events.InputReply
	return in
}

// forward puts a message read elsewhere into an inbox.
func (w *world) forward(partition int32, in events.Input) events.Input {
	var m events.Message
	for _, x := range w.inputs {
		if x.Topic == in.Topic && x.Partition == in.Partition && x.Offset == in.Offset {
			m = x
		}
	}
	o := events.Origin{Topic: in.Topic, Partition: in.Partition, Offset: in.Offset, Low: in.Offset}
	f := events.WrapForward(&m, o)
	p := Part{app + ".inbox", partition}
	f.Topic, f.Partition, f.Offset = p.Topic, p.Partition, w.offsets[p]
	w.offsets[p]++
	w.inputs = append(w.inputs, f)
	return events.Input{Kind: in.Kind, Topic: f.Topic, Partition: partition, Offset: f.Offset, Low: f.Offset + 1, MessageID: in.MessageID, Origin: &o}
}

func (w *world) effect(id events.InstanceID, step string, phase events.Phase) {
	e := Effect{Instance: id.String(), Step: step, Direction: phase.String(), IdempotencyKey: effectKey(id, step, 1, phase), Order: uint64(len(w.effects) + 1), Time: w.now}
	if phase == events.Compensate {
		e.Undoes = effectKey(id, step, 1, events.Forward)
	}
	w.effects = append(w.effects, e)
}

var stepNode = map[string]uint32{"a": 1, "b": 2, "c": 3, "x": 2, "y": 3}

func cmdID(id events.InstanceID, step string, phase events.Phase, attempt uint32) events.CommandID {
	return events.CommandID{Instance: id, Node: stepNode[step], Execution: 1, Attempt: attempt, Phase: phase}
}

func head(key string, s events.State, due int64) events.RowChange {
	h := events.Head{Definition: "place-order", Version: "1", Key: key, State: s}
	return events.RowChange{Ref: events.RowRef{Part: events.PartHead}, Due: due, Value: h.Encode(nil)}
}

func node(step string, status events.NodeStatus, attempts, undos uint32, due int64) events.RowChange {
	n := events.NodeState{Status: status, Execution: 1, Attempts: attempts, Payload: []byte("do " + step),
		Undo: &events.Obligation{Topic: "cmd." + step, Type: "Undo", Payload: []byte("undo " + step), Attempts: undos}}
	return events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: uint64(stepNode[step])}, Due: due, Value: n.Encode(nil)}
}

func fact(kind events.EntryKind, step string, phase events.Phase, attempt uint32) events.Entry {
	return events.Entry{Kind: kind, Step: step, Node: stepNode[step], Phase: phase, Execution: 1, Attempt: attempt}
}

func emitted(step string, phase events.Phase, attempt uint32, expiry int64) events.Emit {
	typ := "Do"
	if phase == events.Compensate {
		typ = "Undo"
	}
	return events.Emit{Kind: events.EmitCommand, Topic: "cmd." + step, Type: typ, Step: step, Node: stepNode[step], Execution: 1, Attempt: attempt, Phase: phase, Expiry: expiry}
}

const never = int64(1) << 40

// clean is a run in which nothing is wrong: order 1, on shard 0, is completed and purged; order 2, on shard 1, is
// undone after its third step is never heard of. One reply lands on the wrong partition and is forwarded, one is
// nonsense. Shard 1 changes hands, and its old owner writes on; then it is compacted.
func clean(t *testing.T) *world {
	w := &world{t: t, app: app, now: 1000, offsets: map[Part]int64{}, resend: map[string]bool{}, mute: map[string]bool{}, cut: map[int32]int{}}
	w.claim("claim 0", 0, "n1", 1)
	w.claim("claim 1", 1, "n1", 1)
	w.progress("positions 0", 0, 0, events.Position{Topic: "orders", Partition: 0}, events.Position{Topic: app + ".replies", Partition: 0}, events.Position{Topic: app + ".inbox", Partition: 0})
	w.progress("positions 1", 1, 0, events.Position{Topic: "orders", Partition: 1}, events.Position{Topic: app + ".replies", Partition: 1}, events.Position{Topic: app + ".inbox", Partition: 1})

	// order 1
	in := w.in("orders", 0, "order-1", "{}", events.HeaderType, "placed", events.HeaderID, "m1")
	w.start("1 starts", 0, order1, "order-1", in)
	w.effect(order1, "a", events.Forward)
	in = w.reply(0, cmdID(order1, "a", events.Forward, 1), "done")
	w.next("1 a done", 0, order1, "order-1", in, "a", "b")
	w.effect(order1, "b", events.Forward)
	in = w.reply(1, cmdID(order1, "b", events.Forward, 1), "done") // lands on the other shard
	in = w.forward(0, in)
	due := w.now + 500
	w.decide("1 b done", 0, events.Decision{Outcome: events.Applied, Input: in, Instance: order1,
		Entries: []events.Entry{fact(events.EntryDone, "b", events.Forward, 1), {Kind: events.EntryTransition, To: events.Completed}},
		Rows:    []events.RowChange{head("order-1", events.Completed, due), node("b", events.NodeDone, 1, 0, 0)}})

	// order 2
	in = w.in("orders", 1, "order-2", "{}", events.HeaderType, "placed", events.HeaderID, "m2")
	w.start("2 starts", 1, order2, "order-2", in)
	w.effect(order2, "a", events.Forward)
	w.next("2 a done", 1, order2, "order-2", w.reply(1, cmdID(order2, "a", events.Forward, 1), "done"), "a", "b")
	w.effect(order2, "b", events.Forward)
	w.next("2 b done", 1, order2, "order-2", w.reply(1, cmdID(order2, "b", events.Forward, 1), "done"), "b", "c")
	w.claim("claim 1 again", 1, "n2", 2)
	due = w.line("2 b done").rec.Decision.Rows[2].Due
	w.now = due
	w.decide("2 c times out", 1, events.Decision{Outcome: events.Applied, Instance: order2,
		Input: events.Input{Kind: events.InputTimer, Row: events.RowRef{Part: events.PartNode, N: 3}, Due: due},
		Entries: []events.Entry{fact(events.EntryUnknown, "c", events.Forward, 1), fact(events.EntryFailed, "c", events.Forward, 1),
			{Kind: events.EntryTransition, To: events.Compensating}, fact(events.EntryCommand, "c", events.Compensate, 1)},
		Rows:  []events.RowChange{head("order-2", events.Compensating, 0), node("c", events.NodeUndoing, 1, 1, never)},
		Emits: []events.Emit{emitted("c", events.Compensate, 1, 0)}})
	w.effect(order2, "c", events.Compensate)
	w.back("2 c undone", w.reply(1, cmdID(order2, "c", events.Compensate, 1), "done"), "c", "b")
	w.effect(order2, "b", events.Compensate)
	w.back("2 b undone", w.reply(1, cmdID(order2, "b", events.Compensate, 1), "done"), "b", "a")
	w.effect(order2, "a", events.Compensate)
	w.back("2 a undone", w.reply(1, cmdID(order2, "a", events.Compensate, 1), "done"), "a", "")

	// nonsense
	in = w.in(app+".replies", 1, "", "?")
	in.Kind = events.InputReply
	w.in(app+".quarantine", 0, "", "?", events.HeaderPlace, fmt.Sprintf("%s/%d/%d", in.Topic, in.Partition, in.Offset))
	w.decide("nonsense", 1, events.Decision{Outcome: events.Quarantined, Reason: "missing-header", Input: in})

	w.progress("progress 1", 1, 6)
	w.add("checkpoint", 1, events.Record{Kind: events.KindCheckpoint, Checkpoint: &events.Checkpoint{Positions: []events.Position{
		{Topic: "orders", Partition: 1, Low: 1}, {Topic: app + ".replies", Partition: 1, Low: w.offsets[Part{app + ".replies", 1}]}, {Topic: app + ".inbox", Partition: 1}},
		Progress: events.Progress{EmittedSeq: 6}, Claim: events.Claim{Node: "n2", Shards: 2, Slots: 128}}})
	h := w.line("2 a undone").rec.Decision.Rows[0]
	w.add("carry", 1, events.Record{Kind: events.KindCarry, Carry: &events.Carry{Rows: []events.CarriedRow{{Key: events.RowKey(order2, h.Ref), Due: h.Due, Value: h.Value}}, End: 11}})

	w.now = w.line("1 b done").rec.Decision.Rows[0].Due
	w.decide("1 purged", 0, events.Decision{Outcome: events.Applied, Instance: order1, Purge: true,
		Input: events.Input{Kind: events.InputTimer, Row: events.RowRef{Part: events.PartHead}, Due: w.now}})
	return w
}

func (w *world) decide(label string, shard int32, d events.Decision) *line {
	return w.add(label, shard, events.Record{Kind: events.KindDecision, Decision: &d})
}

func (w *world) progress(label string, shard int32, emitted uint64, ps ...events.Position) {
	w.decide(label, shard, events.Decision{Outcome: events.Progressed, Progress: &events.Progress{EmittedSeq: emitted, Positions: ps}})
}

func (w *world) start(label string, shard int32, id events.InstanceID, key string, in events.Input) {
	in.Kind = events.InputEvent
	due := w.now + 300
	w.decide(label, shard, events.Decision{Outcome: events.Applied, Input: in, Instance: id,
		Entries: []events.Entry{{Kind: events.EntryStarted, Message: in.MessageID}, fact(events.EntryCommand, "a", events.Forward, 1)},
		Rows:    []events.RowChange{head(key, events.Running, 0), node("a", events.NodeActive, 1, 0, due)},
		Emits:   []events.Emit{emitted("a", events.Forward, 1, due)}})
}

func (w *world) next(label string, shard int32, id events.InstanceID, key string, in events.Input, done, then string) {
	due := w.now + 300
	w.decide(label, shard, events.Decision{Outcome: events.Applied, Input: in, Instance: id,
		Entries: []events.Entry{fact(events.EntryDone, done, events.Forward, 1), fact(events.EntryCommand, then, events.Forward, 1)},
		Rows:    []events.RowChange{head(key, events.Running, 0), node(done, events.NodeDone, 1, 0, 0), node(then, events.NodeActive, 1, 0, due)},
		Emits:   []events.Emit{emitted(then, events.Forward, 1, due)}})
}

func (w *world) back(label string, in events.Input, undone, then string) {
	d := events.Decision{Outcome: events.Applied, Input: in, Instance: order2,
		Entries: []events.Entry{fact(events.EntryDone, undone, events.Compensate, 1), fact(events.EntryDischarged, undone, 0, 0)},
		Rows:    []events.RowChange{head("order-2", events.Compensating, 0), node(undone, events.NodeUndone, 1, 1, 0)}}
	if then == "" {
		d.Entries = append(d.Entries, events.Entry{Kind: events.EntryTransition, To: events.Compensated})
		d.Rows[0] = head("order-2", events.Compensated, never)
	} else {
		d.Entries = append(d.Entries, fact(events.EntryCommand, then, events.Compensate, 1))
		d.Rows = append(d.Rows, node(then, events.NodeUndoing, 1, 1, never))
		d.Emits = append(d.Emits, emitted(then, events.Compensate, 1, 0))
	}
	w.decide(label, 1, d)
}

// build chains the lines, sends what they emit, and hands the evidence over.
func (w *world) build() *Evidence {
	type chain struct {
		nonce  events.Nonce
		seq    uint64
		hash   events.Hash
		offset int64
	}
	chains := map[int32]*chain{}
	e := NewEvidence(w.app)
	e.Log(app+".inbox", 1)
	e.Log(app+".journal", 0)
	for n, l := range w.lines {
		c := chains[l.shard]
		if c == nil {
			c = &chain{}
			chains[l.shard] = c
		}
		rec := l.rec
		if rec.Kind == events.KindClaim {
			rec.Nonce = events.Nonce{byte(n + 1)}
			c.nonce = rec.Nonce
		} else {
			rec.Nonce, rec.Seq, rec.Prev = c.nonce, c.seq+1, c.hash
			if rec.Kind == events.KindCheckpoint {
				rec.Term = 2
			}
		}
		if l.raw != nil {
			l.raw(&rec)
		}
		value := rec.Encode(nil)
		if rec.Kind != events.KindClaim && !l.lost {
			c.seq, c.hash = rec.Seq, events.HashOf(value)
		}
		if w.cut[l.shard] > 0 {
			w.cut[l.shard]--
		} else {
			e.Add(events.Message{Topic: app + ".journal", Partition: l.shard, Offset: c.offset, Value: value})
		}
		c.offset++
		if l.lost {
			continue
		}
		out, err := events.Outgoing(app, &rec)
		if err != nil && l.raw == nil {
			w.t.Fatal(err)
		}
		out = slices.DeleteFunc(out, func(m events.Message) bool { return m.Topic == app+".inbox" }) // see message
		for range 1 + b2n(w.resend[l.label]) - b2n(w.mute[l.label]) {
			w.sent = append(w.sent, out...)
		}
	}
	if w.after != nil {
		w.after(w)
	}
	at := map[Part]int64{}
	for _, m := range w.sent {
		p := Part{m.Topic, m.Partition}
		m.Offset = at[p]
		at[p]++
		e.Add(m)
	}
	for _, m := range w.inputs {
		e.Add(m)
	}
	e.Ledgers = [][]Effect{w.effects}
	return e
}
