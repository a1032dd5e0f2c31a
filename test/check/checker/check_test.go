package checker

import (
	"slices"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
)

var quiescent = Options{Quiescent: true, Starts: map[string][]string{"orders": {"placed"}}}

func TestARunInWhichNothingIsWrongPasses(t *testing.T) {
	for name, change := range map[string]func(*world){
		"as it is":                  func(*world) {},
		"commands sent twice":       func(w *world) { w.resend["1 a done"], w.resend["2 b undone"] = true, true },
		"without order 1's purging": func(w *world) { w.remove("1 purged") },
		"a forward repeated and dropped without a word": func(w *world) {
			in := w.line("1 b done").rec.Decision.Input
			w.forward(0, events.Input{Topic: in.Origin.Topic, Partition: in.Origin.Partition, Offset: in.Origin.Offset})
		},
		"an event of another type": func(w *world) { w.in("orders", 0, "x", "{}", events.HeaderType, "cancelled") },
		"a record of the old owner, too late": func(w *world) {
			late := *w.line("2 c times out")
			late.label, late.lost = "late", true
			late.raw = func(r *events.Record) { r.Nonce = events.Nonce{2} }
			w.lines = slices.Insert(w.lines, w.index("claim 1 again")+1, &late)
		},
		"a record twice": func(w *world) {
			again := *w.line("2 b undone")
			again.label, again.lost = "again", true
			again.raw = func(r *events.Record) { r.Seq--; r.Prev = events.Hash{} }
			w.lines = slices.Insert(w.lines, w.index("2 b undone")+1, &again)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := clean(t)
			change(w)
			r := Check(w.build(), quiescent)
			if !r.OK() || len(r.Limits) > 0 {
				t.Fatalf("\n%s", r)
			}
			if r.Instances["compensated"] != 1 || r.Instances["completed"] != 1 || r.Effects != 7 || r.Rounds != 1 {
				t.Fatalf("it did not look at everything:\n%s", r)
			}
		})
	}
}

