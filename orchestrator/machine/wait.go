package machine

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// A Wait's life. One for time ends by its timer. One for an event registers at the correlation of its key, and
// unregisters unless it ends by taking what that offers (correlate.go); its execution tells it from the same Wait in
// another iteration. One for a signal joins the list that begins at Head.Waits, after a look at what came before it
// (queue.go). Its row's Key says for what it waits, as long as it does; Expiry is when it gives up.

// CodeTooManyWaits is the code of a Wait that fails because its correlation key has as many waits as it may.
const CodeTooManyWaits = "too-many-waits"

// beginWait starts a Wait.
func (w *work) beginWait(n place) {
	p := n.Wait
	r := w.fresh(n)
	r.Status = events.NodeActive
	r.Execution++
	w.spent += costCommand
	w.bytes += 64
	switch {
	case p.Event != nil:
		if !w.subscribe(n, r) {
			return
		}
	case p.Signal != "":
		r.Key = p.Signal
		w.listWait(r)
		if w.takeQueued(n, r) {
			return
		}
	default:
		r.Expiry = w.now + millis(p.Sleep)
	}
	if p.Within > 0 {
		r.Expiry = w.now + millis(p.Within)
	}
	r.set(r.Expiry)
}

// subscribe registers a Wait at its correlation. It is false when the decision cannot go on.
func (w *work) subscribe(n place, r *row) bool {
	key := w.head.Key
	if fn := n.Wait.Key; fn != nil {
		if !w.user(n, "the correlation key", false, func(data any) (err error) { key, err = fn(data); return err }) {
			return false
		}
	}
	if key == "" || len(key) > events.MaxKeyBytes || !utf8.ValidString(key) {
		w.fail(CodeUserFunction, n, fmt.Sprintf("the correlation key of %s is 1 to %d bytes of UTF-8, not %d: %.40q", w.label(n), events.MaxKeyBytes, len(key), key))
		return false
	}
	r.Key = key
	w.bytes += len(key)
	e := n.Wait.Event
	w.send(w.m.correlationID(w.plan.Name, e, key), &events.InboxMessage{Kind: events.InboxSubscribe, From: w.waiter(r),
		Definition: w.plan.Name, Topic: e.Topic, Type: e.Type, Key: key})
	return true
}

func (w *work) waiter(r *row) events.Waiter {
	return events.Waiter{Instance: w.id, Node: r.id, Execution: r.Execution}
}

// unregister ends what a Wait waits for, when it ends otherwise than by taking it.
func (w *work) unregister(n place, r *row) {
	if r.Key != "" && n.Wait.Event != nil && !mutant.On("machine-ended-wait-stays-registered") {
		w.send(w.m.correlationID(w.plan.Name, n.Wait.Event, r.Key), &events.InboxMessage{Kind: events.InboxUnsubscribe, From: w.waiter(r)})
	}
	r.Key, r.dirty = "", true
}

// waitTimer takes a Wait's due time, or what was held for it.
func (w *work) waitTimer(n place, r *row) {
	switch {
	case r.Status != events.NodeActive || !w.forward(n): // it is undone, or will be
	case r.HasAnswer:
		w.takeKept(n, r)
	case r.Failed:
		w.giveUp(n, r, CodeTooManyWaits, "as many instances wait for this key as may")
	case r.Expiry > w.now || r.Expiry == 0:
		r.set(r.Expiry)
	case n.Wait.Event == nil && n.Wait.Signal == "":
		w.waited(n, r)
	default:
		w.giveUp(n, r, CodeTimeout, "nothing came within "+n.Wait.Within.String())
	}
}

func (w *work) giveUp(n place, r *row, code, message string) {
	w.unregister(n, r)
	r.Failed, r.Answer = false, nil
	w.failAt(n, code, message)
}

// undoWait ends a Wait that is not to go on.
func (w *work) undoWait(n place, r *row) {
	switch r.Status {
	case events.NodeFailed:
		r.Status = events.NodeUndone
		r.set(0)
	case events.NodeActive:
		w.giveBack(n, r)
		w.unregister(n, r)
		r.Status, r.Answer, r.HasAnswer, r.Failed = events.NodeUndone, nil, false, false
		r.set(0)
	}
	w.up(n, endedUndone)
}

