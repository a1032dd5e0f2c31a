package machine

import (
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// Parts of a running instance can go back on their own: the body of a Try that failed, a branch that a join
// does without, what is open when a join is decided. So the direction is a node's: backward under a node that
// is being undone, or whose join is decided. Head.Partial says that there was such a scope; without one the
// direction is the instance's, and nobody has to look.

// forward reports whether a node may go on forward: no new command, iteration or wait is decided otherwise (G6).
func (w *work) forward(n place) bool {
	return w.direction() == events.Running && (!w.head.Partial || n.Node == nil || !w.goesBack(n))
}

// goesBack reports whether a node stands under one that goes back.
func (w *work) goesBack(n place) bool {
	if mutant.On("machine-scope-goes-forward") {
		return false
	}
	for {
		p, ok := w.parent(n)
		if !ok {
			return w.corrupt
		}
		switch w.row(p.row).Status {
		case events.NodeUndoing, events.NodeUndone, events.NodeClosing:
			return true
		}
		n = p
	}
}

// failure is why a node failed, on its way up.
type failure struct {
	sagas.Failure
	at place // the leaf
}

// failAt ends a node that is no step, and whatever stands above it up to the one that handles it.
func (w *work) failAt(n place, code, message string) {
	if !n.rowless() {
		r := w.row(n.row)
		r.Status = events.NodeFailed
		r.set(0)
	}
	label := w.label(n)
	w.entry(events.Entry{Kind: events.EntryFailed, Step: label, Node: n.row, Phase: events.Forward, Code: code, Message: message})
	w.upFailed(n, failure{sagas.Failure{Step: label, Code: code, Message: message}, n})
}

// upFailed tells a node's parents that it failed, and why.
func (w *work) upFailed(n place, f failure) {
	f.Message = events.Cut(f.Message, events.MaxMessage)
	w.failure = f
	w.up(n, endedFailed)
}

// keepFailure notes in a row that stays why something under it failed; the first that did so counts.
func (w *work) keepFailure(r *row) {
	if r.Code != "" || r.Step != "" {
		return
	}
	r.Code, r.Message, r.Step = w.failure.Code, w.failure.Message, w.failure.Step
	r.dirty = true
	w.bytes += len(r.Code) + len(r.Message) + len(r.Step)
}

// failureOf is what keepFailure noted.
func failureOf(n place, r *row) failure {
	return failure{sagas.Failure{Step: r.Step, Code: r.Code, Message: r.Message}, n}
}

// noWayBack says why the instance cannot go back to a save-point; "" when it can. The Try's body may be at work; or
// the Try is done, and stands directly in a Seq that is at a later child.
func (w *work) noWayBack(n place) string {
	r := w.row(n.row)
	p, ok := w.parent(n)
	switch {
	case w.head.Pivot != events.PivotAhead:
		return "the pivot is decided"
	case n.Kind != sagas.KindTry:
		return "it is no save-point"
	case r.Status == 0:
		return "it was not begun"
	case !w.forward(n):
		return "it goes back already"
	case r.Status == events.NodeActive && r.Index == tryBody:
		return ""
	case r.Index != tryBody || r.Status != events.NodeDone:
		return "its body failed before"
	case !ok || p.Kind != sagas.KindSeq || w.row(p.row).Status != events.NodeActive:
		return "it does not stand directly in a Seq that is at work"
	}
	for _, c := range p.Children[n.Index+1 : max(w.begun(p), n.Index+1)] {
		if slices.ContainsFunc(w.plan.Nodes[c.ID:c.ID+extent(c)], loops) {
			return "a loop after it would begin again, under the names that its iterations had"
		}
	}
	return ""
}

// begun is how many of a Seq's children were begun while it is at work.
func (w *work) begun(n place) int {
	r := w.row(n.row)
	return int(min(r.Index+1, branches(n, r)))
}

// goBackTo goes back to a save-point: what came after it, and the body of that Try, is undone, and its other way is
// taken; then what came after it is begun anew. The instance is running, and noWayBack finds nothing against it. A
// Seq that goes back keeps in its row's Count where it stops.
func (w *work) goBackTo(n place, code, message string) {
	r := w.row(n.row)
	done := r.Status == events.NodeDone
	w.saved(n, r, code, message)
	if !done {
		w.undoScope(n.child(r, 0))
		return
	}
	p, _ := w.parent(n)
	seq := w.row(p.row)
	seq.Index = uint32(w.begun(p))
	seq.Status, seq.Count, seq.Held = events.NodeUndoing, uint32(n.Index)+1, false
	seq.set(0)
	w.scopeEntry(n)
	w.push(goBack, p)
}

// saved notes in the row of a Try why its other way is to be taken.
func (w *work) saved(n place, r *row, code, message string) {
	w.failure = failure{sagas.Failure{Step: w.label(n), Code: code, Message: events.Cut(message, events.MaxMessage)}, n}
	r.Code, r.Message, r.Step = w.failure.Code, w.failure.Message, w.failure.Step
	r.Index, r.Held = tryUndoes, false
	r.set(0)
}

// atSavepoint takes a Seq that goes back to a save-point over to it, when everything after it is undone. A Seq that is
// overtaken by the undoing of what is above it goes on back.
func (w *work) atSavepoint(n place, r *row) bool {
	if r.Count == 0 || r.Index != r.Count {
		return false
	}
	r.Count = 0
	if !w.forward(n) && !mutant.On("machine-save-point-stops-compensation") {
		return false
	}
	r.Index--
	r.Status = events.NodeActive
	try := n.child(r, r.Index)
	if try.Kind != sagas.KindTry {
		w.corrupt = true
		return true
	}
	saved := w.row(try.row)
	saved.Status, saved.dirty = events.NodeActive, true
	w.push(undo, try.child(saved, 0))
	return true
}

// undoScope undoes a node of a running instance, because of the failure that came up from it.
func (w *work) undoScope(n place) {
	w.scopeEntry(n)
	w.push(undo, n)
}

func (w *work) scopeEntry(n place) {
	w.head.Partial = true
	w.entry(events.Entry{Kind: events.EntryScope, Step: w.label(n), Node: n.row, Code: w.failure.Code, Message: w.failure.Message})
}
