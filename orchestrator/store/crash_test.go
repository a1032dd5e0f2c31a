package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/orchestrator/store/storetest"
)

// history is what a store was told, batch by batch; the state row names the batch.
type history struct {
	models []*storetest.Model // by number of batches applied
	rand   *rand.Rand
	loads  bool // every third batch is a load
}

func (h *history) apply(s store.Store, b *store.Batch) error {
	if h.loads && len(h.models)%3 == 0 {
		return loadBatch(s, &store.Changes{}, b)
	}
	return s.Apply(b)
}

func newHistory(seed uint64) *history {
	return &history{models: []*storetest.Model{storetest.NewModel()}, rand: rand.New(rand.NewPCG(seed, 0))}
}

func (h *history) next() *store.Batch {
	m := h.models[len(h.models)-1].Clone()
	b := m.Random(h.rand)
	h.models = append(h.models, m)
	return b
}

// check says whether s holds exactly some prefix of the batches, and which.
func (h *history) check(s store.Store) (n int, err error) {
	state, err := s.State()
	if err != nil {
		return 0, err
	}
	if state != nil {
		if n, err = strconv.Atoi(string(state)); err != nil {
			return 0, err
		}
	}
	if n >= len(h.models) {
		return n, fmt.Errorf("the state speaks of batch %d of %d", n, len(h.models)-1)
	}
	if err := h.models[n].Diff(s); err != nil {
		return n, fmt.Errorf("the state says %d batches, but %w", n, err)
	}
	return n, nil
}

func (h *history) reopen(t *testing.T, on vfs.FS, what string) int {
	t.Helper()
	s, err := store.OpenPebble("shard", store.Options{FS: on, MemTableBytes: 1})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	n, err := h.check(s)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return n
}

// large makes memtables fill up, so that files are written, compacted and removed.
func large(b *store.Batch, i int) *store.Batch {
	b.Set(storetest.Key(100+i%8, 0), 0, 0, bytes.Repeat([]byte{byte(i)}, 50<<10), uint64(i))
	return b
}

func (h *history) nextLarge() *store.Batch {
	b := h.next()
	i := len(h.models) - 1
	large(b, i)
	op := b.Ops[len(b.Ops)-1]
	h.models[i].Rows[string(op.Key)] = store.Row{Key: op.Key, Value: op.Value, Base: op.Base}
	return b
}

// A machine that dies keeps what was synced, and any part of what was not.
func TestAMachineThatCrashesKeepsAPrefix(t *testing.T) {
	for i := range 8 {
		percent, loads := []int{0, 30, 70, 100}[i/2], i%2 == 1
		t.Run(fmt.Sprintf("of what was not synced %d%% survive, with loads: %v", percent, loads), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			h := newHistory(uint64(percent))
			h.loads = loads
			var mu sync.Mutex
			var crashes []*vfs.MemFS
			ops, every := 0, 17
			// The crash comes before any operation on any file, also in the middle of a flush.
			s := open(t, "shard", store.WithSmallLoads(store.Options{MemTableBytes: 1, FS: errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if ops++; ops%every == 0 && len(crashes) < 25 {
					crashes = append(crashes, disk.CrashClone(vfs.CrashCloneCfg{
						UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(ops), 0))}))
				}
				return nil
			}))}))
			for range 120 {
				if err := h.apply(s, h.nextLarge()); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			last := 0
			for i, c := range crashes {
				if tornManifest(c) && percent != 0 && percent != 100 {
					continue // refused, as it should be: one part of an edit survived and another did not
				}
				last = h.reopen(t, c, fmt.Sprintf("crash %d", i))
			}
			if len(crashes) < 8 || last == 0 {
				t.Fatalf("%d crashes, the last one after %d batches: too few to prove anything", len(crashes), last)
			}
			if n := h.reopen(t, disk, "closed"); n != 120 {
				t.Fatalf("closed in order after 120 batches, found %d", n)
			}
		})
	}
}

func tornManifest(disk *vfs.MemFS) bool {
	s, err := store.OpenPebble("shard", store.Options{FS: disk})
	if err == nil {
		s.Close()
	}
	return errors.Is(err, store.ErrCorrupt) && strings.Contains(err.Error(), "MANIFEST-")
}

