package orchestrator

import (
	"errors"
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
)

// Bounds of what one shard holds in memory; beyond them Kafka keeps the rest.
const (
	maxQueued  = 4096      // records of one input read and not decided, before its delivery is paused
	maxBytes   = 24 << 20  // and the bytes of all inputs of all shards together, were they all on one node,
	minBytes   = 512 << 10 // but of one input at least
	maxEmits   = 8192      // emissions not acknowledged, before new sagas wait; four times that, before replies do
	turnInputs = 512       // inputs decided in one turn, about
)

// deliver takes what Kafka delivered to one input.
func (s *Shard) deliver(d delivery) {
	in := s.byPlace[d.tp]
	if in == nil {
		return
	}
	if d.err != nil {
		in.failed = true
		s.log.Error("this input halts: its records at the position are gone, and with them what they said",
			"code", CodePositionLost, "topic", d.tp.Topic, "partition", d.tp.Partition, "position", in.next, "err", d.err)
		return
	}
	in.put(d.batch, s.now())
	in.reached = max(in.reached, d.reached)
	in.drained()
}

// throttle holds the delivery of inputs back that have enough to decide.
func (s *Shard) throttle() {
	most := max(maxBytes/(s.cfg.Shards*len(s.inputs)), minBytes)
	for _, in := range s.inputs {
		switch {
		case !in.paused && (in.queued > maxQueued || in.bytes > most):
			in.paused = true
			s.cfg.Kafka.Pause(in.tp)
		case in.paused && in.queued < maxQueued/2 && in.bytes < most/2:
			in.paused = false
			s.cfg.Kafka.Resume(in.tp)
		}
	}
}

// decideAll fires timers and decides inputs, as far as the bounds allow. Every input gets its share of a turn,
// and another one is the first each time, so that replies do not wait behind a backlog of new sagas.
func (s *Shard) decideAll() (more bool, err error) {
	if s.stopping || s.opening {
		return false, nil
	}
	if s.backlog {
		s.backlog = s.behind()
	}
	if s.full() {
		return false, nil // an acknowledgement will wake it
	}
	more, err = s.fire()
	if err != nil {
		return false, err
	}
	share := max(turnInputs/len(s.inputs), 16)
	s.first++
	for i := range s.inputs {
		in := s.inputs[(s.first+i)%len(s.inputs)]
		for n := 0; n < share && in.queued > 0 && !s.held(in); n++ {
			if err := s.take(in, in.head()); err != nil {
				return false, err
			}
			if in.asking {
				break
			}
			in.pop()
		}
		more = more || in.queued > 0 && !s.held(in)
	}
	return more, nil
}

func (s *Shard) full() bool { return len(s.inflight) >= s.cfg.MaxInFlight }

// held reports whether the input has to wait for an acknowledgement. While a command topic is unavailable, its
// commands pile up here: new sagas wait first, replies last, and timers never do.
func (s *Shard) held(in *input) bool {
	most := maxEmits
	if in.own {
		most *= 4
	}
	return s.full() || in.asking || len(in.open)-len(in.waiting) >= maxOpen || len(in.waiting) >= maxWaiting || s.emits.open >= most
}

// behind reports whether a record from before the claim is undecided. Domain topics may hold a backlog of
// hours, so they are waited for at most BacklogWait (L10).
func (s *Shard) behind() bool {
	domain := s.cfg.Clock()-s.claimedAt < s.cfg.BacklogWait.Milliseconds()
	for _, in := range s.inputs {
		if mutant.On("shard-timers-before-backlog") {
			break
		}
		if in.backlogged() && (in.own || domain) {
			return true
		}
	}
	s.log.Debug("the backlog is decided: timers may fire")
	return false
}