// giveBack returns what a Wait holds and will not take any more: an event to its correlation, which offers it to whoever
// waits next, and a signal to the queue. Nothing that came for an instance is dropped in silence (rule L20).
func (w *work) giveBack(n place, r *row) {
	if !r.HasAnswer || mutant.On("machine-held-dropped-with-its-wait") {
		return
	}
	q, err := events.DecodeQueued(r.Answer)
	switch {
	case err != nil:
		w.corrupt = true
	case n.Wait.Event == nil:
		w.requeue(q)
	case r.Key != "": // otherwise an earlier build said that it was taken
		w.note(events.EntryQueued, n, r, events.Forward, 0, "", q.MessageID)
		w.send(w.m.correlationID(w.plan.Name, n.Wait.Event, r.Key), &events.InboxMessage{Kind: events.InboxRefused, From: w.waiter(r), EventID: q.MessageID})
	}
}

// waited ends a Wait well.
func (w *work) waited(n place, r *row) {
	r.Status, r.Answer, r.HasAnswer = events.NodeDone, nil, false
	r.set(0)
	w.entry(events.Entry{Kind: events.EntryDone, Step: w.label(n), Node: n.row, Phase: events.Forward})
	w.up(n, endedDone)
}

// offered takes an event that a correlation offers, or refuses it. A parked instance does neither: it holds the event
// like an answer, and the correlation keeps it until it hears what became of it.
func (w *work) offered(in *events.InboxMessage) {
	n, r := w.awaits(in)
	if w.stopped() {
		return
	}
	if r == nil && !mutant.On("machine-offer-unanswered") {
		w.tell(in, events.InboxRefused)
		return
	}
	if r == nil {
		w.ignore(ReasonUnknownOffer)
		return
	}
	if w.holds() {
		kept := events.Queued{MessageID: in.EventID, Payload: in.Payload, Time: in.Time}
		r.Answer, r.HasAnswer = kept.Encode(nil), true
		w.note(events.EntryQueued, n, r, events.Forward, 0, "", in.EventID)
		w.hold(r)
		return
	}
	w.takeEvent(n, r, sagas.Taken{ID: in.EventID, Payload: in.Payload, Time: in.Time})
}

// awaits finds the Wait that a correlation's message is for; r is nil when it waits no more.
func (w *work) awaits(in *events.InboxMessage) (n place, r *row) {
	if in.From.Node > maxRow {
		return place{}, nil
	}
	r = w.row(in.From.Node)
	n, ok := w.placeOf(r)
	switch {
	case !ok || n.Kind != sagas.KindWait || n.Wait.Event == nil:
		return place{}, nil
	case r.Status != events.NodeActive || r.HasAnswer || r.Failed || r.Key == "" || w.direction() != events.Running:
		return place{}, nil
	case r.Execution != in.From.Execution && !mutant.On("machine-offer-to-another-execution"):
		return place{}, nil
	case !w.forward(n):
		return place{}, nil
	}
	return n, r
}

// tell makes a decision that only answers an offer.
func (w *work) tell(in *events.InboxMessage, kind events.InboxKind) {
	answer := events.InboxMessage{Kind: kind, To: in.Correlation, From: in.From, EventID: in.EventID}
	w.instead = &events.Decision{Outcome: events.Applied, Instance: w.id, Emits: []events.Emit{message(&answer)}}
}

// denied fails a Wait that its correlation does not register.
func (w *work) denied(in *events.InboxMessage) {
	n, r := w.awaits(in)
	switch {
	case w.stopped():
	case r == nil:
		w.ignore(ReasonUnknownOffer)
	case w.holds():
		r.Failed = true
		w.hold(r)
	default:
		r.Failed = true
		w.waitTimer(n, r)
	}
}

// takeEvent ends a Wait with what it waited for. An event that cannot be taken parks the instance.
func (w *work) takeEvent(n place, r *row, in sagas.Taken) {
	if r.Key != "" { // otherwise an earlier build said so when it was held
		w.send(w.m.correlationID(w.plan.Name, n.Wait.Event, r.Key), &events.InboxMessage{Kind: events.InboxTaken, From: w.waiter(r), EventID: in.ID})
		w.note(events.EntryEvent, n, r, events.Forward, 0, "", in.ID)
		r.Key, r.dirty = "", true
	}
	if fn := n.Wait.Take; fn != nil {
		if !w.user(n, "the event", true, func(data any) error { return fn(data, in) }) {
			return
		}
	}
	w.waited(n, r)
}

