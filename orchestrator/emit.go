package orchestrator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/machine"
)

// emitter follows what accepted records emit until Kafka acknowledged it (L14). Records enter in order;
// per topic, progress is the sequence below which everything is acknowledged.
type emitter struct {
	records []emitting             // accepted records with emissions, in order, until all of them are done
	topics  map[string]*topicEmits // by name
	last    uint64                 // the last record that entered, with or without emissions
	// lastEmitting is the last one with emissions: progress up to it is worth journaling.
	lastEmitting uint64
	refusal      uint64 // the last record that decides a refusal
	open         int
}

type emitting struct {
	seq    uint64
	offset int64
}

type topicEmits struct {
	sent []*emission // in order of emission; done ones leave from the front
}

type emission struct {
	seq  uint64
	done bool
	at   time.Time // when it was sent first, for hooks
}

func (e *emitter) topic(name string) *topicEmits {
	t := e.topics[name]
	if t == nil {
		if e.topics == nil {
			e.topics = map[string]*topicEmits{}
		}
		t = &topicEmits{}
		e.topics[name] = t
	}
	return t
}

func (t *topicEmits) settle() {
	n := 0
	for n < len(t.sent) && t.sent[n].done {
		n++
	}
	t.sent = t.sent[n:]
}

func (e *emitter) idle() bool { return e.open == 0 }

// emitted is the sequence up to which everything is acknowledged on every topic.
func (e *emitter) emitted() uint64 {
	low := e.last
	for _, t := range e.topics {
		if len(t.sent) > 0 {
			low = min(low, t.sent[0].seq-1)
		}
	}
	return low
}

// further lists the topics that are beyond emitted.
func (e *emitter) further() []events.TopicProgress {
	low := e.emitted()
	var out []events.TopicProgress
	if low == e.last {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.topics)) {
		t, seq := e.topics[name], e.last
		if len(t.sent) > 0 {
			seq = t.sent[0].seq - 1
		}
		if seq > low {
			out = append(out, events.TopicProgress{Topic: name, Seq: seq})
		}
	}
	return out
}

// from is the journal offset from which a new owner has to look for open emissions.
// What is done but not journaled as done counts as open: with the record that says so it may be lost.
func (e *emitter) from(journaled uint64, next int64) int64 {
	n := 0
	for n < len(e.records) && e.records[n].seq <= journaled {
		n++
	}
	e.records = e.records[n:]
	if len(e.records) > 0 {
		return e.records[0].offset
	}
	return next
}

// emit sends what an accepted record emits. The record stands at or above offset in the journal.
func (s *Shard) emit(rec *events.Record, offset int64) error {
	s.emits.last = rec.Seq
	if rec.Decision == nil || len(rec.Decision.Emits) == 0 {
		return nil
	}
	msgs, err := events.Outgoing(s.cfg.App, rec)
	if err != nil {
		return fmt.Errorf("what was decided cannot be emitted: %w", err)
	}
	s.emits.lastEmitting = rec.Seq
	s.emits.records = append(s.emits.records, emitting{seq: rec.Seq, offset: offset})
	var transactional []int
	for i := range msgs {
		if msgs[i].Topic == "" || s.applied.EmittedOn(msgs[i].Topic, rec.Seq) {
			continue
		}
		if s.txn.has(msgs[i].Topic) {
			transactional = append(transactional, i)
			continue
		}
		s.send(rec, i, &msgs[i])
	}
	s.emitInTransaction(rec, offset, transactional, msgs)
	return nil
}

func (s *Shard) send(rec *events.Record, n int, m *events.Message) {
	e := s.opened(rec, m)
	if em := &rec.Decision.Emits[n]; em.Kind == events.EmitMessage {
		s.address(m, em.To, rec.Seq, n)
	}
	s.produce(rec, n, m, e)
}

// opened notes that a message is on its way.
func (s *Shard) opened(rec *events.Record, m *events.Message) *emission {
	t := s.emits.topic(m.Topic)
	e := &emission{seq: rec.Seq}
	t.sent = append(t.sent, e)
	s.emits.open++
	if len(s.hooks.emitted) > 0 {
		e.at = time.Now()
	}
	m.Partition = -1
	s.stats.commands.Add(1)
	return e
}

// address makes m the inbox message that the nth emission of record seq is: for the shard where its entity lives, with
// where it was decided, and the mark below which all that this shard said to anybody has arrived (L7).
func (s *Shard) address(m *events.Message, to events.InstanceID, seq uint64, n int) {
	open := s.emits.topic(m.Topic).sent[0].seq
	origin := events.Origin{Topic: s.topics.Journal(), Partition: s.cfg.ID, Offset: events.MessageOffset(seq, n), Low: events.MessageOffset(open, 0)}
	if mutant.On("shard-low-mark-passes-messages") {
		origin.Low = origin.Offset + 1
	}
	topic := m.Topic
	*m = events.WrapMessage(m.Value, to, &origin)
	m.Topic, m.Partition = topic, to.Shard(s.cfg.Shards)
}

func (s *Shard) produce(rec *events.Record, n int, m *events.Message, e *emission) {
	s.cfg.Kafka.Produce(m, func(err error) {
		s.post(func(s *Shard) error { return s.emitted(rec, n, m, e, err) })
	})
}

// emitted takes Kafka's answer to an emission. A permanent refusal becomes an input, so that the attempt's
// outcome is decided like any other and progress passes it; anything else is sent again.
func (s *Shard) emitted(rec *events.Record, n int, m *events.Message, e *emission, err error) error {
	switch {
	case err == nil:
	case mutant.On("shard-refusal-blocks"):
		return nil
	case s.stopping: // it is not done: the next owner emits it again
		s.emits.open--
		return nil
	case !errors.Is(err, ErrRefused):
		s.log.Warn("emitting again", "topic", m.Topic, "seq", rec.Seq, "err", err)
		s.produce(rec, n, m, e)
		return nil
	case m.Topic == s.topics.Inbox():
		return fmt.Errorf("the inbox refuses message %d of record %d: %w", n, rec.Seq, err)
	}
	var d *events.Decision
	var id events.CommandID
	if em := &rec.Decision.Emits[n]; err != nil && em.Kind == events.EmitCommand {
		id = events.CommandID{Instance: rec.Decision.Instance, Node: em.Node, Execution: em.Execution, Attempt: em.Attempt, Phase: em.Phase}
		d = s.sayable(s.cfg.Machine.Refused(s.overlay, s.now(), machine.Refusal{Command: id, Code: "refused", Message: events.Cut(err.Error(), events.MaxMessage)}))
		if d != nil && d.Outcome == machine.Waits && s.overlay.err == nil {
			// Progress does not pass it, so the next owner emits it again and is refused again.
			s.emits.open--
			s.tellWaiting(s.awaited(d, id.Instance))
			return nil
		}
	}
	e.done = true
	s.emits.open--
	s.emits.topics[m.Topic].settle()
	if err == nil {
		for _, h := range s.hooks.emitted {
			h.Emitted(s.cfg.ID, m.Topic, time.Since(e.at))
		}
		return nil
	}
	s.log.Error("Kafka refuses a message for good", "topic", m.Topic, "instance", rec.Decision.Instance, "step", rec.Decision.Emits[n].Step, "seq", rec.Seq, "err", err)
	if id.Instance.IsZero() {
		return nil
	}
	err = s.decide(id.Instance, d, events.Input{Kind: events.InputRefused, MessageID: id.Text(s.cfg.App), Row: events.RowRef{Part: events.PartNode, N: uint64(id.Node)}})
	s.emits.refusal = s.ahead.Seq
	return err
}
