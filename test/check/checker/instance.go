package checker

import (
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
)

// moment orders what one instance's journal says: by record, and by entry within one.
type moment struct {
	seq uint64
	n   int
}

func (m moment) none() bool { return m.seq == 0 }

// instance is what the journal says of a saga instance.
type instance struct {
	id      events.InstanceID
	shard   int32
	partial bool // its beginning is not known
	plan    string

	state        events.State
	pivot        events.PivotState
	compensating uint64 // sequence of the first record that says so
	final        uint64
	last         accepted // the last decision about it
	purged       bool
	started      int
	entity       bool            // it is no saga instance: a correlation, or a business key
	touched      map[string]bool // steps that an operator resolved or skipped: what they did is what the operator says
	pastPivot    bool            // an operator had it compensate although the pivot was decided
	rows         map[uint32]row  // of nodes
	scopes       map[uint32]bool // rows that went back on their own
	offers       map[string]bool // ids of events that were offered to it
	back         bool            // an operator sent it back to a save-point

	refs     map[events.RowRef]bool
	refusals map[events.RowRef]bool
	tries    map[try]*execution
	nodes    map[uint32]uint32 // node → its newest execution
	opened   map[uint32]bool
	causes   map[uint32][]uint32 // node → nodes that were finished by the very decision that opened it
}

// try names one execution of a step.
type try struct{ node, execution uint32 }

// execution is one try of a step's effect.
type execution struct {
	step       string
	commanded  moment // the first forward command
	attempts   uint32
	rejected   map[uint32]bool
	done       moment
	undoing    moment // the first undo command
	undos      uint32
	undone     moment // its undo was decided done
	discharged moment
}

// owes reports whether an effect is still possible.
func (x *execution) owes() bool {
	return !x.commanded.none() && x.undone.none() && x.discharged.none() && len(x.rejected) < int(x.attempts)
}

func (c *check) instance(id events.InstanceID, shard int32) *instance {
	inst := c.instances[id]
	if inst == nil {
		inst = &instance{id: id, shard: shard, refs: map[events.RowRef]bool{}, refusals: map[events.RowRef]bool{},
			touched: map[string]bool{}, rows: map[uint32]row{}, scopes: map[uint32]bool{}, offers: map[string]bool{},
			tries: map[try]*execution{}, nodes: map[uint32]uint32{}, opened: map[uint32]bool{}, causes: map[uint32][]uint32{}}
		c.instances[id] = inst
	}
	return inst
}

func (i *instance) head(h *events.Head, seq uint64) {
	i.plan, i.state, i.pivot = h.Definition+" "+h.Version, h.State, h.Pivot
	if h.State == events.Compensating && i.compensating == 0 {
		i.compensating = seq
	}
	if h.State.Final() && i.final == 0 {
		i.final = seq
	}
}

func (i *instance) try(node, exec uint32, step string) *execution {
	if exec == 0 {
		exec = max(i.nodes[node], 1)
	}
	i.nodes[node] = max(i.nodes[node], exec)
	t := try{node, exec}
	x := i.tries[t]
	if x == nil {
		x = &execution{step: step, rejected: map[uint32]bool{}}
		i.tries[t] = x
	}
	return x
}

// entityRow reports whether a row's part belongs to a correlation or a business key.
func entityRow(p events.Part) bool {
	return p == events.PartCorrelation || p == events.PartEvent || p == events.PartKey
}

// changes reports whether a decision leaves anything behind.
func changes(d *events.Decision) bool {
	return d.Purge || len(d.Rows) > 0 || len(d.Emits) > 0 || len(d.Entries) > 0
}

