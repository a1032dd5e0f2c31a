package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

type place = orchestrator.TopicPartition

// cluster is Kafka as a whole: what stands on its topics. Owners reach it through their connections (owner.go), and
// what they write waits in the simulation's queue until it lands.
type cluster struct {
	parts     map[place]*partition
	committed map[int32]orchestrator.Emitted // by shard: progress of transactions (L16)
	emitters  map[int32]*emitter             // who may emit in transactions
	created   byte                           // topics, for their ids
}

// partition holds messages, or the records of a journal; start is the offset of the first.
type partition struct {
	id       [16]byte
	start    int64
	messages []events.Message
	records  []orchestrator.LogRecord
}

func (c *cluster) part(p place) *partition {
	part := c.parts[p]
	if part == nil {
		part = &partition{id: [16]byte{1}}
		c.parts[p] = part
	}
	return part
}

func (p *partition) end() int64 { return p.start + int64(len(p.messages)+len(p.records)) }

func (p *partition) bounds() orchestrator.Bounds {
	return orchestrator.Bounds{Start: p.start, End: p.end()}
}

// put adds a message that has the partition in its fields.
func (c *cluster) put(m events.Message) (offset int64) {
	p := c.part(place{Topic: m.Topic, Partition: m.Partition})
	m.Offset = p.end()
	p.messages = append(p.messages, m)
	return m.Offset
}

// trim drops what lies below an offset.
func (p *partition) trim(before int64) {
	n := before - p.start
	if n <= 0 {
		return
	}
	if p.records != nil {
		p.records = p.records[n:]
	} else {
		p.messages = p.messages[n:]
	}
	p.start = before
}

// write is what an owner sent off and is not in its log.
type write struct {
	owner   *owner
	at      place
	value   []byte         // of the journal
	record  *events.Record // what value says
	message *events.Message
	batch   *transaction
	acked   func(int64, error)
	spare   fault // claimAgain, appendLate, messageLate: nobody waits for it any more
}

const noFault = faultCount

func (w *write) journal() bool { return w.record != nil }

func (w *write) either(journal, message fault) fault {
	if w.journal() {
		return journal
	}
	return message
}

var (
	errTimedOut   = errors.New("timed out")
	errUnreadable = errors.New("the brokers cannot be reached")
)

// of are the writes of an owner that did not land yet and may be acknowledged.
func (s *simulation) of(o *owner) (mine []*write) {
	for _, w := range s.queue {
		if w.owner == o && w.spare == noFault {
			mine = append(mine, w)
		}
	}
	return mine
}

// forget drops an owner's writes.
func (s *simulation) forget(o *owner) {
	s.queue = slices.DeleteFunc(s.queue, func(w *write) bool { return w.owner == o && w.spare == noFault })
}

// landNext lets any write through: in order for each living owner and partition, and in no order else. It
// reports whether there was one.
//
// docs/spec: Append.Land, Append.LandAgain, Forward.Arrive, Forward.ArriveAgain, Compact.Land, Emit.Land, Emit.Arrive
func (s *simulation) landNext() bool {
	if len(s.queue) == 0 {
		return false
	}
	picked := s.queue[s.rng.IntN(len(s.queue))]
	if s.waits(picked) {
		s.lands(topicStuck)
		return true
	}
	if picked.spare != noFault && !s.healed && !s.chance(5) {
		return true
	}
	k := slices.IndexFunc(s.queue, func(w *write) bool {
		return w.owner == picked.owner && w.at == picked.at && w.spare == picked.spare
	})
	w := s.queue[k]
	if w != picked && picked.owner.dead && w.batch == nil && s.chance(30) && s.may(disordered) {
		w, k = picked, slices.Index(s.queue, picked)
		s.lands(disordered)
	}
	s.queue = slices.Delete(s.queue, k, k+1)
	s.happens()
	r, half := s.rng.IntN(100), s.chance(50)
	switch {
	case w.spare != noFault:
		s.land(w)
		s.lands(w.spare)
	case s.healed || w.batch != nil || r >= 9:
		s.landAcked(w)
	case r < 2 && s.may(w.either(appendUnknown, messageUnknown)): // the client gives up waiting; the record may be there
		if half {
			s.land(w)
		}
		s.lands(w.either(appendUnknown, messageUnknown))
		s.ack(w, 0, errTimedOut)
	case r < 3 && s.may(w.either(appendLate, messageLate)): // and here it will be
		s.later(w, w.either(appendLate, messageLate))
		s.ack(w, 0, errTimedOut)
	case r < 6 && s.may(w.either(appendTwice, messageTwice)):
		s.landAcked(w)
		s.land(w)
		s.lands(w.either(appendTwice, messageTwice))
	case r >= 6 && s.may(w.either(appendRetried, messageTwice)): // the client does not hear of it and sends it again
		s.land(w)
		s.landAcked(w)
		s.lands(w.either(appendRetried, messageTwice))
	default:
		s.landAcked(w)
	}
	return true
}

