package orchestrator

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// What a decision sees is what all records before it wrote, whether they are in flight, cached or stored.
func TestAnOverlayShowsEveryEarlierRecord(t *testing.T) {
	for _, limit := range []int{0, 4 << 10, 1 << 20} {
		t.Run(fmt.Sprintf("cache of %d bytes", limit), func(t *testing.T) {
			for seed := range uint64(40) {
				overlayAgainstMap(t, rand.New(rand.NewPCG(seed, 1)), limit)
			}
		})
	}
}

func overlayAgainstMap(t *testing.T, rng *rand.Rand, limit int) {
	type key struct {
		id  events.InstanceID
		ref events.RowRef
	}
	type flying struct {
		seq    uint64
		keys   []rowID
		purges []events.InstanceID
		batch  store.Batch
		carry  bool
	}
	st := store.NewMemory()
	o := newOverlay(st, limit)
	want := map[key]string{}
	var inflight []*flying
	anyKey := func() key {
		return key{events.InstanceID{15: byte(rng.IntN(8))}, events.RowRef{Part: events.PartNode, N: rng.Uint64N(60)}}
	}
	for seq := uint64(1); seq < 600; seq++ {
		f := &flying{seq: seq, carry: rng.IntN(8) == 0}
		k := anyKey()
		if rng.IntN(10) == 0 && !f.carry {
			from, to := events.InstanceRange(k.id)
			o.DeleteRange(from, to)
			f.batch.DeleteRange(from, to)
			for other := range want {
				if other.id == k.id {
					delete(want, other)
				}
			}
		}
		head := key{k.id, events.RowRef{Part: events.PartHead}}
		if _, lives := want[head]; !lives && f.carry {
			continue
		} else if !lives { // it begins, as a decision has seen
			if _, _, ok := o.Row(head.id, head.ref); ok {
				t.Fatalf("before record %d %s is there", seq, k.id)
			}
			want[head] = "head"
			o.Set(events.RowKey(head.id, head.ref), 0, 0, []byte("head"), seq)
			f.batch.Set(events.RowKey(head.id, head.ref), 0, 0, []byte("head"), seq)
		}
		for range rng.IntN(3) {
			k := key{k.id, anyKey().ref}
			if rng.IntN(4) == 0 && !f.carry {
				delete(want, k)
				o.Delete(events.RowKey(k.id, k.ref), 0, seq)
				f.batch.Delete(events.RowKey(k.id, k.ref), 0, seq)
				continue
			}
			value := fmt.Sprint(seq)
			if f.carry { // the row as it is
				old, ok := want[k]
				if !ok {
					continue
				}
				value = old
			}
			want[k] = value
			o.Set(events.RowKey(k.id, k.ref), 0, 0, []byte(value), seq)
			f.batch.Set(events.RowKey(k.id, k.ref), 0, 0, []byte(value), seq)
		}
		f.keys, f.purges = o.takeTouched(seq)
		inflight = append(inflight, f)
		for len(inflight) > rng.IntN(6) {
			f := inflight[0]
			inflight = inflight[1:]
			if err := st.Apply(&f.batch); err != nil {
				t.Fatal(err)
			}
			o.settle(f.seq, f.keys, f.purges, !f.carry)
		}
		for range 5 {
			k := anyKey()
			value, _, ok := o.Row(k.id, k.ref)
			if expect, there := want[k]; ok != there || string(value) != expect {
				t.Fatalf("after record %d, row %v of %s is %q (%v), want %q (%v)", seq, k.ref, k.id, value, ok, expect, there)
			}
		}
	}
}

// A step that begins has no row yet. Of a saga that began here, that is known without the store.
func TestWhatBeganInAnOverlayIsNotAskedOfTheStore(t *testing.T) {
	st := &countedStore{Store: store.NewMemory()}
	o := newOverlay(st, 1<<20)
	id := events.InstanceID{1}
	row := func(p events.Part, n uint64) bool {
		_, _, ok := o.Row(id, events.RowRef{Part: p, N: n})
		return ok
	}
	if row(events.PartHead, 0) || st.gets != 1 {
		t.Fatalf("an instance that is nowhere is there, or was asked for %d times", st.gets)
	}
	o.Set(events.RowKey(id, events.RowRef{Part: events.PartHead}), 0, 0, []byte("head"), 1)
	o.Set(events.RowKey(id, events.RowRef{Part: events.PartNode}), 0, 0, []byte("node"), 1)
	keys, purges := o.takeTouched(1)
	o.settle(1, keys, purges, true)
	if !row(events.PartHead, 0) || !row(events.PartNode, 0) || row(events.PartNode, 1) || row(events.PartData, 0) || st.gets != 1 {
		t.Errorf("what it has is not there, or the other way round, or the store was asked %d times", st.gets)
	}
	if row(events.PartAnswer, 5) || st.gets != 2 {
		t.Errorf("the answer to an action may be older than its instance: the store was asked %d times", st.gets)
	}
}

type countedStore struct {
	store.Store
	gets int
}

func (s *countedStore) Get(key []byte) (store.Row, bool, error) {
	s.gets++
	return s.Store.Get(key)
}

func TestAnOverlayForgetsWhatIsNotUsed(t *testing.T) {
	o := newOverlay(store.NewMemory(), 16<<10)
	row := events.RowRef{Part: events.PartHead}
	seq := uint64(0)
	put := func(id events.InstanceID, value []byte, settle bool) {
		seq++
		o.Set(events.RowKey(id, row), 7, 0, value, seq)
		keys, purges := o.takeTouched(seq)
		if settle {
			o.settle(seq, keys, purges, true)
		}
	}
	used, flying := events.InstanceID{0: 255}, events.InstanceID{0: 254}
	put(used, []byte("used"), true)
	put(flying, []byte("in flight"), false)
	for i := range 10_000 {
		put(events.InstanceID{14: byte(i >> 8), 15: byte(i)}, make([]byte, 100), true)
		if _, due, ok := o.Row(used, row); !ok || due != 7 {
			t.Fatalf("an instance in use was forgotten after %d others", i)
		}
	}
	if value, _, ok := o.Row(flying, row); !ok || string(value) != "in flight" {
		t.Errorf("what no store has yet was forgotten: %q (%v)", value, ok)
	}
	if n := len(o.young) + len(o.old); n > 16<<10/rowOverhead {
		t.Errorf("it holds %d instances, more than its limit", n)
	}
}
