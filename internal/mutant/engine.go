package mutant

var engineMutants = []Mutant{
	{"api-local-for-everybody", "G10", "who is not on the same machine may change something", Test{"orchestrator/api", "^TestWhatChangesAnythingIsForCallersOnTheSameMachine$"}},
	{"engine-death-unnoticed", "L5", "a refused connection says nothing: a killed node's shards wait for the end of its session", Test{"test/chaos", "^TestAKilledNodeIsReplacedLongBeforeItsSessionEnds$/^embedded$"}},
	{"engine-evicts-whom-it-never-reached", "L5", "a node whose address was never reached is taken for dead", Test{"test/engine", "^TestANodeThatWasNeverReachedIsNotEvicted$"}},
	{"engine-evicts-again-and-again", "L5", "a node that lives and cannot be reached is evicted each time it comes back", Test{"test/engine", "^TestNodesThatCannotReachEachOtherSettle$/^embedded$"}},
	{"engine-repetition-answered-as-such", "L22", "an action that another caller on the same node read of is answered with its repetition", Test{"orchestrator", "^TestWhoAsksAgainGetsTheFirstAnswerThoughAnotherReadItForHim$"}},
	{"engine-keeps-answers-of-nobody", "L22", "answers that nobody on the node asked for fill the room of those that somebody did", Test{"orchestrator", "^TestAnswersThatNobodyHereWaitsForDoNotKeepOutThoseThatSomebodyDoes$"}},
	{"engine-another-tree-taken", "L12", "a definition with the name and version of a published one and another tree is taken", Test{"test/engine", "^TestAnotherTreeUnderTheSameVersionIsRefusedAtTheStart$/^embedded$"}},
	{"engine-shards-go-to-anybody", "L12", "a shard whose inputs wait for a definition stays with a node that does not have it", Test{"test/engine", "^TestAShardGoesToANodeThatHasTheDefinitionItWaitsFor$/^embedded$"}},
	{"engine-level-ignores-silent-members", "L13", "the level is raised beside members of builds that say nothing of themselves", Test{"test/engine", "^TestTheFormatIsRaisedOnceEveryMemberReadsIt$"}},
}
