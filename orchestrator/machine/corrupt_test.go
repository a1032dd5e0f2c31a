package machine

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

func TestRowsThatCannotBeReadGiveNoDecision(t *testing.T) {
	for _, bad := range []events.RowRef{headRef, nodeRef(0), nodeRef(1)} {
		w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all(pay,ship)", nil)}})
		w.start("order-1", "m-1", "order-1")
		due := w.rows[nodeRef(1)].due
		w.rows[bad] = cell{value: []byte{0xff, 0xff}, due: due}
		if d := w.m.Reply(w, w.now, doneOf(w, 1)); d != nil {
			t.Errorf("a reply with a damaged row %v: %s", bad, w.print(d))
		}
		if d := w.m.Timer(w, w.now, Timer{w.id, bad, due}); d != nil {
			t.Errorf("a timer of a damaged row %v: %s", bad, w.print(d))
		}
		if d := w.m.Start(w, w.now, Start{Plan: w.plan, Instance: w.id}); bad == headRef && d != nil {
			t.Errorf("a start over a damaged head: %s", w.print(d))
		}
	}
}

func TestMissingRowsAreCorruption(t *testing.T) {
	w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all(pay,ship)", nil)}})
	w.start("order-1", "m-1", "order-1")
	lost := w.rows[nodeRef(2)]
	delete(w.rows, nodeRef(2))
	refused := doneOf(w, 1)
	refused.Outcome = events.ReplyRejected
	if d := w.m.Reply(w, w.now, refused); d != nil {
		t.Errorf("undoing a branch whose row is lost: %s", w.print(d))
	}
	w.rows[nodeRef(2)] = lost
	delete(w.rows, nodeRef(0)) // no branch is open, by its counter
	if d := w.m.Reply(w, w.now, doneOf(w, 1)); d != nil {
		t.Errorf("without the fork's row: %s", w.print(d))
	}
	delete(w.rows, dataRef)
	if d := w.m.Reply(w, w.now, doneOf(w, 2)); d != nil {
		t.Errorf("without the data: %s", w.print(d))
	}
}

// TestDamagedRowsNeverPanic damages the rows of random instances in the middle of their lives, in bytes and in what
// the bytes say, and gives them every input there is: a decision, or nil, and never a panic or an endless walk.
func TestDamagedRowsNeverPanic(t *testing.T) {
	runs := 1500
	if testing.Short() {
		runs = 200
	}
	corrupt := 0
	for seed := range runs {
		ok := t.Run("seed="+strconv.Itoa(seed), func(t *testing.T) {
			c := newChaos(t, uint64(seed))
			c.took("start", c.w.start("order-1", "m-1", "order-1"))
			for range c.rnd.IntN(60) {
				if c.over() {
					break
				}
				c.move()
			}
			corrupt += c.damage()
		})
		if !ok {
			return
		}
	}
	if corrupt < runs {
		t.Errorf("only %d inputs of %d instances found corruption: the test looks away", corrupt, runs)
	}
}

// damage damages one row at a time and tries every input; it counts those that found it out.
func (c *chaos) damage() (found int) {
	w := c.w
	w.m = New(c.cfg)
	refs := append(w.nodeRefs(), headRef)
	for range 12 {
		ref := refs[c.rnd.IntN(len(refs))]
		whole, had := w.rows[ref]
		switch {
		case c.rnd.IntN(6) == 0:
			delete(w.rows, ref)
		case c.rnd.IntN(4) == 0:
			b := bytes.Clone(whole.value)
			for range 1 + c.rnd.IntN(3) {
				if len(b) > 0 {
					b[c.rnd.IntN(len(b))] = byte(c.rnd.IntN(256))
				}
			}
			w.rows[ref] = cell{b, whole.due}
		case ref == headRef:
			h, err := events.DecodeHead(whole.value)
			if err != nil {
				c.t.Fatal(err)
			}
			c.scribbleHead(h)
			w.rows[ref] = cell{h.Encode(nil), whole.due}
		default:
			n, err := events.DecodeNode(whole.value)
			if err != nil {
				c.t.Fatal(err)
			}
			c.scribble(n)
			w.rows[ref] = cell{n.Encode(nil), max(whole.due, int64(c.rnd.IntN(2))*w.now)}
		}
		found += c.tryAll(refs)
		if delete(w.rows, ref); had {
			w.rows[ref] = whole
		}
	}
	return found
}

