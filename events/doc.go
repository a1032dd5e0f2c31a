// Package events is the vocabulary of Skald: what stands on the wire and in the journal, as data.
//
// It holds the CloudEvents binary profile of commands and replies (headers.go), the ids that route
// themselves (ids.go, command_id.go), the records of the journal (record.go) and the rows they leave in
// a store (row.go). Everything that reads or writes a Skald topic speaks through this package: the
// engine, participants, operators' tools and the external checker.
//
// The rule that must not break: this package imports nothing of Skald, decides nothing, and keeps every
// field it does not know. A journal written today is read by every later build.
package events
