package events

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/skald-io/skald/internal/mutant"
)

// A saga's place in a distributed trace (W3C Trace Context) is decided once, when it starts, and journaled in
// Head.Trace: the trace context of the event that started it, as it came, and, where the node that decided
// the start traces, a mark with the flags that hold from then on. Everything else follows from the record: the
// trace is the event's, or, without one, is named like the instance; the ids of spans are hashes. So every
// owner, however it is configured, sends the same bytes (L14), and whoever ends a span names it as the
// command did.
//
// Without the mark the event's context is handed on untouched: a span that nobody records would cut the trace.

// headerTraced is the mark. It never leaves the journal, and TraceHeaders does not take it from outside.
const headerTraced = "skald-trace"

// FlagSampled is the flag of a SpanContext by which whoever sees it records the trace.
const FlagSampled = 1

// SpanContext names a span of a trace.
type SpanContext struct {
	Trace [16]byte
	Span  [8]byte
	Flags byte
}

// ParseTraceParent reads a traceparent header: version 00, or what it says to read of later ones. ok is false
// for anything else, all-zero ids included.
func ParseTraceParent(v []byte) (c SpanContext, ok bool) {
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return c, false
	}
	for _, b := range v[:55] {
		if b >= 'A' && b <= 'F' {
			return c, false
		}
	}
	var version, flags [1]byte
	for _, part := range []struct{ to, from []byte }{{version[:], v[:2]}, {c.Trace[:], v[3:35]}, {c.Span[:], v[36:52]}, {flags[:], v[53:55]}} {
		if _, err := hex.Decode(part.to, part.from); err != nil {
			return SpanContext{}, false
		}
	}
	c.Flags = flags[0]
	switch {
	case version[0] == 0xff, version[0] == 0 && len(v) > 55, len(v) > 55 && v[55] != '-', c.Trace == [16]byte{}, c.Span == [8]byte{}:
		return SpanContext{}, false
	}
	return c, true
}

const traceParentSize = 55

// AppendTraceParent appends the context as a traceparent header of version 00.
func (c SpanContext) AppendTraceParent(dst []byte) []byte {
	dst = hex.AppendEncode(append(dst, "00-"...), c.Trace[:])
	dst = hex.AppendEncode(append(dst, '-'), c.Span[:])
	return hex.AppendEncode(append(dst, '-'), []byte{c.Flags})
}

// TraceParent finds the span that headers name; ok is false when they name none, or not in the W3C's form.
func TraceParent(headers []Header) (c SpanContext, ok bool) {
	for i := range headers {
		if headers[i].Key == HeaderTraceParent {
			return ParseTraceParent(headers[i].Value)
		}
	}
	return c, false
}

// MarkTraced gives the trace context of a saga that is traced from its start on, for Head.Trace, from that of
// the event which starts it. flags are those of its spans. A traceparent that cannot be read is left out, and
// with it the tracestate, as the W3C says.
func MarkTraced(trace []Header, flags byte) []Header {
	_, ok := TraceParent(trace)
	out := make([]Header, 0, len(trace)+1)
	for _, h := range trace {
		if ok || h.Key != HeaderTraceParent && h.Key != HeaderTraceState {
			out = append(out, h)
		}
	}
	return append(out, Header{headerTraced, []byte{flags}})
}

// SagaTrace is the trace of a saga whose start was marked.
type SagaTrace struct {
	Saga   SpanContext // of the instance as a whole; its steps' spans are children of it
	Parent SpanContext // of the event that started it; zero: it had none
}

// Sampled reports whether the spans of the saga with that Head.Trace are recorded.
func Sampled(trace []Header) bool {
	for i := range trace {
		if h := &trace[i]; h.Key == headerTraced && len(h.Value) == 1 {
			return h.Value[0]&FlagSampled != 0
		}
	}
	return false
}

// TraceOf reads Head.Trace. ok is false for a saga that is not traced.
func TraceOf(id InstanceID, trace []Header) (t SagaTrace, ok bool) {
	for i := range trace {
		if h := &trace[i]; h.Key == headerTraced && len(h.Value) == 1 {
			t.Saga.Flags, ok = h.Value[0], true
		}
	}
	if !ok {
		return SagaTrace{}, false
	}
	t.Saga.Trace = id
	if parent, has := TraceParent(trace); has {
		t.Parent, t.Saga.Trace = parent, parent.Trace
	}
	t.Saga.Span = spanID(append(append(make([]byte, 0, 32), "saga"...), id[:]...))
	return t, true
}

// Command is the span of one attempt of a step, or of its undo: from the command's decision to its outcome.
func (t SagaTrace) Command(id CommandID) SpanContext {
	b := append(append(make([]byte, 0, 48), "step"...), id.Instance[:]...)
	b = binary.BigEndian.AppendUint32(b, id.Node)
	b = binary.BigEndian.AppendUint32(b, id.Execution)
	b = append(b, byte(id.Phase))
	if !mutant.On("events-attempts-share-a-span") {
		b = binary.BigEndian.AppendUint32(b, id.Attempt)
	}
	c := t.Saga
	c.Span = spanID(b)
	return c
}

func spanID(of []byte) (s [8]byte) {
	sum := sha256.Sum256(of)
	copy(s[:], sum[:])
	if s == [8]byte{} {
		s[7] = 1 // zero names no span
	}
	return s
}

// emittedTrace splits Head.Trace into what is handed on as it came and, for a traced saga, where its spans are.
func emittedTrace(id InstanceID, trace []Header) (rest []Header, traced *SagaTrace) {
	t, ok := TraceOf(id, trace)
	if !ok {
		return trace, nil
	}
	traced = new(SagaTrace) // allocated here, for most sagas are not traced
	*traced = t
	if len(trace) > 1 {
		rest = make([]Header, 0, len(trace)-1)
	}
	for _, h := range trace {
		if h.Key != headerTraced && h.Key != HeaderTraceParent {
			rest = append(rest, h)
		}
	}
	return rest, traced
}

// about appends the trace context of a message about the instance; rest is what emittedTrace left.
func (t *SagaTrace) about(headers, rest []Header) []Header {
	if t != nil {
		headers = append(headers, Header{HeaderTraceParent, t.Saga.AppendTraceParent(make([]byte, 0, traceParentSize))})
	}
	return append(headers, rest...)
}

// traceName is a header's name as a string, without a copy for those that stand in every head of a saga that has
// a trace.
func traceName(b []byte) string {
	switch string(b) {
	case headerTraced:
		return headerTraced
	case HeaderTraceParent:
		return HeaderTraceParent
	case HeaderTraceState:
		return HeaderTraceState
	case HeaderBaggage:
		return HeaderBaggage
	}
	return string(b)
}

// HeadView is what telemetry wants of a head at every decision. Its bytes alias the row.
type HeadView struct {
	Definition []byte
	State      State
	Started    int64 // ms since 1970
	Ended      int64
	Trace      []Header // with the mark: see TraceOf
}

// ViewHead reads a head, without the cost of DecodeHead.
func ViewHead(p []byte) (v HeadView, err error) {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			v.Definition = f.bytes()
		case 5:
			v.State = State(f.uint8())
		case 8:
			v.Started = f.int()
		case 9:
			v.Ended = f.int()
		case 14:
			var x Header
			whole, err := x.decode(f.bytes())
			f.fail(err)
			if whole {
				*grow(&v.Trace, &f) = x
			}
		}
	}
	if f.err != nil {
		return HeadView{}, fmt.Errorf("instance head: %w", f.err)
	}
	return v, nil
}
