package machine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// What operators do to instances are inputs like any other (G10): an action is carried out or refused once, by its id
// (rule L22), its answer stands in a row, and the instance's history says who did it and why. One that is refused
// changes nothing else; one that would have to park the instance is refused for that reason.
//
// The answer stands under the entity that the action was sent to. Under an instance it is purged with that; under
// a key, or an instance that is not there, it is forgotten after answerKeep.

const (
	maxAnswers = 10_000 // of an instance
	answerKeep = 7 * 24 * time.Hour
)

// Codes with which the Reason begins when an action has no answer of its own.
const (
	ReasonRepeatedAction = "repeated-action"
	ReasonTooManyAnswers = "too-many-answers"
)

// Codes of answers, and of what operators cause.
const (
	CodeQueued        = "queued"          // a signal waits for its Wait
	CodeUnknownAction = "unknown-action"  // no such kind, outcome or signal
	CodeNotRunning    = "not-running"     // it goes back already
	CodeNotParked     = "not-parked"      // or not suspended
	CodeWrongState    = "wrong-state"     // the step, or the instance, is not where this could be done
	CodeMayHaveEffect = "may-have-effect" // what the step may have done could not be undone
	CodePivotPassed   = "pivot-passed"    // nothing is undone past the pivot, unless it is asked for
	CodeNoSavepoint   = "no-save-point"   // none of that name that the instance can go back to
	CodeBadPatch      = "bad-patch"       // no merge patch, or the data would not be the definition's
	CodeSignalRefused = "signal-refused"  // the Wait cannot take what the signal says
	CodeOperator      = "operator"        // as a cause: an operator said so
	CodeCancelled     = "cancelled"       // as a cause: an operator cancelled it
	CodeSuspended     = "suspended"       // of a suspended instance
)

// refusal is why an action is not carried out.
type refusal struct{ code, message string }

func (w *work) refuse(code, message string) {
	if w.refusal == nil {
		w.refusal = &refusal{code, message}
	}
}

func answerRef(id string) events.RowRef {
	return events.RowRef{Part: events.PartAnswer, N: events.AnswerNumber(id)}
}

// AnswerOf reads the answer to the action of that id, sent to an instance or a key; ok is false when there is none.
func AnswerOf(v View, to events.InstanceID, id string) (answer *events.Answer, ok bool) {
	raw, _, ok := v.Row(to, answerRef(id))
	if !ok {
		return nil, false
	}
	a, err := events.DecodeAnswer(raw)
	return a, err == nil && a.MessageID == id
}

// act decides on an action.
func (m *Machine) act(v View, now int64, in *events.InboxMessage) *events.Decision {
	if why := m.badAction(in); why != "" {
		return badMessage(in, why)
	}
	a := in.Action
	if _, _, ok := v.Row(in.To, answerRef(a.ID)); ok && !mutant.On("machine-action-repeated") {
		return &events.Decision{Outcome: events.Ignored, Instance: in.To, Reason: ReasonRepeatedAction}
	}
	if a.Key == "" {
		return m.decide(v, now, in.To, input{message: in})
	}
	w := &work{m: m, v: v, now: now, id: in.To}
	k := w.key(in.To)
	switch {
	case w.corrupt:
		return nil
	case k.Live.IsZero():
		return w.messageOutside(in)
	}
	return m.decide(v, now, k.Live, input{message: in})
}

func (m *Machine) badAction(in *events.InboxMessage) string {
	a := in.Action
	if a == nil || a.ID == "" {
		return "it has no id"
	}
	for _, x := range []struct {
		what, text string
		most       int
	}{
		{"the id", a.ID, events.MaxIDBytes}, {"who", a.Who, events.MaxWhoBytes}, {"why", a.Why, events.MaxWhyBytes},
		{"the kind", string(a.Kind), 64}, {"the outcome", a.Outcome, 64}, {"the name", a.Name, 256}, {"the step", a.Step, 1024},
		{"the definition", a.Definition, 256}, {"the key", a.Key, events.MaxKeyBytes},
	} {
		if len(x.text) > x.most {
			return fmt.Sprintf("%s takes %d bytes, at most %d", x.what, len(x.text), x.most)
		}
		if !utf8.ValidString(x.text) {
			return x.what + " is not UTF-8"
		}
	}
	switch {
	case len(a.Payload) > m.cfg.MaxRecord/4:
		return fmt.Sprintf("the payload takes %d bytes, at most %d", len(a.Payload), m.cfg.MaxRecord/4)
	case (a.Definition == "") != (a.Key == ""):
		return "a key is of a definition"
	case a.Key != "" && in.To != m.keyID(a.Definition, a.Key):
		return "it is not addressed to the key that it names"
	}
	return ""
}

