package machine

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// itemShare is the part of a record that an element of a ForEach may take: its row may hold, besides, a
// command or an undo, and an answer.
const itemShare = 16

// beginEach makes the list of a ForEach, once, and writes the row of each iteration with its element.
func (w *work) beginEach(n place) {
	var items [][]byte
	if !w.user(n, "the list", false, func(data any) (err error) { items, err = n.Each.Items(data); return err }) {
		return
	}
	size := 0
	for i, item := range items {
		size += len(item) + 32
		if len(item) > w.m.cfg.MaxRecord/itemShare {
			w.fail(CodeTooLarge, n, fmt.Sprintf("element %d of %q takes %d bytes, at most %d", i, w.label(n), len(item), w.m.cfg.MaxRecord/itemShare))
			return
		}
	}
	before, room := uint32(0), uint32(0)
	if n.looped() { // what loops around it began in rows that it takes again has left it a block
		before, room = w.row(n.row).Base, w.row(n.row).Count
	}
	r := w.opened(n)
	switch {
	case len(items) > n.Most && !mutant.On("machine-loop-unbounded"):
		w.failAt(n, CodeTooMany, fmt.Sprintf("%d elements, at most %d", len(items), n.Most))
		return
	case size > w.m.cfg.MaxRecord/2 && !mutant.On("machine-list-unbounded"):
		w.fail(CodeTooLarge, n, fmt.Sprintf("the list of %q, %d elements, takes %d bytes, at most %d", w.label(n), len(items), size, w.m.cfg.MaxRecord/2))
		return
	}
	r.Count = uint32(len(items))
	rows := extent(body(n.Node))
	switch {
	case before != 0 && room >= r.Count:
		r.Base = before
		for i := range r.Count {
			w.row(r.Base + i*rows)
		}
	case r.Count > 0:
		if r.Base = w.block(uint64(r.Count) * uint64(rows)); r.Base == 0 {
			w.fail(CodeTooLarge, n, fmt.Sprintf("%q: the instance has no room for %d more rows", w.label(n), uint64(r.Count)*uint64(rows)))
			return
		}
	}
	for i, item := range items {
		w.turn(n, r.Base+uint32(i)*rows, uint32(i)).Item = item
	}
	w.bytes += size
	w.push(goOn, n)
}

// beginWhile begins a While. In rows that it takes again it takes its block again as well.
func (w *work) beginWhile(n place) {
	var before uint32
	if n.looped() {
		before = w.row(n.row).Base
	}
	w.opened(n).Base = before
	w.push(goOn, n)
}

// turn writes the row that begins an iteration.
func (w *work) turn(loop place, id, turn uint32) *row {
	var r *row
	if r = w.touched(id); r == nil {
		r = w.add(id, &events.NodeState{}, 0)
	}
	r.renew()
	r.Plan, r.Up, r.Turn = body(loop.Node).ID+1, loop.row, turn
	return r
}

// goWhile asks whether there is to be another iteration, and begins it.
func (w *work) goWhile(n place, r *row) {
	var again bool
	if !w.user(n, "the condition", false, func(data any) (err error) { again, err = n.Conds[0](data); return err }) {
		return
	}
	w.chosen(n, yes(again))
	switch {
	case !again:
		w.finished(n, r)
		return
	case int64(r.Count) >= int64(n.Most) && !mutant.On("machine-loop-unbounded"):
		w.failAt(n, CodeTooMany, fmt.Sprintf("it would take more than %d iterations", n.Most))
		return
	}
	reuse := r.Base != 0 && !w.owes(body(n.Node))
	if reuse {
		w.row(r.Base) // an earlier iteration's: its executions count on
	} else {
		prev := r.Base
		if r.Base = w.block(uint64(extent(body(n.Node)))); r.Base == 0 {
			w.fail(CodeTooLarge, n, fmt.Sprintf("%q: the instance has no room for more rows", w.label(n)))
			return
		}
		defer func() { w.row(r.Base).Prev = prev }()
	}
	w.turn(n, r.Base, r.Count)
	r.Count++
	w.push(begin, n.child(r, 0))
}

// owes reports whether a step of the subtree has an undo: what it did is kept, each iteration in rows of its own.
func (w *work) owes(n *sagas.Node) bool {
	if mutant.On("machine-iterations-share-rows") {
		return false
	}
	return slices.ContainsFunc(w.plan.Nodes[n.ID:n.ID+extent(n)], func(n *sagas.Node) bool {
		return n.Step != nil && n.Step.Undo != nil && !n.Step.EffectFree
	})
}

// frame is one loop's data: what Enter made of the data around it and an element.
type frame struct {
	loop *sagas.Node
	row  *row // that begins the iteration
	data any
}

// enter gives the data that a node in loops works on.
func (w *work) enter(n place) (data any, ok bool) {
	var frames []frame
	for at := n; at.looped(); {
		r, loop, ok := w.iteration(at)
		if !ok {
			return nil, false
		}
		if loop.Kind == sagas.KindForEach {
			frames = append(frames, frame{loop: loop.Node, row: r})
		}
		at = loop
	}
	if len(frames) == 0 {
		w.inner = nil
		return w.data, true
	}
	if last := len(w.inner) - 1; last >= 0 && w.inner[last].row == frames[0].row {
		return w.inner[last].data, true
	}
	slices.Reverse(frames)
	w.inner = nil
	data = w.data
	for i := range frames {
		f := &frames[i]
		if t := try(func() (err error) { f.data, err = f.loop.Each.Enter(data, f.row.Item, int(f.row.Turn)); return err }); t != "" {
			w.fail(CodeUserFunction, n, "the data of an iteration of "+w.label(n)+": "+t)
			return nil, false
		}
		data = f.data
	}
	w.inner = frames
	return data, true
}

// leave gives the elements back to their rows after a function that may have changed them, innermost first.
func (w *work) leave(n place) bool {
	for i := len(w.inner) - 1; i >= 0; i-- {
		f := &w.inner[i]
		var item []byte
		if t := try(func() (err error) { item, err = f.loop.Each.Leave(f.data); return err }); t != "" {
			w.fail(CodeUserFunction, n, "the element of an iteration of "+w.label(n)+": "+t)
			return false
		}
		if len(item) > w.m.cfg.MaxRecord/itemShare {
			w.fail(CodeTooLarge, n, fmt.Sprintf("an element after %q takes %d bytes, at most %d", w.label(n), len(item), w.m.cfg.MaxRecord/itemShare))
			return false
		}
		if !bytes.Equal(item, f.row.Item) && !mutant.On("machine-element-forgotten") {
			f.row.Item, f.row.dirty = item, true
			w.bytes += len(item)
		}
	}
	return true
}
