// Package orchestrator is the engine: it owns shards, and for each of them repeats
// poll → load → decide → append → apply → emit.
//
// Engine (engine.go) is what a program embeds. Shard (shard.go) is the loop, exported so that it can be
// driven step by step. ports.go says what it needs of Kafka. It may import store, journal and machine, and
// what they import; connectors import it. The rule that must not break: nothing is emitted, answered or
// applied before the record that decided it is acknowledged.
package orchestrator