func (m *Machine) badOffer(in *events.InboxMessage) string {
	switch {
	case in.From.Instance != in.To:
		return "it names the Wait of another instance"
	case in.Kind == events.InboxOffer && (in.Correlation.IsZero() || in.EventID == ""):
		return "it does not name who offers what"
	case len(in.Payload) > m.cfg.MaxRecord/2:
		return fmt.Sprintf("the payload takes %d bytes, at most %d", len(in.Payload), m.cfg.MaxRecord/2)
	}
	return ""
}

// takeMessage takes what a correlation says, or an action.
func (w *work) takeMessage(in *events.InboxMessage) {
	switch in.Kind {
	case events.InboxOffer:
		w.offered(in)
	case events.InboxDenied:
		w.denied(in)
	case events.InboxAction:
		w.carryOut(in)
	}
}

// messageOutside answers a message to an instance that is not there or has ended.
func (w *work) messageOutside(in *events.InboxMessage) *events.Decision {
	switch {
	case in.Kind == events.InboxOffer:
		w.tell(in, events.InboxRefused)
		return w.instead
	case in.Action != nil && w.head != nil:
		return w.m.refuse(w.v, w.now, w.id, in, &refusal{ReasonInstanceEnded, "the instance is " + w.head.State.String()})
	case in.Action != nil:
		return w.m.refuse(w.v, w.now, w.id, in, &refusal{ReasonUnknownInstance, "there is no such instance, or none of that key lives"})
	case w.head == nil:
		return w.ignored(ReasonUnknownInstance)
	}
	return w.ignored(ReasonInstanceEnded)
}

// refuse is the decision about an action that is not carried out.
func (m *Machine) refuse(v View, now int64, id events.InstanceID, in *events.InboxMessage, why *refusal) *events.Decision {
	w := m.open(v, now, id)
	if w.corrupt {
		return nil
	}
	a := in.Action
	message := events.Cut(clean(why.message), events.MaxMessage)
	if w.head == nil {
		w.answer(in, false, why.code, message)
		return &events.Decision{Outcome: events.Applied, Instance: id, Rows: w.otherRows(nil)}
	}
	w.holding = true
	if !mutant.On("machine-refused-action-unnoted") {
		w.entry(events.Entry{Kind: events.EntryRefused, Step: a.Step, Code: string(a.Kind), Who: a.Who, Message: events.Cut(because(why.code, message), events.MaxMessage)})
	}
	w.answer(in, false, why.code, message)
	if w.instead != nil {
		return w.instead
	}
	return w.finish()
}

// answer writes what an action is answered.
func (w *work) answer(in *events.InboxMessage, done bool, code, message string) {
	row := events.Answer{MessageID: in.Action.ID, Done: done, Code: code, Message: message, Time: w.now}
	if in.To != w.id && !mutant.On("machine-answer-names-nobody") {
		row.Instance = w.id
	}
	due := int64(0)
	switch {
	case w.head == nil || in.To != w.id:
		due = w.now + millis(answerKeep)
	case w.head.Answers >= maxAnswers:
		w.instead = &events.Decision{Outcome: events.Quarantined, Instance: w.id, Reason: fmt.Sprintf("%s: this instance has answered %d", ReasonTooManyAnswers, maxAnswers)}
		return
	default:
		w.head.Answers++
	}
	to := in.To
	if mutant.On("machine-answer-under-the-instance") {
		to = w.id
	}
	w.entity(to).set(answerRef(in.Action.ID), due, row.Encode(nil))
}

// answerTimer forgets an answer.
func (m *Machine) answerTimer(v View, in Timer) *events.Decision {
	if _, due, ok := v.Row(in.Instance, in.Row); !ok || due != in.Due || in.Due == 0 {
		return &events.Decision{Outcome: events.Ignored, Instance: in.Instance, Reason: ReasonStaleTimer}
	}
	return &events.Decision{Outcome: events.Applied, Instance: in.Instance, Rows: []events.RowChange{{Ref: in.Row, Gone: true, WasDue: in.Due}}}
}

