package mutant

// Those that only a printed story shows name it; the others are caught by the rules that every random plan
// is held against.
var machineMutants = []Mutant{
	{"machine-retry-without-timer", "G1", "a second attempt that is never answered is waited for for ever", randomPlans},
	{"machine-held-forgotten", "G1", "what came while an instance was parked is not taken up when it goes on", randomPlans},
	{"machine-fork-ends-with-open-branches", "G2", "a fork is done while branches of it are open, so that a saga completes without their effects", randomPlans},
	{"machine-timeout-is-a-rejection", "G2", "an attempt that was not answered in time counts as one without effect, and owes no undo", randomPlans},
	{"machine-exhausted-undo-counts-as-done", "G2", "an undo whose attempts are used up counts as done, instead of parking its instance", randomPlans},
	{"machine-undo-recorded-with-the-reply", "G3", "a step owes its undo from its reply on, not from its command on", randomPlans},
	{"machine-seq-undone-at-once", "G4", "the steps of a Seq are undone side by side", randomPlans},
	{"machine-fork-undone-with-open-branches", "G2, G4", "what preceded a fork is undone before the fork's branches are", randomPlans},
	{"machine-duplicate-counts-twice", "G5", "a reply that arrives twice moves the saga on twice", randomPlans},
	{"machine-stale-timer-fires", "G5", "a timer fires that its row has no more", Test{"orchestrator/machine", "^TestStories$/^13-identity$"}},
	{"machine-retry-while-compensating", "G6", "a step is attempted again while its instance compensates", randomPlans},
	{"machine-undo-past-the-pivot", "G6", "a failure past the pivot undoes what is owed", Test{"orchestrator/machine", "^TestStories$/^07-pivot$"}},
	{"machine-unknown-pivot-fails", "G6", "a pivot whose effect is possible fails, and the saga compensates", randomPlans},
	{"machine-ended-takes-answers", "G6", "a reply changes an instance that has ended", randomPlans},
	{"machine-panic-escapes", "G11", "a user function that panics takes the process with it", Test{"orchestrator/machine", "^TestStories$/^10-user-functions$"}},
	{"machine-another-version-decides", "L12", "an instance is decided by whatever version there is", Test{"orchestrator/machine", "^TestAnInstanceIsNeverDecidedByAnotherVersion$"}},
	{"machine-command-never-expires", "L15", "forward commands carry no expiry", Test{"orchestrator/machine", "^TestStories$/^06-attempts$"}},
	{"machine-fan-out-unbounded", "L17", "a decision starts every branch of a fork", Test{"orchestrator/machine", "^TestStories$/^12-size$"}},
	{"machine-too-large-goes-out", "L17", "a decision larger than a record may be is not replaced by one that parks", Test{"orchestrator/machine", "^TestStories$/^12-size$"}},
	{"machine-superseded-execution-counts", "L19", "the reply to another execution of a step counts for this one", Test{"orchestrator/machine", "^TestStories$/^13-identity$"}},
	{"machine-rejection-discharges-all", "L19", "one rejected attempt frees the step of its undo, whatever became of the others", randomPlans},
	{"machine-late-done-ignored", "L19", "done counts only from the attempt that is waited for", Test{"orchestrator/machine", "^TestStories$/^06-attempts$"}},
	{"machine-retry-is-a-rejection", "L19", "a participant's retry counts as one without effect", randomPlans},
}

var randomPlans = Test{"orchestrator/machine", "^TestRandomPlansWithHostileParticipants$"}
