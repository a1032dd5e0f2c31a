package orchestrator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
	defer s.together()()
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
//
// docs/spec: Forward.TakeInput
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
	if size := sizeOf(m); size > s.cfg.MaxRecord {
		// It would fit no inbox, wrapped, and no journal.
		return s.quarantine(in, m, m, nil, &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("%d bytes with key and headers, at most %d", size, s.cfg.MaxRecord)})
	}
	r := received{original: *m}
	if m.Topic == s.topics.Inbox() {
		if err := s.unwrap(m, &r); err != nil {
			return s.quarantine(in, m, m, nil, err)
		}
		if r.origin != nil && s.taken(r.origin) {
			s.stats.duplicates.Add(1)
			s.hooks.fate(s.cfg.ID, InputDuplicate)
			s.log.Debug("what was taken already came again", "topic", m.Topic, "partition", m.Partition, "offset", m.Offset, "origin", r.original.Place())
			return nil // delivered twice, by a sender that was replaced (L7)
		}
		if r.origin != nil {
			r.origin = s.capped(r.origin)
		}
		if r.message != nil {
			return s.takeMessage(in, m, &r)
		}
	}
	routes, err := s.cfg.Machine.Routes(&r.original)
	if err != nil {
		return s.quarantine(in, m, &r.original, r.origin, err)
	}
	known := slices.ContainsFunc(routes, func(x machine.Route) bool { return x.Kind != events.InputNone })
	if ref, lacks := s.cfg.Meta.lacks(&r.original, known); lacks && !mutant.On("shard-unknown-starts-passed") {
		s.wait(in, m.Offset, r.origin, ref)
		return nil
	}
	return s.takeRouted(in, m, &r, routes)
}

// received is a record as it was first read; what came through an inbox is unwrapped.
type received struct {
	original events.Message
	origin   *events.Origin       // nil: it was first read here
	message  *events.InboxMessage // nil: it is a record from outside
}

// unwrap takes a record of an inbox out of what it was sent in. What was put back from quarantine is as it was read
// in the first place, its origin the place it had in the quarantine topic.
func (s *Shard) unwrap(m *events.Message, r *received) (err error) {
	if _, forwarded := m.Header(events.HeaderForward); !forwarded {
		var ok bool
		if r.message, r.origin, ok, err = events.UnwrapMessage(m); ok {
			return err
		}
	}
	if r.original, r.origin, err = events.UnwrapForward(m); err != nil || r.origin.Topic != s.topics.Quarantine() {
		return err
	}
	original, _, ok := events.UnwrapQuarantined(&r.original)
	if mutant.On("shard-redriven-under-a-new-name") {
		original.Offset++
	}
	if !ok {
		return &events.PoisonError{Code: events.PoisonForward, Detail: "what comes back from quarantine says where it was read, and why it was put aside"}
	}
	if r.original = original; original.Topic != s.topics.Inbox() {
		return nil
	}
	if r.message, _, ok, err = events.UnwrapMessage(&original); !ok {
		err = &events.PoisonError{Code: events.PoisonForward, Detail: "what comes back from quarantine was no message"}
	}
	return err
}

// taken reports whether what comes from there was taken, or is on its way to the quarantine topic.
//
// docs/spec: Forward.DropKnown
func (s *Shard) taken(o *events.Origin) bool {
	from := journal.TP{Topic: o.Topic, Partition: o.Partition}
	return (s.ahead.Origin(from).Has(o.Offset) || slices.Contains(s.quarantining[from], o.Offset)) && !mutant.On("shard-forward-taken-twice")
}

// takeMessage decides what another entity, or the API, says to one of this shard.
//
// docs/spec: Forward.TakeForward
func (s *Shard) takeMessage(in *input, m *events.Message, r *received) error {
	input := events.Input{Kind: events.InputMessage, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Low: in.low(), Origin: r.origin}
	if a := r.message.Action; r.message.Kind == events.InboxAction {
		input.Kind, input.MessageID = events.InputAction, a.ID
	} else {
		input.MessageID = r.origin.ID()
	}
	if to := r.message.To.Shard(s.cfg.Shards); to != s.cfg.ID {
		return s.putAside(in, &r.original, input, (&events.PoisonError{Code: events.PoisonForward, Detail: fmt.Sprintf("it is for shard %d", to)}).Error())
	}
	if len(s.hooks.accepted) > 0 {
		s.inputHeaders = r.message.Trace
	}
	d := s.sayable(s.cfg.Machine.Message(s.overlay, s.now(), r.message))
	if d != nil && d.Outcome == machine.Waits && s.overlay.err == nil {
		s.wait(in, m.Offset, r.origin, s.awaited(d, r.message.To))
		return nil
	}
	if d != nil && s.overlay.err == nil && d.Outcome == events.Quarantined {
		return s.putAside(in, &r.original, input, d.Reason)
	}
	s.noteIgnored(d, &r.original, r.message.To)
	return s.decide(r.message.To, d, input)
}

