package orchestrator

import (
	"errors"
	"fmt"
	"time"

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
	due, err := s.due(s.timersUntil(now))
	if err != nil {
		return false, err
	}
	for _, t := range due {
		if _, set, ok := s.overlay.Row(t.Instance, t.Row); !ok || set != t.Due {
			continue
		}
		for _, h := range s.hooks.timer {
			h.TimerFired(s.cfg.ID, time.Duration(now-t.Due)*time.Millisecond)
		}
		d := s.sayable(s.cfg.Machine.Timer(s.overlay, now, t))
		if d != nil && d.Outcome == machine.Waits && s.overlay.err == nil {
			s.passOver(d, t.Instance)
			continue
		}
		in := events.Input{Kind: events.InputTimer, Row: t.Row, Due: t.Due, MessageID: fmt.Sprintf("timer-%s-%d", t.Instance, s.ahead.Seq+1)}
		if err := s.decide(t.Instance, d, in); err != nil {
			return false, err
		}
	}
	if s.overlay.err != nil {
		return false, fmt.Errorf("%w: %w", ErrStoreFailed, s.overlay.err)
	}
	if len(due) > 0 {
		s.timers.hold = s.ahead.Seq
	}
	if len(due) < timersPerTurn {
		// The store has all that was accepted; what is in flight is noted when it gets there.
		if s.timers.next, err = s.store.NextDue(); err != nil {
			return false, fmt.Errorf("%w: %w", ErrStoreFailed, err)
		}
		if len(s.broken)+len(s.absent.instances) > 0 {
			s.timers.next = max(s.timers.next, now+1000)
		}
	}
	return len(due) == timersPerTurn, nil
}

// timersUntil is the time up to which timers may fire: not beyond the arrival of a reply, or of a forwarded one, that
// is still in the queue. Its answer counts before the time-out that came after it.
func (s *Shard) timersUntil(now int64) int64 {
	for _, in := range s.inputs {
		if in.own && in.queued > 0 {
			now = min(now, in.queue[0].at)
		}
	}
	return now
}

// due gives the timers up to a time that belong to instances which can be decided, timersPerTurn at most.
func (s *Shard) due(until int64) (due []machine.Timer, err error) {
	var bad error
	err = s.store.Due(until, func(t store.Timer) bool {
		id, ref, ok := events.ParseRowKey(t.Key)
		if !ok {
			bad = fmt.Errorf("a timer of key %x", t.Key)
			return false
		}
		if !s.broken[id] && !s.absent.instances[id] {
			due = append(due, machine.Timer{Instance: id, Row: ref, Due: t.Due})
		}
		return len(due) < timersPerTurn
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	return due, nil
}
