package sagatest

import (
	"bytes"
	"encoding/json"
	"reflect"
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
	commands []*Command // in the order in which they were decided
	standIns map[role]*StandIn
	log      []line
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
	s.GivenMessage(events.Message{
		Topic: s.plan.Start.Topic,
		Key:   []byte("key"),
		Value: s.encode("the event", event, s.def.EventType()),
		Headers: []events.Header{
			{Key: events.HeaderID, Value: []byte("event-1")},
			{Key: events.HeaderType, Value: []byte(s.plan.Start.Type)},
		},
	})
}

// GivenMessage delivers a record to the saga, exactly as it is: for definitions that read keys, types or
// ids from elsewhere, and for events that come twice. A record that does not start the scenario's
// instance fails the test.
func (s *Scenario) GivenMessage(m events.Message) {
	s.t.Helper()
	if m.Time == 0 {
		m.Time = s.now
	}
	routes, err := s.machine.Routes(&m)
	if err != nil {
		s.fail("the event is refused: %v", err)
	}
	route := routes[0]
	switch {
	case route.Kind != events.InputEvent:
		s.fail("the event does not start the saga: %s", route.Reason)
	case !s.instance.IsZero() && route.Instance != s.instance:
		s.fail("the event starts another instance, by key %q and id %q", route.Start.Key, route.Start.MessageID)
	}
	d := s.decide(events.Input{Kind: events.InputEvent, Topic: m.Topic, MessageID: route.Start.MessageID},
		func() *events.Decision { return s.machine.Start(s.rows, s.now, *route.Start) })
	if d.Outcome == events.Quarantined {
		s.fail("the event is quarantined: %s", d.Reason)
	}
	s.instance, s.key = route.Instance, route.Start.Key
	s.settle()
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
	if s.instance.IsZero() || len(s.rows) > 0 {
		s.fail("%d rows of the instance are left", len(s.rows))
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

// settle does what is due now and lets stand-ins answer, until neither has anything left to do.
func (s *Scenario) settle() {
	s.t.Helper()
	for range maxInputs {
		if ref, due, ok := s.rows.nextTimer(); ok && due <= s.now {
			s.fire(ref, due)
		} else if !s.answerOne() {
			return
		}
	}
	s.fail("there is no end to what is due now")
}

func (s *Scenario) fire(ref events.RowRef, due int64) {
	s.t.Helper()
	d := s.decide(events.Input{Kind: events.InputTimer, Row: ref, Due: due, MessageID: "timer"}, func() *events.Decision {
		return s.machine.Timer(s.rows, s.now, machine.Timer{Instance: s.instance, Row: ref, Due: due})
	})
	if d.Outcome == events.Ignored {
		s.fail("the machine does not know its own timer of the %s row %d: %s", ref.Part, ref.N, d.Reason)
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
	if d.Purge {
		clear(s.rows)
		s.log = append(s.log, line{time: s.now, text: "purged"})
	}
	for _, c := range d.Rows {
		s.rows[c.Ref] = row{c.Value, c.Due}
	}
	for i := range d.Entries {
		s.log = append(s.log, line{time: s.now, entry: &d.Entries[i]})
	}
	for i := range messages {
		s.commands = append(s.commands, s.command(messages[i]))
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

func (s *Scenario) nodeName(id uint32) string {
	if int(id) < len(s.plan.Nodes) {
		return s.plan.Nodes[id].Name
	}
	return ""
}

// rows are the instance's, as the machine reads them.
type rows map[events.RowRef]row

type row struct {
	value []byte
	due   int64
}

// Row is of machine.View.
func (r rows) Row(_ events.InstanceID, ref events.RowRef) (value []byte, due int64, ok bool) {
	x, ok := r[ref]
	return x.value, x.due, ok
}

// nextTimer is the row that is due first; of several, the first in the order of the store.
func (r rows) nextTimer() (ref events.RowRef, due int64, ok bool) {
	for k, x := range r {
		if x.due == 0 {
			continue
		}
		if !ok || x.due < due || x.due == due && (k.Part < ref.Part || k.Part == ref.Part && k.N < ref.N) {
			ref, due, ok = k, x.due, true
		}
	}
	return ref, due, ok
}
