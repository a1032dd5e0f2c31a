package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// answer is what came back for an attempt: a participant's reply, or Kafka's refusal of the command.
type answer struct {
	events.CommandID
	outcome events.ReplyOutcome
	code    string
	message string
	payload []byte
	refused bool // by Kafka: no policy of codes applies
}

func answerOf(r *events.Reply) *answer {
	a := &answer{CommandID: r.Command, outcome: r.Outcome, code: clean(r.Code), message: clean(r.Message), payload: r.Payload}
	if a.code == "" {
		switch a.outcome {
		case events.ReplyRejected:
			a.code = CodeRejected
		case events.ReplyRetry:
			a.code = CodeRetry
		}
	}
	return a
}

func refusalOf(r *Refusal) *answer {
	return &answer{CommandID: r.Command, outcome: events.ReplyRetry, code: CodeRefused,
		message: events.Cut(clean(because(r.Code, r.Message)), events.MaxMessage), refused: true}
}

// takeAnswer takes an answer at whatever moment of its step's life it arrives.
func (w *work) takeAnswer(a *answer) {
	n, r := w.addressed(a)
	if w.stopped() {
		return
	}
	if w.head.State == events.Parked && !w.holding && w.resolves(n, r, a) {
		turn := w.head.Code == CodePastPivot
		w.unpark()
		if turn {
			defer w.turnRound()
		}
	}
	if a.Phase == events.Compensate {
		w.undoAnswer(n, r, a)
		return
	}
	switch r.Status {
	case events.NodeActive, events.NodeBackoff:
		switch {
		case !w.forward(n):
			w.settle(n, r, a)
		case w.holds():
			w.holdAnswer(n, r, a)
		default:
			w.stepAnswer(n, r, a)
		}
	case events.NodeDone:
		if mutant.On("machine-duplicate-counts-twice") {
			w.stepAnswer(n, r, a)
			return
		}
		w.ignore(second(a))
	default:
		w.lateAnswer(n, r, a)
	}
}

// addressed finds the step that an answer names. n has no node when the definition is not known here.
func (w *work) addressed(a *answer) (place, *row) {
	r := w.row(a.Node)
	n, ok := w.placeOf(r)
	switch {
	case !ok || n.Node != nil && n.Kind != sagas.KindStep:
		w.ignore(ReasonUnknownStep)
	case r.Status == 0 || r.Execution == 0:
		w.ignore(ReasonUnknownStep)
	case a.Execution != r.Execution && !mutant.On("machine-superseded-execution-counts"):
		w.ignore(ReasonSupersededExecution)
	case a.Attempt == 0 || a.Phase == events.Forward && a.Attempt > r.Attempts:
		w.ignore(ReasonUnknownAttempt)
	}
	return n, r
}

func second(a *answer) string {
	if a.outcome == events.ReplyDone {
		return ReasonDuplicateReply
	}
	return ReasonSettledStep
}

// open reports whether the answer is to the attempt that is waited for.
func open(r *row, a *answer) bool {
	return r.Status == events.NodeActive && a.Attempt == r.Attempts && !r.Held
}

// stepAnswer is the plain case: a step that goes forward, in an instance that goes forward.
func (w *work) stepAnswer(n place, r *row, a *answer) {
	switch a.outcome {
	case events.ReplyDone:
		if mutant.On("machine-late-done-ignored") && !open(r, a) {
			w.ignore(ReasonSupersededAttempt)
			return
		}
		w.done(n, r, a.Attempt, a.payload)
	case events.ReplyRejected:
		waiting := open(r, a)
		if !w.rejected(n, r, a) {
			return
		}
		switch {
		case a.code != events.CodeExpired:
			w.refusedBy(n, r, a.code, a.message)
		case waiting:
			w.attemptOver(n, r, a.code, a.message)
		case r.due == 0 && (!r.Held || mutant.On("machine-held-attempt-is-the-last")): // it was parked: no attempt will follow
			w.exhausted(n, r, a.code, a.message)
		}
	case events.ReplyProgress:
		w.progress(n, r, a)
	default:
		if !open(r, a) {
			w.ignore(ReasonSupersededAttempt)
			return
		}
		if mutant.On("machine-retry-is-a-rejection") {
			mark(r, a.Attempt)
		}
		w.note(events.EntryUnknown, n, r, a.Phase, a.Attempt, a.code, a.message)
		if !a.refused && final(&n.Step.Retry, a.code) {
			w.exhausted(n, r, a.code, a.message)
			return
		}
		w.attemptOver(n, r, a.code, a.message)
	}
}

// rejected notes a rejected attempt; it is false, and the answer ignored, when that was known.
func (w *work) rejected(n place, r *row, a *answer) bool {
	if !mark(r, a.Attempt) {
		w.ignore(ReasonDuplicateReply)
		return false
	}
	w.note(events.EntryRejected, n, r, a.Phase, a.Attempt, a.code, a.message)
	return true
}

func (w *work) progress(n place, r *row, a *answer) {
	if n.Node == nil || !open(r, a) {
		w.ignore(ReasonSupersededAttempt)
		return
	}
	r.set(w.now + millis(n.Step.Timeout))
	w.note(events.EntryProgress, n, r, a.Phase, a.Attempt, a.code, a.message)
}

