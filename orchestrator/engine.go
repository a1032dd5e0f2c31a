package orchestrator

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

// Engine runs the shards that the group assigns to this node. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	plans  []*sagas.Plan
	topics events.Topics
	log    *slog.Logger
	clock  func() int64
	stats  shardStats
	hooks  *hooks

	mu         sync.Mutex
	generation int32 // the latest one this node took part in
	runners    map[int32]*runner
	fatal      chan error

	meta      *meta       // set by Run
	members   *membership // set by Run
	evictions atomic.Int64
	joined    bool // the group has told what is assigned
	stopping  bool

	layout  layout // of the topics, as last looked at
	machine *machine.Machine
	stores  stores

	asked   asked           // actions that callers on this node wait for
	tails   map[int32]*tail // of journals of shards elsewhere
	putting sync.Mutex      // one reader of the quarantine topic at a time
}

// runner keeps one assigned shard running.
type runner struct {
	stop context.CancelFunc
	done chan struct{}

	mu    sync.RWMutex
	store store.Store // nil while it is closed
	shard *Shard      // nil while it is not open
	owns  bool
	err   error // why it is not
}

// New checks the configuration; it does not touch the network. Errors of definitions name file and line.
func New(cfg Config) (*Engine, error) {
	c, plans, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	hooks, err := newHooks(c.Hooks)
	if err != nil {
		return nil, err
	}
	for _, h := range hooks.plans {
		h.Plans(plans)
	}
	began := time.Now() // carries the monotonic clock: a jump of the wall clock moves nothing
	return &Engine{
		cfg: c, hooks: hooks, plans: plans, topics: events.Topics{App: c.App}, runners: map[int32]*runner{}, fatal: make(chan error, 1),
		log:    c.Logger.With("app", c.App, "node", c.Node),
		clock:  func() int64 { return began.UnixMilli() + time.Since(began).Milliseconds() },
		stores: stores{dir: c.Dir, cache: c.CacheBytes, log: c.Logger},
	}, nil
}

// Build names the program's version in claims, for people.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			rev = " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version + rev
}

// Run takes part until ctx ends, then hands its shards over and leaves the group. It returns nil after such
// a shutdown, or the error that makes going on pointless.
func (e *Engine) Run(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	layout, err := e.inspect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while it asked
		}
		return err
	}
	e.mu.Lock()
	e.layout = layout
	e.mu.Unlock()
	m, err := openMeta(ctx, e.cfg.Kafka, e.cfg.App, refsOf(e.plans), e.log)
	if err == nil {
		defer m.close()
		err = m.checkLevel()
	}
	var members *membership
	if err == nil {
		members, err = e.enter(ctx, m, layout)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return coded(err)
	}
	defer members.leave()
	e.mu.Lock()
	e.meta, e.members = m, members
	e.mu.Unlock()
	e.stores.shards = layout.shards
	e.machine = machine.New(machine.Config{App: e.cfg.App, Slots: layout.shards * events.SlotsPerShard, Lifecycle: e.cfg.Lifecycle, MaxRecord: e.cfg.MaxRecord, Plans: e.plans})
	defer e.stores.close()
	var beside sync.WaitGroup
	defer beside.Wait()
	bg, stop := context.WithCancel(context.Background())
	defer stop()
	beside.Go(func() { e.watchTopics(bg) })
	leave, err := e.cfg.Kafka.Join(e.cfg.App, e.topics.Inbox(), Member{Assigned: e.assigned, Revoked: e.revoked, Lost: e.revoked, Suits: m.suits})
	if err != nil {
		return fmt.Errorf("joining group %s: %w", e.cfg.App, err)
	}
	select {
	case <-ctx.Done():
	case err = <-e.fatal:
	}
	e.stopAll()
	leave()
	return coded(err)
}

// coded puts the error's code before it.
func coded(err error) error {
	if code := ErrorCode(err); code != "" {
		err = fmt.Errorf("%s: %w", code, err)
	}
	return err
}