// carryOut does what an action says, or refuses it.
func (w *work) carryOut(in *events.InboxMessage) {
	a := in.Action
	if a.Kind == events.ActionSignal {
		w.signal(in)
		return
	}
	at := len(w.entries)
	who := a.Who
	if mutant.On("machine-action-by-nobody") {
		who = ""
	}
	w.entry(events.Entry{Kind: events.EntryAction, Step: a.Step, Code: string(a.Kind), Who: who, Message: a.Why})
	switch a.Kind {
	case events.ActionRetry:
		w.retry(a)
	case events.ActionResolve:
		w.resolve(a)
	case events.ActionSkip:
		w.skip(a)
	case events.ActionCompensate:
		if a.Name != "" {
			w.backTo(a)
		} else {
			w.turnBack(CodeOperator, a.Why, a.PastPivot)
		}
	case events.ActionCancel:
		w.turnBack(CodeCancelled, a.Why, false)
	case events.ActionSuspend:
		w.suspend(a)
	case events.ActionResume:
		if w.head.State != events.Suspended {
			w.refuse(CodeNotParked, "the instance is "+w.head.State.String()+", not suspended")
			return
		}
		w.unpark()
	case events.ActionTerminate:
		owed := w.terminate()
		if a.Why != "" {
			owed = a.Why + "; " + owed
		}
		w.entries[at].Message = events.Cut(owed, events.MaxMessage)
	case events.ActionPatchData:
		w.patchData(a)
	default:
		w.refuse(CodeUnknownAction, fmt.Sprintf("there is no action %q", a.Kind))
	}
	if w.reason != "" && w.refusal == nil { // the answer that stands for the participant's would have been ignored
		w.refusal, w.reason = &refusal{CodeWrongState, "it changes nothing any more: " + w.reason}, ""
	}
	if !w.stopped() {
		w.answer(in, true, "", "")
	}
}

// target is the node that an action is about; without a name the one the instance is parked at.
func (w *work) target(a *events.Action) (n place, r *row, ok bool) {
	switch {
	case a.Step != "":
		if n, ok = w.find(a.Step); !ok {
			w.refuse(ReasonUnknownStep, fmt.Sprintf("the instance has no %q", a.Step))
			return place{}, nil, false
		}
		return n, w.row(n.row), !w.stopped()
	case w.head.State != events.Parked:
		w.refuse(CodeNotParked, "the instance is "+w.head.State.String()+": say which step it is about")
		return place{}, nil, false
	}
	r = w.row(w.head.ParkedNode)
	if n, ok = w.placeOf(r); !ok {
		w.corrupt = true
	}
	return n, r, !w.stopped()
}

// find finds a node by the name that the history has for it: NAME, or in loops NAME[2][0].
func (w *work) find(label string) (n place, ok bool) {
	name, rest, _ := strings.Cut(label, "[")
	var turns []uint32
	for rest != "" {
		number, more, closed := strings.Cut(rest, "]")
		turn, err := strconv.ParseUint(number, 10, 32)
		if err != nil || !closed || more != "" && more[0] != '[' {
			return place{}, false
		}
		turns, rest = append(turns, uint32(turn)), strings.TrimPrefix(more, "[")
	}
	i := slices.IndexFunc(w.plan.Nodes, func(n *sagas.Node) bool { return n.Name == name })
	if i < 0 {
		return place{}, false
	}
	var around []*sagas.Node // loops, innermost first
	for p := w.plan.Nodes[i].Parent; p != nil; p = p.Parent {
		if loops(p) {
			around = append(around, p)
		}
	}
	if len(around) != len(turns) {
		return place{}, false
	}
	n = own(w.plan.Nodes[i])
	for depth, turn := range turns {
		loop := around[len(around)-1-depth]
		if n.Node = loop; depth == 0 {
			n.row = loop.ID
		}
		first, ok := w.turnAt(n, turn)
		if !ok {
			return place{}, false
		}
		next := w.plan.Nodes[i]
		if depth+1 < len(turns) {
			next = around[len(around)-2-depth]
		}
		n = place{next, first + next.ID - body(loop).ID}
	}
	return n, true
}

