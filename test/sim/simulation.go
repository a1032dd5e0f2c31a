package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

const (
	app             = "shop"
	inboxTopic      = app + ".inbox"
	repliesTopic    = app + ".replies"
	journalTopic    = app + ".journal"
	quarantineTopic = app + ".quarantine"

	shards     = 2
	beginning  = 1_000_000 // ms, of the true time
	maxRecord  = 256 << 10
	longStarts = 24 // that open a shard in vain
)

// choice is what a run is made of: the same choice is the same run.
type choice struct {
	seed      uint64
	steps     int            // that faults may happen in
	keep      func(int) bool // of these, those that are taken; nil: all
	without   faults         // that do not happen
	forbidden faults         // that are a violation when they land: for tests of the simulation itself
	pebble    bool           // stores are Pebble's
	trap      *trap          // the first owner that comes there dies there
	cold      bool           // and its store is lost
	tell      bool           // keep the story
	seen      map[visited]int
}

// outcome is what came of a run.
type outcome struct {
	seed      uint64
	steps     int // that happened: turns, writes that landed, records that came, commands executed, and so on
	hash      uint64
	landed    [faultCount]int
	ends      map[string]int // instances, by definition and state
	simulated time.Duration
	violation string // "": none
	at        int    // the step in which it was found; steps scheduled: afterwards
	story     []string
	trapped   bool
}

// simulation is one run: the shards of one application, all in one goroutine.
type simulation struct {
	choice
	*cluster
	out    outcome
	source *rand.PCG
	rng    *rand.Rand
	topics topics
	parts  []*part

	now      int64 // the true time, ms
	back     int64 // that the brokers' clock is behind it
	domain   map[string]int
	ids      map[string][16]byte // of topics that are read
	owners   [shards]*owner      // who was opened last
	ghosts   []*owner            // owners whose shards were taken, and that are not dead
	away     [shards]int64       // until when nobody owns the shard
	nodes    int
	nonces   byte
	disks    [shards]disk
	queue    []*write
	shelf    [shards][]oldStore
	stuck    map[string]bool // topics whose leader is away
	refuses  map[string]bool // command topics that are gone
	healed   bool
	redriven bool                     // what overflowed was put back
	config   orchestrator.ShardConfig // what is alike for all

	twins     [shards]*twin
	decided   map[string]*decided // commands of accepted decisions, by ce_id
	answers   map[where]int       // accepted decisions, by the place of the input they answer
	answered  map[whose]bool
	instances map[events.InstanceID]*events.Head
	started   map[string]int // business keys that came in, with how many ids
	poison    map[string]bool
	errands   []waiter
	paid      map[string]int
	actions   int
	said      map[saying]*said
	acted     map[string]int
	world     *participants
}

// waiter is an instance that events or signals are sent to.
type waiter struct {
	part *part
	key  string
}

// decided is a command, or an event, of an accepted decision.
type decided struct {
	message  events.Message
	instance events.InstanceID
	part     int // of simulation.parts
	landed   int
	refused  bool // a decision says that Kafka refuses it
	read     *command
}

type where struct {
	place
	offset int64
}

type whose struct {
	where
	id    events.InstanceID
	shard int32 // of those that concern no instance; else -1
}

// saying is where an entity's message was decided, and said what it says.
type saying struct {
	shard  int32
	offset int64
}

type said struct {
	to    events.InstanceID
	bytes []byte
	taken int
}

type violation string

