package machine

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// TestRandomPlansWithHostileParticipants runs random plans against participants that lose, repeat, delay,
// refuse and dawdle, on timers that fire at any time, and holds every decision and every end against the
// guarantees. A failure names its seed: run it again with -run '/seed=N$'.
func TestRandomPlansWithHostileParticipants(t *testing.T) {
	runs := 4000
	if testing.Short() {
		runs = 300
	}
	ends := map[string]int{}
	for seed := range runs {
		ok := t.Run("seed="+strconv.Itoa(seed), func(t *testing.T) {
			c := newChaos(t, uint64(seed))
			c.run()
			end := c.w.head().State.String()
			if c.w.head().State == events.Parked {
				end += " " + c.w.head().Code
			}
			ends[end]++
		})
		if !ok {
			return
		}
	}
	t.Logf("ends: %v", ends)
	for _, end := range []string{"completed", "compensated", "parked user-function"} {
		if ends[end] < runs/50 {
			t.Errorf("only %d of %d runs end %s: the test looks away", ends[end], runs, end)
		}
	}
}

// chaos is one run: a world, the messages in flight, and what the participants have done.
type chaos struct {
	t        *testing.T
	rnd      *rand.Rand
	w        *world
	text     string
	broken   map[string]bool
	cfg      Config
	commands []events.Emit
	replies  []answered
	ledger   map[string]*effect
	calm     bool
	before   *tree // the instance before the last decision
	inputs   int   // of events and actions
	trace    strings.Builder
}

// answered is a reply and the step it answers.
type answered struct {
	events.Reply
	step string // as its command named it
}

// effect is what a participant knows of one idempotency key.
type effect struct {
	step    *sagas.Node
	id      events.CommandID
	applied bool
	refused string // remembered rejection
	tomb    bool   // its undo was seen
	undone  bool   // its undo is done
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), broken: map[string]bool{}, ledger: map[string]*effect{}}
	g := &generator{rnd: c.rnd}
	c.text = g.saga()
	p := planOf(t, c.text, c.broken)
	if c.rnd.IntN(4) == 0 {
		p.Deadline = time.Duration(1+c.rnd.IntN(120)) * time.Second
	}
	c.cfg = Config{App: "shop", Slots: 64, Plans: []*sagas.Plan{p}, FanOut: 1 + c.rnd.IntN(4)}
	c.w = newWorld(t, c.cfg)
	if c.rnd.IntN(10) == 0 {
		c.breakOne()
	}
	return c
}

func (c *chaos) breakOne() {
	n := c.w.plan.Nodes[c.rnd.IntN(len(c.w.plan.Nodes))]
	fns := []string{".build", ".reply", ".undo", ".do", ".reply.panic", ".cond", ".onfail", ".items", ".enter", ".leave"}
	for _, fn := range fns {
		if c.rnd.IntN(2) == 0 {
			c.broken[n.Name+fn] = true
		}
	}
}

// generator writes random plans as stories write them.
type generator struct {
	rnd   *rand.Rand
	names []string
	loop  string // what the While around counts by
}

func (g *generator) name() string {
	n := "s" + strconv.Itoa(len(g.names))
	g.names = append(g.names, n)
	return n
}

const (
	pastPivot  = ":retriable:attempts=-1"
	effectFree = ":free"
)

func (g *generator) saga() string {
	if g.rnd.IntN(4) > 0 {
		return g.tree(4, "")
	}
	return "seq(" + g.tree(3, "") + "," + g.name() + ":pivot:attempts=" + strconv.Itoa(1+g.rnd.IntN(3)) + "," + g.tree(3, pastPivot) + ")"
}

