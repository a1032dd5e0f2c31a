package machine

import (
	"fmt"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// Signals that no Wait is open for stand in the instance's queue, in order of arrival (rule L23): rows from
// Head.QueueFirst up to Head.QueueNext. What is taken out of the middle leaves a gap. The queue is bounded; what
// comes beyond that goes to quarantine, from where it is sent again once there is room.

const (
	maxQueue     = 100  // signals
	maxQueueSpan = 1000 // rows from the first to the last, gaps included
)

// ReasonQueueFull is the code of a signal that finds the instance's queue full.
const ReasonQueueFull = "queue-full"

func queueRef(n uint64) events.RowRef { return events.RowRef{Part: events.PartQueue, N: n} }

// enqueue keeps a signal. It is false when the queue is full.
func (w *work) enqueue(q *events.Queued) bool {
	h := w.head
	if h.QueueNext-h.QueueFirst >= maxQueue && !mutant.On("machine-queue-unbounded") {
		if waiting := w.queueRows(); len(waiting) >= maxQueue || h.QueueNext-h.QueueFirst >= maxQueueSpan && !w.closeGaps(waiting) {
			return false
		}
	}
	w.entity(w.id).set(queueRef(h.QueueNext), 0, q.Encode(nil))
	h.QueueNext++
	w.queued(q)
	return true
}

func (w *work) queued(q *events.Queued) {
	w.entry(events.Entry{Kind: events.EntryQueued, Step: q.Name, Message: q.MessageID, Who: q.Who})
}

// keepPlace gives a signal that a Wait holds the next number in the queue, so that it stands there before what came
// after it if the Wait ends without it.
func (w *work) keepPlace(q *events.Queued) {
	q.Number = w.head.QueueNext
	w.head.QueueNext++
}

// requeue puts a signal back where it would stand, had no Wait held it. It was accepted when it came, so that there is
// room for it whatever came since.
func (w *work) requeue(q *events.Queued) {
	h := w.head
	if _, _, taken := w.entity(w.id).row(queueRef(q.Number)); taken || q.Number >= h.QueueNext {
		q.Number = h.QueueNext // an earlier build gave it none
		h.QueueNext++
	}
	h.QueueFirst = min(h.QueueFirst, q.Number)
	w.entity(w.id).set(queueRef(q.Number), 0, q.Encode(nil))
	w.queued(q)
}

type queueRow struct {
	n     uint64
	value []byte
}

// queueRows gives what stands in the queue.
func (w *work) queueRows() (rows []queueRow) {
	for n := w.head.QueueFirst; n < w.head.QueueNext; n++ {
		if raw, _, ok := w.entity(w.id).row(queueRef(n)); ok {
			rows = append(rows, queueRow{n, raw})
		}
	}
	return rows
}

// closeGaps numbers the queue's rows anew, in their order. It is false when they do not fit a decision.
func (w *work) closeGaps(rows []queueRow) bool {
	size := 0
	for _, r := range rows {
		size += len(r.value) + 100
	}
	if size > w.m.cfg.MaxRecord/2 {
		return false
	}
	h := w.head
	e := w.entity(w.id)
	h.QueueFirst = h.QueueNext
	for _, r := range rows {
		e.remove(queueRef(r.n))
		e.set(queueRef(h.QueueNext), 0, r.value)
		h.QueueNext++
	}
	return true
}

// takeQueued lets a Wait that begins take the first signal of its name that came before it. One that it cannot
// take is dropped, and its history says so.
func (w *work) takeQueued(n place, r *row) bool {
	h := w.head
	for at := h.QueueFirst; at < h.QueueNext; at++ {
		if mutant.On("machine-queued-signal-overlooked") {
			break
		}
		raw, _, ok := w.entity(w.id).row(queueRef(at))
		if !ok {
			if at == h.QueueFirst {
				h.QueueFirst++
			}
			continue
		}
		q, err := events.DecodeQueued(raw)
		if err != nil {
			w.corrupt = true
			return true
		}
		if q.Name != r.Key {
			continue
		}
		w.entity(w.id).remove(queueRef(at))
		if at == h.QueueFirst {
			h.QueueFirst++
		}
		if why := w.takeSignal(n, r, q); why == "" {
			return true
		} else {
			w.refusedSignal(n, r, q, why)
		}
	}
	return false
}

// signal takes a signal: an open Wait does, or it waits in the queue.
func (w *work) signal(in *events.InboxMessage) {
	a := in.Action
	var only *row
	switch {
	case a.Name == "":
		w.refuse(CodeUnknownAction, "a signal has a name")
		return
	case w.direction() == events.Compensating && w.head.Savepoint == "":
		w.refuse(CodeNotRunning, "the instance compensates: it waits for no signal any more")
		return
	case a.Step != "":
		n, ok := w.find(a.Step)
		if !ok {
			w.refuse(ReasonUnknownStep, fmt.Sprintf("there is no %q", a.Step))
			return
		}
		only = w.row(n.row)
	}
	q := &events.Queued{Name: a.Name, MessageID: a.ID, Payload: a.Payload, Who: a.Who, Time: a.Time}
	r := w.signalWait(a.Name, only)
	switch {
	case w.stopped():
	case r == nil && only != nil:
		w.refuse(CodeWrongState, fmt.Sprintf("%q does not wait for the signal %q", a.Step, a.Name))
	case r == nil:
		if !w.enqueue(q) {
			w.instead = &events.Decision{Outcome: events.Quarantined, Instance: w.id, Reason: fmt.Sprintf("%s: %d signals wait for this instance", ReasonQueueFull, maxQueue)}
			return
		}
		w.answer(in, true, CodeQueued, "")
	case w.holds():
		w.keepPlace(q)
		r.Answer, r.HasAnswer = q.Encode(nil), true
		w.queued(q)
		w.hold(r)
		w.answer(in, true, CodeQueued, "")
	default:
		n, _ := w.placeOf(r)
		if why := w.takeSignal(n, r, q); why != "" {
			w.refuse(CodeSignalRefused, why)
			return
		}
		w.answer(in, true, "", "")
	}
}
