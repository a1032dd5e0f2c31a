package sagatest

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/sagas"
)

const app = "sagatest"

// Start is the time on a scenario's clock when it is made.
var Start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// maxInputs ends a call that goes on by itself for ever: a saga whose undo is tried for ever, say, and
// whose stand-in never does it.
const maxInputs = 100_000

// Scenario is one instance of a saga under test. It is not safe for concurrent use. Whatever is not as the
// test says fails it at once, with the history so far.
type Scenario struct {
	t       testing.TB
	def     *sagas.Definition
	plan    *sagas.Plan
	machine *machine.Machine

	now      int64 // ms since 1970
	seq      uint64
	instance events.InstanceID // zero until it is started
	key      string
	rows     rows
	inbox    []events.InboxMessage // what entities said to one another and was not delivered yet
	commands []*Command            // in the order in which they were decided
	emitted  []*Emitted            // likewise
	standIns map[role]*StandIn
	log      []line
	sent     int // events, signals and actions that were given no id
}

// role is one of the two things a participant does for a step.
type role struct {
	step  string
	phase events.Phase
}

// New makes a scenario of a definition; one with mistakes fails the test.
func New(t testing.TB, def *sagas.Definition) *Scenario {
	t.Helper()
	plan, err := def.Plan()
	if err != nil {
		t.Fatalf("the definition has mistakes:\n%v", err)
	}
	return &Scenario{
		t:        t,
		def:      def,
		plan:     plan,
		machine:  machine.New(machine.Config{App: app, Slots: events.SlotsPerShard, Plans: []*sagas.Plan{plan}}),
		now:      Start.UnixMilli(),
		rows:     rows{},
		standIns: map[role]*StandIn{},
	}
}

// Given starts the saga by an event, of the type the definition starts on (or []byte, a value as it stands
// on the topic). Its record has the key "key", the type of the definition's event and an id.
func (s *Scenario) Given(event any) {
	s.t.Helper()
	if !s.instance.IsZero() {
		s.fail("the saga is started already: a scenario is about one instance")
	}
	s.GivenMessage(s.startMessage(event, "event-1"))
}

// GivenMessage delivers a record to the saga, exactly as it is: for definitions that read keys, types or
// ids from elsewhere, and for events that come twice. A record that does not start the scenario's
// instance fails the test.
func (s *Scenario) GivenMessage(m events.Message) {
	s.t.Helper()
	start := s.starts(&m)
	if !s.instance.IsZero() && start.Instance != s.instance {
		s.fail("the event starts another instance, by key %q and id %q", start.Key, start.MessageID)
	}
	d := s.start(&m, start)
	if d.Outcome == events.Quarantined {
		s.fail("the event is quarantined: %s", d.Reason)
	}
	s.instance, s.key = start.Instance, start.Key
	s.settle()
}

// GivenAgain delivers another event that would start the saga for the same business key, with an id of its own,
// and gives what became of it, and why: what the definition's During and After say. When it starts a new
// instance, the scenario is about that one from now on.
func (s *Scenario) GivenAgain(event any) (outcome events.Outcome, reason string) {
	s.t.Helper()
	if s.instance.IsZero() {
		s.fail("nothing started the saga: begin with Given")
	}
	m := s.startMessage(event, s.id("event"))
	start := s.starts(&m)
	if start.Key != s.key {
		s.fail("the event is about the business key %q, not %q", start.Key, s.key)
	}
	d := s.start(&m, start)
	if d.Outcome == events.Applied {
		s.instance = start.Instance
	}
	s.settle()
	return d.Outcome, d.Reason
}

func (s *Scenario) startMessage(event any, id string) events.Message {
	s.t.Helper()
	return events.Message{
		Topic: s.plan.Start.Topic,
		Key:   []byte("key"),
		Value: s.encode("the event", event, s.def.EventType()),
		Headers: []events.Header{
			{Key: events.HeaderID, Value: []byte(id)},
			{Key: events.HeaderType, Value: []byte(s.plan.Start.Type)},
		},
	}
}

// starts finds what a record starts.
func (s *Scenario) starts(m *events.Message) *machine.Start {
	s.t.Helper()
	why := ""
	for _, r := range s.routes(m) {
		if r.Start != nil {
			return r.Start
		}
		why = r.Reason
	}
	s.fail("the event does not start the saga: %s", why)
	return nil
}

func (s *Scenario) start(m *events.Message, start *machine.Start) *events.Decision {
	s.t.Helper()
	return s.decide(events.Input{Kind: events.InputEvent, Topic: m.Topic, MessageID: start.MessageID},
		func() *events.Decision { return s.machine.Start(s.rows, s.now, *start) })
}

func (s *Scenario) routes(m *events.Message) []machine.Route {
	s.t.Helper()
	if m.Time == 0 {
		m.Time = s.now
	}
	routes, err := s.machine.Routes(m)
	if err != nil {
		s.fail("the event is refused: %v", err)
	}
	return routes
}

// id makes one for a message to which the test gives none.
func (s *Scenario) id(what string) string {
	s.sent++
	return what + "-" + strconv.Itoa(s.sent+1)
}