// fail ends Run.
func (e *Engine) fail(err error) {
	select {
	case e.fatal <- err:
	default:
	}
}

func (e *Engine) assigned(generation int32, partitions []int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.generation, e.joined = max(e.generation, generation), true
	for _, p := range partitions {
		if e.runners[p] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		r := &runner{stop: cancel, done: make(chan struct{})}
		e.runners[p] = r
		go e.keep(ctx, p, r)
	}
	if e.members != nil {
		e.members.poke()
	}
}

// revoked stops shards and waits until they are handed over. When they are lost already, their last
// appends fail by the rule of the log; waiting costs little and leaves the store in order.
func (e *Engine) revoked(partitions []int32) {
	e.mu.Lock()
	var stopped []*runner
	for _, p := range partitions {
		if r := e.runners[p]; r != nil {
			r.stop()
			stopped = append(stopped, r)
			delete(e.runners, p)
		}
	}
	members := e.members
	e.mu.Unlock()
	for _, r := range stopped {
		<-r.done
	}
	if members != nil {
		members.poke()
	}
}

func (e *Engine) stopAll() {
	e.mu.Lock()
	e.stopping = true
	var all []int32
	for p := range e.runners {
		all = append(all, p)
	}
	e.mu.Unlock()
	e.revoked(all)
}

func (e *Engine) latestGeneration() int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.generation
}

// Delays between two tries of one shard.
const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
	// generationWait is how long a shard that lost its claim waits for the group to tell this node so.
	generationWait = time.Minute
)

// keep opens the shard and runs it, again and again until it is revoked.
func (e *Engine) keep(ctx context.Context, p int32, r *runner) {
	defer close(r.done)
	delay := retryFirst
	for ctx.Err() == nil {
		r.failed(nil)
		began := time.Now()
		err := e.runShard(ctx, p, r)
		if err == nil || ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				e.log.Warn("the shard ended with an error while it was handed over", "shard", p, "code", ErrorCode(err), "err", err)
			}
			return
		}
		if fatal(err) {
			e.fail(err)
			return
		}
		r.failed(err)
		if time.Since(began) > retryLast {
			delay = retryFirst
		}
		var lost *claimLost
		e.log.Warn("the shard stopped; it is opened again", "shard", p, "code", ErrorCode(err), "in", delay, "err", err)
		lostAt := time.Now()
		for wait := true; wait && ctx.Err() == nil; {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			// L5: who lost the claim to a later generation does not claim back before it takes part in it. A group
			// that was forgotten counts from 1 again, so the wait has an end.
			wait = errors.As(err, &lost) && !lost.mayClaimBack(e.latestGeneration()) && time.Since(lostAt) < generationWait
		}
		delay = min(2*delay, retryLast)
	}
}

