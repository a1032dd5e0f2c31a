package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/skald-io/skald/connectors/telemetry"
	"github.com/skald-io/skald/orchestrator"
)

// collectorAddr tells a child where the parent's collector is.
const collectorAddr = "OTEL_EXPORTER_OTLP_ENDPOINT"

// collector takes what is exported over HTTP and drops it, in the parent: its cost is not the engine's.
func collector(o *options) (stop func(), err error) {
	if o.telemetry == "off" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })}
	go func() { _ = s.Serve(l) }()
	return func() { s.Close() }, os.Setenv(collectorAddr, "http://"+l.Addr().String())
}

// told are the engine's hooks.
func told(ctx context.Context, o *options) (hooks []orchestrator.Hook, stop func(), err error) {
	set := map[string]string{}
	switch o.telemetry {
	case "off":
		return nil, func() {}, nil
	case "metrics":
		set["OTEL_TRACES_EXPORTER"] = "none"
	case "all":
		set["OTEL_TRACES_SAMPLER"] = "always_on"
	}
	for name, value := range set {
		if err := os.Setenv(name, value); err != nil {
			return nil, nil, err
		}
	}
	t, err := telemetry.New(ctx, telemetry.Options{App: o.app, Node: "bench", Logger: logger()})
	if err != nil {
		return nil, nil, err
	}
	return []orchestrator.Hook{t}, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = t.Shutdown(ctx)
	}, nil
}
