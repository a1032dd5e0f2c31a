package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
)

// openRecord is a record read back because it may have open emissions.
type openRecord struct {
	value  []byte
	offset int64
	seq    uint64
	topics []string // of its emissions
}

func (o *openRecord) isOpen(st *journal.State) bool {
	return slices.ContainsFunc(o.topics, func(topic string) bool { return !st.EmittedOn(topic, o.seq) })
}

// ErrUntrusted says that a store is no prefix of the journal (L4): it is of another topic, ahead, or another
// history. It has to be discarded and rebuilt.
var ErrUntrusted = errors.New("the store is no prefix of the journal")

// OpenShard restores the shard from its store and the journal's tail, claims it, and starts its inputs. On
// an error the caller still owns the store; ErrUntrusted and ErrStoreFailed mean that it has to be discarded.
func OpenShard(ctx context.Context, cfg ShardConfig) (*Shard, error) {
	s := &Shard{cfg: cfg, topics: events.Topics{App: cfg.App}, store: cfg.Store, stats: cfg.Stats, log: cfg.Logger.With("shard", cfg.ID), hooks: cfg.hooks}
	if s.hooks == nil {
		s.hooks = &hooks{}
	}
	if s.stats == nil {
		s.stats = &shardStats{}
	}
	s.mail.wake = make(chan struct{}, 1)
	s.bg, s.stopBackground = context.WithCancel(context.Background())
	s.journal = cfg.Kafka.Log(s.topics.Journal(), cfg.ID)
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, s.wrap(err)
	}
	return s, nil
}

