package machine

import (
	"math"
	"slices"
	"strconv"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// A place is a node of the plan at work: which node, and the number of its row. For the plan's own nodes the
// two numbers are one. The body of a loop works in many places: each iteration has a block of rows of its
// own, numbered from beyond the plan's nodes, in the order of the plan's numbers. The block's first row, that
// of the body itself, always exists, and names the iteration (Turn), the loop's row (Up) and the element.
//
// Everything that walks goes by places, never by the plan's nodes alone.
type place struct {
	*sagas.Node // nil where the definition is not known here
	row         uint32
}

// looped reports whether the place is in an iteration of a loop.
func (n place) looped() bool { return n.row != n.ID }

func loops(n *sagas.Node) bool { return n.Kind == sagas.KindForEach || n.Kind == sagas.KindWhile }

// turns reports whether the place is the body of a loop: the first of its block.
func (n place) turns() bool { return n.looped() && n.Parent != nil && loops(n.Parent) }

// instant reports whether a node ends as it begins.
func instant(n *sagas.Node) bool {
	return n.Kind == sagas.KindDo || n.Kind == sagas.KindEmit || n.Kind == sagas.KindRequire
}

// rowless reports whether the node works without a row.
func (n place) rowless() bool { return instant(n.Node) && !n.turns() }

func own(n *sagas.Node) place { return place{n, n.ID} }

// extent is how many nodes the subtree of n has.
func extent(n *sagas.Node) uint32 {
	last := n
	for len(last.Children) > 0 {
		last = last.Children[len(last.Children)-1]
	}
	return last.ID - n.ID + 1
}

// body is the node that a loop repeats.
func body(loop *sagas.Node) *sagas.Node { return loop.Children[0] }

// child is the place of a node's child; of a ForEach, the i-th iteration's; of a While, the latest's.
func (n place) child(r *row, i uint32) place {
	switch n.Kind {
	case sagas.KindForEach:
		return place{body(n.Node), r.Base + i*extent(body(n.Node))}
	case sagas.KindWhile:
		return place{body(n.Node), r.Base}
	}
	c := n.Children[i]
	return place{c, n.row + c.ID - n.ID}
}

// parent is the place above n; ok is false at the root, and when rows are missing, which is corruption.
func (w *work) parent(n place) (p place, ok bool) {
	switch {
	case n.Parent == nil:
		return place{}, false
	case !n.looped():
		return own(n.Parent), true
	case !n.turns():
		return place{n.Parent, n.row - (n.ID - n.Parent.ID)}, true
	}
	return w.loopOf(n.Parent, w.row(n.row))
}

// loopOf is the place of the loop whose iteration begins with row r.
func (w *work) loopOf(loop *sagas.Node, r *row) (p place, ok bool) {
	p = place{loop, r.Up}
	if r.Plan != body(loop).ID+1 || r.Up >= r.id || p.looped() && w.row(r.Up).Plan != loop.ID+1 {
		w.corrupt = true
		return place{}, false
	}
	return p, true
}

// iteration is the row that begins the iteration which n is in, and the place of its loop; ok is false when
// n is in none.
func (w *work) iteration(n place) (r *row, loop place, ok bool) {
	if !n.looped() {
		return nil, place{}, false
	}
	b := n.Node
	for b.Parent != nil && !loops(b.Parent) {
		b = b.Parent
	}
	if b.Parent == nil {
		w.corrupt = true // a number that only loops give, and no loop above
		return nil, place{}, false
	}
	r = w.row(n.row - (n.ID - b.ID))
	loop, ok = w.loopOf(b.Parent, r)
	return r, loop, ok
}

// placeOf is where a row works. ok is false when there is no such node, or no such row.
func (w *work) placeOf(r *row) (n place, ok bool) {
	switch {
	case w.plan == nil:
		return place{nil, r.id}, true
	case int64(r.id) < int64(len(w.plan.Nodes)):
		return own(w.plan.Nodes[r.id]), true
	case r.Plan == 0 || int64(r.Plan) > int64(len(w.plan.Nodes)):
		return place{nil, r.id}, false
	}
	return place{w.plan.Nodes[r.Plan-1], r.id}, true
}

// label is a node's name in this instance: NAME, and in loops the numbers of the iterations, NAME[2][0].
// It names the effect to participants, so no two iterations share one.
func (w *work) label(n place) string {
	if n.Node == nil {
		return ""
	}
	name := n.Name
	if !n.looped() || mutant.On("machine-iterations-share-names") {
		return name
	}
	var turns []uint32
	for at := n; ; {
		r, loop, ok := w.iteration(at)
		if !ok {
			break
		}
		turns, at = append(turns, r.Turn), loop
	}
	for _, t := range slices.Backward(turns) {
		name += "[" + strconv.FormatUint(uint64(t), 10) + "]"
	}
	return name
}

// standing is the place itself, or the nearest above it that has a row also when this decision is dropped: what a loop
// was about to begin is gone with it.
func (w *work) standing(n place) place {
	for n.Node != nil && n.looped() && !w.corrupt && !w.row(n.row).stored {
		p, ok := w.parent(n)
		if !ok {
			break
		}
		n = p
	}
	return n
}

// maxRow is the highest number of a row: lists name rows by their number and a bit more.
const maxRow = math.MaxUint32 - 2

// block takes rows for iterations; 0: there are no more numbers.
func (w *work) block(rows uint64) uint32 {
	first := max(w.head.NextNode, uint32(len(w.plan.Nodes)))
	if rows > maxRow-uint64(first) {
		return 0
	}
	w.head.NextNode = first + uint32(rows)
	return first
}

// fresh gives the row of a node that is begun now, as new. In a loop there may be one of an earlier iteration, and
// after a save-point one of what was undone: its execution must not come again. Elsewhere no row of it exists, unless
// it was touched before.
func (w *work) fresh(n place) *row {
	if !n.looped() && !w.head.Partial {
		if r := w.touched(n.row); r != nil {
			r.renew()
			return r
		}
		return w.add(n.row, &events.NodeState{}, 0)
	}
	r := w.row(n.row)
	r.renew()
	if n.looped() && !n.turns() {
		r.Plan, r.Up = n.ID+1, n.row-(n.ID-n.Parent.ID)
	}
	return r
}

// renew clears a row but for what places it: its iteration, the lists it is in, and its executions so far.
func (r *row) renew() {
	s := r.NodeState
	if mutant.On("machine-execution-comes-again") {
		s.Execution = 0
	}
	*s = events.NodeState{Execution: s.Execution, NextHeld: s.NextHeld, NextWait: s.NextWait,
		Plan: s.Plan, Up: s.Up, Turn: s.Turn, Item: s.Item, Prev: s.Prev}
	r.set(0)
}

// turnOf is which of its parent's children a node is.
func (w *work) turnOf(n place) uint32 {
	if n.turns() {
		return w.row(n.row).Turn
	}
	return uint32(n.Index)
}
