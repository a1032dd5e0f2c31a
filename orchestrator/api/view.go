package api

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// What responses and requests hold. Fields are only ever added. Times are RFC 3339 in UTC, with milliseconds; "" is
// none.

// Summary is an instance in a list.
type Summary struct {
	ID         string `json:"id"`
	Definition string `json:"definition"`
	Version    string `json:"version"`
	Key        string `json:"key"`
	State      string `json:"state"`
	Started    string `json:"started"`
	Ended      string `json:"ended,omitempty"`
	Code       string `json:"code,omitempty"` // why it compensates, or is parked
	Message    string `json:"message,omitempty"`
}

// Instances is a list of instances.
type Instances struct {
	Instances []Summary `json:"instances"`
	More      bool      `json:"more,omitempty"` // there are more than the limit
	Shards    []int32   `json:"shards"`         // of this node: those of others are not in the list
}

// Instance is all there is to know of one.
type Instance struct {
	Summary
	StoppedIn    string          `json:"stopped_in,omitempty"` // of parked and suspended: the state it was in
	Pivot        string          `json:"pivot,omitempty"`      // decided or done
	Deadline     string          `json:"deadline,omitempty"`
	Cause        string          `json:"cause,omitempty"` // why it failed, where code says why it is parked
	CauseMessage string          `json:"cause_message,omitempty"`
	ParkedAt     string          `json:"parked_at,omitempty"` // the step
	Savepoint    string          `json:"savepoint,omitempty"` // it goes back to
	Data         json.RawMessage `json:"data,omitempty"`
	Waits        []Wait          `json:"waits,omitempty"`
	Owed         []Owed          `json:"owed,omitempty"`
	Queue        []Queued        `json:"queue,omitempty"`
	Nodes        []Begun         `json:"nodes"`
	History      []Entry         `json:"history"`
}

// Wait is an open one.
type Wait struct {
	Name   string `json:"name"`
	Signal string `json:"signal,omitempty"`
	Topic  string `json:"topic,omitempty"`
	Type   string `json:"type,omitempty"`
	Key    string `json:"key,omitempty"`
	Until  string `json:"until,omitempty"`
}

// Owed is an undo that would have to be done.
type Owed struct {
	Step      string          `json:"step"`
	Execution uint32          `json:"execution"`
	Topic     string          `json:"topic"`
	Type      string          `json:"type"`
	Payload   json.RawMessage `json:"payload,omitempty"`
	Attempts  uint32          `json:"attempts,omitempty"`
}

// Queued is what waits for the instance to take it.
type Queued struct {
	Signal  string          `json:"signal"`
	ID      string          `json:"id"`
	Who     string          `json:"who,omitempty"`
	Time    string          `json:"time"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Begun is a node of the plan that has begun.
type Begun struct {
	Row       uint32 `json:"row"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	Execution uint32 `json:"execution,omitempty"`
	Attempts  uint32 `json:"attempts,omitempty"`
	Due       string `json:"due,omitempty"`
	Code      string `json:"code,omitempty"`
	Message   string `json:"message,omitempty"`
}

// Entry is a fact of the history.
type Entry struct {
	Time      string `json:"time"`
	Kind      string `json:"kind"`
	Step      string `json:"step,omitempty"`
	Direction string `json:"direction,omitempty"`
	Execution uint32 `json:"execution,omitempty"`
	Attempt   uint32 `json:"attempt,omitempty"`
	Code      string `json:"code,omitempty"`
	Message   string `json:"message,omitempty"`
	To        string `json:"to,omitempty"`
	Who       string `json:"who,omitempty"`
}

// ActionRequest is the body of an action. The instance, or definition and key, are in its path.
type ActionRequest struct {
	ID        string          `json:"id,omitempty"` // drawn if empty; the same one again gets the first answer
	Kind      string          `json:"kind"`
	Who       string          `json:"who,omitempty"`
	Why       string          `json:"why,omitempty"`
	Step      string          `json:"step,omitempty"`
	Undo      bool            `json:"undo,omitempty"`
	Name      string          `json:"name,omitempty"`
	Outcome   string          `json:"outcome,omitempty"`
	Payload   json.RawMessage `json:"payload,omitempty"`
	PastPivot bool            `json:"past_pivot,omitempty"`
}

// Answer is what an action was answered: with status 200 when it was carried out, 409 when it was refused.
type Answer struct {
	ID       string `json:"id"`
	Instance string `json:"instance,omitempty"`
	Done     bool   `json:"done"`
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
	Time     string `json:"time"`
}

