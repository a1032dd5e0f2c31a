package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// take takes an input: it acts on it, or, when the instance is parked or is going to be, holds it.
func (w *work) take(in input) {
	if w.stopped() {
		return
	}
	switch {
	case in.timer != nil:
		w.takeTimer(in.timer)
	case in.answer != nil:
		w.takeAnswer(in.answer)
	default:
		w.takeMessage(in.message)
	}
	w.run()
}

func (w *work) takeTimer(t *Timer) {
	switch {
	case t.Due == 0:
		w.ignore(ReasonStaleTimer)
	case t.Row == headRef:
		if t.Due != w.headWas {
			w.ignore(ReasonStaleTimer)
			return
		}
		w.headTimer()
	case t.Row.Part == events.PartNode && t.Row.N <= maxRow:
		r := w.row(uint32(t.Row.N))
		if t.Due != r.was && !mutant.On("machine-stale-timer-fires") {
			w.ignore(ReasonStaleTimer)
			return
		}
		r.set(0)
		n, ok := w.placeOf(r)
		switch {
		case w.holds():
			w.hold(r)
		case !ok || n.Node == nil:
			w.corrupt = true
		default:
			w.nodeTimer(n, r)
		}
	default:
		w.ignore(ReasonStaleTimer)
	}
}

// headTimer goes on with what was held, or finds the deadline passed.
func (w *work) headTimer() {
	w.headDue = 0
	if w.holds() {
		return
	}
	if w.head.Held != 0 {
		w.takeHeld()
		return
	}
	at := w.head.Started + millis(w.plan.Deadline)
	switch {
	case w.head.State != events.Running || w.plan.Deadline <= 0:
	case at > w.now:
		w.headDue = at
	case w.head.Pivot != events.PivotAhead:
		w.entry(events.Entry{Kind: events.EntryTransition, To: events.Running, Code: CodeDeadline, Message: "past the pivot: the saga goes on"})
	default:
		w.head.Cause, w.head.CauseMessage = CodeDeadline, "the saga took longer than "+w.plan.Deadline.String()
		w.compensate()
	}
}

// nodeTimer takes the due time of a node.
func (w *work) nodeTimer(n place, r *row) {
	switch n.Kind {
	case sagas.KindStep:
		w.stepTimer(n, r)
	case sagas.KindWait:
		w.waitTimer(n, r)
	default:
		w.walkOn(n, r)
	}
}
