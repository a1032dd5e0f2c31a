package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/skald-io/skald/events"
)

// What stands under which key:
//
//	row     the logical row's own key → uvarint base, varint due, the value
//	timer   't', the due time as 8 bytes big endian, the row's key → nothing
//	state   's' → the state row
//	format  "sformat" → uvarint formatVersion
//
// The first byte of a key is its family (events.Family…). State and timers are no logical rows, and lie
// between those that sort below 's' and those that sort above 't'.

const formatVersion = 1

var (
	stateKey  = []byte{events.FamilyState}
	formatKey = append([]byte{events.FamilyState}, "format"...)

	holeFrom = []byte{events.FamilyState}
	holeTo   = []byte{events.FamilyTimer + 1}
	timersTo = []byte{events.FamilyTimer + 1}
)

// Both families must be neighbours, or the hole would hide a family between them.
var _ = [1]struct{}{}[events.FamilyTimer-events.FamilyState-1]

func logical(key []byte) bool {
	return len(key) > 0 && key[0] != events.FamilyState && key[0] != events.FamilyTimer
}

// check refuses an op that no journal record can stand for: a fault of the caller, found before anything
// is changed.
func (op *Op) check() error {
	if op.To != nil {
		return nil
	}
	if !logical(op.Key) {
		return fmt.Errorf("store: %x is not the key of a logical row", op.Key)
	}
	if op.Due < 0 && !op.Gone {
		return fmt.Errorf("store: row %x: negative due time %d", op.Key, op.Due)
	}
	return nil
}

func (b *Batch) check() error {
	for i := range b.Ops {
		if err := b.Ops[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func inRange(key, from, to []byte) bool {
	return bytes.Compare(from, key) <= 0 && bytes.Compare(key, to) < 0
}

func appendTimerKey(dst []byte, due int64, row []byte) []byte {
	dst = append(dst, events.FamilyTimer)
	dst = binary.BigEndian.AppendUint64(dst, uint64(due))
	return append(dst, row...)
}

// parseTimerKey gives the timer of a key; its row's key aliases k.
func parseTimerKey(k []byte) (Timer, error) {
	if len(k) < 10 || k[0] != events.FamilyTimer || !logical(k[9:]) || k[1] >= 0x80 {
		return Timer{}, fmt.Errorf("timer %x: %w", k, ErrCorrupt)
	}
	return Timer{Due: int64(binary.BigEndian.Uint64(k[1:])), Key: k[9:]}, nil
}

func appendValue(dst []byte, op *Op) []byte {
	dst = binary.AppendUvarint(dst, op.Base)
	dst = binary.AppendVarint(dst, op.Due)
	return append(dst, op.Value...)
}

// parseRow gives the row under key; its slices alias key and v.
func parseRow(key, v []byte) (Row, error) {
	base, n := binary.Uvarint(v)
	if n <= 0 {
		return Row{}, fmt.Errorf("row %x: %w: its base is unreadable", key, ErrCorrupt)
	}
	due, m := binary.Varint(v[n:])
	if m <= 0 || due < 0 {
		return Row{}, fmt.Errorf("row %x: %w: its due time is unreadable", key, ErrCorrupt)
	}
	return Row{Key: key, Value: v[n+m:], Due: due, Base: base}, nil
}

// ErrLocked says that a store's directory is in use, by this process or another one.
var ErrLocked = errors.New("the store is in use")

// NewerError says that a later build wrote the store. It wraps ErrCorrupt, since what to do is the same:
// discard the store and rebuild it.
type NewerError struct {
	Dir    string
	Detail string // which format was found, and which is the latest that this build reads
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("store %s was written by a later build: %s; discard it, it is rebuilt from the journal", e.Dir, e.Detail)
}

func (e *NewerError) Unwrap() error { return ErrCorrupt }