// tree writes a node whose steps have the role. Past the pivot nothing is left that would have to be undone by
// itself.
func (g *generator) tree(depth int, role string) string {
	if k := g.rnd.IntN(10); depth > 0 && k < 7 {
		return g.inner(depth-1, role)
	}
	switch k := g.rnd.IntN(12); {
	case k == 0:
		return g.name() + ":wait=" + strconv.Itoa(1+g.rnd.IntN(60)) + "s"
	case k == 1:
		return g.name() + ":do"
	case k == 2:
		return g.name() + ":emit"
	case k == 3 && role != pastPivot:
		return g.name() + ":require=" + g.condition()
	case k == 4:
		return g.name() + ":outside"
	case k == 6 && role != pastPivot:
		return g.name() + []string{":on=paid", ":signal=go"}[g.rnd.IntN(2)] + ":within=" + strconv.Itoa(1+g.rnd.IntN(60)) + "s"
	case role != "":
		return g.name() + role
	case k == 5:
		return g.name() + effectFree
	default:
		return g.name() + fmt.Sprintf(":attempts=%d:undoattempts=%d", g.rnd.IntN(4), []int{-1, -1, 0, 1, 2}[g.rnd.IntN(5)])
	}
}

// condition holds, or not, or depends on what was done before.
func (g *generator) condition() string {
	if k := g.rnd.IntN(6); k > 0 || len(g.names) == 0 {
		return []string{"yes", "no", "yes", "yes", "yes", "yes"}[k]
	}
	return g.names[g.rnd.IntN(len(g.names))]
}

func (g *generator) children(depth int, role string) (all []string) {
	for range g.rnd.IntN(5) {
		all = append(all, g.tree(depth, role))
	}
	return all
}

func (g *generator) inner(depth int, role string) string {
	kind := g.rnd.IntN(8)
	if role == pastPivot && kind == 6 {
		kind = 0
	}
	switch kind {
	case 3:
		children := g.children(depth, role)
		when := make([]string, len(children))
		for i := range when {
			if when[i] = g.condition(); g.rnd.IntN(8) == 0 {
				when[i] = "-"
			}
		}
		return "choose:when=" + strings.Join(when, "|") + "(" + strings.Join(children, ",") + ")"
	case 4:
		loop := g.loop
		g.loop = "" // an element counts for itself
		text := "each:n=" + strconv.Itoa(g.rnd.IntN(5)) + g.join(role) + g.most() + "(" + g.tree(depth, role) + ")"
		g.loop = loop
		return text
	case 5:
		if g.rnd.IntN(2) == 0 && role == "" {
			role = effectFree
		}
		by, per := g.name(), ""
		if g.loop != "" {
			per = ":per=" + g.loop
		}
		loop := g.loop
		g.loop = by
		text := "while:by=" + by + ":times=" + strconv.Itoa(g.rnd.IntN(4)) + per + g.most() + "(seq(" + by + ":do," + g.tree(depth, role) + "))"
		g.loop = loop
		return text
	case 6:
		text := "try(" + g.tree(depth, role)
		if g.rnd.IntN(3) > 0 {
			text += "," + g.tree(depth, role)
		}
		return text + ")"
	case 7:
		return "all" + g.join(role) + "(" + strings.Join(g.children(depth, role), ",") + ")"
	}
	return []string{"seq", "all", "finish"}[kind%3] + "(" + strings.Join(g.children(depth, role), ",") + ")"
}

// join is how a fork ends, and how wide it is.
func (g *generator) join(role string) string {
	text := ""
	if g.rnd.IntN(2) == 0 {
		text = ":width=" + strconv.Itoa(1+g.rnd.IntN(3))
	}
	if g.rnd.IntN(3) == 0 {
		text += ":finish"
	}
	if role == pastPivot {
		return text
	}
	return text + []string{"", ":first", ":q=1", ":q=2"}[g.rnd.IntN(4)]
}

func (g *generator) most() string {
	if g.rnd.IntN(6) > 0 {
		return ""
	}
	return ":most=" + strconv.Itoa(1+g.rnd.IntN(3))
}

