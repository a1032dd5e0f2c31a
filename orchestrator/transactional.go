package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// EmitGroup is the consumer group, without members, in which transactions commit how far the journal is
// emitted (L16).
func EmitGroup(app string) string { return app + ".emit" }

// EmitIDs is how the transactional ids of an application begin.
func EmitIDs(app string) string { return app + ".emit." }

// EmitID is the transactional id under which whoever owns the shard emits.
func EmitID(app string, shard int32) string { return EmitIDs(app) + strconv.Itoa(int(shard)) }

// ErrFenced says that another owner emits under the shard's transactional id: it took the shard over.
var ErrFenced = errors.New("another owner emits for the shard")

// Transactor is a Kafka that can emit in transactions (L16).
type Transactor interface {
	// Transactions prepares to emit the journal partition's commands on topics under a transactional id, with
	// the progress in a consumer group. It asks nothing of the cluster; Emitter.Open does.
	Transactions(id, group string, journal TopicPartition, topics []string) Emitter
}

// Emitter emits what a shard's journal says, each message once for readers that read committed records only:
// messages and progress are of one transaction. Emit is safe for concurrent use with its callbacks; the rest
// is called by the shard's goroutine.
type Emitter interface {
	// Open takes the transactional id over. Whoever used it is fenced and its open transaction aborted; only
	// then is the progress read, so that nothing it emitted can come after. An Emitted of zero says that there
	// is none, or none that covers these topics of this journal.
	Open(ctx context.Context) (Emitted, error)
	// Emit queues the messages of one accepted record, which stands in the journal right below at.Next, in the
	// order of the journal. done is called once for each, from another goroutine, and must not block: with nil
	// when it is committed together with at; with an error that wraps ErrRefused when it never can be, after
	// which at passes it; with one that wraps ErrFenced; or with one that leaves it open, when the emitter was
	// closed. Everything else is tried again.
	Emit(at Emitted, messages []*events.Message, done func(n int, err error))
	// Close ends the transaction under way, within a few seconds.
	Close()
}

// Emitted is how far the journal is emitted: everything on the transactional topics by records below offset
// Next, the last of which has sequence Seq. A journal copied elsewhere has the same sequences at other
// offsets; where the two disagree, a record counts as not emitted.
type Emitted struct {
	Next int64
	Seq  uint64
}

func (e Emitted) covers(seq uint64, offset int64) bool {
	if mutant.On("shard-commits-unread") {
		return false
	}
	return offset < e.Next && seq <= e.Seq
}

// transactions is a shard's way to emit on transactional topics.
type transactions struct {
	emitter Emitter
	topics  []string
	done    Emitted // when the shard was opened
}

// openTransactions is called after the claim is read back: whoever owned the shard before may decide nothing
// more, and from here on emits nothing more on these topics.
func (s *Shard) openTransactions(ctx context.Context) error {
	if len(s.cfg.Transactional) == 0 {
		return nil
	}
	kafka, ok := s.cfg.Kafka.(Transactor)
	if !ok {
		return errors.New("this Kafka connection has no transactions: leave Config.Transactional empty")
	}
	t := &transactions{topics: s.cfg.Transactional}
	t.emitter = kafka.Transactions(EmitID(s.cfg.App, s.cfg.ID), EmitGroup(s.cfg.App), TopicPartition{s.topics.Journal(), s.cfg.ID}, t.topics)
	s.txn = t
	var err error
	if t.done, err = t.emitter.Open(ctx); err != nil {
		return fmt.Errorf("transactional id %s: %w", EmitID(s.cfg.App, s.cfg.ID), err)
	}
	return nil
}

func (t *transactions) has(topic string) bool { return t != nil && slices.Contains(t.topics, topic) }

func (t *transactions) close() {
	if t != nil {
		t.emitter.Close()
	}
}

// emitInTransaction queues those of a record's messages, by their places in it, that are on transactional
// topics. Their progress is journaled like that of others, once it is committed; until then the journal may lag
// behind the group, never the other way round.
func (s *Shard) emitInTransaction(rec *events.Record, offset int64, places []int, msgs []events.Message) {
	if len(places) == 0 || s.txn.done.covers(rec.Seq, offset) {
		return
	}
	batch := make([]*events.Message, len(places))
	open := make([]*emission, len(places))
	for i, n := range places {
		open[i] = s.opened(rec, n, &msgs[n])
		batch[i] = &open[i].message
	}
	s.txn.emitter.Emit(Emitted{offset + 1, rec.Seq}, batch, func(i int, err error) {
		s.post(func(s *Shard) error {
			if errors.Is(err, ErrFenced) {
				return err
			}
			if err != nil && !errors.Is(err, ErrRefused) {
				s.emits.open-- // the emitter is closed, and the next one emits it
				return nil
			}
			return s.emitted(open[i], err)
		})
	})
}
