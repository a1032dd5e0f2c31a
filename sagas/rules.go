package sagas

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/skald-io/skald/internal/mutant"
)

// The rules that look at a plan as a whole.

// roles checks what may stand before the pivot, and what after it. Nodes are in preorder and the pivot has
// nothing but Seqs above it, so that an earlier node is one that runs earlier.
func (c *compiler) roles() {
	var pivot *Node
	for _, n := range c.nodes {
		if n.Step == nil || n.Step.Role != Pivot {
			continue
		}
		if pivot != nil {
			c.fail(n.Source, n, "a second pivot: the first is step %q at %s", pivot.Name, pivot.Source)
			continue
		}
		pivot = n
		for p := n.Parent; p != nil; p = p.Parent {
			if p.Kind != KindSeq {
				c.fail(n.Source, n, "a pivot within the %s at %s: %s", p.Kind, p.Source, noPivotIn(p.Kind))
				break
			}
		}
	}
	for _, n := range c.nodes {
		if n.Step == nil {
			continue
		}
		after := pivot != nil && n.ID > pivot.ID
		switch {
		case n.Step.Role == Retriable && pivot == nil:
			c.fail(n.Source, n, "it is Retriable, but the plan has no pivot: a step before the pivot can fail, so give it an Undo")
		case n.Step.Role == Retriable && !after:
			c.fail(n.Source, n, "it is Retriable and stands before the pivot, step %q at %s: a step there can fail, so give it an Undo", pivot.Name, pivot.Source)
		case n.Step.Role == Compensatable && after:
			c.fail(n.Source, n, "it stands after the pivot, step %q at %s, where nothing is undone any more: make it Retriable", pivot.Name, pivot.Source)
		case n.Step.Role == Compensatable && n.Step.Undo == nil && !n.Step.EffectFree && !mutant.On("sagas-step-without-undo-accepted"):
			c.fail(n.Source, n, "it has no Undo: give it one, or mark it EffectFree if it changes nothing")
		}
	}
}

func noPivotIn(k Kind) string {
	switch k {
	case KindAll:
		return "the other branches would be neither before nor after it"
	case KindChoose:
		return "a saga that goes another way would have none, and what stands after it would not be safe"
	case KindForEach, KindWhile:
		return "it would be decided several times, or not at all"
	case KindTry:
		return "what a save-point holds may have to be undone"
	}
	return "only Seqs may stand above it"
}

// afterPivot refuses what may have to undo something, or may fail with nothing to catch it, after the pivot.
func (c *compiler) afterPivot() {
	var pivot *Node
	for _, n := range c.nodes {
		if n.Step != nil && n.Step.Role == Pivot {
			pivot = n
			break
		}
	}
	if pivot == nil || mutant.On("sagas-undo-past-the-pivot-accepted") {
		return
	}
	for _, n := range c.nodes[pivot.ID+1:] {
		where := fmt.Sprintf("it stands after the pivot, step %q at %s", pivot.Name, pivot.Source)
		switch {
		case n.Kind == KindTry && len(n.Children) > 0:
			if s := effect(n.Children[0]); s != nil {
				c.fail(n.Source, n, "%s, and may have to undo step %q at %s, which nothing can: try only what is EffectFree there", where, s.Name, s.Source)
			}
		case n.Join != JoinAll:
			if s := effect(n); s != nil {
				c.fail(n.Source, n, "%s, and may have to undo step %q at %s, which nothing can: its branches all have to be done, or be EffectFree", where, s.Name, s.Source)
			}
		case caught(n):
		case n.Kind == KindRequire:
			c.fail(n.Source, n, "%s, where nothing can be compensated any more: use a Choose, or put it into a Try", where)
		case n.Kind == KindWait && n.Wait.Within != 0:
			c.fail(n.Source, n, "%s, where a failure cannot be compensated: put a Wait with a Within into a Try", where)
		}
	}
}

// effect is the first step in n or below it that changes something.
func effect(n *Node) *Node {
	if n.Step != nil && !n.Step.EffectFree {
		return n
	}
	for _, child := range n.Children {
		if s := effect(child); s != nil {
			return s
		}
	}
	return nil
}

