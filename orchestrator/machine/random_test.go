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
	runs := 2000
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
	replies  []events.Reply
	ledger   map[string]*effect
	calm     bool
	trace    strings.Builder
}

// effect is what a participant knows of one idempotency key.
type effect struct {
	step    *sagas.Node
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
	if len(g.names) > 0 && c.rnd.IntN(10) == 0 {
		c.breakOne(g)
	}
	return c
}

func (c *chaos) breakOne(g *generator) {
	name := g.names[c.rnd.IntN(len(g.names))]
	fn := []string{".build", ".reply", ".undo", ".do", ".reply.panic"}[c.rnd.IntN(5)]
	c.broken[name+fn] = true
}

// generator writes random plans as stories write them.
type generator struct {
	rnd   *rand.Rand
	names []string
}

func (g *generator) name() string {
	n := "s" + strconv.Itoa(len(g.names))
	g.names = append(g.names, n)
	return n
}

func (g *generator) saga() string {
	if g.rnd.IntN(3) > 0 {
		return g.tree(3, "")
	}
	return "seq(" + g.tree(2, "") + "," + g.name() + ":pivot:attempts=" + strconv.Itoa(1+g.rnd.IntN(3)) + "," + g.tree(2, ":retriable:attempts=-1") + ")"
}

func (g *generator) tree(depth int, role string) string {
	switch k := g.rnd.IntN(10); {
	case depth > 0 && k < 6:
		children := make([]string, g.rnd.IntN(5))
		for i := range children {
			children[i] = g.tree(depth-1, role)
		}
		return []string{"seq", "all", "finish"}[g.rnd.IntN(3)] + "(" + strings.Join(children, ",") + ")"
	case k == 6:
		return g.name() + ":wait=" + strconv.Itoa(1+g.rnd.IntN(60)) + "s"
	case k == 7:
		return g.name() + ":do"
	case role != "":
		return g.name() + role
	case k == 8:
		return g.name() + ":free"
	default:
		return g.name() + fmt.Sprintf(":attempts=%d:undoattempts=%d", g.rnd.IntN(4), []int{-1, 0, 1, 2}[g.rnd.IntN(4)])
	}
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
	return h.State.Final() || h.State == events.Parked && len(c.commands)+len(c.replies) == 0 && len(c.w.due()) == 0
}

// alive: an instance that can go on has a timer, always (G1).
func (c *chaos) alive() {
	h := c.w.head()
	if !h.State.Final() && h.State != events.Parked && len(c.w.due()) == 0 {
		c.t.Fatalf("%s without a timer", h.State)
	}
}

func (c *chaos) move() {
	k := c.rnd.IntN(20)
	switch {
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
	default:
		if k > 16 || c.calm {
			c.w.m = New(c.cfg)
		}
		if c.calm && len(c.commands)+len(c.replies) > 0 && c.rnd.IntN(8) > 0 {
			return
		}
		c.timer()
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

func (c *chaos) key(id events.CommandID) string {
	id.Instance = c.w.id
	return id.IdempotencyKey(c.w.plan.Nodes[id.Node].Name)
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
		c.serveUndo(&r)
	} else {
		c.serveForward(&r, e.Expiry)
	}
	if r.Outcome == 0 || !c.calm && c.rnd.IntN(8) == 0 {
		return // it crashed before it answered
	}
	c.replies = append(c.replies, r)
	if !c.calm && c.rnd.IntN(5) == 0 {
		c.replies = append(c.replies, r)
	}
}

func (c *chaos) known(id events.CommandID) *effect {
	id.Phase = events.Forward
	k := c.key(id)
	if c.ledger[k] == nil {
		c.ledger[k] = &effect{step: c.w.plan.Nodes[id.Node]}
	}
	return c.ledger[k]
}

func (c *chaos) serveForward(r *events.Reply, expiry int64) {
	k := c.known(r.Command)
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

func (c *chaos) serveUndo(r *events.Reply) {
	k := c.known(r.Command)
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
	d := c.w.reply(r)
	c.took(fmt.Sprintf("reply %s %s #%d %s %s", c.w.plan.Nodes[r.Command.Node].Name, r.Command.Phase, r.Command.Attempt, r.Outcome, r.Code), d)
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
	if d := c.w.reply(r); d.Outcome != events.Ignored {
		c.t.Fatalf("the same reply twice:\n%s", c.w.print(d))
	}
}

// took notes a decision and holds it against the rules of every decision.
func (c *chaos) took(what string, d *events.Decision) {
	c.trace.WriteString(what + " -> " + c.w.print(d))
	if d.Purge || d.Outcome != events.Applied {
		return
	}
	h := c.w.head()
	for _, e := range d.Emits {
		if e.Kind != events.EmitCommand {
			continue
		}
		c.commands = append(c.commands, e)
		if e.Phase == events.Forward {
			if h.State != events.Running && (h.State != events.Parked || h.ParkedIn != events.Running) {
				c.t.Fatalf("a forward command of %s while %s (G6)", e.Step, h.State)
			}
			continue
		}
		if h.Pivot != events.PivotAhead {
			c.t.Fatalf("an undo of %s past the pivot (G6)", e.Step)
		}
		c.undoOrder(e)
	}
	if rows := len(c.w.plan.Nodes); c.w.loads > 2*(2+rows) {
		c.t.Fatalf("%d rows read for a plan of %d nodes", c.w.loads, rows)
	}
}

// undoOrder: what came after a step is undone before the step is (G4).
func (c *chaos) undoOrder(e events.Emit) {
	for _, later := range c.w.plan.Nodes {
		if later.Kind != sagas.KindStep || !before(c.w.plan.Nodes[e.Node], later) {
			continue
		}
		cell, ok := c.w.rows[nodeRef(later.ID)]
		if !ok {
			continue
		}
		n, err := events.DecodeNode(cell.value)
		if err != nil {
			c.t.Fatal(err)
		}
		if n.Undo != nil {
			c.t.Fatalf("%s is undone before %s, which came after it and is %s (G4)", e.Step, later.Name, n.Status)
		}
	}
}

// before reports whether a happens before b by the plan: in the Seq where they part, a comes first.
func before(a, b *sagas.Node) bool {
	depth := func(n *sagas.Node) (d int) {
		for ; n.Parent != nil; n = n.Parent {
			d++
		}
		return d
	}
	da, db := depth(a), depth(b)
	x, y := a, b
	for ; da > db; da-- {
		x = x.Parent
	}
	for ; db > da; db-- {
		y = y.Parent
	}
	for x != y && x.Parent != y.Parent {
		x, y = x.Parent, y.Parent
	}
	return x != y && x.Parent.Kind == sagas.KindSeq && x.Index < y.Index
}

// audit compares the end with what the participants did (G2).
func (c *chaos) audit() {
	state := c.w.head().State
	for key, k := range c.ledger {
		switch state {
		case events.Completed:
			if k.tomb {
				c.t.Errorf("completed, and %s was undone", key)
			}
		case events.Compensated:
			if k.applied && !k.undone && !k.step.Step.EffectFree {
				c.t.Errorf("compensated, and the effect of %s is there", key)
			}
		}
	}
	if state != events.Completed {
		return
	}
	for _, n := range c.w.plan.Nodes {
		id := events.CommandID{Node: n.ID, Execution: 1, Phase: events.Forward}
		if n.Kind == sagas.KindStep && (c.ledger[c.key(id)] == nil || !c.ledger[c.key(id)].applied) {
			c.t.Errorf("completed without the effect of %s", n.Name)
		}
	}
}