// fatal says which errors no retry mends.
func fatal(err error) bool {
	for _, target := range []error{events.ErrNewerFormat, journal.ErrTrimmed, ErrTopicRecreated, ErrShardCount} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func (e *Engine) runShard(ctx context.Context, p int32, r *runner) error {
	st, err := e.stores.open(p)
	if err != nil {
		if errors.Is(err, store.ErrCorrupt) {
			e.discard(p, err)
		}
		return err
	}
	r.set(st, false)
	err = e.runOn(ctx, p, r, st)
	r.set(nil, false)
	if cerr := st.Close(); cerr != nil && err == nil {
		e.log.Warn("closing the store", "shard", p, "err", cerr)
	}
	for _, bad := range []error{ErrUntrusted, ErrStoreFailed, ErrTruncated, store.ErrCorrupt} {
		if errors.Is(err, bad) && !fatal(err) { // a store that a newer build wrote is none of ours to throw away
			e.discard(p, err)
			break
		}
	}
	return err
}

// discard throws a store away that cannot be trusted; the next open rebuilds it from Kafka.
func (e *Engine) discard(p int32, why error) {
	e.log.Warn("discarding the store; it is rebuilt from Kafka", "shard", p, "code", ErrorCode(why), "why", why)
	if err := e.stores.destroy(p); err != nil {
		e.log.Error("the store cannot be removed", "shard", p, "err", err)
	}
}

func (e *Engine) runOn(ctx context.Context, p int32, r *runner, st store.Store) error {
	e.mu.Lock()
	layout := e.layout
	e.mu.Unlock()
	sh, err := OpenShard(ctx, ShardConfig{
		Meta: e.meta, Waits: func(d events.DefinitionRef) { e.members.waits(p, d) },
		App: e.cfg.App, ID: p, Shards: layout.shards, Generation: e.latestGeneration(), Node: e.cfg.Node, Build: Build(),
		Machine: e.machine, Kafka: e.cfg.Kafka, Store: st, Inputs: layout.inputsOf(p), Domain: layout.domain, TopicIDs: layout.ids,
		From: e.cfg.From, Clock: e.clock, Nonce: nonce, Logger: e.log, Applied: e.cfg.Applied, Acted: e.asked.tell, Stats: &e.stats, hooks: e.hooks,
		MaxRecord: e.cfg.MaxRecord, MaxInFlight: e.cfg.MaxInFlight, CompactAfter: e.cfg.CompactAfter, ApplyAfter: applyAfter, RowCache: int(e.cfg.CacheBytes / int64(8*layout.shards)), BacklogWait: e.cfg.BacklogWait,
		Transactional: e.cfg.Transactional,
	})
	if err == nil {
		r.set(st, true)
		r.open(sh)
		err = sh.Run(ctx)
		r.open(nil)
	}
	for _, h := range e.hooks.shard {
		h.ShardClosed(p, err)
	}
	return err
}

func nonce() (n events.Nonce) {
	rand.Read(n[:]) // never fails, by its contract
	return n
}

// open notes the shard that runs now; nil: none does. New partitions that it was not opened with come with the next
// look at the topics.
func (r *runner) open(s *Shard) {
	r.mu.Lock()
	r.shard = s
	r.mu.Unlock()
}

func (r *runner) set(st store.Store, owns bool) {
	r.mu.Lock()
	r.store, r.owns = st, owns
	r.mu.Unlock()
}

// Shards are the shards that this node owns and decides for, in order.
func (e *Engine) Shards() []int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []int32
	for p, r := range e.runners {
		r.mu.RLock()
		if r.owns {
			out = append(out, p)
		}
		r.mu.RUnlock()
	}
	slices.Sort(out)
	return out
}

// Instance is an instance as operators see it.
type Instance struct {
	ID events.InstanceID
	events.Head
	History []events.Entry // in order of happening
}

// ErrNotHere says that the shard is not, or not yet, on this node.
var ErrNotHere = errors.New("this node does not own the shard")

