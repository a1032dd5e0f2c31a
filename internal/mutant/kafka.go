package mutant

var kafkaMutants = []Mutant{
	{"kafka-held-append-follows-a-failed-one", "L3", "an append that was held for company is sent after the one before it has failed", Test{"connectors/kafka", "^TestAHeldAppendIsNotSentAfterOneThatFailed$"}},
	{"kafka-held-for-ever", "G1", "what is held for company leaves only when something is answered", Test{"connectors/kafka", "^TestNothingIsHeldForLong$"}},
	{"kafka-nothing-gathered", "§7", "each record is a request of its own, however many there are", Test{"connectors/kafka", "^TestARecordIsHeldOnlyWhileThereMayBeCompany$"}},
	{"kafka-trim-takes-one-more", "G7", "a trim deletes the record that it is to end before: the checkpoint", Test{"connectors/kafka", "^TestTrimIsExact$/^embedded$"}},
	{"kafka-bomb-is-unpacked", "G11", "a batch is decompressed to whatever size it has", Test{"connectors/kafka", "^TestACompressionBombIsSkippedAndItsNeighboursAreNot$/^embedded$"}},
	{"kafka-append-behind-a-failed-one", "L2", "an append goes out behind one whose outcome is unknown", Test{"connectors/kafka", "^TestAnAppendWhoseAnswerIsLostIsUnknownAndNothingIsAppendedBehindIt$/^embedded$"}},
	{"kafka-topic-id-unread", "L4", "a topic that was created anew has the id of the old one", Test{"connectors/kafka", "^TestATopicCreatedAnewHasAnotherID$/^embedded$"}},
	{"kafka-lost-position-goes-on-at-the-start", "L8", "a position outside the log is silently moved to the log's start", Test{"connectors/kafka", "^TestAPositionOutsideTheLogIsReported$/^embedded$"}},
	{"kafka-finite-retention-taken", "L8", "the engine starts on topics that Kafka deletes by age or size", Test{"connectors/kafka", "^TestWhatWouldLoseSagasIsRefusedAtTheStart$"}},
	{"kafka-refusal-leaves-the-outcome-open", "L14", "what Kafka refuses for good is taken for something that may pass", Test{"connectors/kafka", "^TestWhatCanNeverArriveIsRefusedAndItsNeighboursAreNot$/^embedded$"}},
	{"kafka-secrets-shown", "§7", "a secret prints as it is", Test{"connectors/kafka", "^TestSecretsShowInNoKindOfOutput$"}},
	{"kafka-file-over-flags", "§7", "a file's setting goes before that of a flag", Test{"connectors/kafka", "^TestFlagsGoBeforeEnvironmentBeforeTheFileBeforeJavasPropertiesBeforeDefaults$"}},
	{"kafka-yaml-key-twice", "§7", "a key that stands twice in the file is taken", Test{"connectors/kafka", "^TestABadYAMLFileIsRefusedWithLineAndCure$"}},
	{"kafka-unsupported-security-ignored", "§7", "a Java property about security that is not supported is passed over with a warning", Test{"connectors/kafka", "^TestSecurityThatIsNotSupportedIsRefusedAndWhatIsUnknownIsWarnedAbout$"}},
	{"kafka-token-file-read-once", "§7", "a token file that is renewed is not read again", Test{"connectors/kafka", "^TestATokenOrPasswordInAFileIsReadAnewAtEachAuthentication$"}},
	{"kafka-any-host-is-any-certificate", "§7", "with host names unchecked, certificates are not checked at all", Test{"connectors/kafka", "^TestACertificateOfAnotherHostIsTakenOnlyWhenToldAndOfAnotherAuthorityNever$"}},
	{"kafka-rights-not-asked", "§7", "a right that is missing is found out at work, and not at the start", Test{"connectors/kafka", "^TestEachRightThatIsMissingIsNamedAtTheStartAndNoOtherIsNeeded$"}},
	{"kafka-transaction-without-progress", "G5, L16", "how far is emitted is not committed with the commands", Test{"connectors/kafka", "^TestWhatIsEmittedAndHowFarAreOneTransaction$/^embedded$"}},
	{"kafka-refusal-of-the-whole-batch", "G11, L14", "in a transaction, one message that is refused takes those beside it along", Test{"connectors/kafka", "^TestAMessageThatIsRefusedLeavesTheOthersOfItsTransaction$/^embedded$"}},
	{"kafka-no-trim-unsaid", "§6", "brokers that cannot trim are taken without a word", Test{"connectors/kafka", "^TestWhatBrokersLackIsSaidAtTheStart$"}},
}
