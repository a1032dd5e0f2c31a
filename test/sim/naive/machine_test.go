package naive

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/test/check/redecide"
	"github.com/skald-io/skald/test/sim/plans"
)

var (
	seeds = flag.Int("seeds", 10_000, "how many sagas to run under faults")
	first = flag.Int("first", 0, "the first seed")
)

// TestEveryRunUnderFaultsLooksLikeOneWithout runs random plans on the real machine, with participants that lose,
// repeat, delay and refuse, timers that fire late, and decisions that are lost before they are durable; and asks for each
// whether the naive interpreter knows a run without faults that looks the same (G8). A failure names its seed: run it again with
// -run '/seed=N$'.
func TestEveryRunUnderFaultsLooksLikeOneWithout(t *testing.T) {
	runs := *seeds
	if testing.Short() {
		runs = min(runs, 200)
	}
	ends, faults := map[string]int{}, map[string]int{}
	failed := 0
	for seed := *first; seed < *first+runs; seed++ {
		ok := t.Run("seed="+strconv.Itoa(seed), func(t *testing.T) {
			r := newRun(t, uint64(seed))
			ends[r.run()]++
			for f, n := range r.faults {
				faults[f] += n
			}
		})
		if !ok {
			if failed++; failed == 3 {
				return
			}
		}
	}
	t.Logf("ends: %v", ends)
	t.Logf("faults that landed: %v", faults)
	if runs < 1000 || failed > 0 {
		return
	}
	for _, f := range []string{"command lost", "command twice", "reply lost", "reply twice", "timer late", "decision lost", "new machine", "refused by Kafka", "event twice", "cancelled", "suspended", "stale timer", "clock jumps"} {
		if faults[f] < runs/20 {
			t.Errorf("the fault %q landed %d times in %d runs", f, faults[f], runs)
		}
	}
	for _, end := range []string{"completed", "compensated", "parked undo-exhausted", "parked pivot-unknown"} {
		if ends[end] < runs/500 {
			t.Errorf("only %d of %d runs end %s: the test looks away", ends[end], runs, end)
		}
	}
	if ends["loose"] > runs/50 {
		t.Errorf("%d of %d runs were not judged to their end", ends["loose"], runs)
	}
}

const app = "shop"

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// run is one saga on the real machine, and the world around it.
type run struct {
	t      *testing.T
	rnd    *rand.Rand
	plan   *sagas.Plan
	cfg    machine.Config
	m      *machine.Machine
	now    int64
	seq    uint64
	rows   map[rowOf]cell
	id     events.InstanceID
	seen   Observed
	calm   bool
	faults map[string]int
	sent   []sent
	asked  []asked
	said   []said
	// The journal and the topics, as they would stand in Kafka.
	journal []redecide.Record
	past    []stale // due times that rows have no more
	topics  map[string][]events.Message
	ledger  map[string]*effect // by idempotency key
	known   []events.Message   // events that were published
	serial  int
	story   strings.Builder
}

type rowOf struct {
	of  events.InstanceID
	ref events.RowRef
}

type cell struct {
	value []byte
	due   int64
}

// sent is a message between entities on its way, said a reply, each with its place.
type sent struct {
	*events.InboxMessage
	at events.Input
}

type said struct {
	events.Reply
	at events.Input
}

type stale struct {
	rowOf
	due int64
}

// asked is a command on its way.
type asked struct {
	id     events.CommandID
	step   string
	expiry int64
}

// effect is what a participant knows of one idempotency key.
type effect struct {
	label           string
	v               int // what it answers, each time
	applied, undone bool
	refused         string
	tomb            bool
}