// The end of the log is wherever the process was killed: between two batches, or in the middle of one.
func TestAStoreCutOffAnywhereIsAPrefix(t *testing.T) {
	disk := vfs.NewMem()
	s := open(t, "shard", store.Options{FS: disk})
	h := newHistory(5)
	for range 12 {
		if err := s.Apply(h.next()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	logs := files(t, disk, ".log")
	if len(logs) != 1 {
		t.Fatalf("logs %v, want one", logs)
	}
	whole := read(t, disk, logs[0])
	seen := map[int]bool{}
	for end := range len(whole) + 1 {
		if end%16 != 0 && end < len(whole) && end > 100 {
			continue
		}
		cut := clone(t, disk)
		write(t, cut, logs[0], whole[:end])
		seen[h.reopen(t, cut, fmt.Sprintf("cut at %d of %d", end, len(whole)))] = true
	}
	for n := range 13 {
		if !seen[n] {
			t.Errorf("no cut left %d batches", n)
		}
	}
}

// At the n-th write operation the disk is full, and stays so.
func TestADiskThatFillsUpStopsTheStore(t *testing.T) {
	t.Run("with batches", func(t *testing.T) { diskFillsUp(t, false) })
	t.Run("with loads", func(t *testing.T) { diskFillsUp(t, true) })
}

func diskFillsUp(t *testing.T, loads bool) {
	stopped := 0
	for at := int64(1); ; at += 11 {
		disk := vfs.NewMem()
		h := newHistory(uint64(at))
		h.loads = loads
		var ops atomic.Int64
		full := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpCreate, errorfs.OpLink, errorfs.OpReuseForWrite, errorfs.OpRename, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
				if ops.Add(1) >= at {
					return syscall.ENOSPC
				}
			}
			return nil
		}))
		s, err := store.OpenPebble("shard", store.WithSmallLoads(store.Options{FS: full, MemTableBytes: 1}))
		if err == nil {
			for range 60 {
				if err = h.apply(s, h.nextLarge()); err != nil {
					break
				}
			}
			if err == nil {
				err = s.Close() // what was still in memory has to be written now
			} else {
				stopped++
				wantStopped(t, s)
			}
			if err := s.Close(); err != nil {
				t.Fatalf("write %d: closing a store that had failed: %v", at, err)
			}
		}
		if err == nil && ops.Load() < at {
			break // it never got that far
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("write %d: %v, want no space left", at, err)
		}
		if errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("write %d: a full disk is not a corrupt store: %v", at, err)
		}
		h.reopen(t, disk, fmt.Sprintf("full at write %d", at))
	}
	if stopped < 10 {
		t.Fatalf("the disk filled up in %d runs: too few to prove anything", stopped)
	}
}

func wantStopped(t *testing.T, s *store.Pebble) {
	t.Helper()
	for name, call := range map[string]func() error{
		"state":    func() error { _, err := s.State(); return err },
		"get":      func() error { _, _, err := s.Get(storetest.Key(1, 1)); return err },
		"scan":     func() error { return s.Scan(nil, nil, func(store.Row) bool { return true }) },
		"due":      func() error { return s.Due(9, func(store.Timer) bool { return true }) },
		"next due": func() error { _, err := s.NextDue(); return err },
		"load":     func() error { return s.Load(&store.Changes{}, []byte("1")) },
		"apply":    func() error { return s.Apply(&store.Batch{State: []byte("1")}) },
		"snapshot": func() error { _, err := s.Snapshot(); return err },
	} {
		if call() == nil {
			t.Errorf("%s of a failed store: no error", name)
		}
	}
	if s.Size() != 0 || s.Memory() != 0 {
		t.Error("a failed store has measures")
	}
}

// A read that fails is an error of that read; rows are never left out.
func TestADiskThatCannotBeReadGivesErrorsNotRows(t *testing.T) {
	disk := vfs.NewMem()
	h := newHistory(9)
	fill(t, disk, h, 60)
	failed, whole := 0, 0
	for at := int64(1); at < 120; at++ {
		var ops atomic.Int64
		bad := errorfs.Wrap(clone(t, disk), errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpOpen, errorfs.OpFileRead, errorfs.OpFileReadAt:
				if ops.Add(1) >= at {
					return syscall.EIO
				}
			}
			return nil
		}))
		s, err := store.OpenPebble("shard", store.Options{FS: bad, MemTableBytes: 1})
		if err == nil {
			_, err = h.check(s)
			s.Close()
		}
		switch {
		case err == nil:
			whole++
		case errors.Is(err, syscall.EIO):
			failed++
		default:
			t.Fatalf("read %d: %v", at, err)
		}
	}
	if failed < 10 {
		t.Fatalf("%d failed, %d did not: too few to prove anything", failed, whole)
	}
}

