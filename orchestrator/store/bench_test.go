package store_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/orchestrator/store/storetest"
)

const decisions = 64

// fillTurn is what a busy turn applies: 64 decisions, each with a head that is due, its data, the node whose
// command went out and the one whose reply came, whose timer is dropped; rows of about 200 bytes.
func fillTurn(b *store.Batch, r *rand.Rand, value []byte, n int) {
	b.Reset()
	b.State = value[:120]
	due := int64(1_700_000_000_000 + n)
	for range decisions {
		i := r.IntN(100_000)
		binary.BigEndian.PutUint64(value, r.Uint64())
		b.Set(storetest.Key(i, 0), 1_800_000_000_000, 1_800_000_000_000, value, uint64(n))
		b.Set(storetest.Key(i, 1), 0, 0, value, uint64(n))
		b.Set(storetest.Key(i, 2+n%5), due+30_000, 0, value, uint64(n))
		b.Set(storetest.Key(i, 2+(n+4)%5), 0, due+29_999, value, uint64(n))
	}
}

func BenchmarkApply64Decisions(b *testing.B) {
	s := open(b, b.TempDir(), store.Options{MemTableBytes: 64 << 20})
	r, value := rand.New(rand.NewPCG(1, 1)), bytes.Repeat([]byte(`{"lines":[1]}`), 16)
	var batch store.Batch
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		fillTurn(&batch, r, value, n)
		n++
		b.StartTimer()
		if err := s.Apply(&batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n*decisions), "µs/decision")
}

// BenchmarkTurn adds what a loop asks every time: the next timer, with all those fired before it in the way.
func BenchmarkTurn(b *testing.B) {
	s := open(b, b.TempDir(), store.Options{MemTableBytes: 64 << 20})
	value := bytes.Repeat([]byte(`{"lines":[1]}`), 16)
	var batch store.Batch
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		n++
		batch.Reset()
		batch.Set(storetest.Key(int(n), 1), n, 0, value, 1)
		if n > 10 {
			batch.Set(storetest.Key(int(n-10), 1), 0, n-10, value, 1)
		}
		if err := s.Apply(&batch); err != nil {
			b.Fatal(err)
		}
		if due, err := s.NextDue(); err != nil || due != max(1, n-9) {
			b.Fatal(due, err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	s := open(b, b.TempDir(), store.Options{Cache: cache, MemTableBytes: 16 << 20})
	value := bytes.Repeat([]byte(`{"lines":[1]}`), 16)
	const rows = 100_000
	for i := 0; i < rows; i += 100 {
		storetest.Apply(b, s, func(x *store.Batch) {
			for j := range 100 {
				x.Set(storetest.Key(i+j, 1), 0, 0, value, 1)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name string
		part int
	}{{"hit", 1}, {"miss", 2}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, err := s.Get(storetest.Key(r.IntN(rows), c.part)); err != nil || ok != (c.part == 1) {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
