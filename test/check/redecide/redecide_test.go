package redecide

import (
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/sagas"
)

type order struct {
	ID    string `json:"id"`
	Calls int    `json:"calls"`
}

// told is the journal of one saga: it starts, its step is put off, tried again, refused by Kafka, and done.
type told struct {
	c      Config
	rows   rows
	log    []Record
	topics map[string][]events.Message
	now    int64
	late   int64 // ms between a decision and the stamp of its record
}

// tell runs the saga on the real machine. calls is what the payload of its command says.
func tell(t *testing.T, late int64, calls func() int) *told {
	t.Helper()
	placed := sagas.NewEvent[order]("orders", "placed").KeyBy(func(o order) string { return o.ID })
	plan, err := sagas.Define("shop", "1", sagas.StartOn(placed, func(o order) order { return o }), sagas.Seq[order](
		sagas.Sleep[order]("breath", time.Second),
		sagas.Step("pay", sagas.NewCommand[order, order]("svc", "pay"), func(o order) order { o.Calls = calls(); return o },
			func(o *order, r order) { o.Calls += r.Calls }).EffectFree())).Plan()
	if err != nil {
		t.Fatal(err)
	}
	m := machine.New(machine.Config{App: "shop", Slots: 64, Plans: []*sagas.Plan{plan}})
	w := &told{rows: rows{}, topics: map[string][]events.Message{}, now: 1_000_000, late: late}
	w.c = Config{App: "shop", Machine: m, Input: func(topic string, _ int32, offset int64) *events.Message {
		if offset >= int64(len(w.topics[topic])) {
			return nil
		}
		return &w.topics[topic][offset]
	}}
	start := events.Message{Topic: "orders", Value: []byte(`{"id":"o-1"}`), Headers: []events.Header{{Key: events.HeaderID, Value: []byte("e-1")}, {Key: events.HeaderType, Value: []byte("placed")}}}
	routes, err := m.Routes(&start)
	if err != nil {
		t.Fatal(err)
	}
	id := routes[0].Instance
	step := events.RowRef{Part: events.PartNode, N: 2}
	w.decide(t, w.put(events.InputEvent, start), func() *events.Decision { return m.Start(w.rows, w.now, *routes[0].Start) })
	timer := func(ref events.RowRef) {
		_, due, _ := w.rows.Row(id, ref)
		w.now = max(w.now+100, due)
		w.decide(t, events.Input{Kind: events.InputTimer, Row: ref, Due: due}, func() *events.Decision {
			return m.Timer(w.rows, w.now, machine.Timer{Instance: id, Row: ref, Due: due})
		})
	}
	command := events.CommandID{Instance: id, Node: 2, Execution: 1, Attempt: 1, Phase: events.Forward}
	reply := func(outcome events.ReplyOutcome) {
		r := events.Message{Topic: "shop.replies", Value: []byte(`{"calls":3}`), Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte(command.Text("shop"))}, {Key: events.HeaderOutcome, Value: []byte(outcome.String())}}}
		parsed, err := events.ParseReply("shop", &r)
		if err != nil {
			t.Fatal(err)
		}
		w.now += 100
		w.decide(t, w.put(events.InputReply, r), func() *events.Decision { return m.Reply(w.rows, w.now, parsed) })
	}
	timer(events.RowRef{Part: events.PartNode, N: 1})
	reply(events.ReplyRetry)
	timer(step)
	command.Attempt = 2
	w.now += 100
	w.decide(t, events.Input{Kind: events.InputRefused, MessageID: command.Text("shop")}, func() *events.Decision {
		return m.Refused(w.rows, w.now, machine.Refusal{Command: command, Code: "refused", Message: "topic: gone"})
	})
	reply(events.ReplyDone)
	if h, err := events.DecodeHead(w.rows[id][events.RowRef{Part: events.PartHead}].value); err != nil || h.State != events.Completed {
		t.Fatalf("the saga did not end: %v", err)
	}
	return w
}

func (w *told) put(kind events.InputKind, m events.Message) events.Input {
	m.Offset = int64(len(w.topics[m.Topic]))
	w.topics[m.Topic] = append(w.topics[m.Topic], m)
	return events.Input{Kind: kind, Topic: m.Topic, Offset: m.Offset}
}

