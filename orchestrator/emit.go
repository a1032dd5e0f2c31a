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

	printer  *events.Printer
	messages []events.Message // of the record that is being emitted
}

type emitting struct {
	seq    uint64
	offset int64
}

type topicEmits struct {
	sent []*emission // in order of emission; done ones leave from the front
}

// emission is one message on its way. Once it is done only seq counts: it may have to wait for one before it, and
// must not keep its record meanwhile.
type emission struct {
	seq     uint64
	done    bool
	at      time.Time // when it was sent first, for hooks
	topic   *topicEmits
	rec     *events.Record
	n       int // of the record's Emits
	message events.Message
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
		t.sent[n] = nil
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
	if s.emits.printer == nil {
		s.emits.printer = events.NewPrinter(s.cfg.App)
	}
	msgs, err := s.emits.printer.Outgoing(s.emits.messages[:0], rec)
	if err != nil {
		return fmt.Errorf("what was decided cannot be emitted: %w", err)
	}
	defer clear(msgs) // whoever sends one has taken a copy
	s.emits.messages = msgs
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
	e := s.opened(rec, n, m)
	if em := &rec.Decision.Emits[n]; em.Kind == events.EmitMessage {
		s.address(&e.message, em.To, rec.Seq, n)
	}
	s.produce(e)
}

// opened notes that the record's nth message is on its way.
func (s *Shard) opened(rec *events.Record, n int, m *events.Message) *emission {
	t := s.emits.topic(m.Topic)
	e := &emission{seq: rec.Seq, topic: t, rec: rec, n: n, message: *m}
	t.sent = append(t.sent, e)
	s.emits.open++
	if len(s.hooks.emitted) > 0 {
		e.at = time.Now()
	}
	e.message.Partition = -1
	s.stats.commands.Add(1)
	return e
}

// address makes m the inbox message that the nth emission of record seq is: for the shard where its entity lives, with
// where it was decided, and the mark below which all that this shard said to anybody has arrived (L7).
//
// docs/spec: Forward.TakeInput
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

func (s *Shard) produce(e *emission) {
	s.cfg.Kafka.Produce(&e.message, func(err error) { s.answered(e, err) })
}

// emitted takes Kafka's answer to an emission. A permanent refusal becomes an input, so that the attempt's
// outcome is decided like any other and progress passes it; anything else is sent again.
//
// docs/spec: Forward.ForwardAcked, Compact.Emit, Emit.Refuse
func (s *Shard) emitted(e *emission, err error) error {
	rec, n, topic := e.rec, e.n, e.message.Topic
	switch {
	case err == nil:
	case mutant.On("shard-refusal-blocks"):
		return nil
	case s.stopping: // it is not done: the next owner emits it again
		s.emits.open--
		return nil
	case !errors.Is(err, ErrRefused):
		s.log.Warn("emitting again", "topic", topic, "seq", rec.Seq, "err", err)
		s.produce(e)
		return nil
	case topic == s.topics.Inbox():
		return fmt.Errorf("the inbox refuses message %d of record %d: %w", n, rec.Seq, err)
	}
	var d *events.Decision
	var id events.CommandID
	em := &rec.Decision.Emits[n]
	input := events.Input{Kind: events.InputRefused, Row: events.RowRef{Part: events.PartNode, N: uint64(em.Node)}}
	switch {
	case err == nil:
	case em.Kind == events.EmitEvent && !mutant.On("shard-refused-event-forgotten"):
		id.Instance = rec.Decision.Instance
		input.MessageID, _ = e.message.Header(events.HeaderID)
		d = s.cfg.Machine.Undelivered(s.overlay, s.now(), machine.Undelivered{Instance: id.Instance, Step: em.Step, Node: em.Node, Message: err.Error()})
	case em.Kind == events.EmitCommand:
		id = events.CommandID{Instance: rec.Decision.Instance, Node: em.Node, Execution: em.Execution, Attempt: em.Attempt, Phase: em.Phase}
		d = s.sayable(s.cfg.Machine.Refused(s.overlay, s.now(), machine.Refusal{Command: id, Code: "refused", Message: events.Cut(err.Error(), events.MaxMessage)}))
		input.MessageID = id.Text(s.cfg.App)
		if d != nil && d.Outcome == machine.Waits && s.overlay.err == nil {
			// Progress does not pass it, so the next owner emits it again and is refused again.
			s.emits.open--
			s.tellWaiting(s.awaited(d, id.Instance))
			return nil
		}
	}
	e.done, e.rec, e.message = true, nil, events.Message{}
	s.emits.open--
	e.topic.settle()
	if err == nil {
		for _, h := range s.hooks.emitted {
			h.Emitted(s.cfg.ID, topic, time.Since(e.at))
		}
		return nil
	}
	s.log.Error("Kafka refuses a message for good", "topic", topic, "instance", rec.Decision.Instance, "step", em.Step, "seq", rec.Seq, "err", err)
	if id.Instance.IsZero() {
		return nil
	}
	err = s.decide(id.Instance, d, input)
	s.emits.refusal = s.ahead.Seq
	return err
}
