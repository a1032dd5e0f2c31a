package machine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
)

// What stories need to tell of several entities: events that arrive at correlations, messages under way, actions.

// event brings a domain event to everybody it concerns.
func (w *world) event(msg *events.Message) string {
	w.t.Helper()
	routes, err := w.m.Routes(msg)
	if err != nil {
		return "poison " + err.Error() + "\n"
	}
	out := ""
	for i := range routes {
		r := &routes[i]
		switch {
		case r.Poison != nil:
			out += "poison " + r.Poison.Error() + " for " + r.Reason + "\n"
		case r.Event != nil:
			out += w.print(w.at(r.Instance, func() *events.Decision { return w.m.Event(w, w.now, *r.Event) }))
		case r.Start != nil:
			w.names[r.Instance] = r.Start.Key
			out += w.print(w.at(r.Instance, func() *events.Decision { return w.m.Start(w, w.now, *r.Start) }))
		default:
			out += r.Reason + "\n"
		}
	}
	return out
}

func (w *world) waiter(x *events.Waiter) string {
	name := w.names[x.Instance]
	if name == "" {
		name = x.Instance.String()[:8]
	}
	return fmt.Sprintf("%s/%d#%d", name, x.Node, x.Execution)
}

func (w *world) printMessage(payload []byte) string {
	m, err := events.DecodeInboxMessage(payload)
	if err != nil {
		return err.Error()
	}
	s := m.Kind.String() + " " + w.waiter(&m.From)
	if m.Key != "" {
		s += " for " + m.Definition + " " + m.Topic + "/" + m.Type + " " + m.Key
	}
	if m.EventID != "" {
		s += " " + m.EventID
	}
	if m.Payload != nil {
		s += " " + short(string(m.Payload))
	}
	if a := m.Action; a != nil {
		s = "action " + string(a.Kind) + " " + a.ID
	}
	return s
}

// printOther prints rows that are neither head, data nor node.
func (w *world) printOther(ref events.RowRef, value []byte) string {
	switch ref.Part {
	case events.PartCorrelation:
		c, err := events.DecodeCorrelation(value)
		if err != nil {
			return err.Error()
		}
		s := "correlation " + c.Topic + "/" + c.Type + " " + c.Key
		for i := range c.Waiting {
			s += " waiting " + w.waiter(&c.Waiting[i])
		}
		for _, e := range c.Events {
			s += fmt.Sprintf(" event %s in %d until %s", e.ID, e.N, clock(e.Until))
			if e.Offered != nil {
				s += " offered to " + w.waiter(e.Offered)
			}
		}
		for _, e := range c.Seen {
			s += fmt.Sprintf(" seen %s until %s", e.ID, clock(e.Until))
		}
		for i := range c.Ended {
			s += fmt.Sprintf(" ended %s until %s", w.waiter(&c.Ended[i]), clock(c.Ended[i].Until))
		}
		return s
	case events.PartEvent:
		k, err := events.DecodeKeptEvent(value)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("event %d %s", ref.N, short(string(k.Value)))
	case events.PartKey:
		k, err := events.DecodeKeyState(value)
		if err != nil {
			return err.Error()
		}
		s := "key " + k.Definition + " " + k.Key
		if !k.Live.IsZero() {
			s += " live"
		}
		if !k.Last.IsZero() {
			s += fmt.Sprintf(" last %s at %s", k.LastState, clock(k.LastEnded))
		}
		return s
	case events.PartQueue:
		q, err := events.DecodeQueued(value)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("queue %d %s %s %s", ref.N, q.Name, q.MessageID, short(string(q.Payload)))
	case events.PartAnswer:
		a, err := events.DecodeAnswer(value)
		if err != nil {
			return err.Error()
		}
		s := "answer " + a.MessageID
		if a.Done {
			s += " done"
		} else {
			s += " refused"
		}
		if a.Code != "" {
			s += " " + a.Code
		}
		if a.Message != "" {
			s += ": " + short(a.Message)
		}
		return s
	}
	return ref.Part.String() + " " + strconv.Itoa(len(value)) + " bytes"
}

// messages lists what is under way, from 1.
func (w *world) messages() string {
	var b strings.Builder
	for i, m := range w.sent {
		fmt.Fprintf(&b, "%d %s\n", i+1, w.printMessage(m.Encode(nil)))
	}
	if b.Len() == 0 {
		return "none\n"
	}
	return b.String()
}

// actionOf makes the message of an action as stories write it.
func (w *world) actionOf(kind string, args map[string]string, plain []string) *events.InboxMessage {
	a := &events.Action{ID: args["id"], Kind: events.ActionKind(kind), Who: args["who"], Why: args["why"], Time: w.now,
		Step: args["step"], Name: args["name"], Outcome: args["outcome"], Key: args["key"],
		Undo: slices.Contains(plain, "undo"), PastPivot: slices.Contains(plain, "pastpivot")}
	if a.Who == "" {
		a.Who = "ann"
	}
	if p, ok := args["payload"]; ok {
		a.Payload = []byte(p)
	}
	if n, err := strconv.Atoi(args["size"]); err == nil {
		a.Payload = []byte(strings.Repeat("#", n))
	}
	to := w.id
	if a.Key != "" {
		a.Definition = w.plan.Name
		to = w.m.keyID(a.Definition, a.Key)
	}
	return &events.InboxMessage{Kind: events.InboxAction, To: to, Action: a}
}

// named finds an instance by its business key: the one that started last.
func instanceOf(t testing.TB, w *world, key string) events.InstanceID {
	t.Helper()
	var found events.InstanceID
	latest := int64(-1)
	for id, name := range w.names {
		h, err := events.DecodeHead(w.of(id)[headRef].value)
		if name == key && err == nil && h.State != 0 && h.Started > latest {
			found, latest = id, h.Started
		}
	}
	if found.IsZero() {
		t.Fatalf("no instance of key %q", key)
	}
	return found
}