func (c *chaos) run() {
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("plan %s\n%s", c.text, c.trace.String())
		}
	})
	c.took("start", c.w.start("order-1", "m-1", "order-1"))
	for step := 0; step < 4000 && !c.over(); step++ {
		c.calm = step > 300
		c.move()
		c.alive()
	}
	if !c.over() {
		c.t.Fatalf("no end: %s", c.w.printRow(headRef, c.w.rows[headRef].value))
	}
	// What is still in flight arrives after the end.
	for len(c.commands)+len(c.replies) > 0 {
		before := len(c.replies)
		if len(c.commands) > 0 {
			c.serve(0)
		}
		if before > 0 {
			c.deliver(0)
		}
	}
	c.audit()
}

// over reports an end: final, or parked with nothing in flight that could bring it further.
func (c *chaos) over() bool {
	h := c.w.head()
	return h.State.Final() || h.State == events.Parked && len(c.commands)+len(c.replies)+len(c.w.sent) == 0 && len(c.w.due()) == 0
}

// alive: an instance that can go on has a timer, always (G1).
func (c *chaos) alive() {
	h := c.w.head()
	if !h.State.Final() && h.State != events.Parked && h.State != events.Suspended && len(c.w.due()) == 0 {
		c.t.Fatalf("%s without a timer", h.State)
	}
}

func (c *chaos) move() {
	if c.w.head().State == events.Suspended && (c.calm || c.rnd.IntN(6) == 0) {
		c.act(events.Action{Kind: events.ActionResume})
		return
	}
	k := c.rnd.IntN(22)
	switch {
	case k >= 20 && (!c.calm || len(c.w.sent) > 0):
		c.outside()
	case k < 8 && len(c.commands) > 0:
		c.serve(c.rnd.IntN(len(c.commands)))
	case k < 16 && len(c.replies) > 0:
		c.deliver(c.rnd.IntN(len(c.replies)))
	case k == 16 && !c.calm:
		cfg := c.cfg
		cfg.Plans = nil
		c.w.m = New(cfg)
	case k == 17 && !c.calm && len(c.commands) > 0:
		c.refuse(c.rnd.IntN(len(c.commands)))
	case k == 18 && !c.calm && c.rnd.IntN(3) == 0:
		c.goBackTo()
	case k == 19 && !c.calm && c.rnd.IntN(3) == 0:
		c.operator()
	default:
		if k > 16 || c.calm {
			c.w.m = New(c.cfg)
		}
		if c.calm && len(c.commands)+len(c.replies)+len(c.w.sent) > 0 && c.rnd.IntN(8) > 0 {
			return
		}
		c.timer()
	}
}

// outside lets a message between entities arrive, or an event or a signal from outside.
func (c *chaos) outside() {
	c.w.m = New(c.cfg)
	switch k := c.rnd.IntN(6); {
	case k < 4 && len(c.w.sent) > 0:
		i := c.rnd.IntN(len(c.w.sent))
		m := c.w.sent[i]
		if d := c.w.deliver(i); m.To == c.w.id {
			c.took(m.Kind.String(), d)
		}
	case k == 4 && strings.Contains(c.text, ":on=paid"):
		c.inputs++
		c.w.arrives("order-1", "e"+strconv.Itoa(c.inputs), "e"+strconv.Itoa(c.inputs))
	default:
		c.act(events.Action{Kind: events.ActionSignal, Name: "go", Payload: []byte("s")})
	}
}

// operator does what leaves it to the participants to say what happened.
func (c *chaos) operator() {
	kind := []events.ActionKind{events.ActionSuspend, events.ActionRetry, events.ActionRetry, events.ActionCancel}[c.rnd.IntN(4)]
	if kind != events.ActionCancel || c.rnd.IntN(4) == 0 {
		c.act(events.Action{Kind: kind})
	}
}

