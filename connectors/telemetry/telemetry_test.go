package telemetry

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

var update = flag.Bool("update", false, "write docs/reference/metrics.md")

func TestTheReferenceOfMetricsIsCurrent(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "metrics.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != Reference() {
		t.Errorf("%s is not what the table says (%v): run go generate ./connectors/telemetry", path, err)
	}
	for _, s := range table {
		for _, l := range s.labels {
			if labelHelp[l] == "" {
				t.Errorf("nothing is said of the label %s", l)
			}
		}
	}
}

func begun(t *testing.T) (*Telemetry, *tracetest.InMemoryExporter) {
	t.Helper()
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	e := tracetest.NewInMemoryExporter()
	x, err := New(context.Background(), Options{App: "shop", Node: "n\xff1", SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(e)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Shutdown(context.Background()) })
	return x, e
}

func page(x *Telemetry) string {
	r := httptest.NewRecorder()
	x.Handler().ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
	return r.Body.String()
}

var instance = events.NewInstanceID("shop", "place-order", "order-7", "evt-7", 64)

// decision is one about a traced saga of that definition.
func decision(definition string, entries ...events.Entry) *events.Decision {
	h := events.Head{Definition: definition, Version: "1", State: events.Running, Started: 1000, Trace: events.MarkTraced(nil, events.FlagSampled)}
	for _, e := range entries {
		if e.Kind == events.EntryTransition {
			if h.State = e.To; e.To.Final() {
				h.Ended = 5000
			}
		}
	}
	return &events.Decision{Outcome: events.Applied, Instance: instance, Entries: entries,
		Rows: []events.RowChange{{Ref: events.RowRef{Part: events.PartHead}, Value: h.Encode(nil)}}}
}

func (t *Telemetry) tell(d *events.Decision) {
	t.Accepted(1, &orchestrator.Accepted{Record: &events.Record{Kind: events.KindDecision, Seq: 1, Time: 5000, Decision: d}, Bytes: 100, Took: time.Millisecond})
}

func TestEveryMetricOfTheTableIsOnThePageUnderItsName(t *testing.T) {
	x, _ := begun(t)
	x.ShardOpened(1)
	x.Load(1, orchestrator.Load{InFlight: 3, Emitting: 2, Queued: 1, JournalBytes: 10, LiveBytes: 20, Backlog: true})
	x.Instances(1, "place-order", events.Parked, 2)
	x.Restoring(2, 5, 10)
	x.Input(1, orchestrator.InputForwarded)
	x.Compacted(1, orchestrator.Compaction{Carried: 7})
	x.Emitted(1, "payments.commands", time.Millisecond)
	x.TimerFired(1, -time.Second)
	x.tell(decision("place-order", events.Entry{Kind: events.EntryStarted}, events.Entry{Kind: events.EntryDone, Step: "authorize", Attempt: 1, Phase: events.Forward},
		events.Entry{Kind: events.EntryUndelivered, Step: "tell", Phase: events.Forward},
		events.Entry{Kind: events.EntryTransition, To: events.Parked, Code: "pivot-unknown"}, events.Entry{Kind: events.EntryTransition, To: events.Completed}))
	x.ShardClosed(3, fmt.Errorf("shard 3: %w", orchestrator.ErrClaimLost))
	got := page(x)
	for _, s := range table {
		name := s.prometheus()
		if s.kind == histogram {
			name += "_count"
		}
		if !strings.Contains(got, "\n"+name+" ") && !strings.Contains(got, "\n"+name+"{") {
			t.Errorf("%s is not there", name)
		}
	}
	for _, line := range []string{
		`skald_instances{definition="place-order",state="parked"} 2`, `skald_restore_records{shard="2"} 5`, `skald_restore_total{shard="2"} 10`,
		`skald_claims_lost_total 1`, `skald_journal_in_flight{shard="1"} 3`, `skald_compactions_total{result="ok"} 1`,
		`skald_saga_duration_seconds_sum{definition="place-order",state="completed"} 4`, `skald_sagas_parked_total{code="pivot-unknown",definition="place-order"} 1`,
		`skald_inputs_total{fate="forwarded"} 1`, `skald_shards_backlog 1`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, got)
		}
	}
	x.ShardClosed(1, nil)
	if got := page(x); strings.Contains(got, "skald_journal_in_flight{") || strings.Contains(got, "skald_instances{") || !strings.Contains(got, "\nskald_shards 0\n") {
		t.Errorf("a shard that was handed over is still shown:\n%s", got)
	}
}

func TestTheTurnsOfALoopAreOneSeries(t *testing.T) {
	x, spans := begun(t)
	for i := range 5000 {
		x.tell(decision("place-order", events.Entry{Kind: events.EntryDone, Step: fmt.Sprintf("ship[%d][%d]", i, i%7), Node: uint32(i), Execution: 1, Attempt: 1, Phase: events.Forward}))
	}
	if want := `skald_attempts_total{definition="place-order",outcome="done",phase="forward",step="ship"} 5000`; !strings.Contains(page(x), "\n"+want+"\n") {
		t.Errorf("no line %s", want)
	}
	for _, s := range spans.GetSpans() {
		if s.Name != "ship" {
			t.Fatalf("a span is named %s", s.Name)
		}
	}
}

