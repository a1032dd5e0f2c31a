package sagas

import (
	"errors"
	"reflect"
	"time"

	"github.com/skald-io/skald/internal/mutant"
)

// DefaultKeep is how long an event that comes before its Wait is kept, unless WaitOf.Keep says otherwise.
const DefaultKeep = 24 * time.Hour

// Awaited is what a Wait waits for: an Event[E] or a Signal[E].
type Awaited[E any] interface {
	awaited() awaited[E]
}

// awaited names E, so that Wait can infer it.
type awaited[E any] struct {
	event    *EventPlan // or else
	signal   string
	declared string // where
	readers  string // where the functions that read an event were given
	decode   func(Taken) (E, error)
}

func (e Event[E]) awaited() awaited[E] {
	plan := e.plan()
	return awaited[E]{event: &plan, declared: e.source, readers: e.readers,
		decode: func(in Taken) (E, error) { return e.Decode(in.Payload) }}
}

// Signal is something that a person, or a program of yours, tells one instance through the engine's API: it
// names the instance, or the definition and the business key. S is what it says. It is immutable and safe for
// concurrent use.
type Signal[S any] struct {
	name, source string
	decode       func(Taken) (S, error) // nil: as JSON
}

// NewSignal names a signal: lower-case letters, digits and '-', beginning with a letter, at most 64. A wrong
// name is reported by the definition that waits for it.
func NewSignal[S any](name string) Signal[S] { return Signal[S]{name: name, source: caller(1)} }

// Name is the signal's name.
func (s Signal[S]) Name() string { return s.name }

// Encode prints a signal's payload as JSON.
func (s Signal[S]) Encode(v S) ([]byte, error) { return encodeJSON(v) }

func (s Signal[S]) awaited() awaited[S] {
	decode := s.decode
	if decode == nil {
		decode = func(in Taken) (v S, err error) {
			err = decodeReply(in.Payload, &v) // a signal may be its name alone
			return v, err
		}
	}
	return awaited[S]{signal: s.name, declared: s.source, decode: decode}
}

// Decision is what an approval says. Its JSON has to have the field "approved".
type Decision struct {
	Approved bool   `json:"approved"`
	Comment  string `json:"comment,omitempty"`
	// By is who sent it, as the engine authenticated them; what the payload says of it does not count.
	By string `json:"by,omitempty"`
}

// Approval is a signal by which a person says yes or no.
func Approval(name string) Signal[Decision] {
	return Signal[Decision]{name: name, source: caller(1), decode: func(in Taken) (Decision, error) {
		var d struct {
			Approved *bool  `json:"approved"`
			Comment  string `json:"comment"`
			By       string `json:"by"`
		}
		if err := decodeJSON(in.Payload, &d); err != nil {
			return Decision{}, err
		}
		if d.Approved == nil {
			return Decision{}, errors.New(`decoding an approval: it says neither "approved": true nor "approved": false`)
		}
		who := in.Who
		if mutant.On("sagas-approval-says-who") {
			who = d.By
		}
		return Decision{Approved: *d.Approved, Comment: d.Comment, By: who}, nil
	}}
}

// SleepOf is a pause in a saga over data T.
type SleepOf[T any] struct{ s *spec }

func (n SleepOf[T]) spec(*T) *spec { return n.s }

// Sleep lets that much time pass, at least a millisecond. Nothing in its arguments tells T, so it is written
// out: sagas.Sleep[Order]("cool-off", time.Hour).
func Sleep[T any](name string, d time.Duration) SleepOf[T] {
	return SleepOf[T]{&spec{kind: KindWait, name: name, source: caller(1), wait: &waitSpec{plan: WaitPlan{Sleep: d}, sleep: true}}}
}

// WaitOf is a wait for an event or a signal, in a saga over data T. Its methods give a changed one.
type WaitOf[T any] struct{ s *spec }

func (n WaitOf[T]) spec(*T) *spec { return n.s }

type waitSpec struct {
	plan              WaitPlan
	sleep             bool
	within, keep      *time.Duration
	declared, readers string
	typ               reflect.Type // of the event or the signal
}

// Wait waits for an event or a signal; fn takes it into the data, is pure, and may be nil when what it says is
// not needed (T is then written out: sagas.Wait[Order]("paid", paid, nil)).
//
// An event is taken by the Wait whose correlation key it carries: the event's key, as Event.KeyBy says, is
// compared with the saga's business key, or with what By says. An event that comes early is kept, see Keep; a
// signal that comes early waits in the instance's queue. One event goes to one instance of a definition.
func Wait[T, E any](name string, what Awaited[E], fn func(*T, E)) WaitOf[T] {
	s := &spec{kind: KindWait, name: name, source: caller(1), wait: &waitSpec{typ: reflect.TypeFor[E]()}}
	if what == nil {
		s.missing = append(s.missing, "an event or a signal to wait for")
		return WaitOf[T]{s}
	}
	a := what.awaited()
	s.wait.plan.Event, s.wait.plan.Signal, s.wait.declared, s.wait.readers = a.event, a.signal, a.declared, a.readers
	if fn != nil {
		s.wait.plan.Take = func(data any, in Taken) error {
			d, err := over[T](data)
			if err != nil {
				return err
			}
			v, err := a.decode(in)
			if err != nil {
				return err
			}
			fn(d, v)
			return nil
		}
	}
	return WaitOf[T]{s}
}

func (n WaitOf[T]) with(change func(*waitSpec)) WaitOf[T] {
	return WaitOf[T]{n.s.with(func(s *spec) {
		w := *s.wait
		change(&w)
		s.wait = &w
	})}
}

// By says which key the event must carry; without it, it is the saga's business key. It is made when the Wait
// begins; key is pure. Signals need none: they name their instance.
func (n WaitOf[T]) By(key func(T) string) WaitOf[T] {
	return n.with(func(w *waitSpec) { w.plan.Key = keyOf(key) })
}

// Within is how long it may take, at least a millisecond, before the Wait fails with the code timeout. Without
// it, it waits for ever.
func (n WaitOf[T]) Within(d time.Duration) WaitOf[T] {
	return n.with(func(w *waitSpec) { w.within = &d })
}

// Keep is how long an event is kept that comes when nobody waits for it, and how long the id of one is known
// so that it is not taken twice; at least a millisecond. Without it, it is DefaultKeep. Of Waits for one event,
// in one definition, the longest counts.
func (n WaitOf[T]) Keep(d time.Duration) WaitOf[T] {
	return n.with(func(w *waitSpec) { w.keep = &d })
}
