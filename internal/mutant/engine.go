package mutant

var engineMutants = []Mutant{
	{"engine-another-tree-taken", "L12", "a definition with the name and version of a published one and another tree is taken", Test{"test/engine", "^TestAnotherTreeUnderTheSameVersionIsRefusedAtTheStart$/^embedded$"}},
	{"engine-shards-go-to-anybody", "L12", "a shard whose inputs wait for a definition stays with a node that does not have it", Test{"test/engine", "^TestAShardGoesToANodeThatHasTheDefinitionItWaitsFor$/^embedded$"}},
}
