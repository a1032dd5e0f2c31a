package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
)

// Comparison is what Verify found of one shard: the live store, frozen at a position, and a store rebuilt
// from the journal up to the same position.
type Comparison struct {
	Shard   int32  `json:"shard"`
	Offset  int64  `json:"offset"` // the position: every journal record below it is in both
	Seq     uint64 `json:"seq"`
	From    int64  `json:"from"` // where the journal begins
	Records int    `json:"records"`
	Rows    int    `json:"rows"` // of the live store
	Rebuilt int    `json:"rebuilt"`
	// Took is the time for reading the journal into the empty store, the comparison aside.
	Took     time.Duration `json:"-"`
	LiveHash [32]byte      `json:"-"`
	Hash     [32]byte      `json:"-"`
	// Equal says that every logical row, and the shard's state, are the same.
	Equal bool `json:"equal"`
}

// Verify rebuilds a shard that this node owns from the journal alone, in a temporary store, and compares it
// with the live one at one position, while the shard goes on (G7). It reads the whole journal.
func (e *Engine) Verify(ctx context.Context, shard int32) (Comparison, error) {
	e.mu.Lock()
	r := e.runners[shard]
	e.mu.Unlock()
	if r == nil {
		return Comparison{}, ErrNotHere
	}
	log := e.cfg.Kafka.Log(e.topics.Journal(), shard)
	defer log.Close()
	for ctx.Err() == nil {
		// The journal's begin is read before the snapshot is taken: its compaction round ended before it
		// was trimmed, so what is left holds every row of the snapshot.
		bounds, err := log.Bounds(ctx)
		if err != nil {
			return Comparison{}, err
		}
		snap, err := r.snapshot()
		if err != nil {
			return Comparison{}, err
		}
		c, err := e.compare(ctx, log, snap, shard, bounds.Start)
		if cerr := snap.Close(); err == nil {
			err = cerr
		}
		if !errors.Is(err, ErrUntrusted) && !errors.Is(err, ErrPositionLost) { // trimmed while it was read: once more
			return c, err
		}
	}
	return Comparison{}, ctx.Err()
}

func (r *runner) snapshot() (store.Snapshot, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.store == nil || !r.owns {
		return nil, ErrNotHere
	}
	return r.store.Snapshot()
}

func (e *Engine) compare(ctx context.Context, log Log, snap store.Snapshot, shard int32, from int64) (Comparison, error) {
	row, err := snap.State()
	if err != nil {
		return Comparison{}, err
	}
	live, err := journal.DecodeState(row)
	if err != nil {
		return Comparison{}, err
	}
	dir, err := os.MkdirTemp(e.cfg.Dir, "rebuild-")
	if err != nil {
		return Comparison{}, err
	}
	defer os.RemoveAll(dir)
	fresh, err := store.OpenPebble(dir, store.Options{Logger: e.log})
	if err != nil {
		return Comparison{}, err
	}
	defer fresh.Close()
	c, err := Compare(ctx, log, live, snap, fresh, e.log)
	c.Shard, c.From = shard, from
	return c, err
}

// Compare folds the journal from its start to where the live state stands, into the empty store fresh, and
// compares rows and state. logger gets progress.
func Compare(ctx context.Context, log Log, live *journal.State, rows store.Scanner, fresh store.Store, logger interface{ Info(string, ...any) }) (Comparison, error) {
	began := time.Now()
	f := follower{log: log, store: fresh, logger: logger, until: live.Next}
	if err := f.load(ctx); err != nil {
		return Comparison{}, err
	}
	if err := f.catchUp(ctx); err != nil {
		return Comparison{}, err
	}
	if f.state.Next != live.Next {
		return Comparison{}, fmt.Errorf("%w: the rebuild reached offset %d, the live store stands at %d", ErrUntrusted, f.state.Next, live.Next)
	}
	if f.round != 0 {
		return Comparison{}, fmt.Errorf("%w: the live store stands within the compaction round that the journal begins with", ErrUntrusted)
	}
	c := Comparison{Offset: live.Next, Seq: live.Seq, Records: f.read, Took: time.Since(began)}
	var err error
	if c.Rows, c.LiveHash, err = store.Hash(rows); err != nil {
		return c, err
	}
	if c.Rebuilt, c.Hash, err = store.Hash(fresh); err != nil {
		return c, err
	}
	c.Equal = c.LiveHash == c.Hash && live.Seq == f.state.Seq && live.Hash == f.state.Hash && live.Time == f.state.Time &&
		bytes.Equal(printed(live), printed(f.state))
	return c, nil
}

// printed is what a checkpoint would say: bytes know no difference between nothing and an empty list.
func printed(s *journal.State) []byte {
	r := events.Record{Kind: events.KindCheckpoint, Checkpoint: s.NewCheckpoint()}
	return r.Encode(nil)
}
