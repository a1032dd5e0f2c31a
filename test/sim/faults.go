package main

// fault is a kind of what goes wrong. A run counts each time that one had its effect.
type fault uint8

// kind is what is known of a fault: its name in reports, what it is in a sentence, and the rules of the log whose
// stories it tells (docs/architecture.md). "§1" is compaction, "§6" what brokers owe.
type kind struct{ name, says, rules string }

const (
	diesLosing fault = iota
	diesLanding
	diesLate
	diesWithin
	opensInVain
	disordered
	handsOver
	rebalance
	outage
	paused
	falseDeath
	wakes
	claimsBack
	claimLate
	claimAgain
	claimLost
	clockOff
	clockStands
	brokersBack
	leapAhead

	storeLost
	storeOld
	storeForeign
	storePrefix
	storeFlipped
	storeFails

	truncated
	recreated
	inputRecreated
	partitionAdded
	appendTwice
	appendRetried
	appendUnknown
	appendLate
	messageTwice
	messageUnknown
	messageLate
	topicStuck
	topicRefuses
	journalUnreadable
	trimFails
	asideLate
	trimmed
	fenced

	poisoned
	oversized
	orderTwice
	keyAgain
	eventEarly
	eventTwice
	eventTooLate
	actionTwice
	queueFull
	commandAgain
	commandExpired
	undoFirst
	replyLost
	replyTwice
	replyLate
	replyDisordered
	participantDies
	neverAnswers
	duplicateRejected

	faultCount
)