func TestAnEventThatKafkaRefusedIsCounted(t *testing.T) {
	x, _ := begun(t)
	x.tell(decision("place-order", events.Entry{Kind: events.EntryUndelivered, Step: "tell[3]", Node: 4, Code: "refused", Phase: events.Forward}))
	if want := `skald_emit_undelivered_total{definition="place-order",step="tell"} 1`; !strings.Contains(page(x), "\n"+want+"\n") {
		t.Errorf("no line %s in\n%s", want, page(x))
	}
}

func TestNamesFromOutsideMakeABoundedNumberOfSeries(t *testing.T) {
	x, spans := begun(t)
	x.ShardOpened(1)
	for i := range 3000 {
		hostile := fmt.Sprintf("\xffname\n\"%d\"", i)
		x.tell(decision(hostile, events.Entry{Kind: events.EntryStarted}, events.Entry{Kind: events.EntryRejected, Step: hostile, Code: hostile, Message: strings.Repeat("\xff", 5000), Attempt: 1, Phase: events.Forward},
			events.Entry{Kind: events.EntryTransition, To: events.Parked, Code: hostile}))
		x.Emitted(1, hostile, 0)
		x.Instances(1, hostile, events.Running, 1)
		x.Instances(1, strings.Repeat(hostile, 100), events.Running, 1)
		x.ShardClosed(2, errors.New(hostile))
	}
	got := page(x)
	if lines := strings.Count(got, "\n"); lines > 8000 || !strings.Contains(got, `definition="other"`) || !strings.Contains(got, `topic="other"`) {
		t.Errorf("%d lines", lines)
	}
	for _, s := range spans.GetSpans() {
		all := s.Name + s.Status.Description
		for _, a := range s.Attributes {
			all += a.Value.String()
		}
		if strings.ToValidUTF8(all, "") != all || len(all) > 2000 {
			t.Fatalf("a span says %q", all)
		}
	}
}

