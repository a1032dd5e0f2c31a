package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
)

// Why a shard stops before it is told to. Its owner opens it anew, after a while, unless the group gave it
// to another node.
var (
	// ErrClaimLost: another node's claim is the last one in the journal. What was decided and not
	// acknowledged is thrown away.
	ErrClaimLost = errors.New("another node claimed the shard")
	// ErrUnknownAppend: a record's outcome is unknown, so that this epoch cannot decide any further (L2).
	ErrUnknownAppend = errors.New("the outcome of an append is unknown")
	// ErrTruncated: the journal is shorter than it was acknowledged to be. The store is discarded.
	ErrTruncated = errors.New("the journal lost acknowledged records")
	// ErrStoreFailed: the local store cannot be read or written. It is discarded and rebuilt from Kafka.
	ErrStoreFailed = errors.New("the local store failed")
)

// claimLost is ErrClaimLost with what the winner's claim says.
type claimLost struct {
	node       string
	term       uint64
	generation int32
}

func (e *claimLost) Error() string {
	return fmt.Sprintf("%v: %s, term %d, group generation %d", ErrClaimLost, e.node, e.term, e.generation)
}

func (e *claimLost) Is(target error) bool { return target == ErrClaimLost }

// mayClaimBack is rule L5: who loses a claim claims back only as the assignee of the latest generation that
// is known. own is the latest this node took part in.
func (e *claimLost) mayClaimBack(own int32) bool {
	return own >= e.generation || mutant.On("shard-claim-war")
}

func lostTo(st *journal.State) error {
	return &claimLost{st.Claim.Node, st.Term, st.Claim.Generation}
}

// ShardConfig is what a shard is told. Everything is required but Applied, Acted, Meta, Waits, Stats and Aside.
type ShardConfig struct {
	App        string
	ID         int32
	Shards     int
	Generation int32 // of the group, when it assigned the shard
	Node       string
	Build      string
	Machine    *machine.Machine
	Kafka      Kafka
	Store      store.Store
	Inputs     []TopicPartition // the domain partitions of this shard; its inbox and replies are added
	Domain     map[string]int   // domain topics, with their number of partitions
	TopicIDs   map[string][16]byte
	From       From
	Clock      func() int64 // ms, from any origin; it must not jump
	Nonce      func() events.Nonce
	Logger     *slog.Logger
	Applied    func(shard int32, r *events.Record)
	Stats      *shardStats
	hooks      *hooks                     // nil: none
	Meta       *meta                      // of the application; nil: nothing is known of other nodes
	Acted      func(Answer)               // told what every action was answered, once it is applied; may be nil
	Waits      func(events.DefinitionRef) // told once of each definition that inputs wait for; may be nil

	MaxRecord    int
	MaxInFlight  int
	CompactAfter int64
	ApplyAfter   time.Duration // how long accepted records may wait to reach the store together; 0: not at all
	RowCache     int           // bytes of rows kept in memory beside the store's own cache
	BacklogWait  time.Duration
	// Transactional are the topics that are emitted on in transactions; they need a Kafka that is a Transactor.
	Transactional []string
	// Aside runs what the shard does beside its loop: trims, commits, measurements. nil: each in a goroutine, which ends
	// with the shard. It is called within Turn; what it is given may run within the call or at any time later, or never.
	Aside func(func())
}

