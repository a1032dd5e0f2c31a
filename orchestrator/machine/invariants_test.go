package machine

import (
	"maps"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// tree reads the rows of an instance as a tree of places, for tests that hold it against the plan.
type tree struct {
	*work
	rows []uint32 // of nodes, by number
}

func (w *world) tree() *tree {
	t := &tree{work: &work{m: w.m, v: still(maps.Clone(w.rows)), id: w.id, plan: w.plan, head: w.head()}}
	for _, ref := range w.nodeRefs() {
		t.rows = append(t.rows, uint32(ref.N))
	}
	return t
}

// still is a View of rows that nobody counts.
type still map[events.RowRef]cell

func (v still) Row(_ events.InstanceID, ref events.RowRef) ([]byte, int64, bool) {
	c, ok := v[ref]
	return c.value, c.due, ok
}

// at is the place of a row.
func (t *tree) at(row uint32) place {
	n, ok := t.placeOf(t.row(row))
	if !ok {
		panic("a row without a place")
	}
	return n
}

// path lists a place's parents from the root, and the place itself.
func (t *tree) path(n place) []place {
	up := []place{n}
	for p, ok := t.parent(n); ok; p, ok = t.parent(p) {
		up = append(up, p)
	}
	slices.Reverse(up)
	return up
}

// before reports whether a happens before b, by the plan and the order of iterations.
func (t *tree) before(a, b place) bool {
	x, y := t.path(a), t.path(b)
	i := 0
	for i < len(x) && i < len(y) && x[i] == y[i] {
		i++
	}
	if i == 0 || i >= len(x) || i >= len(y) {
		return false
	}
	switch p := x[i-1]; p.Kind {
	case sagas.KindSeq, sagas.KindTry, sagas.KindWhile:
		return t.turnOf(x[i]) < t.turnOf(y[i])
	case sagas.KindForEach:
		return p.Width == 1 && t.turnOf(x[i]) < t.turnOf(y[i])
	}
	return false
}

// children lists the places of what was begun under a node.
func (t *tree) children(n place) (all []place) {
	r := t.row(n.row)
	switch n.Kind {
	case sagas.KindWhile:
		for at := r.Base; at != 0; at = t.row(at).Prev {
			all = append(all, place{body(n.Node), at})
		}
		return all
	case sagas.KindForEach:
		for i := range r.Count {
			all = append(all, n.child(r, i))
		}
		return all
	}
	for i := range n.Children {
		all = append(all, n.child(r, uint32(i)))
	}
	return all
}

func (t *tree) status(n place) events.NodeStatus { return t.row(n.row).Status }

// goingBack reports whether a node above is undone, or leaves out what is open of it.
func (t *tree) goingBack(n place) bool {
	return slices.ContainsFunc(t.path(n)[:len(t.path(n))-1], func(p place) bool {
		s := t.status(p)
		return s == events.NodeUndoing || s == events.NodeUndone || s == events.NodeClosing
	})
}

// unfinished says what keeps a node from being done, by all that stands under it; "" when it is.
func (t *tree) unfinished(n place) string {
	if n.rowless() {
		return ""
	}
	r := t.row(n.row)
	if r.Status != events.NodeDone {
		return t.label(n) + " is " + r.Status.String()
	}
	switch n.Kind {
	case sagas.KindChoose:
		if int(r.Index) == len(n.Children) {
			return ""
		}
		return t.unfinished(n.child(r, r.Index))
	case sagas.KindTry:
		if r.Index == tryBody {
			return t.unfinished(n.child(r, 0))
		}
		if r.Index != tryElse {
			return t.label(n) + " is done half-way"
		}
		if why := t.owing(n.child(r, 0)); why != "" || len(n.Children) < 2 {
			return why
		}
		return t.unfinished(n.child(r, 1))
	case sagas.KindAll, sagas.KindForEach:
		if n.Join != sagas.JoinAll {
			return t.joined(n, r)
		}
	}
	for _, c := range t.children(n) {
		if why := t.unfinished(c); why != "" {
			return why
		}
	}
	return ""
}

// joined is unfinished of a fork that can be done without some of its children.
func (t *tree) joined(n place, r *row) string {
	done := uint32(0)
	for _, c := range t.children(n)[:r.Index] { // those that were begun
		if c.rowless() {
			continue
		}
		if t.status(c) == events.NodeDone {
			done++
			if why := t.unfinished(c); why != "" {
				return why
			}
		} else if why := t.owing(c); why != "" {
			return why
		}
	}
	if len(t.children(n)) > 0 && r.Done < quorum(n, r) || done > r.Done {
		return t.label(n) + " is done by too few"
	}
	if n.Join == sagas.JoinFirst && r.Done > 1 {
		return t.label(n) + " is done by more than the first"
	}
	return ""
}

// owing says what of a node may still have an effect; "" when nothing does.
func (t *tree) owing(n place) string {
	for _, id := range t.rows {
		c := t.at(id)
		if c.Kind != sagas.KindStep || !slices.Contains(t.path(c), n) {
			continue
		}
		if r := t.row(id); r.Undo != nil || r.Status == events.NodeActive || r.Status == events.NodeDone && !c.Step.EffectFree && !t.stale(c) {
			return t.label(c) + " is " + r.Status.String()
		}
	}
	return ""
}

// stale reports whether a row may be left from an earlier iteration that had the same rows.
func (t *tree) stale(n place) bool {
	for _, p := range t.path(n) {
		if p.Kind == sagas.KindWhile && !t.owes(body(p.Node)) {
			return true
		}
	}
	return false
}
