package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/store"
)

// owner is one owner of a shard: a process with a clock, a disk and a connection to Kafka. It lives until it is
// replaced, or longer than that.
type owner struct {
	s     *simulation
	name  string
	shard int32
	sh    *orchestrator.Shard // nil while it opens
	disk  disk
	store store.Store

	direct     bool  // what it writes lands at once
	deaf       bool  // it does not hear of its claim
	claimLands bool  // which lands nevertheless, later
	unseen     bool  // its claim will be truncated: no reader counts it
	unreadable bool  // it cannot read its journal
	dead       bool  // its process is gone
	standing   bool  // its process is paused
	breaks     int   // its disk fails at that many calls from now; 0: never
	trap       *trap // where it dies
	mail       bool  // something was left for its next turn
	more       bool  // it asked for another turn at once
	domain     int   // how many partitions the domain topics had when it opened, in all

	offset int64 // of its clock to the true time, ms
	stands bool
	stood  int64

	sinks  []*reading
	asides []func()
	ends   map[place]int64 // of its inputs at its claim
}

// reading is an input that an owner reads.
type reading struct {
	at     place
	next   int64
	sink   orchestrator.Sink
	paused bool
}

func (s *simulation) newOwner(shard int32) *owner {
	s.nodes++
	o := &owner{s: s, name: fmt.Sprint("node-", s.nodes), shard: shard, direct: true, ends: map[place]int64{}, disk: s.disks[shard]}
	offset := s.rng.Int64N(2*time.Hour.Milliseconds()) - time.Hour.Milliseconds()
	if s.chance(40) && s.may(clockOff) {
		o.offset = offset
		s.lands(clockOff)
	}
	return o
}

func (o *owner) String() string { return o.name }

// die ends the process: what it had under way on its own side is gone.
func (o *owner) die() { o.dead, o.sinks, o.asides = true, nil, nil }

// clock is the owner's own, monotonic: it may be off, or stand still as on a machine that is suspended, but it
// does not jump ahead.
func (o *owner) clock() int64 {
	if o.stands {
		return o.stood
	}
	return o.s.now + o.offset
}

// goOn lets a clock that stands go on from where it stands.
func (o *owner) goOn() {
	if o.stands {
		o.stands, o.offset = false, o.stood-o.s.now
	}
}

// behind reports whether there is something to read, or to do beside the loop.
func (o *owner) behind() bool {
	for _, in := range o.sinks {
		if !in.paused && in.next < o.s.part(in.at).end() {
			return true
		}
	}
	return len(o.asides) > 0
}

// poll reads a few records of each input.
func (o *owner) poll() {
	for i := 0; i < len(o.sinks); i++ {
		in := o.sinks[i]
		n := int64(o.s.rng.IntN(8))
		if o.s.healed {
			n = 1 << 10
		}
		part := o.s.part(in.at)
		if in.next < part.start { // trimmed by the one who has the shard now
			if o == o.s.owners[o.shard] {
				o.s.wrong("%s: %s/%d is trimmed to %d, and is read at %d", o, in.at.Topic, in.at.Partition, part.start, in.next)
			}
			in.sink.Failed(in.at, orchestrator.ErrPositionLost)
			o.mail = true
			o.sinks = slices.Delete(o.sinks, i, i+1)
			i--
			continue
		}
		if n = min(n, part.end()-in.next); in.paused || n == 0 {
			continue
		}
		batch := slices.Clone(part.messages[in.next-part.start:][:n])
		in.next += n
		o.mail = true
		in.sink.Records(in.at, batch)
	}
}

// turn reads a little, takes a turn, and does what the turn left to be done beside it. It reports false when the owner
// died of that.
func (o *owner) turn() (lives bool, err error) {
	o.poll()
	o.mail = false
	o.s.strikes(o)
	lives = o.s.guard(o, func() {
		var wait time.Duration
		wait, err = o.sh.Turn(context.Background())
		if o.more = wait == 0; err != nil {
			return
		}
		if !o.s.healed && o.s.chance(15) && len(o.asides) > 0 && o.s.may(asideLate) {
			o.s.lands(asideLate)
			return
		}
		o.beside()
	})
	if o.s.choice.trap == nil {
		o.trap = nil
	}
	o.breaks = 0
	return lives, err
}