// fill leaves a store with tables, after many batches on several levels, and a log.
func fill(t *testing.T, disk *vfs.MemFS, h *history, batches int) {
	t.Helper()
	s, err := store.OpenPebble("shard", store.WithSmallLoads(store.Options{FS: disk, MemTableBytes: 1}))
	if err != nil {
		t.Fatal(err)
	}
	for range batches {
		if err := h.apply(s, h.nextLarge()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// One bit is wrong, anywhere: the store does not open, or does not read, or is a prefix. It is never another.
func TestADamagedStoreIsNoticed(t *testing.T) {
	noticed := map[string]int{}
	t.Run("one that was closed", func(t *testing.T) {
		disk, h := vfs.NewMem(), newHistory(11)
		fill(t, disk, h, 60)
		damage(t, disk, h, noticed)
	})
	t.Run("one that was loaded", func(t *testing.T) {
		disk, h := vfs.NewMem(), newHistory(14)
		h.loads = true
		fill(t, disk, h, 30)
		damage(t, disk, h, noticed)
	})
	t.Run("one that was killed with several logs to be replayed", func(t *testing.T) {
		disk, h := vfs.NewCrashableMem(), newHistory(12)
		release := make(chan struct{})
		slow := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
				<-release
			}
			return nil
		}))
		s := open(t, "shard", store.Options{FS: slow, MemTableBytes: 1})
		for range 12 {
			if err := s.Apply(h.nextLarge()); err != nil {
				t.Fatal(err)
			}
		}
		killed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		close(release)
		if logs := files(t, killed, ".log"); len(logs) < 3 {
			t.Fatalf("logs %v: too few to prove anything", logs)
		}
		damage(t, killed, h, noticed)
	})
	t.Logf("noticed: %v", noticed)
	for _, kind := range []string{"sst", "log", "MANIFEST"} {
		if noticed[kind] == 0 {
			t.Errorf("no damage to any %s was noticed: too little to prove anything", kind)
		}
	}
}

func damage(t *testing.T, disk *vfs.MemFS, h *history, noticed map[string]int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	for _, name := range files(t, disk, "") {
		whole := read(t, disk, name)
		kind, _, _ := strings.Cut(filepath.Base(name), "-")
		if _, ext, ok := strings.Cut(kind, "."); ok {
			kind = ext
		}
		bits := len(whole) * 8
		n := 20
		if kind == "log" {
			n = 4 // Pebble looks for the bit, which takes it a while
		}
		for i := range min(bits, n) {
			bit := r.IntN(bits)
			if i%3 == 0 { // indexes and footers
				bit = bits - 1 - r.IntN(min(bits, 4000))
			}
			damaged := clone(t, disk)
			flipped := bytes.Clone(whole)
			flipped[bit/8] ^= 1 << (bit % 8)
			write(t, damaged, name, flipped)
			s, err := store.OpenPebble("shard", store.Options{FS: damaged, MemTableBytes: 1})
			if err == nil {
				_, err = h.check(s)
				s.Close()
			}
			switch {
			case err == nil:
			case errors.Is(err, store.ErrCorrupt):
				noticed[kind]++
			default:
				t.Errorf("%s, bit %d of byte %d of %d: %v", name, bit%8, bit/8, len(whole), err)
			}
		}
	}
}

