package sagatest

import (
	"encoding/json"
	"reflect"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Event delivers an event that the Wait of that name waits for, before or after the Wait begins. event is of
// the Wait's type, or []byte: a value as it stands on the topic. Its record has the instance's business key,
// the type that the Wait names, and an id.
func (s *Scenario) Event(wait string, event any) {
	s.t.Helper()
	typ, ok := s.def.WaitType(wait)
	plan := s.waitPlan(wait)
	if !ok || plan == nil {
		s.fail("the definition has no Wait %q for an event", wait)
	}
	key := s.key
	if s.instance.IsZero() {
		key = "key" // as the event of Given
	}
	s.EventMessage(events.Message{
		Topic: plan.Topic,
		Key:   []byte(key),
		Value: s.encode("the event of "+wait, event, typ),
		Headers: []events.Header{
			{Key: events.HeaderID, Value: []byte(s.id("event"))},
			{Key: events.HeaderType, Value: []byte(plan.Type)},
		},
	})
}

func (s *Scenario) waitPlan(wait string) *sagas.EventPlan {
	for _, n := range s.plan.Nodes {
		if n.Name == wait && n.Wait != nil {
			return n.Wait.Event
		}
	}
	return nil
}

// EventMessage delivers a record to those who wait for it, exactly as it is. A record that no Wait of the
// definition is for fails the test; one that comes twice, or that finds too many before it, does not: see
// History.
func (s *Scenario) EventMessage(m events.Message) {
	s.t.Helper()
	why, taken := "", false
	for _, r := range s.routes(&m) {
		if r.Poison != nil {
			s.fail("the event is refused: %v", r.Poison)
		}
		if why = r.Reason; r.Event == nil {
			continue
		}
		taken = true
		s.decide(events.Input{Kind: events.InputEvent, Topic: m.Topic, MessageID: r.Event.MessageID},
			func() *events.Decision { return s.machine.Event(s.rows, s.now, *r.Event) })
	}
	if !taken {
		s.fail("no Wait is for this event: %s", why)
	}
	s.settle()
}

// Signal sends a signal to the instance. payload is of the signal's type, or []byte: as it is sent, or nil: none.
// A signal that is refused fails the test; see Act for one that may be.
func (s *Scenario) Signal(signal string, payload any) {
	s.t.Helper()
	s.SignalFrom("tester", signal, payload)
}

// SignalFrom is Signal with the name of who sends it.
func (s *Scenario) SignalFrom(who, signal string, payload any) {
	s.t.Helper()
	typ, ok := s.def.SignalType(signal)
	if !ok {
		s.fail("the definition waits for no signal %q", signal)
	}
	b := s.encode("the signal "+signal, payload, typ)
	if a := s.Act(events.Action{Kind: events.ActionSignal, Name: signal, Who: who, Payload: b}); !a.Done {
		s.fail("the signal %s is refused: %s: %s", signal, a.Code, a.Message)
	}
}

// Approve sends the approval of that name, by who.
func (s *Scenario) Approve(approval, who string) {
	s.t.Helper()
	s.SignalFrom(who, approval, sagas.Decision{Approved: true})
}

// Deny sends the approval of that name, by who, and says no.
func (s *Scenario) Deny(approval, who, comment string) {
	s.t.Helper()
	s.SignalFrom(who, approval, sagas.Decision{Comment: comment})
}

// Act does to the instance what an operator does, and gives the answer. What the test leaves out is filled in: an
// id, the time, who.
func (s *Scenario) Act(a events.Action) events.Answer {
	s.t.Helper()
	s.Head()
	if a.ID == "" {
		a.ID = s.id("action")
	}
	if a.Who == "" {
		a.Who = "tester"
	}
	if a.Time == 0 {
		a.Time = s.now
	}
	m := &events.InboxMessage{Kind: events.InboxAction, To: s.instance, Action: &a}
	d := s.decide(events.Input{Kind: events.InputAction, MessageID: a.ID},
		func() *events.Decision { return s.machine.Message(s.rows, s.now, m) })
	if d.Outcome == events.Quarantined {
		s.fail("the action is quarantined: %s", d.Reason)
	}
	raw, _, ok := s.rows.Row(s.instance, events.RowRef{Part: events.PartAnswer, N: events.AnswerNumber(a.ID)})
	if !ok {
		s.fail("the action %s has no answer: %s", a.Kind, d.Reason)
	}
	answer, err := events.DecodeAnswer(raw)
	if err != nil {
		s.fail("%v", err)
	}
	s.settle()
	return *answer
}

// Emitted is an event that the saga told the world.
type Emitted struct {
	Emit    string // the node's name
	Topic   string
	Type    string
	Key     string
	Payload []byte
	Headers []events.Header

	s    *Scenario
	seen bool
}

// ExpectEvent finds the event that the Emit of that name told and that was not expected before; of several, the
// first. Without one it fails the test.
func (s *Scenario) ExpectEvent(emit string) *Emitted {
	s.t.Helper()
	if _, ok := s.def.EmitType(base(emit)); !ok {
		s.fail("the definition has no Emit %q", emit)
	}
	for _, e := range s.emitted {
		if e.Emit == emit && !e.seen {
			e.seen = true
			return e
		}
	}
	s.fail("there is no new event: %s", emit)
	return nil
}

// Emitted are all events that were told so far, in order.
func (s *Scenario) Emitted() []*Emitted { return append([]*Emitted(nil), s.emitted...) }

// With fails the test unless the event, decoded, equals want, which is of its type.
func (e *Emitted) With(want any) *Emitted {
	e.s.t.Helper()
	typ, _ := e.s.def.EmitType(base(e.Emit))
	e.s.equal("the event of "+e.Emit, e.Payload, typ, want)
	return e
}

// equal compares a payload with what it should be.
func (s *Scenario) equal(what string, payload []byte, typ reflect.Type, want any) {
	s.t.Helper()
	if got := reflect.TypeOf(want); got != typ {
		s.fail("%s is a %v, not a %v", what, typ, got)
	}
	got := reflect.New(typ)
	if err := json.Unmarshal(payload, got.Interface()); err != nil {
		s.fail("%s: %v", what, err)
	}
	if !reflect.DeepEqual(got.Elem().Interface(), want) {
		b, _ := json.Marshal(want)
		s.fail("%s is\n\t%s\nwant\n\t%s", what, payload, b)
	}
}