// onInstance takes in a decision about an instance and holds it against what was decided before.
func (c *check) onInstance(a *accepted, rs rows, whole bool) {
	d := a.rec.Decision
	known := c.instances[d.Instance] != nil
	if !known && !changes(d) {
		return // a reply to an instance that is not there any more
	}
	inst := c.instance(d.Instance, a.shard)
	if !known && !whole {
		inst.partial = true
	}
	if inst.shard != a.shard {
		a.at(c, RuleWrongInput, "", "shard %d decides for an instance of shard %d", a.shard, inst.shard)
	}
	var head *events.Head
	nodes := map[uint32]*events.NodeState{}
	rewritten := map[events.RowRef]int64{}
	for i := range d.Rows {
		r := &d.Rows[i]
		if d.Whose(r) != d.Instance {
			continue
		}
		inst.entity = inst.entity || entityRow(r.Ref.Part)
		rewritten[r.Ref] = r.Due
		if r.Gone {
			continue
		}
		var err error
		switch r.Ref.Part {
		case events.PartHead:
			head, err = events.DecodeHead(r.Value)
		case events.PartNode:
			nodes[uint32(r.Ref.N)], err = events.DecodeNode(r.Value)
		}
		if err != nil {
			a.at(c, RuleCommandRecord, "", "row %s %d: %v", r.Ref.Part, r.Ref.N, err)
		}
	}
	c.timer(a, inst, rs, rewritten, whole)
	if inst.entity {
		return // it has no states, and comes again after its purge
	}
	// An action that an ended instance refuses is written down with its answer, and so is what it makes of its key. An
	// event that is offered to it is refused.
	answers := (d.Input.Kind == events.InputAction || d.Input.Kind == events.InputMessage && !slices.ContainsFunc(d.Emits, func(e events.Emit) bool { return e.Kind != events.EmitMessage })) &&
		len(nodes) == 0 && (head == nil || head.State == inst.state) || onlyAnswers(d)
	// What a terminated instance left behind, timers and registrations, ends in decisions of its own.
	leaves := inst.state == events.Terminated && d.Input.Kind == events.InputTimer && !d.Purge && (head == nil || head.State == inst.state) &&
		!slices.ContainsFunc(d.Emits, func(e events.Emit) bool { return e.Kind != events.EmitMessage })
	if d.Input.Kind == events.InputRefused && len(d.Emits)+len(nodes) == 0 && (head == nil || head.State == inst.state) {
		leaves = true // its history says that an event was refused
	}
	if inst.final != 0 && changes(d) && !answers && !leaves && !(d.Purge && len(rewritten) == 0 && len(d.Emits) == 0) {
		a.at(c, RuleFinalAbsorbs, "", "it changes an instance that became %s at sequence %d", inst.state, inst.final)
	}
	if inst.purged && changes(d) && !answers {
		a.at(c, RuleFinalAbsorbs, "", "it changes an instance that was purged")
	}
	if d.Purge {
		if inst.final == 0 && !inst.partial {
			a.at(c, RuleFinalAbsorbs, "", "it purges an instance that is %s", inst.state)
		}
		inst.purged = true
	}
	was := inst.state
	if head != nil {
		if inst.compensating != 0 && head.State == events.Running {
			a.at(c, RuleForwardInUndo, "", "it says running after sequence %d began to compensate", inst.compensating)
		}
		inst.head(head, a.rec.Seq)
	}
	c.businessKey(a, inst, head, whole)
	inst.last = *a
	back := c.scopes(a, inst, nodes)
	c.entries(a, inst)
	c.causes(a, inst, nodes)
	c.emits(a, inst, head, nodes, was, back)
}

// onlyAnswers reports whether a decision does nothing but forget what operators were answered.
func onlyAnswers(d *events.Decision) bool {
	return len(d.Emits)+len(d.Entries) == 0 && !d.Purge && !slices.ContainsFunc(d.Rows, func(r events.RowChange) bool { return r.Ref.Part != events.PartAnswer })
}

// timer holds a timer's decision against the row it belongs to.
func (c *check) timer(a *accepted, inst *instance, rs rows, rewritten map[events.RowRef]int64, whole bool) {
	d := a.rec.Decision
	in := &d.Input
	if in.Kind == events.InputRefused {
		inst.refusals[in.Row] = true
	}
	if in.Kind != events.InputTimer {
		return
	}
	if a.rec.Time < in.Due {
		a.at(c, RuleTimerEarly, "", "the timer of row %s %d is due at %s, and the record's time is %s", in.Row.Part, in.Row.N, events.Timestamp(in.Due), events.Timestamp(a.rec.Time))
	}
	im, known := rs[string(events.RowKey(d.Instance, in.Row))]
	switch {
	case known && im.due != in.Due:
		a.at(c, RuleTimerTwice, "", "the timer of row %s %d fires for %d, but since sequence %d it is due at %d", in.Row.Part, in.Row.N, in.Due, im.after, im.due)
	case !known && whole:
		a.at(c, RuleTimerTwice, "", "a timer fires for row %s %d, which is not there", in.Row.Part, in.Row.N)
	}
	if _, ok := rewritten[in.Row]; !ok && !d.Purge {
		a.at(c, RuleTimerTwice, "", "the timer of row %s %d stays set", in.Row.Part, in.Row.N)
	}
}

