// Command bench measures sagas on real Kafka: how many a second, how long each takes, and what the engine
// spends on one.
//
// The parent (load.go) is the load: it places orders and waits for their end on <app>.lifecycle. Engine
// (engine.go) and participants (participants.go) are copies of this program in processes of their own, so
// that what is measured of the engine is the engine's; they are told what to do, and report, by lines on a
// pipe (child.go). docs/performance.md says what the figures mean. It may import everything below test; the
// rule that must not break: the measured saga runs through the same engine, connectors and participant kit
// that users run, with every guarantee on.
package main
