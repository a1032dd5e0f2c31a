package orchestrator

import (
	"errors"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
)

// How often the owner journals what it did besides deciding, trims its inputs, and measures its clock.
const (
	reportEvery = time.Second
	trimEvery   = 10 * time.Second
	clockEvery  = time.Minute
)

// progress is what the shard last told the journal about itself.
type progress struct {
	at      int64 // by Clock, ms
	trimmed int64
	clocked int64 // when the clock was last measured
	told    int64 // when hooks were last told the load
}

// report journals positions and emission progress within a second of their change, also when nothing is
// decided (L6, L14), and trims the shard's own topics below what is journaled (L8).
func (s *Shard) report() {
	now := s.cfg.Clock()
	if now-s.progress.trimmed >= trimEvery.Milliseconds() {
		s.progress.trimmed = now
		s.trimInputs()
	}
	if len(s.hooks.load) > 0 && now-s.progress.told >= reportEvery.Milliseconds() {
		s.progress.told = now
		s.tellLoad()
	}
	s.commitPositions()
	if now-s.progress.at < reportEvery.Milliseconds() || s.stopping || s.full() {
		return
	}
	s.reportNow()
}

// docs/spec: Forward.Report, Emit.Report
func (s *Shard) reportNow() {
	s.progress.at = s.cfg.Clock()
	p := &events.Progress{}
	changed := false
	for _, in := range s.inputs {
		if low := in.low(); low > in.ahead.Low {
			p.Positions = append(p.Positions, events.Position{Topic: in.tp.Topic, Partition: in.tp.Partition, Low: low})
			changed = true
		}
	}
	switch emitted := s.emits.emitted(); {
	case s.ahead.EmittedSeq >= s.emits.lastEmitting: // all of it is journaled
	case emitted > s.ahead.EmittedSeq:
		p.EmittedSeq, p.Emitted, changed = emitted, s.emits.further(), true
	default: // a topic holds the others up: journal how far they are
		for _, t := range s.emits.further() {
			if t.Seq > s.ahead.Emitted[t.Topic] {
				p.Emitted, changed = append(p.Emitted, t), true
			}
		}
	}
	if !changed {
		return
	}
	s.append(&events.Record{Kind: events.KindDecision, Decision: &events.Decision{Outcome: events.Progressed, Progress: p}})
}

// trimInputs deletes from the shard's inbox and replies what is journaled as finished. It need not succeed:
// the next one deletes the same and more.
func (s *Shard) trimInputs() {
	for _, in := range s.inputs {
		if !in.own {
			continue
		}
		tp, low := in.tp, s.applied.Position(journal.TP(in.tp)).Low
		if low == 0 || low == in.trimmed {
			continue
		}
		s.aside(func() {
			err := s.cfg.Kafka.DeleteRecords(s.bg, tp, low)
			if err == nil {
				s.post(func(*Shard) error { in.trimmed = low; return nil })
			} else if s.bg.Err() == nil {
				s.log.Warn("trimming failed; it grows until the next one succeeds", "topic", tp.Topic, "partition", tp.Partition, "below", low, "err", err)
			}
		})
	}
}

// farOff is how much a node's clock may differ from the brokers' before it is worth a warning. Time-outs
// follow the brokers' all the same (L11).
const farOff = 10_000

// measure compares the clock with the append time of a record that was just acknowledged, as read back:
// clients are not told it with the ack. The result is a lower bound, so nothing fires early.
func (s *Shard) measure(offset int64) {
	at := s.cfg.Clock()
	if at-s.progress.clocked < clockEvery.Milliseconds() || s.stopping {
		return
	}
	s.progress.clocked = at
	s.aside(func() {
		found := errors.New("found")
		var appended int64
		_, err := s.journal.Read(s.bg, offset, func(r LogRecord) error {
			if r.Offset == offset {
				appended = r.Time
			}
			return found
		})
		if !errors.Is(err, found) || appended == 0 {
			return // the next measurement will do
		}
		s.post(func(s *Shard) error { s.setSkew(appended - at); return nil })
	})
}

func (s *Shard) setSkew(skew int64) {
	if d := skew - s.skew; d > farOff || d < -farOff {
		s.log.Warn("this node's clock is far from the brokers'; time-outs follow theirs", "code", CodeClockSkew, "skew_ms", skew)
	}
	s.skew = skew
	if mutant.On("shard-trusts-its-own-clock") {
		s.skew = 0
	}
}