// Now is the time on the scenario's clock.
func (s *Scenario) Now() time.Time { return time.UnixMilli(s.now).UTC() }

// Advance moves the clock, and does on the way whatever is due: time-outs, attempts after a backoff, waits,
// the deadline, and in the end the purge. d is rounded up to milliseconds.
func (s *Scenario) Advance(d time.Duration) {
	s.t.Helper()
	if d < 0 {
		s.fail("time does not go back by %v", -d)
	}
	until := s.now + int64((d+time.Millisecond-1)/time.Millisecond)
	for range maxInputs {
		_, due, ok := s.rows.nextTimer()
		if !ok || due > until {
			s.now = until
			return
		}
		s.now = max(s.now, due)
		s.settle()
	}
	s.fail("there is no end to what is due in %v", d)
}

// AdvanceToTimer moves the clock to the next moment at which something is due, and says how far that was:
// for delays that jitter makes hard to foretell. When nothing is due ever, it fails the test.
func (s *Scenario) AdvanceToTimer() time.Duration {
	s.t.Helper()
	_, due, ok := s.rows.nextTimer()
	if !ok {
		s.fail("nothing is due, now or later")
	}
	d := time.Duration(max(due-s.now, 0)) * time.Millisecond
	s.Advance(d)
	return d
}

// Finish moves the clock until the instance is final. It fails the test if the instance is parked, or
// waits for a reply that no stand-in gives.
func (s *Scenario) Finish() {
	s.t.Helper()
	for range maxInputs {
		switch h := s.Head(); {
		case h.State.Final():
			return
		case h.State == events.Parked:
			s.fail("the instance is parked in step %q: %s: %s", s.nodeName(h.ParkedNode), h.Code, h.Message)
		}
		s.AdvanceToTimer()
	}
	s.fail("the instance does not end")
}

// State fails the test unless the instance is in that state.
func (s *Scenario) State(want events.State) {
	s.t.Helper()
	if h := s.Head(); h.State != want {
		why := ""
		if h.Code != "" {
			why = " because of " + h.Code
			if h.Message != "" {
				why += ": " + h.Message
			}
		}
		s.fail("the instance is %s%s; want %s", h.State, why, want)
	}
}

// Code fails the test unless the instance compensates, or is parked, for that reason: a participant's error
// code, or one of the machine's.
func (s *Scenario) Code(want string) {
	s.t.Helper()
	if h := s.Head(); h.Code != want {
		s.fail("the instance is %s because of %q; want %q", h.State, h.Code, want)
	}
}

// Purged fails the test unless nothing is left of the instance.
func (s *Scenario) Purged() {
	s.t.Helper()
	if n := s.rows.of(s.instance); s.instance.IsZero() || n > 0 {
		s.fail("%d rows of the instance are left", n)
	}
}

// Head is the instance's head: state, reasons, times.
func (s *Scenario) Head() events.Head {
	s.t.Helper()
	if s.instance.IsZero() {
		s.fail("nothing started the saga: begin with Given")
	}
	raw, _, ok := s.rows.Row(s.instance, events.RowRef{Part: events.PartHead})
	if !ok {
		s.fail("the instance is purged")
	}
	h, err := events.DecodeHead(raw)
	if err != nil {
		s.fail("%v", err)
	}
	return *h
}

// Data is the instance's data; T is the definition's.
func Data[T any](s *Scenario) T {
	s.t.Helper()
	s.Head()
	data := s.plan.NewData()
	raw, _, ok := s.rows.Row(s.instance, events.RowRef{Part: events.PartData})
	if !ok {
		s.fail("the instance has no data")
	}
	if err := s.plan.Decode(raw, data); err != nil {
		s.fail("%v", err)
	}
	d, ok := data.(*T)
	if !ok {
		s.fail("the saga's data is a %v, not a %v", s.def.DataType(), reflect.TypeFor[T]())
	}
	return *d
}

// settle delivers what entities say to one another, does what is due now and lets stand-ins answer, until there
// is nothing left to do.
func (s *Scenario) settle() {
	s.t.Helper()
	for range maxInputs {
		if len(s.inbox) > 0 {
			m := s.inbox[0]
			s.inbox = s.inbox[1:]
			s.message(&m)
		} else if at, due, ok := s.rows.nextTimer(); ok && due <= s.now {
			s.fire(at, due)
		} else if !s.answerOne() {
			return
		}
	}
	s.fail("there is no end to what is due now")
}

func (s *Scenario) message(m *events.InboxMessage) {
	s.t.Helper()
	s.decide(events.Input{Kind: events.InputMessage, MessageID: s.id("message")},
		func() *events.Decision { return s.machine.Message(s.rows, s.now, m) })
}

func (s *Scenario) fire(at place, due int64) {
	s.t.Helper()
	d := s.decide(events.Input{Kind: events.InputTimer, Row: at.ref, Due: due, MessageID: "timer"}, func() *events.Decision {
		return s.machine.Timer(s.rows, s.now, machine.Timer{Instance: at.of, Row: at.ref, Due: due})
	})
	if d.Outcome == events.Ignored {
		s.fail("the machine does not know its own timer of the %s row %d: %s", at.ref.Part, at.ref.N, d.Reason)
	}
}

