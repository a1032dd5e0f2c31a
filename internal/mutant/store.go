package mutant

var storeMutants = []Mutant{
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
}
