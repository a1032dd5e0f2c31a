package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// compensate turns the instance round, after a failure that reached the root. Past the pivot nothing is undone by
// itself (G6): then it is parked.
func (w *work) compensate() {
	if w.head.Pivot != events.PivotAhead && !mutant.On("machine-undo-past-the-pivot") {
		w.parkNow(CodePastPivot, w.failure.at, "nothing is undone past the pivot; it failed with "+because(w.head.Cause, w.head.CauseMessage))
		return
	}
	w.goBackAll()
}

// goBackAll compensates the instance because of its cause.
func (w *work) goBackAll() {
	w.turned()
	w.head.Code, w.head.Message = w.head.Cause, w.head.CauseMessage
	w.headDue = 0
	w.transition(events.Compensating, w.head.Code, w.head.Message)
	w.push(undo, own(w.plan.Root))
}

// undo compensates a node: nothing for one that was never started, that owes nothing, or that is being undone
// already, which will come up by itself.
func (w *work) undo(n place) {
	if n.rowless() {
		w.up(n, endedUndone)
		return
	}
	w.spent += costCommand
	r := w.row(n.row)
	if s := r.Status; (s == events.NodeUndoing || s == events.NodeUndoGap) && !mutant.On("machine-undone-twice") {
		return
	}
	if r.Held && !mutant.On("machine-held-undo-counted-twice") { // what it took while the instance was stopped counts now: it must not come up a second time
		r.Held, r.dirty = false, true
	}
	switch {
	case r.Status == 0 && n.Parent != nil && forks(n.Parent):
		w.corrupt = true // a fork counts only children that it began: the row is lost, and with it what is owed
	case r.Status == 0 || r.Status == events.NodeUndone:
		w.up(n, endedUndone)
	case n.Kind == sagas.KindStep:
		w.undoStep(n, r)
	case n.Kind == sagas.KindWait:
		w.undoWait(n, r)
	case instant(n.Node):
		r.Status = events.NodeUndone
		r.set(0)
		w.up(n, endedUndone)
	default:
		w.undoChildren(n, r)
	}
}

// undoChildren turns a node with children round: Index now counts the children that are left, from the first.
func (w *work) undoChildren(n place, r *row) {
	if r.Status == events.NodeClosing {
		r.Index = r.Count
	}
	switch {
	case n.Kind == sagas.KindSeq || n.Kind == sagas.KindChoose && int64(r.Index) < int64(len(n.Children)):
		r.Index++ // the open child is to be undone as well
	case n.Kind == sagas.KindChoose:
		r.Index = 0 // none was taken
	case n.Kind == sagas.KindTry && r.Index == tryElse:
		r.Index = 2
	case n.Kind == sagas.KindTry:
		r.Index = 1
	}
	r.Index = min(r.Index, branches(n, r))
	r.Status, r.Active = events.NodeUndoing, 0
	r.Code, r.Message, r.Step = "", "", ""
	r.set(0)
	w.push(goBack, n)
}

// together reports whether a node's children are undone side by side: those of a fork are, unless each began
// only when the one before had ended (G4).
func together(n *sagas.Node) bool {
	return n.Kind == sagas.KindAll || n.Kind == sagas.KindForEach && (n.Width != 1 || mutant.On("machine-elements-undone-together")) || n.Kind == sagas.KindSeq && mutant.On("machine-seq-undone-at-once")
}

// goBack undoes the child before, or ends the node.
func (w *work) goBack(n place, r *row) {
	switch {
	case n.Kind == sagas.KindSeq && w.atSavepoint(n, r):
	case n.Kind == sagas.KindWhile && r.Base != 0:
		last := n.child(r, 0)
		before := w.row(last.row).Prev
		if before >= r.Base {
			w.corrupt = true
			return
		}
		if r.Base = before; mutant.On("machine-loop-undoes-its-last") {
			r.Base = 0
		}
		w.push(undo, last)
	case n.Kind == sagas.KindChoose && r.Index > 0:
		taken := n.child(r, r.Index-1)
		r.Index = 0
		w.push(undo, taken)
	case r.Index > 0 && n.Kind != sagas.KindWhile:
		r.Index--
		if forks(n.Node) || together(n.Node) {
			r.Active++
		}
		if together(n.Node) {
			w.push(goBack, n)
		}
		w.push(undo, n.child(r, r.Index))
	case r.Active == 0 || mutant.On("machine-fork-undone-with-open-branches"):
		r.Status = events.NodeUndone
		w.up(n, endedUndone)
	}
}

// childUndone takes the end of a child of a node that is undone. A child may go back on its own before the walk back
// comes to it: then it is not counted, and the walk will find it undone.
func (w *work) childUndone(p place, r *row, child place, how ending) ending {
	switch {
	case how != endedUndone:
		return stays
	case forks(p.Node) || together(p.Node):
		if w.turnOf(child) < r.Index {
			return stays
		}
		if r.Active == 0 {
			w.corrupt = true
			return stays
		}
		r.Active--
	}
	r.dirty = true
	w.push(goBack, p)
	return stays
}
