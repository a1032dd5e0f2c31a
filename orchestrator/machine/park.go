package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// park stops the instance: no command leaves it until it goes on.
func (w *work) park(t *trouble) {
	h := w.head
	if h.State != events.Parked && h.State != events.Suspended {
		h.ParkedIn = h.State
	}
	h.ParkedNode = 0
	if t.node.Node != nil {
		h.ParkedNode = t.node.row
	}
	h.Code, h.Message = t.code, events.Cut(t.message, events.MaxMessage)
	w.headDue = 0
	w.transition(events.Parked, h.Code, h.Message)
}

// parkNow parks the instance in the middle of a walk: what was to go on is held.
func (w *work) parkNow(code string, n place, message string) {
	w.park(&trouble{code, n, message})
	for _, t := range w.tasks {
		if t.kind == goOn || t.kind == goBack {
			w.hold(w.row(t.node.row))
		}
	}
	w.tasks = w.tasks[:0]
}

// unpark returns to the state it was parked in.
func (w *work) unpark() {
	h := w.head
	s := h.ParkedIn
	if s != events.Running && s != events.Compensating {
		w.corrupt = true
		return
	}
	w.undoAgain()
	h.ParkedIn, h.ParkedNode = 0, 0
	h.Code, h.Message = "", ""
	if s == events.Compensating {
		h.Code, h.Message = h.Cause, h.CauseMessage
	}
	w.transition(s, h.Code, h.Message)
	w.headDue = w.deadline()
}

// undoAgain gives an undo whose attempts are used up new ones when the instance is parked for it no more, whatever
// brings it back: it is still owed, and without a timer nobody would come back to it.
func (w *work) undoAgain() {
	if w.head.State != events.Parked || w.head.Code != CodeUndoExhausted || mutant.On("machine-exhausted-undo-left-behind") {
		return
	}
	if r := w.row(w.head.ParkedNode); r.Status == events.NodeUndoGap && r.Undo != nil && r.due == 0 {
		r.Base = r.Undo.Attempts
		r.set(w.now)
	}
}

// resolves reports whether an answer is what the instance was parked for.
func (w *work) resolves(n place, r *row, a *answer) bool {
	h := w.head
	done := a.outcome == events.ReplyDone
	switch h.Code {
	case CodeUndoExhausted:
		return done && a.Phase == events.Compensate && h.ParkedNode == n.row && a.Attempt <= undoAttemptsOf(r)
	case CodeRetriableRejected, CodeRetriableGaveUp:
		return done && a.Phase == events.Forward && h.ParkedNode == n.row
	case CodePivotUnknown:
		return a.Phase == events.Forward && h.ParkedNode == n.row && (done || lastRejection(r, a))
	case CodePastPivot:
		return a.Phase == events.Forward && n.Step.Role == sagas.Pivot && h.Pivot == events.PivotDecided && lastRejection(r, a)
	}
	return false
}

func undoAttemptsOf(r *row) uint32 {
	if r.Undo == nil {
		return 0
	}
	return r.Undo.Attempts
}

// lastRejection reports whether with this answer every attempt is rejected.
func lastRejection(r *row, a *answer) bool {
	if a.outcome != events.ReplyRejected || a.Attempt > 64 || r.Rejected&(1<<(a.Attempt-1)) != 0 {
		return false
	}
	with := row{NodeState: &events.NodeState{Attempts: r.Attempts, HasAnswer: r.HasAnswer, Rejected: r.Rejected | 1<<(a.Attempt-1)}}
	return allRejected(&with)
}

// turnRound compensates after all, when the pivot turns out not to have happened.
func (w *work) turnRound() {
	if !w.stopped() && w.head.State == events.Running && w.head.Pivot == events.PivotAhead {
		w.compensate()
	}
}

// holds reports whether inputs are held instead of acted on.
func (w *work) holds() bool {
	return w.holding || w.head.State == events.Parked || w.head.State == events.Suspended && !mutant.On("machine-suspended-goes-on")
}

// direction is the way the instance goes, or went when it was parked.
func (w *work) direction() events.State {
	if s := w.head.State; s == events.Parked || s == events.Suspended {
		return w.head.ParkedIn
	}
	return w.head.State
}

// hold puts a node in the list of those that go on later.
func (w *work) hold(r *row) {
	r.Held = true
	r.set(0)
	if r.NextHeld != 0 {
		return // it is in the list
	}
	r.NextHeld = w.head.Held + 1
	w.head.Held = r.id + 1
}

// wakeHeld makes the head's timer take the list as soon as the instance can go on.
func (w *work) wakeHeld() {
	if s := w.head.State; w.head.Held != 0 && !mutant.On("machine-held-forgotten") && (s == events.Running || s == events.Compensating) {
		w.headDue = w.now
	}
}

// takeHeld takes one node from the list; the head's timer comes again for the next.
func (w *work) takeHeld() {
	r := w.row(w.head.Held - 1)
	n, ok := w.placeOf(r)
	if r.NextHeld == 0 || !ok {
		w.corrupt = true
		return
	}
	w.head.Held = r.NextHeld - 1
	held := r.Held
	r.NextHeld, r.Held, r.dirty = 0, false, true
	if held { // otherwise a walk took it meanwhile
		w.resume(n, r)
	}
	if w.head.Held == 0 && w.head.State == events.Running {
		w.headDue = w.deadline()
	}
}

// resume acts on what was held for a node.
func (w *work) resume(n place, r *row) {
	back := !w.forward(n)
	switch {
	case r.Status == 0:
		if !back {
			w.push(begin, n)
		}
	case n.Kind != sagas.KindStep:
		w.nodeTimer(n, r)
	case r.Status == events.NodeUndone:
		w.up(n, endedUndone)
	case r.Status == events.NodeUndoGap && r.Failed:
		code := string(r.Answer)
		r.Failed, r.Answer = false, nil
		w.undoOver(n, r, code, "", true)
	case back || r.Status == events.NodeUndoing || r.Status == events.NodeUndoGap || !r.Failed && !r.HasAnswer:
		w.stepTimer(n, r)
	case r.HasAnswer:
		w.done(n, r, r.Attempts, r.Answer)
	default:
		code := string(r.Answer)
		r.Failed, r.Answer = false, nil
		w.refusedBy(n, r, code, "said while the instance was parked")
	}
}
