// Package machine decides: given an instance's rows and one input, it says everything that must happen,
// as one value, and does nothing itself.
//
// It may import events and sagas alone. The rule that must not break: no goroutine, lock, clock,
// randomness, context or IO, and no dependence on map order; the same rows and input give the same
// decision, byte for byte. User functions run here and nowhere else.
//
// # The way of an input
//
// Routes (route.go) says what a message is and whose it is. Start, Reply, Message, Timer and Refused (decide.go) open
// a working set over the instance's rows, change it, and print what changed. They give nil when a row cannot
// be read: the store is corrupt, and the caller discards it and rebuilds.
//
// A walk over the plan is a stack of small tasks: begin a node, go on with a Seq or All, undo a node. What
// ends goes up to its parent, which decides in constant time what is next: forward.go, backward.go. A
// walk never looks at more nodes than the ones it starts, undoes or passes, so the cost of a decision does
// not depend on the size of the instance (L17). When a decision has done enough it writes the current time
// as the due time of the node with children it stands at, and that timer goes on.
//
// A node works in a place (place.go): the plan's own, or, in a loop, one of its iterations', with rows of their own.
// fork.go says when All and ForEach begin and end, loop.go how bodies are repeated and what their functions see,
// branch.go Choose, Require, Try and Emit. A scope of a running instance can go back (scope.go): then the direction
// is not the instance's, but that of the nodes above.
//
// step.go is a step's life: its attempts and their outcomes (L19); reply.go, what a reply may still say at
// each moment of it; retry.go, when the next attempt is due.
//
// # Entities
//
// An instance is not the only entity of a shard. Events that sagas wait for go to correlations (correlate.go), which
// offer them to Waits (wait.go): Event and Message decide on those. Which instance of a key lives stands in the row of
// the key (key.go). Entities talk by messages through inboxes, on one shard as well, and a decision changes rows of its
// own entity, of keys, and of answers alone (entity.go).
//
// What operators do is a message too (action.go); signals that come before their Wait stand in a queue (queue.go).
//
// # Parked
//
// A parked instance (park.go) issues no command. It still takes facts: a reply, a time-out or a
// continuation that comes meanwhile is written in the row of its node, nothing walks, and the node joins the
// list that begins at Head.Held. When the answer that it was parked for arrives after all, the state
// returns to what it was, and the head's timer takes the nodes of the list one by one, the last held first.
//
// The same rule covers every decision that cannot be made: a user function fails, the record would be too
// large, the definition is not known here. All of the working set is dropped, and in its place the
// instance is parked and the input held.
package machine