// take looks at the next record of an input: it is decided, forwarded, quarantined or skipped.
func (s *Shard) take(in *input, m *events.Message) error {
	if m.Offset < in.next {
		return nil
	}
	in.next = m.Offset + 1
	if in.ahead.Has(m.Offset) {
		return nil // answered ahead of the position, before a restart
	}
	if why, ok := m.Header(events.HeaderReason); ok && m.Key == nil && m.Value == nil {
		// In place of a batch that could not be read.
		return s.quarantine(in, m, &events.Message{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Time: m.Time}, nil, errors.New(why))
	}
	original, origin := *m, (*events.Origin)(nil)
	if size := sizeOf(m); size > s.cfg.MaxRecord {
		// It would fit no inbox, wrapped, and no journal.
		return s.quarantine(in, m, m, nil, &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("%d bytes with key and headers, at most %d", size, s.cfg.MaxRecord)})
	}
	if m.Topic == s.topics.Inbox() {
		var err error
		if original, origin, err = events.UnwrapForward(m); err != nil {
			return s.quarantine(in, m, m, nil, err)
		}
		from := journal.TP{Topic: origin.Topic, Partition: origin.Partition}
		taken := s.ahead.Origin(from).Has(origin.Offset) || slices.Contains(s.quarantining[from], origin.Offset)
		if taken && !mutant.On("shard-forward-taken-twice") {
			s.stats.duplicates.Add(1)
			s.hooks.fate(s.cfg.ID, InputDuplicate)
			s.log.Debug("a forward that was taken already", "topic", m.Topic, "partition", m.Partition, "offset", m.Offset, "origin", original.Place())
			return nil // delivered twice by a sender that was replaced (L7)
		}
		origin = s.capped(origin)
	}
	routes, err := s.cfg.Machine.Routes(&original)
	if err != nil {
		return s.quarantine(in, m, &original, origin, err)
	}
	route := routes[0]
	if ref, lacks := s.cfg.Meta.lacks(&original, route.Kind != events.InputNone); lacks && !mutant.On("shard-unknown-starts-passed") {
		s.wait(in, m.Offset, origin, ref)
		return nil
	}
	if route.Kind == events.InputNone && origin != nil {
		if s.ask(in, m.Offset) {
			return nil
		}
		return s.quarantine(in, m, &original, origin, &events.PoisonError{Code: events.PoisonForward, Detail: route.Reason})
	}
	if route.Kind == events.InputNone {
		s.stats.skipped.Add(1)
		s.hooks.fate(s.cfg.ID, InputSkipped)
		s.log.Debug("skipped", "reason", route.Reason, "topic", original.Topic, "partition", original.Partition, "offset", original.Offset)
		return nil
	}
	if to := route.Instance.Shard(s.cfg.Shards); to != s.cfg.ID {
		if origin != nil {
			return s.quarantine(in, m, &original, origin, &events.PoisonError{Code: events.PoisonForward, Detail: fmt.Sprintf("it belongs to shard %d", to)})
		}
		return s.forward(in, m, to)
	}
	input := events.Input{Kind: route.Kind, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Low: in.low(), Origin: origin}
	var d *events.Decision
	if len(s.hooks.accepted) > 0 {
		s.inputHeaders = original.Headers
	}
	if route.Start != nil {
		input.MessageID = route.Start.MessageID
		s.hooks.traced(s.cfg.ID, route.Start)
		d = s.cfg.Machine.Start(s.overlay, s.now(), *route.Start)
	} else {
		input.MessageID = events.MessageIDOf(&original)
		d = s.cfg.Machine.Reply(s.overlay, s.now(), *route.Reply)
	}
	if d != nil && d.Outcome == machine.Waits && s.overlay.err == nil {
		s.wait(in, m.Offset, origin, s.definitionOf(route.Instance))
		return nil
	}
	if d != nil && s.overlay.err == nil && d.Outcome == events.Quarantined {
		return s.quarantine(in, m, &original, origin, errors.New(d.Reason))
	}
	if d != nil && d.Outcome == events.Ignored {
		s.stats.ignored.Add(1)
		s.hooks.fate(s.cfg.ID, InputIgnored)
		s.log.Info("ignored", "reason", d.Reason, "topic", original.Topic, "partition", original.Partition, "offset", original.Offset, "instance", route.Instance)
	}
	return s.decide(route.Instance, d, input)
}

// capped is the origin with a low mark that passes no forward which is still being quarantined here. The
// sender's mark says that those are in the inbox; whoever reads them there again must not take them for
// duplicates (L7).
func (s *Shard) capped(o *events.Origin) *events.Origin {
	c := *o
	for _, offset := range s.quarantining[journal.TP{Topic: o.Topic, Partition: o.Partition}] {
		if mutant.On("shard-origin-passes-quarantine") {
			break
		}
		c.Low = min(c.Low, offset)
	}
	return &c
}