func (s *Shard) noteIgnored(d *events.Decision, original *events.Message, id events.InstanceID) {
	if d != nil && d.Outcome == events.Ignored {
		s.stats.ignored.Add(1)
		s.hooks.fate(s.cfg.ID, InputIgnored)
		s.log.Info("ignored", "reason", d.Reason, "topic", original.Topic, "partition", original.Partition, "offset", original.Offset, "instance", id)
	}
}

// takeRouted gives a record to all whom it concerns: to those who live here, each in a record of its own, and, unless
// another shard forwarded it, to each other shard where some live. What one of them cannot take goes to quarantine
// once, for all of them. The position does not pass it before all of that is done (L6); who continues after a crash in
// between does all of it again, and those who have had it know it by its id, or by its origin.
//
// docs/spec: Forward.TakeInput, Forward.TakeForward
func (s *Shard) takeRouted(in *input, m *events.Message, r *received, routes []machine.Route) error {
	var here, away, last int
	var bad []string
	var waits *events.DefinitionRef
	none := ""
	for i := range routes {
		switch x := &routes[i]; {
		case x.Poison != nil:
			if r.origin == nil { // else whoever read it first has seen to that
				bad = append(bad, x.Reason+": "+x.Poison.Error())
			}
		case x.Kind == events.InputNone:
			none = x.Reason
		case x.Instance.Shard(s.cfg.Shards) == s.cfg.ID:
			here, last = here+1, i
		default:
			away++
		}
	}
	switch {
	case r.origin != nil && here == 0 && away > 0:
		return s.quarantine(in, m, &r.original, r.origin, &events.PoisonError{Code: events.PoisonForward, Detail: fmt.Sprintf("it belongs to shard %d", routes[0].Instance.Shard(s.cfg.Shards))})
	case r.origin != nil && here == 0:
		// The sender knows a definition that this build does not: a rolling deployment.
		if s.ask(in, m.Offset) {
			return nil
		}
		return s.quarantine(in, m, &r.original, r.origin, &events.PoisonError{Code: events.PoisonForward, Detail: none})
	case here+away+len(bad) == 0:
		s.stats.skipped.Add(1)
		s.hooks.fate(s.cfg.ID, InputSkipped)
		s.log.Debug("skipped", "reason", none, "topic", r.original.Topic, "partition", r.original.Partition, "offset", r.original.Offset)
		return nil
	}
	if r.origin != nil {
		away = 0
	}
	if here > 0 && here+away+len(bad) > 1 {
		// Several records answer it, which the first format cannot say.
		if d := s.sayable(&events.Decision{Input: events.Input{More: true}}); d.Outcome == machine.Waits {
			s.wait(in, m.Offset, r.origin, events.DefinitionRef{})
			return nil
		}
	}
	for i := range routes {
		x := &routes[i]
		if here == 0 || x.Kind == events.InputNone || x.Instance.Shard(s.cfg.Shards) != s.cfg.ID {
			continue
		}
		d, id := s.decideRoute(x, &r.original)
		if d != nil && d.Outcome == machine.Waits && s.overlay.err == nil {
			ref := s.awaited(d, x.Instance)
			waits = &ref
			continue
		}
		if d != nil && s.overlay.err == nil && d.Outcome == events.Quarantined {
			bad = append(bad, d.Reason)
			continue
		}
		s.noteIgnored(d, &r.original, x.Instance)
		input := events.Input{Kind: x.Kind, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Low: in.low(), Origin: r.origin, MessageID: id}
		if i != last || away > 0 || len(bad) > 0 || waits != nil {
			input.More = !mutant.On("shard-first-part-finishes")
			input.Low = min(input.Low, m.Offset)
		}
		if err := s.decide(x.Instance, d, input); err != nil {
			return err
		}
	}
	if err := s.takeElsewhere(in, m, r, routes, away, bad); err != nil || waits == nil {
		return err
	}
	s.wait(in, m.Offset, r.origin, *waits)
	return nil
}

// decideRoute decides what a record is to one entity of this shard, and gives the id under which that knows it.
func (s *Shard) decideRoute(x *machine.Route, original *events.Message) (d *events.Decision, id string) {
	if len(s.hooks.accepted) > 0 {
		s.inputHeaders = original.Headers
	}
	switch {
	case x.Start != nil:
		s.hooks.traced(s.cfg.ID, x.Start)
		x.Start.Keyless = s.cfg.Meta.Level() < 2
		return s.sayable(s.cfg.Machine.Start(s.overlay, s.now(), *x.Start)), x.Start.MessageID
	case x.Event != nil:
		return s.sayable(s.cfg.Machine.Event(s.overlay, s.now(), *x.Event)), x.Event.MessageID
	}
	return s.sayable(s.cfg.Machine.Reply(s.overlay, s.now(), *x.Reply)), events.MessageIDOf(original)
}

