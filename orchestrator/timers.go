package orchestrator

import (
	"fmt"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
)

// timersPerTurn bounds how many timers one turn decides, so that inputs are not kept waiting.
const timersPerTurn = 256

// timers follows the store's index of due times without asking it every turn.
type timers struct {
	next int64  // a lower bound of the store's earliest due time; 0: none
	hold uint64 // no scan before this record is applied: until then the store still shows timers that fired
}

// note takes the due times that a batch sets.
func (t *timers) note(b *store.Batch) {
	for i := range b.Ops {
		if due := b.Ops[i].Due; due != 0 && (t.next == 0 || due < t.next) {
			t.next = due
		}
	}
}

// fire decides the timers whose time has come. A timer that an unapplied record has moved or dropped is
// passed over: the deciding state knows better than the store.
func (s *Shard) fire() (more bool, err error) {
	now := s.now()
	if s.backlog || s.timers.next == 0 || s.timers.next > now || s.timers.hold > s.applied.Seq {
		return false, nil
	}
	if err := s.apply(); err != nil {
		return false, err
	}
	var due []store.Timer
	if err := s.store.Due(now, func(t store.Timer) bool {
		due = append(due, store.Timer{Due: t.Due, Key: append([]byte(nil), t.Key...)})
		return len(due) < timersPerTurn
	}); err != nil {
		return false, fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	for _, t := range due {
		id, ref, ok := events.ParseRowKey(t.Key)
		if !ok {
			return false, fmt.Errorf("%w: a timer of key %x", ErrStoreFailed, t.Key)
		}
		if s.broken[id] {
			continue
		}
		if _, set, ok := s.overlay.Row(id, ref); !ok || set != t.Due {
			continue
		}
		d := s.cfg.Machine.Timer(s.overlay, now, machine.Timer{Instance: id, Row: ref, Due: t.Due})
		in := events.Input{Kind: events.InputTimer, Row: ref, Due: t.Due, MessageID: fmt.Sprintf("timer-%s-%d", id, s.ahead.Seq+1)}
		if err := s.decide(id, d, in); err != nil {
			return false, err
		}
	}
	if s.overlay.err != nil {
		return false, fmt.Errorf("%w: %w", ErrStoreFailed, s.overlay.err)
	}
	s.timers.hold = s.ahead.Seq
	if len(due) < timersPerTurn && s.ahead.Seq == s.applied.Seq {
		// Nothing fired and nothing is in flight: the store's index is exact.
		if s.timers.next, err = s.store.NextDue(); err != nil {
			return false, fmt.Errorf("%w: %w", ErrStoreFailed, err)
		}
		if len(s.broken) > 0 {
			s.timers.next = max(s.timers.next, now+1000)
		}
	}
	return len(due) == timersPerTurn, nil
}