func (c *chaos) act(a events.Action) {
	c.w.m = New(c.cfg)
	c.inputs++
	a.ID, a.Who = "a"+strconv.Itoa(c.inputs), "alice"
	final := c.w.head().State.Final()
	d := c.w.does(a)
	c.took("action "+string(a.Kind), d)
	if again := c.w.does(a); again.Outcome != events.Ignored && !final {
		c.t.Fatalf("the same action twice (L22):\n%s", c.w.print(again))
	}
}

func (c *chaos) timer() {
	due := c.w.due()
	if len(due) == 0 {
		return
	}
	ref := due[0]
	if !c.calm && c.rnd.IntN(4) == 0 { // late ones overtake
		ref = due[c.rnd.IntN(len(due))]
	}
	if ref == headRef && c.w.head().State.Final() {
		return
	}
	c.took("timer "+ref.Part.String()+" "+strconv.Itoa(int(ref.N)), c.w.fire(ref))
}

// key is the idempotency key of a step's effect, as participants see it.
func (c *chaos) key(id events.CommandID, step string) string {
	id.Instance, id.Phase = c.w.id, events.Forward
	return id.IdempotencyKey(step)
}

// goBackTo sends the instance back to one of its save-points, as an operator does.
func (c *chaos) goBackTo() {
	now := c.w.tree()
	var tries []place
	for _, id := range now.rows {
		if n := now.at(id); n.Kind == sagas.KindTry {
			tries = append(tries, n)
		}
	}
	if len(tries) == 0 || now.head.State != events.Running {
		return
	}
	n := tries[c.rnd.IntN(len(tries))]
	c.w.m = New(c.cfg)
	c.took("back to "+now.label(n), c.w.decide(func() *events.Decision { return c.w.goBackTo(n) }))
}

// goBackTo makes the decision of an action that goes back to a save-point.
func (w *world) goBackTo(n place) *events.Decision {
	x := w.m.open(w, w.now, w.id)
	if why := x.noWayBack(n); why != "" {
		return x.ignored(why)
	}
	x.goBackTo(n, "operator", "once more")
	x.run()
	if d := x.finish(); x.trouble == nil {
		return d
	}
	return x.ignored("trouble")
}

func (c *chaos) refuse(i int) {
	e := c.commands[i]
	c.commands = append(c.commands[:i:i], c.commands[i+1:]...)
	r := Refusal{Command: events.CommandID{Instance: c.w.id, Node: e.Node, Execution: e.Execution, Attempt: e.Attempt, Phase: e.Phase}, Code: "GONE"}
	d := c.w.decide(func() *events.Decision { return c.w.m.Refused(c.w, c.w.now, r) })
	c.took(fmt.Sprintf("refused %s #%d", e.Step, e.Attempt), d)
	if d.Outcome == Waits {
		c.commands = append(c.commands, e)
	}
}

// serve lets a participant read a command, by its rules: at least once, and as late as it likes.
func (c *chaos) serve(i int) {
	e := c.commands[i]
	lost := !c.calm && c.rnd.IntN(12) == 0
	if c.calm || c.rnd.IntN(6) > 0 { // else it will be read again
		c.commands = append(c.commands[:i:i], c.commands[i+1:]...)
	}
	if lost {
		return
	}
	id := events.CommandID{Node: e.Node, Execution: e.Execution, Attempt: e.Attempt, Phase: e.Phase}
	r := events.Reply{Command: id, Outcome: events.ReplyDone, Payload: []byte("a" + strconv.Itoa(int(e.Attempt)))}
	if e.Phase == events.Compensate {
		c.serveUndo(c.known(id, e.Step), &r)
	} else {
		c.serveForward(c.known(id, e.Step), &r, e.Expiry)
	}
	if r.Outcome == 0 || !c.calm && c.rnd.IntN(8) == 0 {
		return // it crashed before it answered
	}
	c.replies = append(c.replies, answered{r, e.Step})
	if !c.calm && c.rnd.IntN(5) == 0 {
		c.replies = append(c.replies, answered{r, e.Step})
	}
}

