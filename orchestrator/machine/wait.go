package machine

import "github.com/skald-io/skald/events"

// beginWait begins a Wait. (Hooks of this kind: beginWait, undoWait, waitTimer.)
func (w *work) beginWait(n place) {
	r := w.fresh(n)
	r.Status = events.NodeActive
	r.set(w.now + millis(n.Wait.Sleep))
	w.spent += costCommand
	w.bytes += 32
}

// undoWait ends a Wait that is not waited for any more; one that is done has nothing to undo.
func (w *work) undoWait(n place, r *row) {
	if r.Status == events.NodeActive {
		r.Status = events.NodeUndone
		r.set(0)
	}
	w.up(n, endedUndone)
}

// waitTimer takes a Wait's due time, or, held before, its turn.
func (w *work) waitTimer(n place, r *row) {
	if r.Status != events.NodeActive || !w.forward(n) {
		return
	}
	r.Status = events.NodeDone
	r.set(0)
	w.entry(events.Entry{Kind: events.EntryDone, Step: w.label(n), Node: n.row, Phase: events.Forward})
	w.up(n, endedDone)
}
