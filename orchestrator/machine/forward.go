package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// begin starts a node.
func (w *work) begin(n place) {
	switch n.Kind {
	case sagas.KindStep:
		w.beginStep(n)
	case sagas.KindDo:
		w.do(n)
	case sagas.KindWait:
		w.beginWait(n)
	case sagas.KindEmit:
		w.emit(n)
	case sagas.KindRequire:
		w.require(n)
	case sagas.KindChoose:
		w.choose(n)
	case sagas.KindForEach:
		w.beginEach(n)
	case sagas.KindWhile:
		w.beginWhile(n)
	default:
		w.beginChildren(n)
	}
}

// do runs a Do at once. It leaves no row: it is undone with the data it changed, which is to say not at all.
func (w *work) do(n place) {
	if !w.user(n, "Do", true, n.Do) {
		return
	}
	w.entry(events.Entry{Kind: events.EntryDone, Step: w.label(n), Node: n.row, Phase: events.Forward})
	w.ended(n)
}

// ended ends a node that is done as soon as it begins.
func (w *work) ended(n place) {
	if n.turns() {
		w.fresh(n).Status = events.NodeDone
	}
	w.up(n, endedDone)
}

// opened gives the row of a node with children that begins.
func (w *work) opened(n place) *row {
	r := w.fresh(n)
	r.Status = events.NodeActive
	r.set(0)
	w.bytes += 32
	return r
}

func (w *work) beginChildren(n place) {
	w.opened(n)
	w.push(goOn, n)
}

// goForward starts what is next of a node's children, or ends it.
func (w *work) goForward(n place, r *row) {
	switch n.Kind {
	case sagas.KindSeq:
		if int(r.Index) < len(n.Children) {
			w.push(begin, n.child(r, r.Index))
			return
		}
		w.finished(n, r)
	case sagas.KindAll, sagas.KindForEach:
		if r.Status == events.NodeClosing {
			w.goClosing(n, r)
			return
		}
		w.goFork(n, r)
	case sagas.KindWhile:
		w.goWhile(n, r)
	case sagas.KindTry:
		w.goTry(n, r)
	default:
		w.corrupt = true // no node of this kind waits for a timer while it is open
	}
}

// finished ends a node with children.
func (w *work) finished(n place, r *row) {
	r.Status = events.NodeDone
	r.set(0)
	w.up(n, endedDone)
}