// waits says that a write's topic is stuck.
func (s *simulation) waits(w *write) bool {
	if w.batch != nil {
		return slices.ContainsFunc(w.batch.messages, func(m *events.Message) bool { return s.stuck[m.Topic] })
	}
	return s.stuck[w.at.Topic]
}

// later keeps a copy of a write that lands some time, and that nobody waits for.
func (s *simulation) later(w *write, why fault) {
	spare := *w
	spare.spare, spare.acked = why, func(int64, error) {}
	s.queue = append(s.queue, &spare)
}

func (s *simulation) landAcked(w *write) {
	if w.batch != nil {
		s.commit(w)
		return
	}
	s.ack(w, s.land(w), nil)
}

// ack tells a writer what became of its write. It may die of that (points.go).
func (s *simulation) ack(w *write, offset int64, err error) {
	if !s.guard(w.owner, func() { w.acked(offset, err) }) {
		s.died(w.owner)
	}
}

// land puts a write into its log, and tells all but its writer.
func (s *simulation) land(w *write) (offset int64) {
	part := s.part(w.at)
	offset = part.end()
	if w.journal() {
		part.records = append(part.records, orchestrator.LogRecord{Offset: offset, Time: s.brokerTime(), Value: w.value})
		s.journaled(w, offset)
		return offset
	}
	m := *w.message
	m.Topic, m.Partition = w.at.Topic, w.at.Partition
	s.put(m)
	s.mixPlace(w.at, offset)
	s.mixBytes(m.Value)
	id, _ := m.Header(events.HeaderID)
	if s.tell {
		s.note("%s: %s/%d/%d %s", w.owner, w.at.Topic, w.at.Partition, offset, id)
	}
	if d := s.decided[id]; d != nil {
		d.landed++
		s.world.takes(w.message, d)
	}
	return offset
}

// transaction is the commands of one record that go out together with the progress (L16).
type transaction struct {
	emitter  *emitter
	at       orchestrator.Emitted
	messages []*events.Message
	done     func(int, error)
}

// emitter is the model of an orchestrator.Emitter.
type emitter struct {
	o *owner
}

// commit ends a transaction: all of it stands there, or, if another emitter took the id over, nothing.
func (s *simulation) commit(w *write) {
	b, shard := w.batch, w.owner.shard
	if s.emitters[shard] != b.emitter {
		s.lands(fenced)
		s.ackEach(w, fmt.Errorf("%w: it opened the id later", orchestrator.ErrFenced))
		return
	}
	for _, m := range b.messages {
		if s.refuses[m.Topic] {
			continue
		}
		one := write{owner: w.owner, at: place{Topic: m.Topic}, message: m}
		s.land(&one)
		id, _ := m.Header(events.HeaderID)
		if n := s.decided[id].landed; n > 1 {
			s.wrong("command %s is committed %d times", id, n)
		}
	}
	s.committed[shard] = b.at
	s.ackEach(w, nil)
}

// ackEach tells a writer what became of each message of a transaction: err, or that its topic refuses it.

func (s *simulation) ackEach(w *write, err error) {
	if !s.guard(w.owner, func() {
		for n, m := range w.batch.messages {
			if err == nil && s.refuses[m.Topic] {
				s.lands(topicRefuses)
				// The progress passes it with the commit: if the owner dies now, nobody journals the refusal, and the attempt
				// has its time-out.
				id, _ := m.Header(events.HeaderID)
				s.decided[id].refused = true
				w.batch.done(n, fmt.Errorf("%w: no such topic", orchestrator.ErrRefused))
				continue
			}
			w.batch.done(n, err)
		}
	}) {
		s.died(w.owner)
	}
}
