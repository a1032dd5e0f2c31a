package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// begin starts a node.
func (w *work) begin(n *sagas.Node) {
	switch n.Kind {
	case sagas.KindStep:
		w.beginStep(n)
	case sagas.KindDo:
		w.do(n)
	case sagas.KindWait:
		r := w.fresh(n.ID)
		r.Status = events.NodeActive
		r.set(w.now + millis(n.Wait.Sleep))
		w.spent += costCommand
		w.bytes += 32
	default:
		w.beginChildren(n)
	}
}

// do runs a Do at once. It leaves no row: it is undone with the data it changed, which is to say not at all.
func (w *work) do(n *sagas.Node) {
	if !w.user(n, "Do", true, n.Do) {
		return
	}
	w.entry(events.Entry{Kind: events.EntryDone, Step: n.Name, Node: n.ID, Phase: events.Forward})
	w.up(n, endedDone)
}

func (w *work) beginChildren(n *sagas.Node) {
	r := w.fresh(n.ID)
	r.Status, r.Index, r.Active, r.Failed = events.NodeActive, 0, 0, false
	r.set(0)
	w.bytes += 32
	w.push(goOn, n)
}

// goForward starts the next child of a Seq or All, or ends it.
func (w *work) goForward(n *sagas.Node, r *row) {
	r.set(0)
	more := int(r.Index) < len(n.Children)
	switch {
	case n.Kind == sagas.KindSeq && more:
		w.push(begin, n.Children[r.Index])
	case n.Kind == sagas.KindSeq:
		r.Status = events.NodeDone
		w.up(n, endedDone)
	case more && !r.Failed:
		child := n.Children[r.Index]
		r.Index++
		r.Active++
		w.push(goOn, n)
		w.push(begin, child)
	case r.Active > 0 && !mutant.On("machine-fork-ends-with-open-branches"): // the rest will come
	case r.Failed:
		r.Status = events.NodeFailed
		w.up(n, endedFailed)
	default:
		r.Status = events.NodeDone
		w.up(n, endedDone)
	}
}

// waited ends a Wait whose time has come.
func (w *work) waited(n *sagas.Node, r *row) {
	r.Status = events.NodeDone
	r.set(0)
	w.entry(events.Entry{Kind: events.EntryDone, Step: n.Name, Node: n.ID, Phase: events.Forward})
	w.up(n, endedDone)
}
