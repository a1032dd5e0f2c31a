package checker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// kindsPlan has a save-point and a wait for an event: step x, undone when it fails, then y instead, then the payment.
func kindsPlan() *sagas.Plan {
	paid := &sagas.WaitPlan{Event: &sagas.EventPlan{Topic: "payments", Type: "paid"}}
	p := tree(seq(&sagas.Node{Kind: sagas.KindTry, Name: "t", Children: []*sagas.Node{step("x"), step("y")}}, &sagas.Node{Kind: sagas.KindWait, Name: "wait", Wait: paid}))
	p.Name = "kinds"
	return p
}

var (
	order3 = idOn(0, "order-3")
	waiter = events.Waiter{Instance: order3, Node: 4, Execution: 1}
	payer  = payerOn(1)
)

func payerOn(shard int32) string {
	for n := 0; ; n++ {
		if key := fmt.Sprintf("payer-%d", n); correlationOf(key).Shard(2) == shard {
			return key
		}
	}
}

func correlationOf(key string) events.InstanceID {
	return events.CorrelationID(app, "kinds", "payments", "paid", key, 128)
}

// message is the inbox's record of what a line emits.
func (w *world) message(partition int32, label string) events.Input {
	l := w.line(label)
	seq := uint64(0)
	for _, x := range w.lines[:w.index(label)+1] {
		seq += uint64(b2n(x.shard == l.shard && x.rec.Kind != events.KindClaim))
	}
	n := slices.IndexFunc(l.rec.Decision.Emits, func(e events.Emit) bool { return e.Kind == events.EmitMessage })
	e := l.rec.Decision.Emits[n]
	o := events.Origin{Topic: app + ".journal", Partition: l.shard, Offset: events.MessageOffset(seq, n)}
	m := events.WrapMessage(e.Payload, e.To, &o)
	p := Part{app + ".inbox", partition}
	m.Topic, m.Partition, m.Offset = p.Topic, p.Partition, w.offsets[p]
	w.offsets[p]++
	w.inputs = append(w.inputs, m)
	return events.Input{Kind: events.InputMessage, Topic: m.Topic, Partition: partition, Offset: m.Offset, Low: m.Offset + 1, MessageID: o.ID(), Origin: &o}
}

func says(kind events.InboxKind, to events.InstanceID, event string) events.Emit {
	m := events.InboxMessage{Kind: kind, To: to, From: waiter, EventID: event, Correlation: correlationOf(payer)}
	return events.Emit{Kind: events.EmitMessage, To: to, Payload: m.Encode(nil)}
}

func correlationRow(c events.Correlation) events.RowChange {
	c.Definition, c.Topic, c.Type, c.Key = "kinds", "payments", "paid", payer
	return events.RowChange{Ref: events.RowRef{Part: events.PartCorrelation}, Value: c.Encode(nil)}
}

func keyRow(k events.KeyState) events.RowChange {
	k.Definition, k.Key = "kinds", "order-3"
	return events.RowChange{Of: events.KeyID(app, "kinds", "order-3", 128), Ref: events.RowRef{Part: events.PartKey}, Value: k.Encode(nil)}
}

func kindsHead(s events.State) events.RowChange {
	h := events.Head{Definition: "kinds", Version: "1", Key: "order-3", State: s, Partial: true}
	return events.RowChange{Ref: events.RowRef{Part: events.PartHead}, Value: h.Encode(nil)}
}

func plainRow(n uint64, s events.NodeStatus) events.RowChange {
	x := events.NodeState{Status: s, Execution: 1}
	return events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: n}, Value: x.Encode(nil)}
}

func answerRow(id string) events.RowChange {
	a := events.Answer{MessageID: id, Done: true}
	return events.RowChange{Ref: events.RowRef{Part: events.PartAnswer, N: events.AnswerNumber(id)}, Value: a.Encode(nil)}
}

func (w *world) asks(id string) events.Input {
	m := events.InboxMessage{Kind: events.InboxAction, To: order3, Action: &events.Action{ID: id, Kind: events.ActionPatchData}}
	r := events.WrapMessage(m.Encode(nil), order3, nil)
	p := Part{app + ".inbox", 0}
	r.Topic, r.Partition, r.Offset = p.Topic, p.Partition, w.offsets[p]
	w.offsets[p]++
	w.inputs = append(w.inputs, r)
	return events.Input{Kind: events.InputAction, Topic: p.Topic, Offset: r.Offset, Low: r.Offset + 1, MessageID: id}
}

