package orchestrator

import (
	"fmt"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// What is accepted reaches the store a little later, several records in one batch: a saga that goes on
// meanwhile rewrites the same rows and timers, and only their last images are written. Until then the overlay
// has them. Nothing waits for the store: it is a prefix of the journal at any moment, and only what reads it
// (timers, compaction, the end) asks for what is accepted first.

// Bounds of what is accepted and not in the store yet.
const (
	maxUnapplied      = 4096
	maxUnappliedBytes = 4 << 20 // of journal
	applyAfter        = 250 * time.Millisecond
)

// unapplied are accepted records, in order, and what they change.
type unapplied struct {
	records []pending
	bytes   int
	since   int64 // by Clock, ms: when the first was accepted
	writes  writes
}

// later keeps accepted records for the next batch.
func (s *Shard) later(accepted []pending) {
	u := &s.unapplied
	if len(u.records) == 0 {
		u.since = s.cfg.Clock()
	}
	u.records = append(u.records, accepted...)
	for i := range accepted {
		u.bytes += accepted[i].size
	}
}

// applyDue applies what was accepted when it is time, or enough.
func (s *Shard) applyDue() error {
	u := &s.unapplied
	if len(u.records) == 0 || !s.stopping && len(u.records) < maxUnapplied && u.bytes < maxUnappliedBytes && s.applyIn() > 0 {
		return nil
	}
	return s.apply()
}

// applyIn is how long the next batch has time, in ms.
func (s *Shard) applyIn() int64 {
	return s.cfg.ApplyAfter.Milliseconds() - (s.cfg.Clock() - s.unapplied.since)
}

// apply writes all that was accepted to the store, with the state it belongs to, in one batch.
func (s *Shard) apply() error {
	u := &s.unapplied
	if len(u.records) == 0 {
		return nil
	}
	s.applied.EmitFrom = s.emits.from(s.applied.EmittedSeq, s.applied.Next)
	u.writes.State = s.applied.Encode()
	s.timers.note(&u.writes.Batch)
	err := s.store.Apply(&u.writes.Batch)
	u.writes.reset()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	for i := range u.records {
		s.settle(&u.records[i])
	}
	clear(u.records)
	u.records, u.bytes = u.records[:0], 0
	return nil
}

// writes is a batch in which each row stands once, as long as no range is deleted in between.
type writes struct {
	store.Batch
	at map[rowID]int // where in Ops a row stands, since the last range
}

// Set implements journal.Rows.
func (w *writes) Set(key []byte, due, wasDue int64, value []byte, base uint64) {
	id, ref, ok := events.ParseRowKey(key)
	if !ok {
		w.Batch.Set(key, due, wasDue, value, base)
		return
	}
	if w.at == nil {
		w.at = map[rowID]int{}
	}
	k := rowIDOf(id, ref)
	if i, again := w.at[k]; again {
		op := &w.Ops[i] // its WasDue stays: that is the timer in the store
		op.Gone, op.Due, op.Value, op.Base = false, due, value, base
		return
	}
	w.at[k] = len(w.Ops)
	w.Batch.Set(key, due, wasDue, value, base)
}

// Delete implements journal.Rows.
func (w *writes) Delete(key []byte, wasDue int64, seq uint64) {
	if id, ref, ok := events.ParseRowKey(key); ok {
		k := rowIDOf(id, ref)
		if i, again := w.at[k]; again {
			op := &w.Ops[i]
			op.Gone, op.Due, op.Value, op.Base = true, 0, nil, 0
			return
		}
		if w.at == nil {
			w.at = map[rowID]int{}
		}
		w.at[k] = len(w.Ops)
	}
	w.Batch.Delete(key, wasDue, seq)
}

// DeleteRange implements journal.Rows.
func (w *writes) DeleteRange(from, to []byte) {
	clear(w.at)
	w.Batch.DeleteRange(from, to)
}

func (w *writes) reset() {
	clear(w.at)
	clear(w.Ops) // they hold the decisions' buffers
	w.Batch.Reset()
}