func (s *Shard) openOrigin(o *events.Origin) {
	tp := journal.TP{Topic: o.Topic, Partition: o.Partition}
	s.quarantining[tp] = append(s.quarantining[tp], o.Offset)
}

func (s *Shard) closeOrigin(o *events.Origin) {
	tp := journal.TP{Topic: o.Topic, Partition: o.Partition}
	s.quarantining[tp] = slices.DeleteFunc(s.quarantining[tp], func(offset int64) bool { return offset == o.Offset })
	if len(s.quarantining[tp]) == 0 {
		delete(s.quarantining, tp)
	}
}

func sizeOf(m *events.Message) int {
	n := len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

// forward sends a record to the inbox of the shard it belongs to. The position does not pass it before the
// inbox has it, and the receiver knows it again by its origin (L6, L7).
func (s *Shard) forward(in *input, m *events.Message, to int32) error {
	in.begin(m.Offset)
	s.stats.forwards.Add(1)
	s.hooks.fate(s.cfg.ID, InputForwarded)
	f := events.WrapForward(m, events.Origin{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Low: in.low()})
	f.Topic, f.Partition = s.topics.Inbox(), to
	s.sendForward(in, &f, m.Offset)
	return nil
}

func (s *Shard) sendForward(in *input, f *events.Message, offset int64) {
	s.cfg.Kafka.Produce(f, func(err error) {
		s.post(func(s *Shard) error {
			switch {
			case err == nil:
				in.finish(offset)
			case s.stopping: // it stays open: the next owner forwards it again
			case errors.Is(err, ErrRefused):
				return fmt.Errorf("the inbox refuses a forward from %s/%d/%d: %w", in.tp.Topic, in.tp.Partition, offset, err)
			default:
				s.sendForward(in, f, offset)
			}
			return nil
		})
	})
}

// quarantine keeps what nobody can take: the record goes to the quarantine topic as it stands where it was
// first read, its bytes untouched, and once it is there the decision that says so is journaled. Its
// neighbours go on meanwhile.
func (s *Shard) quarantine(in *input, m, original *events.Message, origin *events.Origin, why error) error {
	reason := events.Cut(why.Error(), 512)
	in.begin(m.Offset)
	if origin != nil {
		s.openOrigin(origin)
	}
	s.stats.quarantined.Add(1)
	s.hooks.fate(s.cfg.ID, InputQuarantined)
	s.log.Warn("quarantined", "reason", reason, "topic", original.Topic, "partition", original.Partition, "offset", original.Offset)
	q := events.Message{Topic: s.topics.Quarantine(), Partition: -1, Key: original.Key, Value: original.Value, Time: original.Time}
	q.Headers = append(append(q.Headers, original.Headers...),
		events.Header{Key: events.HeaderReason, Value: []byte(reason)}, events.Header{Key: events.HeaderPlace, Value: []byte(original.Place())})
	s.sendQuarantine(in, &q, events.Input{Kind: events.InputEvent, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Origin: origin}, reason)
	return nil
}

func (s *Shard) sendQuarantine(in *input, q *events.Message, input events.Input, reason string) {
	s.cfg.Kafka.Produce(q, func(err error) {
		s.post(func(s *Shard) error {
			switch {
			case s.stopping:
				return nil // it stays open: the next owner does it again
			case errors.Is(err, ErrRefused):
				// The record stands where it was read; the journal keeps the place.
				s.log.Error("the quarantine topic refuses a record", "code", CodeNotQuarantined, "topic", input.Topic, "partition", input.Partition, "offset", input.Offset, "err", err)
				reason = events.Cut(CodeNotQuarantined+": "+reason+": "+err.Error(), 1024)
			case err != nil:
				s.sendQuarantine(in, q, input, reason)
				return nil
			}
			in.finish(input.Offset)
			input.Low = in.low()
			if input.Origin != nil {
				s.closeOrigin(input.Origin)
				input.Origin = s.capped(input.Origin)
			}
			return s.decide(events.InstanceID{}, &events.Decision{Outcome: events.Quarantined, Reason: reason}, input)
		})
	})
}
