package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// heavy is an order that fills stores.
func (w *world) heavy(t *testing.T, partition int32, key string) {
	t.Helper()
	r := order(key, "")
	r.Value = fmt.Appendf(nil, `{"id":%q,"note":%q}`, key, strings.Repeat(key, 16<<10/len(key)))
	w.put(t, w.orders(), partition, r)
}

func small(c *orchestrator.Config) { c.CacheBytes = 4 << 20 }

func TestAStoreThatWasDamagedWhileTheEngineStoodIsRebuiltFromKafka(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		dir := t.TempDir()
		n := w.start(t, inDir(dir), small)
		damages := []struct {
			what   string
			damage func(t *testing.T, file string, b []byte) // of one file
			whole  bool
		}{
			{"nothing", nil, true},
			{"a bit in every 512 bytes is flipped", func(t *testing.T, file string, b []byte) {
				for i := 7; i < len(b); i += 512 {
					b[i] ^= 4
				}
				write(t, file, b)
			}, false},
			{"every file is cut in half", func(t *testing.T, file string, b []byte) { write(t, file, b[:len(b)/2]) }, false},
			{"every file is empty", func(t *testing.T, file string, _ []byte) { write(t, file, nil) }, false},
			{"the manifest is gone", func(t *testing.T, file string, _ []byte) {
				if strings.HasPrefix(filepath.Base(file), "MANIFEST") {
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				}
			}, false},
			{"the tables are gone", func(t *testing.T, file string, _ []byte) {
				if filepath.Ext(file) == ".sst" {
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				}
			}, false},
		}
		for i := range damages {
			w.hold(fmt.Sprintf("held-%d", i))
			w.place(t, 0, fmt.Sprintf("held-%d", i))
		}
		for i := range 150 {
			w.heavy(t, int32(i%2), fmt.Sprintf("order-%d", i))
		}
		for i := range 150 {
			w.completed(t, n, fmt.Sprintf("order-%d", i))
		}
		n.stop(t)
		tables := 0
		for _, f := range storeFiles(t, dir) {
			if filepath.Ext(f) == ".sst" {
				tables++
			}
		}
		if tables < 2 {
			t.Fatalf("the stores have %d tables: too small to be worth damaging", tables)
		}
		for i, x := range damages {
			t.Run(x.what, func(t *testing.T) {
				// A copy of the same stores each time: they are as good a beginning of the journal as ever.
				copied := t.TempDir()
				if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if x.damage != nil {
					for _, f := range storeFiles(t, copied) {
						b, err := os.ReadFile(f)
						if err != nil {
							t.Fatal(err)
						}
						x.damage(t, f, b)
					}
				}
				n := w.start(t, inDir(copied), small)
				n.owns(t, 2)
				held := fmt.Sprintf("held-%d", i)
				w.state(t, held, events.Running, n)
				w.release(t, held)
				w.completed(t, n, held, "order-0", "order-149")
				if got := n.log.find("discarding the store", "code", "store-"); x.whole != (len(got) == 0) {
					t.Errorf("discarded: %v", got)
				}
				for p := range int32(2) {
					if c, err := n.Verify(bounded(t), p); err != nil || !c.Equal {
						t.Errorf("shard %d against a rebuilt store: %+v, %v", p, c, err)
					}
				}
				n.stop(t)
			})
		}
	})
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreOfAnotherJournalIsDiscarded(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		one, other := newWorld(t, b, 1), newWorld(t, b, 1)
		one.participant(t)
		other.participant(t)
		dir, empty := t.TempDir(), t.TempDir()
		n := one.start(t, inDir(dir))
		one.place(t, 0, "a", "b", "c")
		one.completed(t, n, "a", "b", "c")
		n.stop(t)
		n = other.start(t, inDir(empty))
		other.place(t, 0, "d")
		other.completed(t, n, "d")
		n.stop(t)

		n = other.start(t, inDir(dir))
		other.place(t, 0, "e")
		other.completed(t, n, "d", "e")
		if got := n.log.find("discarding the store", "code", orchestrator.CodeStoreUntrusted); len(got) != 1 {
			t.Errorf("discarded: %v", got)
		}
		if _, ok, err := n.Get(one.id("a")); ok || err != nil {
			t.Errorf("an instance of the other application is there: %v", err)
		}
		n.stop(t)
	})
}
