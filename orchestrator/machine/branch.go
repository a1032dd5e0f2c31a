package machine

import (
	"fmt"
	"strconv"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// chosen notes how a condition was answered.
func (w *work) chosen(n place, what string) {
	w.entry(events.Entry{Kind: events.EntryChosen, Step: w.label(n), Node: n.row, Phase: events.Forward, Message: what})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// choose begins the first child of a Choose whose condition holds; without one it is done.
func (w *work) choose(n place) {
	taken, what := len(n.Children), "none"
	for i, cond := range n.Conds {
		holds := cond == nil
		if cond != nil && !w.user(n, "the condition", false, func(data any) (err error) { holds, err = cond(data); return err }) {
			return
		}
		if holds && i < len(n.Children) {
			taken, what = i, strconv.Itoa(i)
			switch {
			case i < len(n.Cases) && n.Cases[i] != "":
				what = n.Cases[i]
			case cond == nil:
				what = "otherwise"
			}
			break
		}
	}
	r := w.opened(n)
	r.Index = uint32(taken)
	w.chosen(n, what)
	if taken == len(n.Children) {
		w.finished(n, r)
		return
	}
	w.push(begin, n.child(r, r.Index))
}

// require fails unless its condition holds.
func (w *work) require(n place) {
	var holds bool
	if !w.user(n, "the condition", false, func(data any) (err error) { holds, err = n.Conds[0](data); return err }) {
		return
	}
	w.chosen(n, yes(holds))
	if !holds {
		if n.turns() {
			w.fresh(n)
		}
		w.failAt(n, CodeRequired, w.label(n))
		return
	}
	w.ended(n)
}

// emit tells the world an event. It is not undone.
func (w *work) emit(n place) {
	key := w.head.Key
	if fn := n.Emit.Key; fn != nil && !w.user(n, "the key", false, func(data any) (err error) { key, err = fn(data); return err }) {
		return
	}
	if len(key) > events.MaxKeyBytes {
		w.fail(CodeUserFunction, n, fmt.Sprintf("the key of %s takes %d bytes, at most %d", w.label(n), len(key), events.MaxKeyBytes))
		return
	}
	var payload []byte
	if !w.user(n, "the event", false, func(data any) (err error) { payload, err = n.Emit.Build(data); return err }) {
		return
	}
	label := w.label(n)
	w.emits = append(w.emits, events.Emit{Kind: events.EmitEvent, Topic: n.Emit.Topic, Type: n.Emit.Type, Step: label, Node: n.row,
		Phase: events.Forward, Key: clean(key), Payload: payload})
	w.spent += costCommand
	w.bytes += len(payload) + len(key) + len(label) + 96
	w.entry(events.Entry{Kind: events.EntryEmitted, Step: label, Node: n.row, Phase: events.Forward})
	w.ended(n)
}

// How far a Try is: its row's Index.
const (
	tryBody   = 0
	tryUndoes = 1 // the body failed and is undone
	tryElse   = 2
)

// goTry begins a Try's body, or what follows once that is undone.
func (w *work) goTry(n place, r *row) {
	if r.Index == tryBody {
		w.push(begin, n.child(r, 0))
		return
	}
	if r.Index != tryUndoes {
		return
	}
	if b := n.child(r, 0); !b.rowless() && !mutant.On("machine-else-before-undone") {
		if s := w.row(b.row).Status; s == events.NodeUndoing || s == events.NodeUndoGap {
			return
		}
	}
	if fn := n.OnFail; fn != nil && !w.user(n, "what follows its failure", true, func(data any) error { return fn(data, failureOf(n, r).Failure) }) {
		return
	}
	r.Index = tryElse
	if len(n.Children) < 2 {
		w.finished(n, r)
		return
	}
	w.push(begin, n.child(r, 1))
}

// triedEnded takes the end of a Try's child.
func (w *work) triedEnded(p place, r *row, child place, how ending) ending {
	r.dirty = true
	switch {
	case r.Status != events.NodeActive:
	case how == endedDone:
		r.Status = events.NodeDone
		return endedDone
	case how == endedFailed && r.Index == tryElse:
		r.Status = events.NodeFailed
		return endedFailed
	case how == endedFailed && r.Index == tryBody:
		w.keepFailure(r)
		r.Index = tryUndoes
		if mutant.On("machine-else-before-undone") {
			w.push(goOn, p)
		}
		w.undoScope(child)
	case how == endedUndone:
		w.push(goOn, p)
	}
	return stays
}