// simulate makes a run, from its beginning to its checks.
func simulate(c choice) (out outcome) {
	s := newSimulation(c)
	defer func() {
		out = s.out
		out.simulated = time.Duration(s.now-beginning) * time.Millisecond
		for _, h := range s.instances {
			out.ends[h.Definition+" "+h.State.String()]++
		}
		switch r := recover().(type) {
		case nil:
		case violation:
			out.violation = string(r)
		default:
			out.violation = fmt.Sprintf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	s.begin()
	for s.out.at = 0; s.out.at < c.steps; s.out.at++ {
		s.source.Seed(s.seed, uint64(s.out.at)+1<<32)
		if c.keep == nil || c.keep(s.out.at) {
			s.step()
		}
	}
	s.source.Seed(s.seed, 1<<40)
	s.heal()
	s.check()
	return s.out
}

func newSimulation(c choice) *simulation {
	source := rand.NewPCG(c.seed, 7)
	s := &simulation{choice: c, source: source, rng: rand.New(source), now: beginning,
		cluster: &cluster{parts: map[place]*partition{}, committed: map[int32]orchestrator.Emitted{}, emitters: map[int32]*emitter{}},
		domain:  map[string]int{}, ids: map[string][16]byte{}, stuck: map[string]bool{}, refuses: map[string]bool{}, decided: map[string]*decided{},
		answers: map[where]int{}, answered: map[whose]bool{}, instances: map[events.InstanceID]*events.Head{}, started: map[string]int{},
		poison: map[string]bool{}, paid: map[string]int{}, said: map[saying]*said{}, acted: map[string]int{}}
	s.out.seed, s.out.ends, s.out.hash = c.seed, map[string]int{}, c.seed
	s.parts = cast(s.rng)
	s.topics = topicsOf(s.parts)
	var plans []*sagas.Plan
	for _, p := range s.parts {
		plans = append(plans, p.plan)
	}
	for _, topic := range s.topics.domain {
		s.domain[topic], s.ids[topic] = shards, [16]byte{1}
	}
	for i := range s.twins {
		s.twins[i], s.disks[i] = newTwin(), &memory{}
		if c.pebble {
			s.disks[i] = pebbles(c.seed<<1 + uint64(i))
		}
	}
	s.world = newParticipants(s)
	s.config = orchestrator.ShardConfig{
		App: app, Shards: shards, From: orchestrator.FromLatest, // so that a start position that is lost loses an order
		Machine: machine.New(machine.Config{App: app, Slots: shards * events.SlotsPerShard, Plans: plans}),
		Logger:  silent, MaxRecord: maxRecord, BacklogWait: time.Minute,
		CompactAfter: int64(1 << 10 << s.rng.IntN(4)), ApplyAfter: time.Duration(s.rng.IntN(3)) * 200 * time.Millisecond, MaxInFlight: 3 + s.rng.IntN(100), RowCache: 1 << 16,
		Nonce: func() events.Nonce { s.nonces++; return events.Nonce{s.nonces, byte(s.nodes), byte(s.nodes >> 8)} },
	}
	commands := slices.Sorted(maps.Keys(s.topics.commands))
	if first := s.rng.IntN(2 * len(commands)); first < len(commands) { // in every other run some are written in transactions
		s.config.Transactional = commands[first:]
	}
	return s
}

var silent = slog.New(slog.DiscardHandler)

// configOf is what an owner is told.
func (s *simulation) configOf(o *owner) orchestrator.ShardConfig {
	c := s.config
	c.ID, c.Node, c.Clock, c.Kafka = o.shard, o.name, o.clock, portKafka{&connection{o}, o}
	c.Store = portStore{o.store, o}
	c.Aside = func(fn func()) { o.asides = append(o.asides, fn) }
	c.Domain, c.TopicIDs = maps.Clone(s.domain), maps.Clone(s.ids)
	for _, topic := range s.topics.domain {
		for p := range s.domain[topic] {
			if int32(p%shards) == o.shard {
				c.Inputs = append(c.Inputs, place{Topic: topic, Partition: int32(p)})
			}
			o.domain++
		}
	}
	return c
}

// note adds a line to the story of the run.
func (s *simulation) note(format string, args ...any) {
	if s.tell {
		s.out.story = append(s.out.story, fmt.Sprintf("%5d %8.3fs  ", s.out.at, float64(s.now-beginning)/1000)+fmt.Sprintf(format, args...))
	}
}

// wrong ends the run: something is not as it must be.
func (s *simulation) wrong(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

// happens counts a step.
func (s *simulation) happens() { s.out.steps++ }

// mix takes a number into the trace's hash. Everything that happens gets there: what lands where, what faults, what time
// it is.
func (s *simulation) mix(x uint64) {
	h := s.out.hash ^ x
	h *= 0x9E3779B97F4A7C15
	s.out.hash = h ^ h>>29
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *simulation) mixBytes(b []byte) {
	s.mix(uint64(crc32.Checksum(b, castagnoli))<<32 | uint64(len(b)))
}

func (s *simulation) mixPlace(p place, offset int64) {
	s.mix(uint64(crc32.Checksum([]byte(p.Topic), castagnoli))<<32 | uint64(p.Partition))
	s.mix(uint64(offset))
}

// lands counts a fault that had its effect.
func (s *simulation) lands(f fault) {
	s.out.landed[f]++
	s.mix(1000 + uint64(f))
	if s.tell {
		s.note("! %s", vocabulary[f].says)
	}
	if s.forbidden.has(f) {
		s.wrong("it landed: %s", f)
	}
}

// may says whether a fault is among those that happen.
func (s *simulation) may(f fault) bool { return !s.without.has(f) }

func (s *simulation) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *simulation) anyShard() int32 { return int32(s.rng.IntN(shards)) }

// brokerTime is what brokers stamp on records.
func (s *simulation) brokerTime() int64 { return s.now - s.back }

func (s *simulation) begin() {
	for i := range int32(shards) {
		s.reopen(i)
	}
}

// step is one thing that happens, or a few writes that land.
func (s *simulation) step() {
	switch r := s.rng.IntN(1000); {
	case r < 390:
		s.turn(s.owners[s.anyShard()])
	case r < 420:
		s.ghostly()
	case r < 640:
		for range s.rng.IntN(12) {
			s.landNext()
		}
	case r < 700:
		s.orderComes()
	case r < 730:
		s.somebodyActs()
	case r < 750:
		s.eventComes(s.anyWaiter())
	case r < 870:
		s.happens()
		s.world.act()
	case r < 910:
		s.pass(time.Duration(s.rng.IntN(4000)) * time.Millisecond)
	case r < 920:
		s.pass(time.Duration(s.rng.IntN(40)) * time.Second)
	default:
		s.happens()
		s.fault()
	}
}

// pass lets time go on.
func (s *simulation) pass(d time.Duration) {
	s.happens()
	s.now += d.Milliseconds()
	s.mix(uint64(d))
	if s.tell {
		s.note("%s pass", d)
	}
}

// comes puts a record from outside on its topic.
func (s *simulation) comes(m events.Message, what func() string) {
	s.happens()
	p := place{Topic: m.Topic, Partition: m.Partition}
	s.mixPlace(p, s.put(m))
	s.mixBytes(m.Value)
	s.mixBytes(m.Key)
	if s.tell {
		s.note("%s/%d/%d comes: %s", m.Topic, m.Partition, s.part(p).end()-1, what())
	}
}

func (s *simulation) keyed(m events.Message) {
	id, _ := m.Header(events.HeaderID)
	s.comes(m, func() string { return fmt.Sprintf("%s %s", m.Key, id) })
}

func (s *simulation) anyPartition(topic string) int32 { return int32(s.rng.IntN(s.domain[topic])) }

// orderComes puts an event that starts a saga, now and then twice, on any partition of its topic.
func (s *simulation) orderComes() {
	p := s.parts[s.rng.IntN(len(s.parts))]
	if p.start == nil {
		return
	}
	n := len(s.started)
	key := fmt.Sprintf("%s-%d", p.plan.Name, n)
	m := p.start(key)
	if p.again && n > 0 && s.chance(10) && s.may(keyAgain) {
		// The key of one that came before, under an id of its own.
		keys := slices.Sorted(maps.Keys(s.started))
		old := keys[s.rng.IntN(len(keys))]
		if strings.HasPrefix(old, p.plan.Name+"-") {
			m = p.start(old)
			for i := range m.Headers {
				if m.Headers[i].Key == events.HeaderID {
					m.Headers[i].Value = []byte(key + "-again")
				}
			}
			key = old
			s.lands(keyAgain)
		}
	}
	s.started[key]++
	if p.event != nil || p.signals != nil {
		w := waiter{p, key}
		if p.event != nil && s.chance(20) && s.may(eventEarly) {
			s.eventComes(w) // before anybody waits for it
			s.lands(eventEarly)
		}
		s.errands = append(s.errands, w)
	}
	if p.also != nil {
		for _, other := range p.also(key) {
			s.started[other]++
		}
	}
	m.Partition = s.anyPartition(m.Topic)
	s.keyed(m)
	if p.twice && s.chance(10) && s.may(orderTwice) {
		m.Partition = s.anyPartition(m.Topic)
		s.keyed(m)
		s.lands(orderTwice)
	}
}

func (s *simulation) anyWaiter() waiter {
	if len(s.errands) == 0 {
		return waiter{}
	}
	return s.errands[s.rng.IntN(len(s.errands))]
}

// eventComes puts an event that an instance waits for on any partition, now and then twice.
func (s *simulation) eventComes(w waiter) {
	if w.part == nil || w.part.event == nil {
		return
	}
	s.paid[w.key]++
	m := w.part.event(w.key, s.paid[w.key])
	m.Partition = s.anyPartition(m.Topic)
	s.keyed(m)
	if s.chance(20) && s.may(eventTwice) {
		m.Partition = s.anyPartition(m.Topic)
		s.keyed(m)
		s.lands(eventTwice)
	}
}

// somebodyActs on an instance, by its key or by its id, now and then twice.
func (s *simulation) somebodyActs() {
	w := s.anyWaiter()
	if w.part == nil || len(w.part.signals) == 0 {
		return
	}
	a := events.Action{Kind: events.ActionSignal, Name: w.part.signals[s.rng.IntN(len(w.part.signals))]}
	switch r := s.rng.IntN(20); {
	case r < 2:
		a = events.Action{Kind: events.ActionSuspend}
	case r < 6:
		a = events.Action{Kind: events.ActionResume}
	case r < 7:
		a = events.Action{Kind: events.ActionCancel, Why: "a test"}
	case r < 8:
		a = events.Action{Kind: events.ActionRetry}
	case r < 9:
		a = events.Action{Kind: events.ActionCompensate, Why: "a test"}
	}
	s.act(w, a)
}

func (s *simulation) act(w waiter, a events.Action) {
	s.actions++
	a.ID, a.Who, a.Time = fmt.Sprint("action-", s.actions), "somebody", s.now
	name := w.part.plan.Name
	to := events.NewInstanceID(app, name, w.key, w.key, shards*events.SlotsPerShard)
	if s.chance(50) {
		a.Definition, a.Key = name, w.key
		to = events.KeyID(app, name, w.key, shards*events.SlotsPerShard)
	}
	msg := events.InboxMessage{Kind: events.InboxAction, To: to, Action: &a}
	m := events.WrapMessage(msg.Encode(nil), to, nil)
	m.Topic, m.Partition = inboxTopic, to.Shard(shards)
	say := func() string { return fmt.Sprintf("%s: %s %s of %s", a.ID, a.Kind, a.Name, w.key) }
	s.comes(m, say)
	if s.chance(15) && s.may(actionTwice) {
		s.comes(m, say)
		s.lands(actionTwice)
	}
}

// guard runs what an owner does, and reports false when it died of that (points.go).
func (s *simulation) guard(o *owner, fn func()) (lives bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case crash:
			if s.tell {
				s.note("%s dies at %s", o, r.point)
			}
			o.dead = true
		default:
			panic(r)
		}
	}()
	fn()
	return true
}

