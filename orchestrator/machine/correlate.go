package machine

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// A correlation keeps the events of one key that nobody has taken, and the waits for them (rule L20). It is an
// entity of its own, on the shard of the key, and talks to instances by messages:
//
//	instance                          correlation
//	subscribe (a Wait begins)   ->    Waiting
//	                            <-    offer: an event, to the first in Waiting that was not offered one
//	taken                       ->    the event and the registration are gone
//	refused                     ->    the event is back in its place, the registration is gone
//	unsubscribe (it ended)      ->    the registration is gone
//	                            <-    denied: too many wait already
//
// An event is kept until its offer is answered, so none is lost with a Wait that ended meanwhile, and no second
// offer of it is made before, so none is given twice. Every message arrives exactly once, but in any order. A
// registration begins once and, unless it takes an event, ends once; what says second of the two that it ended (an
// end before its beginning, or a refusal before its unsubscribe) finds the first in Ended, and takes it away.

// Bounds of what one key holds. Ids are forgotten before their time when they are more than maxSeen, or longer than
// maxSeenBytes together; ends whose other half never comes are forgotten after endedKeep.
const (
	maxBuffered  = 64
	maxWaiting   = 1000
	maxEnded     = 1000
	maxSeen      = 1024
	maxSeenBytes = 32 << 10
	endedKeep    = 7 * 24 * time.Hour
)

// Codes with which the Reason of a correlation's decisions begins.
const (
	ReasonDuplicateEvent = "duplicate-event"
	ReasonBufferFull     = "buffer-full"
	ReasonExpiredEvent   = "expired-event" // of an applied one: nobody took it in time
	ReasonUnknownOffer   = "unknown-offer"
	ReasonRegistered     = "duplicate-registration"
	ReasonBadMessage     = "bad-message"
)

var correlationRef = events.RowRef{Part: events.PartCorrelation}

func keptRef(n uint32) events.RowRef {
	return events.RowRef{Part: events.PartEvent, N: uint64(n)}
}

// correlation is the working set of one decision about a correlation.
type correlation struct {
	*events.Correlation
	m   *Machine
	v   View
	now int64
	id  events.InstanceID
	was int64 // its due time before

	rows    []events.RowChange // of events
	emits   []events.Emit
	expired []string // ids of events that are dropped
	corrupt bool
}

func (m *Machine) correlation(v View, now int64, id events.InstanceID) *correlation {
	c := &correlation{Correlation: &events.Correlation{}, m: m, v: v, now: now, id: id}
	raw, due, ok := v.Row(id, correlationRef)
	if !ok {
		return c
	}
	row, err := events.DecodeCorrelation(raw)
	if err != nil {
		c.corrupt = true
		return c
	}
	c.Correlation, c.was = row, due
	c.expire()
	return c
}

// Event decides on a domain event that arrives at its correlation. nil: the store is corrupt.
func (m *Machine) Event(v View, now int64, in Event) *events.Decision {
	c := m.correlation(v, now, in.Correlation)
	c.Definition, c.Topic, c.Type, c.Key = in.Definition, in.Topic, in.Type, in.Key
	switch {
	case c.corrupt:
		return nil
	case c.knows(in.MessageID) && !mutant.On("machine-duplicate-event-kept"):
		return c.ignored(ReasonDuplicateEvent)
	case len(c.Events) >= maxBuffered && !mutant.On("machine-events-unbounded"):
		return &events.Decision{Outcome: events.Quarantined, Instance: c.id, Reason: fmt.Sprintf("%s: %d events of this key wait to be taken", ReasonBufferFull, len(c.Events))}
	}
	e := events.BufferedEvent{N: c.unused(), ID: in.MessageID, Until: now + millis(in.Keep)}
	kept := &events.KeptEvent{Value: in.Value, Trace: in.Trace, Time: in.Time}
	c.rows = append(c.rows, events.RowChange{Ref: keptRef(e.N), Value: kept.Encode(nil)})
	c.Events = append(c.Events, e)
	c.offer(kept)
	d := c.finish()
	if d != nil && sizeOf(d) > m.cfg.MaxRecord {
		return &events.Decision{Outcome: events.Quarantined, Instance: c.id, Reason: fmt.Sprintf("%s: an event of %d bytes and what waits for it do not fit a record", ReasonOversize, len(in.Value))}
	}
	return d
}