func TestEachViolationIsFound(t *testing.T) {
	for _, c := range []struct {
		name string
		want Rule
		plan func(*world)
	}{
		{"a trimmed journal that begins with a decision", RuleJournalStart, func(w *world) { w.cut[1] = 3 }},
		{"terms that fall", RuleTerm, func(w *world) { w.line("claim 1").rec.Term = 7 }},
		{"time that runs backwards", RuleTime, func(w *world) { w.line("2 b undone").rec.Time = 1 }},
		{"a start that nobody answered", RuleUnanswered, func(w *world) {
			w.in("orders", 1, "order-3", "{}", events.HeaderType, "placed")
		}},
		{"a reply that nobody answered", RuleUnanswered, func(w *world) { w.reply(0, cmdID(order1, "a", events.Forward, 1), "done") }},
		{"an inbox message that nobody answered", RuleUnanswered, func(w *world) { w.in(app+".inbox", 1, "", "?") }},
		{"an answer that only a fenced owner gave", RuleUnanswered, func(w *world) {
			l := w.line("nonsense")
			l.lost, l.raw = true, func(r *events.Record) { r.Nonce = events.Nonce{99} }
		}},
		{"a reply answered twice", RuleAnsweredTwice, func(w *world) {
			d := *w.line("2 a done").rec.Decision
			d.Rows, d.Emits, d.Entries, d.Outcome = nil, nil, nil, events.Ignored
			d.Input.Low = 99
			w.decide("twice", 1, d)
		}},
		{"a forward taken on both shards", RuleAnsweredTwice, func(w *world) {
			in := w.line("1 b done").rec.Decision.Input
			w.decide("also here", 1, events.Decision{Outcome: events.Ignored, Reason: "unknown-instance", Input: events.Input{
				Kind: events.InputReply, Topic: in.Origin.Topic, Partition: in.Origin.Partition, Offset: in.Origin.Offset, Low: 99}})
		}},
		{"an answer to what is not there", RuleWrongInput, func(w *world) { w.line("nonsense").rec.Decision.Input.Offset = 77 }},
		{"an answer to another instance's reply", RuleWrongInput, func(w *world) {
			w.line("2 a done").rec.Decision.Input.Offset = 0
		}},
		{"a position that passes what is answered later", RulePosition, func(w *world) {
			w.line("positions 1").rec.Decision.Progress.Positions[1].Low = 3
		}},
		{"a position that falls", RulePosition, func(w *world) { w.line("2 b undone").rec.Decision.Input.Low = 1 }},
		{"a quarantined reply that is nowhere", RuleQuarantine, func(w *world) {
			w.inputs = slices.DeleteFunc(w.inputs, func(m events.Message) bool { return m.Topic == app+".quarantine" })
			w.offsets[Part{app + ".quarantine", 0}] = 0
			w.in(app+".quarantine", 0, "", "another")
		}},
		{"a command that nobody decided", RuleUndecided, func(w *world) {
			w.after = func(w *world) {
				m := w.sent[0]
				m.Headers = slices.Clone(m.Headers)
				setHeader(&m, events.HeaderID, cmdID(order1, "a", events.Forward, 9).Text(app))
				w.sent = append(w.sent, m)
			}
		}},
		{"a command of a record that a fence stopped", RuleUndecided, func(w *world) {
			w.after = func(w *world) {
				// the old owner emitted the undo of c before its record was acknowledged
				l := *w.line("2 c times out")
				rec := l.rec
				d := *rec.Decision
				d.Emits = []events.Emit{emitted("c", events.Compensate, 2, 0)}
				rec.Decision = &d
				out, _ := events.Outgoing(app, &rec)
				w.sent = append(w.sent, out...)
			}
		}},
		{"a payload that is not the one decided", RuleCommandBytes, func(w *world) {
			w.after = func(w *world) { w.sent[1].Value = []byte("something else") }
		}},
		{"a key that is not the one decided", RuleCommandBytes, func(w *world) {
			w.after = func(w *world) { w.sent[1].Key = []byte("order-9") }
		}},
		{"another idempotency key", RuleCommandBytes, func(w *world) {
			w.after = func(w *world) { setHeader(&w.sent[1], events.HeaderIdempotencyKey, "x") }
		}},
		{"a repetition with other bytes", RuleCommandBytes, func(w *world) {
			w.resend["2 a done"] = true
			w.after = func(w *world) {
				i := slices.IndexFunc(w.sent, func(m events.Message) bool { return m.Topic == "cmd.b" && string(m.Key) == "order-2" })
				setHeader(&w.sent[i], events.HeaderTime, "later")
			}
		}},
		{"a decided command that was never sent", RuleLostCommand, func(w *world) { w.mute["2 b undone"] = true }},
		{"progress past a command that was never sent", RuleEmissionClaimed, func(w *world) { w.mute["2 a done"] = true }},
		{"progress past its own record", RuleEmissionClaimed, func(w *world) { w.line("progress 1").rec.Decision.Progress.EmittedSeq = 1000 }},
		{"a command without its payload in the record", RuleCommandRecord, func(w *world) {
			d := w.line("2 b undone").rec.Decision
			d.Rows = d.Rows[:2]
			w.line("2 b undone").raw = func(*events.Record) {}
		}},
		{"a command decided twice", RuleDecidedTwice, func(w *world) {
			d := w.line("2 b undone").rec.Decision
			d.Emits = append(d.Emits, d.Emits[0])
		}},
		{"an effect applied twice", RuleAppliedTwice, func(w *world) { w.effect(order1, "b", events.Forward) }},
		{"two executions applied, none undone", RuleAppliedTwice, func(w *world) {
			w.effect(order1, "b", events.Forward)
			w.effects[len(w.effects)-1].IdempotencyKey = effectKey(order1, "b", 2, events.Forward)
		}},
		{"an effect after its undo", RuleAfterUndo, func(w *world) { w.effect(order2, "c", events.Forward) }},
		{"an effect that nobody commanded", RuleUnknownEffect, func(w *world) { w.effect(order1, "c", events.Forward) }},
		{"completed without an effect", RuleCompleted, func(w *world) {
			w.effects = slices.DeleteFunc(w.effects, func(e Effect) bool {
				return e.Instance == order1.String() && e.Step == "b"
			})
		}},
		{"completed with an effect undone", RuleCompleted, func(w *world) { w.effect(order1, "b", events.Compensate) }},
		{"completed without a step decided done", RuleCompleted, func(w *world) {
			d := w.line("1 b done").rec.Decision
			d.Entries = d.Entries[1:]
		}},
		{"compensated with an effect left", RuleCompensated, func(w *world) {
			w.effects = slices.DeleteFunc(w.effects, func(e Effect) bool {
				return e.Step == "a" && e.Direction == "compensate"
			})
		}},
		{"compensated without a step decided undone", RuleCompensated, func(w *world) {
			d := w.line("2 a undone").rec.Decision
			d.Entries = d.Entries[2:]
		}},
		{"an undo before that of a later step is done", RuleUndoOrder, func(w *world) {
			// c's time-out undoes b at once, c only afterwards
			d := w.line("2 c times out").rec.Decision
			d.Entries = append(d.Entries, fact(events.EntryCommand, "b", events.Compensate, 1))
			d.Rows = append(d.Rows, node("b", events.NodeUndoing, 1, 1, never))
			d.Emits = append(d.Emits, emitted("b", events.Compensate, 1, 0))
			d = w.line("2 c undone").rec.Decision
			d.Entries, d.Rows, d.Emits = d.Entries[:2], d.Rows[:2], nil
		}},
		{"done without a reply that says so", RuleUnfounded, func(w *world) {
			for i := range w.inputs {
				if m := &w.inputs[i]; m.Topic == app+".replies" && m.Partition == 1 && m.Offset == 1 {
					setHeader(m, events.HeaderOutcome, "retry")
				}
			}
		}},
		{"a timer before its time", RuleTimerEarly, func(w *world) {
			w.line("2 c times out").rec.Time = w.line("2 b done").rec.Time + 1
		}},
		{"a timer that is set no more", RuleTimerTwice, func(w *world) { w.line("2 c times out").rec.Decision.Input.Due-- }},
		{"a timer that stays set", RuleTimerTwice, func(w *world) {
			d := w.line("2 c times out").rec.Decision
			d.Rows, d.Emits = d.Rows[:1], nil
		}},
		{"a change after the end", RuleFinalAbsorbs, func(w *world) {
			d := *w.line("2 b undone").rec.Decision
			d.Input = w.reply(1, cmdID(order2, "b", events.Compensate, 1), "done")
			d.Emits = nil
			w.decide("late", 1, d)
		}},
		{"a purge before the end", RuleFinalAbsorbs, func(w *world) {
			w.decide("purged", 1, events.Decision{Outcome: events.Applied, Instance: order2, Purge: true})
			w.remove("2 a undone")
		}},
		{"a forward command while compensating", RuleForwardInUndo, func(w *world) {
			d := w.line("2 c undone").rec.Decision
			d.Emits = append(d.Emits, emitted("b", events.Forward, 2, never))
		}},
		{"running again after compensating", RuleForwardInUndo, func(w *world) {
			w.line("2 c undone").rec.Decision.Rows[0] = head("order-2", events.Running, 0)
		}},
		{"an undo after the pivot", RuleUndoPastPivot, func(w *world) {
			h := events.Head{Definition: "place-order", Version: "1", Key: "order-2", State: events.Compensating, Pivot: events.PivotDone}
			w.line("2 c undone").rec.Decision.Rows[0].Value = h.Encode(nil)
		}},
		{"an undo while going forward", RuleUndoInForward, func(w *world) {
			w.line("2 c times out").rec.Decision.Rows[0] = head("order-2", events.Running, 0)
		}},
		{"a forward command that never expires", RuleExpiry, func(w *world) { w.line("2 a done").rec.Decision.Emits[0].Expiry = 0 }},
		{"an undo that expires", RuleExpiry, func(w *world) { w.line("2 c undone").rec.Decision.Emits[0].Expiry = never }},
		{"a row carried as it never was", RuleCarry, func(w *world) { w.line("carry").rec.Carry.Rows[0].Value = []byte{} }},
		{"a purged row carried", RuleCarry, func(w *world) {
			w.line("carry").rec.Carry.Rows[0].Key = events.RowKey(order1, events.RowRef{Part: events.PartData})
		}},
		{"a checkpoint with other positions", RuleCheckpoint, func(w *world) { w.line("checkpoint").rec.Checkpoint.Positions[0].Low = 40 }},
		{"an instance that never ends", RuleUnfinished, func(w *world) { w.remove("2 a undone") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := clean(t)
			c.plan(w)
			r := Check(w.build(), quiescent)
			if r.ByRule[c.want] == 0 {
				t.Fatalf("%s was not found:\n%s", c.want, r)
			}
			for _, v := range r.Violations {
				if v.Detail == "" || v.Topic == "" && v.Instance == "" {
					t.Errorf("a violation without its place: %+v", v)
				}
			}
		})
	}
}

