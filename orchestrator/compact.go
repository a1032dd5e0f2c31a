package orchestrator

import (
	"fmt"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/store"
)

// Bounds of one turn's part of a compaction round, so that decisions are not kept waiting.
const (
	carryBytes = 256 << 10 // of rows carried in one turn
	carryRows  = 4096      // rows looked at in one turn
	carrySize  = 64 << 10  // of one carry record, about
)

// round is a compaction round under way (LOG §1): a checkpoint at T, then a carry for each row whose last
// full image lies below T, then the records below T are deleted. It lives in memory alone: an owner that is
// replaced on the way deletes nothing, and the next one starts anew.
type round struct {
	checkpoint uint64 // sequence of the checkpoint
	offset     int64  // T, once acknowledged
	cursor     []byte // the next key to look at
	live       int64  // bytes of the rows seen so far
	carried    int64  // and of those that were carried
	part       uint64 // sequence of the last carry so far
	end        uint64 // sequence of the last carry; 0: the walk is under way
	trimming   bool
}

// compact begins a round when the journal has grown by the size of the live rows, and does a turn's part of
// the one under way.
//
// docs/spec: Compact.Begin, Compact.Trim, Append.Trim, Emit.Trim
func (s *Shard) compact() error {
	if s.stopping || s.backlog {
		return nil
	}
	if s.round == nil {
		if s.applied.Bytes < max(s.cfg.CompactAfter, s.liveBytes) {
			return nil
		}
		s.append(&events.Record{Kind: events.KindCheckpoint, Term: s.ahead.Term, Checkpoint: s.ahead.NewCheckpoint()})
		s.round = &round{checkpoint: s.ahead.Seq, cursor: []byte{events.FamilyInstance}}
		return nil
	}
	r := s.round
	switch {
	case s.applied.Seq < r.checkpoint && !mutant.On("shard-walk-before-checkpoint-is-applied"):
		// Rows of records in flight at the checkpoint are not in the store yet: a walk now would miss them.
		return nil
	case r.end == 0:
		return s.walk(r)
	case s.applied.Seq < r.end && !mutant.On("shard-trim-before-carries-are-acknowledged") || s.emits.emitted() < r.checkpoint || r.trimming:
		return nil
	case s.applied.Seq < s.emits.refusal:
		// With its owner the refusal's decision may be lost: the next one must find what was refused.
		return nil
	}
	// A store that ends before the carries would be of no use once the journal begins behind it.
	if err := s.apply(); err != nil {
		return err
	}
	r.trimming = true
	s.aside(func() {
		err := s.journal.Trim(s.bg, r.offset)
		s.post(func(s *Shard) error {
			s.round, s.liveBytes = nil, r.live
			for _, h := range s.hooks.compaction {
				h.Compacted(s.cfg.ID, Compaction{Live: r.live, Carried: r.carried, Err: err})
			}
			if err != nil {
				s.log.Warn("trimming the journal failed; it grows until the next round succeeds", "below", r.offset, "err", err)
			} else {
				s.stats.rounds.Add(1)
				s.log.Info("compacted", "begins_at", r.offset, "live_bytes", r.live)
			}
			return nil
		})
	})
	return nil
}

// walk carries the next rows. A carry is the row as every earlier record left it, those in flight included:
// the deciding state says what that is.
//
// docs/spec: Compact.Walk, Compact.End
func (s *Shard) walk(r *round) error {
	if s.applied.Seq < r.part && !mutant.On("shard-carries-outrun-their-acks") {
		return nil // a walk is faster than any broker, and what is in flight is held in memory
	}
	if err := s.apply(); err != nil {
		return err
	}
	var carry events.Carry
	var size, total, seen int
	var last []byte
	flush := func() {
		if len(carry.Rows) > 0 {
			c := carry
			s.append(&events.Record{Kind: events.KindCarry, Carry: &c})
			carry, size = events.Carry{}, 0
		}
	}
	full := false
	err := s.store.Scan(r.cursor, nil, func(row store.Row) bool {
		if seen++; seen > carryRows || total > carryBytes {
			full = true
			return false
		}
		last = append(last[:0], row.Key...)
		r.live += int64(len(row.Key) + len(row.Value))
		if row.Base >= r.checkpoint || mutant.On("shard-row-not-carried") && seen%5 == 0 {
			return true
		}
		value, due, ok := s.current(&row, r.checkpoint)
		if !ok {
			return true
		}
		carry.Rows = append(carry.Rows, events.CarriedRow{Key: append([]byte(nil), row.Key...), Due: due, Value: append([]byte(nil), value...)})
		size += len(row.Key) + len(value)
		total += len(row.Key) + len(value)
		r.carried += int64(len(row.Key) + len(value))
		if size >= carrySize {
			flush()
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	flush()
	r.part = s.ahead.Seq
	if full {
		r.cursor = append(last, 0)
		return nil
	}
	s.append(&events.Record{Kind: events.KindCarry, Carry: &events.Carry{End: r.checkpoint}})
	r.end = s.ahead.Seq
	return nil
}

// current is the row as the deciding state has it; ok is false when it needs no carry: a record above the
// checkpoint sets, removes or deletes it.
func (s *Shard) current(row *store.Row, checkpoint uint64) (value []byte, due int64, ok bool) {
	id, ref, isRow := events.ParseRowKey(row.Key)
	if !isRow {
		return row.Value, row.Due, true
	}
	if r := s.overlay.changed(id, ref); r != nil {
		return r.value, r.due, r.seq < checkpoint && !r.gone
	}
	return row.Value, row.Due, true
}