// correlate decides on what an instance says to a correlation.
func (m *Machine) correlate(v View, now int64, in *events.InboxMessage) *events.Decision {
	if why := m.badCorrelate(in); why != "" {
		return badMessage(in, why)
	}
	c := m.correlation(v, now, in.To)
	if c.corrupt {
		return nil
	}
	reason := ""
	switch in.Kind {
	case events.InboxSubscribe:
		reason = c.subscribe(in)
	case events.InboxUnsubscribe:
		c.ended(in.From)
	case events.InboxTaken:
		reason = c.taken(in)
	case events.InboxRefused:
		reason = c.refused(in)
	}
	switch {
	case c.corrupt:
		return nil
	case reason != "":
		return c.ignored(reason)
	}
	return c.finish()
}

// badMessage refuses what no build of this application says, or not yet: it goes to quarantine as it is.
func badMessage(in *events.InboxMessage, why string) *events.Decision {
	return &events.Decision{Outcome: events.Quarantined, Instance: in.To, Reason: ReasonBadMessage + ": " + in.Kind.String() + ": " + why}
}

func (m *Machine) badCorrelate(in *events.InboxMessage) string {
	switch {
	case in.From.Instance.IsZero() || in.From.Execution == 0:
		return "it does not say which Wait it is about"
	case in.Kind == events.InboxSubscribe:
		if len(in.Key) > events.MaxKeyBytes || !utf8.ValidString(in.Key) || in.Key == "" {
			return fmt.Sprintf("a correlation key is 1 to %d bytes of UTF-8", events.MaxKeyBytes)
		}
		if in.To != events.CorrelationID(m.cfg.App, in.Definition, in.Topic, in.Type, in.Key, m.cfg.Slots) {
			return "it is not addressed to the correlation that it names"
		}
	case (in.Kind == events.InboxTaken || in.Kind == events.InboxRefused) && in.EventID == "":
		return "it does not name the event"
	}
	return ""
}

func (c *correlation) ignored(reason string) *events.Decision {
	return &events.Decision{Outcome: events.Ignored, Reason: reason, Instance: c.id}
}

// knows reports whether an event of that id is here, or was lately.
func (c *correlation) knows(id string) bool {
	return slices.ContainsFunc(c.Events, func(e events.BufferedEvent) bool { return e.ID == id }) ||
		slices.ContainsFunc(c.Seen, func(s events.SeenEvent) bool { return s.ID == id })
}

// unused is the lowest number that no event's row has.
func (c *correlation) unused() (n uint32) {
	for slices.ContainsFunc(c.Events, func(e events.BufferedEvent) bool { return e.N == n }) {
		n++
	}
	return n
}

// expire forgets what is past its time. An event that is offered stays until the offer is answered.
func (c *correlation) expire() {
	c.Events = slices.DeleteFunc(c.Events, func(e events.BufferedEvent) bool {
		if e.Until > c.now || e.Offered != nil && !mutant.On("machine-offered-event-expires") {
			return false
		}
		c.expired = append(c.expired, e.ID)
		c.rows = append(c.rows, events.RowChange{Ref: keptRef(e.N), Gone: true})
		return true
	})
	c.Seen = slices.DeleteFunc(c.Seen, func(s events.SeenEvent) bool { return s.Until <= c.now })
	c.Ended = slices.DeleteFunc(c.Ended, func(w events.Waiter) bool { return w.Until <= c.now })
}

// same reports whether a and b are one registration.
func same(a, b events.Waiter) bool {
	return a.Instance == b.Instance && a.Node == b.Node && a.Execution == b.Execution
}