// beside runs what is to be done beside the loop.
func (o *owner) beside() {
	for len(o.asides) > 0 {
		fn := o.asides[0]
		o.asides = o.asides[1:]
		fn()
		o.mail = true
	}
}

// diskFails says whether a call of the store fails.
func (o *owner) diskFails() error {
	if o.breaks > 0 {
		if o.breaks--; o.breaks == 0 {
			o.s.lands(storeFails)
			return errDisk
		}
	}
	return nil
}

var errDisk = errors.New("no space left on device")

// connection is an owner's connection to the cluster.
type connection struct{ o *owner }

var errNotModelled = errors.New("nothing of a shard asks for that")

func (c *connection) Check(context.Context, orchestrator.Needs) ([]error, error) {
	return nil, errNotModelled
}

func (c *connection) Topics(context.Context, ...string) (map[string]orchestrator.Topic, error) {
	return nil, errNotModelled
}

func (c *connection) Join(string, string, orchestrator.Member) (func(), error) {
	return nil, errNotModelled
}

func (c *connection) MemberID(string) string                            { return "" }
func (c *connection) Members(context.Context, string) ([]string, error) { return nil, errNotModelled }
func (c *connection) Evict(context.Context, string, string) error       { return errNotModelled }
func (c *connection) Rejoin(string)                                     {}
func (c *connection) Close()                                            {}

func (c *connection) Bounds(_ context.Context, parts []place) (map[place]orchestrator.Bounds, error) {
	found := map[place]orchestrator.Bounds{}
	for _, p := range parts {
		found[p] = c.o.s.part(p).bounds()
		c.o.ends[p] = found[p].End
	}
	return found, nil
}

func (c *connection) DeleteRecords(_ context.Context, p place, before int64) error {
	if c.o.trimFails() {
		return errTimedOut
	}
	c.o.s.part(p).trim(before)
	c.o.s.mixPlace(p, before)
	return nil
}

func (o *owner) trimFails() bool {
	if o.s.healed || !o.s.chance(20) || !o.s.may(trimFails) {
		return false
	}
	o.s.lands(trimFails)
	return true
}

func (c *connection) Consume(at place, from int64, sink orchestrator.Sink) {
	c.o.sinks = append(c.o.sinks, &reading{at: at, next: from, sink: sink})
}

func (c *connection) Stop(at place) {
	c.o.sinks = slices.DeleteFunc(c.o.sinks, func(in *reading) bool { return in.at == at })
}

func (c *connection) Pause(at place)  { c.hold(at, true) }
func (c *connection) Resume(at place) { c.hold(at, false) }

func (c *connection) hold(at place, paused bool) {
	for _, in := range c.o.sinks {
		if in.at == at {
			in.paused = paused
		}
	}
}

// Commit is told what lag tools show: nothing that is not there.
func (c *connection) Commit(_ context.Context, _ string, positions map[place]int64) error {
	for p, at := range positions {
		if end := c.o.s.part(p).end(); at > end {
			c.o.s.wrong("%s commits position %d of %s/%d, which ends at %d", c.o, at, p.Topic, p.Partition, end)
		}
	}
	return nil
}

// Produce checks at once that a command is what an accepted decision says, byte by byte: nobody may see one that was
// not decided (G5).
func (c *connection) Produce(m *events.Message, done func(error)) {
	o := c.o
	if o.s.beyondHelp(o, m) {
		return
	}
	o.s.checkDecided(o, m)
	o.s.checkSaid(o, m)
	if o.s.refuses[m.Topic] {
		o.s.lands(topicRefuses)
		o.mail = true
		done(fmt.Errorf("%w: no such topic", orchestrator.ErrRefused))
		return
	}
	copied := *m
	o.send(&write{owner: o, at: place{Topic: m.Topic, Partition: max(m.Partition, 0)}, message: &copied, acked: func(_ int64, err error) { o.mail = true; done(err) }})
}

// send queues a write, or lets it land at once while the owner hands over.
func (o *owner) send(w *write) {
	w.spare = noFault
	if !o.direct || o.sh == nil {
		o.s.queue = append(o.s.queue, w)
		return
	}
	if w.batch != nil {
		o.s.commit(w)
		return
	}
	w.acked(o.s.land(w), nil)
}