// A manifest that is damaged in the middle is, for Pebble, a shorter one: it would take the files of back then,
// and of the logs that followed those that were not used again.
func TestADamagedManifestIsNoticed(t *testing.T) {
	disk, h := vfs.NewMem(), newHistory(13)
	s := open(t, "shard", store.WithoutCompactions(store.Options{FS: disk}))
	var second string // the log of the second batch: it must be gone, used again for a later one
	for n := 0; ; n++ {
		if err := errors.Join(s.Apply(h.nextLarge()), store.Flush(s)); err != nil {
			t.Fatal(err)
		}
		logs := files(t, disk, ".log")
		if n == 0 {
			second = logs[len(logs)-1]
		} else if !slices.Contains(logs, second) {
			break
		} else if n == 100 {
			t.Fatalf("%s is never used again: %v", second, logs)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	manifests := files(t, disk, "MANIFEST-000001")
	if len(manifests) == 0 {
		t.Fatalf("no manifest in %v", files(t, disk, ""))
	}
	whole := read(t, disk, manifests[0])
	for at := range whole {
		damaged := clone(t, disk)
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << (at % 8)
		write(t, damaged, manifests[0], flipped)
		s, err := store.OpenPebble("shard", store.Options{FS: damaged})
		if err == nil {
			_, err = h.check(s)
			s.Close()
		}
		if !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("byte %d of %d: %v", at, len(whole), err)
		}
	}
}

func TestAStoreOfALaterFormatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(disk *vfs.MemFS)
	}{
		{"of Skald's", func(disk *vfs.MemFS) { store.SetFormat(t, disk, "shard", []byte{2}) }},
		{"of Pebble's", func(disk *vfs.MemFS) {
			for _, name := range files(t, disk, "") {
				if strings.Contains(name, "marker.format-version.") {
					if err := disk.Rename(name, "shard/marker.format-version.000099.999"); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := vfs.NewMem()
			fill(t, disk, newHistory(1), 10)
			c.damage(disk)
			_, err := store.OpenPebble("shard", store.Options{FS: disk})
			var newer *store.NewerError
			if !errors.As(err, &newer) || !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("%v, want a NewerError", err)
			}
			if _, err := store.OpenPebble("shard", store.Options{FS: disk}); errors.Is(err, store.ErrLocked) {
				t.Fatal("the refused store stays locked")
			}
		})
	}
}

func TestAStoreWithoutAFormatIsCorrupt(t *testing.T) {
	for _, format := range [][]byte{nil, {}, {0}, {0x80}} {
		disk := vfs.NewMem()
		fill(t, disk, newHistory(1), 10)
		store.SetFormat(t, disk, "shard", format)
		if _, err := store.OpenPebble("shard", store.Options{FS: disk}); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("format %x: %v", format, err)
		}
	}
}

func TestAValueThatCannotBeReadNamesItsKey(t *testing.T) {
	for _, raw := range [][]byte{{}, {0x80}, {1}, {1, 0x80}, bytes.Repeat([]byte{0xff}, 30), {1, 1}} {
		s := open(t, "shard", store.Options{FS: vfs.NewMem()})
		if err := store.SetRaw(s, []byte("i-key"), raw); err != nil {
			t.Fatal(err)
		}
		_, ok, err := s.Get([]byte("i-key"))
		scan := s.Scan(nil, nil, func(store.Row) bool { return true })
		purge := s.Apply(storetest.Batch(func(b *store.Batch) { b.DeleteRange([]byte("i"), []byte("j")) }))
		for _, err := range []error{err, scan, purge} {
			if ok || !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "692d6b6579") {
				t.Errorf("value %x: %v", raw, err)
			}
		}
		if err := store.SetRaw(s, []byte("tshort"), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.NextDue(); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "7473686f7274") {
			t.Errorf("timer: %v", err)
		}
		s.Close()
	}
}