func newRun(t *testing.T, seed uint64) *run {
	r := &run{t: t, rnd: rand.New(rand.NewPCG(seed, 11)), now: epoch, rows: map[rowOf]cell{}, faults: map[string]int{}, ledger: map[string]*effect{}, topics: map[string][]events.Message{}}
	p, err := plans.New(seed, plans.Options{Nodes: 8 + r.rnd.IntN(25)}).Plan()
	if err != nil {
		t.Fatal(err)
	}
	r.plan = p
	r.cfg = machine.Config{App: app, Slots: 64, Plans: []*sagas.Plan{p}}
	r.m = machine.New(r.cfg)
	return r
}

// Row is of machine.View.
func (r *run) Row(id events.InstanceID, ref events.RowRef) ([]byte, int64, bool) {
	c, ok := r.rows[rowOf{id, ref}]
	return bytes.Clone(c.value), c.due, ok
}

func (r *run) one(in int) bool { return r.rnd.IntN(in) == 0 }

// fault is one, unless all is calm: then it counts it.
func (r *run) fault(in int, name string) bool {
	if r.calm || !r.one(in) {
		return false
	}
	r.faults[name]++
	return true
}

// put writes a record to its topic, and gives the input that it is.
func (r *run) put(kind events.InputKind, m events.Message) events.Input {
	m.Offset = int64(len(r.topics[m.Topic]))
	r.topics[m.Topic] = append(r.topics[m.Topic], m)
	return events.Input{Kind: kind, Topic: m.Topic, Offset: m.Offset}
}

// answer is a participant's reply as it stands on the topic.
func (r *run) answer(reply events.Reply) said {
	m := events.Message{Topic: events.Topics{App: app}.Replies(), Value: reply.Payload, Time: r.now, Headers: []events.Header{
		{Key: events.HeaderCausationID, Value: []byte(reply.Command.Text(app))},
		{Key: events.HeaderOutcome, Value: []byte(reply.Outcome.String())},
		{Key: events.HeaderErrorCode, Value: []byte(reply.Code)}}}
	return said{reply, r.put(events.InputReply, m)}
}

// decide asks for a decision, twice, and writes it down, unless it is lost before that; what it answers is then to
// come again.
func (r *run) decide(what string, f Fact, in events.Input, fn func() *events.Decision) bool {
	r.t.Helper()
	d, again := fn(), fn()
	if d == nil {
		r.t.Fatalf("%s: the machine finds the rows corrupt", what)
	}
	d.Input, again.Input = in, in
	r.seq++
	rec := &events.Record{Kind: events.KindDecision, Seq: r.seq, Time: r.now, Decision: d}
	value := rec.Encode(nil)
	if b := (&events.Record{Kind: events.KindDecision, Seq: r.seq, Time: r.now, Decision: again}).Encode(nil); !bytes.Equal(value, b) {
		r.t.Fatalf("%s: two decisions from the same rows", what)
	}
	if d.Outcome != machine.Waits && r.fault(15, "decision lost") {
		r.seq--
		r.m = machine.New(r.cfg)
		return false
	}
	rec, err := events.DecodeRecord(value)
	if err != nil {
		r.t.Fatal(err)
	}
	r.journal = append(r.journal, redecide.Record{Offset: int64(r.seq), Value: value})
	d = rec.Decision
	f.Record = rec
	r.tell(what, d)
	if d.Instance == r.id {
		r.seen.Facts = append(r.seen.Facts, f)
	}
	if d.Outcome != events.Applied {
		return true
	}
	if d.Purge {
		maps.DeleteFunc(r.rows, func(k rowOf, _ cell) bool { return k.of == d.Instance })
	}
	for i := range d.Rows {
		c := &d.Rows[i]
		k := rowOf{d.Whose(c), c.Ref}
		if c.WasDue != 0 && c.WasDue != c.Due {
			r.past = append(r.past, stale{k, c.WasDue})
		}
		if c.Gone {
			delete(r.rows, k)
		} else {
			r.rows[k] = cell{c.Value, c.Due}
		}
	}
	for i := range d.Emits {
		r.emit(&d.Emits[i])
	}
	return true
}

