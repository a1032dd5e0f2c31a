package mutant

var participantMutants = []Mutant{
	{"participant-forgets-its-answers", "G5", "a command that was answered is executed again", Test{"connectors/participant", "^TestADuplicateAndALaterAttemptGetTheFirstAnswerAgain$"}},
	{"participant-rejection-not-remembered", "G2", "a command that was rejected, and whose undo is therefore not owed, is executed when it comes again", Test{"connectors/participant", "^TestARejectionIsRememberedAndARetryIsNot$"}},
	{"participant-call-not-noted", "G2", "after a crash inside a handler the command is rejected, though its effect may be there", Test{"connectors/participant", "^TestAfterACrashInsideTheHandlerNothingDefiniteIsSaidOnceItExpired$"}},
	{"participant-failed-handler-commits", "G2", "what a handler wrote stays, though its command was rejected", Test{"connectors/participant", "^TestALedgerInTheUsersDatabaseCommitsEffectAndAnswerAsOne$"}},
	{"participant-panic-escapes", "G11", "a handler that panics takes the process with it", Test{"connectors/participant", "^TestAPanicIsARetryAndItsNeighboursGoOn$"}},
	{"participant-position-passes-unsent-reply", "L6", "a command is committed whose reply is not acknowledged", Test{"connectors/participant", "^TestAfterACrashEveryUncommittedCommandIsAnsweredAndNoneIsExecutedTwice$"}},
	{"participant-semantic-lock-shared", "G12", "a semantic lock keeps nobody off", Test{"connectors/participant", "^TestASemanticLockKeepsOtherSagasOffUntilItsOwnHasEnded$"}},
	{"participant-position-passes-open-command", "L6", "a position passes a command that is being executed", Test{"connectors/participant", "^TestAPositionDoesNotPassACommandThatIsBeingExecuted$"}},
	{"participant-tombstone-not-kept", "L15", "an undo leaves no note, so that its forward command is executed after it", Test{"connectors/participant", "^TestAForwardCommandThatItsUndoOvertookIsRefused$"}},
	{"participant-expiry-ignored", "L15", "a forward command is executed after its expiry", Test{"connectors/participant", "^TestAnExpiredCommandIsRefusedUnlessItWasAnsweredBefore$"}},
	{"participant-forgets-before-expiry", "L15", "keys may be forgotten while their commands may still come", Test{"connectors/participant", "^TestKeysAreForgottenAfterTheRetention$"}},
}