func (c *chaos) known(id events.CommandID, step string) *effect {
	k := c.key(id, step)
	if c.ledger[k] == nil {
		c.ledger[k] = &effect{step: c.w.tree().at(id.Node).Node, id: id}
	}
	if was := c.ledger[k].id; was.Node != id.Node || was.Execution != id.Execution {
		c.t.Fatalf("%s names the effects of two rows, %d and %d", k, was.Node, id.Node)
	}
	return c.ledger[k]
}

func (c *chaos) serveForward(k *effect, r *events.Reply, expiry int64) {
	reject := func(code string) { r.Outcome, r.Code, r.Payload = events.ReplyRejected, code, nil }
	switch {
	case k.applied && !k.tomb:
	case k.refused != "":
		reject(k.refused)
	case k.tomb:
		reject(events.CodeUndone)
	case c.w.now > expiry:
		reject(events.CodeExpired)
	case !c.calm && c.rnd.IntN(7) == 0 && k.step.Step.Role != sagas.Retriable:
		k.refused = "declined"
		reject(k.refused)
	case !c.calm && c.rnd.IntN(8) == 0:
		r.Outcome, r.Code = events.ReplyRetry, "busy"
	case !c.calm && c.rnd.IntN(8) == 0:
		r.Outcome = events.ReplyProgress
	default:
		k.applied = true
	}
}

func (c *chaos) serveUndo(k *effect, r *events.Reply) {
	k.tomb = true
	switch {
	case k.undone:
	case !c.calm && c.rnd.IntN(5) == 0:
		r.Outcome, r.Code = events.ReplyRejected, "not-now"
	case !c.calm && c.rnd.IntN(5) == 0:
		r.Outcome = events.ReplyRetry
	default:
		k.undone = true
	}
}

func (c *chaos) deliver(i int) {
	r := c.replies[i]
	c.replies = append(c.replies[:i:i], c.replies[i+1:]...)
	before := c.w.head().State
	d := c.w.reply(r.Reply)
	c.took(fmt.Sprintf("reply %s %s #%d %s %s", r.step, r.Command.Phase, r.Command.Attempt, r.Outcome, r.Code), d)
	if d.Outcome == Waits { // as the shard does it
		c.replies = append(c.replies, r)
		return
	}
	if before.Final() && d.Outcome != events.Ignored {
		c.t.Fatalf("a reply to an instance that is %s (G6):\n%s", before, c.w.print(d))
	}
	if r.Outcome == events.ReplyProgress {
		return
	}
	// The same once more changes nothing.
	if d := c.w.reply(r.Reply); d.Outcome != events.Ignored {
		c.t.Fatalf("the same reply twice:\n%s", c.w.print(d))
	}
}

// took notes a decision and holds it against the rules of every decision.
func (c *chaos) took(what string, d *events.Decision) {
	c.trace.WriteString(what + " -> " + c.w.print(d))
	before := c.before
	now := c.w.tree()
	c.before = now
	if d.Purge || d.Outcome != events.Applied {
		return
	}
	h := c.w.head()
	out, err := events.Outgoing("shop", &events.Record{Kind: events.KindDecision, Seq: 1, Time: c.w.now, Decision: d})
	if err != nil {
		c.t.Fatal(err)
	}
	for i, e := range d.Emits {
		if e.Kind != events.EmitCommand {
			continue
		}
		c.commands = append(c.commands, e)
		n := now.at(e.Node)
		if payload := out[i].Value; !strings.HasPrefix(string(payload), e.Type+"(") {
			c.t.Fatalf("the command %s of %s carries %q", e.Type, e.Step, payload)
		}
		if e.Step != now.label(n) {
			c.t.Fatalf("the command of %s is named %s", now.label(n), e.Step)
		}
		if e.Phase == events.Forward {
			if before != nil && before.head.State != events.Running && (before.head.State != events.Parked || before.head.ParkedIn != events.Running) {
				c.t.Fatalf("a forward command of %s while %s (G6)", e.Step, before.head.State)
			}
			if before != nil && !now.stale(n) && before.goes(n) && now.goingBack(n) {
				c.t.Fatalf("a forward command of %s in a scope that goes back (G6)", e.Step)
			}
			continue
		}
		if h.Pivot != events.PivotAhead {
			c.t.Fatalf("an undo of %s past the pivot (G6)", e.Step)
		}
		c.undoOrder(now, n)
	}
	c.forks(now)
	if rows := len(c.w.rows); c.w.loads > 4*(4+rows) {
		c.t.Fatalf("%d rows read of an instance with %d", c.w.loads, rows)
	}
}