func (r *run) emit(e *events.Emit) {
	switch e.Kind {
	case events.EmitMessage:
		m, err := events.DecodeInboxMessage(bytes.Clone(e.Payload))
		if err != nil {
			r.t.Fatal(err)
		}
		wrapped := events.WrapMessage(bytes.Clone(e.Payload), e.To, &events.Origin{Topic: events.Topics{App: app}.Journal(), Offset: int64(r.seq)})
		wrapped.Topic = events.Topics{App: app}.Inbox()
		r.sent = append(r.sent, sent{m, r.put(events.InputMessage, wrapped)})
	case events.EmitCommand:
		id := events.CommandID{Instance: r.id, Node: e.Node, Execution: e.Execution, Attempt: e.Attempt, Phase: e.Phase}
		r.asked = append(r.asked, asked{id, e.Step, e.Expiry})
		if r.fault(12, "command twice") {
			r.asked = append(r.asked, asked{id, e.Step, e.Expiry})
		}
	}
}

func (r *run) tell(what string, d *events.Decision) {
	fmt.Fprintf(&r.story, "%5d +%-8s %s: %s %s\n", r.seq, time.Duration(r.now-epoch)*time.Millisecond, what, d.Outcome, d.Reason)
	for _, e := range d.Entries {
		fmt.Fprintf(&r.story, "        %s %s", e.Kind, e.Step)
		if e.Phase == events.Compensate {
			r.story.WriteString(" (undo)")
		}
		if e.Attempt > 1 {
			fmt.Fprintf(&r.story, " #%d", e.Attempt)
		}
		if e.To != 0 {
			r.story.WriteString(" " + e.To.String())
		}
		fmt.Fprintf(&r.story, " %s %.80s\n", e.Code, e.Message)
	}
}

