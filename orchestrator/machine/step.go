package machine

import (
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// A step's life: begun, attempts that time out or are put off, and its end: done, or failed; then, if the
// instance turns round, the attempts of its undo.

// beginStep decides a step's first command. What it owes stands in the same record (G3).
func (w *work) beginStep(n place) {
	s := n.Step
	var payload []byte
	if !w.user(n, "the command", false, func(data any) (err error) { payload, err = s.Build(data); return err }) {
		return
	}
	r := w.fresh(n)
	r.Execution++
	r.Payload = payload
	if !mutant.On("machine-undo-recorded-with-the-reply") && !w.owe(n, r) {
		return
	}
	if s.Role == sagas.Pivot {
		w.head.Pivot = events.PivotDecided
	}
	w.spent += costCommand
	w.attempt(n, r)
}

// owe notes what a step owes from the decision of its first command on. It is false when the decision
// cannot go on.
func (w *work) owe(n place, r *row) bool {
	u := n.Step.Undo
	if u == nil || n.Step.EffectFree {
		return true
	}
	r.Undo = &events.Obligation{Topic: u.Topic, Type: u.Type}
	return w.buildUndo(n, r)
}

// buildUndo makes the undo's payload of the data as they are now. A third of a record and a bit is its
// share, so that a reply that has to be held fits beside it (see Route).
func (w *work) buildUndo(n place, r *row) bool {
	build := n.Step.Undo.Build
	if !w.user(n, "the undo", false, func(data any) (err error) { r.Undo.Payload, err = build(data); return err }) {
		return false
	}
	if size, most := len(r.Undo.Payload), w.m.cfg.MaxRecord/8*3; size > most {
		w.fail(CodeTooLarge, n, fmt.Sprintf("the undo of step %q takes %d bytes, at most %d", w.label(n), size, most))
		return false
	}
	return true
}

// attempt issues the command once more, under the same idempotency key.
func (w *work) attempt(n place, r *row) {
	r.Attempts++
	r.Status = events.NodeActive
	r.Expiry = w.now + millis(n.Step.Timeout)
	if r.Attempts == 1 || !mutant.On("machine-retry-without-timer") {
		r.set(r.Expiry)
	}
	if mutant.On("machine-command-never-expires") {
		r.Expiry = 0
	}
	w.command(n, r, events.Emit{Topic: n.Step.Topic, Type: n.Step.Type, Attempt: r.Attempts, Phase: events.Forward, Expiry: r.Expiry})
}

// attemptUndo issues the undo, once more. It never expires.
func (w *work) attemptUndo(n place, r *row) {
	if !w.undoable(n, r) {
		return
	}
	r.Undo.Attempts++
	r.Status = events.NodeUndoing
	r.set(w.now + millis(n.Step.Undo.Timeout))
	w.command(n, r, events.Emit{Topic: r.Undo.Topic, Type: r.Undo.Type, Attempt: r.Undo.Attempts, Phase: events.Compensate})
}

func (w *work) command(n place, r *row, e events.Emit) {
	e.Kind, e.Step, e.Node, e.Execution = events.EmitCommand, w.label(n), n.row, r.Execution
	w.emits = append(w.emits, e)
	w.note(events.EntryCommand, n, r, e.Phase, e.Attempt, "", "")
	w.bytes += nodeSize(r.NodeState) + len(e.Topic) + len(e.Type) + len(e.Step) + 64
}

// note adds a fact about a step; without its name where the definition is not known.
func (w *work) note(kind events.EntryKind, n place, r *row, phase events.Phase, attempt uint32, code, message string) {
	w.entry(events.Entry{Kind: kind, Step: w.label(n), Node: r.id, Phase: phase, Execution: r.Execution, Attempt: attempt, Code: code, Message: message})
}

// done takes the reply that ends a step well.
func (w *work) done(n place, r *row, attempt uint32, payload []byte) {
	if len(payload) == 0 {
		payload = nil
	}
	if fn := n.Step.OnReply; fn != nil {
		if !w.user(n, "the reply", true, func(data any) error { return fn(data, payload) }) {
			return
		}
	}
	if mutant.On("machine-undo-recorded-with-the-reply") && !w.owe(n, r) {
		return
	}
	if r.Undo != nil && (!w.undoable(n, r) || !w.buildUndo(n, r)) {
		return
	}
	r.Status = events.NodeDone
	r.Payload, r.Answer, r.HasAnswer, r.Held, r.Failed = nil, nil, true, false, false
	r.set(0)
	w.bytes += nodeSize(r.NodeState)
	if n.Step.Role == sagas.Pivot {
		w.head.Pivot = events.PivotDone
	}
	w.note(events.EntryDone, n, r, events.Forward, attempt, "", "")
	w.up(n, endedDone)
}

// attemptOver goes on after an attempt that left the outcome open, or that came too late.
func (w *work) attemptOver(n place, r *row, code, message string) {
	if usedUp(&n.Step.Retry, attemptsOf(n.Step.Role), r.Attempts-r.Count) {
		w.exhausted(n, r, code, message)
		return
	}
	r.Status = events.NodeBackoff
	r.set(w.now + delay(&n.Step.Retry, w.id, n.row, events.Forward, r.Attempts-r.Count))
}

// exhausted ends a step that gets no further attempt.
func (w *work) exhausted(n place, r *row, code, message string) {
	if n.Step.Role == sagas.Retriable {
		w.parkStep(n, r, CodeRetriableGaveUp, fmt.Sprintf("step %q was tried %d times; the last said %s", w.label(n), r.Attempts, because(code, message)))
		return
	}
	w.failStep(n, r, code, message)
}

// refusedBy ends a step that its participant refuses to do.
func (w *work) refusedBy(n place, r *row, code, message string) {
	if n.Step.Role == sagas.Retriable {
		w.parkStep(n, r, CodeRetriableRejected, fmt.Sprintf("step %q was rejected with %s", w.label(n), because(code, message)))
		return
	}
	w.failStep(n, r, code, message)
}

// parkStep keeps a step open that only an answer, or an operator, can bring further.
func (w *work) parkStep(n place, r *row, code, message string) {
	r.Status = events.NodeBackoff
	r.set(0)
	w.parkNow(code, n, message)
}

func because(code, message string) string {
	if message == "" {
		return code
	}
	return code + ": " + message
}

// failStep gives a step up. It owes its undo unless every attempt was rejected (L19). A pivot whose effect
// is possible cannot fail: neither way is safe.
func (w *work) failStep(n place, r *row, code, message string) {
	if n.Step.Role == sagas.Pivot {
		if !allRejected(r) && !mutant.On("machine-unknown-pivot-fails") {
			w.parkStep(n, r, CodePivotUnknown, fmt.Sprintf("whether step %q, the pivot, has happened is unknown; the last attempt said %s", w.label(n), because(code, message)))
			return
		}
		w.head.Pivot = events.PivotAhead
	}
	r.Status, r.Payload = events.NodeFailed, nil
	r.Failed, r.Held = false, false
	r.set(0)
	w.note(events.EntryFailed, n, r, events.Forward, r.Attempts, code, message)
	w.discharge(n, r)
	w.upFailed(n, failure{sagas.Failure{Step: w.label(n), Code: code, Message: message}, n})
}

// mark notes that an attempt was rejected; it is false when that was known. Attempts beyond the bitmap are
// never counted as discharged.
func mark(r *row, attempt uint32) bool {
	if attempt > 64 {
		return r.Status == events.NodeActive || r.Status == events.NodeBackoff
	}
	bit := uint64(1) << (attempt - 1)
	if r.Rejected&bit != 0 {
		return false
	}
	r.Rejected |= bit
	r.dirty = true
	return true
}

// allRejected reports whether no attempt of the execution can have had an effect.
func allRejected(r *row) bool {
	if mutant.On("machine-rejection-discharges-all") {
		return r.Rejected != 0
	}
	return !r.HasAnswer && r.Attempts > 0 && r.Attempts <= 64 && r.Rejected == ^uint64(0)>>(64-r.Attempts)
}

// discharge drops an obligation that nothing stands behind. It is not called once the undo was issued.
func (w *work) discharge(n place, r *row) {
	if r.Undo == nil || !allRejected(r) {
		return
	}
	r.Undo = nil
	r.dirty = true
	w.note(events.EntryDischarged, n, r, events.Forward, 0, "", "")
}

// undoStep issues the undo of a step that owes one and whose command may be out. An open attempt is not waited for: its participant
// remembers what the undo undoes, and refuses it afterwards (L15).
func (w *work) undoStep(n place, r *row) {
	if w.takeBack(r) {
		r.Undo = nil
	}
	if !mutant.On("machine-nothing-happened-is-undone") {
		w.discharge(n, r) // it was to be tried again, and whatever was tried had expired
	}
	r.Failed = false
	r.Payload, r.Answer = nil, nil
	switch {
	case r.Undo == nil:
		r.Status = events.NodeUndone
		r.set(0)
		w.up(n, endedUndone)
	case w.head.State == events.Running && w.head.Pivot != events.PivotAhead:
		w.parkNow(CodePastPivot, n, fmt.Sprintf("the undo of step %q, in a scope that failed, would be past the pivot", w.label(n)))
	default:
		w.attemptUndo(n, r)
	}
}

// takeBack takes the first command of a step back that was decided in this very decision: nobody has seen it, so
// there is nothing to undo.
func (w *work) takeBack(r *row) bool {
	if r.Attempts != 1 || mutant.On("machine-unsent-command-undone") {
		return false
	}
	i := slices.IndexFunc(w.emits, func(e events.Emit) bool {
		return e.Kind == events.EmitCommand && e.Phase == events.Forward && e.Node == r.id && e.Execution == r.Execution
	})
	if i < 0 {
		return false
	}
	w.emits = slices.Delete(w.emits, i, i+1)
	w.entries = slices.DeleteFunc(w.entries, func(e events.Entry) bool {
		return e.Kind == events.EntryCommand && e.Node == r.id && e.Execution == r.Execution
	})
	r.Attempts, r.Expiry = 0, 0
	return true
}

// undone ends a step's compensation.
func (w *work) undone(n place, r *row, attempt uint32) {
	r.Status, r.Undo, r.Base, r.Count = events.NodeUndone, nil, 0, 0
	r.Answer, r.Failed, r.Held = nil, false, false
	r.set(0)
	w.note(events.EntryDone, n, r, events.Compensate, attempt, "", "")
	w.note(events.EntryDischarged, n, r, events.Compensate, 0, "", "")
}

// undoable finds out rows of steps that are said to be undone and owe nothing that could be.
func (w *work) undoable(n place, r *row) bool {
	if n.Step == nil || r.Undo == nil || n.Step.Undo == nil {
		w.corrupt = true
	}
	return !w.corrupt
}

// undoOver goes on after an attempt of an undo that did not end it.
func (w *work) undoOver(n place, r *row, code, message string, last bool) {
	if !w.undoable(n, r) {
		return
	}
	r.Status = events.NodeUndoGap
	if last || usedUp(&n.Step.Undo.Retry, undoAttempts, r.Undo.Attempts-r.Base) {
		if mutant.On("machine-exhausted-undo-counts-as-done") {
			w.undone(n, r, r.Undo.Attempts)
			w.up(n, endedUndone)
			return
		}
		r.set(0)
		w.parkNow(CodeUndoExhausted, n, fmt.Sprintf("the undo of step %q was tried %d times; the last said %s", w.label(n), r.Undo.Attempts, because(code, message)))
		return
	}
	r.set(w.now + delay(&n.Step.Undo.Retry, w.id, n.row, events.Compensate, r.Undo.Attempts-r.Base))
}

// stepTimer takes a step's due time.
func (w *work) stepTimer(n place, r *row) {
	switch r.Status {
	case events.NodeActive:
		if mutant.On("machine-timeout-is-a-rejection") {
			mark(r, r.Attempts)
		}
		w.note(events.EntryUnknown, n, r, events.Forward, r.Attempts, CodeTimeout, "")
		if !w.forward(n) {
			r.Status = events.NodeFailed // its undo is on the way here
			return
		}
		w.attemptOver(n, r, CodeTimeout, "no answer in time")
	case events.NodeBackoff:
		switch {
		case !w.forward(n) && !mutant.On("machine-retry-while-compensating"):
			r.Status = events.NodeFailed
		case usedUp(&n.Step.Retry, attemptsOf(n.Step.Role), r.Attempts-r.Count):
			w.exhausted(n, r, CodeTimeout, "no attempt is left")
		default:
			w.attempt(n, r)
		}
	case events.NodeUndoing:
		if !w.undoable(n, r) {
			return
		}
		w.note(events.EntryUnknown, n, r, events.Compensate, r.Undo.Attempts, CodeTimeout, "")
		w.undoOver(n, r, CodeTimeout, "no answer in time", false)
	case events.NodeUndoGap:
		if !w.undoable(n, r) {
			return
		}
		if usedUp(&n.Step.Undo.Retry, undoAttempts, r.Undo.Attempts-r.Base) {
			w.undoOver(n, r, CodeTimeout, "no attempt is left", true)
			return
		}
		w.attemptUndo(n, r)
	}
}