// decide makes a decision twice, prints and reads it as the journal would, and applies it.
func (s *Scenario) decide(in events.Input, once func() *events.Decision) *events.Decision {
	s.t.Helper()
	s.seq++
	encoded := func() []byte {
		d := once()
		if d == nil {
			s.fail("the machine finds the instance's rows corrupt")
		}
		d.Input = in
		r := events.Record{Kind: events.KindDecision, Seq: s.seq, Time: s.now, Decision: d}
		return r.Encode(nil)
	}
	first, second := encoded(), encoded()
	if !bytes.Equal(first, second) {
		s.fail("the same decision, made twice, differs: a function of the definition is not pure\n%s", difference(first, second))
	}
	r, err := events.DecodeRecord(first)
	if err != nil {
		s.fail("the decision cannot be read back: %v", err)
	}
	s.apply(r)
	return r.Decision
}

func (s *Scenario) apply(r *events.Record) {
	s.t.Helper()
	d := r.Decision
	if d.Outcome != events.Applied {
		s.log = append(s.log, line{time: s.now, text: d.Outcome.String() + ": " + d.Reason})
		return
	}
	messages, err := events.Outgoing(app, r)
	if err != nil {
		s.fail("%v", err)
	}
	if d.Reason != "" {
		s.log = append(s.log, line{time: s.now, text: d.Reason})
	}
	if d.Purge {
		maps.DeleteFunc(s.rows, func(p place, _ row) bool { return p.of == d.Instance })
		if d.Instance == s.instance {
			s.log = append(s.log, line{time: s.now, text: "purged"})
		}
	}
	for i := range d.Rows {
		c := &d.Rows[i]
		at := place{d.Whose(c), c.Ref}
		if c.Gone {
			delete(s.rows, at)
		} else {
			s.rows[at] = row{c.Value, c.Due}
		}
	}
	for i := range d.Entries {
		s.log = append(s.log, line{time: s.now, entry: &d.Entries[i]})
	}
	for i := range messages {
		s.emit(&d.Emits[i], messages[i])
	}
}

func (s *Scenario) emit(e *events.Emit, m events.Message) {
	s.t.Helper()
	switch e.Kind {
	case events.EmitCommand:
		s.commands = append(s.commands, s.command(e, m))
	case events.EmitEvent:
		s.emitted = append(s.emitted, &Emitted{Emit: e.Step, Topic: m.Topic, Type: e.Type, Key: string(m.Key), Payload: m.Value, Headers: m.Headers, s: s})
	case events.EmitMessage:
		msg, err := events.DecodeInboxMessage(m.Value)
		if err != nil {
			s.fail("what one entity says to another cannot be read: %v", err)
		}
		s.inbox = append(s.inbox, *msg)
	}
}

// encode prints what the test says a participant or producer sent. A value of another type would decode to
// something half empty and make the test lie.
func (s *Scenario) encode(what string, v any, want reflect.Type) []byte {
	s.t.Helper()
	if v == nil {
		return nil
	}
	if raw, ok := v.([]byte); ok {
		return raw
	}
	if got := reflect.TypeOf(v); !got.AssignableTo(want) {
		s.fail("%s is a %v, not a %v", what, want, got)
	}
	b, err := json.Marshal(v)
	if err != nil {
		s.fail("%s: %v", what, err)
	}
	return b
}

// nodeName is the name of the node that a row of the instance belongs to. Rows of loops have numbers of their
// own.
func (s *Scenario) nodeName(row uint32) string {
	if int(row) >= len(s.plan.Nodes) {
		raw, _, _ := s.rows.Row(s.instance, events.RowRef{Part: events.PartNode, N: uint64(row)})
		n, err := events.DecodeNode(raw)
		if err != nil || n.Plan == 0 {
			return ""
		}
		row = n.Plan - 1
	}
	if int(row) < len(s.plan.Nodes) {
		return s.plan.Nodes[row].Name
	}
	return ""
}

// rows are those of the instance, of its business key and of the correlations it waits at, as the machine reads
// them.
type rows map[place]row

type place struct {
	of  events.InstanceID
	ref events.RowRef
}

type row struct {
	value []byte
	due   int64
}

// Row is of machine.View.
func (r rows) Row(of events.InstanceID, ref events.RowRef) (value []byte, due int64, ok bool) {
	x, ok := r[place{of, ref}]
	return x.value, x.due, ok
}

// of counts the rows of an entity.
func (r rows) of(id events.InstanceID) (n int) {
	for at := range r {
		if at.of == id {
			n++
		}
	}
	return n
}

// nextTimer is the row that is due first; of several, the first in the order of the store.
func (r rows) nextTimer() (at place, due int64, ok bool) {
	for k, x := range r {
		if x.due == 0 {
			continue
		}
		if !ok || x.due < due || x.due == due && bytes.Compare(events.RowKey(k.of, k.ref), events.RowKey(at.of, at.ref)) < 0 {
			at, due, ok = k, x.due, true
		}
	}
	return at, due, ok
}