// Shard is one journal partition, its claim and its store. Turn, and everything it calls, belongs to one
// goroutine; Kafka's callbacks only post to the mailbox.
type Shard struct {
	cfg    ShardConfig
	topics events.Topics
	log    *slog.Logger

	journal Log
	store   store.Store
	nonce   events.Nonce

	// applied is what the brokers acknowledged and the store holds; ahead is what was decided on top of it.
	// ahead.Seq - applied.Seq = len(inflight).
	applied  *journal.State
	ahead    *journal.State
	overlay  *overlay
	inflight []pending
	expect   int64 // the offset of the next acknowledgement, if nothing slips in (L3)

	inputs    []*input
	byPlace   map[TopicPartition]*input
	backlog   bool  // records from before the claim are still undecided: no timer fires (L10)
	claimedAt int64 // by Clock
	skew      int64 // broker time minus Clock, as a lower bound (L11)

	hooks        *hooks          // never nil
	inputHeaders []events.Header // of the input that is being decided, for hooks
	told         Accepted        // what they are being told
	unused       []*watched      // for use again

	emits     emitter
	txn       *transactions // nil where no topic is transactional
	timers    timers
	round     *round
	liveBytes int64 // of the rows, as of the last compaction round
	progress  progress
	commits   commits
	stats     *shardStats
	stopping  bool
	opening   bool // nothing is decided before the start positions are journaled
	first     int  // which input comes first in a turn
	// quarantining are the origins of forwards that are on their way to the quarantine topic.
	quarantining map[journal.TP][]int64

	bg             context.Context // of what runs beside the loop: trims, clock measurements
	stopBackground context.CancelFunc
	background     sync.WaitGroup

	absent absent
	// newcomers are inputs that are not read yet, in order of their records.
	newcomers []newcomer
	rebuilt   bool                       // the store was made of the whole journal when the shard was opened
	broken    map[events.InstanceID]bool // instances whose rows cannot be right, though rebuilt

	unapplied unapplied
	mail      mailbox
	read      read // of the turn before

	page     page // of the records that are appended
	images   page // of their images
	onAck    func(offset int64, err error)
	accepted []pending // of the turn before, empty
}

// read are the slices of a mailbox that was read, empty, for use again.
type read struct {
	acks    []ack
	records []delivery
	done    []chore
}

// pending is a record that was appended and is not acknowledged.
type pending struct {
	rec    *events.Record
	hash   events.Hash
	image  journal.Image
	size   int
	offset int64 // once acknowledged
	keys   []rowID
	purges []events.InstanceID
	*watched
}

// mailbox is what other goroutines leave for the next turn, in order of arrival.
type mailbox struct {
	mu      sync.Mutex
	acks    []ack
	records []delivery
	done    []chore // acknowledgements of emissions, forwards, trims
	wake    chan struct{}
}

// chore is what is to be done on the shard's goroutine: a function, or, of the many that are alike, what Kafka
// answered to an emission.
type chore struct {
	fn  func(*Shard) error
	e   *emission
	err error
}

func (x *chore) do(s *Shard) error {
	if x.e != nil {
		return s.emitted(x.e, x.err)
	}
	return x.fn(s)
}

type ack struct {
	offset int64
	err    error
}

type delivery struct {
	tp      TopicPartition
	batch   []events.Message
	err     error
	reached int64 // no record lies below it that was not delivered
}

// note wakes the shard for what was just left in the mailbox.
func (m *mailbox) note() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Records implements Sink.
func (s *Shard) Records(p TopicPartition, batch []events.Message) {
	s.deposit(delivery{tp: p, batch: batch})
}

// Reached is told where a partition's last offsets hold no record, as the end of a transaction leaves them.
func (s *Shard) Reached(p TopicPartition, next int64) {
	s.deposit(delivery{tp: p, reached: next})
}

// Failed implements Sink.
func (s *Shard) Failed(p TopicPartition, err error) { s.deposit(delivery{tp: p, err: err}) }

func (s *Shard) deposit(d delivery) {
	s.mail.mu.Lock()
	s.mail.records = append(s.mail.records, d)
	s.mail.mu.Unlock()
	s.mail.note()
}

func (s *Shard) post(fn func(*Shard) error) { s.leave(chore{fn: fn}) }

// answered is told what Kafka answered to an emission.
func (s *Shard) answered(e *emission, err error) { s.leave(chore{e: e, err: err}) }

func (s *Shard) leave(x chore) {
	s.mail.mu.Lock()
	s.mail.done = append(s.mail.done, x)
	s.mail.mu.Unlock()
	s.mail.note()
}

func (s *Shard) acked(offset int64, err error) {
	s.mail.mu.Lock()
	s.mail.acks = append(s.mail.acks, ack{offset, err})
	s.mail.mu.Unlock()
	s.mail.note()
}