// kinds is the clean run, and order 3: its save-point's body is not heard of and undone, what is done instead is done,
// then its payment, which comes to the other shard, is taken. An operator acted on it in between.
func kinds(t *testing.T) *world {
	w := clean(t)
	in := w.in("orders", 0, "order-3", "{}", events.HeaderType, "placed", events.HeaderID, "m3")
	in.Kind = events.InputEvent
	due := w.now + 300
	w.decide("k starts", 0, events.Decision{Outcome: events.Applied, Input: in, Instance: order3,
		Entries: []events.Entry{{Kind: events.EntryStarted, Message: "m3"}, fact(events.EntryCommand, "x", events.Forward, 1)},
		Rows:    []events.RowChange{kindsHead(events.Running), plainRow(1, events.NodeActive), node("x", events.NodeActive, 1, 0, due), keyRow(events.KeyState{Live: order3})},
		Emits:   []events.Emit{emitted("x", events.Forward, 1, due)}})
	w.effect(order3, "x", events.Forward)
	w.decide("k acted", 0, events.Decision{Outcome: events.Applied, Input: w.asks("act-1"), Instance: order3,
		Entries: []events.Entry{{Kind: events.EntryAction, Code: string(events.ActionPatchData)}}, Rows: []events.RowChange{answerRow("act-1")}})
	w.decide("k acted again", 0, events.Decision{Outcome: events.Ignored, Reason: "repeated-action", Input: w.asks("act-1"), Instance: order3})
	w.now = due
	w.decide("k x times out", 0, events.Decision{Outcome: events.Applied, Instance: order3,
		Input:   events.Input{Kind: events.InputTimer, Row: events.RowRef{Part: events.PartNode, N: 2}, Due: due},
		Entries: []events.Entry{fact(events.EntryFailed, "x", events.Forward, 1), {Kind: events.EntryScope, Step: "x", Node: 2}, fact(events.EntryCommand, "x", events.Compensate, 1)},
		Rows:    []events.RowChange{kindsHead(events.Running), node("x", events.NodeUndoing, 1, 1, never)},
		Emits:   []events.Emit{emitted("x", events.Compensate, 1, 0)}})
	w.effect(order3, "x", events.Compensate)
	due = w.now + 300
	w.decide("k x undone", 0, events.Decision{Outcome: events.Applied, Instance: order3, Input: w.reply(0, cmdID(order3, "x", events.Compensate, 1), "done"),
		Entries: []events.Entry{fact(events.EntryDone, "x", events.Compensate, 1), fact(events.EntryDischarged, "x", 0, 0), fact(events.EntryCommand, "y", events.Forward, 1)},
		Rows:    []events.RowChange{kindsHead(events.Running), node("x", events.NodeUndone, 1, 1, 0), node("y", events.NodeActive, 1, 0, due)},
		Emits:   []events.Emit{emitted("y", events.Forward, 1, due)}})
	w.effect(order3, "y", events.Forward)
	w.decide("k y done", 0, events.Decision{Outcome: events.Applied, Instance: order3, Input: w.reply(0, cmdID(order3, "y", events.Forward, 1), "done"),
		Entries: []events.Entry{fact(events.EntryDone, "y", events.Forward, 1)},
		Rows:    []events.RowChange{kindsHead(events.Running), node("y", events.NodeDone, 1, 0, 0), plainRow(4, events.NodeActive)},
		Emits: []events.Emit{says(events.InboxSubscribe, correlationOf(payer), ""),
			{Kind: events.EmitEvent, Topic: "told", Type: "waiting", Step: "tell", Key: "k", Payload: []byte("{}")}}})
	w.decide("k subscribed", 1, events.Decision{Outcome: events.Applied, Instance: correlationOf(payer), Input: w.message(1, "k y done"),
		Rows: []events.RowChange{correlationRow(events.Correlation{Waiting: []events.Waiter{waiter}})}})
	in = w.in("payments", 1, payer, "{}", events.HeaderType, "paid", events.HeaderID, "p1")
	in.Kind = events.InputEvent
	w.decide("k paid", 1, events.Decision{Outcome: events.Applied, Instance: correlationOf(payer), Input: in,
		Rows:  []events.RowChange{correlationRow(events.Correlation{Waiting: []events.Waiter{waiter}, Events: []events.BufferedEvent{{ID: "p1", Until: never, Offered: &waiter}}})},
		Emits: []events.Emit{says(events.InboxOffer, order3, "p1")}})
	w.decide("k taken", 0, events.Decision{Outcome: events.Applied, Instance: order3, Input: w.message(0, "k paid"),
		Entries: []events.Entry{{Kind: events.EntryEvent, Step: "wait", Node: 4, Message: "p1"}, {Kind: events.EntryTransition, To: events.Completed}},
		Rows:    []events.RowChange{kindsHead(events.Completed), plainRow(4, events.NodeDone), keyRow(events.KeyState{Last: order3, LastState: events.Completed})},
		Emits:   []events.Emit{says(events.InboxTaken, correlationOf(payer), "p1")}})
	w.decide("k settled", 1, events.Decision{Outcome: events.Applied, Instance: correlationOf(payer), Input: w.message(1, "k taken"),
		Rows: []events.RowChange{correlationRow(events.Correlation{Seen: []events.SeenEvent{{ID: "p1", Until: never}}})}})
	in = w.in("payments", 1, payer, "{}", events.HeaderType, "paid", events.HeaderID, "p1")
	in.Kind = events.InputEvent
	w.decide("k paid again", 1, events.Decision{Outcome: events.Ignored, Reason: "duplicate-event", Instance: correlationOf(payer), Input: in})
	return w
}