// entries notes the facts.
func (c *check) entries(a *accepted, inst *instance) {
	d := a.rec.Decision
	for n := range d.Entries {
		e := &d.Entries[n]
		at := moment{a.rec.Seq, n}
		switch e.Kind {
		case events.EntryAction:
			switch events.ActionKind(e.Code) {
			case events.ActionResolve, events.ActionSkip:
				inst.touched[e.Step] = true
			case events.ActionCompensate:
				inst.pastPivot = inst.pastPivot || inst.pivot != events.PivotAhead
			}
		case events.EntryStarted:
			inst.started++
			inst.partial = false
			if inst.started > 1 {
				a.at(c, RuleDecidedTwice, "", "the instance starts again")
			}
		case events.EntryCommand:
			x := inst.try(e.Node, e.Execution, e.Step)
			if e.Phase == events.Compensate {
				x.undos = max(x.undos, e.Attempt)
				if x.undoing.none() {
					x.undoing = at
					c.undoBegins(a, inst, x, e.Node)
				}
				continue
			}
			x.attempts = max(x.attempts, e.Attempt)
			if x.commanded.none() {
				x.commanded = at
				c.stepBegins(a, inst, x, e.Node)
			}
			if !x.undoing.none() {
				a.at(c, RuleForwardInUndo, e.Step, "a forward command after the undo of sequence %d", x.undoing.seq)
			}
		case events.EntryDone:
			x := inst.tries[try{e.Node, orNewest(e.Execution, inst.nodes[e.Node])}]
			if x == nil {
				continue // of a Do or a Wait, or begun before what is known
			}
			if e.Phase == events.Compensate {
				x.undone = at
			} else if x.done.none() {
				x.done = at
			}
			c.founded(a, inst, e, x)
		case events.EntryRejected:
			if x := inst.tries[try{e.Node, orNewest(e.Execution, inst.nodes[e.Node])}]; x != nil && e.Phase != events.Compensate {
				x.rejected[e.Attempt] = true
			}
		case events.EntryLate:
			x := inst.tries[try{e.Node, orNewest(e.Execution, inst.nodes[e.Node])}]
			if x == nil || e.Phase == events.Compensate {
				continue
			}
			if e.Code == events.ReplyRejected.String() {
				x.rejected[e.Attempt] = true
			}
		case events.EntryDischarged:
			if x := inst.tries[try{e.Node, orNewest(e.Execution, inst.nodes[e.Node])}]; x != nil {
				x.discharged = at
			}
		}
	}
}

func orNewest(execution, newest uint32) uint32 {
	if execution == 0 {
		return max(newest, 1)
	}
	return execution
}

// founded asks for the reply that a done rests on.
func (c *check) founded(a *accepted, inst *instance, e *events.Entry, x *execution) {
	if !c.complete || inst.touched[e.Step] || inst.touched[""] {
		return
	}
	n := x.attempts
	if e.Phase == events.Compensate {
		n = x.undos
	}
	for attempt := uint32(1); attempt <= n; attempt++ {
		for _, o := range c.replies[events.CommandID{Instance: inst.id, Node: e.Node, Execution: orNewest(e.Execution, inst.nodes[e.Node]), Attempt: attempt, Phase: orForward(e.Phase)}] {
			if o == events.ReplyDone {
				return
			}
		}
	}
	a.at(c, RuleUnfounded, e.Step, "%s is decided done, and no participant said so", orForward(e.Phase))
}

func orForward(p events.Phase) events.Phase {
	if p == events.Compensate {
		return p
	}
	return events.Forward
}

// causes notes which nodes a decision opens because others are finished in it.
func (c *check) causes(a *accepted, inst *instance, nodes map[uint32]*events.NodeState) {
	d := a.rec.Decision
	var done []uint32
	for i := range d.Entries {
		if e := &d.Entries[i]; e.Kind == events.EntryDone && e.Phase != events.Compensate {
			done = append(done, e.Node)
		}
	}
	if d.Input.Kind == events.InputTimer && d.Input.Row.Part == events.PartNode {
		done = append(done, uint32(d.Input.Row.N)) // a fan-out that goes on
	}
	for n, s := range nodes {
		if s == nil || s.Status != events.NodeActive || inst.opened[n] {
			continue
		}
		inst.opened[n] = true
		for _, by := range done {
			if by != n {
				inst.causes[n] = append(inst.causes[n], by)
			}
		}
	}
}

// precedes reports whether step a was finished before step b could begin, as far as it can be known.
func (c *check) precedes(inst *instance, a try, b try, ax, bx *execution) bool {
	if s := c.shapes[inst.plan]; s != nil {
		before, _ := s.before(ax.step, bx.step)
		return before
	}
	// A turn of a loop may have begun because another ended, of those that run side by side.
	if _, turn, _ := strings.Cut(ax.step, "["); turn != "" {
		if _, other, _ := strings.Cut(bx.step, "["); other != "" && other != turn {
			return false
		}
	}
	seen := map[uint32]bool{}
	todo := []uint32{b.node}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		for _, by := range inst.causes[n] {
			if by == a.node {
				return true
			}
			todo = append(todo, by)
		}
	}
	return false
}