func (c *connection) Transactions(string, string, place, []string) orchestrator.Emitter {
	return &emitter{c.o}
}

// Open takes the id over: what is not committed is aborted.
func (e *emitter) Open(context.Context) (orchestrator.Emitted, error) {
	e.o.s.emitters[e.o.shard] = e
	return e.o.s.committed[e.o.shard], nil
}

func (e *emitter) Emit(at orchestrator.Emitted, messages []*events.Message, done func(int, error)) {
	o := e.o
	copies := make([]*events.Message, len(messages))
	for i, m := range messages {
		if o.s.beyondHelp(o, m) {
			return
		}
		o.s.checkDecided(o, m)
		copied := *m
		copies[i] = &copied
	}
	o.send(&write{owner: o, at: place{Topic: orchestrator.EmitGroup(app), Partition: o.shard}, batch: &transaction{e, at, copies, func(n int, err error) { o.mail = true; done(n, err) }}})
}

func (e *emitter) Close() {}

func (c *connection) Log(topic string, p int32) *journalLog {
	return &journalLog{c.o, place{Topic: topic, Partition: p}}
}

// journalLog is one partition of the journal, as an owner has it.
type journalLog struct {
	o  *owner
	at place
}

func (l *journalLog) append(value []byte, rec *events.Record, done func(int64, error)) {
	o := l.o
	o.checkTime(rec)
	w := &write{owner: o, at: l.at, value: value, record: rec, acked: func(at int64, err error) { o.mail = true; done(at, err) }, spare: noFault}
	switch {
	case o.deaf:
		if o.claimLands {
			o.s.later(w, claimLate)
		}
		done(0, errTimedOut)
	case o.direct:
		w.acked(o.s.land(w), nil)
		if rec.Kind == events.KindClaim && !o.unseen && o.s.chance(20) && o.s.may(claimAgain) {
			o.s.later(w, claimAgain)
		}
	default:
		o.s.queue = append(o.s.queue, w)
	}
}

func (l *journalLog) Read(_ context.Context, from int64, fn func(orchestrator.LogRecord) error) (int64, error) {
	if l.o.unreadable {
		l.o.s.lands(journalUnreadable)
		return 0, errUnreadable
	}
	part := l.o.s.part(l.at)
	from = max(from, part.start)
	if from > part.end() {
		return from, nil
	}
	for _, r := range part.records[from-part.start:] {
		if err := fn(r); err != nil {
			return r.Offset, err
		}
	}
	return part.end(), nil
}

func (l *journalLog) Bounds(context.Context) (orchestrator.Bounds, error) {
	return l.o.s.part(l.at).bounds(), nil
}

func (l *journalLog) Trim(_ context.Context, before int64) error {
	if l.o.trimFails() {
		return errTimedOut
	}
	if part := l.o.s.part(l.at); before > part.start {
		part.trim(before)
		l.o.s.lands(trimmed)
		l.o.s.mixPlace(l.at, before)
	}
	return nil
}

func (l *journalLog) TopicID(context.Context) ([16]byte, error) { return l.o.s.part(l.at).id, nil }
func (l *journalLog) Close()                                    {}

// checkTime holds what is being decided against the true time: nobody decides in the future (L11), no timer
// fires early, and none before the inputs that were there at the claim are finished (L10).
func (o *owner) checkTime(rec *events.Record) {
	if rec.Time > o.s.now {
		o.s.wrong("%s decides %d ms ahead of time", o, rec.Time-o.s.now)
	}
	if rec.Decision == nil || rec.Decision.Input.Kind != events.InputTimer {
		return
	}
	if due := rec.Decision.Input.Due; rec.Time < due {
		o.s.wrong("%s fires a timer of %d at %d", o, due, rec.Time)
	}
	for _, topic := range []string{inboxTopic, repliesTopic} {
		p := place{Topic: topic, Partition: o.shard}
		if done, reads := o.sh.Finished(p); reads && done < o.ends[p] {
			o.s.wrong("%s fires a timer with %s/%d finished up to %d, and at its claim there were %d", o, topic, o.shard, done, o.ends[p])
		}
	}
}
