package machine

import (
	"fmt"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// A fork, All or ForEach, begins its children in order, as many at a time as its width allows. Its row counts:
// Index are the children begun, Active those of them that are open, in whatever direction, Done and Lost those
// that were done and those that failed. What its join makes of them:
//
//	all     a child that fails decides: the fork fails, and what is above it undoes it all
//	some    a child that fails is undone by itself; enough that are done decide, and so do too many that failed
//	first   the first child that ends decides
//
// A fork that is decided while children are open, and whose join leaves them out, is closing: it walks over its
// children, from the last, and undoes each that is not done; when all of them are, it ends.

func forks(n *sagas.Node) bool { return n.Kind == sagas.KindAll || n.Kind == sagas.KindForEach }

// branches is how many children a fork has, or is to have, or any other node.
func branches(n place, r *row) uint32 {
	if n.Kind == sagas.KindForEach {
		return r.Count
	}
	return uint32(len(n.Children))
}

// quorum is how many children have to be done.
func quorum(n place, r *row) uint32 {
	switch n.Join {
	case sagas.JoinSome:
		return uint32(n.Quorum)
	case sagas.JoinFirst:
		return 1
	}
	return branches(n, r)
}

// decided reports whether a fork begins no further child: its outcome is known.
func decided(n place, r *row) bool {
	return r.Failed || n.Join != sagas.JoinAll && r.Done >= quorum(n, r) && !mutant.On("machine-join-waits-for-all")
}

// goFork begins the next child of a fork, or ends it.
func (w *work) goFork(n place, r *row) {
	over := decided(n, r)
	switch {
	case r.Index == 0 && n.Join == sagas.JoinSome && branches(n, r) < quorum(n, r):
		w.failAt(n, CodeTooFew, fmt.Sprintf("%d elements, and %d have to be done", branches(n, r), n.Quorum))
	case !over && r.Index < branches(n, r):
		if n.Width > 0 && int64(r.Active) >= int64(n.Width) && !mutant.On("machine-width-ignored") {
			return // the next begins when one ends
		}
		child := n.child(r, r.Index)
		if n.Kind == sagas.KindForEach && w.row(child.row).Plan == 0 {
			w.corrupt = true // the element is lost
			return
		}
		r.Index++
		r.Active++
		w.push(goOn, n)
		w.push(begin, child)
	case r.Active > 0 && !mutant.On("machine-fork-ends-with-open-branches"): // the rest will come
	default:
		w.endFork(n, r)
	}
}

// leavesOut reports whether a fork that is decided undoes what is open, instead of waiting for it.
func leavesOut(n place, r *row) bool {
	return n.Join == sagas.JoinFirst || n.Join == sagas.JoinSome && n.OnFailure == sagas.CancelRest && !r.Failed
}

func (w *work) endFork(n place, r *row) {
	if !r.Failed {
		r.Code, r.Message, r.Step = "", "", ""
		w.finished(n, r)
		return
	}
	r.Status = events.NodeFailed
	r.set(0)
	w.upFailed(n, failureOf(n, r))
}

// branchEnded takes the end of a fork's child.
func (w *work) branchEnded(p place, r *row, child place, how ending) ending {
	if r.Active == 0 {
		w.corrupt = true
		return stays
	}
	r.dirty = true
	if r.Status != events.NodeActive { // closing, or its failure went up before
		r.Active--
		w.push(goOn, p)
		return stays
	}
	switch how {
	case endedDone:
		r.Done++
	case endedFailed:
		r.Lost++
		w.keepFailure(r)
		if p.Join != sagas.JoinAll && !r.Failed && (p.Join == sagas.JoinFirst || w.canLose(p, r)) {
			r.Failed = p.Join == sagas.JoinFirst
			w.nextBranch(p, r)
			w.undoScope(child) // it stays open until it is undone
			return stays
		}
		r.Failed = true
		if p.OnFailure == sagas.CancelRest {
			r.Active--
			r.Status = events.NodeFailed
			w.failure = failureOf(w.failure.at, r)
			return endedFailed
		}
	}
	r.Active--
	w.nextBranch(p, r)
	return stays
}

// nextBranch goes on with a fork of which a child ended; what it is decided without is undone from now on.
func (w *work) nextBranch(n place, r *row) {
	if r.Active > 0 && decided(n, r) && leavesOut(n, r) && !mutant.On("machine-join-leaves-branches-open") {
		w.closeFork(n, r)
	}
	w.push(goOn, n)
}

// canLose reports whether enough children can still be done.
func (w *work) canLose(p place, r *row) bool {
	if mutant.On("machine-quorum-out-of-reach") {
		return true
	}
	return int64(branches(p, r))-int64(r.Lost) >= int64(quorum(p, r))
}

// closeFork begins to undo what a fork does without. Count keeps how many children were begun.
func (w *work) closeFork(n place, r *row) {
	w.head.Partial = true
	r.Status, r.Count = events.NodeClosing, r.Index
	r.set(0)
	w.entry(events.Entry{Kind: events.EntryScope, Step: w.label(n), Node: n.row, Code: CodeJoined, Message: "the rest is undone"})
}

// goClosing undoes the child before, unless it is done or goes back already, or ends the fork.
func (w *work) goClosing(n place, r *row) {
	if r.Index > 0 {
		r.Index--
		child := n.child(r, r.Index)
		w.push(goOn, n)
		if child.rowless() {
			return
		}
		switch w.row(child.row).Status {
		case 0:
			w.corrupt = true
		case events.NodeActive, events.NodeBackoff, events.NodeFailed, events.NodeClosing:
			w.push(undo, child)
		}
		return
	}
	if r.Active > 0 {
		return // their undoing will come up
	}
	r.Index = r.Count
	w.endFork(n, r)
}
