package mutant

var sagasMutants = []Mutant{
	{"sagas-endless-loop-accepted", "G1", "a definition whose own command or event starts it again is accepted", mistakes},
	{"sagas-step-without-undo-accepted", "G2", "a step that can fail and changes something needs no undo", mistakes},
	{"sagas-undo-past-the-pivot-accepted", "G6", "what may have to undo something may stand after the pivot", mistakes},
	{"sagas-approval-says-who", "G10", "an approval is by whom its payload names, not by who sent it", Test{"sagas", "^TestAnApprovalSaysYesOrNoAndWhoSentIt$"}},
	{"sagas-hash-of-old-plans-changes", "L12", "a plan that was hashed before there were other kinds of nodes has another hash now", Test{"sagas", "^TestTheHashOfAPlanIsForEver$"}},
	{"sagas-join-not-hashed", "L12", "two plans that differ in how a fork is joined have one hash", Test{"sagas", "^TestTheHashTellsPlansOfTheNewKindsApart$"}},
}

var mistakes = Test{"sagas", "^TestAMistakeIsNamedWithFileLineDefinitionAndNode$"}
