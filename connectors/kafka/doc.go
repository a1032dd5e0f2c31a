// Package kafka connects the engine to Kafka: it implements the ports of orchestrator over franz-go, says
// what is wrong with a cluster before the engine meets it (Check), plans and creates the topics (Plan), and
// embeds a broker for development (StartDev).
//
// Journal, emits, inputs and group each have a client of their own, so that none waits behind another. It
// may import orchestrator and what that imports; cmd, examples and tests import it. The rule that must not
// break: an outcome that is not known is never reported as known, and a record is given only to the Sink
// whose Consume asked for it.
package kafka
