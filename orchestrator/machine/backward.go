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
		w.parkNow(CodePastPivot, w.failedNode, "nothing is undone past the pivot; it failed with "+because(w.head.Cause, w.head.CauseMessage))
		return
	}
	w.tasks = w.tasks[:0] // what was to be started is not
	w.head.Code, w.head.Message = w.head.Cause, w.head.CauseMessage
	w.headDue = 0
	w.transition(events.Compensating, w.head.Code, w.head.Message)
	w.push(undo, w.plan.Root)
}

// undo compensates a node: nothing for one that was never started, or that owes nothing.
func (w *work) undo(n *sagas.Node) {
	if n.Kind == sagas.KindDo {
		w.up(n, endedUndone)
		return
	}
	w.spent += costCommand
	r := w.row(n.ID)
	r.Held = false
	switch {
	case r.Status == 0 && n.Parent != nil && n.Parent.Kind == sagas.KindAll:
		w.corrupt = true // an All counts only children that it began: the row is lost, and with it what is owed
	case r.Status == 0 || r.Status == events.NodeUndone:
		w.up(n, endedUndone)
	case n.Kind == sagas.KindStep:
		w.undoStep(n, r)
	case n.Kind == sagas.KindWait:
		if r.Status == events.NodeActive {
			r.Status = events.NodeUndone
			r.set(0)
		}
		w.up(n, endedUndone)
	default:
		w.undoChildren(n, r)
	}
}

// undoChildren turns a Seq or All round: Index now counts the children that are left, from the first.
func (w *work) undoChildren(n *sagas.Node, r *row) {
	if n.Kind == sagas.KindSeq {
		r.Index++ // the open child is to be undone as well
	}
	r.Index = min(r.Index, uint32(len(n.Children)))
	r.Status, r.Active = events.NodeUndoing, 0
	r.set(0)
	w.push(goOn, n)
}

// goBack undoes the child before, or ends the Seq or All. The children of a Seq are undone one after the
// other, those of an All together (G4).
func (w *work) goBack(n *sagas.Node, r *row) {
	r.set(0)
	switch {
	case r.Index > 0:
		r.Index--
		if n.Kind == sagas.KindAll || mutant.On("machine-seq-undone-at-once") {
			r.Active++
			w.push(goOn, n)
		}
		if int(r.Index) >= len(n.Children) {
			w.corrupt = true
			return
		}
		w.push(undo, n.Children[r.Index])
	case r.Active == 0 || mutant.On("machine-fork-undone-with-open-branches"):
		r.Status = events.NodeUndone
		w.up(n, endedUndone)
	}
}