// takeElsewhere forwards a record once to each other shard that it concerns, and puts it aside for those who cannot
// take it.
func (s *Shard) takeElsewhere(in *input, m *events.Message, r *received, routes []machine.Route, away int, bad []string) error {
	var to []int32
	for i := range routes {
		if away == 0 {
			break
		}
		if x := &routes[i]; x.Kind != events.InputNone {
			if p := x.Instance.Shard(s.cfg.Shards); p != s.cfg.ID && !slices.Contains(to, p) {
				to = append(to, p)
			}
		}
	}
	for range to {
		in.begin(m.Offset)
	}
	for _, p := range to {
		s.forward(in, m, p)
	}
	if len(bad) == 0 {
		return nil
	}
	return s.quarantine(in, m, &r.original, r.origin, errors.New(strings.Join(bad, "; ")))
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
func (s *Shard) forward(in *input, m *events.Message, to int32) {
	s.stats.forwards.Add(1)
	s.hooks.fate(s.cfg.ID, InputForwarded)
	f := events.WrapForward(m, events.Origin{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Low: in.low()})
	f.Topic, f.Partition = s.topics.Inbox(), to
	s.sendForward(in, &f, m.Offset)
}

// docs/spec: Forward.ForwardAcked
func (s *Shard) sendForward(in *input, f *events.Message, offset int64) {
	s.cfg.Kafka.Produce(f, func(err error) {
		s.post(func(s *Shard) error {
			switch {
			case err == nil, mutant.On("shard-failed-forward-counts"):
				in.finish(offset)
			case s.stopping: // it stays open: the next owner forwards it again
			case errors.Is(err, ErrTooLarge) && !mutant.On("shard-large-forward-ends-the-shard"):
				s.forwardTooLarge(in, f, err)
			case errors.Is(err, ErrRefused):
				return fmt.Errorf("the inbox refuses a forward from %s/%d/%d: %w", in.tp.Topic, in.tp.Partition, offset, err)
			default:
				s.sendForward(in, f, offset)
			}
			return nil
		})
	})
}

// forwardTooLarge quarantines, as it was read, what no inbox has room for: its topic takes larger records. Nothing that
// is sent again would fit. What the forward holds open stays so until the quarantine topic has it.
func (s *Shard) forwardTooLarge(in *input, f *events.Message, why error) {
	original, _, err := events.UnwrapForward(f)
	if err != nil { // this shard wrapped it
		original = *f
	}
	input := events.Input{Kind: events.InputEvent, Topic: original.Topic, Partition: original.Partition, Offset: original.Offset}
	s.setAside(in, &original, input, (&events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("%d bytes with key and headers do not fit %s/%d: %v", sizeOf(f), f.Topic, f.Partition, why)}).Error())
}

// quarantine keeps what nobody can take: the record goes to the quarantine topic as it stands where it was
// first read, its bytes untouched, and once it is there the decision that says so is journaled. Its
// neighbours go on meanwhile.
func (s *Shard) quarantine(in *input, m, original *events.Message, origin *events.Origin, why error) error {
	return s.putAside(in, original, events.Input{Kind: events.InputEvent, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Origin: origin}, why.Error())
}

// putAside is quarantine for an input that is known already.
//
// docs/spec: Forward.PutAside
func (s *Shard) putAside(in *input, original *events.Message, input events.Input, why string) error {
	in.begin(input.Offset)
	if input.Origin != nil {
		s.openOrigin(input.Origin)
	}
	s.setAside(in, original, input, why)
	return nil
}

// setAside sends an input to the quarantine topic that is open already.
func (s *Shard) setAside(in *input, original *events.Message, input events.Input, why string) {
	reason := events.Cut(why, 512)
	s.stats.quarantined.Add(1)
	s.hooks.fate(s.cfg.ID, InputQuarantined)
	s.log.Warn("quarantined", "reason", reason, "topic", original.Topic, "partition", original.Partition, "offset", original.Offset)
	q := events.WrapQuarantined(s.cfg.App, original, reason)
	s.sendQuarantine(in, &q, input, reason)
}

// docs/spec: Forward.IsAside
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
			input.More = !in.finish(input.Offset) // a forward of it may still be under way
			input.Low = in.low()
			if input.Origin != nil {
				s.closeOrigin(input.Origin)
				input.Origin = s.capped(input.Origin)
			}
			return s.decide(events.InstanceID{}, &events.Decision{Outcome: events.Quarantined, Reason: reason}, input)
		})
	})
}