// What Pebble does when it gives up: it panics, in the caller's goroutine, or calls Fatalf.
func TestAPanicOfPebbleFailsTheStoreAndNotTheProcess(t *testing.T) {
	disk := vfs.NewMem()
	var log bytes.Buffer
	s := open(t, "shard", store.Options{FS: disk, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := s.Apply(&store.Batch{State: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	if err := store.Panic(s); !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("%v, want ErrCorrupt", err)
	}
	wantStopped(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "the store failed") {
		t.Errorf("nothing in the log: %s", log.String())
	}
	again := open(t, "shard", store.Options{FS: disk})
	if err := again.Apply(&store.Batch{State: []byte("1")}); err != nil {
		t.Fatal(err)
	}
}

func TestPebbleGivingUpFailsTheStoreAndNotTheProcess(t *testing.T) {
	s := open(t, "shard", store.Options{FS: vfs.NewMem()})
	store.Fatal(s, "no more %s", "files")
	wantStopped(t, s)
	if _, err := s.State(); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "no more files") {
		t.Error(err)
	}
}

func TestADirectoryInUseIsSaidToBe(t *testing.T) {
	const env = "SKALD_TEST_OPEN_STORE"
	if dir := os.Getenv(env); dir != "" {
		_, err := store.OpenPebble(dir, store.Options{})
		fmt.Println(errors.Is(err, store.ErrLocked), errors.Is(store.Destroy(dir), store.ErrLocked), err)
		os.Exit(0)
	}
	dir := filepath.Join(t.TempDir(), "shops", "7")
	s := open(t, dir, store.Options{})
	if _, err := store.OpenPebble(dir, store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("in this process: %v", err)
	}
	if err := store.Destroy(dir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("destroying it: %v", err)
	}
	other := exec.Command(os.Args[0], "-test.run", "^TestADirectoryInUseIsSaidToBe$")
	other.Env = append(os.Environ(), env+"="+dir)
	out, err := other.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "true true store "+dir+": ") {
		t.Errorf("in another process: %s, %v", out, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Destroy(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := store.Destroy(dir); err != nil {
		t.Errorf("destroying nothing: %v", err)
	}
}

func TestADirectoryThatCannotBeMadeIsNotCorrupt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := store.OpenPebble(filepath.Join(file, "shard"), store.Options{})
	if err == nil || errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrLocked) {
		t.Fatal(err)
	}
}

func TestAStoreKnowsItsSize(t *testing.T) {
	s := open(t, "shard", store.Options{FS: vfs.NewMem(), MemTableBytes: 1})
	for i := range 50 {
		if err := s.Apply(large(&store.Batch{}, i)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Size() < 50<<10 || s.Memory() == 0 || s.Memory() > 4<<20 {
		t.Errorf("size %d, memory %d", s.Size(), s.Memory())
	}
}

func TestHashesOfStoresWithTheSameRowsAreEqual(t *testing.T) {
	a, b := store.NewMemory(), open(t, "shard", store.Options{FS: vfs.NewMem()})
	m := storetest.NewModel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		batch := m.Random(r)
		if err := errors.Join(a.Apply(batch), b.Apply(batch)); err != nil {
			t.Fatal(err)
		}
	}
	rows, sum, err := store.Hash(a)
	if err != nil || rows != len(m.Rows) {
		t.Fatalf("%d rows, %v, want %d", rows, err, len(m.Rows))
	}
	same := func(s store.Scanner) bool {
		n, x, err := store.Hash(s)
		return err == nil && n == rows && x == sum
	}
	snap, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if !same(b) || !same(snap) {
		t.Error("the same rows hash to another sum")
	}
	row := m.Rows[firstKey(m)]
	set := func(key []byte, due int64, value []byte, base uint64) {
		storetest.Apply(t, b, func(x *store.Batch) { x.Set(key, due, row.Due, value, base); x.State = []byte("other") })
	}
	set(row.Key, row.Due, row.Value, row.Base+1)
	if !same(b) {
		t.Error("base or state changed the sum")
	}
	set(row.Key, row.Due+1, row.Value, row.Base)
	if same(b) {
		t.Error("a due time did not change the sum")
	}
	storetest.Apply(t, b, func(x *store.Batch) { x.Set(row.Key, row.Due, row.Due+1, append(row.Value, 0), 0) })
	if same(b) {
		t.Error("a value did not change the sum")
	}
	if !same(snap) {
		t.Error("the snapshot changed")
	}
}

func firstKey(m *storetest.Model) (first string) {
	for k := range m.Rows {
		if first == "" || k < first {
			first = k
		}
	}
	return first
}

func TestMemoryRefusesAChangeThatWouldLeaveATimer(t *testing.T) {
	s := store.NewMemory()
	storetest.Apply(t, s, func(b *store.Batch) { b.Set(storetest.Key(1, 1), 5, 0, nil, 1) })
	err := s.Apply(storetest.Batch(func(b *store.Batch) {
		b.Set(storetest.Key(1, 2), 7, 0, nil, 1)
		b.Set(storetest.Key(1, 1), 6, 4, nil, 1)
	}))
	if err == nil {
		t.Fatal("it was taken")
	}
	if got := storetest.Rows(t, s, nil, nil); len(got) != 1 || got[0].Due != 5 {
		t.Fatalf("the refused batch left %v", got)
	}
}

func files(t *testing.T, disk *vfs.MemFS, suffix string) (names []string) {
	t.Helper()
	list, err := disk.List("shard")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		if strings.HasSuffix(name, suffix) && name != "LOCK" {
			names = append(names, "shard/"+name)
		}
	}
	slices.Sort(names)
	return names
}

func read(t *testing.T, disk *vfs.MemFS, name string) []byte {
	t.Helper()
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if len(b) > 0 {
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func write(t *testing.T, disk *vfs.MemFS, name string, b []byte) {
	t.Helper()
	f, err := disk.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(b)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func clone(t *testing.T, disk *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(disk, to, "shard", "shard"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return to
}
