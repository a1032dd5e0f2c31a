// Package checker judges a run of Skald from outside: it reads the journal, the topics around it and the
// participants' ledgers, and says where they contradict what Skald promises.
//
// It may import events (to decode), the shape of plans (plan.go), and a Kafka client. The rule that must not break: it
// shares no decision with the engine. What a record of the journal means is worked out here once more, naively,
// from the rules of the log alone (fold.go), and so is where a node stands and what may go back on its own
// (scopes.go), and who keeps, offers and takes an event (entities.go), so that a mistake of the engine is not
// repeated by its judge. Of a plan's functions only those that read an event's type and key are called.
//
// Evidence is what was seen; Check reads it and returns a Report. Recorder collects evidence from Kafka, also
// continuously, so that what is trimmed during a run is still known at its end.
package checker