func (w *told) decide(t *testing.T, in events.Input, fn func() *events.Decision) {
	t.Helper()
	d := fn()
	if d == nil {
		t.Fatal("no decision")
	}
	d.Input = in
	seq := uint64(len(w.log) + 1)
	w.log = append(w.log, Record{int64(seq), (&events.Record{Kind: events.KindDecision, Seq: seq, Time: w.now + w.late, Decision: d}).Encode(nil)})
	w.rows.apply(d)
}

func (w *told) again(t *testing.T) *Report {
	t.Helper()
	r, err := Shard(w.c, w.log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryDecisionIsMadeAlikeAgain(t *testing.T) {
	for _, late := range []int64{0, 3} { // the clock may go on between a decision and its record
		if r := tell(t, late, func() int { return 1 }).again(t); r.Decisions != 6 || r.Same != 6 {
			t.Errorf("stamped %d ms late: %d of %d decisions are alike: %v %v", late, r.Same, r.Decisions, r.Skipped, r.Differ)
		}
	}
}

func TestAFunctionThatIsNotPureIsFound(t *testing.T) {
	n := 0
	r := tell(t, 0, func() int { n++; return n }).again(t)
	if len(r.Differ) != 1 || r.Differ[0].Seq != 2 {
		t.Errorf("the command was built by a function that counts its calls, and what differs is %v", r.Differ)
	}
}

func TestARowThatNobodyDecidedIsFound(t *testing.T) {
	w := tell(t, 0, func() int { return 1 })
	rec, err := events.DecodeRecord(w.log[2].Value)
	if err != nil {
		t.Fatal(err)
	}
	rec.Decision.Rows[0].Due++
	w.log[2].Value = rec.Encode(nil)
	if r := w.again(t); len(r.Differ) == 0 || r.Differ[0].Seq != 3 {
		t.Errorf("a due time was changed in record 3, and what differs is %v", r.Differ)
	}
}

func TestWhatCannotBeMadeAgainIsCounted(t *testing.T) {
	w := tell(t, 0, func() int { return 1 })
	w.topics["shop.replies"] = nil
	if r := w.again(t); r.Skipped[InputGone] != 2 || r.Same != 4 || len(r.Differ) > 0 {
		t.Errorf("without the replies %d decisions are alike, not made again are %v: %v", r.Same, r.Skipped, r.Differ)
	}
	w = tell(t, 0, func() int { return 1 })
	w.c.Machine = machine.New(machine.Config{App: "shop", Slots: 64})
	if r := w.again(t); r.Same+len(r.Differ) > 0 {
		t.Errorf("without the definition %d decisions were made, and %v", r.Same, r.Differ)
	}
}

func TestATrimmedJournalIsJudgedOnceItsRowsAreCarried(t *testing.T) {
	w := tell(t, 0, func() int { return 1 })
	before := rows{}
	for _, r := range w.log[:3] {
		rec, err := events.DecodeRecord(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		before.apply(rec.Decision)
	}
	var carried []events.CarriedRow
	for id, of := range before {
		for ref, c := range of {
			carried = append(carried, events.CarriedRow{Key: events.RowKey(id, ref), Due: c.due, Value: c.value})
		}
	}
	head := []Record{
		{0, (&events.Record{Kind: events.KindCheckpoint, Seq: 100, Checkpoint: &events.Checkpoint{}}).Encode(nil)},
		{1, (&events.Record{Kind: events.KindCarry, Seq: 101, Carry: &events.Carry{Rows: carried, End: 100}}).Encode(nil)},
	}
	rest := w.log[3:]
	w.log = append(head[:2:2], rest...)
	if r := w.again(t); r.Same != 3 {
		t.Errorf("after the rows were carried %d of 3 decisions are alike: %v %v", r.Same, r.Skipped, r.Differ)
	}
	w.log = append(head[:1:1], rest...)
	if r := w.again(t); r.Skipped[NoRows] != 3 {
		t.Errorf("before the rows are carried, not made again are %v", r.Skipped)
	}
}
