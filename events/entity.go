package events

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Rows besides an instance's own: what waits in its queue, what its operators were answered, and the two
// other kinds of entity that live on a shard, correlations and keys.

// Queued is what came for an instance that could not take it yet, in order of arrival (rule L23).
type Queued struct {
	Name      string // of the signal
	MessageID string
	Payload   []byte
	Who       string
	Place     string // where it was read, for quarantine
	Time      int64  // ms since 1970
	Number    uint64 // of a signal that a Wait holds: its place in the queue, should the Wait end without it
	Unknown   []byte
}

// Encode appends the row's bytes to dst.
func (q *Queued) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.string(1, q.Name)
	b.string(2, q.MessageID)
	b.bytes(3, q.Payload)
	b.string(4, q.Who)
	b.string(5, q.Place)
	b.int(6, q.Time)
	b.uint(7, q.Number)
	return append(b, q.Unknown...)
}

// DecodeQueued reads what Encode wrote. The result aliases p.
func DecodeQueued(p []byte) (*Queued, error) {
	q := &Queued{}
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			q.Name = f.string()
		case 2:
			q.MessageID = f.string()
		case 3:
			q.Payload = f.bytes()
		case 4:
			q.Who = f.string()
		case 5:
			q.Place = f.string()
		case 6:
			q.Time = f.int()
		case 7:
			q.Number = f.uint()
		default:
			f.keep()
		}
	}
	q.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("queue row: %w", f.err)
	}
	return q, nil
}

// Answer is what an operator's action, or a signal, was answered: a repeated call gets it again (rule L22).
type Answer struct {
	MessageID string
	Done      bool   // it was carried out, or queued
	Code      string // stable: why not, or how
	Message   string
	Time      int64      // ms since 1970
	Instance  InstanceID // that the action was about, where it was sent to a key
	Unknown   []byte
}

// AnswerNumber is the N of the row that holds the answer to the action with this message id.
func AnswerNumber(messageID string) uint64 {
	sum := sha256.Sum256([]byte(messageID))
	return binary.BigEndian.Uint64(sum[:])
}

// Encode appends the row's bytes to dst.
func (a *Answer) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.string(1, a.MessageID)
	b.bool(2, a.Done)
	b.string(3, a.Code)
	b.string(4, a.Message)
	b.int(5, a.Time)
	b.id(6, a.Instance)
	return append(b, a.Unknown...)
}

// DecodeAnswer reads what Encode wrote. The result aliases p.
func DecodeAnswer(p []byte) (*Answer, error) {
	a := &Answer{}
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			a.MessageID = f.string()
		case 2:
			a.Done = f.bool()
		case 3:
			a.Code = f.string()
		case 4:
			a.Message = f.string()
		case 5:
			a.Time = f.int()
		case 6:
			f.fixed(a.Instance[:])
		default:
			f.keep()
		}
	}
	a.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("answer row: %w", f.err)
	}
	return a, nil
}

// KeyState is what is known of a business key of a definition: its live instance, and the last that ended.
type KeyState struct {
	Definition string
	Key        string
	Live       InstanceID // zero: none
	Last       InstanceID // the last that ended; zero: none that is remembered
	LastState  State      // it ended in
	LastEnded  int64      // ms since 1970
	Unknown    []byte
}

// Encode appends the row's bytes to dst.
func (k *KeyState) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.string(1, k.Definition)
	b.string(2, k.Key)
	b.id(3, k.Live)
	b.id(4, k.Last)
	b.uint(5, uint64(k.LastState))
	b.int(6, k.LastEnded)
	return append(b, k.Unknown...)
}

// DecodeKeyState reads what Encode wrote. The result aliases p.
func DecodeKeyState(p []byte) (*KeyState, error) {
	k := &KeyState{}
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			k.Definition = f.string()
		case 2:
			k.Key = f.string()
		case 3:
			f.fixed(k.Live[:])
		case 4:
			f.fixed(k.Last[:])
		case 5:
			k.LastState = State(f.uint8())
		case 6:
			k.LastEnded = f.int()
		default:
			f.keep()
		}
	}
	k.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("key row: %w", f.err)
	}
	return k, nil
}

// Correlation keeps the events of one correlation key that nobody has taken, and the waits for them. Its due
// time is the earliest Until in it. It is purged when nothing is left in it.
type Correlation struct {
	Definition string
	Topic      string
	Type       string
	Key        string
	Waiting    []Waiter        // in order of registration
	Events     []BufferedEvent // in order of arrival
	Seen       []SeenEvent     // ids taken or dropped lately: the same id is a duplicate until then
	Ended      []Waiter        // registrations that ended before they arrived, or lately (L20)
	Unknown    []byte
}

