package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/internal/mutant"
)

// Options are the parts of a store that belong to the node, or to a test.
type Options struct {
	// Cache is the node's block cache, shared by its shards; nil: 8 MiB of the store's own. The store takes a
	// reference of its own and gives it back in Close.
	Cache *pebble.Cache
	// MemTableBytes bounds the memory for what is not yet in files, in bytes: a write that would exceed it
	// waits for the disk. 0: 16 MiB; at least 1 MiB, at most 4 GiB. Pebble takes it out of the cache, which
	// should therefore be larger than the sum of these.
	MemTableBytes int64
	// Logger gets Pebble's troubles; nil: none.
	Logger *slog.Logger
	// FS is where the directory is; nil: the operating system's.
	FS vfs.FS

	tune    func(*pebble.Options) // for tests
	minLoad int                   // likewise; 0: minLoad
}

const (
	defaultMemTableBytes = 16 << 20
	minMemTableBytes     = 1 << 20
	memTables            = 3 // of which all but one wait for being written to files
	maxOpenFiles         = 256

	// The oldest Pebble format that has a checksum over each part of each file.
	pebbleFormat = pebble.FormatTableFormatV6

	// A purge deletes that many rows one by one; a range tombstone costs every later read of its neighbours.
	pointDeletes = 256
)

// Pebble is a shard's store on disk, in a directory of its own. It is safe for concurrent use as Store says;
// Close waits for the calls that are under way.
//
// A process that dies loses the last batches of Apply, never an earlier one than it keeps: what is found
// when it is opened again is some prefix of the batches. Nothing is synced, so the same holds when the
// machine dies.
//
// When a write to the disk fails (it is full, or broken), the store has failed: nothing reaches the disk any
// more, and every call but Close returns the first failure. So it is when Pebble panics. A failed store ought to
// be closed; what it left on disk may be opened again, as after a crash. It is not said to be corrupt.
type Pebble struct {
	dir  string
	log  *slog.Logger
	db   *pebble.DB
	fs   *freezer
	lock *pebble.Lock

	tableOptions sstable.WriterOptions
	minLoad      int
	loading      atomic.Bool // the last change was a table: compactions wait, for each would rewrite what the last one wrote
	unflushed    bool        // something was applied that may be in memory and in the log alone; of the goroutine that applies

	failure atomic.Pointer[error] // the first one

	mu     sync.Mutex
	idle   sync.Cond // users == 0
	users  int       // calls under way
	closed bool
	stuck  bool // Pebble panicked and may hold its locks for ever: it cannot be closed

	// No timer is due before earliest. Fired timers leave tombstones at the front of the index; without the
	// hint every look at the next timer would walk over all that were not yet compacted away.
	hint struct {
		sync.Mutex
		earliest int64
		changes  uint64 // applied batches: a look that began before one may not raise earliest
	}
}

var _ Store = (*Pebble)(nil)

// OpenPebble opens the store in dir, and makes it when there is none. The directory must be this store's
// alone. Errors wrap ErrCorrupt when the content cannot be trusted (Destroy it and rebuild), among them a
// *NewerError; ErrLocked when it is in use; others come from the file system as they are.
func OpenPebble(dir string, opts Options) (*Pebble, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	p := &Pebble{dir: dir, log: opts.Logger}
	p.idle.L = &p.mu
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.fs = &freezer{FS: opts.FS, onFail: p.fail}
	if err := opts.FS.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	lock, err := lockDir(opts.FS, dir)
	if err != nil {
		return nil, err
	}
	p.lock = lock
	if err := p.open(opts); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := p.checkFormat(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func lockDir(on vfs.FS, dir string) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(dir, on)
	if err == nil {
		return lock, nil
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return nil, fmt.Errorf("store %s: %w, by this process or another one: %w", dir, ErrLocked, err)
}

func (p *Pebble) open(opts Options) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.fs.freeze()
			err = fmt.Errorf("store %s: %w: Pebble panicked on opening it: %v", p.dir, ErrCorrupt, r)
		}
	}()
	if err := p.inspect(opts.FS); err != nil {
		return err
	}
	if err := p.removeLoad(opts.FS); err != nil {
		return p.explain("open", err)
	}
	options := p.pebbleOptions(opts)
	db, err := pebble.Open(p.dir, options)
	if failure := p.failed(); failure != nil {
		if db != nil {
			_ = db.Close()
		}
		return failure
	}
	if err != nil {
		// What Pebble cannot read in a file of its own, its options among them, is damaged: nobody else writes there. Such a
		// store would never open again.
		if !ofFileSystem(err) && !mutant.On("store-damaged-options-block") {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return p.explain("open", err)
	}
	p.db, p.unflushed = db, true
	p.tableOptions, p.minLoad = tableOptions(options, db), opts.minLoad
	if p.minLoad == 0 {
		p.minLoad = minLoad
	}
	return nil
}