func (r *run) head() *events.Head {
	raw, _, _ := r.Row(r.id, events.RowRef{Part: events.PartHead})
	h, err := events.DecodeHead(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// run lets the saga run to its end, and says how that was.
func (r *run) run() string {
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("the plan is\n%s\nwhat happened:\n%s", r.plan.Export(), r.story.String())
		}
	})
	order, err := json.Marshal(plans.Order{ID: "order-1", Draw: r.rnd.Uint32()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.start(order)
	for step := 0; !r.over(); step++ {
		if step > 6000 {
			r.t.Fatalf("no end: it is %s", r.head().State)
		}
		r.calm = step > 250
		r.move()
	}
	for len(r.asked)+len(r.said) > 0 { // what was under way comes after the end
		if len(r.asked) > 0 {
			r.serve(0)
		}
		if len(r.said) > 0 {
			r.deliver(0)
		}
	}
	return r.judge()
}

func (r *run) start(order []byte) {
	m := events.Message{Topic: plans.StartTopic, Key: []byte("x"), Value: order, Time: r.now, Headers: []events.Header{
		{Key: events.HeaderID, Value: []byte("event-1")}, {Key: events.HeaderType, Value: []byte(plans.StartType)}}}
	routes, err := r.m.Routes(&m)
	if err != nil {
		r.t.Fatal(err)
	}
	s := routes[0].Start
	r.id = s.Instance
	r.seen = Observed{App: app, Plan: r.plan, Key: s.Key, Event: order}
	in := r.put(events.InputEvent, m)
	for !r.decide("start", Fact{}, in, func() *events.Decision { return r.m.Start(r, r.now, *s) }) {
	}
}

// over reports an end: final, or parked with nothing under way that could bring it further.
func (r *run) over() bool {
	h := r.head()
	return h.State.Final() || h.State == events.Parked && r.calm && len(r.asked)+len(r.said)+len(r.sent) == 0 && len(r.due()) == 0
}

// move does one of the things that may happen next.
func (r *run) move() {
	if r.head().State == events.Suspended && (r.calm || r.one(6)) {
		r.act(events.Action{Kind: events.ActionResume})
		return
	}
	switch k := r.rnd.IntN(24); {
	case k < 8 && len(r.asked) > 0:
		r.serve(r.rnd.IntN(len(r.asked)))
	case k < 15 && len(r.said) > 0:
		r.deliver(r.rnd.IntN(len(r.said)))
	case k < 18 && len(r.sent) > 0:
		r.pass(r.rnd.IntN(len(r.sent)))
	case k == 18 && len(r.asked) > 0 && r.fault(2, "refused by Kafka"):
		r.refuse(r.rnd.IntN(len(r.asked)))
	case k == 19 && r.fault(2, "new machine"):
		r.m = machine.New(r.cfg)
	case k == 20 && (r.calm || r.one(2)):
		r.outside()
	case k == 21 && r.fault(15, "cancelled"):
		r.act(events.Action{Kind: events.ActionCancel})
	case k == 21 && r.fault(8, "suspended"):
		r.act(events.Action{Kind: events.ActionSuspend})
	case k == 23 && len(r.past) > 0 && r.fault(2, "stale timer"):
		t := r.past[r.rnd.IntN(len(r.past))]
		r.fireAt(t.of, t.ref, t.due)
	case k == 22 && r.fault(6, "clock jumps"):
		r.now += int64(r.rnd.IntN(90_000))
	case len(r.asked)+len(r.said)+len(r.sent) > 0 && !r.one(6):
	default:
		r.timer()
	}
}

func (r *run) due() (at []rowOf) {
	for k, c := range r.rows {
		if c.due != 0 && (k.of != r.id || k.ref.Part != events.PartHead || !r.head().State.Final()) {
			at = append(at, k)
		}
	}
	slices.SortFunc(at, func(a, b rowOf) int {
		if x, y := r.rows[a].due, r.rows[b].due; x != y {
			return int(x - y)
		}
		return bytes.Compare(events.RowKey(a.of, a.ref), events.RowKey(b.of, b.ref))
	})
	return at
}

func (r *run) timer() {
	due := r.due()
	if len(due) == 0 {
		r.outside()
		return
	}
	at := due[0]
	if r.fault(4, "timer late") {
		at = due[r.rnd.IntN(len(due))]
	}
	r.fire(at)
}

func (r *run) fire(at rowOf) {
	due := r.rows[at].due
	r.now = max(r.now, due)
	r.fireAt(at.of, at.ref, due)
}

func (r *run) fireAt(of events.InstanceID, ref events.RowRef, due int64) {
	at := rowOf{of, ref}
	r.decide(fmt.Sprintf("timer of %s %d", at.ref.Part, at.ref.N), Fact{}, events.Input{Kind: events.InputTimer, Row: at.ref, Due: due},
		func() *events.Decision {
			return r.m.Timer(r, r.now, machine.Timer{Instance: at.of, Row: at.ref, Due: due})
		})
}

// pass lets a message between entities arrive.
func (r *run) pass(i int) {
	m := r.sent[i]
	if r.decide(m.Kind.String(), Fact{Message: m.InboxMessage}, m.at, func() *events.Decision { return r.m.Message(r, r.now, m.InboxMessage) }) {
		r.sent = slices.Delete(r.sent, i, i+1) // what was decided was appended behind it
	}
}

// outside lets an event or a signal come: one that the saga waits for, or any.
func (r *run) outside() {
	names := []string{"order-1", "order-1" + plans.KeySuffix, plans.Signal, plans.ApprovalBy}
	for k, c := range r.rows {
		if k.of == r.id && k.ref.Part == events.PartNode {
			if n, err := events.DecodeNode(c.value); err == nil && n.Key != "" {
				names = append(names, n.Key, n.Key, n.Key)
			}
		}
	}
	slices.Sort(names)
	r.serial++
	switch name := names[r.rnd.IntN(len(names))]; name {
	case plans.Signal:
		v, _ := json.Marshal(plans.Note{V: r.serial})
		r.act(events.Action{Kind: events.ActionSignal, Name: name, Payload: v})
	case plans.ApprovalBy:
		r.act(events.Action{Kind: events.ActionSignal, Name: name, Payload: []byte(`{"approved":` + strconv.FormatBool(r.one(2)) + `}`)})
	default:
		v, _ := json.Marshal(plans.Note{Key: name, V: r.serial})
		m := events.Message{Topic: plans.WaitTopic, Key: []byte("x"), Value: v, Time: r.now, Headers: []events.Header{
			{Key: events.HeaderID, Value: []byte("event-" + name + strconv.Itoa(r.serial))},
			{Key: events.HeaderType, Value: []byte(plans.WaitTypes[r.rnd.IntN(len(plans.WaitTypes))])}}}
		if len(r.known) > 0 && r.fault(6, "event twice") {
			m = r.known[r.rnd.IntN(len(r.known))]
		}
		r.known = append(r.known, m)
		r.publish(&m)
	}
}

func (r *run) publish(m *events.Message) {
	routes, err := r.m.Routes(m)
	if err != nil {
		r.t.Fatal(err)
	}
	in := r.put(events.InputEvent, *m)
	for i := range routes {
		if e := routes[i].Event; e != nil {
			for !r.decide("event "+e.Type+" for "+e.Key, Fact{}, in, func() *events.Decision { return r.m.Event(r, r.now, *e) }) {
			}
		}
	}
}

func (r *run) act(a events.Action) {
	r.serial++
	a.ID, a.Who, a.Time = "action-"+strconv.Itoa(r.serial), "alice", r.now
	m := &events.InboxMessage{Kind: events.InboxAction, To: r.id, Action: &a}
	wrapped := events.WrapMessage(m.Encode(nil), m.To, nil)
	wrapped.Topic = events.Topics{App: app}.Inbox()
	in := r.put(events.InputAction, wrapped)
	for !r.decide(string(a.Kind)+" "+a.Name, Fact{Message: m}, in, func() *events.Decision { return r.m.Message(r, r.now, m) }) {
	}
}

func (r *run) refuse(i int) {
	c := r.asked[i]
	if r.decide("refused "+c.step, Fact{}, events.Input{Kind: events.InputRefused, MessageID: c.id.Text(app)}, func() *events.Decision {
		return r.m.Refused(r, r.now, machine.Refusal{Command: c.id, Code: "GONE"})
	}) {
		r.asked = slices.Delete(r.asked, i, i+1)
	}
}

// serve lets a participant read a command, by its rules.
func (r *run) serve(i int) {
	c := r.asked[i]
	r.asked = slices.Delete(r.asked, i, i+1)
	if r.fault(10, "command lost") {
		return
	}
	key := events.CommandID{Instance: c.id.Instance, Node: c.id.Node, Execution: c.id.Execution, Phase: events.Forward}.IdempotencyKey(c.step)
	k := r.ledger[key]
	if k == nil {
		k = &effect{label: c.step, v: r.rnd.IntN(9)}
		r.ledger[key] = k
	}
	reply := events.Reply{Command: c.id, Outcome: events.ReplyDone, Payload: []byte(`{"v":` + strconv.Itoa(k.v) + `}`)}
	if c.id.Phase == events.Compensate {
		r.undo(k, &reply)
	} else {
		r.do(k, &reply, c.expiry)
	}
	if r.fault(10, "reply lost") {
		return
	}
	r.said = append(r.said, r.answer(reply))
	if r.fault(8, "reply twice") {
		r.said = append(r.said, r.answer(reply))
	}
}

func (r *run) do(k *effect, reply *events.Reply, expiry int64) {
	reject := func(code string) { reply.Outcome, reply.Code, reply.Payload = events.ReplyRejected, code, nil }
	retriable := strings.HasPrefix(k.label, "step-") && r.pastPivot(k.label)
	switch {
	case k.applied && !k.tomb:
	case k.refused != "":
		reject(k.refused)
	case k.tomb:
		reject(events.CodeUndone)
	case r.now > expiry:
		reject(events.CodeExpired)
	case r.fault(7, "rejected") && (!retriable || r.one(10)):
		k.refused = plans.DeclinedFor
		reject(k.refused)
	case r.fault(9, "retry"):
		reply.Outcome, reply.Code = events.ReplyRetry, []string{"busy", plans.NotAgain}[r.rnd.IntN(2)]
	case r.fault(9, "progress"):
		reply.Outcome = events.ReplyProgress
	default:
		k.applied = true
	}
}

func (r *run) pastPivot(label string) bool {
	name, _, _ := strings.Cut(label, "[")
	for _, n := range r.plan.Nodes {
		if n.Name == name {
			return n.Step.Role == sagas.Retriable
		}
	}
	return false
}

func (r *run) undo(k *effect, reply *events.Reply) {
	k.tomb = true
	switch {
	case k.undone:
	case r.fault(8, "undo rejected"):
		reply.Outcome, reply.Code = events.ReplyRejected, []string{"not-now", plans.NotAgain}[r.rnd.IntN(2)]
	case r.fault(6, "undo put off"):
		reply.Outcome = events.ReplyRetry
	default:
		k.undone = true
	}
}

func (r *run) deliver(i int) {
	in, reply := r.said[i].at, r.said[i].Reply
	f := Fact{Reply: &reply}
	if r.decide(fmt.Sprintf("reply to node %d, execution %d, %s %d: %s %s", reply.Command.Node, reply.Command.Execution, reply.Command.Phase, reply.Command.Attempt, reply.Outcome, reply.Code),
		f, in, func() *events.Decision { return r.m.Reply(r, r.now, reply) }) {
		r.said = slices.Delete(r.said, i, i+1)
	}
}

// again makes every decision of the journal once more, from nothing but the journal and the topics.
func (r *run) again() {
	report, err := redecide.Shard(redecide.Config{App: app, Machine: machine.New(r.cfg), Input: func(topic string, _ int32, offset int64) *events.Message {
		return &r.topics[topic][offset]
	}}, r.journal)
	switch {
	case err != nil:
		r.t.Fatal(err)
	case len(report.Differ) > 0:
		r.t.Errorf("%d of %d decisions are others when they are made again: %v", len(report.Differ), report.Decisions, report.Differ[0])
	case report.Same+report.Skipped[redecide.Aside] != len(r.journal):
		r.t.Errorf("%d of %d decisions were made again: %v", report.Same, len(r.journal), report.Skipped)
	}
}

// judge asks for the run without faults that looks the same, and holds its effects against the participants'.
func (r *run) judge() string {
	r.again()
	o, err := r.seen.Explains()
	if err != nil {
		r.t.Errorf("no run without faults looks like this: %v", err)
		return "unexplained"
	}
	if o.Loose {
		return "loose"
	}
	if err := o.holds(r.ledger); err != nil {
		r.t.Errorf("%s, and %v", o.State, err)
	}
	end := o.State.String()
	if o.State == events.Parked {
		end += " " + o.Code
	}
	return end
}

// holds compares what is left of a saga with what participants have.
func (o *Outcome) holds(ledger map[string]*effect) error {
	left := map[string]int{}
	for _, k := range ledger {
		if k.applied && !k.undone {
			left[k.label]++
		}
	}
	var errs []error
	for _, label := range slices.Sorted(maps.Keys(o.Effects)) {
		switch e := o.Effects[label]; {
		case e == Stands && left[label] != 1, e == None && left[label] != 0, e == Either && left[label] > 1:
			errs = append(errs, fmt.Errorf("step %s has %d effects, and should have %s", label, left[label], e))
		}
	}
	return errors.Join(errs...)
}
