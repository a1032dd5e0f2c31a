package participant

import (
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
)

// command is a record that can be answered: it has an id and a topic to answer to.
type command struct {
	topic, typ  string
	id, replyTo string
	key         []byte
	idempotency string
	instance    string
	undoes      string
	phase       events.Phase
	attempt     int
	expiry      int64 // ms since 1970; 0: none
	payload     []byte
	trace       []events.Header
	partition   int32 // with topic and offset its place, for logs
	offset      int64
	problem     error // why it must not be executed: its headers cannot be read
}

// parseCommand reads a record's headers. An error says that it cannot even be answered.
func parseCommand(r *kgo.Record) (*command, error) {
	m := events.Message{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Headers: make([]events.Header, len(r.Headers))}
	for i, h := range r.Headers {
		m.Headers[i] = events.Header{Key: h.Key, Value: h.Value}
	}
	get := func(name string) string { v, _ := m.Header(name); return v }
	c := &command{
		topic: r.Topic, key: r.Key, payload: r.Value, phase: events.Forward,
		typ: get(events.HeaderType), id: get(events.HeaderID), replyTo: get(events.HeaderReplyTo),
		idempotency: get(events.HeaderIdempotencyKey), undoes: get(events.HeaderUndoes),
		instance: events.Cut(get(events.HeaderCorrelationID), events.MaxIDBytes),
	}
	switch {
	case c.id == "" || len(c.id) > events.MaxIDBytes:
		return nil, fmt.Errorf("its %s has %d bytes, not 1 to %d", events.HeaderID, len(c.id), events.MaxIDBytes)
	case !isTopic(c.replyTo):
		return nil, fmt.Errorf("its %s %.80q is no topic", events.HeaderReplyTo, c.replyTo)
	}
	c.problem = c.parse(&m, get)
	if c.problem == nil {
		c.trace = events.TraceHeaders(m.Headers)
	}
	return c, nil
}

func (c *command) parse(m *events.Message, get func(string) string) (err error) {
	if err := events.CheckHeaders(m.Headers); err != nil {
		return err
	}
	if n := len(c.idempotency); n == 0 || n > events.MaxIDBytes {
		return fmt.Errorf("the header %s has %d bytes, not 1 to %d", events.HeaderIdempotencyKey, n, events.MaxIDBytes)
	}
	if n := len(c.undoes); n > events.MaxIDBytes {
		return fmt.Errorf("the header %s has %d bytes, at most %d", events.HeaderUndoes, n, events.MaxIDBytes)
	}
	switch phase := get(events.HeaderSagaPhase); {
	case phase == events.Compensate.String() || phase == "" && c.undoes != "":
		c.phase = events.Compensate
	case phase != "" && phase != events.Forward.String():
		return fmt.Errorf("the header %s is forward or compensate, not %.40q", events.HeaderSagaPhase, phase)
	case c.undoes != "":
		return fmt.Errorf("a forward command with the header %s", events.HeaderUndoes)
	}
	if c.undoes == c.idempotency {
		return fmt.Errorf("it undoes itself: %s equals %s", events.HeaderUndoes, events.HeaderIdempotencyKey)
	}
	if s := get(events.HeaderExpiryTime); s != "" {
		if c.expiry, err = events.ParseTimestamp(s); err != nil {
			return fmt.Errorf("the header %s: %w", events.HeaderExpiryTime, err)
		}
	}
	if s := get(events.HeaderSagaAttempt); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return fmt.Errorf("the header %s is a number, not %.40q", events.HeaderSagaAttempt, s)
		}
		c.attempt = int(n)
	}
	return nil
}

// lock is the name under which a forward command and its undo exclude each other.
func (c *command) lock() string {
	if c.undoes != "" {
		return c.undoes
	}
	return c.idempotency
}

func (c *command) call() Call {
	call := Call{ID: c.id, Type: c.typ, Instance: c.instance, Step: stepOf(c.idempotency), Key: string(c.key),
		IdempotencyKey: c.idempotency, Undoes: c.undoes, Phase: c.phase, Attempt: c.attempt}
	if c.expiry != 0 {
		call.Expiry = time.UnixMilli(c.expiry)
	}
	return call
}

// reply makes the record that gives an answer to this attempt. The same answer to the same attempt is the
// same record, byte for byte; to another attempt, only the ids and the trace differ.
func (c *command) reply(source string, a Answer, suffix string) *kgo.Record {
	r := &kgo.Record{Topic: c.replyTo, Key: c.key, Value: a.Value}
	add := func(k, v string) { r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)}) }
	add(events.HeaderSpecVersion, "1.0")
	add(events.HeaderID, c.id+"-"+a.Outcome.String()+suffix)
	add(events.HeaderSource, source)
	add(events.HeaderType, bounded(c.typ, events.MaxIDBytes)+".reply")
	add(events.HeaderTime, events.Timestamp(a.Time))
	if len(a.Value) > 0 {
		add(events.HeaderContentType, "application/json")
	} else {
		r.Value = []byte{} // an empty payload, not a null value
	}
	add(events.HeaderCausationID, c.id)
	if c.instance != "" {
		add(events.HeaderCorrelationID, bounded(c.instance, events.MaxIDBytes))
	}
	add(events.HeaderOutcome, a.Outcome.String())
	if a.Outcome == events.ReplyRejected || a.Outcome == events.ReplyRetry {
		add(events.HeaderErrorCode, bounded(a.Code, maxCode))
		add(events.HeaderErrorMessage, bounded(a.Message, events.MaxMessage))
	}
	for _, h := range c.trace {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

// isTopic reports whether Kafka allows s as a topic's name.
func isTopic(s string) bool {
	if s == "" || len(s) > 249 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '_', b == '-':
		default:
			return false
		}
	}
	return true
}
