package store_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/orchestrator/store/storetest"
)

// loading is a store whose batches are loads.
type loading struct {
	store.Store
	changes *store.Changes
}

func (l loading) Apply(b *store.Batch) error { return loadBatch(l.Store, l.changes, b) }

func loadBatch(s store.Store, c *store.Changes, b *store.Batch) error {
	defer c.Reset()
	for i := range b.Ops {
		switch op := &b.Ops[i]; {
		case op.To != nil:
			c.DeleteRange(op.Key, op.To)
		case op.Gone:
			c.Delete(op.Key, op.WasDue, op.Base)
		default:
			key, value := bytes.Clone(op.Key), bytes.Clone(op.Value)
			c.Set(key, op.Due, op.WasDue, value, op.Base)
			clear(key) // it is the caller's again
			clear(value)
		}
	}
	return s.Load(c, b.State)
}

func TestMemoryLoadsAsItApplies(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return loading{store.NewMemory(), &store.Changes{}} })
}

func TestPebbleLoadsAsItApplies(t *testing.T) {
	for what, o := range map[string]store.Options{"few": {}, "in tables": store.WithSmallLoads(store.Options{})} {
		t.Run(what, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				o := o
				o.FS = vfs.NewMem()
				return loading{open(t, "shard", o), &store.Changes{}}
			})
			storetest.RunDurable(t, func(t *testing.T, dir string) store.Store {
				return loading{open(t, dir, o), &store.Changes{}}
			})
		})
	}
}

// Loads and batches follow each other as they come.
func TestLoadsAndBatchesTakeTurns(t *testing.T) {
	s := open(t, "shard", store.WithSmallLoads(store.Options{FS: vfs.NewMem(), MemTableBytes: 1}))
	r := rand.New(rand.NewPCG(3, 4))
	m := storetest.NewModel()
	var c store.Changes
	for i := range 300 {
		b := m.Random(r)
		var err error
		if r.IntN(2) == 0 {
			err = s.Apply(b)
		} else {
			err = loadBatch(s, &c, b)
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			m.Check(t, s)
		}
	}
	m.Check(t, s)
}

// What a load would rewrite is left to one compaction, behind the last of them.
func TestCompactionsWaitForTheEndOfTheLoads(t *testing.T) {
	s := open(t, "shard", store.WithSmallLoads(store.Options{FS: vfs.NewMem()}))
	var c store.Changes
	for i := range 40 {
		for j := range 100 {
			c.Set(storetest.Key(j, 0), 0, 0, []byte{byte(i)}, uint64(i))
		}
		if err := s.Load(&c, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		c.Reset()
	}
	if n := store.Compactions(s); n != 0 {
		t.Errorf("%d compactions between the loads", n)
	}
	storetest.Apply(t, s, func(b *store.Batch) { b.Set(storetest.Key(0, 0), 0, 0, []byte("end"), 40) })
	store.AwaitCompaction(s)
	if rows := storetest.Rows(t, s, nil, nil); len(rows) != 100 || string(rows[0].Value) != "end" || rows[1].Value[0] != 39 {
		t.Errorf("%d rows, the first two %v", len(rows), rows[:min(2, len(rows))])
	}
}

// A process that dies in writing a table leaves a part of it behind.
func TestATableThatWasNotTakenInIsRemoved(t *testing.T) {
	disk := vfs.NewMem()
	open(t, "shard", store.Options{FS: disk}).Close()
	write(t, disk, "shard/load", []byte("half a table"))
	open(t, "shard", store.Options{FS: disk}).Close()
	if _, err := disk.Stat("shard/load"); err == nil {
		t.Error("it is still there")
	}
}

func TestChangesKeepTheirMemoryAndNothingElse(t *testing.T) {
	var c store.Changes
	gather := func() {
		for i := range 1000 {
			c.Set(storetest.Key(i, 1), 5, 0, bytes.Repeat([]byte{1}, 500), 1)
			c.Set(storetest.Key(i, 1), 6, 5, bytes.Repeat([]byte{2}, 400), 2)
		}
		c.DeleteRange(storetest.Key(1, 0), storetest.Key(2, 0))
	}
	gather()
	if got := c.Size(); got < 500_000 || got > 800_000 {
		t.Errorf("1,000 rows of 500 bytes take up %d", got)
	}
	c.Reset()
	if b, err := c.Batch(); c.Size() != 0 || len(b.Ops) != 0 || err != nil {
		t.Errorf("after a reset: %d bytes, %d ops (%v)", c.Size(), len(b.Ops), err)
	}
	value, key := bytes.Repeat([]byte{3}, 500), storetest.Key(7, 1)
	if n := testing.AllocsPerRun(10, func() { c.Set(key, 0, 0, value, 1); c.Reset() }); n != 0 {
		t.Errorf("gathering again allocates %v times", n)
	}
}

// Pebble syncs a table that it takes in, and not what it has in memory, as long as their keys lie apart.
func TestWhatWasAppliedBeforeALoadIsOnDiskWithIt(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := open(t, "shard", store.WithSmallLoads(store.Options{FS: disk}))
	storetest.Apply(t, s, func(b *store.Batch) { b.Set(storetest.Key(9, 0), 0, 0, []byte("first"), 1) })
	var c store.Changes
	c.Set(storetest.Key(1, 0), 0, 0, []byte("then"), 2)
	if err := s.Load(&c, nil); err != nil {
		t.Fatal(err)
	}
	after := open(t, "shard", store.Options{FS: disk.CrashClone(vfs.CrashCloneCfg{})})
	if rows := storetest.Rows(t, after, nil, nil); len(rows) != 2 {
		t.Errorf("the machine died, and of two rows these are left: %v", rows)
	}
}
