package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// spans makes traces of accepted decisions. A saga's place in a trace is journaled with its start, and the ids of
// spans follow from it (see events.SagaTrace), so a span that one node began another may end:
//
//   - one span for the saga, made when it ends, a child of what the starting event named;
//   - one for each attempt of a step or an undo, from the decision of its command to that of its outcome, a child of the
//     saga's. The command named it as its traceparent, so that the participant's spans are its children. It is linked
//     to the attempt whose outcome led to it, an undo to the attempt it undoes, and to the span that the reply names;
//   - one without length for being parked, for an event that was taken, and for an operator's action.
//
// Spans of what is under way exist nowhere but in the journal. Where an attempt began, and what led to it, is
// remembered for at most maxOpenSpans attempts a shard; after a takeover, and beyond that, its beginning is reckoned
// from its time-out, and the second is missing.
type spans struct {
	tracer  trace.Tracer // nil: nothing is traced
	sampler sdk.Sampler

	mu     sync.Mutex // of shards and plans; what is in openSpans belongs to the shard's goroutine
	shards map[int32]*openSpans
	plans  []*sagas.Plan

	forgotten atomic.Uint64
}

const maxOpenSpans = 16384

type openSpans struct{ at map[[8]byte]openSpan }

// openSpan is an attempt whose outcome is open.
type openSpan struct {
	start int64 // ms since 1970
	topic string
	cause [8]byte // the span of what led to it; zero: none
}

// Plans implements orchestrator.HookPlans.
func (s *spans) Plans(plans []*sagas.Plan) {
	s.mu.Lock()
	s.plans = plans
	s.mu.Unlock()
}

// TraceStart implements orchestrator.HookStart. A saga that is not recorded is not traced at all: it hands on the context
// of its event as it came, which costs nothing, where naming spans that nobody records would add a tenth to each command.
func (s *spans) TraceStart(_ int32, id events.InstanceID, definition string, headers []events.Header) (flags byte, ok bool) {
	if s.tracer == nil {
		return 0, false
	}
	in := sdk.SamplingParameters{ParentContext: context.Background(), TraceID: trace.TraceID(id), Name: definition, Kind: trace.SpanKindConsumer}
	if parent, has := events.TraceParent(headers); has {
		in.ParentContext = trace.ContextWithRemoteSpanContext(in.ParentContext, spanContext(parent))
		in.TraceID = parent.Trace
		flags = parent.Flags &^ events.FlagSampled
	}
	return flags | events.FlagSampled, s.sampler.ShouldSample(in).Decision == sdk.RecordAndSample
}

func (s *spans) closed(shard int32) {
	s.mu.Lock()
	delete(s.shards, shard)
	s.mu.Unlock()
}

func (s *spans) of(shard int32) *openSpans {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.shards[shard]
	if o == nil {
		o = &openSpans{map[[8]byte]openSpan{}}
		s.shards[shard] = o
	}
	return o
}

// telling is the work on one decision.
type telling struct {
	*spans
	open   *openSpans
	rec    *events.Record
	d      *events.Decision
	head   *events.HeadView
	saga   events.SagaTrace
	reply  events.SpanContext // what the input named; zero: nothing
	ended  [8]byte            // the span of the attempt that this decision ended last
	plan   *sagas.Plan
	sought bool // for the plan
}

func (s *spans) accepted(shard int32, a *orchestrator.Accepted, head *events.HeadView) {
	if s.tracer == nil || !events.Sampled(head.Trace) {
		return
	}
	saga, _ := events.TraceOf(a.Record.Decision.Instance, head.Trace)
	t := &telling{spans: s, open: s.of(shard), rec: a.Record, d: a.Record.Decision, head: head, saga: saga}
	t.reply, _ = events.TraceParent(a.Headers)
	for i := range t.d.Entries {
		e := &t.d.Entries[i]
		switch e.Kind {
		case events.EntryDone, events.EntryRejected, events.EntryUnknown:
			if e.Attempt > 0 {
				t.outcome(e)
			}
		case events.EntryCommand:
			t.command(e)
		case events.EntryTransition:
			if e.To == events.Parked {
				t.moment("parked", e, codes.Error)
			} else if e.To.Final() {
				t.end(e)
			}
		case events.EntryEvent:
			t.moment("event "+planName(e.Step), e, codes.Unset)
		case events.EntryAction:
			t.moment("action "+e.Code, e, codes.Unset)
		}
	}
}

func (t *telling) id(e *events.Entry) events.CommandID {
	return events.CommandID{Instance: t.d.Instance, Node: e.Node, Execution: e.Execution, Attempt: e.Attempt, Phase: e.Phase}
}

