// Package sagatest tests definitions: given an event, when participants answer and time passes, then these
// commands and this state follow.
//
// A Scenario is one instance on the machine that runs in production, with a clock that only the test moves
// and no Kafka. Participants are the test itself (Scenario.Reply, Command.Reject, ...) or stand-ins that
// answer by themselves (Scenario.On). Every decision is made twice and compared, so that a function of the
// definition that is not pure (it reads the clock, draws a number, ranges over a map) fails the test.
//
// The package may import what the tests of Skald may; nothing of Skald but tests imports it. The rule that
// must not break: it decides nothing itself.
package sagatest
