package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
)

// maxOpen bounds the inputs of one partition that wait for a forward or a quarantine to be acknowledged.
// It bounds what origins and positions have to remember.
const maxOpen = 2048

// input is one partition that the shard reads.
type input struct {
	tp    TopicPartition
	ahead *journal.Mark // of the deciding state: what is answered already
	queue []batch
	next  int64 // everything below was looked at
	// reached: below it nothing more comes than what is queued.
	reached int64
	open    []int64 // offsets looked at and not finished, ascending: one for each part that is under way
	waiting []int64 // of open, those that wait for a definition; ascending
	until   int64   // end of the backlog as seen at the claim (L10)
	own     bool    // the application's own topic, not a domain topic
	asking  bool    // its next record is looked at again once the meta topic is read to its end
	asked   int64   // one more than the offset for which that was done last

	queued  int // records in queue
	bytes   int // and their size
	paused  bool
	failed  bool
	trimmed int64 // the topic was trimmed below it
}

// batch is what was delivered together.
type batch struct {
	at       int64 // when it arrived, broker time in ms
	messages []events.Message
}

func (in *input) put(messages []events.Message, at int64) {
	if len(messages) == 0 {
		return
	}
	in.queue = append(in.queue, batch{at, messages})
	in.queued += len(messages)
	for i := range messages {
		in.bytes += sizeOf(&messages[i])
	}
}

// head is the next record; pop takes it off.
func (in *input) head() *events.Message { return &in.queue[0].messages[0] }

func (in *input) pop() {
	b := &in.queue[0]
	in.bytes -= sizeOf(&b.messages[0])
	b.messages[0] = events.Message{}
	b.messages = b.messages[1:]
	in.queued--
	if len(b.messages) == 0 {
		in.queue = in.queue[1:]
	}
	if in.queued == 0 {
		in.queue = nil
		in.drained()
	}
}

// low is the offset below which everything is finished: decided (in a record already appended), skipped by
// rule, or its forward acknowledged (L6, L7).
func (in *input) low() int64 {
	if len(in.open) > 0 && !mutant.On("shard-position-passes-forward") {
		return in.open[0]
	}
	return in.next
}

// begin opens the offset: the position does not pass it before finish, as often as it was begun.
func (in *input) begin(offset int64) { in.open = append(in.open, offset) }

// drained passes offsets that hold no record, once everything before them was looked at.
func (in *input) drained() {
	if in.queued == 0 {
		in.next = max(in.next, in.reached)
	}
}

// finish ends one part of what begin opened, and reports whether it was the last.
func (in *input) finish(offset int64) (last bool) {
	i, ok := slices.BinarySearch(in.open, offset)
	if ok {
		in.open = slices.Delete(in.open, i, i+1)
	}
	return i == len(in.open) || in.open[i] != offset
}

// backlogged reports whether the input still holds records that were there at the claim.
func (in *input) backlogged() bool { return !in.failed && in.moving() < in.until }

// moving is low, but for what waits for a definition: that stays until another node takes it.
func (in *input) moving() int64 {
	for i, offset := range in.open {
		if i >= len(in.waiting) || in.waiting[i] != offset || mutant.On("shard-waiting-holds-timers") {
			return offset
		}
	}
	return in.next
}

// partitionsKnown is the pseudo-partition under which the number of a domain topic's partitions is
// journaled: those that appear later are read from their start (L8).
const partitionsKnown = -1

// startInputs journals where each input starts, and once that is acknowledged begins to read (L8). An input
// whose position is outside its log halts, and says what is lost; the others go on.
//
// docs/spec: Forward.SenderReplaced, Forward.ReceiverReplaced
func (s *Shard) startInputs(ctx context.Context) error {
	s.byPlace = map[TopicPartition]*input{}
	s.backlog, s.opening = true, true
	tps := append([]TopicPartition{{s.topics.Inbox(), s.cfg.ID}, {s.topics.Replies(), s.cfg.ID}}, s.cfg.Inputs...)
	bounds, err := s.cfg.Kafka.Bounds(ctx, tps)
	if err != nil {
		return err
	}
	start := &events.Progress{}
	for _, topic := range slices.Sorted(maps.Keys(s.cfg.Domain)) {
		if n := int64(s.cfg.Domain[topic]); !s.applied.Known(journal.TP{Topic: topic, Partition: partitionsKnown}) {
			start.Positions = append(start.Positions, events.Position{Topic: topic, Partition: partitionsKnown, Low: n})
		}
	}
	for i, tp := range tps {
		in := &input{tp: tp, until: bounds[tp].End, own: i < 2}
		id := s.cfg.TopicIDs[tp.Topic]
		known := s.applied.Known(journal.TP(tp))
		in.ahead = s.ahead.Position(journal.TP(tp))
		switch {
		case !known:
			in.next = s.firstPosition(in, bounds[tp])
			start.Positions = append(start.Positions, events.Position{Topic: tp.Topic, TopicID: id, Partition: tp.Partition, Low: in.next})
		case in.ahead.TopicID != id && in.ahead.TopicID != [16]byte{} && id != [16]byte{}:
			return fmt.Errorf("%w: topic %s is another one than the shard read before: it was deleted and created again, and position %d of partition %d means nothing in it; restore the topic, or start a new application name", ErrTopicRecreated, tp.Topic, in.ahead.Low, tp.Partition)
		default:
			in.next = in.ahead.Low
		}
		if b := bounds[tp]; in.next < b.Start || in.next > b.End {
			in.failed = true
			s.log.Error("this input halts: its position is outside the log; the records in between are lost to it",
				"code", CodePositionLost, "topic", tp.Topic, "partition", tp.Partition, "position", in.next, "log_start", b.Start, "log_end", b.End)
		}
		s.inputs = append(s.inputs, in)
		s.byPlace[tp] = in
	}
	if len(start.Positions) > 0 && !mutant.On("shard-start-not-journaled") {
		s.append(&events.Record{Kind: events.KindDecision, Decision: &events.Decision{Outcome: events.Progressed, Progress: start}})
		for len(s.inflight) > 0 {
			wait, err := s.Turn(ctx)
			if err != nil {
				return err
			}
			if len(s.inflight) > 0 {
				s.sleep(ctx, wait)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	s.opening = false
	for _, in := range s.inputs {
		if !in.failed {
			s.cfg.Kafka.Consume(in.tp, in.next, s)
		}
	}
	return nil
}

// firstPosition is where an input that was never read starts.
func (s *Shard) firstPosition(in *input, b Bounds) int64 {
	known := journal.TP{Topic: in.tp.Topic, Partition: partitionsKnown}
	switch {
	case in.own:
		return b.Start
	case s.applied.Known(known) && int64(in.tp.Partition) >= s.applied.Position(known).Low:
		return b.Start // it was created after the application began to read the topic
	case s.cfg.From == FromEarliest:
		return b.Start
	}
	if low, known := s.cfg.Meta.begins(in.tp, s.cfg.TopicIDs); known && !mutant.On("shard-begins-when-it-is-opened") {
		return min(max(low, b.Start), b.End)
	}
	return b.End
}

// ErrTopicRecreated says that a topic was deleted and created again.
var ErrTopicRecreated = errors.New("topic recreated")