// turnAt is the row that begins an iteration of a loop.
func (w *work) turnAt(loop place, turn uint32) (first uint32, ok bool) {
	r := w.row(loop.row)
	if turn >= r.Count || r.Base == 0 {
		return 0, false
	}
	if loop.Kind == sagas.KindForEach {
		return r.Base + turn*extent(body(loop.Node)), true
	}
	for at := r.Base; at != 0 && !w.corrupt; {
		b := w.row(at)
		switch {
		case b.Turn == turn:
			return at, true
		case b.Prev >= at && b.Prev != 0:
			w.corrupt = true
		}
		at = b.Prev
	}
	return 0, false
}

// parkedTarget is target for an action on what the instance is parked at; of anything else it is refused.
func (w *work) parkedTarget(a *events.Action) (n place, r *row, ok bool) {
	n, r, ok = w.target(a)
	switch {
	case !ok:
	case w.head.State != events.Parked:
		w.refuse(CodeNotParked, "the instance is "+w.head.State.String())
		ok = false
	case r.id != w.head.ParkedNode:
		w.refuse(CodeWrongState, fmt.Sprintf("the instance is parked at %q", w.parkedAt()))
		ok = false
	}
	return n, r, ok
}

// retry tries again what the instance is parked at.
func (w *work) retry(a *events.Action) {
	h := w.head
	n, r, ok := w.parkedTarget(a)
	switch {
	case !ok:
		return
	case len(a.Payload) > w.m.cfg.MaxRecord/8:
		w.refuse(CodeTooLarge, fmt.Sprintf("the payload takes %d bytes, at most %d", len(a.Payload), w.m.cfg.MaxRecord/8))
		return
	}
	switch h.Code {
	case CodeUndoExhausted:
		if !w.undoable(n, r) {
			return
		}
		if a.Payload != nil {
			r.Undo.Payload = a.Payload
		}
		w.unpark()
		r.Base = r.Undo.Attempts
		w.attemptUndo(n, r)
	case CodeRetriableRejected, CodeRetriableGaveUp, CodePivotUnknown:
		if n.Kind != sagas.KindStep {
			w.corrupt = true // only a step is parked for that
			return
		}
		if a.Payload != nil {
			w.executeAnew(n, r, a.Payload)
			return
		}
		w.unpark()
		if !mutant.On("machine-retry-goes-on-counting") {
			r.Count = r.Attempts
		}
		w.attempt(n, r)
	case CodeUserFunction, CodeTooLarge:
		if a.Payload != nil {
			w.refuse(CodeWrongState, "the instance is parked by a function of its definition, not by a command: patch its data")
			return
		}
		w.unpark() // what is held goes on
	case CodePastPivot:
		if a.Payload != nil {
			w.refuse(CodeWrongState, fmt.Sprintf("%q sends no command", w.label(n)))
			return
		}
		w.beginAnew(n)
	default:
		w.refuse(CodeWrongState, "the instance is parked because of "+h.Code+": there is nothing to try again")
	}
}

// beginAnew takes back a failure past the pivot, which went up to the root and parked the instance, and begins what
// failed anew: a Wait whose time passed, or a Require that the data did not meet and, patched, may.
func (w *work) beginAnew(n place) {
	if leaf, ok := w.find(w.row(n.row).Step); ok && forks(n.Node) { // it waited for its other children before it failed
		n = leaf
	}
	if n.Kind != sagas.KindWait && n.Kind != sagas.KindRequire {
		w.refuse(CodeWrongState, fmt.Sprintf("%q is a %s: only a Wait or a Require is begun anew", w.label(n), n.Kind))
		return
	}
	for at := n; ; {
		p, ok := w.parent(at)
		if !ok {
			break
		}
		r := w.row(p.row)
		if r.Status != events.NodeFailed || forks(p.Node) && (p.Join != sagas.JoinAll || r.Lost != 1) {
			w.refuse(CodeWrongState, fmt.Sprintf("more than %q failed", w.label(n)))
			return
		}
		r.Status, r.Failed, r.Code, r.Message, r.Step = events.NodeActive, false, "", "", ""
		r.set(0)
		if forks(p.Node) {
			r.Lost--
			r.Active++
		}
		at = p
	}
	w.unpark()
	w.head.Cause, w.head.CauseMessage = "", ""
	w.push(begin, n)
}