// number is small, or a row's, or as large as it gets.
func (c *chaos) number() uint32 {
	return []uint32{0, 1, 2, uint32(len(c.w.plan.Nodes)), uint32(c.rnd.IntN(40)), 1 << 31, 1<<32 - 1, 1<<32 - 2}[c.rnd.IntN(8)]
}

func (c *chaos) scribble(n *events.NodeState) {
	for range 1 + c.rnd.IntN(2) {
		switch c.rnd.IntN(16) {
		case 0:
			n.Status = events.NodeStatus(c.rnd.IntN(10))
		case 1:
			n.Index = c.number()
		case 2:
			n.Active = c.number()
		case 3:
			n.Failed = !n.Failed
		case 4:
			n.Plan = c.number()
		case 5:
			n.Up = c.number()
		case 6:
			n.Turn = c.number()
		case 7:
			n.Prev = c.number()
		case 8:
			n.Base = c.number()
		case 9:
			n.Count = c.number()
		case 10:
			n.Done = c.number()
		case 11:
			n.Lost = c.number()
		case 12:
			n.NextHeld, n.NextWait = c.number(), c.number()
		case 13:
			n.Item = []byte("scribble")
		case 14:
			n.Execution, n.Attempts = c.number(), c.number()
		case 15:
			n.Held, n.Undo = !n.Held, nil
		}
	}
}

func (c *chaos) scribbleHead(h *events.Head) {
	switch c.rnd.IntN(6) {
	case 0:
		h.State = events.State(1 + c.rnd.IntN(4))
	case 1:
		h.ParkedIn = events.State(c.rnd.IntN(8))
	case 2:
		h.NextNode = c.number()
	case 3:
		h.Held, h.Waits = c.number(), c.number()
	case 4:
		h.Partial = !h.Partial
	case 5:
		h.Pivot, h.ParkedNode = events.PivotState(c.rnd.IntN(3)), c.number()
	}
}

// tryAll gives an instance every timer it has, and an answer of each kind to each of its rows, without keeping
// what is decided.
func (c *chaos) tryAll(refs []events.RowRef) (found int) {
	w := c.w
	try := func(d *events.Decision) {
		if d == nil {
			found++
		} else if d.Outcome == events.Applied && len(d.Emits) > 1000 {
			c.t.Fatalf("%d emissions", len(d.Emits))
		}
	}
	message := func(m events.InboxMessage) {
		m.To, m.Time = w.id, w.now
		try(w.m.Message(w, w.now, &m))
	}
	for _, a := range []events.Action{{Kind: events.ActionSignal, Name: "go"}, {Kind: events.ActionRetry}, {Kind: events.ActionSkip}, {Kind: events.ActionCompensate},
		{Kind: events.ActionResolve, Outcome: "done"}, {Kind: events.ActionSuspend}, {Kind: events.ActionResume}, {Kind: events.ActionTerminate}} {
		a.ID = "damage"
		message(events.InboxMessage{Kind: events.InboxAction, Action: &a})
	}
	for _, n := range w.plan.Nodes {
		if n.Kind == sagas.KindTry {
			message(events.InboxMessage{Kind: events.InboxAction, Action: &events.Action{ID: "damage", Kind: events.ActionCompensate, Name: n.Name + strings.Repeat("[0]", c.rnd.IntN(2))}})
		}
	}
	for _, ref := range refs {
		if ref.Part == events.PartNode {
			from := events.Waiter{Instance: w.id, Node: uint32(ref.N), Execution: 1}
			message(events.InboxMessage{Kind: events.InboxOffer, From: from, Correlation: events.InstanceID{1}, EventID: "e", Payload: []byte("v")})
		}
		if due := w.rows[ref].due; due != 0 {
			try(w.m.Timer(w, max(w.now, due), Timer{w.id, ref, due}))
		}
		if ref.Part != events.PartNode {
			continue
		}
		r, err := events.DecodeNode(w.rows[ref].value)
		if err != nil {
			r = &events.NodeState{Execution: 1, Attempts: 1}
		}
		for _, phase := range []events.Phase{events.Forward, events.Compensate} {
			for outcome := events.ReplyDone; outcome <= events.ReplyProgress; outcome++ {
				id := events.CommandID{Instance: w.id, Node: uint32(ref.N), Execution: r.Execution, Attempt: max(1, r.Attempts), Phase: phase}
				try(w.m.Reply(w, w.now, events.Reply{Command: id, Outcome: outcome}))
			}
		}
	}
	return found
}