func TestWhatIsSaidOfEachSampler(t *testing.T) {
	sampled := []events.Header{{Key: events.HeaderTraceParent, Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}
	dropped := []events.Header{{Key: events.HeaderTraceParent, Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")}}
	for _, c := range []struct {
		sampler, arg            string
		root, afterYes, afterNo bool
	}{
		{"always_on", "", true, true, true},
		{"always_off", "", false, false, false},
		{"traceidratio", "0", false, false, false},
		{"traceidratio", "", true, true, true},
		{"parentbased_always_on", "", true, true, false},
		{"parentbased_always_off", "", false, true, false},
		{"parentbased_traceidratio", "0", false, true, false},
		{"PARENTBASED_TRACEIDRATIO", "1", true, true, false},
	} {
		t.Setenv("OTEL_TRACES_SAMPLER", c.sampler)
		t.Setenv("OTEL_TRACES_SAMPLER_ARG", c.arg)
		x, err := New(context.Background(), Options{App: "shop", SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(tracetest.NewInMemoryExporter())}})
		if err != nil {
			t.Fatal(err)
		}
		for headers, want := range map[*[]events.Header]bool{{}: c.root, &sampled: c.afterYes, &dropped: c.afterNo} {
			if flags, ok := x.TraceStart(0, instance, "d", *headers); ok != want || ok && flags&events.FlagSampled == 0 {
				t.Errorf("%s %s after %v: %d %v", c.sampler, c.arg, *headers, flags, ok)
			}
		}
	}
}

func TestByDefaultATwentiethIsTracedAndNothingIsExported(t *testing.T) {
	x, err := New(context.Background(), Options{App: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := x.TraceStart(0, instance, "d", nil); ok {
		t.Error("a saga is traced, and nobody takes its spans")
	}
	x, err = New(context.Background(), Options{App: "shop", SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(tracetest.NewInMemoryExporter())}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range 10_000 {
		if _, ok := x.TraceStart(0, events.NewInstanceID("shop", "d", fmt.Sprint(i), "m", 64), "d", nil); ok {
			n++
		}
	}
	if n < 400 || n > 600 {
		t.Errorf("%d of 10,000", n)
	}
}

func TestAVariableThatCannotBeReadIsNamed(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_METRICS_EXPORTER": "statsd", "OTEL_TRACES_SAMPLER": "jaeger_remote", "OTEL_TRACES_SAMPLER_ARG": "2",
		"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv("OTEL_TRACES_SAMPLER", "traceidratio")
			t.Setenv(name, value)
			if _, err := New(context.Background(), Options{App: "shop"}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v", err)
			}
			t.Setenv("OTEL_SDK_DISABLED", "true")
			if _, err := New(context.Background(), Options{App: "shop"}); err != nil {
				t.Errorf("disabled: %v", err)
			}
		})
	}
}

func TestSpansAndMetricsReachACollectorOverHTTP(t *testing.T) {
	got := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got <- r.URL.Path }))
	defer s.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	x, err := New(context.Background(), Options{App: "shop", Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	x.tell(decision("place-order", events.Entry{Kind: events.EntryDone, Step: "ship", Attempt: 1, Phase: events.Forward}))
	if err := x.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	close(got)
	paths := map[string]bool{}
	for p := range got {
		paths[p] = true
	}
	if !paths["/v1/traces"] || !paths["/v1/metrics"] {
		t.Errorf("%v", paths)
	}
}

func TestACollectorThatIsNotThereHoldsNothingUp(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	x, err := New(context.Background(), Options{App: "shop", Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 20_000 { // far more than are kept for export
		x.tell(decision("place-order", events.Entry{Kind: events.EntryDone, Step: "ship", Attempt: 1, Phase: events.Forward}))
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = x.Shutdown(ctx) // what it could not send is lost, and it says so
}

func TestAnAttemptOfAnotherOwnerBeganItsTimeOutBeforeItWasDue(t *testing.T) {
	x, spans := begun(t)
	plan := &sagas.Plan{Name: "place-order", Version: "1", Nodes: []*sagas.Node{
		{Name: "root"},
		{Name: "authorize", Step: &sagas.StepPlan{Timeout: 3 * time.Second, Undo: &sagas.UndoPlan{Timeout: 2 * time.Second}}},
	}}
	x.Plans([]*sagas.Plan{plan})
	for _, c := range []struct {
		phase  events.Phase
		row    events.NodeState
		wasDue int64
		want   int64 // ms; the decision is at 5000
	}{
		{events.Forward, events.NodeState{Attempts: 1, Expiry: 6000}, 0, 3000},
		{events.Compensate, events.NodeState{Attempts: 1}, 5500, 3500},
		{events.Forward, events.NodeState{Attempts: 2, Expiry: 6000}, 0, 5000}, // a later one is open: nobody knows
		{events.Forward, events.NodeState{Attempts: 1, Expiry: 1 << 60}, 0, 5000},
	} {
		spans.Reset()
		d := decision("place-order", events.Entry{Kind: events.EntryDone, Step: "authorize", Node: 1, Execution: 1, Attempt: 1, Phase: c.phase})
		d.Rows = append(d.Rows, events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: 1}, Value: c.row.Encode(nil), WasDue: c.wasDue})
		x.tell(d)
		got := spans.GetSpans()
		if len(got) != 1 || got[0].StartTime.UnixMilli() != c.want || got[0].EndTime.UnixMilli() != 5000 {
			t.Errorf("%s %+v: %v", c.phase, c.row, got)
		}
	}
}

func TestAttemptsBeyondTheBoundAreForgottenNotKept(t *testing.T) {
	x, _ := begun(t)
	for i := range maxOpenSpans + 10 {
		x.tell(decision("place-order", events.Entry{Kind: events.EntryCommand, Step: "ship", Node: uint32(i), Execution: 1, Attempt: 1, Phase: events.Forward}))
	}
	if n := len(x.openOf(1).at); n != maxOpenSpans || !strings.Contains(page(x), "\nskald_telemetry_spans_forgotten_total 10\n") {
		t.Errorf("%d are kept", n)
	}
	x.ShardClosed(1, nil)
	if n := len(x.openOf(1).at); n != 0 {
		t.Errorf("%d are kept of a shard that is gone", n)
	}
}

func (t *Telemetry) openOf(shard int32) *openSpans { return t.spans.of(shard) }

// What a decision costs its shard; the engine's whole cost is about 50,000 ns.
func BenchmarkDecision(b *testing.B) {
	for name, sampler := range map[string]string{"sampled": "always_on", "not sampled": "always_off"} {
		b.Run(name, func(b *testing.B) {
			b.Setenv("OTEL_TRACES_SAMPLER", sampler)
			s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer s.Close()
			b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
			x, err := New(context.Background(), Options{App: "shop", Node: "n"})
			if err != nil {
				b.Fatal(err)
			}
			defer x.Shutdown(context.Background())
			flags, traced := x.TraceStart(0, instance, "place-order", nil)
			d := decision("place-order", events.Entry{Kind: events.EntryDone, Step: "reserve", Node: 1, Execution: 1, Attempt: 1, Phase: events.Forward},
				events.Entry{Kind: events.EntryCommand, Step: "ship", Node: 2, Execution: 1, Attempt: 1, Phase: events.Forward})
			h := events.Head{Definition: "place-order", Version: "1", State: events.Running, Started: 1000}
			if traced {
				h.Trace = events.MarkTraced(nil, flags)
			}
			d.Rows[0].Value = h.Encode(nil)
			b.ReportAllocs()
			for b.Loop() {
				x.tell(d)
				x.Emitted(1, "payments.commands", time.Millisecond)
			}
		})
	}
}