// command remembers an attempt that begins.
func (t *telling) command(e *events.Entry) {
	id := t.id(e)
	if e.Phase == events.Compensate && e.Attempt == 1 {
		t.overtaken(e, "undone")
	}
	if len(t.open.at) >= maxOpenSpans {
		t.forgotten.Add(1)
		return
	}
	o := openSpan{start: t.rec.Time, cause: t.ended}
	if e.Attempt > 1 {
		id.Attempt--
		o.cause = t.saga.Command(id).Span
		id.Attempt++
	}
	for i := range t.d.Emits {
		if m := &t.d.Emits[i]; m.Kind == events.EmitCommand && m.Node == e.Node && m.Phase == e.Phase {
			o.topic = m.Topic
		}
	}
	t.open.at[t.saga.Command(id).Span] = o
}

// outcome ends an attempt's span.
func (t *telling) outcome(e *events.Entry) {
	name, status := "done", codes.Unset
	switch e.Kind {
	case events.EntryRejected:
		name, status = "rejected", codes.Error
	case events.EntryUnknown:
		name, status = "unknown", codes.Error
	}
	t.attempt(e, t.id(e), name, status)
	if e.Kind == events.EntryDone && e.Phase == events.Forward {
		t.overtaken(e, "done by an earlier attempt")
	}
}

// overtaken ends the span of a step's open attempt, if there is one besides the one e speaks of.
func (t *telling) overtaken(e *events.Entry, why string) {
	id := t.id(e)
	id.Phase = events.Forward
	row, _ := t.row(e.Node)
	if row == nil {
		return
	}
	id.Attempt = row.Attempts
	if _, open := t.open.at[t.saga.Command(id).Span]; open {
		t.attempt(&events.Entry{Step: e.Step, Node: e.Node, Code: "overtaken", Message: why}, id, "unknown", codes.Unset)
	}
}

func (t *telling) attempt(e *events.Entry, id events.CommandID, outcome string, status codes.Code) {
	self := t.saga.Command(id)
	o, known := t.open.at[self.Span]
	delete(t.open.at, self.Span)
	if !known {
		o.start = t.began(e, id)
	}
	if t.ended == [8]byte{} || status != codes.Unset || e.Kind == events.EntryDone {
		t.ended = self.Span
	}
	name, phase := valid(planName(e.Step)), "forward"
	if id.Phase == events.Compensate {
		name, phase = "undo "+name, "compensate"
	}
	attrs := make([]attribute.KeyValue, 0, 10)
	attrs = append(attrs,
		attribute.String("skald.definition", valid(string(t.head.Definition))),
		attribute.String("skald.instance", t.d.Instance.String()),
		attribute.String("skald.step", valid(e.Step)),
		attribute.String("skald.phase", phase),
		attribute.Int("skald.attempt", int(id.Attempt)),
		attribute.String("skald.outcome", outcome))
	if o.topic != "" {
		attrs = append(attrs, attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", valid(o.topic)))
	}
	if e.Code != "" {
		attrs = append(attrs, attribute.String("skald.code", valid(events.Cut(e.Code, maxLabel))))
	}
	var links []trace.Link
	link := func(c events.SpanContext, what string) {
		links = append(links, trace.Link{SpanContext: spanContext(c), Attributes: []attribute.KeyValue{attribute.String("skald.link", what)}})
	}
	if o.cause != [8]byte{} {
		c := t.saga.Saga
		c.Span = o.cause
		link(c, "follows")
	}
	if id.Phase == events.Compensate {
		if row, _ := t.row(id.Node); row != nil && row.Attempts > 0 {
			undone := id
			undone.Phase, undone.Attempt = events.Forward, row.Attempts
			link(t.saga.Command(undone), "undoes")
		}
	}
	if t.reply.Span != [8]byte{} && t.reply.Span != self.Span && e.Code != "overtaken" {
		link(t.reply, "reply")
	}
	t.span(name, trace.SpanKindProducer, self, t.saga.Saga, o.start, status, e, attrs, links)
}

// end makes the span of the saga as a whole.
func (t *telling) end(e *events.Entry) {
	status := codes.Unset
	if e.To != events.Completed {
		status = codes.Error
	}
	t.span(valid(string(t.head.Definition)), trace.SpanKindConsumer, t.saga.Saga, t.saga.Parent, t.head.Started, status, e, []attribute.KeyValue{
		attribute.String("skald.definition", valid(string(t.head.Definition))),
		attribute.String("skald.instance", t.d.Instance.String()),
		attribute.String("skald.state", e.To.String()),
		attribute.String("skald.code", valid(events.Cut(e.Code, maxLabel))),
	}, nil)
}

// moment makes a span without length.
func (t *telling) moment(name string, e *events.Entry, status codes.Code) {
	self := t.saga.Saga
	binary.BigEndian.PutUint64(self.Span[:], rand.Uint64()|1)
	var links []trace.Link
	if t.reply.Span != [8]byte{} {
		links = append(links, trace.Link{SpanContext: spanContext(t.reply)})
	}
	t.span(valid(events.Cut(name, maxLabel)), trace.SpanKindInternal, self, t.saga.Saga, t.rec.Time, status, e, []attribute.KeyValue{
		attribute.String("skald.definition", valid(string(t.head.Definition))),
		attribute.String("skald.instance", t.d.Instance.String()),
		attribute.String("skald.code", valid(events.Cut(e.Code, maxLabel))),
	}, links)
}

// maxStatus bounds what a span says of an error, in bytes.
const maxStatus = 256

func (t *telling) span(name string, kind trace.SpanKind, self, parent events.SpanContext, start int64, status codes.Code, e *events.Entry, attrs []attribute.KeyValue, links []trace.Link) {
	ctx := context.WithValue(context.Background(), nameKey{}, &self)
	if parent.Span != [8]byte{} {
		ctx = trace.ContextWithRemoteSpanContext(ctx, spanContext(parent))
	}
	_, s := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithTimestamp(time.UnixMilli(start)), trace.WithAttributes(attrs...), trace.WithLinks(links...))
	if status == codes.Error && !mutant.On("telemetry-errors-without-status") {
		text := e.Code
		if e.Message != "" {
			text += ": " + e.Message
		}
		s.SetStatus(codes.Error, valid(events.Cut(text, maxStatus)))
	}
	s.End(trace.WithTimestamp(time.UnixMilli(max(t.rec.Time, start))))
}