// takeSignal is takeEvent for a signal, which is refused when it cannot be taken: why says so, and nothing changed.
func (w *work) takeSignal(n place, r *row, q *events.Queued) (why string) {
	if fn := n.Wait.Take; fn != nil {
		in := sagas.Taken{ID: q.MessageID, Payload: q.Payload, Who: q.Who, Time: q.Time}
		if why = w.tries(n, "the signal", func(data any) error { return fn(data, in) }); why != "" || w.stopped() {
			return why
		}
	}
	w.entry(events.Entry{Kind: events.EntryEvent, Step: w.label(n), Node: r.id, Phase: events.Forward, Execution: r.Execution, Message: q.MessageID, Who: q.Who})
	r.Key = ""
	w.waited(n, r)
	return ""
}

// tries runs a user function whose failure is no trouble: why says what is wrong, and the data are as before. When
// something else goes wrong, why is empty and the decision has stopped.
func (w *work) tries(n place, what string, fn func(data any) error) (why string) {
	if w.data == nil && !w.loadData(n) {
		return ""
	}
	before, dirty := w.dataRaw, w.dataDirty
	if dirty {
		if t := try(func() (err error) { before, err = w.plan.Encode(w.data); return err }); t != "" {
			w.fail(CodeUserFunction, n, "encoding the saga's data: "+t)
			return ""
		}
	}
	if w.user(n, what, true, func(data any) error {
		if why = try(func() error { return fn(data) }); why != "" {
			return errors.New(why)
		}
		return nil
	}) || why == "" {
		return ""
	}
	var data any
	if t := try(func() error { data = w.plan.NewData(); return w.plan.Decode(before, data) }); t != "" {
		return why // the trouble stands
	}
	w.data, w.inner, w.dataDirty, w.trouble = data, nil, dirty, nil
	return why
}

// takeKept takes what was held while the instance was parked.
func (w *work) takeKept(n place, r *row) {
	q, err := events.DecodeQueued(r.Answer)
	if err != nil {
		w.corrupt = true
		return
	}
	if n.Wait.Event != nil {
		w.takeEvent(n, r, sagas.Taken{ID: q.MessageID, Payload: q.Payload, Time: q.Time})
		return
	}
	why := w.takeSignal(n, r, q)
	if why == "" {
		return
	}
	w.refusedSignal(n, r, q, why)
	r.Answer, r.HasAnswer = nil, false
	r.set(r.Expiry)
	w.takeQueued(n, r)
}

// refusedSignal notes that a signal that was kept turned out not to be one.
func (w *work) refusedSignal(n place, r *row, q *events.Queued, why string) {
	w.entry(events.Entry{Kind: events.EntryRefused, Step: w.label(n), Node: r.id, Execution: r.Execution,
		Code: string(events.ActionSignal), Who: q.Who, Message: events.Cut(CodeSignalRefused+": "+q.MessageID+": "+why, events.MaxMessage)})
}

// listWait puts a Wait for a signal into the list of those that are open. One that ended leaves it when somebody comes by.
func (w *work) listWait(r *row) {
	if r.NextWait != 0 {
		return
	}
	r.NextWait = w.head.Waits + 1
	w.head.Waits = r.id + 1
}

// signalWait finds an open Wait for a signal, the one that began last, or the one in the row that only names.
func (w *work) signalWait(name string, only *row) *row {
	var before *row
	looked := 0
	for at := w.head.Waits; at != 0 && !w.corrupt; {
		r := w.row(at - 1)
		if looked++; r.NextWait == 0 || looked > len(w.rows) { // not of the list, or the list is a ring
			w.corrupt = true
			return nil
		}
		next := r.NextWait - 1
		n, ok := w.placeOf(r)
		switch {
		case !ok || n.Kind != sagas.KindWait:
			w.corrupt = true
		case r.Status != events.NodeActive:
			r.NextWait, r.dirty = 0, true
			if before == nil {
				w.head.Waits = next
			} else {
				before.NextWait, before.dirty = next+1, true
			}
			at = next
			continue
		case r.Key == name && !r.HasAnswer && (only == nil || only == r) && w.forward(n):
			return r
		}
		before, at = r, next
	}
	return nil
}