func kindsOptions() Options {
	o := quiescent
	p := kindsPlan()
	o.Plans = map[string]*sagas.Plan{PlanName(p): p}
	return o
}

func TestASavePointAnEventAndAnActionPass(t *testing.T) {
	r := Check(kinds(t).build(), kindsOptions())
	if !r.OK() || len(r.Limits) > 0 || r.Instances["completed"] != 2 || r.Scopes != 1 || r.Messages != 3 || r.Taken != 1 || r.Told != 1 || r.Actions != 1 {
		t.Fatalf("\n%s", r)
	}
	// Without its plan it is judged by what the journal says.
	if r := Check(kinds(t).build(), quiescent); r.ByRule[RuleForwardInUndo]+r.ByRule[RuleUndoInForward]+r.ByRule[RuleEvent] != 0 {
		t.Fatalf("\n%s", r)
	}
}

func TestEachViolationOfTheNewKindsIsFound(t *testing.T) {
	decision := func(w *world, label string) *events.Decision { return w.line(label).rec.Decision }
	for _, c := range []struct {
		name string
		want Rule
		plan func(*world)
	}{
		{"the whole saga goes back on its own", RuleScope, func(w *world) { decision(w, "k x times out").Entries[1].Node = 0 }},
		{"an undo in no scope", RuleUndoInForward, func(w *world) {
			d := decision(w, "k x times out")
			d.Entries = slices.Delete(d.Entries, 1, 2)
		}},
		{"a forward command under what goes back", RuleForwardInUndo, func(w *world) {
			d := decision(w, "k x times out")
			d.Rows = append(d.Rows, plainRow(1, events.NodeUndoing))
		}},
		{"a forward command after its scope's turn, in one decision", RuleForwardInUndo, func(w *world) {
			d := decision(w, "k x undone")
			d.Entries = slices.Insert(d.Entries, 2, events.Entry{Kind: events.EntryScope, Step: "t", Node: 1})
			d.Rows = append(d.Rows, plainRow(1, events.NodeClosing))
		}},
		{"what is done instead, before the body is undone", RuleForwardOrder, func(w *world) {
			d := decision(w, "k x undone")
			d.Entries = d.Entries[2:]
		}},
		{"completed with the body of a save-point not undone", RuleCompleted, func(w *world) {
			d := decision(w, "k x undone")
			d.Entries = d.Entries[2:]
		}},
		{"completed with what is done instead not done", RuleCompleted, func(w *world) { decision(w, "k y done").Entries = nil }},
		{"a command under another step's name", RuleCommandRecord, func(w *world) {
			d := decision(w, "k x undone")
			d.Emits[0].Step = "x"
		}},
		{"a command in a turn of no loop", RuleCommandRecord, func(w *world) { decision(w, "k x undone").Emits[0].Step = "y[0]" }},
		{"an emitted event that is not on its topic", RuleLostCommand, func(w *world) {
			w.after = func(w *world) {
				w.sent = slices.DeleteFunc(w.sent, func(m events.Message) bool { return m.Topic == "told" })
				w.sent = append(w.sent, events.Message{Topic: "told", Value: []byte("another's")})
			}
		}},
		{"an emitted event that is not the one decided", RuleCommandBytes, func(w *world) {
			w.after = func(w *world) {
				for i := range w.sent {
					if w.sent[i].Topic == "told" {
						w.sent[i].Value = []byte("[]")
					}
				}
			}
		}},
		{"an event that nobody answered", RuleUnanswered, func(w *world) {
			w.in("payments", 1, payer, "{}", events.HeaderType, "paid", events.HeaderID, "p2")
		}},
		{"an event that is given to another than waits for it", RuleUnanswered, func(w *world) {
			in := w.in("payments", 1, payer+"x", "{}", events.HeaderType, "paid", events.HeaderID, "p2")
			in.Kind = events.InputEvent
			w.decide("elsewhere", 1, events.Decision{Outcome: events.Ignored, Reason: "duplicate-event", Instance: order2, Input: in})
		}},
		{"an event that came and is not kept", RuleEvent, func(w *world) {
			decision(w, "k paid").Rows[0] = correlationRow(events.Correlation{Waiting: []events.Waiter{waiter}})
		}},
		{"an event that is offered to nobody", RuleEvent, func(w *world) {
			decision(w, "k paid").Rows[0] = correlationRow(events.Correlation{Waiting: []events.Waiter{waiter}, Events: []events.BufferedEvent{{ID: "p1", Until: never}}})
		}},
		{"an event offered in the row, and not by word", RuleEvent, func(w *world) {
			decision(w, "k paid").Emits[0] = says(events.InboxOffer, order3, "p9")
		}},
		{"an event that leaves before it is taken", RuleEvent, func(w *world) {
			d := decision(w, "k taken")
			d.Emits[0] = says(events.InboxRefused, correlationOf(payer), "p1")
		}},
		{"an event taken that was not offered", RuleEvent, func(w *world) {
			decision(w, "k taken").Emits[0] = says(events.InboxTaken, correlationOf(payer), "p2")
		}},
		{"an event taken twice", RuleEvent, func(w *world) {
			d := decision(w, "k taken")
			d.Emits = append(d.Emits, d.Emits[0])
		}},
		{"an event dropped as a repetition that never came", RuleEvent, func(w *world) {
			in := w.in("payments", 1, payer, "{}", events.HeaderType, "paid", events.HeaderID, "p7")
			in.Kind = events.InputEvent
			w.decide("dropped", 1, events.Decision{Outcome: events.Ignored, Reason: "duplicate-event", Instance: correlationOf(payer), Input: in})
		}},
		{"a Wait that has ended and waits", RuleEvent, func(w *world) {
			decision(w, "k settled").Rows[0] = correlationRow(events.Correlation{Waiting: []events.Waiter{waiter}})
		}},
		{"a message that nobody answered", RuleMessage, func(w *world) { w.remove("k settled") }},
		{"a message decided twice", RuleMessage, func(w *world) {
			d := *decision(w, "k settled")
			d.Input.Offset, d.Input.Low = 99, 100
			w.decide("again", 1, d)
		}},
		{"a message that nobody said", RuleMessage, func(w *world) {
			in := &decision(w, "k settled").Input
			in.Origin = &events.Origin{Topic: app + ".journal", Offset: events.MessageOffset(2, 5)}
		}},
		{"a message for another", RuleMessage, func(w *world) { decision(w, "k settled").Instance = correlationOf(payer + "x") }},
		{"an action that is not answered", RuleAction, func(w *world) { decision(w, "k acted").Rows = nil }},
		{"an action done twice", RuleAction, func(w *world) {
			first := *decision(w, "k acted")
			first.Input = decision(w, "k acted again").Input
			w.line("k acted again").rec.Decision = &first
		}},
		{"an action dropped as a repetition that was never answered", RuleAction, func(w *world) {
			decision(w, "k acted again").Input.MessageID = "act-9"
		}},
		{"an ended instance that its key says lives", RuleKey, func(w *world) { decision(w, "k taken").Rows[2] = keyRow(events.KeyState{Live: order3}) }},
		{"a living instance that its key does not know", RuleKey, func(w *world) { decision(w, "k starts").Rows[3] = keyRow(events.KeyState{Live: order1}) }},
		{"two living instances of one key", RuleKey, func(w *world) {
			d := *decision(w, "k starts")
			in := w.in("orders", 0, "order-3", "{}", events.HeaderType, "placed", events.HeaderID, "m4")
			in.Kind = events.InputEvent
			d.Input, d.Instance, d.Entries = in, idOn(0, "order-3-again"), slices.Clone(d.Entries)
			d.Entries[0].Message = "m4"
			l := line{label: "second", rec: events.Record{Kind: events.KindDecision, Decision: &d, Time: w.line("k starts").rec.Time}}
			w.lines = slices.Insert(w.lines, w.index("k starts")+1, &l)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := kinds(t)
			c.plan(w)
			r := Check(w.build(), kindsOptions())
			if r.ByRule[c.want] == 0 {
				t.Fatalf("%s was not found:\n%s", c.want, r)
			}
		})
	}
}