// now is the shard's estimate of broker time (L11), in ms since 1970; it never decreases.
func (s *Shard) now() int64 { return max(s.ahead.Time, s.cfg.Clock()+s.skew) }

// Run repeats Turn until ctx ends, then drains and hands over. It returns nil after that, or the error that
// stopped the shard.
func (s *Shard) Run(ctx context.Context) error {
	defer s.close()
	for ctx.Err() == nil {
		wait, err := s.Turn(ctx)
		if err != nil {
			return s.wrap(err)
		}
		s.sleep(ctx, wait)
	}
	return s.wrap(s.drain())
}

func (s *Shard) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("shard %d of %s: %w", s.cfg.ID, s.cfg.App, err)
}

// sleep waits for mail, at most wait.
func (s *Shard) sleep(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-s.mail.wake:
	case <-t.C:
	case <-ctx.Done():
	}
}

// Turn does everything that can be done now, without waiting, and says how long nothing is due unless mail
// arrives. Its order is the loop's: what was acknowledged is emitted, and applied when it is time, before
// more is decided.
func (s *Shard) Turn(ctx context.Context) (wait time.Duration, err error) {
	if s.absent.format && s.cfg.Meta.Level() == events.Format {
		return 0, errLevelRaised
	}
	s.mail.mu.Lock()
	acks, records, done := s.mail.acks, s.mail.records, s.mail.done
	s.mail.acks, s.mail.records, s.mail.done = s.read.acks, s.read.records, s.read.done
	s.mail.mu.Unlock()
	s.read = read{}
	defer func() { s.read = read{emptied(acks), emptied(records), emptied(done)} }()

	if err := s.acknowledge(ctx, acks); err != nil {
		return 0, err
	}
	if err := s.applyDue(); err != nil {
		return 0, err
	}
	for i := range done {
		if err := done[i].do(s); err != nil {
			return 0, err
		}
	}
	for _, d := range records {
		s.deliver(d)
	}
	more, err := s.decideAll()
	if err != nil {
		return 0, err
	}
	s.report()
	if err := s.compact(); err != nil {
		return 0, err
	}
	s.welcome()
	s.throttle()
	if more {
		return 0, nil
	}
	return s.idle(), nil
}

// emptied is a slice for use again, or nil where it grew beyond what a turn usually takes.
func emptied[T any](list []T) []T {
	if cap(list) > turnInputs {
		return nil
	}
	clear(list)
	return list[:0]
}

// idle is how long nothing is due: the next timer, or the next progress record.
func (s *Shard) idle() time.Duration {
	ms := reportEvery.Milliseconds()
	if due := s.timers.next; due != 0 && !s.backlog && !s.full() && s.timers.hold <= s.applied.Seq {
		ms = min(ms, due-s.now())
	}
	if len(s.unapplied.records) > 0 {
		ms = min(ms, s.applyIn())
	}
	return time.Duration(max(ms, 1)) * time.Millisecond
}

// acknowledge takes the brokers' answers in order. A record counts once its ack came at the expected
// offset, or reading back showed that everybody accepts it (L3).
//
// docs/spec: Forward.Journal, Compact.Acknowledge, Emit.Acknowledge
func (s *Shard) acknowledge(ctx context.Context, acks []ack) error {
	if len(acks) == 0 {
		return nil
	}
	accepted := s.accepted[:0]
	var failure error
	for _, a := range acks {
		if failure = s.checkAck(ctx, a); failure != nil {
			break
		}
		p := s.inflight[0]
		s.inflight[0] = pending{}
		s.inflight = s.inflight[1:]
		s.stats.inflight.Add(-1)
		if v := s.applied.Take(a.offset, p.rec, p.image, p.hash, p.size, &s.unapplied.writes); v != journal.Accepted && !mutant.On("shard-ack-ignored") {
			failure = fmt.Errorf("%w: record %d at offset %d is %s", ErrClaimLost, p.rec.Seq, a.offset, v)
			break
		}
		s.expect, p.offset = a.offset+1, a.offset
		s.tell(&p)
		accepted = append(accepted, p)
	}
	// Emission first: it is what the world waits for, and the records are durable.
	if err := s.emitAll(accepted); err != nil {
		return err
	}
	if len(accepted) > 0 {
		s.measure(accepted[len(accepted)-1].offset)
	}
	s.later(accepted)
	if err := s.tellActed(accepted); err != nil {
		return err
	}
	s.accepted = emptied(accepted)
	if failure != nil {
		if err := s.apply(); err != nil {
			return err
		}
	}
	return failure
}