// stepBegins: by its plan, what comes before a step is done when it begins.
func (c *check) stepBegins(a *accepted, inst *instance, x *execution, node uint32) {
	s := c.shapes[inst.plan]
	if s == nil || inst.partial {
		return
	}
	for t, y := range inst.tries {
		if t.node == node && y.step == x.step || y.commanded.none() || y == x || inst.touched[y.step] || inst.touched[""] {
			continue
		}
		if before, without := s.before(y.step, x.step); before && (without && !c.settled(inst, t, y) || !without && y.done.none()) {
			a.at(c, RuleForwardOrder, x.step, "it begins before step %s is done", y.step)
		}
		// Back at a save-point, what came after it is begun anew once it is undone.
		if before, _ := s.before(x.step, y.step); before && !(len(inst.scopes) > 0 && (!y.owes() || !c.owing(inst, t))) {
			a.at(c, RuleForwardOrder, x.step, "it begins after step %s, which it comes before", y.step)
		}
	}
}

// undoBegins: whatever came after the step, and may have had an effect, is undone before (G4).
func (c *check) undoBegins(a *accepted, inst *instance, x *execution, node uint32) {
	for t, y := range inst.tries {
		if y == x || t.node == node && y.step == x.step || !y.owes() || y.undos == 0 && !c.owing(inst, t) {
			continue
		}
		if c.precedes(inst, try{node, inst.nodes[node]}, t, x, y) {
			a.at(c, RuleUndoOrder, x.step, "its undo begins before step %s, which came after it, is undone", y.step)
		}
	}
}

// owing reports whether the execution had an undo to owe, as its command's record said. A step without effect
// owes none.
func (c *check) owing(inst *instance, t try) bool {
	for attempt := uint32(1); attempt <= inst.tries[t].attempts; attempt++ {
		id := events.CommandID{Instance: inst.id, Node: t.node, Execution: t.execution, Attempt: attempt, Phase: events.Forward}
		if d := c.commands[id.Text(c.e.App)]; d != nil {
			return d.obliged
		}
	}
	return false
}

// emits takes in the commands that a decision issues.
func (c *check) emits(a *accepted, inst *instance, head *events.Head, nodes map[uint32]*events.NodeState, was events.State, back map[uint32]bool) {
	d := a.rec.Decision
	for i := range d.Emits {
		e := &d.Emits[i]
		if e.Kind != events.EmitCommand {
			continue
		}
		if head == nil {
			a.at(c, RuleCommandRecord, e.Step, "it emits a command without the instance's head: the key is not in the record")
			continue
		}
		n := nodes[e.Node]
		if n == nil {
			a.at(c, RuleCommandRecord, e.Step, "it emits a command without its step's row: the payload is not in the record")
			continue
		}
		x := &command{accepted: *a, emit: e, key: head.Key, payload: n.Payload, obliged: n.Undo != nil,
			id: events.CommandID{Instance: inst.id, Node: e.Node, Execution: e.Execution, Attempt: e.Attempt, Phase: e.Phase}}
		if e.Phase == events.Compensate {
			if n.Undo == nil {
				a.at(c, RuleCommandRecord, e.Step, "it emits an undo that is not owed")
				continue
			}
			x.payload = n.Undo.Payload
			if head.State == events.Running || head.State == events.Completed {
				c.wayBack(a, inst, head, e)
			}
			if head.Pivot == events.PivotDone && !inst.pastPivot {
				a.at(c, RuleUndoPastPivot, e.Step, "an undo is decided after the pivot")
			}
			if e.Expiry != 0 {
				a.at(c, RuleExpiry, e.Step, "an undo is decided with an end, %s", events.Timestamp(e.Expiry))
			}
		} else {
			c.wayForward(a, inst, e, back)
			if inst.compensating != 0 {
				a.at(c, RuleForwardInUndo, e.Step, "a forward command is decided after sequence %d began to compensate (before it: %s)", inst.compensating, was)
			}
			if e.Expiry <= a.rec.Time {
				a.at(c, RuleExpiry, e.Step, "a forward command is decided that expires at %d, at %d", e.Expiry, a.rec.Time)
			}
		}
		c.labelled(a, inst, e)
		id := x.id.Text(c.e.App)
		if old := c.commands[id]; old != nil {
			a.at(c, RuleDecidedTwice, e.Step, "command %s was decided at sequence %d already", id, old.rec.Seq)
			continue
		}
		c.commands[id] = x
	}
}
