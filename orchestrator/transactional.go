package orchestrator

import "strconv"

// EmitGroup is the consumer group, without members, in which transactions commit how far the journal is
// emitted (L16).
func EmitGroup(app string) string { return app + ".emit" }

// EmitIDs is how the transactional ids of an application begin; EmitID is that of a shard.
func EmitIDs(app string) string { return app + ".emit." }

// EmitID is the transactional id under which whoever owns the shard emits.
func EmitID(app string, shard int32) string { return EmitIDs(app) + strconv.Itoa(int(shard)) }