func find(list []events.Waiter, w events.Waiter) int {
	return slices.IndexFunc(list, func(x events.Waiter) bool { return same(x, w) })
}

// subscribe registers a Wait, unless its end came before.
func (c *correlation) subscribe(in *events.InboxMessage) (reason string) {
	c.Definition, c.Topic, c.Type, c.Key = in.Definition, in.Topic, in.Type, in.Key
	w := events.Waiter{Instance: in.From.Instance, Node: in.From.Node, Execution: in.From.Execution}
	if i := find(c.Ended, w); i >= 0 && !mutant.On("machine-end-forgotten-before-its-beginning") {
		c.Ended = slices.Delete(c.Ended, i, i+1)
		return ""
	}
	if find(c.Waiting, w) >= 0 {
		return ReasonRegistered
	}
	if len(c.Waiting) >= maxWaiting {
		c.say(events.InboxMessage{Kind: events.InboxDenied, To: w.Instance, From: w})
		c.remember(w) // its end will come
		return ""
	}
	c.Waiting = append(c.Waiting, w)
	c.offer(nil)
	return ""
}

// ended removes a registration, or remembers that it must not come back.
func (c *correlation) ended(w events.Waiter) {
	if i := find(c.Waiting, w); i >= 0 {
		c.Waiting = slices.Delete(c.Waiting, i, i+1)
		return
	}
	if i := find(c.Ended, w); i >= 0 {
		c.Ended = slices.Delete(c.Ended, i, i+1)
		return
	}
	c.remember(w)
}

func (c *correlation) remember(w events.Waiter) {
	if len(c.Ended) >= maxEnded {
		c.Ended = slices.Delete(c.Ended, 0, 1)
	}
	c.Ended = append(c.Ended, events.Waiter{Instance: w.Instance, Node: w.Node, Execution: w.Execution, Until: c.now + millis(endedKeep)})
}

// offered finds the event that was offered to whom the message is from.
func (c *correlation) offered(in *events.InboxMessage) int {
	return slices.IndexFunc(c.Events, func(e events.BufferedEvent) bool {
		return e.ID == in.EventID && e.Offered != nil && (same(*e.Offered, in.From) || mutant.On("machine-any-answer-counts"))
	})
}

func (c *correlation) taken(in *events.InboxMessage) (reason string) {
	i := c.offered(in)
	if i < 0 {
		return ReasonUnknownOffer
	}
	e := c.Events[i]
	c.drop(i)
	if e.Until > c.now && !mutant.On("machine-taken-event-forgotten") {
		c.see(e.ID, e.Until)
	}
	if w := find(c.Waiting, in.From); w >= 0 {
		c.Waiting = slices.Delete(c.Waiting, w, w+1)
	}
	return ""
}

// drop removes an event and its row.
func (c *correlation) drop(i int) {
	c.rows = append(c.rows, events.RowChange{Ref: keptRef(c.Events[i].N), Gone: true})
	c.Events = slices.Delete(c.Events, i, i+1)
}

// see remembers an id, and forgets the oldest when they are too many.
func (c *correlation) see(id string, until int64) {
	c.Seen = append(c.Seen, events.SeenEvent{ID: id, Until: until})
	size := 0
	for i := len(c.Seen) - 1; i >= 0; i-- {
		if size += len(c.Seen[i].ID) + 16; size > maxSeenBytes || len(c.Seen)-i > maxSeen {
			c.Seen = slices.Delete(c.Seen, 0, i+1)
			return
		}
	}
}

// refused puts an event back in its place, for the next who waits. Who refuses does not wait any more; that it
// says so itself as well is expected in Ended.
func (c *correlation) refused(in *events.InboxMessage) (reason string) {
	i := c.offered(in)
	if i < 0 {
		return ReasonUnknownOffer
	}
	if w := find(c.Waiting, in.From); w >= 0 {
		c.Waiting = slices.Delete(c.Waiting, w, w+1)
		c.remember(in.From)
	}
	c.Events[i].Offered = nil
	if mutant.On("machine-refused-event-dropped") {
		c.drop(i)
	}
	c.expire() // it may have been kept beyond its time for the answer alone
	c.offer(nil)
	return ""
}