// vocabulary is every fault that the simulation knows. The table in doc.go is made of it, and a test compares them.
var vocabulary = [faultCount]kind{
	diesLosing:  {"dies-losing", "an owner dies, and what it sent off is lost", "L6, L14"},
	diesLanding: {"dies-landing", "an owner dies, and a part of what it sent off lands unacknowledged", "L2, L3, L14"},
	diesLate:    {"dies-late", "an owner dies, and what it sent off lands later", "L2, L7"},
	diesWithin:  {"dies-within", "an owner dies within a turn, right before or after a call of a port", "L6, L14"},
	opensInVain: {"opens-in-vain", "an owner dies while it opens its shard", "L3, L8"},
	disordered:  {"disordered", "what a dead owner sent off lands in another order", "L2, L7"},
	handsOver:   {"hands-over", "an owner hands over", "L14"},
	rebalance:   {"rebalance", "all shards change their owners at once", "L3, L6"},
	outage:      {"outage", "nobody owns a shard for a while, and its inputs wait", "L10"},
	paused:      {"paused", "an owner is paused, and its shard is taken", "L2, L3"},
	falseDeath:  {"false-death", "an owner is taken for dead and goes on beside the next one", "L1, L2, L3"},
	wakes:       {"wakes", "a paused owner wakes and goes on", "L2, L3, L7, L15, §1"},
	claimsBack:  {"claims-back", "an owner that lost its claim claims back while the other one lives", "L5"},
	claimLate:   {"claim-late", "a claim is not acknowledged, and lands later", "L1, L2"},
	claimAgain:  {"claim-again", "a claim is there again, some time later", "L1, L2"},
	claimLost:   {"claim-lost", "an acknowledged claim is truncated, another one lands at its offset, and what was decided under the first lands behind it", "L1, L3"},
	clockOff:    {"clock-off", "an owner's clock is far off", "L11"},
	clockStands: {"clock-stands", "an owner's clock stands still for a while", "L11"},
	brokersBack: {"brokers-back", "the brokers' clock goes back by minutes", "L11"},
	leapAhead:   {"leap-ahead", "an hour passes at once", "L10, L11"},

	storeLost:    {"store-lost", "a store is lost", "L4, §1"},
	storeOld:     {"store-old", "a shard comes to a node with an old store", "L4"},
	storeForeign: {"store-foreign", "a shard comes to a node with the store of a truncated journal", "L4"},
	storePrefix:  {"store-prefix", "a crash keeps a prefix of what the store was told", "L4"},
	storeFlipped: {"store-flipped", "bits of a store flip", "L4"},
	storeFails:   {"store-fails", "the disk refuses a write or a read", "L4"},

	truncated:         {"truncated", "a journal loses a tail that was read and not acknowledged", "L3, L4"},
	recreated:         {"recreated", "a journal is deleted and created anew, which is noticed, and put back with other offsets", "L1, L4, §6"},
	inputRecreated:    {"input-recreated", "a topic that is read is another one of that name, which is noticed", "L8, §6"},
	partitionAdded:    {"partition-added", "a topic that is read has one more partition, with records in it", "L8"},
	appendTwice:       {"append-twice", "a journal record is there twice", "L2"},
	appendRetried:     {"append-retried", "a journal record is there twice, and the second is acknowledged", "L2, L3"},
	appendUnknown:     {"append-unknown", "the outcome of an append is unknown", "L2"},
	appendLate:        {"append-late", "the outcome of an append is unknown, and it lands later", "L2"},
	messageTwice:      {"message-twice", "a message is there twice", "L7"},
	messageUnknown:    {"message-unknown", "the outcome of a produce is unknown", "L6, L7"},
	messageLate:       {"message-late", "the outcome of a produce is unknown, and it lands later", "L7, L15"},
	topicStuck:        {"topic-stuck", "a topic that is written is stuck", "L14"},
	topicRefuses:      {"topic-refuses", "a command topic refuses", "L14"},
	journalUnreadable: {"journal-unreadable", "a journal cannot be read for a while", "L3"},
	trimFails:         {"trim-fails", "a trim fails", "§1, §6"},
	asideLate:         {"aside-late", "what runs beside an owner's loop is late", "§1, L11"},
	trimmed:           {"trimmed", "a journal is compacted and trimmed", "§1"},
	fenced:            {"fenced", "the transactional id of an owner is taken over, and its open transaction aborted", "L16"},

	poisoned:          {"poisoned", "a record that nobody can take", "L6, L7"},
	oversized:         {"oversized", "a record that fits no journal", "L17"},
	orderTwice:        {"order-twice", "an order comes twice", "L18"},
	keyAgain:          {"key-again", "an order of a key comes again, under another id", "L18"},
	eventEarly:        {"event-early", "an event comes before anybody waits for it", "L20"},
	eventTwice:        {"event-twice", "an event that is waited for comes twice", "L20"},
	eventTooLate:      {"event-too-late", "an event is offered to a wait that has ended, and refused", "L20"},
	actionTwice:       {"action-twice", "an operator's action comes twice", "L22"},
	queueFull:         {"queue-full", "an instance's queue of signals overflows, and what overflowed comes back", "L23"},
	commandAgain:      {"command-again", "a participant reads a command again", "L15, L19"},
	commandExpired:    {"command-expired", "a participant reads a command after its expiry", "L15"},
	undoFirst:         {"undo-first", "a participant reads an undo before what it undoes", "L15"},
	replyLost:         {"reply-lost", "a reply is lost", "L19"},
	replyTwice:        {"reply-twice", "a reply comes twice", "L19"},
	replyLate:         {"reply-late", "a reply comes after its attempt expired", "L19"},
	replyDisordered:   {"reply-disordered", "replies come in another order than they were given", "L19"},
	participantDies:   {"participant-dies", "a participant dies between its effect and its reply, and reads the command again", "L15, L19"},
	neverAnswers:      {"never-answers", "a participant never answers an attempt", "L19"},
	duplicateRejected: {"duplicate-rejected", "a participant that had its effect rejects the next attempt as a duplicate", "L19"},
}

func (f fault) String() string { return vocabulary[f].name }

// faults is a set of faults.
type faults uint64

func (s faults) has(f fault) bool    { return s>>f&1 == 1 }
func (s faults) with(f fault) faults { return s | 1<<f }

// list names the members.
func (s faults) list() (out []string) {
	for f := range faultCount {
		if s.has(f) {
			out = append(out, f.String())
		}
	}
	return out
}
