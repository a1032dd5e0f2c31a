package checker

import "github.com/skald-io/skald/sagas"

// PlanOrder reads from a plan which of its steps come before which.
func PlanOrder(p *sagas.Plan) (name string, order Order) {
	steps := map[string]*sagas.Node{}
	for _, n := range p.Nodes {
		steps[n.Name] = n
	}
	return p.Name + " " + p.Version, func(a, b string) bool {
		x, y := steps[a], steps[b]
		if x == nil || y == nil || x == y {
			return false
		}
		above := map[*sagas.Node]*sagas.Node{} // ancestor → the child of it that leads to a
		for n := x; n.Parent != nil; n = n.Parent {
			above[n.Parent] = n
		}
		for n := y; n.Parent != nil; n = n.Parent {
			if via, ok := above[n.Parent]; ok {
				return n.Parent.Kind == sagas.KindSeq && via.Index < n.Index
			}
		}
		return false
	}
}
