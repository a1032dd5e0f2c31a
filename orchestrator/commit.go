package orchestrator

import (
	"maps"
	"time"

	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
)

const (
	commitEvery = 5 * time.Second
	// Kafka forgets offsets of topics that a group's members do not subscribe to, so they are committed anew
	// though nothing moved.
	commitAnyway = time.Hour
)

// commits are what lag tools were told.
type commits struct {
	at      int64 // by Clock, ms
	whole   int64 // when all positions last were
	warned  int64
	pending bool
	told    map[TopicPartition]int64
}

// commitPositions tells lag tools how far the inputs are, as the journal has it: never further than what is
// decided for good. A failure costs nothing but the view.
func (s *Shard) commitPositions() {
	now, c := s.cfg.Clock(), &s.commits
	kafka, ok := s.cfg.Kafka.(Committer)
	if !ok || c.pending || s.stopping || now-c.at < commitEvery.Milliseconds() {
		return
	}
	c.at = now
	anyway := c.whole == 0 || now-c.whole >= commitAnyway.Milliseconds()
	moved := map[TopicPartition]int64{}
	for _, in := range s.inputs {
		low := s.applied.Position(journal.TP(in.tp)).Low
		if mutant.On("shard-commits-what-it-read") {
			low = in.low() + 1
		}
		if was, told := c.told[in.tp]; anyway || !told || was != low {
			moved[in.tp] = low
		}
	}
	if len(moved) == 0 {
		return
	}
	c.pending = true
	s.aside(func() {
		err := kafka.Commit(s.bg, s.cfg.App, moved)
		s.post(func(s *Shard) error {
			c := &s.commits
			c.pending = false
			switch {
			case err == nil:
				if c.told == nil {
					c.told = map[TopicPartition]int64{}
				}
				maps.Copy(c.told, moved)
				if anyway {
					c.whole = now
				}
			case s.bg.Err() == nil && (c.warned == 0 || now-c.warned >= clockEvery.Milliseconds()):
				c.warned = now
				s.log.Warn("positions are not committed: lag tools show old ones, and nothing else is lost", "group", s.cfg.App, "err", err)
			}
			return nil
		})
	})
}
