// Package telemetry tells the outside what a node does: OpenTelemetry traces and metrics, and a page for Prometheus.
//
// A Telemetry is a hook of the engine (orchestrator.Config.Hooks) and nothing else: the engine knows neither
// OpenTelemetry nor this package. It may import orchestrator and what that imports; cmd, examples and tests import
// it. The rule that must not break: a call from a shard takes microseconds at most, whatever becomes of exporters,
// and nothing that comes from outside (names, codes, messages, headers) makes the number of time series grow
// without bound or a whole batch of spans unsendable.
//
// What is exported where is set by the OTEL_* variables of the OpenTelemetry specification; see New.
package telemetry

//go:generate go test -run ^TestTheReferenceOfMetricsIsCurrent$ . -update
