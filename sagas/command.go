package sagas

import (
	"runtime"
	"strconv"
	"strings"
)

// Command is a command that a participant executes: C is what it is told, R is what it answers when it is
// done. One Command is shared by the plans that send it and by the participant that takes it, so that
// both agree on the topic, the type and the shape of the payloads. It is immutable and safe for
// concurrent use.
type Command[C, R any] struct {
	topic, typ string
	source     string
}

// NewCommand names a command by the topic it is sent to and its ce_type. A wrong topic or type is
// reported by the definition that uses the command.
func NewCommand[C, R any](topic, typ string) Command[C, R] {
	return Command[C, R]{topic: topic, typ: typ, source: caller(1)}
}

// Topic is the topic the command is sent to.
func (c Command[C, R]) Topic() string { return c.topic }

// Type is the command's ce_type.
func (c Command[C, R]) Type() string { return c.typ }

// EncodeCommand prints a command's payload as JSON.
func (c Command[C, R]) EncodeCommand(v C) ([]byte, error) { return encodeJSON(v) }

// DecodeCommand reads a command's payload. Fields that C does not have are ignored; what is not one whole
// JSON value of C's shape, an empty payload or null among it, is an error.
func (c Command[C, R]) DecodeCommand(b []byte) (v C, err error) {
	err = decodeJSON(b, &v)
	return v, err
}

// EncodeReply prints a reply's payload as JSON.
func (c Command[C, R]) EncodeReply(v R) ([]byte, error) { return encodeJSON(v) }

// DecodeReply reads a reply's payload like DecodeCommand, except that an empty payload, or null, gives
// the zero R: a participant that has nothing to say needs no payload.
func (c Command[C, R]) DecodeReply(b []byte) (v R, err error) {
	err = decodeReply(b, &v)
	return v, err
}

// Event is a domain event: one that starts sagas, that they wait for, or that they emit. It is immutable and safe for concurrent use.
type Event[E any] struct {
	topic, typ string
	source     string
	readers    string // where the functions that read it were given
	keyBy      func(E) string
	idBy       func(E) string
	typeBy     func(EventView) (string, error)
}

// NewEvent names a domain event by its topic and its ce_type. Without a type, every record of the topic is
// such an event. A wrong topic or type is reported by the definition that uses the event.
func NewEvent[E any](topic, typ string) Event[E] {
	return Event[E]{topic: topic, typ: typ, source: caller(1)}
}

// Topic is the topic the event is read from.
func (e Event[E]) Topic() string { return e.topic }

// Type is the ce_type of the event; "": every record of the topic is one.
func (e Event[E]) Type() string { return e.typ }

// KeyBy says how to find the business key in the event; without it, it is the record's key. An event whose
// key is empty goes to quarantine. fn is pure.
func (e Event[E]) KeyBy(fn func(E) string) Event[E] {
	e.keyBy, e.readers = fn, e.readers+" "+caller(1)
	return e
}

// IDBy says how to find the id of the event, by which it is recognised when it comes again; without it, or
// when it is empty, it is the ce_id, or else the record's place in the topic. fn is pure.
func (e Event[E]) IDBy(fn func(E) string) Event[E] {
	e.idBy, e.readers = fn, e.readers+" "+caller(1)
	return e
}

// TypeBy says how to find the type of a record that has no ce_type, for instance from another header or a
// field of the value; it is compared with the event's type. fn is pure and sees every record of the
// topic, those of other events too; its error sends the record to quarantine.
func (e Event[E]) TypeBy(fn func(EventView) (string, error)) Event[E] {
	e.typeBy, e.readers = fn, e.readers+" "+caller(1)
	return e
}

// plan is the event as the engine reads it.
func (e Event[E]) plan() EventPlan {
	return EventPlan{Topic: e.topic, Type: e.typ, TypeOf: e.typeBy, Key: reads(e.keyBy), ID: reads(e.idBy)}
}

// Encode prints an event as the JSON value that Decode reads.
func (e Event[E]) Encode(v E) ([]byte, error) { return encodeJSON(v) }

// Decode reads an event's value like Command.DecodeCommand.
func (e Event[E]) Decode(b []byte) (v E, err error) {
	err = decodeJSON(b, &v)
	return v, err
}

// reads turns a function of the decoded event into one of the record.
func reads[E any](fn func(E) string) func(EventView) (string, error) {
	if fn == nil {
		return nil
	}
	return func(view EventView) (string, error) {
		var e E
		if err := decodeJSON(view.Value, &e); err != nil {
			return "", err
		}
		return fn(e), nil
	}
}

// caller names a place in the user's source as folder/file.go:line: enough to find it, and the same
// whatever machine built the program.
func caller(skip int) string {
	_, file, line, ok := runtime.Caller(skip + 1)
	if !ok {
		return "unknown source"
	}
	if i := strings.LastIndexByte(file, '/'); i >= 0 {
		file = file[strings.LastIndexByte(file[:i], '/')+1:]
	}
	return file + ":" + strconv.Itoa(line)
}