// ofFileSystem says that an error is the operating system's: the disk is full or broken, or a file may not be opened.
func ofFileSystem(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	var errno syscall.Errno
	return errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &call) || errors.As(err, &errno)
}

// inspect looks at what Pebble would take on trust.
func (p *Pebble) inspect(on vfs.FS) error {
	desc, err := pebble.Peek(p.dir, on)
	if err != nil {
		if strings.Contains(err.Error(), "unknown format major version") {
			return &NewerError{p.dir, fmt.Sprintf("%v, this build reads up to %d", err, pebble.FormatNewest)}
		}
		return p.explain("open", err)
	}
	if !desc.Exists || mutant.On("store-trusts-manifest") {
		return nil
	}
	// Pebble takes a damaged manifest for one that ends there, and so for an older set of files, whose
	// log may be gone: rows would be missing in the middle. A kill never tears a manifest; where a loss of
	// power did, a rebuild is a small price.
	file, err := on.Open(desc.ManifestFilename)
	if err != nil {
		return p.explain("open", err)
	}
	defer file.Close()
	r := record.NewReader(file, 0)
	for {
		edit, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, edit)
		} else if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("store %s: %w: %s: %w", p.dir, ErrCorrupt, desc.ManifestFilename, err)
		}
	}
}

func (p *Pebble) pebbleOptions(opts Options) *pebble.Options {
	budget := opts.MemTableBytes
	if budget == 0 {
		budget = defaultMemTableBytes
	}
	budget = min(max(budget, minMemTableBytes), 4<<30)
	o := &pebble.Options{
		Cache:                       opts.Cache,
		FS:                          p.fs,
		Lock:                        p.lock,
		Logger:                      pebbleLogger{p},
		FormatMajorVersion:          pebbleFormat,
		MemTableSize:                uint64(budget / memTables),
		MemTableStopWritesThreshold: memTables,
		// Rows are spread by the hash of their instance, so each compaction out of L0 rewrites all of the level
		// below: it had better be seldom. Those who read what is not there ask the filters.
		L0CompactionThreshold: 32,
		L0StopWritesThreshold: 1 << 20, // after a restore there are many files, which are compacted beside the shard's work
		CompactionConcurrencyRange: func() (lower, upper int) {
			if p.loading.Load() {
				return 0, 1 // as it needs to catch up: for a gigabyte, say
			}
			return 1, 1
		},
		LBaseMaxBytes: 128 << 20,
		MaxOpenFiles:  maxOpenFiles,
		EventListener: &pebble.EventListener{
			// A failed flush or compaction that could not read: Pebble tries again by itself. What could
			// not write has failed the store before.
			BackgroundError: func(err error) {
				if p.failed() == nil {
					p.log.Warn("background work of the store failed", "store", p.dir, "error", err)
					return
				}
				// Pebble tries again at once, and for ever, until somebody closes it.
				time.Sleep(50 * time.Millisecond)
			},
			// Whoever reads the damaged part gets an error of its own; the default here is to exit.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				p.fail(fmt.Errorf("store %s: %w: %s", p.dir, ErrCorrupt, info.Details))
			},
		},
	}
	o.Experimental.L0CompactionConcurrency = 1 << 20 // the number of files alone is no reason while they are being loaded
	// A start asks for an instance that is not there yet. (The lowest level's filters are not read.)
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if opts.tune != nil {
		opts.tune(o)
	}
	return o
}

// checkFormat reads the marker of the store's format, and writes it into a new store.
func (p *Pebble) checkFormat() error {
	return p.do("open", func() error {
		v, err := p.get(formatKey)
		if err != nil {
			return err
		}
		if v == nil {
			if empty, err := p.empty(); err != nil {
				return err
			} else if !empty {
				return fmt.Errorf("%w: it has rows and no format", ErrCorrupt)
			}
			return p.db.Set(formatKey, binary.AppendUvarint(nil, formatVersion), pebble.NoSync)
		}
		have, n := binary.Uvarint(v)
		if n <= 0 || have == 0 {
			return fmt.Errorf("%w: its format %x is unreadable", ErrCorrupt, v)
		}
		if have > formatVersion {
			return &NewerError{p.dir, fmt.Sprintf("format %d, this build reads up to %d", have, formatVersion)}
		}
		return nil
	})
}

