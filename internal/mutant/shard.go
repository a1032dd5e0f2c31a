package mutant

var journalMutants = []Mutant{
	{"journal-nonce-unchecked", "G9, L1", "records of a superseded claim are accepted when they fit the chain", Test{"orchestrator/journal", "^TestAWokenOwnerChangesNothing$"}},
	{"journal-first-claim-of-a-term-wins", "L1", "of two claims of one term the first counts, so that readers and the later claimer disagree", Test{"orchestrator/journal", "^TestTheLastClaimWins$"}},
	{"journal-gap-not-final", "L2", "an epoch goes on after a gap", Test{"orchestrator/journal", "^TestAGapEndsTheEpoch$"}},
	{"journal-seq-unchecked", "L2", "a sequence may jump", Test{"orchestrator/journal", "^TestASequenceThatJumpsIsAGap$"}},
	{"journal-hash-unchecked", "L2", "a late record of a thrown-away future is accepted", Test{"orchestrator/journal", "^TestALateRecordOfAThrownAwayFutureIsRefused$"}},
	{"journal-high-water-mark", "L7", "origins are remembered as a high-water mark alone: what arrives out of order is dropped", Test{"orchestrator/journal", "^TestAMarkAgreesWithASet$"}},
	{"journal-first-record-finishes", "L6", "the first of several records that answer one input finishes it", Test{"orchestrator/journal", "^TestAnInputThatSeveralRecordsAnswerIsFinishedWithTheLast$"}},
	{"journal-row-stays", "L21", "a row that a decision removes is kept, and empty", Test{"orchestrator/journal", "^TestRowsOfOtherEntitiesAndRowsThatGoFoldAsTheRecordSays$"}},
	{"journal-purge-ignored", "L21", "a decided purge does not remove the rows", Test{"orchestrator", "^TestAFinalInstanceIsPurgedAfterItsRetention$"}},
}

var shardMutants = []Mutant{
	{"shard-unknown-starts-passed", "L12", "an event that starts a saga of another node's definition is skipped by a node that does not have it", Test{"orchestrator", "^TestRollingBackAndForthParksAndLosesNothing$"}},
	{"shard-position-passes-waiting", "L6, L12", "an input that waits for its definition counts as finished", Test{"orchestrator", "^TestRollingBackAndForthParksAndLosesNothing$"}},
	{"shard-waiting-holds-timers", "G11, L12", "what waits for its definition keeps the timers of its neighbours from firing", Test{"orchestrator", "^TestRollingBackAndForthParksAndLosesNothing$"}},
	{"shard-origin-passes-waiting", "L7, L12", "a later forward's low mark passes one that waits for its definition", Test{"orchestrator", "^TestAForwardWaitsForItsDefinitionAndIsNotTakenForADuplicate$"}},
	{"shard-begins-when-it-is-opened", "L8", "a shard begins to read a topic where it ends when the shard is opened, not when the definition was published", Test{"orchestrator", "^TestAShardThatReadsATopicLaterThanOthersMissesNothing$"}},
	{"shard-writes-the-newest-format", "L13", "an owner writes the newest format it knows", Test{"orchestrator", "^TestAnOwnerWritesTheFormatOfTheLevel$"}},
	{"shard-emit-before-ack", "G5, L14", "commands leave before their decision is acknowledged", Test{"orchestrator", "^TestNothingIsEmittedBeforeItsRecordIsAcknowledged$"}},
	{"shard-ack-ignored", "G9, L3", "the offset of an ack is not looked at", Test{"orchestrator", "^TestAPausedOwnerThatWakesChangesNothing$"}},
	{"shard-reads-back-with-a-hole", "G9, L3", "an owner that wakes after a trim takes the claim it cannot read for absent", Test{"orchestrator", "^TestAnOwnerThatWakesAfterATrimChangesNothing$"}},
	{"shard-claim-not-awaited", "L3", "the owner decides without having read up to its claim", Test{"orchestrator", "^TestWhatLandsBeforeTheClaimIsRead$"}},
	{"shard-store-trusted", "L4", "a store is not checked against the journal", Test{"orchestrator", "^TestAStoreOfAnotherHistoryIsNotTrusted$"}},
	{"shard-claim-war", "L5", "who loses a claim claims back at once, whatever the generation", Test{"orchestrator", "^TestWhoLostToALaterGenerationDoesNotClaimBack$"}},
	{"shard-position-passes-forward", "L6", "a position passes a forward that is not acknowledged", Test{"orchestrator", "^TestAPositionDoesNotPassAnUnacknowledgedForward$"}},
	{"shard-forward-taken-twice", "L7", "a forward that arrives twice is taken twice", Test{"orchestrator", "^TestAForwardIsTakenOnce$"}},
	{"shard-origin-passes-quarantine", "L7", "the low mark of an origin passes a forward that is still being quarantined", Test{"orchestrator", "^TestAForwardThatWasBeingQuarantinedIsNotADuplicate$"}},
	{"shard-start-not-journaled", "L8", "a first position is not journaled before the first poll", Test{"orchestrator", "^TestAStartPositionIsJournaledBeforeTheFirstPoll$"}},
	{"shard-timers-before-backlog", "L10", "timers fire before the inputs that waited are decided", Test{"orchestrator", "^TestTimersWaitForTheBacklog$"}},
	{"shard-trusts-its-own-clock", "L11", "a node's own clock fires timers", Test{"orchestrator", "^TestAClockAnHourAheadFiresNothingEarly$"}},
	{"shard-tail-not-emitted", "L14", "a new owner does not emit what the last one decided", Test{"orchestrator", "^TestAnOwnerThatDiesBeforeItsAckIsContinued$"}},
	{"shard-refusal-blocks", "L14", "a refused command holds emission progress back", Test{"orchestrator", "^TestARefusedCommandBecomesAnInput$"}},
	{"shard-row-not-carried", "G7", "a compaction round leaves rows behind", Test{"orchestrator", "^TestCompactionKeepsTheRows$"}},
	{"shard-walk-before-checkpoint-is-applied", "G7", "rows in flight at the checkpoint are missed by the walk", Test{"orchestrator", "^TestARowInFlightAtTheCheckpointIsCarried$"}},
	{"shard-trim-before-carries-are-acknowledged", "G7", "the journal is trimmed while carries are in flight", Test{"orchestrator", "^TestNothingIsTrimmedBeforeTheLastCarryIsAcknowledged$"}},
}