// Waiter is a Wait of an instance, in one of its executions.
type Waiter struct {
	Instance  InstanceID
	Node      uint32 // the row's number
	Execution uint32
	Until     int64 // in Ended: when it is forgotten, ms since 1970
	Unknown   []byte
}

// BufferedEvent is an event that nobody has taken. Its payload is the KeptEvent row N.
type BufferedEvent struct {
	N       uint32 // of the row: below the number of events that a key may hold, and used again
	ID      string
	Until   int64   // when it is dropped, ms since 1970
	Offered *Waiter // it was offered to this one and not answered; nil: nobody
	Unknown []byte
}

// SeenEvent is the id of an event that was taken or dropped.
type SeenEvent struct {
	ID      string
	Until   int64 // when it is forgotten, ms since 1970
	Unknown []byte
}

// KeptEvent is the payload of a buffered event.
type KeptEvent struct {
	Value   []byte
	Trace   []Header
	Time    int64 // of the event, ms since 1970
	Unknown []byte
}

// Encode appends the row's bytes to dst.
func (c *Correlation) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.string(1, c.Definition)
	b.string(2, c.Topic)
	b.string(3, c.Type)
	b.string(4, c.Key)
	for i := range c.Waiting {
		at := b.begin(5)
		c.Waiting[i].encode(&b)
		b.end(at)
	}
	for i := range c.Events {
		e := &c.Events[i]
		at := b.begin(6)
		b.uint(1, uint64(e.N))
		b.string(2, e.ID)
		b.int(3, e.Until)
		if e.Offered != nil {
			to := b.begin(4)
			e.Offered.encode(&b)
			b.end(to)
		}
		b = append(b, e.Unknown...)
		b.end(at)
	}
	for i := range c.Seen {
		at := b.begin(7)
		b.string(1, c.Seen[i].ID)
		b.int(2, c.Seen[i].Until)
		b = append(b, c.Seen[i].Unknown...)
		b.end(at)
	}
	for i := range c.Ended {
		at := b.begin(8)
		c.Ended[i].encode(&b)
		b.end(at)
	}
	return append(b, c.Unknown...)
}

// DecodeCorrelation reads what Encode wrote. The result aliases p.
func DecodeCorrelation(p []byte) (*Correlation, error) {
	c := &Correlation{}
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			c.Definition = f.string()
		case 2:
			c.Topic = f.string()
		case 3:
			c.Type = f.string()
		case 4:
			c.Key = f.string()
		case 5:
			f.fail(grow(&c.Waiting, &f).decode(f.bytes()))
		case 6:
			f.fail(grow(&c.Events, &f).decode(f.bytes()))
		case 7:
			f.fail(grow(&c.Seen, &f).decode(f.bytes()))
		case 8:
			f.fail(grow(&c.Ended, &f).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	c.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("correlation row: %w", f.err)
	}
	return c, nil
}

func (w *Waiter) encode(b *buffer) {
	b.id(1, w.Instance)
	b.uint(2, uint64(w.Node))
	b.uint(3, uint64(w.Execution))
	b.int(4, w.Until)
	*b = append(*b, w.Unknown...)
}

func (w *Waiter) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			f.fixed(w.Instance[:])
		case 2:
			w.Node = f.uint32()
		case 3:
			w.Execution = f.uint32()
		case 4:
			w.Until = f.int()
		default:
			f.keep()
		}
	}
	w.Unknown = f.unknown
	return f.err
}

func (e *BufferedEvent) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			e.N = f.uint32()
		case 2:
			e.ID = f.string()
		case 3:
			e.Until = f.int()
		case 4:
			f.fail(fresh(&e.Offered).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	e.Unknown = f.unknown
	return f.err
}

func (s *SeenEvent) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			s.ID = f.string()
		case 2:
			s.Until = f.int()
		default:
			f.keep()
		}
	}
	s.Unknown = f.unknown
	return f.err
}

// Encode appends the row's bytes to dst.
func (k *KeptEvent) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.bytes(1, k.Value)
	for i := range k.Trace {
		at := b.begin(2)
		k.Trace[i].encode(&b)
		b.end(at)
	}
	b.int(3, k.Time)
	return append(b, k.Unknown...)
}

// DecodeKeptEvent reads what Encode wrote. The result aliases p.
func DecodeKeptEvent(p []byte) (*KeptEvent, error) {
	k := &KeptEvent{}
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			k.Value = f.bytes()
		case 2:
			if h, whole := f.header(); whole {
				*grow(&k.Trace, &f) = h
			}
		case 3:
			k.Time = f.int()
		default:
			f.keep()
		}
	}
	k.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("event row: %w", f.err)
	}
	return k, nil
}