func (p *Pebble) empty() (bool, error) {
	it, err := p.db.NewIter(nil)
	if err != nil {
		return false, err
	}
	found := it.First()
	return !found, it.Close()
}

// Destroy removes the store in dir with all that it holds, and its directory. The error wraps ErrLocked
// when the store is in use. A directory that does not exist is no error.
func Destroy(dir string) error { return destroy(vfs.Default, dir) }

func destroy(on vfs.FS, dir string) error {
	if _, err := on.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := lockDir(on, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(on.RemoveAll(dir), lock.Close()); err != nil {
		return fmt.Errorf("store %s: cannot remove it: %w", dir, err)
	}
	return nil
}

// fail records the first failure, and keeps the disk as it is.
func (p *Pebble) fail(err error) {
	first := p.failure.CompareAndSwap(nil, &err)
	p.fs.freeze()
	if first {
		p.log.Error("the store failed", "store", p.dir, "error", err)
	}
}

func (p *Pebble) failed() error {
	if f := p.failure.Load(); f != nil {
		return fmt.Errorf("store %s failed: %w", p.dir, *f)
	}
	return nil
}

// explain names the store in an error of Pebble's, and says whether the content is in doubt: a file that is
// gone is as bad as a damaged one.
func (p *Pebble) explain(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("store %s: %s: %w", p.dir, op, err)
	case pebble.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("store %s: %s: %w: %w", p.dir, op, ErrCorrupt, err)
	}
	return fmt.Errorf("store %s: %s: %w", p.dir, op, err)
}

// do runs a call: not after Close, not after a failure, and with a panic of Pebble's as an error. Those of
// a callback go on.
func (p *Pebble) do(op string, fn func() error) (err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return fmt.Errorf("store %s: %s: %w", p.dir, op, errClosed)
	}
	p.users++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		if p.users--; p.users == 0 {
			p.idle.Broadcast()
		}
		p.mu.Unlock()
	}()
	if err := p.failed(); err != nil {
		return err
	}
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if c, ok := r.(callbackPanic); ok {
			panic(c.value)
		}
		p.mu.Lock()
		p.stuck = true
		p.mu.Unlock()
		p.fail(fmt.Errorf("%s: %w: Pebble panicked: %v\n%s", op, ErrCorrupt, r, debug.Stack()))
		err = p.failed()
	}()
	err = fn()
	if failure := p.failed(); failure != nil {
		return failure
	}
	return p.explain(op, err)
}

// callbackPanic is the panic of a callback on its way to the one who gave it.
type callbackPanic struct{ value any }

func callback[T any](fn func(T) bool) func(T) bool {
	return func(v T) bool {
		defer func() {
			if r := recover(); r != nil {
				panic(callbackPanic{r})
			}
		}()
		return fn(v)
	}
}

// get copies a value; nil when there is none.
func (p *Pebble) get(key []byte) ([]byte, error) { return get(p.db, key) }

func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte{}, v...)
	return v, closer.Close()
}

// State is Store's.
func (p *Pebble) State() (state []byte, err error) {
	err = p.do("state", func() error {
		state, err = p.get(stateKey)
		return err
	})
	return state, err
}

// Get is Store's. A value that cannot be read gives ErrCorrupt, naming the key in hexadecimal digits.
func (p *Pebble) Get(key []byte) (row Row, ok bool, err error) {
	if !logical(key) {
		return Row{}, false, nil
	}
	err = p.do("get", func() error {
		v, err := p.get(key)
		if err != nil || v == nil {
			return err
		}
		row, err = parseRow(bytes.Clone(key), v)
		ok = err == nil
		return err
	})
	return row, ok && err == nil, err
}

// Scan is Store's.
func (p *Pebble) Scan(from, to []byte, fn func(Row) bool) error {
	return p.do("scan", func() error { return scan(p.db, from, to, callback(fn)) })
}

