package mutant

var eventsMutants = []Mutant{
	{"events-idempotency-key-per-attempt", "G5", "every attempt of a step has a key of its own, so that participants apply each", Test{"events", "^TestAnIdempotencyKeyIsTheSameForAllAttemptsAndNothingElse$"}},
	{"events-forged-origin-kept", "L7", "a message from outside may bring an origin of its own", Test{"events", "^TestAnOriginFromOutsideIsDropped$"}},
	{"events-newer-format-read", "L13", "a record of a newer format is read as if it were of this one", Test{"events", "^TestARecordOfANewerFormatIsRefusedAsSuch$"}},
	{"events-unknown-fields-dropped", "L13", "an older build that writes a row drops what a newer one had put there", Test{"events", "^TestUnknownFieldsSurviveAtEveryLevel$"}},
	{"events-level-raised-too-early", "L13", "a format level counts while a node that does not read it is known", Test{"events", "^TestTheLevelCountsOnlyIfEveryNodeKnownThereReadsIt$"}},
	{"events-undo-names-nothing", "L15", "an undo does not say what it undoes", Test{"events", "^TestAnUndoNamesWhatItUndoesAndNeverExpires$"}},
	{"events-instance-without-message", "L18", "an instance's id does not depend on the message that started it", Test{"events", "^TestInstanceIDsDifferInWhateverNamesThem$"}},
	{"events-attempts-share-a-span", "L14", "two attempts of a step name one span, and what becomes of the first hides the second", Test{"events", "^TestACommandOfATracedSagaNamesTheSpanOfItsAttempt$"}},
	{"events-command-id-unchecked", "L19", "a reply to a damaged command id counts for whatever attempt it names", Test{"events", "^TestOnlyTheOwnUndamagedTextOfACommandIDIsTaken$"}},
}