// mayEnd says whether an owner may stop for that reason.
func mayEnd(err error) bool {
	for _, known := range []error{orchestrator.ErrClaimLost, orchestrator.ErrUnknownAppend, orchestrator.ErrTruncated, orchestrator.ErrStoreFailed, orchestrator.ErrFenced} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// turn lets an owner read a little and take its turn. One that ends is replaced.
func (s *simulation) turn(o *owner) {
	if s.away[o.shard] > 0 {
		if s.now < s.away[o.shard] && !s.healed {
			return
		}
		s.away[o.shard] = 0
		s.change(o.shard)
		return
	}
	s.happens()
	switch lives, err := o.turn(); {
	case !lives:
		s.died(o)
	case err == nil:
	case mayEnd(err):
		if s.tell {
			s.note("%s ends: %v", o, err)
		}
		s.discard(o, err)
		s.gaveUp(o)
	default:
		s.wrong("%s ends: %v", o, err)
	}
}

// discard throws away a store that an owner could not go on with.
func (s *simulation) discard(o *owner, err error) {
	if errors.Is(err, orchestrator.ErrStoreFailed) || errors.Is(err, orchestrator.ErrTruncated) || errors.Is(err, orchestrator.ErrUntrusted) || errors.Is(err, store.ErrCorrupt) {
		s.lose(o)
	}
}

// lose empties an owner's disk, and the shard's if it is the same.
func (s *simulation) lose(o *owner) {
	was := o.disk
	o.close()
	o.disk = was.empty()
	if s.disks[o.shard] == was {
		s.disks[o.shard] = o.disk
	}
}

// close ends an owner's use of its store, as a process that ends without losing anything.
func (o *owner) close() {
	if o.store != nil {
		o.disk.crash(0)
		o.store = nil
	}
}

// open opens the shard for an owner.
func (s *simulation) open(o *owner) (err error) {
	for {
		if o.store == nil {
			if o.store, err = o.disk.open(); err != nil {
				if errors.Is(err, store.ErrCorrupt) {
					s.lose(o)
					continue
				}
				s.wrong("the store of %s does not open: %v", o, err)
			}
		}
		var sh *orchestrator.Shard
		if !s.guard(o, func() { sh, err = orchestrator.OpenShard(context.Background(), s.configOf(o)) }) {
			return errDied
		}
		// What a store kept over a crash is no part of the trace: nothing is drawn, and nothing said, of one that is
		// not trusted.
		if errors.Is(err, orchestrator.ErrUntrusted) {
			s.lose(o)
			o.domain, o.asides = 0, nil
			continue
		}
		if err == nil {
			o.sh, o.direct = sh, false
			if !s.guard(o, o.beside) {
				return errDied
			}
		}
		return err
	}
}

var errDied = errors.New("its process died")

// reopen makes a new owner of the shard, with the store that is there.
func (s *simulation) reopen(shard int32) {
	for tries := 0; ; tries++ {
		o := s.newOwner(shard)
		s.owners[shard] = o
		s.springs(o)
		err := s.open(o)
		s.note("%s opens shard %d: %v", o, shard, err)
		switch {
		case err == nil:
			o.trap = nil
			if s.choice.trap != nil && !s.out.trapped {
				o.trap = s.choice.trap
			}
			return
		case tries > longStarts:
			s.wrong("shard %d does not open: %v", shard, err)
		case errors.Is(err, errDied):
			s.lands(opensInVain)
			s.trapSprung(o)
			o.die()
			o.close()
			continue
		case !mayEnd(err) && !errors.Is(err, errUnreadable):
			s.wrong("shard %d does not open: %v", shard, err)
		}
		s.discard(o, err)
		o.die()
		o.close()
	}
}

// equalMessages compares all that two messages are but where they stand.
func equalMessages(a, b *events.Message) bool {
	return a.Topic == b.Topic && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
		slices.EqualFunc(a.Headers, b.Headers, func(x, y events.Header) bool { return x.Key == y.Key && bytes.Equal(x.Value, y.Value) })
}