func (s *Shard) emitAll(accepted []pending) error {
	defer s.together()()
	for i := range accepted {
		if err := s.emit(accepted[i].rec, accepted[i].offset); err != nil {
			return err
		}
	}
	return nil
}

// together lets what is sent until the end leave together, where Kafka can.
func (s *Shard) together() (end func()) {
	g, ok := s.cfg.Kafka.(Gatherer)
	if !ok {
		return func() {}
	}
	g.Begin()
	return g.End
}

// docs/spec: Append.Acknowledge, Append.GiveUp
func (s *Shard) checkAck(ctx context.Context, a ack) error {
	switch {
	case a.err != nil:
		return fmt.Errorf("%w: %w", ErrUnknownAppend, a.err)
	case a.offset == s.expect || mutant.On("shard-ack-ignored"):
		return nil
	case a.offset < s.expect:
		return fmt.Errorf("%w: an ack at offset %d, not %d", ErrTruncated, a.offset, s.expect)
	}
	return s.readBack(ctx, a.offset)
}

// readBack reads what slipped in between the last accepted record and the ack at offset, all of it: what
// cannot be read any more may have been a claim. Foreign records that everybody ignores are harmless; a claim
// among them ends this epoch.
func (s *Shard) readBack(ctx context.Context, offset int64) error {
	s.log.Info("reading the journal back", "from", s.expect, "to", offset)
	probe := s.applied.Clone()
	stop := errors.New("read back")
	_, err := s.journal.Read(ctx, s.expect, func(r LogRecord) error {
		if r.Offset != probe.Next && !mutant.On("shard-reads-back-with-a-hole") {
			// Another owner compacted and trimmed what this one has not seen, its own claim included.
			return &claimLost{node: fmt.Sprintf("an owner that trimmed the journal to offset %d; this one knows it up to %d", r.Offset, probe.Next), term: probe.Term + 1, generation: s.cfg.Generation + 1}
		}
		if r.Offset >= offset {
			return stop
		}
		_, _, err := probe.Fold(r.Offset, false, r.Value, discard{})
		return err
	})
	switch {
	case errors.Is(err, ErrClaimLost):
		return err
	case err == nil:
		return fmt.Errorf("%w: it was acknowledged at offset %d, where the journal holds none", ErrTruncated, offset)
	case !errors.Is(err, stop):
		return fmt.Errorf("%w: reading back: %w", ErrUnknownAppend, err)
	}
	if !probe.Own(s.nonce) {
		return lostTo(probe)
	}
	if probe.Seq != s.applied.Seq {
		return fmt.Errorf("%w: records of this epoch stand where none was expected", ErrUnknownAppend)
	}
	return nil
}

type discard struct{}

func (discard) Set([]byte, int64, int64, []byte, uint64) {}
func (discard) Delete([]byte, int64, uint64)             {}
func (discard) DeleteRange([]byte, []byte)               {}

func (s *Shard) settle(p *pending) {
	s.overlay.settle(p.rec.Seq, p.keys, p.purges, p.rec.Kind == events.KindDecision)
	s.stats.decisions.Add(1)
	if r := s.round; r != nil && p.rec.Seq == r.checkpoint {
		r.offset = p.offset
	}
	if s.cfg.Applied != nil {
		s.cfg.Applied(s.cfg.ID, p.rec)
	}
}