// holdAnswer keeps what a parked instance is told, until it can go on.
func (w *work) holdAnswer(n place, r *row, a *answer) {
	switch a.outcome {
	case events.ReplyDone:
		if r.HasAnswer {
			w.ignore(ReasonDuplicateReply)
			return
		}
		r.Answer, r.HasAnswer, r.Payload = a.payload, true, nil
		w.note(events.EntryLate, n, r, a.Phase, a.Attempt, a.outcome.String(), "")
		w.hold(r)
	case events.ReplyRejected:
		waiting := open(r, a)
		if !w.rejected(n, r, a) {
			return
		}
		switch {
		case r.HasAnswer: // a done is held, and counts
		case a.code != events.CodeExpired:
			r.Failed, r.Answer = true, []byte(a.code)
			w.hold(r)
		case waiting:
			r.Status = events.NodeBackoff
			w.hold(r)
		}
	case events.ReplyProgress:
		w.progress(n, r, a)
	default:
		if !open(r, a) {
			w.ignore(ReasonSupersededAttempt)
			return
		}
		w.note(events.EntryUnknown, n, r, a.Phase, a.Attempt, a.code, a.message)
		r.Status = events.NodeBackoff
		if n.Node != nil && !a.refused && final(&n.Step.Retry, a.code) {
			r.Failed, r.Answer = true, []byte(a.code)
		}
		w.hold(r)
	}
}

// settle takes an answer to a step that is still open while its instance, or a scope it is in, goes back: the
// walk back has not come to it. Nothing goes up.
func (w *work) settle(n place, r *row, a *answer) {
	switch a.outcome {
	case events.ReplyDone:
		r.HasAnswer = true
		if w.direction() == events.Compensating || mutant.On("machine-late-branch-counts") {
			w.close(r, events.NodeDone)
		} else {
			w.close(r, events.NodeFailed) // too late for the scope: done are those that came before it was decided
		}
		w.note(events.EntryLate, n, r, a.Phase, a.Attempt, a.outcome.String(), "")
	case events.ReplyRejected:
		waiting := a.Attempt == r.Attempts
		if !w.rejected(n, r, a) {
			return
		}
		if waiting || a.code != events.CodeExpired {
			w.close(r, events.NodeFailed)
			w.discharge(n, r)
		}
	case events.ReplyRetry:
		if !open(r, a) {
			w.ignore(ReasonSupersededAttempt)
			return
		}
		w.note(events.EntryUnknown, n, r, a.Phase, a.Attempt, a.code, a.message)
		w.close(r, events.NodeFailed)
	default:
		w.ignore(ReasonSettledStep)
	}
}

func (w *work) close(r *row, s events.NodeStatus) {
	r.Status, r.Payload, r.Answer = s, nil, nil
	r.Failed, r.Held = false, false
	r.set(0)
}

// lateAnswer takes an answer to a step that failed or is undone or being undone: it can change only what
// is owed.
func (w *work) lateAnswer(n place, r *row, a *answer) {
	switch {
	case a.outcome == events.ReplyDone && r.HasAnswer:
		w.ignore(ReasonDuplicateReply)
	case a.outcome == events.ReplyDone:
		r.HasAnswer, r.dirty = true, true
		w.note(events.EntryLate, n, r, a.Phase, a.Attempt, a.outcome.String(), "")
	case a.outcome == events.ReplyRejected && r.Status != events.NodeUndone:
		if w.rejected(n, r, a) && r.Status == events.NodeFailed {
			w.discharge(n, r)
		}
	default:
		w.ignore(ReasonSettledStep)
	}
}

// undoAnswer takes an answer to an attempt of an undo.
func (w *work) undoAnswer(n place, r *row, a *answer) {
	switch {
	case r.Status == events.NodeUndone:
		w.ignore(second(a))
		return
	case r.Status != events.NodeUndoing && r.Status != events.NodeUndoGap:
		w.ignore(ReasonUnknownAttempt)
		return
	case r.Undo == nil || n.Node != nil && n.Step.Undo == nil:
		w.corrupt = true
		return
	case a.Attempt > r.Undo.Attempts:
		w.ignore(ReasonUnknownAttempt)
		return
	}
	if a.outcome == events.ReplyDone {
		w.undone(n, r, a.Attempt)
		if w.holds() {
			w.hold(r)
			return
		}
		w.up(n, endedUndone)
		return
	}
	if r.Status != events.NodeUndoing || a.Attempt != r.Undo.Attempts || r.Held {
		w.ignore(ReasonSupersededAttempt)
		return
	}
	w.undoUnfinished(n, r, a)
}

func (w *work) undoUnfinished(n place, r *row, a *answer) {
	kind := events.EntryUnknown
	switch a.outcome {
	case events.ReplyProgress:
		if n.Node == nil {
			w.ignore(ReasonSupersededAttempt)
			return
		}
		r.set(w.now + millis(n.Step.Undo.Timeout))
		w.note(events.EntryProgress, n, r, a.Phase, a.Attempt, a.code, a.message)
		return
	case events.ReplyRejected:
		kind = events.EntryRejected
	}
	w.note(kind, n, r, a.Phase, a.Attempt, a.code, a.message)
	last := n.Node != nil && !a.refused && final(&n.Step.Undo.Retry, a.code)
	if w.holds() {
		r.Status = events.NodeUndoGap
		if last {
			r.Failed, r.Answer = true, []byte(a.code)
		}
		w.hold(r)
		return
	}
	w.undoOver(n, r, a.code, a.message, last)
}
