package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
)

// The variables are read here where the SDK leaves them to a package with far more dependencies; endpoints, headers,
// time-outs, certificates, batches and limits are read by the SDK and the exporters themselves.

func env(name string) string { return strings.TrimSpace(os.Getenv(name)) }

func disabled() bool { return strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") }

// exporters are the names that OTEL_<signal>_EXPORTER lists. Without it: otlp if an endpoint is set, else none. (The
// specification's default is otlp to localhost; a node without a collector would complain for ever.)
func exporters(signal string) []string {
	list := env("OTEL_" + signal + "_EXPORTER")
	if list == "" {
		if env("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && env("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "" {
			return nil
		}
		list = "otlp"
	}
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "none" {
			out = append(out, name)
		}
	}
	return out
}

// protocol is grpc or http/protobuf.
func protocol(signal string) (string, error) {
	name := "OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL"
	p := env(name)
	if p == "" {
		name = "OTEL_EXPORTER_OTLP_PROTOCOL"
		p = env(name)
	}
	switch p {
	case "", "http/protobuf":
		return "http/protobuf", nil
	case "grpc":
		return p, nil
	}
	return "", fmt.Errorf("%s is %.60q: http/protobuf or grpc", name, p)
}

func spanExporters(ctx context.Context) (out []trace.SpanExporter, err error) {
	for _, name := range exporters("TRACES") {
		if name != "otlp" {
			return nil, fmt.Errorf("OTEL_TRACES_EXPORTER names %.60q: otlp or none", name)
		}
		p, err := protocol("TRACES")
		if err != nil {
			return nil, err
		}
		var e trace.SpanExporter
		if p == "grpc" {
			e, err = otlptracegrpc.New(ctx)
		} else {
			e, err = otlptracehttp.New(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("the exporter of traces: %w", err)
		}
		out = append(out, e)
	}
	return out, nil
}

// metricReaders are those of the environment. prometheus is none of them: its page is always there; see Listen.
func metricReaders(ctx context.Context) (out []metric.Reader, err error) {
	for _, name := range exporters("METRICS") {
		switch name {
		case "prometheus":
			continue
		case "otlp":
		default:
			return nil, fmt.Errorf("OTEL_METRICS_EXPORTER names %.60q: otlp, prometheus or none", name)
		}
		p, err := protocol("METRICS")
		if err != nil {
			return nil, err
		}
		var e metric.Exporter
		if p == "grpc" {
			e, err = otlpmetricgrpc.New(ctx)
		} else {
			e, err = otlpmetrichttp.New(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("the exporter of metrics: %w", err)
		}
		out = append(out, metric.NewPeriodicReader(e))
	}
	return out, nil
}

// DefaultRatio is the part of the sagas that are traced when OTEL_TRACES_SAMPLER does not say and the event which starts
// one brings no trace. The specification's default is all of them, which costs more than a twentieth of the engine.
const DefaultRatio = 0.05

// sampler decides at the start of a saga whether its steps are recorded.
func sampler() (trace.Sampler, error) {
	name, arg := strings.ToLower(env("OTEL_TRACES_SAMPLER")), env("OTEL_TRACES_SAMPLER_ARG")
	if name == "" {
		return trace.ParentBased(trace.TraceIDRatioBased(DefaultRatio)), nil
	}
	base, based := strings.CutPrefix(name, "parentbased_")
	var s trace.Sampler
	switch base {
	case "always_on":
		s = trace.AlwaysSample()
	case "always_off":
		s = trace.NeverSample()
	case "traceidratio":
		ratio := 1.0
		if arg != "" {
			var err error
			if ratio, err = strconv.ParseFloat(arg, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
				return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is %.60q: a number from 0 to 1", arg)
			}
		}
		s = trace.TraceIDRatioBased(ratio)
	default:
		return nil, errors.New("OTEL_TRACES_SAMPLER is " + strconv.Quote(name[:min(len(name), 60)]) +
			": always_on, always_off, traceidratio, or one of them with parentbased_ before it")
	}
	if based {
		s = trace.ParentBased(s)
	}
	return s, nil
}
