package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/skald-io/skald/orchestrator"
)

// Options say whose telemetry it is.
type Options struct {
	App     string // service.name, unless OTEL_SERVICE_NAME says otherwise; required
	Node    string // service.instance.id; required
	Version string // service.version
	Logger  *slog.Logger

	// Beside those of the environment, for tests and embedders.
	SpanProcessors []trace.SpanProcessor
	MetricReaders  []metric.Reader
}

// Telemetry is a hook for orchestrator.Config.Hooks, of one engine. It is safe for concurrent use.
type Telemetry struct {
	*metrics
	*spans
	page      http.Handler
	providers []interface{ Shutdown(context.Context) error }
}

// New begins. Of the OpenTelemetry specification's environment it follows OTEL_SDK_DISABLED, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER (otlp, none; of metrics also prometheus,
// which changes nothing: the page is always there), OTEL_EXPORTER_OTLP_* (http/protobuf and grpc), OTEL_BSP_*,
// OTEL_METRIC_EXPORT_*, OTEL_TRACES_SAMPLER with its argument, and the limits of spans. Two defaults differ: without an
// endpoint and without a named exporter nothing is exported, and without a sampler DefaultRatio of the sagas that bring
// no trace are recorded. It does not wait for a collector. A variable that cannot be read is an error that names it.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", valid(o.App)), attribute.String("service.instance.id", valid(o.Node)),
			attribute.String("service.version", valid(o.Version)), attribute.String("skald.app", valid(o.App))),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	log := o.Logger.With("app", o.App, "node", o.Node)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry is not exported", "err", err) }))
	t := &Telemetry{}
	if t.spans, err = t.newSpans(ctx, res, o.SpanProcessors); err != nil {
		return nil, err
	}
	var readers []metric.Reader
	if !disabled() {
		if readers, err = metricReaders(ctx); err != nil {
			return nil, errors.Join(err, t.Shutdown(ctx))
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	page, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the page for Prometheus: %w", err), t.Shutdown(ctx))
	}
	t.page = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	all := []metric.Option{metric.WithResource(res), metric.WithReader(page)}
	for _, r := range append(readers, o.MetricReaders...) {
		all = append(all, metric.WithReader(r))
	}
	provider := metric.NewMeterProvider(all...)
	t.providers = append(t.providers, provider)
	if t.metrics, err = newMetrics(provider.Meter("github.com/skald-io/skald"), t.spans); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// newSpans makes what records traces. Without anything to give them to there are none, and sagas are not traced.
func (t *Telemetry) newSpans(ctx context.Context, res *resource.Resource, processors []trace.SpanProcessor) (*spans, error) {
	if disabled() {
		return &spans{}, nil
	}
	list, err := spanExporters(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		processors = append(processors, trace.NewBatchSpanProcessor(e))
	}
	if len(processors) == 0 {
		return &spans{}, nil
	}
	decide, err := sampler()
	if err != nil {
		return nil, err
	}
	all := []trace.TracerProviderOption{trace.WithResource(res), trace.WithSampler(trace.AlwaysSample()), trace.WithIDGenerator(named{})}
	for _, p := range processors {
		all = append(all, trace.WithSpanProcessor(p))
	}
	provider := trace.NewTracerProvider(all...)
	t.providers = append(t.providers, provider)
	return &spans{tracer: provider.Tracer("github.com/skald-io/skald"), sampler: decide, shards: map[int32]*openSpans{}}, nil
}

// Handler is the page for Prometheus, /metrics on a node's HTTP server.
func (t *Telemetry) Handler() http.Handler { return t.page }

// Listen serves /metrics, and nothing else, at an address until stop is called.
func (t *Telemetry) Listen(addr string) (at string, stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", t.page)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	return l.Addr().String(), func() { s.Close(); <-ended }, nil
}

// Shutdown exports what is left, as long as ctx allows. The engine has ended before.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, p := range t.providers {
		errs = append(errs, p.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// Accepted implements orchestrator.HookAccepted.
func (t *Telemetry) Accepted(shard int32, a *orchestrator.Accepted) {
	head, ok := headOf(a.Record.Decision)
	t.metrics.accepted(shard, a, &head, ok)
	if ok && len(head.Trace) > 0 {
		t.spans.accepted(shard, a, &head)
	}
}

// ShardOpened implements orchestrator.HookShard.
func (t *Telemetry) ShardOpened(shard int32) { t.metrics.opened(shard) }

// ShardClosed implements orchestrator.HookShard.
func (t *Telemetry) ShardClosed(shard int32, err error) {
	t.metrics.closed(shard, err)
	t.spans.closed(shard)
}