// append seals the body into a record that continues the chain, applies it to the deciding state, and
// sends it off.
//
// docs/spec: Append.Decide, Compact.Decide, Emit.Decide
func (s *Shard) append(rec *events.Record) {
	rec.Format, rec.Nonce, rec.Seq, rec.Prev, rec.Time = s.cfg.Meta.Level(), s.nonce, s.ahead.Seq+1, s.ahead.Hash, s.now()
	value := s.page.print(rec.SizeHint(), rec.Encode)
	p := pending{rec: rec, hash: events.HashOf(value), size: len(value)}
	if d := rec.Decision; d != nil {
		p.image = s.images.print(journal.ImageSize(d), func(dst []byte) []byte { return journal.AppendImage(dst, d) })
	}
	p.watched = s.watch(rec)
	s.ahead.Apply(rec, p.image, p.hash, s.overlay)
	p.keys, p.purges = s.overlay.takeTouched(rec.Seq)
	s.inflight = append(s.inflight, p)
	s.stats.inflight.Add(1)
	if mutant.On("shard-emit-before-ack") {
		_ = s.emit(rec, s.expect)
	}
	if s.onAck == nil {
		s.onAck = s.acked
	}
	s.journal.Append(value, s.onAck)
}

// decide appends a decision about instance id for its input. A nil decision is the machine's word for rows
// that cannot be right: then the store is rebuilt.
func (s *Shard) decide(id events.InstanceID, d *events.Decision, in events.Input) error {
	if s.overlay.err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, s.overlay.err)
	}
	if d == nil {
		if !s.rebuilt {
			return fmt.Errorf("%w: the rows of instance %s cannot be right", ErrStoreFailed, id)
		}
		// The journal itself says so: no rebuild mends it. Its neighbours go on (G11).
		s.log.Error("an instance cannot be decided: its rows in the journal contradict each other", "code", CodeCorruptInstance, "instance", id)
		s.broken[id] = true
		d = &events.Decision{Outcome: events.Ignored, Reason: CodeCorruptInstance, Instance: id}
	}
	d.Input = in
	s.append(&events.Record{Kind: events.KindDecision, Decision: d})
	if in.Kind == events.InputAction && s.cfg.Acted != nil && mutant.On("shard-action-answered-before-ack") {
		a, _ := answerIn(&events.Record{Decision: d})
		s.cfg.Acted(a)
	}
	return nil
}

// aside runs fn beside the loop; it ends with the shard.
func (s *Shard) aside(fn func()) {
	if s.cfg.Aside != nil {
		s.cfg.Aside(fn)
		return
	}
	s.background.Go(fn)
}

// Finished is the offset below which every record of an input is finished: decided in a record already appended, skipped
// by rule, or its forward acknowledged. ok is false for what is not read here, or no more. It belongs to Turn's goroutine.
func (s *Shard) Finished(p TopicPartition) (offset int64, ok bool) {
	in := s.byPlace[p]
	if in == nil || in.failed {
		return 0, false
	}
	return in.low(), true
}

func (s *Shard) close() {
	s.stats.inflight.Add(-int64(len(s.inflight)))
	s.inflight = nil
	s.absent.leave(s.stats)
	s.stopBackground()
	defer s.background.Wait()
	for _, in := range s.inputs {
		s.cfg.Kafka.Stop(in.tp)
	}
	s.txn.close()
	s.journal.Close()
}

// drain hands over: nothing more is decided; what is in flight is acknowledged, applied and emitted, and
// the progress is journaled, so that the next owner has nothing to repeat.
func (s *Shard) drain() error {
	s.stopping = true
	for _, in := range s.inputs {
		s.cfg.Kafka.Stop(in.tp)
		in.queue, in.queued, in.bytes = nil, 0, 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	reported := false
	for ctx.Err() == nil {
		if _, err := s.Turn(ctx); err != nil {
			return err
		}
		if len(s.inflight) == 0 && s.emits.idle() {
			if reported {
				return nil
			}
			reported = true
			if s.reportNow(); len(s.inflight) == 0 {
				return nil // there was nothing to say
			}
		}
		s.sleep(ctx, time.Second)
	}
	s.log.Warn("handed over with work under way; the next owner repeats it under the same ids", "in_flight", len(s.inflight))
	return nil
}

const drainTimeout = 5 * time.Second
