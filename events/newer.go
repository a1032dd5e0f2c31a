package events

import (
	"errors"
	"fmt"
)

// ErrNewerFormat says that a record was written in a format this build does not read. The error is a
// *NewerFormatError.
var ErrNewerFormat = errors.New("written in a newer journal format")

// NewerFormatError is ErrNewerFormat with what can be known of the record all the same.
type NewerFormatError struct {
	Format uint8
	Build  string // of the program that claimed the shard to write it; "" if the record does not say
}

func (e *NewerFormatError) Error() string {
	by := ""
	if e.Build != "" {
		by = fmt.Sprintf(" by build %.100q", e.Build)
	}
	return fmt.Sprintf("%v (%d; this build reads up to %d)%s", ErrNewerFormat, e.Format, Format, by)
}

func (e *NewerFormatError) Is(target error) bool { return target == ErrNewerFormat }

// claimedBy looks for the build that a record of any format names: a claim, and the claim in a checkpoint,
// stay where format 1 has them, so that an older build can say whom to ask. It is "" when there is none.
func claimedBy(p []byte) string {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 7:
			var c Claim
			if c.decode(f.bytes()) == nil {
				return c.Build
			}
		case 10:
			var c Checkpoint
			if c.decode(f.bytes()) == nil {
				return c.Claim.Build
			}
		}
	}
	return ""
}