// goes reports whether a node of a later tree was going back in this one.
func (t *tree) goes(n place) bool {
	_, _, ok := t.v.Row(t.id, nodeRef(n.row))
	return ok && t.goingBack(n)
}

// undoOrder: what came after a step is undone before the step is (G4).
func (c *chaos) undoOrder(now *tree, n place) {
	for _, id := range now.rows {
		later := now.at(id)
		if now.row(id).Undo != nil && now.before(n, later) {
			c.t.Fatalf("%s is undone before %s, which came after it and is %s (G4)", now.label(n), now.label(later), now.status(later))
		}
	}
}

// forks: no more children are open than the width allows, and none when the fork has ended.
func (c *chaos) forks(now *tree) {
	for _, id := range now.rows {
		n := now.at(id)
		if !forks(n.Node) || now.stale(n) {
			continue
		}
		open := 0
		for _, child := range now.children(n) {
			if child.rowless() {
				continue
			}
			switch now.status(child) {
			case events.NodeActive, events.NodeBackoff:
				open++
			}
		}
		switch s := now.status(n); {
		case s == events.NodeActive && n.Width > 0 && open > n.Width:
			c.t.Fatalf("%d children of %s are open, at most %d", open, now.label(n), n.Width)
		case (s == events.NodeDone || s == events.NodeUndone) && open > 0:
			c.t.Fatalf("%s is %s with %d open children", now.label(n), s, open)
		}
	}
}

// audit compares the end with what the participants did (G2).
func (c *chaos) audit() {
	now := c.w.tree()
	state := c.w.head().State
	for key, k := range c.ledger {
		r := now.row(k.id.Node)
		switch {
		case k.step.Step.EffectFree:
		case r.Execution != k.id.Execution && k.step.Step.Undo == nil: // of an earlier iteration, past the pivot
		case r.Execution != k.id.Execution:
			if k.applied && !k.undone {
				c.t.Errorf("%s, and the effect of %s, whose step began again, is there", state, key)
			}
		case state == events.Compensated || state == events.Completed && r.Status != events.NodeDone:
			if k.applied && !k.undone {
				c.t.Errorf("%s, and the effect of %s is there", state, key)
			}
		case state == events.Completed:
			if k.tomb || !k.applied {
				c.t.Errorf("completed, and %s, which is done, has no effect", key)
			}
		}
	}
	switch state {
	case events.Completed:
		if why := now.unfinished(own(c.w.plan.Root)); why != "" {
			c.t.Errorf("completed, and %s (G2)", why)
		}
	case events.Compensated:
		if why := now.owing(own(c.w.plan.Root)); why != "" {
			c.t.Errorf("compensated, and %s (G2)", why)
		}
	}
	for _, id := range now.rows {
		if n := now.at(id); n.Kind == sagas.KindStep && now.row(id).Undo != nil && state.Final() && (now.status(n) != events.NodeDone || now.goingBack(n)) {
			c.t.Errorf("%s, and %s, which is %s, owes its undo (G3)", state, now.label(n), now.status(n))
		}
	}
}
