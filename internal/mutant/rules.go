package mutant

// Rule is a guarantee (G) or a rule of the log (L), in a sentence; the architecture has the reasons.
type Rule struct{ ID, Text string }

// Rules lists all of them, in order. Mutant.Breaks names them.
var Rules = []Rule{
	{"G1", "If participants eventually answer definitely, every instance ends completed or compensated; otherwise it is visibly parked."},
	{"G2", "Completed means every required effect; compensated means every possible effect undone, or resolved by an operator."},
	{"G3", "The obligation to undo, with its data, stands in the same journal record as the command it undoes, per execution."},
	{"G4", "Undos run in the reverse of happens-before: reverse within a branch, branches of a fork together, a fork before what preceded it."},
	{"G5", "Every input changes an instance exactly once; a command leaves only after its decision is durable, under a stable id."},
	{"G6", "Final states stay. No forward command is decided in a scope that compensates. Nothing is undone by itself past the pivot."},
	{"G7", "Rebuilding from the journal, compacted or not, emits nothing, runs no user code and gives identical rows."},
	{"G8", "Any schedule of crashes, rebalances, duplicates and delays is, seen from outside, equal to a run without them."},
	{"G9", "Two nodes never both decide for one instance; a paused owner that wakes up changes nothing."},
	{"G10", "History is never rewritten: operators' actions are inputs, journaled like any other, with who and why."},
	{"G11", "One bad record or one bad instance never stops its neighbours."},
	{"G12", "Isolation between sagas is not given; the participant kit offers semantic locks."},
	{"L1", "A claim carries a term and a random nonce; the last claim in the log wins; offsets identify nothing."},
	{"L2", "A record counts iff it continues the claim's nonce, sequence and hash; after an unknown outcome nothing is decided anew in the same epoch."},
	{"L3", "The owner reads to its own claim before it decides; an acknowledgement at another offset than the expected one is read back."},
	{"L4", "A store is trusted iff it is a prefix of the journal: topic id, and the hash of the record at its position."},
	{"L5", "Who loses a claim to a later generation does not claim back before it takes part in that; a dead node is found by a refused connection."},
	{"L6", "A position never passes an input that is not finished: decided, or its forwards acknowledged."},
	{"L7", "Every message between shards names its origin and the sender's low mark; the receiver remembers exactly what it needs."},
	{"L8", "Start positions are journaled before the first poll; later partitions start at 0; a lost position is not passed in silence."},
	{"L9", "Routing is fixed at the application's creation; a changed number of partitions is refused at the start."},
	{"L10", "After a claim no timer fires until the inputs up to the ends seen at the claim are decided."},
	{"L11", "Time is the brokers' time and never goes backward."},
	{"L12", "An instance is decided by its own version of its definition, or waits; the same version with another plan is refused."},
	{"L13", "A format is written once every member reads it; a newer one is refused, and what is not known is kept."},
	{"L14", "What is accepted is emitted in order, its progress is journaled, and a refusal becomes an input."},
	{"L15", "An undo that overtakes its command is remembered, and the command refused; forward commands expire."},
	{"L16", "With transactional emission the progress is an offset committed with the commands."},
	{"L17", "A decision's cost and size are bounded, whatever the size of its instance; what does not fit parks."},
	{"L18", "An instance's id depends on application, definition, business key and starting message."},
	{"L19", "A rejection discharges its own attempt alone; a late done of a live execution counts."},
	{"L20", "A correlated event is offered, and kept until it is taken; registrations and their ends are ordered."},
	{"L21", "Time-outs of buffers, evictions and purges are decided, by journaled time."},
	{"L22", "A repeated operator's action gets the first answer."},
	{"L23", "A parked instance's queue is bounded; what overflows goes to quarantine and comes back in order."},
}
