package engine_test

import (
	"context"
	"encoding/hex"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/skald-io/skald/connectors/telemetry"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// traced is a saga that is undone when its second step is rejected.
func (w *world) traced() orchestrator.Definition {
	reserve := sagas.NewCommand[Reserve, Reserved](w.cmds(), "reserve")
	release := sagas.NewCommand[Reserve, struct{}](w.cmds(), "release")
	charge := sagas.NewCommand[Reserve, struct{}](w.cmds(), "charge")
	return sagas.Define("order", "1",
		sagas.StartOn(sagas.NewEvent[Order](w.orders(), "OrderPlaced"), startOrder),
		sagas.Seq(
			sagas.Step("reserve", reserve, buildReserve, takeReserved).Undo(sagas.With(release, plainReserve)),
			sagas.Step("charge", charge, plainReserve, nil).Pivot(),
		))
}

// collector is a node's telemetry, kept in memory.
type collector struct {
	*telemetry.Telemetry
	spans *tracetest.InMemoryExporter
}

func collect(t *testing.T, w *world, node string) *collector {
	t.Helper()
	c := &collector{spans: tracetest.NewInMemoryExporter()}
	var err error
	c.Telemetry, err = telemetry.New(bounded(t), telemetry.Options{App: w.app, Node: node, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(c.spans)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Shutdown(context.Background()) })
	return c
}

func (c *collector) hook(cfg *orchestrator.Config) { cfg.Hooks = append(cfg.Hooks, c.Telemetry) }

// page is what Prometheus reads.
func (c *collector) page() string {
	r := httptest.NewRecorder()
	c.Handler().ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
	return r.Body.String()
}

// shows waits until every line stands on the page.
func (c *collector) shows(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		until(t, "the page has the line "+line, func() bool { return slices.Contains(strings.Split(c.page(), "\n"), line) })
	}
}

// of waits for n spans of an instance, and gives them by name.
func (c *collector) of(t *testing.T, id events.InstanceID, n int) map[string]tracetest.SpanStub {
	t.Helper()
	out := map[string]tracetest.SpanStub{}
	until(t, "the instance's spans are there", func() bool {
		clear(out)
		for _, s := range c.spans.GetSpans() {
			if attr(s, "skald.instance") == id.String() {
				out[s.Name] = s
			}
		}
		return len(out) >= n
	})
	if len(out) != n {
		t.Errorf("%d spans, not %d: %v", len(out), n, out)
	}
	return out
}

func attr(s tracetest.SpanStub, key string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

func linked(s tracetest.SpanStub, what string) string {
	for _, l := range s.Links {
		for _, a := range l.Attributes {
			if string(a.Key) == "skald.link" && a.Value.AsString() == what {
				return l.SpanContext.SpanID().String()
			}
		}
	}
	return ""
}

const upstream = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// replySpan is what the participant says its own span is.
const replySpan = "00f067aa0ba902b7"

// answers is a participant that rejects what is charged to the order "refused", answers garbage to "garbled", and
// has a span of its own.
func (w *world) answers(t *testing.T) (parents func(typ, key string) events.SpanContext) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.b.addr), kgo.ConsumeTopics(w.cmds()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(50*time.Millisecond), kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]events.SpanContext{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			f := cl.PollFetches(context.Background())
			if f.IsClientClosed() {
				return
			}
			f.EachRecord(func(r *kgo.Record) {
				h := map[string]string{}
				for _, x := range r.Headers {
					h[x.Key] = string(x.Value)
				}
				key, typ := string(r.Key), h[events.HeaderType]
				parent, _ := events.ParseTraceParent([]byte(h[events.HeaderTraceParent]))
				mu.Lock()
				seen[typ+" "+key] = parent
				mu.Unlock()
				own := parent
				hex.Decode(own.Span[:], []byte(replySpan))
				reply := headers(events.HeaderCausationID, h[events.HeaderID], events.HeaderTraceParent, string(own.AppendTraceParent(nil)))
				value := `{"shelf":"A7"}`
				switch {
				case key == "garbled":
					value = `{"shelf":`
				case key == "refused" && typ == "charge":
					reply = append(reply, headers(events.HeaderOutcome, "rejected", events.HeaderErrorCode, "card-declined", events.HeaderErrorMessage, "no money")...)
				}
				cl.Produce(context.Background(), &kgo.Record{Topic: w.own().Replies(), Key: r.Key, Value: []byte(value), Headers: reply}, nil)
			})
		}
	}()
	t.Cleanup(func() { cl.Close(); <-ended })
	return func(typ, key string) events.SpanContext {
		mu.Lock()
		defer mu.Unlock()
		return seen[typ+" "+key]
	}
}

