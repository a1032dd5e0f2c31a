package participant

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var errEnded = errors.New("the transaction has ended")

// Pebble is a Ledger in a directory of its own: every commit is on disk before an answer leaves. It is one
// process's; a second one that opens the directory gets an error. A disk that fails for good ends the process:
// what cannot be remembered must not be answered.
//
// Keys: 'k' idempotency key → Memory; 'u' until idempotency key → nothing, in the order of forgetting;
// 'e' order → Effect; 'n' → the last order number, which pruned effects leave behind. Values are JSON.
type Pebble struct {
	db    *pebble.DB
	dir   string
	locks locks

	// A handler that does not end in time must meet an error, not a closed database, which panics.
	using  sync.RWMutex
	closed bool

	// applying orders the log of effects: numbers are given, and batches enter the write-ahead log, under
	// it; syncing does not need it, so that concurrent commits share an fsync.
	applying sync.Mutex
	order    uint64
}

// OpenLedger opens or creates the ledger in dir.
func OpenLedger(dir string) (*Pebble, error) { return openLedger(dir, vfs.Default) }

func openLedger(dir string, fs vfs.FS) (*Pebble, error) {
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		return nil, fmt.Errorf("participant's ledger %s: %w", dir, err)
	}
	l := &Pebble{db: db, dir: dir}
	l.order, err = l.counter()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("participant's ledger %s: %w", dir, err), db.Close())
	}
	return l, nil
}

var counterKey = []byte("n")

func (l *Pebble) counter() (uint64, error) {
	v, closer, err := l.db.Get(counterKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(v) != 8 {
		return 0, fmt.Errorf("the counter of effects has %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close closes the ledger. Transactions that are still open fail.
func (l *Pebble) Close() error {
	l.using.Lock()
	defer l.using.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.db.Close()
}

// use is held around whatever touches the database.
func (l *Pebble) use() (release func(), err error) {
	l.using.RLock()
	if l.closed {
		l.using.RUnlock()
		return nil, fmt.Errorf("participant's ledger %s: %w", l.dir, pebble.ErrClosed)
	}
	return l.using.RUnlock, nil
}

// Begin implements Ledger.
func (l *Pebble) Begin(ctx context.Context, lock string) (Tx, error) {
	if err := l.locks.lock(ctx, lock); err != nil {
		return nil, err
	}
	release, err := l.use()
	if err != nil {
		l.locks.unlock(lock)
		return nil, err
	}
	defer release()
	return &pebbleTx{ledger: l, lock: lock, batch: l.db.NewIndexedBatch()}, nil
}

// pruneBatch bounds what one Prune does.
const pruneBatch = 10_000

// Prune implements Ledger.
func (l *Pebble) Prune(ctx context.Context, now time.Time) error {
	release, err := l.use()
	if err != nil {
		return err
	}
	defer release()
	var due [][]byte
	it, err := l.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: []byte{'u'}, UpperBound: untilKey(now.UnixMilli(), "")})
	if err != nil {
		return fmt.Errorf("participant's ledger %s: %w", l.dir, err)
	}
	for it.First(); it.Valid() && len(due) < pruneBatch; it.Next() {
		due = append(due, bytes.Clone(it.Key()))
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("participant's ledger %s: %w", l.dir, err)
	}
	for _, k := range due {
		if err := l.forget(string(k[9:]), k, now.UnixMilli()); err != nil {
			return fmt.Errorf("participant's ledger %s: %w", l.dir, err)
		}
	}
	return nil
}

// forget drops one key, unless it was remembered anew since, or is in use just now.
func (l *Pebble) forget(key string, index []byte, now int64) error {
	s, err := l.read(l.db, key)
	if err != nil {
		return err
	}
	lock := key
	if s.Lock != "" {
		lock = s.Lock
	}
	if !l.locks.try(lock) {
		return nil
	}
	defer l.locks.unlock(lock)
	if s, err = l.read(l.db, key); err != nil {
		return err
	}
	b := l.db.NewBatch()
	defer b.Close()
	err = b.Delete(index, nil)
	if err == nil && s.Until < now {
		err = b.Delete(memoryKey(key), nil)
		if err == nil && s.Effect != 0 {
			err = b.Delete(effectKey(s.Effect), nil)
		}
	}
	if err != nil {
		return err
	}
	return b.Commit(pebble.NoSync) // forgetting again after a crash is harmless
}

// stored is a Memory with what the ledger itself notes.
type stored struct {
	Memory
	Lock   string `json:"lock,omitempty"`   // if it is not the key itself
	Effect uint64 `json:"effect,omitempty"` // its order number in the log
}

func (l *Pebble) read(r pebble.Reader, key string) (stored, error) {
	var s stored
	v, closer, err := r.Get(memoryKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer closer.Close()
	if err := json.Unmarshal(v, &s); err != nil {
		return stored{}, fmt.Errorf("memory of %q: %w", key, err)
	}
	return s, nil
}

// Effects implements EffectLog.
func (l *Pebble) Effects(fn func(Effect) error) error {
	release, err := l.use()
	if err != nil {
		return err
	}
	defer release()
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'e'}, UpperBound: []byte{'e' + 1}})
	if err != nil {
		return fmt.Errorf("participant's ledger %s: %w", l.dir, err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		var e Effect
		if err := json.Unmarshal(it.Value(), &e); err != nil {
			return fmt.Errorf("participant's ledger %s: effect %x: %w", l.dir, it.Key(), err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return it.Error()
}

func memoryKey(key string) []byte { return append([]byte{'k'}, key...) }

func effectKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'e'}, n) }

func untilKey(until int64, key string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{'u'}, uint64(max(until, 0))), key...)
}