func (w *work) parkedAt() string {
	n, ok := w.placeOf(w.row(w.head.ParkedNode))
	if !ok {
		w.corrupt = true
		return ""
	}
	return w.label(n)
}

// executeAnew sends an edited command, under a new key. What the execution before it may have done would be owed no
// more: so it must not have done anything.
func (w *work) executeAnew(n place, r *row, payload []byte) {
	if !allRejected(r) && !n.Step.EffectFree && !mutant.On("machine-edited-retry-forgets") {
		w.refuse(CodeMayHaveEffect, fmt.Sprintf("execution %d of step %q may have had an effect that nothing would undo: resolve it as rejected first, if it had none", r.Execution, w.label(n)))
		return
	}
	w.unpark()
	r.Execution++
	r.Attempts, r.Rejected, r.Count = 0, 0, 0
	r.HasAnswer, r.Answer, r.Failed = false, nil, false
	r.Payload = payload
	w.attempt(n, r)
}

// resolve takes an operator's word for what became of a step, or of its undo.
func (w *work) resolve(a *events.Action) {
	n, r, ok := w.target(a)
	switch {
	case !ok:
		return
	case n.Kind != sagas.KindStep:
		w.refuse(CodeWrongState, fmt.Sprintf("%q is a %s: only steps are resolved", w.label(n), n.Kind))
		return
	case r.Status == 0 || r.Execution == 0:
		w.refuse(CodeWrongState, fmt.Sprintf("step %q has not begun", w.label(n)))
		return
	}
	back := r.Status == events.NodeUndoing || r.Status == events.NodeUndoGap
	open := r.Status == events.NodeActive || r.Status == events.NodeBackoff
	switch {
	case back && !w.undoable(n, r):
	case back && (a.Outcome == "compensated" || a.Outcome == "done" && a.Undo):
		w.takeAnswer(w.asIf(r, events.Compensate, r.Undo.Attempts, a))
	case a.Outcome == "compensated":
		if open || r.Undo == nil || back {
			w.refuse(CodeWrongState, fmt.Sprintf("step %q is %s: it owes no undo that could be settled now", w.label(n), r.Status))
			return
		}
		r.Undo, r.dirty = nil, true
		w.note(events.EntryDischarged, n, r, events.Compensate, 0, CodeOperator, "")
	case a.Outcome == "done" && open && !a.Undo:
		w.resolveDone(n, r, a)
	case a.Outcome == "rejected" && (open || r.Status == events.NodeFailed) && !a.Undo:
		w.resolveRejected(n, r, open)
	case a.Outcome == "done" || a.Outcome == "rejected":
		w.refuse(CodeWrongState, fmt.Sprintf("step %q is %s: it cannot be resolved as %s", w.label(n), r.Status, a.Outcome))
	default:
		w.refuse(CodeUnknownAction, fmt.Sprintf("a step is resolved as done, rejected or compensated, not %q", a.Outcome))
	}
}

// asIf makes the answer that the participant did not give.
func (w *work) asIf(r *row, phase events.Phase, attempt uint32, a *events.Action) *answer {
	return &answer{CommandID: events.CommandID{Instance: w.id, Node: r.id, Execution: r.Execution, Attempt: attempt, Phase: phase},
		outcome: events.ReplyDone, payload: a.Payload}
}

func (w *work) resolveDone(n place, r *row, a *events.Action) {
	if w.head.State == events.Parked && w.head.Code == CodeUserFunction && w.head.ParkedNode == r.id && r.HasAnswer {
		r.Answer, r.dirty = a.Payload, true // in place of the reply that the step cannot take
		w.unpark()
		return
	}
	w.takeAnswer(w.asIf(r, events.Forward, r.Attempts, a))
}

