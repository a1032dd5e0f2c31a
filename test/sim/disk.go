package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/orchestrator/store"
)

// disk holds the store of one shard on one node. A simulation runs on stores in memory, which pass the conformance
// suite that Pebble's pass; and the same simulation runs on Pebble over a file system in memory that loses what was not
// synced. What a store kept over a crash must not matter: both end with the same trace.
type disk interface {
	// open opens the store that is there. A store that says it is corrupt is an error.
	open() (store.Store, error)
	// apply is the store's Apply, as it is called on this disk.
	apply(store.Store, *store.Batch) error
	// load is the same of Load.
	load(to store.Store, c *store.Changes, state []byte) error
	// crash ends the process that has the store open: what it had not synced may be gone.
	crash(keep int)
	// flip changes bits of the closed store. It reports whether the store is still as it was, or says itself that it is not.
	flip() error
	// copy gives the content to another node. The store may be open.
	copy() disk
	empty() disk
}

// memory is a disk for stores in memory.
type memory struct {
	store *store.Memory
	past  []store.Snapshot // before each of the last batches, the latest last
}

const pastBatches = 4 // that a crash may lose

func (d *memory) open() (store.Store, error) {
	if d.store == nil {
		d.store = store.NewMemory()
	}
	return d.store, nil
}

func (d *memory) apply(to store.Store, b *store.Batch) error {
	if err := d.remember(); err != nil {
		return err
	}
	return to.Apply(b)
}

func (d *memory) load(to store.Store, c *store.Changes, state []byte) error {
	if err := d.remember(); err != nil {
		return err
	}
	return to.Load(c, state)
}

// remember keeps what a crash may go back to.
func (d *memory) remember() error {
	snap, err := d.store.Snapshot()
	if err != nil {
		return err
	}
	if len(d.past) == pastBatches {
		copy(d.past, d.past[1:])
		d.past = d.past[:pastBatches-1]
	}
	d.past = append(d.past, snap)
	return nil
}

func (d *memory) crash(lose int) {
	if n := len(d.past); lose > 0 && n > 0 {
		d.store = restored(d.past[max(n-lose, 0)])
	}
	d.past = nil
}

// flip is noticed: every part of a store has a checksum.
func (d *memory) flip() error {
	if d.store == nil {
		return nil
	}
	return store.ErrCorrupt
}

func (d *memory) copy() disk {
	if d.store == nil {
		return &memory{}
	}
	snap, err := d.store.Snapshot()
	if err != nil {
		panic(err)
	}
	return &memory{store: restored(snap)}
}

func (d *memory) empty() disk { return &memory{} }

// restored is a store with the content of a snapshot.
func restored(from store.Snapshot) *store.Memory {
	state, err := from.State()
	if err != nil {
		panic(err)
	}
	b := store.Batch{State: state}
	if err := from.Scan(nil, nil, func(r store.Row) bool {
		b.Set(bytes.Clone(r.Key), r.Due, 0, bytes.Clone(r.Value), r.Base)
		return true
	}); err != nil {
		panic(err)
	}
	to := store.NewMemory()
	if err := to.Apply(&b); err != nil {
		panic(err)
	}
	return to
}

// files is a disk for Pebble.
type files struct {
	fs  *vfs.MemFS
	at  *store.Pebble // nil: closed
	rng *rand.Rand    // of what a crash keeps: it decides nothing else
}

const storeDir = "store"

// pebbles gives disks whose crashes a seed decides.
func pebbles(seed uint64) disk {
	return &files{fs: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 99))}
}

func (d *files) open() (store.Store, error) {
	if d.at != nil {
		return nil, fmt.Errorf("%s is open", storeDir)
	}
	p, err := store.OpenPebble(storeDir, store.Options{FS: d.fs, MemTableBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	d.at = p
	return sizeless{p}, nil
}

// sizeless hides what Pebble says of its size, so that compaction rounds begin when they do without it.
type sizeless struct{ store.Store }

func (d *files) apply(to store.Store, b *store.Batch) error { return to.Apply(b) }

func (d *files) load(to store.Store, c *store.Changes, state []byte) error { return to.Load(c, state) }

func (d *files) crash(lose int) {
	if d.at == nil {
		return
	}
	keep := 100
	if lose > 0 {
		keep = 25 * (pastBatches - lose)
	}
	left := d.clone(keep)
	_ = d.at.Close() // on the file system that nobody looks at any more
	d.fs, d.at = left, nil
}

func (d *files) clone(percent int) *vfs.MemFS {
	pcg := d.rng.Uint64()
	return d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(pcg, 1))})
}

// flip changes a few bytes of one file, and looks whether the store notices when all of it is read.
func (d *files) flip() error {
	names, err := d.fs.List(storeDir)
	if err != nil || len(names) == 0 {
		return nil
	}
	name := d.fs.PathJoin(storeDir, names[d.rng.IntN(len(names))])
	f, err := d.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil // a folder
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		at, b := d.rng.Int64N(info.Size()), make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			return err
		}
		b[0] ^= 1 << d.rng.IntN(8)
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	p, err := store.OpenPebble(storeDir, store.Options{FS: d.fs, MemTableBytes: 1 << 20})
	if err != nil {
		return err
	}
	_, err = p.State()
	if err == nil {
		err = p.Scan(nil, nil, func(store.Row) bool { return true })
	}
	if err == nil {
		err = p.Due(1<<62, func(store.Timer) bool { return true })
	}
	if cerr := p.Close(); err == nil {
		err = cerr
	}
	return err
}

func (d *files) copy() disk {
	return &files{fs: d.clone(100), rng: rand.New(rand.NewPCG(d.rng.Uint64(), 2))}
}

func (d *files) empty() disk {
	return &files{fs: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(d.rng.Uint64(), 3))}
}