// Get gives an instance of a shard that this node owns; ok is false when there is none of that id.
func (e *Engine) Get(id events.InstanceID) (inst Instance, ok bool, err error) {
	var r *runner
	e.mu.Lock()
	if n := e.layout.shards; n > 0 {
		r = e.runners[id.Shard(n)]
	}
	e.mu.Unlock()
	if r == nil {
		return inst, false, ErrNotHere
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.store == nil {
		return inst, false, ErrNotHere
	}
	from, to := events.InstanceRange(id)
	inst.ID = id
	serr := r.store.Scan(from, to, func(row store.Row) bool {
		_, ref, _ := events.ParseRowKey(row.Key)
		switch ref.Part {
		case events.PartHead:
			var h *events.Head
			if h, err = events.DecodeHead(bytes.Clone(row.Value)); err == nil {
				inst.Head, ok = *h, true
			}
		case events.PartHistory:
			var x *events.Entry
			if x, err = events.DecodeEntry(bytes.Clone(row.Value)); err == nil {
				inst.History = append(inst.History, *x)
			}
		}
		return err == nil
	})
	return inst, ok, errors.Join(err, serr)
}

// List calls fn for the instances of this node's shards, without histories, until it returns false. It
// reads a consistent snapshot of each shard, one after the other.
func (e *Engine) List(fn func(Instance) bool) error {
	for _, p := range e.Shards() {
		e.mu.Lock()
		r := e.runners[p]
		e.mu.Unlock()
		if r == nil {
			continue
		}
		more, err := r.list(fn)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (r *runner) list(fn func(Instance) bool) (more bool, err error) {
	// fn is somebody else's code: it runs on a snapshot, with no lock held.
	snap, err := r.snapshot()
	if errors.Is(err, ErrNotHere) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer snap.Close()
	more = true
	serr := snap.Scan([]byte{events.FamilyInstance}, []byte{events.FamilyInstance + 1}, func(row store.Row) bool {
		id, ref, ok := events.ParseRowKey(row.Key)
		if !ok || ref.Part != events.PartHead {
			return true
		}
		var h *events.Head
		if h, err = events.DecodeHead(bytes.Clone(row.Value)); err != nil {
			return false
		}
		more = fn(Instance{ID: id, Head: *h})
		return more
	})
	return more, errors.Join(err, serr)
}

// shardStats are the counters of all shards of a node.
type shardStats struct {
	decisions, commands, forwards, quarantined, ignored, skipped, duplicates, rounds atomic.Uint64
	inflight, waiting                                                                atomic.Int64
}

// Stats are this node's counters since its start.
type Stats struct {
	Shards      int
	Decisions   uint64 // accepted records of every kind but claims
	Commands    uint64 // messages emitted, repeated ones included
	Forwards    uint64
	Quarantined uint64
	Ignored     uint64 // inputs that a stated rule drops, each journaled
	Skipped     uint64 // events of types no definition starts on
	Duplicates  uint64 // forwards that were delivered twice
	Compactions uint64
	InFlight    int
	Evictions   uint64 // nodes that this one found dead and removed from the group
	Waiting     int    // inputs that wait for a definition that this node does not have (L12)
}

// Stats may be called at any time.
func (e *Engine) Stats() Stats {
	s := &e.stats
	return Stats{Shards: len(e.Shards()), Decisions: s.decisions.Load(), Commands: s.commands.Load(), Forwards: s.forwards.Load(),
		Quarantined: s.quarantined.Load(), Ignored: s.ignored.Load(), Skipped: s.skipped.Load(), Duplicates: s.duplicates.Load(),
		Compactions: s.rounds.Load(), InFlight: int(s.inflight.Load()), Waiting: int(s.waiting.Load()), Evictions: uint64(e.evictions.Load())}
}

// stores opens the stores of this node's shards: in Pebble below dir, or in memory.
type stores struct {
	dir    string
	cache  int64 // bytes for all shards, half of it for what is not yet on disk
	shards int
	log    *slog.Logger

	mu     sync.Mutex
	shared *pebble.Cache
}

func (s *stores) path(p int32) string { return filepath.Join(s.dir, fmt.Sprintf("shard-%04d", p)) }

func (s *stores) open(p int32) (store.Store, error) {
	if s.dir == "" {
		return store.NewMemory(), nil
	}
	s.mu.Lock()
	if s.shared == nil {
		s.shared = pebble.NewCache(s.cache)
	}
	cache := s.shared
	s.mu.Unlock()
	return store.OpenPebble(s.path(p), store.Options{Cache: cache, MemTableBytes: max(1<<20, s.cache/int64(2*s.shards)), Logger: s.log})
}

func (s *stores) destroy(p int32) error {
	if s.dir == "" {
		return nil
	}
	return store.Destroy(s.path(p))
}

func (s *stores) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared != nil {
		s.shared.Unref()
		s.shared = nil
	}
}

// Level is the journal format that this node's shards write (L13); 0 before Run has begun.
func (e *Engine) Level() uint8 {
	e.mu.Lock()
	m := e.meta
	e.mu.Unlock()
	if m == nil {
		return 0
	}
	return m.Level()
}
