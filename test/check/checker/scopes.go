package checker

import (
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// row is what the checker keeps of a node's row: where it stands, and whether it goes back.
type row struct {
	plan, up uint32
	status   events.NodeStatus
}

func (r row) back() bool {
	return r.status == events.NodeUndoing || r.status == events.NodeUndone || r.status == events.NodeClosing
}

// above are the rows over a node's row, from the nearest to the root. Rows of loops say what they stand under, the
// others have their place in the plan.
func (i *instance) above(s *shape, n uint32) []uint32 {
	var out []uint32
	for len(out) < 1000 {
		if r, ok := i.rows[n]; ok && r.plan != 0 {
			n = r.up
		} else if int(n) < len(s.plan.Nodes) && s.plan.Nodes[n].Parent != nil {
			n = s.plan.Nodes[n].Parent.ID
		} else {
			break
		}
		out = append(out, n)
	}
	return out
}

// nodeOf is the plan's node that a row is of; nil for a row that stands nowhere.
func (i *instance) nodeOf(s *shape, n uint32) *sagas.Node {
	if r, ok := i.rows[n]; ok && r.plan != 0 {
		n = r.plan - 1
	}
	if int(n) >= len(s.plan.Nodes) {
		return nil
	}
	return s.plan.Nodes[n]
}

// scopes takes in what a decision says of scopes that go back on their own, and the rows of nodes as they are after
// it. before are the rows that went back already.
func (c *check) scopes(a *accepted, inst *instance, nodes map[uint32]*events.NodeState) (before map[uint32]bool) {
	before = map[uint32]bool{}
	for n, r := range inst.rows {
		if r.back() {
			before[n] = true
		}
	}
	for i := range a.rec.Decision.Rows {
		if r := &a.rec.Decision.Rows[i]; r.Gone && r.Ref.Part == events.PartNode {
			delete(inst.rows, uint32(r.Ref.N))
		}
	}
	for n, s := range nodes {
		if s != nil {
			inst.rows[n] = row{s.Plan, s.Up, s.Status}
		}
	}
	s := c.shapes[inst.plan]
	acted := a.rec.Decision.Input.Kind == events.InputAction
	for i := range a.rec.Decision.Entries {
		e := &a.rec.Decision.Entries[i]
		if e.Kind != events.EntryScope {
			continue
		}
		inst.scopes[e.Node] = true
		c.report.Scopes++
		if s == nil {
			continue
		}
		n := inst.nodeOf(s, e.Node)
		switch {
		case n == nil:
			a.at(c, RuleScope, e.Step, "row %d goes back, and stands nowhere in the plan", e.Node)
		case acted && n.Kind == sagas.KindTry: // back to a save-point: what came after it in its Seq goes with it
			inst.back = true
			if up := inst.above(s, e.Node); len(up) > 0 {
				inst.scopes[up[0]] = true
			}
		case !mayGoBack(n) && !acted:
			a.at(c, RuleScope, e.Step, "it goes back on its own: it is neither the body of a save-point nor in a fork that goes on without it")
		}
	}
	return before
}

// wayForward: no forward command is decided under what goes back (G6).
func (c *check) wayForward(a *accepted, inst *instance, e *events.Emit, before map[uint32]bool) {
	s := c.shapes[inst.plan]
	if s == nil {
		return
	}
	entries := a.rec.Decision.Entries
	command := slices.IndexFunc(entries, func(x events.Entry) bool {
		return x.Kind == events.EntryCommand && x.Node == e.Node && x.Phase != events.Compensate && x.Attempt == e.Attempt
	})
	for _, up := range inst.above(s, e.Node) {
		if !inst.rows[up].back() {
			continue
		}
		turned := slices.IndexFunc(entries, func(x events.Entry) bool { return x.Kind == events.EntryScope && x.Node == up })
		if before[up] || turned >= 0 && turned < command {
			a.at(c, RuleForwardInUndo, e.Step, "a forward command is decided under row %d, which is %s", up, inst.rows[up].status)
			return
		}
	}
}

// wayBack: a running instance undoes only in scopes that go back.
func (c *check) wayBack(a *accepted, inst *instance, head *events.Head, e *events.Emit) {
	s := c.shapes[inst.plan]
	ok := head.Partial && s == nil || inst.scopes[e.Node]
	if s != nil && !ok {
		ok = slices.ContainsFunc(inst.above(s, e.Node), func(up uint32) bool { return inst.scopes[up] })
	}
	if !ok {
		a.at(c, RuleUndoInForward, e.Step, "an undo is decided while the instance is %s, in no scope that goes back", head.State)
	}
}

// settled reports whether an execution is done and stays so, or nothing of it is left to undo.
func (c *check) settled(inst *instance, t try, x *execution) bool {
	return !x.done.none() && x.undoing.none() || !x.owes() || !c.owing(inst, t)
}

// labelled: a command is called after the place in the plan that its row has.
func (c *check) labelled(a *accepted, inst *instance, e *events.Emit) {
	c.report.Turns += b2n(strings.Contains(e.Step, "["))
	s := c.shapes[inst.plan]
	if s == nil {
		return
	}
	n, p, ok := inst.nodeOf(s, e.Node), spot{}, false
	if p, ok = s.spot(e.Step); !ok || n != p.node {
		a.at(c, RuleCommandRecord, e.Step, "row %d is of another node of the plan, or in other loops, than its name says", e.Node)
	}
}
