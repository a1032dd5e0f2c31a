package mutant

var storeMutants = []Mutant{
	{"store-damaged-options-block", "L4", "a store whose options file is damaged is neither opened nor rebuilt, and its shard stands still", Test{"orchestrator/store", "^TestADamagedStoreIsNoticed$"}},
	{
		Name:        "store-timer-kept",
		Breaks:      "L21",
		Description: "a row's new due time leaves the timer of the old one in the index",
		CaughtBy:    Test{"orchestrator/store", "^TestPebbleConforms$"},
	},
	{
		Name:        "store-range-keeps-timers",
		Breaks:      "L21",
		Description: "a purge removes the rows and leaves their timers",
		CaughtBy:    Test{"orchestrator/store", "^TestPebbleConforms$"},
	},
	{
		Name:        "store-state-outside-batch",
		Breaks:      "G5",
		Description: "the state row is written in a batch of its own, ahead of the rows it speaks of",
		CaughtBy:    Test{"orchestrator/store", "^TestAStoreCutOffAnywhereIsAPrefix$"},
	},
	{
		Name:        "store-blind-to-write-errors",
		Breaks:      "G5",
		Description: "a failed write does not stop the store: it goes on taking batches that the disk does not",
		CaughtBy:    Test{"orchestrator/store", "^TestADiskThatFillsUpStopsTheStore$"},
	},
	{
		Name:        "store-trusts-manifest",
		Breaks:      "G7",
		Description: "a damaged manifest is not noticed, and opens as an older set of files",
		CaughtBy:    Test{"orchestrator/store", "^TestADamagedManifestIsNoticed$"},
	},
	{
		Name:        "store-hint-not-lowered",
		Breaks:      "G1",
		Description: "a timer that is due before all others is overlooked",
		CaughtBy:    Test{"orchestrator/store", "^TestPebbleConforms$"},
	},
	{
		Name:        "store-load-before-flush",
		Breaks:      "G5",
		Description: "a restore's table is on the disk, and what was applied before it is not",
		CaughtBy:    Test{"orchestrator/store", "^TestWhatWasAppliedBeforeALoadIsOnDiskWithIt$"},
	},
	{
		Name:        "store-load-without-state",
		Breaks:      "G5",
		Description: "a restore's rows are in the store, and the state row speaks of the rows before them",
		CaughtBy:    Test{"orchestrator/store", "^TestPebbleLoadsAsItApplies$"},
	},
	{
		Name:        "store-load-timer-kept",
		Breaks:      "L21",
		Description: "a restore leaves the timers of rows that are due at another time now",
		CaughtBy:    Test{"orchestrator/store", "^TestPebbleLoadsAsItApplies$"},
	},
	{
		Name:        "store-load-keeps-purged",
		Breaks:      "G7",
		Description: "a restore leaves what an earlier part of it wrote of an instance that was purged since",
		CaughtBy:    Test{"orchestrator/store", "^TestPebbleLoadsAsItApplies$"},
	},
}
