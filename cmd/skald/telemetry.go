package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/skald-io/skald/connectors/telemetry"
)

// telemetryTimeout is how long the end of a command waits for a collector.
const telemetryTimeout = 3 * time.Second

// nodeName is this process's name, in claims and in telemetry.
func nodeName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

// startTelemetry begins to export what the OTEL_* variables say, and serves /metrics at an address, unless that is
// empty. stop is called when the engine has ended.
func startTelemetry(ctx context.Context, s *screen, app, addr string, logger *slog.Logger) (t *telemetry.Telemetry, stop func(), err error) {
	t, err = telemetry.New(ctx, telemetry.Options{App: app, Node: nodeName(), Version: buildVersion().Version, Logger: logger})
	if err != nil {
		return nil, nil, err
	}
	closePage := func() {}
	if addr != "" {
		at, end, err := t.Listen(addr)
		if err != nil {
			return nil, nil, err
		}
		closePage = end
		s.Note("metrics: http://%s/metrics", at)
	}
	return t, func() {
		closePage()
		ctx, cancel := context.WithTimeout(context.Background(), telemetryTimeout)
		defer cancel()
		if err := t.Shutdown(ctx); err != nil {
			logger.Warn("the last telemetry was not exported", "err", err)
		}
	}, nil
}