// accepted keeps what a hook is told, to tell it again.
type accepted struct {
	mu   sync.Mutex
	list []orchestrator.Accepted
}

func (a *accepted) Accepted(_ int32, x *orchestrator.Accepted) {
	a.mu.Lock()
	a.list = append(a.list, *x)
	a.mu.Unlock()
}

func TestASagaIsATraceOfItsStepsAndCounted(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
	w := newWorld(t, embedded(t), 1)
	c, all := collect(t, w, "a"), &accepted{}
	parents := w.answers(t)
	plain := func(cfg *orchestrator.Config) { cfg.Definitions = []orchestrator.Definition{w.traced()} }
	n := w.start(t, plain, c.hook, func(cfg *orchestrator.Config) { cfg.Hooks = append(cfg.Hooks, all) })
	n.owns(t, 1)

	from := order("good", "")
	from.Headers = append(from.Headers, headers(events.HeaderTraceParent, upstream, events.HeaderTraceState, "vendor=x", events.HeaderBaggage, "k=v")...)
	w.put(t, w.orders(), 0, from)
	w.place(t, 0, "refused")
	w.completed(t, n, "good")
	w.state(t, "refused", events.Compensated, n)

	good := c.of(t, w.id("good"), 3)
	saga, reserve, charge := good["order"], good["reserve"], good["charge"]
	if got := saga.Parent.SpanID().String(); got != "b7ad6b7169203331" || saga.SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the saga's parent is %s in %s", got, saga.SpanContext.TraceID())
	}
	for typ, s := range map[string]tracetest.SpanStub{"reserve": reserve, "charge": charge} {
		parent := parents(typ, "good")
		switch {
		case s.Parent.SpanID() != saga.SpanContext.SpanID():
			t.Errorf("%s: a child of %s", typ, s.Parent.SpanID())
		case s.SpanContext.SpanID() != parent.Span || s.SpanContext.TraceID() != parent.Trace:
			t.Errorf("%s: the span is %s, its command named %x", typ, s.SpanContext.SpanID(), parent.Span)
		case linked(s, "reply") != replySpan:
			t.Errorf("%s: no link to the participant's span: %v", typ, s.Links)
		case s.Status.Code != codes.Unset || attr(s, "skald.outcome") != "done" || attr(s, "messaging.destination.name") != w.cmds():
			t.Errorf("%s: %v %v", typ, s.Status, s.Attributes)
		case s.EndTime.Before(s.StartTime) || s.StartTime.Before(saga.StartTime) || s.EndTime.After(saga.EndTime):
			t.Errorf("%s lies outside of its saga", typ)
		}
	}
	if linked(charge, "follows") != reserve.SpanContext.SpanID().String() {
		t.Errorf("charge is linked to %v", charge.Links)
	}

	bad := c.of(t, w.id("refused"), 4)
	saga, charge = bad["order"], bad["charge"]
	if saga.SpanContext.TraceID().String() != w.id("refused").String() || saga.Parent.IsValid() {
		t.Errorf("a saga without a parent is in the trace %s", saga.SpanContext.TraceID())
	}
	if saga.Status.Code != codes.Error || charge.Status.Code != codes.Error || !strings.HasPrefix(charge.Status.Description, "card-declined: no money") || attr(charge, "skald.outcome") != "rejected" {
		t.Errorf("%v, %v %v", saga.Status, charge.Status, charge.Attributes)
	}
	undo := bad["undo reserve"]
	if attr(undo, "skald.phase") != "compensate" || linked(undo, "undoes") != bad["reserve"].SpanContext.SpanID().String() || linked(undo, "follows") != charge.SpanContext.SpanID().String() {
		t.Errorf("%v %v", undo.Attributes, undo.Links)
	}

	scope := `{definition="order"`
	c.shows(t,
		`skald_sagas_started_total`+scope+`} 2`,
		`skald_sagas_ended_total`+scope+`,state="completed"} 1`,
		`skald_sagas_ended_total`+scope+`,state="compensated"} 1`,
		`skald_attempts_total`+scope+`,outcome="done",phase="forward",step="reserve"} 2`,
		`skald_attempts_total`+scope+`,outcome="rejected",phase="forward",step="charge"} 1`,
		`skald_attempts_total`+scope+`,outcome="done",phase="compensate",step="reserve"} 1`,
		`skald_emitted_total{topic="`+w.cmds()+`"} 5`,
		`skald_shards 1`,
		`skald_emit_duration_seconds_count 5`,
	)
	n.stop(t)
	c.shows(t, `skald_shards 0`)

	// Another node that saw none of the commands ends the same spans, as far as it can know them.
	other := collect(t, w, "b")
	plans := &orchestrator.Config{}
	plain(plans)
	p, err := plans.Definitions[0].Plan()
	if err != nil {
		t.Fatal(err)
	}
	other.Plans([]*sagas.Plan{p})
	for i := range all.list {
		if a := all.list[i]; a.Record.Decision != nil && a.Record.Decision.Input.Kind == events.InputReply {
			other.Accepted(int32(i), &a) // of a shard of its own: it remembers nothing
		}
	}
	for name, s := range other.of(t, w.id("refused"), 4) {
		if was := bad[name]; s.SpanContext.SpanID() != was.SpanContext.SpanID() || !s.StartTime.Equal(was.StartTime) || !s.EndTime.Equal(was.EndTime) || s.Parent.SpanID() != was.Parent.SpanID() {
			t.Errorf("%s: %s from %s to %s, and after a takeover %s from %s to %s", name, was.SpanContext.SpanID(), was.StartTime, was.EndTime, s.SpanContext.SpanID(), s.StartTime, s.EndTime)
		}
	}
}