// QuarantinedView is a record in quarantine. Its value is not shown: it is what nobody could take.
type QuarantinedView struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Place     string `json:"place"`
	Reason    string `json:"reason"`
	Key       string `json:"key,omitempty"`
	Type      string `json:"type,omitempty"`
	Bytes     int    `json:"bytes"`
	Time      string `json:"time"`
	Error     string `json:"error,omitempty"` // why it was not redriven
}

// QuarantineList is a list of records.
type QuarantineList struct {
	Records []QuarantinedView `json:"records"`
	More    bool              `json:"more,omitempty"`
}

// RedriveRequest says what to redrive. Without any field but All it is refused.
type RedriveRequest struct {
	All       bool    `json:"all,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	Topic     string  `json:"topic,omitempty"`
	Key       string  `json:"key,omitempty"`
	Partition *int32  `json:"partition,omitempty"`
	Offsets   []int64 `json:"offsets,omitempty"`
}

// RedriveResult is what became of them.
type RedriveResult struct {
	Redriven int               `json:"redriven"`
	Left     int               `json:"left"` // that nobody can take now either
	Refused  []QuarantinedView `json:"refused,omitempty"`
}

func timestamp(ms int64) string {
	if ms == 0 {
		return ""
	}
	return events.Timestamp(ms)
}

// raw is a payload as JSON: as it is when it is that, else as a string.
func raw(b []byte) json.RawMessage {
	switch {
	case len(b) == 0:
		return nil
	case json.Valid(b) && utf8.Valid(b):
		return b
	}
	s, _ := json.Marshal(string(b))
	return s
}

func summaryOf(id events.InstanceID, h *events.Head) Summary {
	return Summary{ID: id.String(), Definition: h.Definition, Version: h.Version, Key: h.Key, State: h.State.String(),
		Started: timestamp(h.Started), Ended: timestamp(h.Ended), Code: h.Code, Message: h.Message}
}

func viewOf(d *orchestrator.Description) Instance {
	v := Instance{Summary: summaryOf(d.ID, &d.Head), Deadline: timestamp(d.Deadline), Cause: d.Cause, CauseMessage: d.CauseMessage,
		ParkedAt: d.Parked, Savepoint: d.Savepoint, Data: raw(d.Data), Nodes: []Begun{}, History: []Entry{}}
	if d.ParkedIn != 0 {
		v.StoppedIn = d.ParkedIn.String()
	}
	v.Pivot = [...]string{events.PivotAhead: "", events.PivotDecided: "decided", events.PivotDone: "done"}[min(d.Pivot, events.PivotDone)]
	for i := range d.Nodes {
		n := &d.Nodes[i]
		v.Nodes = append(v.Nodes, Begun{Row: n.Row, Name: n.Name, Status: n.Status.String(), Execution: n.Execution, Attempts: n.Attempts,
			Due: timestamp(n.Due), Code: n.Code, Message: n.Message})
	}
	for _, w := range d.Waits {
		v.Waits = append(v.Waits, Wait{w.Name, w.Signal, w.Topic, w.Type, w.Key, timestamp(w.Until)})
	}
	for _, o := range d.Owed {
		v.Owed = append(v.Owed, Owed{o.Step, o.Execution, o.Topic, o.Type, raw(o.Payload), o.Attempts})
	}
	for _, q := range d.Queue {
		v.Queue = append(v.Queue, Queued{q.Name, q.MessageID, q.Who, timestamp(q.Time), raw(q.Payload)})
	}
	for i := range d.History {
		e := &d.History[i]
		x := Entry{Time: timestamp(e.Time), Kind: e.Kind.String(), Step: e.Step, Execution: e.Execution, Attempt: e.Attempt, Code: e.Code, Message: e.Message, Who: e.Who}
		if e.Phase != 0 {
			x.Direction = e.Phase.String()
		}
		if e.To != 0 {
			x.To = e.To.String()
		}
		v.History = append(v.History, x)
	}
	return v
}

func answerView(a orchestrator.Answer) Answer {
	v := Answer{ID: a.ID, Done: a.Done, Code: a.Code, Message: a.Message, Time: timestamp(a.Time)}
	if !a.Instance.IsZero() {
		v.Instance = a.Instance.String()
	}
	return v
}

func quarantinedView(q *orchestrator.QuarantinedRecord) QuarantinedView {
	typ, _ := q.Message.Header(events.HeaderType)
	return QuarantinedView{Partition: q.Partition, Offset: q.Offset, Place: q.Place, Reason: q.Reason, Key: string(q.Message.Key), Type: typ,
		Bytes: len(q.Message.Value), Time: timestamp(q.Time)}
}
