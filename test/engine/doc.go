// Package engine tries the engine with its Kafka connection as a user runs them: bad input, broken stores,
// clusters that do not fit, and being started and stopped at any moment. Every story runs on the embedded
// broker, and on real Kafka where that is asked for.
//
// It holds tests alone, and imports what a user's program would. The rule that must not break: a test looks
// at what users and operators can see (topics, the journal, logs, Engine's methods), never into the engine.
package engine