type pebbleTx struct {
	ledger  *Pebble
	lock    string
	batch   *pebble.Batch
	effects []Effect
	ended   bool
}

func (t *pebbleTx) Lookup(key string) (Memory, error) {
	if t.ended {
		return Memory{}, errEnded
	}
	release, err := t.ledger.use()
	if err != nil {
		return Memory{}, err
	}
	defer release()
	s, err := t.ledger.read(t.batch, key)
	if err != nil {
		return Memory{}, fmt.Errorf("participant's ledger %s: %w", t.ledger.dir, err)
	}
	return s.Memory, nil
}

func (t *pebbleTx) Remember(key string, m Memory) error {
	if t.ended {
		return errEnded
	}
	release, err := t.ledger.use()
	if err != nil {
		return err
	}
	defer release()
	old, err := t.ledger.read(t.batch, key)
	if err == nil {
		err = t.put(key, stored{Memory: m, Effect: old.Effect})
	}
	if err == nil && old.Until != m.Until {
		if old.Until != 0 {
			err = t.batch.Delete(untilKey(old.Until, key), nil)
		}
		if err == nil {
			err = t.batch.Set(untilKey(m.Until, key), nil, nil)
		}
	}
	if err != nil {
		return fmt.Errorf("participant's ledger %s: %w", t.ledger.dir, err)
	}
	return nil
}

func (t *pebbleTx) put(key string, s stored) error {
	if key != t.lock {
		s.Lock = t.lock
	}
	v, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return t.batch.Set(memoryKey(key), v, nil)
}

func (t *pebbleTx) Applied(e Effect) error {
	if t.ended {
		return errEnded
	}
	t.effects = append(t.effects, e)
	return nil
}

func (t *pebbleTx) Commit() error {
	if t.ended {
		return errEnded
	}
	defer t.Rollback()
	release, err := t.ledger.use()
	if err != nil {
		return err
	}
	defer release()
	if t.batch.Empty() && len(t.effects) == 0 {
		return nil
	}
	if err := t.apply(); err != nil {
		return fmt.Errorf("participant's ledger %s: %w", t.ledger.dir, err)
	}
	if err := t.batch.SyncWait(); err != nil {
		return fmt.Errorf("participant's ledger %s: %w", t.ledger.dir, err)
	}
	return nil
}

func (t *pebbleTx) apply() error {
	l := t.ledger
	l.applying.Lock()
	defer l.applying.Unlock()
	n := l.order
	for _, e := range t.effects {
		n++
		e.Order = n
		v, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := t.batch.Set(effectKey(n), v, nil); err != nil {
			return err
		}
		s, err := l.read(t.batch, e.IdempotencyKey)
		if err != nil {
			return err
		}
		s.Effect = n
		if err := t.put(e.IdempotencyKey, s); err != nil {
			return err
		}
	}
	if n != l.order {
		if err := t.batch.Set(counterKey, binary.BigEndian.AppendUint64(nil, n), nil); err != nil {
			return err
		}
	}
	if err := l.db.ApplyNoSyncWait(t.batch, pebble.Sync); err != nil {
		return err
	}
	l.order = n
	return nil
}

func (t *pebbleTx) Rollback() {
	if !t.ended {
		t.ended = true
		_ = t.batch.Close()
		t.ledger.locks.unlock(t.lock)
	}
}

// quiet drops Pebble's chatter; what matters comes back as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("participant's ledger: "+format, args...))
}
