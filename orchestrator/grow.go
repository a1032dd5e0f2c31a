package orchestrator

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
)

// newcomer is an input that appeared while the shard runs. It is read once its start position is acknowledged (L8).
type newcomer struct {
	in  *input
	seq uint64 // of the record with that position
}

// grow tells the shard how many partitions the domain topics have now. It may be called from any goroutine.
func (s *Shard) grow(l layout) {
	s.post(func(s *Shard) error {
		var fresh []TopicPartition
		for _, tp := range l.inputsOf(s.cfg.ID) {
			if s.byPlace[tp] == nil {
				fresh = append(fresh, tp)
			}
		}
		if len(fresh) == 0 || s.stopping {
			return nil
		}
		slices.SortFunc(fresh, func(a, b TopicPartition) int { return int(a.Partition - b.Partition) })
		s.aside(func() {
			bounds, err := s.cfg.Kafka.Bounds(s.bg, fresh)
			if err != nil {
				if s.bg.Err() == nil {
					s.log.Warn("new partitions cannot be read yet; they are looked at again", "topic", fresh[0].Topic, "err", err)
				}
				return
			}
			s.post(func(s *Shard) error { return s.addInputs(fresh, bounds) })
		})
		return nil
	})
}

func (s *Shard) addInputs(tps []TopicPartition, bounds map[TopicPartition]Bounds) error {
	if s.stopping {
		return nil
	}
	start := &events.Progress{}
	var added []*input
	for _, tp := range tps {
		if s.byPlace[tp] != nil {
			continue
		}
		known := s.ahead.Known(journal.TP(tp)) // by a former owner
		in := &input{tp: tp, ahead: s.ahead.Position(journal.TP(tp))}
		if known {
			in.next = in.ahead.Low
		} else {
			in.next = s.firstPosition(in, bounds[tp])
			if mutant.On("shard-new-partitions-from-their-end") {
				in.next = bounds[tp].End
			}
			start.Positions = append(start.Positions, events.Position{Topic: tp.Topic, TopicID: s.cfg.TopicIDs[tp.Topic], Partition: tp.Partition, Low: in.next})
		}
		s.inputs = append(s.inputs, in)
		s.byPlace[tp] = in
		added = append(added, in)
		s.log.Info("a partition was added to a topic", "topic", tp.Topic, "partition", tp.Partition, "from", in.next)
	}
	if len(start.Positions) > 0 {
		s.append(&events.Record{Kind: events.KindDecision, Decision: &events.Decision{Outcome: events.Progressed, Progress: start}})
	}
	for _, in := range added {
		s.newcomers = append(s.newcomers, newcomer{in, s.ahead.Seq})
	}
	return nil
}

// welcome begins to read the new inputs whose positions are journaled.
func (s *Shard) welcome() {
	for len(s.newcomers) > 0 && s.newcomers[0].seq <= s.applied.Seq && !s.stopping {
		in := s.newcomers[0].in
		s.newcomers = s.newcomers[1:]
		s.cfg.Kafka.Consume(in.tp, in.next, s)
	}
}

// watchTopics looks for new partitions of domain topics until ctx ends.
func (e *Engine) watchTopics(ctx context.Context) {
	tick := time.NewTicker(e.cfg.TopicsEvery)
	defer tick.Stop()
	names := e.needs().Inputs
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		found, err := e.cfg.Kafka.Topics(ctx, names...)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Warn("the domain topics cannot be looked at", "err", err)
			}
			continue
		}
		e.mu.Lock()
		l := e.layout
		l.domain = maps.Clone(l.domain)
		for _, name := range names {
			// Fewer partitions, or another topic, are told by the inputs themselves.
			if t := found[name]; t.Partitions > l.domain[name] && t.ID == l.ids[name] {
				l.domain[name] = t.Partitions
			}
		}
		e.layout = l
		var shards []*Shard
		for _, r := range e.runners {
			r.mu.RLock()
			if r.shard != nil {
				shards = append(shards, r.shard)
			}
			r.mu.RUnlock()
		}
		e.mu.Unlock()
		for _, s := range shards {
			s.grow(l)
		}
	}
}