func (w *work) resolveRejected(n place, r *row, open bool) {
	h := w.head
	switch {
	case r.HasAnswer:
		w.refuse(CodeWrongState, fmt.Sprintf("step %q was done, its participant says", w.label(n)))
		return
	case r.Attempts > 64:
		w.refuse(CodeMayHaveEffect, fmt.Sprintf("%d attempts of step %q were made: more than are kept apart", r.Attempts, w.label(n)))
		return
	}
	r.Rejected, r.dirty = ^uint64(0)>>(64-r.Attempts), true
	w.note(events.EntryRejected, n, r, events.Forward, 0, CodeOperator, "")
	switch {
	case !open:
		w.discharge(n, r)
	case !w.forward(n):
		w.close(r, events.NodeFailed)
		w.discharge(n, r)
	case h.State == events.Parked && h.ParkedNode == r.id && h.Code == CodePivotUnknown:
		w.unpark()
		w.failStep(n, r, CodeOperator, "an operator says that it had no effect")
	case n.Step.Role == sagas.Retriable: // it cannot fail; what it did is settled, and it may be sent again, edited
		if h.State == events.Running {
			w.parkStep(n, r, CodeRetriableRejected, fmt.Sprintf("an operator says that step %q had no effect", w.label(n)))
		}
	case w.holds():
		r.Failed, r.Answer = true, []byte(CodeOperator)
		w.hold(r)
	default:
		w.failStep(n, r, CodeOperator, "an operator says that it had no effect")
	}
}

// skip counts the step that the instance is parked at as done. It owes what it owed.
func (w *work) skip(a *events.Action) {
	h := w.head
	n, r, ok := w.parkedTarget(a)
	switch {
	case !ok:
		return
	case n.Kind != sagas.KindStep || r.Status != events.NodeActive && r.Status != events.NodeBackoff || !w.forward(n):
		w.refuse(CodeWrongState, fmt.Sprintf("%q is %s: only a step that is open is skipped; one that goes back is resolved", w.label(n), r.Status))
		return
	}
	w.unpark()
	w.close(r, events.NodeDone)
	if n.Step.Role == sagas.Pivot {
		h.Pivot = events.PivotDone
	}
	w.note(events.EntryDone, n, r, events.Forward, 0, CodeOperator, "")
	w.up(n, endedDone)
}

// turnBack compensates the instance, whatever it is doing.
func (w *work) turnBack(code, why string, pastPivot bool) {
	h := w.head
	switch {
	case w.direction() != events.Running:
		w.refuse(CodeNotRunning, "the instance is compensating already")
		return
	case h.Pivot != events.PivotAhead && !pastPivot && !mutant.On("machine-cancelled-past-the-pivot"):
		w.refuse(CodePivotPassed, "the pivot is decided: what follows it does not go back by itself")
		return
	}
	w.goOnFromStop()
	h.Cause, h.CauseMessage = code, why
	w.goBackAll()
}

// goOnFromStop leaves the state parked or suspended for a transition that follows.
func (w *work) goOnFromStop() {
	if h := w.head; h.State == events.Parked || h.State == events.Suspended {
		w.undoAgain()
		h.State, h.ParkedIn, h.ParkedNode, h.Code, h.Message = h.ParkedIn, 0, 0, "", ""
	}
}

// backTo undoes everything down to and with the body of a Try, and goes on with what follows its failure.
func (w *work) backTo(a *events.Action) {
	n, ok := w.find(a.Name)
	switch {
	case !ok || n.Kind != sagas.KindTry:
		w.refuse(CodeNoSavepoint, fmt.Sprintf("the instance has no Try %q", a.Name))
		return
	case w.direction() != events.Running || !w.forward(n):
		w.refuse(CodeNotRunning, "it goes back already")
		return
	case w.head.Pivot != events.PivotAhead:
		w.refuse(CodePivotPassed, "the pivot is decided: what preceded it does not go back")
		return
	}
	if why := w.noWayBack(n); why != "" {
		w.refuse(CodeNoSavepoint, fmt.Sprintf("the Try %q: %s", a.Name, why))
		return
	}
	if w.head.State != events.Running {
		w.unpark()
	}
	if w.stopped() {
		return
	}
	w.goBackTo(n, CodeOperator, a.Why)
}

// suspend stops the instance until it is resumed; what comes meanwhile is held.
func (w *work) suspend(a *events.Action) {
	h := w.head
	if h.State != events.Running && h.State != events.Compensating {
		w.refuse(CodeWrongState, "the instance is "+h.State.String())
		return
	}
	h.ParkedIn = h.State
	h.Code, h.Message = CodeSuspended, a.Why
	w.headDue = 0
	w.transition(events.Suspended, h.Code, h.Message)
}

