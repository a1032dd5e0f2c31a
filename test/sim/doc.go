// Command sim runs an application under faults in one goroutine, as a seed decides it, and says what broke.
//
//	go run ./test/sim -seeds 5000
//	go run ./test/sim -seeds 1 -first 17 -tell
//	go run ./test/sim -h
//
// Two shards, driven by orchestrator.OpenShard and Shard.Turn with the real machine and the real rules of the journal,
// reach a world that is a model: a log with lost, late, repeated and truncated writes (kafka.go), owners with clocks and
// connections (owner.go), disks (disk.go), participants (participants.go). Everything that happens is drawn from the
// seed. After the scheduled steps everything heals, and what happened must look like a run without faults (G8). What must
// hold at every moment is checked when it happens, what must hold in the end is checked then (checks.go), by a reader
// of the journal that shares nothing with the engine's (twin.go). Which sagas run, how participants answer them and what has to be
// left of them is told in cast.go.
//
// # How to read and repeat
//
// A step is one thing that happens: a turn of an owner, a write that lands, a record that comes, a command that is executed,
// time that passes, a fault. The same seed gives the same steps and the same hash of the trace, on any machine. A seed
// that finds something is shrunk (shrink.go): scheduled steps are left out and faults switched off as long as the
// same kind of violation is found. Then its story is printed, each line with the scheduled step, the simulated time and
// what happened, "!" marking faults; and the command that repeats it, with -keep for the steps and -only or -without
// for the faults that it needs. What a seed has found is kept as a test (TestSeedsThatFoundSomethingFindNothing): a seed
// means the same story only as long as the simulation draws the same, so each bug has a test of its own beside it.
//
// With -pebble the stores are Pebble's, on a file system in memory that loses what was not synced. Nothing of what a
// store keeps over a crash may show, so the hash is the same as without.
//
// An owner dies not only between its turns. Each call of each method of its ports, and each acknowledgement, is a
// named point (points.go), before and after; the points are enumerated from the ports' types, and a test kills
// an owner at each, with its store kept and lost.
//
// # Faults, and the rules whose stories they tell
//
//	dies-losing         L6, L14          an owner dies, and what it sent off is lost
//	dies-landing        L2, L3, L14      an owner dies, and a part of what it sent off lands unacknowledged
//	dies-late           L2, L7           an owner dies, and what it sent off lands later
//	dies-within         L6, L14          an owner dies within a turn, right before or after a call of a port
//	opens-in-vain       L3, L8           an owner dies while it opens its shard
//	disordered          L2, L7           what a dead owner sent off lands in another order
//	hands-over          L14              an owner hands over
//	rebalance           L3, L6           all shards change their owners at once
//	outage              L10              nobody owns a shard for a while, and its inputs wait
//	paused              L2, L3           an owner is paused, and its shard is taken
//	false-death         L1, L2, L3       an owner is taken for dead and goes on beside the next one
//	wakes               L2, L3, L7, L15, §1 a paused owner wakes and goes on
//	claims-back         L5               an owner that lost its claim claims back while the other one lives
//	claim-late          L1, L2           a claim is not acknowledged, and lands later
//	claim-again         L1, L2           a claim is there again, some time later
//	claim-lost          L1, L3           an acknowledged claim is truncated, another one lands at its offset, and what was decided under the first lands behind it
//	clock-off           L11              an owner's clock is far off
//	clock-stands        L11              an owner's clock stands still for a while
//	brokers-back        L11              the brokers' clock goes back by minutes
//	leap-ahead          L10, L11         an hour passes at once
//	store-lost          L4, §1           a store is lost
//	store-old           L4               a shard comes to a node with an old store
//	store-foreign       L4               a shard comes to a node with the store of a truncated journal
//	store-prefix        L4               a crash keeps a prefix of what the store was told
//	store-flipped       L4               bits of a store flip
//	store-fails         L4               the disk refuses a write or a read
//	truncated           L3, L4           a journal loses a tail that was read and not acknowledged
//	recreated           L1, L4, §6       a journal is deleted and created anew, which is noticed, and put back with other offsets
//	input-recreated     L8, §6           a topic that is read is another one of that name, which is noticed
//	partition-added     L8               a topic that is read has one more partition, with records in it
//	append-twice        L2               a journal record is there twice
//	append-retried      L2, L3           a journal record is there twice, and the second is acknowledged
//	append-unknown      L2               the outcome of an append is unknown
//	append-late         L2               the outcome of an append is unknown, and it lands later
//	message-twice       L7               a message is there twice
//	message-unknown     L6, L7           the outcome of a produce is unknown
//	message-late        L7, L15          the outcome of a produce is unknown, and it lands later
//	topic-stuck         L14              a topic that is written is stuck
//	topic-refuses       L14              a command topic refuses
//	journal-unreadable  L3               a journal cannot be read for a while
//	trim-fails          §1, §6           a trim fails
//	aside-late          §1, L11          what runs beside an owner's loop is late
//	trimmed             §1               a journal is compacted and trimmed
//	fenced              L16              the transactional id of an owner is taken over, and its open transaction aborted
//	poisoned            L6, L7           a record that nobody can take
//	oversized           L17              a record that fits no journal
//	order-twice         L18              an order comes twice
//	key-again           L18              an order of a key comes again, under another id
//	event-early         L20              an event comes before anybody waits for it
//	event-twice         L20              an event that is waited for comes twice
//	event-too-late      L20              an event is offered to a wait that has ended, and refused
//	action-twice        L22              an operator's action comes twice
//	queue-full          L23              an instance's queue of signals overflows, and what overflowed comes back
//	command-again       L15, L19         a participant reads a command again
//	command-expired     L15              a participant reads a command after its expiry
//	undo-first          L15              a participant reads an undo before what it undoes
//	reply-lost          L19              a reply is lost
//	reply-twice         L19              a reply comes twice
//	reply-late          L19              a reply comes after its attempt expired
//	reply-disordered    L19              replies come in another order than they were given
//	participant-dies    L15, L19         a participant dies between its effect and its reply, and reads the command again
//	never-answers       L19              a participant never answers an attempt
//	duplicate-rejected  L19              a participant that had its effect rejects the next attempt as a duplicate
//
// Not here, because they are no faults of a schedule: L9 (moving slots is not built; another number of shards is refused
// at the start), L12 and L13 (other builds beside this one: orchestrator/waiting_test.go and test/engine), and L21, which
// holds if the rows of every reader are the same in the end, in every run.
//
// The simulation cannot show what lies below its ports: the Kafka client and the brokers (connectors/kafka and test/chaos do),
// real concurrency within an engine, and the group's protocol. An unclean election that loses an acknowledged claim is here
// only as far as readers are concerned (claim-lost): an owner that goes on after its acknowledged claim was lost may
// emit what nobody accepted, and no log can keep it from that which forgets what it acknowledged.
//
// It belongs to the tests, may import everything, and nothing imports it. The rule that must not break: a run is decided by
// its seed alone, and a run in which a fault of the vocabulary never landed, in enough seeds, fails.
package main
