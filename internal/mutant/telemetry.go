package mutant

var telemetryMutants = []Mutant{
	{"telemetry-errors-without-status", "§7", "a rejected attempt looks like one that went well", Test{"test/engine", "^TestASagaIsATraceOfItsStepsAndCounted$"}},
	{"telemetry-forgets-beginnings", "§7", "a span whose command another node decided has no length", Test{"connectors/telemetry", "^TestAnAttemptOfAnotherOwnerBeganItsTimeOutBeforeItWasDue$"}},
	{"telemetry-keeps-instances-of-a-lost-shard", "§7", "a node goes on counting the instances of a shard that it gave away", Test{"test/engine", "^TestTheInstancesOfAStoreAreCountedAgainByWhoTakesItOver$"}},
	{"telemetry-labels-with-turns", "§7", "every turn of a loop has series of its own", Test{"connectors/telemetry", "^TestTheTurnsOfALoopAreOneSeries$"}},
	{"telemetry-store-not-counted", "§7", "what a store holds when its shard is opened is not counted", Test{"test/engine", "^TestTheInstancesOfAStoreAreCountedAgainByWhoTakesItOver$"}},
}
