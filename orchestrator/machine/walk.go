package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// A walk is a stack of tasks, each done in constant time. Tasks push what follows from them, so depth and
// length of a plan cost no more than their nodes.

type taskKind uint8

const (
	begin taskKind = 1 // start a node, forward
	goOn  taskKind = 2 // a Seq or All looks for its next child, in the direction it is going
	undo  taskKind = 3 // compensate a node
)

type task struct {
	kind taskKind
	node *sagas.Node
}

// ending is how a node ended.
type ending uint8

const (
	endedDone   ending = 1
	endedFailed ending = 2
	endedUndone ending = 3
)

// What tasks spend of a decision's budget, which is FanOut commands.
const (
	costTask    = 1
	costCommand = 16
)

func (w *work) push(kind taskKind, n *sagas.Node) { w.tasks = append(w.tasks, task{kind, n}) }

// full reports whether the decision has done enough: FanOut commands or branches, sixteen times as many
// cheaper nodes, or half of a record's size.
func (w *work) full() bool {
	if mutant.On("machine-fan-out-unbounded") {
		return false
	}
	return w.spent >= costCommand*w.m.cfg.FanOut || w.bytes >= w.m.cfg.MaxRecord/2
}

// run does the tasks until none is left or the decision has to stop.
func (w *work) run() {
	for len(w.tasks) > 0 && !w.stopped() {
		t := w.tasks[len(w.tasks)-1]
		w.tasks = w.tasks[:len(w.tasks)-1]
		w.spent += costTask
		switch t.kind {
		case begin:
			w.begin(t.node)
		case goOn:
			w.goOn(t.node)
		case undo:
			w.undo(t.node)
		}
	}
}

// goOn lets a Seq or All do what is next for it, or leaves that to its timer when the decision is full. One
// that does not walk in the direction of its instance does nothing: a failure or an undo overtook it.
func (w *work) goOn(n *sagas.Node) {
	r := w.row(n.ID)
	back := w.head.State == events.Compensating
	switch {
	case back && r.Status != events.NodeUndoing:
		return
	case !back && (w.head.State != events.Running || r.Status != events.NodeActive):
		return
	case w.full():
		r.set(w.now)
	case back:
		w.goBack(n, r)
	default:
		w.goForward(n, r)
	}
}

// set changes the row's due time.
func (r *row) set(due int64) { r.due, r.dirty = due, true }

// up tells a node's parent how it ended.
func (w *work) up(n *sagas.Node, how ending) {
	for ; ; n = n.Parent {
		p := n.Parent
		if p == nil {
			w.rootEnded(how)
			return
		}
		r := w.row(p.ID)
		r.dirty = true
		if !w.count(p, r, how) {
			return
		}
		if how != endedFailed || (p.Kind == sagas.KindAll && p.OnFailure == sagas.LetItFinish) {
			w.push(goOn, p)
			return
		}
		if r.Status != events.NodeActive {
			return // its failure went up before
		}
		r.Status = events.NodeFailed
		r.due = 0
		w.spent += costTask
	}
}

// count keeps the parent's position and counters. It is false when they cannot be right.
func (w *work) count(p *sagas.Node, r *row, how ending) bool {
	if p.Kind == sagas.KindSeq && !(how == endedUndone && mutant.On("machine-seq-undone-at-once")) {
		if how == endedDone {
			r.Index++
		}
		return true
	}
	if r.Active == 0 {
		w.corrupt = true
		return false
	}
	r.Active--
	r.Failed = r.Failed || how == endedFailed
	return true
}

func (w *work) rootEnded(how ending) {
	switch how {
	case endedDone:
		w.end(events.Completed)
	case endedFailed:
		w.compensate()
	case endedUndone:
		w.end(events.Compensated)
	}
}

// end makes the instance final.
func (w *work) end(s events.State) {
	w.tasks = w.tasks[:0]
	w.head.Ended = w.now
	w.headDue = w.now + millis(w.plan.Retention)
	w.transition(s, w.head.Code, w.head.Message)
}

// transition changes the instance's state and says so, in its history and to the world.
func (w *work) transition(s events.State, code, message string) {
	w.head.State = s
	w.entry(events.Entry{Kind: events.EntryTransition, To: s, Code: code, Message: message})
	if w.m.cfg.Lifecycle && (s.Final() || s == events.Parked) {
		w.emits = append(w.emits, events.Emit{Kind: events.EmitLifecycle, Topic: w.m.topics.Lifecycle(), Type: "saga." + s.String()})
	}
}