func setHeader(m *events.Message, name, value string) {
	m.Headers = slices.Clone(m.Headers)
	for i := range m.Headers {
		if m.Headers[i].Key == name {
			m.Headers[i].Value = []byte(value)
			return
		}
	}
	m.Headers = append(m.Headers, events.Header{Key: name, Value: []byte(value)})
}

func TestATrimmedJournalIsJudgedByWhatIsLeftAndSaysSo(t *testing.T) {
	w := clean(t)
	w.cut[1] = 12
	r := Check(w.build(), quiescent)
	if !r.OK() {
		t.Fatalf("\n%s", r)
	}
	if !slices.ContainsFunc(r.Limits, func(s string) bool { return strings.Contains(s, "shard 1") }) {
		t.Fatalf("it does not say what it could not judge:\n%s", r)
	}
	// What is left is still judged.
	w = clean(t)
	w.cut[1] = 12
	w.mute["1 a done"] = true
	if r := Check(w.build(), quiescent); r.ByRule[RuleLostCommand] != 1 {
		t.Fatalf("\n%s", r)
	}
}

func TestWhileTheApplicationRunsOnlyWhatIsSettledIsJudged(t *testing.T) {
	w := clean(t)
	w.remove("2 a undone") // its reply waits, its instance goes on
	w.mute["2 b undone"] = true
	w.remove("progress 1")
	w.remove("checkpoint")
	w.remove("carry")
	d := w.line("nonsense").rec.Decision
	d.Input.Low = w.line("2 b undone").rec.Decision.Input.Low
	e := w.build()
	if r := Check(e, Options{Starts: quiescent.Starts}); !r.OK() {
		t.Fatalf("\n%s", r)
	}
	r := Check(e, quiescent)
	for _, rule := range []Rule{RuleUnanswered, RuleLostCommand, RuleUnfinished} {
		if r.ByRule[rule] == 0 {
			t.Errorf("%s was not found in the end:\n%s", rule, r)
		}
	}
}

