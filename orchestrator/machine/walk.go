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
	begin  taskKind = 1 // start a node, forward
	goOn   taskKind = 2 // a node with children looks for what is next, forward
	undo   taskKind = 3 // compensate a node
	goBack taskKind = 4 // a node with children that is undone looks for the next to undo
)

type task struct {
	kind taskKind
	node place
}

// ending is how a node ended.
type ending uint8

const (
	stays       ending = 0 // it did not
	endedDone   ending = 1
	endedFailed ending = 2
	endedUndone ending = 3
)

// What tasks spend of a decision's budget, which is FanOut commands.
const (
	costTask    = 1
	costCommand = 16
)

func (w *work) push(kind taskKind, n place) {
	if w.tasks == nil {
		w.tasks = w.few.tasks[:0]
	}
	w.tasks = append(w.tasks, task{kind, n})
}

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
		case undo:
			w.undo(t.node)
		default:
			w.walk(t.kind, t.node)
		}
	}
}

// walk lets a node with children do what is next for it, or leaves that to its timer when the decision is
// full. One that does not walk in that direction any more does nothing: a failure or an undo overtook it.
func (w *work) walk(kind taskKind, n place) {
	r := w.row(n.row)
	back := r.Status == events.NodeUndoing
	switch {
	case back != (kind == goBack) || w.holds():
		return
	case !back && (r.Status != events.NodeActive && r.Status != events.NodeClosing || !w.forward(n)):
		return
	case (back || forks(n.Node)) && r.Index > branches(n, r):
		w.corrupt = true
	case w.full():
		r.set(w.now)
	case back:
		r.set(0)
		w.goBack(n, r)
	default:
		r.set(0)
		w.goForward(n, r)
	}
}

// walkOn goes on with a node with children whose timer came.
func (w *work) walkOn(n place, r *row) {
	if r.Status == events.NodeUndoing {
		w.push(goBack, n)
	} else {
		w.push(goOn, n)
	}
}

// turned drops what was to go on forward when the instance turns round. What goes back already goes on: it
// is waited for, not begun again.
func (w *work) turned() {
	left := w.tasks[:0]
	for _, t := range w.tasks {
		if t.kind == goBack {
			left = append(left, t)
		}
	}
	w.tasks = left
}

// set changes the row's due time.
func (r *row) set(due int64) { r.due, r.dirty = due, true }

// up tells a node's parent how it ended, the parent's parent if that ends it too, and so on.
func (w *work) up(n place, how ending) {
	for {
		p, ok := w.parent(n)
		if !ok {
			w.rootEnded(how)
			return
		}
		r := w.row(p.row)
		if how = w.childEnded(p, r, n, how); how == stays || w.stopped() {
			return
		}
		r.set(0)
		n = p
		w.spent += costTask
	}
}

// childEnded keeps a parent's position and counters. It says how the parent ended by it; when it did not, what is
// next for it has been pushed.
func (w *work) childEnded(p place, r *row, child place, how ending) ending {
	if r.Status == events.NodeUndoing {
		return w.childUndone(p, r, child, how)
	}
	switch p.Kind {
	case sagas.KindAll, sagas.KindForEach:
		return w.branchEnded(p, r, child, how)
	case sagas.KindTry:
		return w.triedEnded(p, r, child, how)
	}
	switch {
	case r.Status != events.NodeActive || how == endedUndone:
		return stays
	case how == endedFailed:
		r.Status = events.NodeFailed
		return endedFailed
	case p.Kind == sagas.KindChoose:
		r.Status = events.NodeDone
		return endedDone
	case p.Kind == sagas.KindSeq:
		r.Index++
	}
	r.dirty = true
	w.push(goOn, p)
	return stays
}

func (w *work) rootEnded(how ending) {
	if w.stopped() {
		return
	}
	switch how {
	case endedDone:
		w.end(events.Completed)
	case endedFailed:
		if w.head.Cause == "" {
			w.head.Cause, w.head.CauseMessage = w.failure.Code, w.failure.Message
		}
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
	w.keyEnds()
}

// transition changes the instance's state and says so, in its history and to the world.
func (w *work) transition(s events.State, code, message string) {
	w.head.State = s
	w.entry(events.Entry{Kind: events.EntryTransition, To: s, Code: code, Message: message})
	if w.m.cfg.Lifecycle && (s.Final() || s == events.Parked) {
		w.emits = append(w.emits, events.Emit{Kind: events.EmitLifecycle, Topic: w.m.topics.Lifecycle(), Type: "saga." + s.String()})
	}
}
