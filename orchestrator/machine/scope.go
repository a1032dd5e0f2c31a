package machine

import (
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

// undoScope undoes a node of a running instance, because of the failure that came up from it.
func (w *work) undoScope(n place) {
	w.head.Partial = true
	w.entry(events.Entry{Kind: events.EntryScope, Step: w.label(n), Node: n.row, Code: w.failure.Code, Message: w.failure.Message})
	w.push(undo, n)
}