// terminate ends the instance at once, and lists what it owes. Registrations beyond one decision's budget end in the
// next ones.
func (w *work) terminate() (owed string) {
	var list []string
	missing := 0
	for id := range max(w.head.NextNode, uint32(len(w.plan.Nodes))) {
		r := w.row(id)
		if missing++; r.stored {
			missing = 0
		}
		if missing > 3*len(w.plan.Nodes) { // a block has the row of its body: that many missing ones were never taken
			w.corrupt = true
			return ""
		}
		if r.Status == 0 || r.Status == events.NodeUndone {
			continue
		}
		n, ok := w.placeOf(r)
		switch {
		case !ok || w.corrupt:
			w.corrupt = true
			return ""
		case registered(n, r):
			if !w.leaving {
				w.endRegistration(n, r)
			}
		case n.Kind != sagas.KindStep:
		case r.Undo != nil:
			list = append(list, w.label(n))
		case (r.Status == events.NodeActive || r.Status == events.NodeBackoff) && !n.Step.EffectFree && !allRejected(r):
			list = append(list, w.label(n)+" (open)")
		}
	}
	w.goOnFromStop()
	w.head.Code, w.head.Message = CodeOperator, ""
	w.end(events.Terminated)
	if len(list) == 0 {
		return "nothing is owed"
	}
	return "owed: " + strings.Join(list, ", ")
}

// registered reports whether a correlation has to be told that a Wait is no more.
func registered(n place, r *row) bool {
	return n.Kind == sagas.KindWait && n.Wait.Event != nil && r.Status == events.NodeActive && r.Key != ""
}

// endRegistration ends the registration of a Wait whose instance was terminated. It is false when the decision is full: then the
// first such Wait has a timer, with which it goes on.
func (w *work) endRegistration(n place, r *row) bool {
	if w.full() {
		if !w.leaving && !mutant.On("machine-terminated-waits-left-behind") {
			r.set(w.now)
		}
		w.leaving = true
		return false
	}
	w.spent += costCommand
	w.giveBack(n, r)
	w.unregister(n, r)
	r.set(0)
	return true
}

// leftBehind takes a timer of a node that was left behind when its instance was terminated. It would fire for ever; and
// that of a Wait which is registered goes on with what termination left, from there on.
func (w *work) leftBehind(t *Timer) *events.Decision {
	if t.Row.N > maxRow {
		return w.ignored(ReasonStaleTimer)
	}
	r := w.row(uint32(t.Row.N))
	if !w.corrupt && (!r.stored || r.was != t.Due) {
		return w.ignored(ReasonStaleTimer)
	}
	if w.plan == nil && r.Status == events.NodeActive && r.Key != "" && !w.corrupt {
		return w.waits() // where it is registered, its definition knows
	}
	r.set(0)
	if n, ok := w.placeOf(r); ok && w.plan != nil && registered(n, r) {
		missing := 0
		for id := r.id; id < max(w.head.NextNode, uint32(len(w.plan.Nodes))) && !w.corrupt; id++ {
			r := w.row(id)
			if missing++; r.stored {
				missing = 0
			}
			if missing > 3*len(w.plan.Nodes) {
				w.corrupt = true
			}
			if n, ok := w.placeOf(r); ok && registered(n, r) && !w.endRegistration(n, r) {
				break
			}
		}
	}
	if w.corrupt {
		return nil
	}
	w.holding = true // it only makes rows smaller
	return w.finish()
}

// patchData changes the saga's data by a JSON merge patch, if they are still the definition's afterwards.
func (w *work) patchData(a *events.Action) {
	if w.data == nil && !w.loadData(place{}) {
		return
	}
	raw, err := mergePatch(w.dataRaw, a.Payload)
	if err != nil {
		w.refuse(CodeBadPatch, err.Error())
		return
	}
	if len(raw) > w.m.cfg.MaxRecord/4 {
		w.refuse(CodeTooLarge, fmt.Sprintf("the data would take %d bytes, at most %d", len(raw), w.m.cfg.MaxRecord/4))
		return
	}
	var data any
	if why := try(func() error { data = w.plan.NewData(); return w.plan.Decode(raw, data) }); why != "" {
		w.refuse(CodeBadPatch, why)
		return
	}
	w.setData(data)
}
