package orchestrator

import (
	"errors"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
)

// Codes of what an operator may read in the log, as the attribute code, or as the last word of Engine.Run,
// before the first colon. They are stable; each has a section in docs/errors.md. Those of a cluster that
// does not fit are the Kafka connection's, those of inputs and instances are in events and machine.
const (
	CodeTopicRecreated = "topic-recreated"
	CodeShardCount     = "shard-count"
	CodeNewerFormat    = "newer-format"
	CodeNewerLevel     = "newer-level"
	CodeDefinition     = "definition-changed"
	CodeJournalTrimmed = "journal-trimmed"

	CodeFenced           = "emitter-fenced"
	CodeClaimLost        = "claim-lost"
	CodeAppendUnknown    = "append-unknown"
	CodeJournalTruncated = "journal-truncated"
	CodeStoreFailed      = "store-failed"
	CodeStoreUntrusted   = "store-untrusted"
	CodeStoreCorrupt     = "store-corrupt"
	CodeStoreLocked      = "store-locked"

	CodeDefinitionMissing = "definition-missing" // of inputs that wait for one
	CodeFormatAwaited     = "format-awaited"     // of inputs that wait for a newer format of the journal

	CodePositionLost    = "position-lost"    // of an input, which halts
	CodeCorruptInstance = "corrupt-instance" // also the reason with which its inputs are ignored
	CodeNotQuarantined  = "not-quarantined"  // before the reason of a quarantined input that stands only where it was read
	CodeClockSkew       = "clock-skew"
)

// ErrorCode is the code of an error of Engine.Run or of a shard; "" when it has none, or its text names one
// already, as those of the Kafka connection's checks do.
func ErrorCode(err error) string {
	for _, known := range []struct {
		err  error
		code string
	}{
		// What no retry mends comes first: an error may have wrapped another one on its way.
		{events.ErrNewerFormat, CodeNewerFormat},
		{ErrLevel, CodeNewerLevel},
		{ErrDefinitionChanged, CodeDefinition},
		{ErrTopicRecreated, CodeTopicRecreated},
		{ErrShardCount, CodeShardCount},
		{journal.ErrTrimmed, CodeJournalTrimmed},
		{ErrClaimLost, CodeClaimLost},
		{ErrFenced, CodeFenced},
		{ErrTruncated, CodeJournalTruncated},
		{store.ErrCorrupt, CodeStoreCorrupt},
		{ErrUntrusted, CodeStoreUntrusted},
		{store.ErrLocked, CodeStoreLocked},
		{ErrStoreFailed, CodeStoreFailed},
		{ErrUnknownAppend, CodeAppendUnknown},
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return ""
}