// offer offers the first event that nobody was offered to the first who was offered none. No input frees more
// than one of either, so that one offer is all there can be. fresh is the event of this decision, not yet in
// the store, which can only be the last.
func (c *correlation) offer(fresh *events.KeptEvent) {
	i := slices.IndexFunc(c.Events, func(e events.BufferedEvent) bool { return e.Offered == nil })
	to := slices.IndexFunc(c.Waiting, func(w events.Waiter) bool {
		return mutant.On("machine-two-offers-at-once") || !slices.ContainsFunc(c.Events, func(e events.BufferedEvent) bool { return e.Offered != nil && same(*e.Offered, w) })
	})
	if i < 0 || to < 0 {
		return
	}
	e, w := &c.Events[i], c.Waiting[to]
	kept := fresh
	if kept == nil || i != len(c.Events)-1 {
		raw, _, ok := c.v.Row(c.id, keptRef(e.N))
		var err error
		if kept, err = events.DecodeKeptEvent(raw); err != nil || !ok {
			c.corrupt = true
			return
		}
	}
	e.Offered = &w
	c.say(events.InboxMessage{Kind: events.InboxOffer, To: w.Instance, From: w, Correlation: c.id,
		EventID: e.ID, Payload: kept.Value, Trace: kept.Trace, Time: kept.Time})
	if mutant.On("machine-event-given-not-offered") {
		c.drop(i)
	}
}

func (c *correlation) say(msg events.InboxMessage) {
	msg.From.Until = 0
	c.emits = append(c.emits, message(&msg))
}

// message emits what one entity says to another.
func message(msg *events.InboxMessage) events.Emit {
	return events.Emit{Kind: events.EmitMessage, To: msg.To, Payload: msg.Encode(nil)}
}

// correlationTimer drops what is past its time.
func (m *Machine) correlationTimer(v View, now int64, in Timer) *events.Decision {
	c := m.correlation(v, now, in.Instance)
	switch {
	case c.corrupt:
		return nil
	case in.Due == 0 || in.Due != c.was:
		return c.ignored(ReasonStaleTimer)
	}
	return c.finish()
}

// finish prints the decision: the correlation's row, or its purge when nothing is left in it.
func (c *correlation) finish() *events.Decision {
	if c.corrupt {
		return nil
	}
	d := &events.Decision{Outcome: events.Applied, Instance: c.id, Emits: c.emits}
	if len(c.expired) > 0 {
		d.Reason = events.Cut(fmt.Sprintf("%s: %d that nobody took: %s", ReasonExpiredEvent, len(c.expired), strings.Join(c.expired, ", ")), 512)
	}
	if len(c.Waiting)+len(c.Events)+len(c.Seen)+len(c.Ended) == 0 {
		d.Purge = true
		return d
	}
	due := int64(0)
	earliest := func(at int64) {
		if due == 0 || at < due {
			due = at
		}
	}
	for i := range c.Events {
		if c.Events[i].Offered == nil {
			earliest(c.Events[i].Until)
		}
	}
	for i := range c.Seen {
		earliest(c.Seen[i].Until)
	}
	for i := range c.Ended {
		earliest(c.Ended[i].Until)
	}
	d.Rows = append(d.Rows, events.RowChange{Ref: correlationRef, Due: due, WasDue: c.was, Value: c.Encode(nil)})
	d.Rows = append(d.Rows, lastOf(c.rows)...)
	return d
}

// lastOf keeps of several changes of one row the last.
func lastOf(rows []events.RowChange) []events.RowChange {
	for i := 0; i < len(rows); i++ {
		if slices.ContainsFunc(rows[i+1:], func(r events.RowChange) bool { return r.Ref == rows[i].Ref }) {
			rows = slices.Delete(rows, i, i+1)
			i--
		}
	}
	return rows
}