// docs/spec: Emit.Open
func (s *Shard) open(ctx context.Context) error {
	began := time.Now()
	f := follower{log: s.journal, store: s.store, logger: s.log, tell: func(read, total int64) {
		for _, h := range s.hooks.restore {
			h.Restoring(s.cfg.ID, read, total)
		}
	}}
	if err := f.load(ctx); err != nil {
		return err
	}
	if err := f.catchUp(ctx); err != nil {
		return err
	}
	if c := f.state.Claim; f.state.Claimed && int(c.Shards) != s.cfg.Shards && !mutant.On("shard-another-count-taken") {
		return fmt.Errorf("%w: application %s was created with %d shards, and %s has %d partitions: instances would not be found; delete and recreate the application's topics, or restore their partition count", ErrShardCount, s.cfg.App, c.Shards, s.topics.Journal(), s.cfg.Shards)
	}
	if err := s.claim(ctx, &f); err != nil {
		return err
	}
	s.applied, s.expect = f.state, f.state.Next
	s.ahead = s.applied.Clone()
	s.quarantining = map[journal.TP][]int64{}
	s.overlay, s.rebuilt, s.broken = newOverlay(s.store, s.cfg.RowCache), f.fresh, map[events.InstanceID]bool{}
	next, err := s.store.NextDue()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	s.timers.next = next
	if sized, ok := s.store.(interface{ Size() int64 }); ok {
		s.liveBytes = sized.Size()
	}
	for _, h := range s.hooks.shard {
		h.ShardOpened(s.cfg.ID)
	}
	if err := s.census(); err != nil {
		return err
	}
	if err := s.openTransactions(ctx); err != nil {
		return err
	}
	// What the last owner decided and may not have emitted goes out first, under the same ids (L14).
	s.emits.last = s.applied.EmittedSeq
	for _, r := range f.open {
		if mutant.On("shard-tail-not-emitted") {
			break
		}
		rec, err := events.DecodeRecord(r.value)
		if err == nil {
			err = s.emit(rec, r.offset)
		}
		if err != nil {
			return err
		}
	}
	s.emits.last = s.applied.Seq
	if err := s.startInputs(ctx); err != nil {
		return err
	}
	s.log.Info("owns the shard", "term", s.applied.Term, "seq", s.applied.Seq, "records_read", f.read, "emitted_again", len(f.open), "skew_ms", s.skew, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// claim appends this owner's claim and reads up to it: nothing is decided before everything below it is
// known (L3). The claim's append time measures this node's clock against the broker's (L11).
//
// docs/spec: Append.Claim, Append.ReadToClaim, Compact.OwnerReplaced
func (s *Shard) claim(ctx context.Context, f *follower) error {
	s.nonce = s.cfg.Nonce()
	rec := &events.Record{Format: s.cfg.Meta.Level(), Kind: events.KindClaim, Nonce: s.nonce, Term: f.state.Term + 1, Claim: &events.Claim{
		Node: s.cfg.Node, Generation: s.cfg.Generation, Build: s.cfg.Build,
		Shards: uint32(s.cfg.Shards), Slots: uint32(s.cfg.Shards * events.SlotsPerShard),
	}}
	type result struct {
		offset int64
		at     int64
		err    error
	}
	acked := make(chan result, 1)
	s.journal.Append(rec.Encode(nil), func(offset int64, err error) { acked <- result{offset, s.cfg.Clock(), err} })
	var mine result
	select {
	case mine = <-acked:
	case <-ctx.Done():
		return ctx.Err()
	}
	if mine.err != nil {
		return fmt.Errorf("claiming: %w: %w", ErrUnknownAppend, mine.err)
	}
	f.seen = func(r LogRecord) {
		if r.Offset == mine.offset {
			s.setSkew(r.Time - mine.at)
		}
	}
	if mutant.On("shard-claim-not-awaited") {
		f.state.Accept(rec)
		f.state.Next = mine.offset + 1
		return nil
	}
	if err := f.catchUp(ctx); err != nil {
		return err
	}
	if f.state.Next <= mine.offset {
		return fmt.Errorf("%w: the claim was acknowledged at offset %d, and the journal ends at %d", ErrTruncated, mine.offset, f.state.Next)
	}
	if !f.state.Own(s.nonce) {
		return lostTo(f.state)
	}
	s.claimedAt = s.cfg.Clock()
	s.progress.clocked = s.claimedAt
	return nil
}

// follower reads a journal into a store: for a restore, a rebuild, a standby.
type follower struct {
	log   Log
	store store.Store
	state *journal.State
	open  []openRecord // accepted decisions whose emissions may be open, in order
	seen  func(LogRecord)
	read  int
	fresh bool // the store was empty
	// A journal that begins at a checkpoint holds the whole round that the checkpoint began, or its head was
	// deleted too early. round is that checkpoint's sequence, 0 when there is none or its last carry was read.
	round  uint64
	until  int64 // stop before this offset; 0: at the journal's end
	logger interface{ Info(string, ...any) }
	tell   func(read, total int64) // nil: nobody asks

	folder  journal.Folder
	topics  []string      // for opened
	changes store.Changes // each row once: a saga rewrites its rows many times within one load
	limit   int           // bytes of changes in memory; 0: restoreMemory
	size    int           // bytes of journal since progress was told
}

// load takes the store's state for the start, if the store is a prefix of the journal (L4).
//
// docs/spec: Append.Reopen
func (f *follower) load(ctx context.Context) error {
	f.state = journal.NewState()
	row, err := f.store.State()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	bounds, err := f.log.Bounds(ctx)
	if err != nil {
		return err
	}
	if row == nil {
		f.fresh = true
		f.state.Next = bounds.Start
		return nil
	}
	st, err := journal.DecodeState(row)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	id, err := f.log.TopicID(ctx)
	if err != nil {
		return err
	}
	switch {
	case st.TopicID != id && st.Seq > 0 && bounds == Bounds{}:
		return fmt.Errorf("%w: the journal is empty and another topic than the one this node's store was written from: it was deleted and created again, and its sagas are gone with it; restore the topic, or remove the store's folder to begin anew", ErrTopicRecreated)
	case st.TopicID != id:
		return fmt.Errorf("%w: it was written from another topic of that name", ErrUntrusted)
	case st.Next > bounds.End:
		return fmt.Errorf("%w: it is ahead: offset %d, and the journal ends at %d", ErrUntrusted, st.Next, bounds.End)
	case st.Seq > 0 && st.At < bounds.Start:
		return fmt.Errorf("%w: its last record, at offset %d, was compacted away; the journal begins at %d", ErrUntrusted, st.At, bounds.Start)
	}
	if st.Seq == 0 {
		// It has read claims and nothing else. No hash says which, so they are read again.
		f.fresh = true
		f.state.Next = bounds.Start
		return nil
	}
	if err := f.verify(ctx, st, bounds); err != nil {
		return err
	}
	f.state = st
	return nil
}

// verify looks for the store's last record in the journal, by its hash, and collects the records before it
// whose emissions may be open. They are found backwards along the chain, so that what was not accepted is
// not taken for it.
//
// The hash vouches for what stands up to that record. The claims and ignored records that the store has read behind
// it may have been lost since, and others stand there: st goes back to that record, and they are read again.
func (f *follower) verify(ctx context.Context, st *journal.State, bounds Bounds) error {
	from := min(max(st.EmitFrom, bounds.Start), st.At)
	type link struct {
		prev  events.Hash
		nonce events.Nonce
		openRecord
	}
	chain := map[events.Hash]link{}
	var decoder events.Decoder
	done := errors.New("done")
	_, err := f.log.Read(ctx, from, func(r LogRecord) error {
		if r.Offset > st.At {
			return done
		}
		rec, err := decoder.Decode(r.Value)
		if err != nil {
			return fmt.Errorf("journal offset %d: %w", r.Offset, err)
		}
		if rec.Kind != events.KindClaim {
			l := link{rec.Prev, rec.Nonce, openRecord{offset: r.Offset, seq: rec.Seq}}
			if rec.Decision != nil {
				if o := f.opened(rec, r); o.isOpen(st) {
					l.openRecord = o
				}
			}
			// A record may be there twice, and the first is the one that counts: progress of transactions names its offset.
			hash := events.HashOf(r.Value)
			if _, again := chain[hash]; !again || r.Offset == st.At {
				chain[hash] = l
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, done) {
		return err
	}
	at, found := chain[st.Hash]
	if (!found || at.offset != st.At) && !mutant.On("shard-store-trusted") {
		return fmt.Errorf("%w: the record at offset %d is another one", ErrUntrusted, st.At)
	}
	if found {
		st.Next, st.Nonce, st.Claimed, st.Broken = st.At+1, at.nonce, true, false
	}
	for found && at.seq > st.EmittedSeq {
		if at.value != nil {
			f.open = append(f.open, at.openRecord)
		}
		at, found = chain[at.prev]
	}
	slices.Reverse(f.open)
	return nil
}

const (
	// restoreMemory bounds what a restore gathers for one load of the store, in bytes.
	restoreMemory = 16 << 20
	// restoreTold is how often progress is told, in bytes of journal.
	restoreTold = 4 << 20
)

// catchUp folds the journal from where the state stands to its end.
func (f *follower) catchUp(ctx context.Context) error {
	bounds, err := f.log.Bounds(ctx)
	if err != nil {
		return err
	}
	if f.state.Next < bounds.Start && f.state.Seq == 0 && !f.state.Claimed {
		f.state.Next = bounds.Start
	}
	if f.state.Next < bounds.Start {
		return fmt.Errorf("%w: the journal was trimmed to %d while it was read at %d", ErrUntrusted, bounds.Start, f.state.Next)
	}
	if bounds.Start == bounds.End && bounds.Start > 0 && f.state.Seq == 0 {
		return fmt.Errorf("%w: it is empty, and begins at offset %d; restore its records, or create the application's topics anew", journal.ErrTrimmed, bounds.Start)
	}
	total := bounds.End - f.state.Next
	told := time.Now()
	f.progress(bounds.End)
	_, err = f.log.Read(ctx, f.state.Next, func(r LogRecord) error {
		if f.until > 0 && r.Offset >= f.until {
			return errReached
		}
		if r.Offset != f.state.Next {
			return fmt.Errorf("%w: it reads offset %d where %d was expected", ErrUntrusted, r.Offset, f.state.Next)
		}
		v, rec, err := f.folder.Fold(f.state, r.Offset, r.Offset == bounds.Start, r.Value, &f.changes)
		if err != nil {
			return fmt.Errorf("journal offset %d: %w", r.Offset, err)
		}
		f.read++
		if f.seen != nil {
			f.seen(r)
		}
		f.collect(v, rec, r)
		switch {
		case rec.Kind == events.KindCheckpoint && r.Offset == bounds.Start && v == journal.Accepted:
			f.round = rec.Seq
		case rec.Kind == events.KindCarry && rec.Carry.End == f.round && v == journal.Accepted:
			f.round = 0
		}
		if f.size += len(r.Value); f.size >= restoreTold {
			f.size = 0
			if time.Since(told) > 2*time.Second {
				told = time.Now()
				f.logger.Info("restoring", "records", f.read, "offset", r.Offset, "of", bounds.End, "total", total)
			}
			f.progress(bounds.End)
		}
		if f.changes.Size() >= cmp.Or(f.limit, restoreMemory) {
			return f.flush(ctx)
		}
		return nil
	})
	switch {
	case errors.Is(err, errReached):
	case err != nil:
		return err
	case f.round != 0:
		return fmt.Errorf("%w: it begins at checkpoint %d, whose last carried row is missing", journal.ErrTrimmed, f.round)
	}
	f.progress(f.state.Next)
	return f.flush(ctx)
}

// progress tells how far it is, on its way to the offset end.
func (f *follower) progress(end int64) {
	if f.tell != nil {
		f.tell(int64(f.read), int64(f.read)+max(end-f.state.Next, 0))
	}
}

var errReached = errors.New("reached")

// collect keeps what may have to be emitted again, and forgets it when progress passes it.
func (f *follower) collect(v journal.Verdict, rec *events.Record, r LogRecord) {
	if v != journal.Accepted || rec.Decision == nil {
		return
	}
	if o := f.opened(rec, r); o.isOpen(f.state) {
		f.open = append(f.open, o)
	}
	if rec.Decision.Progress != nil {
		f.open = slices.DeleteFunc(f.open, func(o openRecord) bool { return !o.isOpen(f.state) })
	}
}

// opened is the record as one whose emissions may be open.
func (f *follower) opened(rec *events.Record, r LogRecord) openRecord {
	topics := f.topics[:0]
	for i := range rec.Decision.Emits {
		topics = append(topics, rec.Decision.Emits[i].Topic)
	}
	f.topics = topics
	if n := len(f.open); n > 0 && slices.Equal(f.open[n-1].topics, topics) {
		topics = f.open[n-1].topics // most records emit to the same ones
	} else {
		topics = slices.Clone(topics)
	}
	return openRecord{value: r.Value, offset: r.Offset, seq: rec.Seq, topics: topics}
}

func (f *follower) flush(ctx context.Context) error {
	id, err := f.log.TopicID(ctx)
	if err != nil {
		return err
	}
	f.state.TopicID = id
	f.state.EmitFrom = f.state.Next
	if len(f.open) > 0 {
		f.state.EmitFrom = f.open[0].offset
	}
	err = f.store.Load(&f.changes, f.state.Encode())
	f.changes.Reset()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	return nil
}