func TestEpochsTellWhatAFencedOwnerTried(t *testing.T) {
	w := clean(t)
	late := *w.line("2 c times out")
	late.label, late.lost = "late", true
	late.raw = func(r *events.Record) { r.Nonce = events.Nonce{2} }
	w.lines = slices.Insert(w.lines, w.index("2 b undone"), &late)
	r := Check(w.build(), quiescent)
	var found bool
	for _, e := range r.Epochs {
		if e.Shard == 1 && e.Node == "n1" {
			found = true
			if e.Accepted != 4 || e.Refused != 1 || e.LastRefused < e.LastAccepted {
				t.Errorf("%+v", e)
			}
		}
	}
	if !found {
		t.Fatalf("%+v", r.Epochs)
	}
}

// L16.
func TestWhoReadsCommittedRecordsHasToSeeEachCommandOnce(t *testing.T) {
	w := clean(t)
	e := w.build()
	seen := map[string]map[string]int{}
	for _, m := range w.sent {
		if seen[m.Topic] == nil {
			seen[m.Topic] = map[string]int{}
		}
		id, _ := m.Header(events.HeaderID)
		seen[m.Topic][id] = 1
	}
	o := quiescent
	o.Committed = seen
	if r := Check(e, o); !r.OK() {
		t.Fatalf("\n%s", r)
	}
	id, _ := w.sent[0].Header(events.HeaderID)
	for _, n := range []int{0, 2} {
		seen[w.sent[0].Topic][id] = n
		if r := Check(e, o); r.ByRule[RuleCommittedOnce] != 1 || len(r.ByRule) != 1 {
			t.Errorf("seen %d times:\n%s", n, r)
		}
	}
}
