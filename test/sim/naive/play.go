package naive

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Verdict is what becomes of a step's command.
type Verdict uint8

const (
	SaysDone Verdict = iota
	SaysRejected
	SaysNothing // whether it happened stays unknown
)

// World is a script: what participants and senders do.
type World interface {
	// Pick says which of several things happens next, from 0 to n-1. Who tries every answer enumerates what concurrency
	// allows. n is at least 2.
	Pick(n int) int
	Step(label string) (v Verdict, reply []byte)
	Undo(label string) bool         // false: it cannot be undone
	Wait(label string) *sagas.Taken // of an event or a signal; nil: nothing comes
	See(o Output)                   // what leaves the saga, in order
}

// Play runs a plan without faults: every command is answered once, or never, and nothing is lost. The outcome is Parked
// where an operator would be needed, and Running where the saga waits for what never comes. An error is one of the
// definition's functions.
func Play(p *sagas.Plan, key string, event []byte, w World) (*Outcome, error) {
	s, err := Start(p, key, event, 0, nil)
	if err != nil {
		return nil, err
	}
	never := map[*Act]bool{}
	for {
		for len(s.Owed) > 0 {
			o := s.Owed[0]
			s.Owed = s.Owed[1:]
			switch a := s.At(o.Label); o.Kind {
			case Command:
				a.Sent = 1
			case Undo:
				a.Undoing = true
			}
			w.See(o)
		}
		open := s.open(never)
		switch {
		case s.State == Completed:
			return s.outcome(events.Completed, ""), nil
		case s.State == Compensated:
			return s.outcome(events.Compensated, ""), nil
		case s.State == Stuck:
			return s.outcome(events.Parked, "failed-past-pivot"), nil
		case len(open) == 0:
			return s.outcome(events.Running, ""), nil
		}
		a := open[0]
		if len(open) > 1 {
			a = open[w.Pick(len(open))]
		}
		if code := s.happens(a, w, never); code != "" {
			return s.outcome(events.Parked, code), nil
		}
		if s.Err != nil {
			return nil, s.Err
		}
	}
}

// open are the nodes of which the world has yet to say something, in the order of their labels.
func (s *Saga) open(never map[*Act]bool) []*Act {
	var open []*Act
	for _, a := range s.acts {
		waits := a.Kind == sagas.KindWait && a.Forward()
		if a.Kind == sagas.KindStep {
			waits = a.Sent > 0 && (a.Forward() || a.Status == GoingBack && a.Undoing)
		}
		if waits && !never[a] {
			open = append(open, a)
		}
	}
	slices.SortFunc(open, func(a, b *Act) int { return cmp.Compare(a.Label, b.Label) })
	return open
}

// happens lets the world say what becomes of a node. code is why the saga is parked by it.
func (s *Saga) happens(a *Act, w World, never map[*Act]bool) (code string) {
	switch {
	case a.Status == GoingBack:
		if !w.Undo(a.Label) {
			return "undo-exhausted"
		}
		s.IsUndone(a)
	case a.Kind == sagas.KindStep:
		v, reply := w.Step(a.Label)
		switch role := a.Step.Role; {
		case v == SaysDone:
			s.Done(a, reply)
		case v == SaysRejected && role == sagas.Retriable:
			return "retriable-rejected"
		case v == SaysRejected:
			s.Says(a, 1, false)
			s.Fail(a, "rejected", "")
		case role == sagas.Retriable:
			return "retriable-exhausted"
		case role == sagas.Pivot:
			return "pivot-unknown"
		default:
			s.Fail(a, "timeout", "")
		}
	case a.Wait.Sleep > 0:
		s.Pass(a)
	default:
		switch in := w.Wait(a.Label); {
		case in != nil:
			s.Take(a, *in)
		case a.Wait.Within > 0:
			s.Fail(a, "timeout", "")
		default:
			never[a] = true
		}
	}
	return ""
}

// outcome is what is left of the saga in the world.
func (s *Saga) outcome(state events.State, code string) *Outcome {
	o := &Outcome{State: state, Code: code, Effects: map[string]Effect{}}
	for label, a := range s.acts {
		switch {
		case a.Kind != sagas.KindStep || a.Step.EffectFree:
		case a.Status == Done:
			o.Effects[label] = Stands
		case a.Status == Gone:
			o.Effects[label] = None
		default:
			o.Effects[label] = Either
		}
	}
	return o
}

func (o *Outcome) String() string {
	text := o.State.String()
	if o.Code != "" {
		text += " " + o.Code
	}
	for _, label := range slices.Sorted(maps.Keys(o.Effects)) {
		text += fmt.Sprintf(", %s: %s", label, o.Effects[label])
	}
	return text
}