// row decodes the row of a node that the decision writes; nil: it writes none.
func (t *telling) row(node uint32) (st *events.NodeState, wasDue int64) {
	for i := range t.d.Rows {
		if r := &t.d.Rows[i]; r.Ref == (events.RowRef{Part: events.PartNode, N: uint64(node)}) && t.d.Whose(r) == t.d.Instance {
			if st, err := events.DecodeNode(r.Value); err == nil {
				return st, r.WasDue
			}
		}
	}
	return nil, 0
}

// began reckons when an attempt began that is not remembered: its time-out before it was due.
func (t *telling) began(e *events.Entry, id events.CommandID) int64 {
	row, wasDue := t.row(e.Node)
	if row == nil || mutant.On("telemetry-forgets-beginnings") {
		return t.rec.Time
	}
	node := e.Node
	if row.Plan > 0 {
		node = row.Plan - 1
	}
	p := t.planOf()
	if p == nil || int(node) >= len(p.Nodes) || p.Nodes[node].Step == nil {
		return t.rec.Time
	}
	step := p.Nodes[node].Step
	at := int64(0)
	switch {
	case id.Phase == events.Forward && id.Attempt == row.Attempts && row.Expiry > 0:
		at = row.Expiry - step.Timeout.Milliseconds()
	case id.Phase == events.Compensate && step.Undo != nil && wasDue > 0:
		at = wasDue - step.Undo.Timeout.Milliseconds()
	}
	if at < t.head.Started || at > t.rec.Time {
		return t.rec.Time
	}
	return at
}

func (t *telling) planOf() *sagas.Plan {
	if t.sought {
		return t.plan
	}
	t.sought = true
	for i := range t.d.Rows {
		if r := &t.d.Rows[i]; r.Ref.Part == events.PartHead && t.d.Whose(r) == t.d.Instance {
			h, err := events.DecodeHead(r.Value)
			if err != nil {
				return nil
			}
			t.mu.Lock()
			defer t.mu.Unlock()
			for _, p := range t.plans {
				if p.Name == h.Definition && p.Version == h.Version && p.Hash == h.DefHash {
					t.plan = p
				}
			}
		}
	}
	return t.plan
}

func spanContext(c events.SpanContext) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: c.Trace, SpanID: c.Span, TraceFlags: trace.TraceFlags(c.Flags), Remote: true})
}

// named gives spans the ids that their journal implies. (sdktrace.IDGenerator)
type named struct{}

type nameKey struct{}

func (named) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	c := ctx.Value(nameKey{}).(*events.SpanContext)
	return c.Trace, c.Span
}

func (named) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	return ctx.Value(nameKey{}).(*events.SpanContext).Span
}