func scan(r pebble.Reader, from, to []byte, fn func(Row) bool) (err error) {
	if to != nil && bytes.Compare(from, to) >= 0 {
		return nil
	}
	if len(from) == 0 {
		from = nil // Pebble does not take an empty bound for none
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; {
		if !logical(it.Key()) {
			ok = it.SeekGE(holeTo)
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		row, err := parseRow(it.Key(), v)
		if err != nil {
			return err
		}
		if !fn(row) {
			return nil
		}
		ok = it.Next()
	}
	return it.Error()
}

// Due is Store's.
func (p *Pebble) Due(until int64, fn func(Timer) bool) error {
	return p.do("due", func() error {
		return p.timers(until, callback(fn))
	})
}

func (p *Pebble) timers(until int64, fn func(Timer) bool) (err error) {
	p.hint.Lock()
	earliest, changes := p.hint.earliest, p.hint.changes
	p.hint.Unlock()
	if until < earliest {
		return nil
	}
	to := timersTo
	if until < math.MaxInt64 {
		to = appendTimerKey(nil, until+1, nil)
	}
	it, err := p.db.NewIter(&pebble.IterOptions{LowerBound: appendTimerKey(nil, earliest, nil), UpperBound: to})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	first := true
	for ok := it.First(); ok; ok = it.Next() {
		t, err := parseTimerKey(it.Key())
		if err != nil {
			return err
		}
		if first {
			p.raiseHint(t.Due, changes)
			first = false
		}
		if !fn(t) {
			return nil
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if first && until < math.MaxInt64 {
		p.raiseHint(until+1, changes)
	}
	return nil
}

func (p *Pebble) raiseHint(due int64, changes uint64) {
	p.hint.Lock()
	defer p.hint.Unlock()
	if p.hint.changes == changes {
		p.hint.earliest = max(p.hint.earliest, due)
	}
}

// lowerHint is called before a batch is applied, so that its timers are seen at once, and after it, so that
// no look that began in between raises the hint above them.
func (p *Pebble) lowerHint(due int64) {
	p.hint.Lock()
	defer p.hint.Unlock()
	p.hint.changes++
	if !mutant.On("store-hint-not-lowered") {
		p.hint.earliest = min(p.hint.earliest, due)
	}
}

// NextDue is Store's.
func (p *Pebble) NextDue() (due int64, err error) {
	err = p.do("next due", func() error {
		return p.timers(math.MaxInt64, func(t Timer) bool {
			due = t.Due
			return false
		})
	})
	if err != nil {
		return 0, err
	}
	return due, nil
}

// Apply is Store's. After an error of the disk's, or of Pebble's, the batch may be on the disk or not, and the
// store has failed: there is nothing to be read from it until it is opened anew.
func (p *Pebble) Apply(b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	return p.do("apply", func() error {
		batch := p.db.NewBatch()
		defer batch.Close()
		if b.State != nil {
			if err := batch.Set(stateKey, b.State, nil); err != nil {
				return err
			}
			if mutant.On("store-state-outside-batch") {
				if err := p.db.Apply(batch, pebble.NoSync); err != nil {
					return err
				}
				batch = p.db.NewBatch()
			}
		}
		earliest, err := p.fill(batch, b.Ops)
		if err != nil {
			return err
		}
		p.lowerHint(earliest)
		defer p.lowerHint(earliest)
		p.unflushed = true
		if err := p.db.Apply(batch, pebble.NoSync); err != nil || !p.loading.Swap(false) {
			return err
		}
		_, err = p.db.AsyncFlush() // Pebble asks how many compactions there may be when its files change
		return err
	})
}

// fill turns ops into Pebble's, and gives the earliest due time among them.
func (p *Pebble) fill(batch *pebble.Batch, ops []Op) (earliest int64, err error) {
	earliest = math.MaxInt64
	var timer, value []byte
	for i := range ops {
		op := &ops[i]
		if op.To != nil {
			if err := p.deleteRange(batch, op.Key, op.To, ops[:i]); err != nil {
				return 0, err
			}
			continue
		}
		if op.Gone {
			err = batch.Delete(op.Key, nil)
		} else {
			value = appendValue(value[:0], op)
			err = batch.Set(op.Key, value, nil)
		}
		if err != nil {
			return 0, err
		}
		if op.WasDue > 0 && (op.Gone || op.WasDue != op.Due) && !mutant.On("store-timer-kept") {
			timer = appendTimerKey(timer[:0], op.WasDue, op.Key)
			if err := batch.Delete(timer, nil); err != nil {
				return 0, err
			}
		}
		// Also when it did not change: a row carried into a store that never saw it says so too.
		if op.Due != 0 && !op.Gone {
			timer = appendTimerKey(timer[:0], op.Due, op.Key)
			if err := batch.Set(timer, nil, nil); err != nil {
				return 0, err
			}
			earliest = min(earliest, op.Due)
		}
	}
	return earliest, nil
}

// deleteRange deletes the rows in the range and their timers: those in the database, and those set by the
// ops before it in the same batch.
func (p *Pebble) deleteRange(batch *pebble.Batch, from, to []byte, before []Op) error {
	var timer []byte
	n := 0
	remove := func(key []byte, due int64) error {
		if due != 0 && !mutant.On("store-range-keeps-timers") {
			timer = appendTimerKey(timer[:0], due, key)
			if err := batch.Delete(timer, nil); err != nil {
				return err
			}
		}
		if n++; n > pointDeletes {
			return nil
		}
		return batch.Delete(key, nil)
	}
	var failed error
	if err := scan(p.db, from, to, func(r Row) bool {
		failed = remove(r.Key, r.Due)
		return failed == nil
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	for i := range before {
		if op := &before[i]; op.To == nil && !op.Gone && inRange(op.Key, from, to) {
			if err := remove(op.Key, op.Due); err != nil {
				return err
			}
		}
	}
	if n <= pointDeletes {
		return nil
	}
	for _, part := range [2][2][]byte{{from, least(to, holeFrom)}, {most(from, holeTo), to}} {
		if bytes.Compare(part[0], part[1]) < 0 {
			if err := batch.DeleteRange(part[0], part[1], nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func least(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}

func most(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return b
	}
	return a
}

// Snapshot is Store's. It fails with the store, and has to be closed before it.
func (p *Pebble) Snapshot() (Snapshot, error) {
	s := &pebbleSnapshot{p: p}
	if err := p.do("snapshot", func() error {
		s.snap = p.db.NewSnapshot()
		return nil
	}); err != nil {
		return nil, err
	}
	return s, nil
}

type pebbleSnapshot struct {
	p      *Pebble
	snap   *pebble.Snapshot
	closed atomic.Bool
}

func (s *pebbleSnapshot) do(op string, fn func() error) error {
	if s.closed.Load() {
		return fmt.Errorf("store %s: %s: the snapshot is closed", s.p.dir, op)
	}
	return s.p.do(op, fn)
}

func (s *pebbleSnapshot) State() (state []byte, err error) {
	err = s.do("state", func() error {
		state, err = get(s.snap, stateKey)
		return err
	})
	return state, err
}

func (s *pebbleSnapshot) Scan(from, to []byte, fn func(Row) bool) error {
	return s.do("scan", func() error { return scan(s.snap, from, to, callback(fn)) })
}

func (s *pebbleSnapshot) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	// One that comes after the store's own end finds nothing to give back.
	_ = s.p.do("close snapshot", s.snap.Close)
	return nil
}

// Size is how much the store takes up on disk, in bytes, and Memory how much in memory beside the shared
// cache's blocks. Both are 0 once the store has failed or is closed.
func (p *Pebble) Size() int64 {
	return p.metric(func(m *pebble.Metrics) int64 { return int64(m.DiskSpaceUsage()) })
}

// Memory is described at Size.
func (p *Pebble) Memory() int64 {
	return p.metric(func(m *pebble.Metrics) int64 {
		return int64(m.MemTable.Size+m.MemTable.ZombieSize) + m.FileCache.Size
	})
}

func (p *Pebble) metric(of func(*pebble.Metrics) int64) (n int64) {
	_ = p.do("metrics", func() error {
		n = of(p.db.Metrics())
		return nil
	})
	return n
}

// Close ends the use of the store, after the calls under way, and gives its directory free. Closing it again does
// nothing. A store that had failed is closed without an error: whoever used it was told. One that fails in closing says
// so; it is still a prefix of what was applied.
func (p *Pebble) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	for p.users > 0 {
		p.idle.Wait()
	}
	stuck := p.stuck
	p.mu.Unlock()

	told := p.failed() != nil
	var err error
	if !stuck {
		err, stuck = p.closeDB()
	}
	if stuck {
		// It stays behind, frozen, so that it does no harm to those who come after; and so does the
		// reference to the lock that it holds.
		p.fs.freeze()
		_ = p.lock.Close()
	}
	if told {
		err = nil
	} else if failure := p.failed(); failure != nil {
		err = failure
	}
	return errors.Join(p.explain("close", err), p.lock.Close())
}

func (p *Pebble) closeDB() (err error, panicked bool) {
	defer func() {
		if r := recover(); r != nil {
			err, panicked = fmt.Errorf("Pebble panicked: %v", r), true
		}
	}()
	return p.db.Close(), false
}

// pebbleLogger takes what Pebble says. Its own default for Fatalf is to exit.
type pebbleLogger struct{ p *Pebble }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	if l.p.failed() == nil {
		l.p.log.Warn("Pebble: "+fmt.Sprintf(format, args...), "store", l.p.dir)
	}
}

// Fatalf fails the store and returns: Pebble's callers of it go on with an error, or with something that
// the frozen disk does not see.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.p.fail(fmt.Errorf("%w: Pebble gave up: "+format, append([]any{ErrCorrupt}, args...)...))
}
