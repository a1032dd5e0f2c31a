package checker

import (
	"strconv"
	"strings"

	"github.com/skald-io/skald/sagas"
)

// shape is a plan as the checker reads it: which steps come before which, and what may go back on its own.
type shape struct {
	plan *sagas.Plan
	at   map[string]*sagas.Node
}

func shapeOf(p *sagas.Plan) *shape {
	s := &shape{p, map[string]*sagas.Node{}}
	for _, n := range p.Nodes {
		s.at[n.Name] = n
	}
	return s
}

// PlanName is how Options.Plans names a plan.
func PlanName(p *sagas.Plan) string { return p.Name + " " + p.Version }

// spot is a node in one iteration of each loop around it, as a label says it: pick[2][0].
type spot struct {
	node  *sagas.Node
	turns []int
}

// spot reads a label. ok is false for one that no node of the plan can have.
func (s *shape) spot(label string) (p spot, ok bool) {
	name, rest, _ := strings.Cut(label, "[")
	if p.node = s.at[name]; p.node == nil {
		return p, false
	}
	for rest != "" {
		var digits string
		if digits, rest, ok = strings.Cut(rest, "]"); !ok {
			return p, false
		}
		n, err := strconv.Atoi(digits)
		if err != nil || rest != "" && !strings.HasPrefix(rest, "[") {
			return p, false
		}
		p.turns, rest = append(p.turns, n), strings.TrimPrefix(rest, "[")
	}
	around := 0
	for n := p.node.Parent; n != nil; n = n.Parent {
		around += b2n(loop(n))
	}
	return p, around == len(p.turns)
}

func loop(n *sagas.Node) bool { return n.Kind == sagas.KindForEach || n.Kind == sagas.KindWhile }

func fork(n *sagas.Node) bool { return n.Kind == sagas.KindForEach || n.Kind == sagas.KindAll }

func b2n(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fromRoot are the nodes from the root down to n.
func fromRoot(n *sagas.Node) []*sagas.Node {
	if n == nil {
		return nil
	}
	return append(fromRoot(n.Parent), n)
}

// before says whether the step of label a comes before that of b: b is not begun before a has ended, and a is not
// undone before b is. Between them may be something that goes on without a: the body of a save-point, or a branch of
// a fork that needs not all of them. Then a need not be done, only settled.
func (s *shape) before(a, b string) (before, without bool) {
	x, okx := s.spot(a)
	y, oky := s.spot(b)
	if !okx || !oky {
		return false, false
	}
	xs, ys := fromRoot(x.node), fromRoot(y.node)
	turn := 0
	for i := 0; i+1 < len(xs) && i+1 < len(ys) && xs[i] == ys[i]; i++ {
		n, down, other := xs[i], xs[i+1], ys[i+1]
		without := func() bool { return dispensable(xs[i:]) }
		if loop(n) {
			if p, q := x.turns[turn], y.turns[turn]; p != q {
				return p < q && (n.Kind == sagas.KindWhile || n.Width == 1), without()
			}
			turn++
		}
		if down != other {
			return (n.Kind == sagas.KindSeq || n.Kind == sagas.KindTry) && down.Index < other.Index, without()
		}
	}
	return false, false
}

// dispensable reports whether the first node of a path downwards can be done although the last is not: it, or one
// on the way, goes on without.
func dispensable(path []*sagas.Node) bool {
	for i := 0; i+1 < len(path); i++ {
		if path[i].Kind == sagas.KindTry && path[i+1].Index == 0 || fork(path[i]) && path[i].Join != sagas.JoinAll {
			return true
		}
	}
	return false
}

// optional reports whether the saga can complete without the step of that label.
func (s *shape) optional(label string) bool {
	p, ok := s.spot(label)
	return ok && dispensable(fromRoot(p.node))
}

// mayGoBack reports whether a node of a running instance can be undone on its own: the body of a save-point, a
// branch of a fork that needs not all, or such a fork, of which then what is open is undone.
func mayGoBack(n *sagas.Node) bool {
	p := n.Parent
	return p != nil && (p.Kind == sagas.KindTry && n.Index == 0 || fork(p) && p.Join != sagas.JoinAll) || fork(n) && n.Join != sagas.JoinAll
}