// caught reports whether n stands in the body of a Try, so that its failure ends there.
func caught(n *Node) bool {
	for ; n.Parent != nil; n = n.Parent {
		if n.Parent.Kind == KindTry && n.Index == 0 {
			return true
		}
	}
	return false
}

// waits checks what the Waits of a plan have to agree upon.
func (c *compiler) waits(p *Plan) {
	type first struct {
		node *Node
		spec *waitSpec
	}
	seen := map[string]first{}
	for _, n := range c.nodes {
		s := c.written[n]
		if n.Wait == nil || s == nil || s.wait.sleep || len(s.missing) > 0 {
			continue
		}
		w := s.wait
		if p.Deadline > 0 && n.Wait.Within > p.Deadline {
			c.fail(n.Source, n, "its Within of %v is longer than the saga's deadline of %v: it would never be noticed", n.Wait.Within, p.Deadline)
		}
		name := "signal " + n.Wait.Signal
		if e := n.Wait.Event; e != nil {
			name = "event " + e.Topic + " " + e.Type
		}
		f, again := seen[name]
		switch {
		case !again:
			seen[name] = first{n, w}
		case f.spec.typ != w.typ:
			c.fail(n.Source, n, "it waits for the %s as a %v, and wait %q at %s for the same as a %v", kindOf(n.Wait), w.typ, f.node.Name, f.node.Source, f.spec.typ)
		case f.spec.readers != w.readers:
			c.fail(n.Source, n, "it reads its event by other functions (KeyBy, IDBy, TypeBy) than wait %q at %s: an event is sorted by its key before anybody waits for it, so declare it once", f.node.Name, f.node.Source)
		}
	}
}

func kindOf(w *WaitPlan) string {
	if w.Event != nil {
		return "event"
	}
	return "signal " + strconv.Quote(w.Signal)
}

// loops refuses a saga whose own commands or events would start it again and again.
func (c *compiler) loops(p *Plan) {
	starts := func(topic, typ string) bool {
		return topic != "" && !mutant.On("sagas-endless-loop-accepted") && topic == p.Start.Topic && (p.Start.Type == "" || p.Start.Type == typ)
	}
	for _, n := range c.nodes {
		if n.Emit != nil && starts(n.Emit.Topic, n.Emit.Type) {
			c.fail(n.Source, n, "its event, type %q on topic %q, would start the saga again", n.Emit.Type, n.Emit.Topic)
		}
		if n.Step == nil {
			continue
		}
		if starts(n.Step.Topic, n.Step.Type) {
			c.fail(n.Source, n, "its command, type %q on topic %q, would start the saga again", n.Step.Type, n.Step.Topic)
		}
		if u := n.Step.Undo; u != nil && starts(u.Topic, u.Type) {
			c.fail(n.Source, n, "its undo, type %q on topic %q, would start the saga again", u.Type, u.Topic)
		}
	}
}

// leastTime is the least time in which a node can be done: the sum of a Seq's, of a fork what its join and its
// width allow. Whatever may be left out, or may fail and be caught, counts as nothing: a deadline that can be
// met is never refused.
func leastTime(n *Node) time.Duration {
	times := make([]time.Duration, len(n.Children))
	var sum time.Duration
	for i, child := range n.Children {
		times[i] = leastTime(child)
		if sum += times[i]; sum < 0 {
			sum = 1<<63 - 1
		}
	}
	switch n.Kind {
	case KindWait:
		return max(n.Wait.Sleep, 0)
	case KindSeq:
		return sum
	case KindAll:
		if len(times) == 0 {
			return 0
		}
		slices.Sort(times)
		switch n.Join {
		case JoinFirst:
			return times[0]
		case JoinSome:
			return times[min(max(n.Quorum, 1), len(times))-1]
		}
		if n.Width > 0 {
			return max(times[len(times)-1], sum/time.Duration(n.Width))
		}
		return times[len(times)-1]
	case KindChoose:
		if len(times) == 0 || len(n.Conds) == 0 || n.Conds[len(n.Conds)-1] != nil {
			return 0 // no case may match
		}
		return slices.Min(times)
	}
	return 0
}