func TestASagaThatIsNotTracedKeepsItsContext(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	parents := w.answers(t)
	n := w.start(t, func(cfg *orchestrator.Config) { cfg.Definitions = []orchestrator.Definition{w.traced()} })
	n.owns(t, 1)
	from := order("good", "")
	from.Headers = append(from.Headers, headers(events.HeaderTraceParent, upstream)...)
	w.put(t, w.orders(), 0, from)
	w.completed(t, n, "good")
	if got := parents("charge", "good"); string(got.AppendTraceParent(nil)) != upstream {
		t.Errorf("%s", got.AppendTraceParent(nil))
	}
	n.stop(t)
}

func TestASagaThatIsNotSampledHasNoSpansAndNamesNone(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
	w := newWorld(t, embedded(t), 1)
	c, parents := collect(t, w, "a"), w.answers(t)
	n := w.start(t, c.hook, func(cfg *orchestrator.Config) { cfg.Definitions = []orchestrator.Definition{w.traced()} })
	n.owns(t, 1)
	w.place(t, 0, "good")
	w.completed(t, n, "good")
	if got := parents("charge", "good"); got != (events.SpanContext{}) {
		t.Errorf("%+v", got)
	}
	n.stop(t)
	if got := c.spans.GetSpans(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestTheInstancesOfAStoreAreCountedAgainByWhoTakesItOver(t *testing.T) {
	w := newWorld(t, embedded(t), 2)
	w.answers(t)
	w.hold("*")
	plain := func(cfg *orchestrator.Config) { cfg.Definitions = []orchestrator.Definition{w.traced()} }
	lines := []string{
		`skald_instances{definition="order",state="parked"} 2`,
		`skald_shards_counting 0`,
		`skald_shards 2`,
	}
	first := collect(t, w, "a")
	n := w.start(t, plain, first.hook)
	n.owns(t, 2)
	// Two that are parked: a payload nobody can print, a reply nobody can read.
	w.put(t, w.orders(), 0, order("garbled", ""))
	w.put(t, w.orders(), 1, order("built", "build"))
	w.place(t, 0, "good")
	w.completed(t, n, "good")
	for _, key := range []string{"garbled", "built"} {
		w.state(t, key, events.Parked, n)
	}
	first.shows(t, lines...)
	first.shows(t, `skald_instances{definition="order",state="running"} 0`)
	n.stop(t)
	first.shows(t, `skald_shards 0`)
	if page := first.page(); strings.Contains(page, "skald_instances{") {
		t.Error("a node without shards still shows their instances")
	}

	// Nothing changes there; they are found in the store.
	second := collect(t, w, "b")
	n = w.start(t, plain, second.hook)
	n.owns(t, 2)
	second.shows(t, lines...)
	n.stop(t)
}
