// Package storetest is the conformance suite of store.Store: what every implementation has to do, and what
// the engine relies on. It may be imported by tests alone. The rule that must not break: it knows no
// implementation; what only one of them can do is tested beside it.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// Run checks an implementation. open gives an empty store; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"an empty store has nothing", empty},
		{"a row that was set is found", set},
		{"a row is replaced whole", replace},
		{"a row may be empty, or large", sizes},
		{"a replaced row's timer is dropped", timerDropped},
		{"a timer that stays due stays", timerStays},
		{"timers come in order of due time, then key", timersInOrder},
		{"an earlier timer is seen at once", earlierTimer},
		{"a timer just after the last look is seen", timerAfterLook},
		{"a timer that is set and dropped in one batch is gone", timerSetAndDropped},
		{"ops take effect in order", opsInOrder},
		{"a removed row is gone with its timer", deleteRow},
		{"a removed row may be set again", deleteAndSet},
		{"a deleted range is gone with its timers", deleteRange},
		{"a large range is deleted whole", deleteLargeRange},
		{"a range over all keys spares the state", deleteEverything},
		{"an empty range deletes nothing", deleteNothing},
		{"the state is set with the rows, and stays when not given", state},
		{"a scan keeps to its bounds", scanBounds},
		{"a scan sees rows of every family, never state or timers", scanFamilies},
		{"a scan reads one moment", scanMoment},
		{"what a callback is told can be asked from within it", nested},
		{"a snapshot is frozen", snapshot},
		{"results belong to the caller", ownership},
		{"a batch can be used again", batchReuse},
		{"a key of no row is refused, and nothing is changed", refused},
		{"a negative due time is refused", negativeDue},
		{"a callback's panic is the caller's", callbackPanic},
		{"a closed store says so", closed},
		{"readers run beside a writer", concurrent},
		{"random operations do what a map would", random},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			c.run(t, s)
		})
	}
}

// RunDurable checks what is there after Close. open opens the store in dir, which is empty at first.
func RunDurable(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	t.Run("a store opened again is as it was closed", func(t *testing.T) {
		dir := t.TempDir()
		r := rand.New(rand.NewPCG(1, 2))
		m := NewModel()
		for range 8 {
			s := open(t, dir)
			m.Check(t, s)
			for range 20 {
				m.Step(t, r, s)
			}
			m.Check(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Key makes a row's key: instance n, node i.
func Key(n, i int) []byte {
	var id events.InstanceID
	copy(id[:], fmt.Sprintf("instance-%06d", n))
	return events.RowKey(id, events.RowRef{Part: events.PartNode, N: uint64(i)})
}

// Batch makes a batch.
func Batch(fill func(b *store.Batch)) *store.Batch {
	b := &store.Batch{}
	fill(b)
	return b
}

// Apply applies what fill puts into a batch, and fails the test when that cannot be done.
func Apply(t testing.TB, s store.Store, fill func(b *store.Batch)) {
	t.Helper()
	if err := s.Apply(Batch(fill)); err != nil {
		t.Fatal(err)
	}
}

// Rows gives all logical rows, in order.
func Rows(t testing.TB, s store.Scanner, from, to []byte) []store.Row {
	t.Helper()
	var rows []store.Row
	if err := s.Scan(from, to, func(r store.Row) bool {
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		rows = append(rows, r)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

// Timers gives the timers due until then, in order.
func Timers(t testing.TB, s store.Store, until int64) []store.Timer {
	t.Helper()
	var timers []store.Timer
	if err := s.Due(until, func(x store.Timer) bool {
		timers = append(timers, store.Timer{Due: x.Due, Key: bytes.Clone(x.Key)})
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return timers
}

func wantTimers(t *testing.T, s store.Store, until int64, want ...store.Timer) {
	t.Helper()
	if got := Timers(t, s, until); !slices.EqualFunc(got, want, sameTimer) {
		t.Fatalf("timers until %d: %v, want %v", until, got, want)
	}
}

func wantNextDue(t *testing.T, s store.Store, want int64) {
	t.Helper()
	if got, err := s.NextDue(); err != nil || got != want {
		t.Fatalf("next due: %d, %v, want %d", got, err, want)
	}
}

func wantRows(t *testing.T, s store.Scanner, from, to []byte, want ...store.Row) {
	t.Helper()
	if got := Rows(t, s, from, to); !slices.EqualFunc(got, want, sameRow) {
		t.Fatalf("rows from %x to %x:\n%v\nwant\n%v", from, to, got, want)
	}
}

func wantState(t *testing.T, s interface{ State() ([]byte, error) }, want string) {
	t.Helper()
	if got, err := s.State(); err != nil || string(got) != want {
		t.Fatalf("state: %q, %v, want %q", got, err, want)
	}
}

func sameRow(a, b store.Row) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Due == b.Due && a.Base == b.Base
}

func sameTimer(a, b store.Timer) bool { return a.Due == b.Due && bytes.Equal(a.Key, b.Key) }

func row(key []byte, value string, due int64, base uint64) store.Row {
	return store.Row{Key: key, Value: []byte(value), Due: due, Base: base}
}

func empty(t *testing.T, s store.Store) {
	if got, err := s.State(); err != nil || got != nil {
		t.Fatalf("state: %q, %v", got, err)
	}
	if _, ok, err := s.Get(Key(1, 1)); err != nil || ok {
		t.Fatalf("get: %v, %v", ok, err)
	}
	wantRows(t, s, nil, nil)
	wantTimers(t, s, math.MaxInt64)
	wantNextDue(t, s, 0)
}

func set(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 0, 0, []byte("one"), 7) })
	got, ok, err := s.Get(Key(1, 1))
	if want := row(Key(1, 1), "one", 0, 7); err != nil || !ok || !sameRow(got, want) {
		t.Fatalf("get: %v, %v, %v, want %v", got, ok, err, want)
	}
	for _, other := range [][]byte{Key(1, 0), Key(1, 2), Key(2, 1), Key(1, 1)[:25], append(Key(1, 1), 0), {}, nil} {
		if _, ok, err := s.Get(other); ok || err != nil {
			t.Fatalf("get %x: %v, %v", other, ok, err)
		}
	}
	wantRows(t, s, nil, nil, row(Key(1, 1), "one", 0, 7))
	wantNextDue(t, s, 0)
}

func replace(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 100, 0, []byte("a long first value"), math.MaxUint64) })
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 200, 100, []byte("two"), 2) })
	wantRows(t, s, nil, nil, row(Key(1, 1), "two", 200, 2))
}

func sizes(t *testing.T, s store.Store) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(1, 1), 0, 0, nil, 1)
		b.Set(Key(1, 2), 5, 0, []byte{}, 2)
		b.Set(Key(1, 3), 0, 0, large, 3)
	})
	wantRows(t, s, nil, nil, row(Key(1, 1), "", 0, 1), row(Key(1, 2), "", 5, 2), row(Key(1, 3), string(large), 0, 3))
	for i := 1; i <= 3; i++ {
		if _, ok, err := s.Get(Key(1, i)); !ok || err != nil {
			t.Fatalf("row %d: %v, %v", i, ok, err)
		}
	}
}

func timerDropped(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 100, 0, nil, 1) })
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 300, 100, nil, 2) })
	wantTimers(t, s, 1000, store.Timer{Due: 300, Key: Key(1, 1)})
	wantNextDue(t, s, 300)
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 0, 300, nil, 3) })
	wantTimers(t, s, 1000)
	wantNextDue(t, s, 0)
}

func timerStays(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 100, 0, nil, 1) })
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 100, 100, nil, 2) })
	wantTimers(t, s, 1000, store.Timer{Due: 100, Key: Key(1, 1)})
	// A carried row comes to a store that never saw it with the due time that it already had.
	Apply(t, s, func(b *store.Batch) { b.Set(Key(2, 1), 200, 200, nil, 2) })
	wantTimers(t, s, 1000, store.Timer{Due: 100, Key: Key(1, 1)}, store.Timer{Due: 200, Key: Key(2, 1)})
}

func timersInOrder(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(3, 1), 256, 0, nil, 1)
		b.Set(Key(2, 1), 255, 0, nil, 1)
		b.Set(Key(1, 2), 256, 0, nil, 1)
		b.Set(Key(1, 1), 256, 0, nil, 1)
		b.Set(Key(4, 1), 1, 0, nil, 1)
		b.Set(Key(5, 1), math.MaxInt64, 0, nil, 1)
	})
	all := []store.Timer{{Due: 1, Key: Key(4, 1)}, {Due: 255, Key: Key(2, 1)}, {Due: 256, Key: Key(1, 1)},
		{Due: 256, Key: Key(1, 2)}, {Due: 256, Key: Key(3, 1)}, {Due: math.MaxInt64, Key: Key(5, 1)}}
	wantTimers(t, s, math.MaxInt64, all...)
	wantTimers(t, s, math.MaxInt64-1, all[:5]...)
	wantTimers(t, s, 256, all[:5]...)
	wantTimers(t, s, 255, all[:2]...)
	wantTimers(t, s, 1, all[:1]...)
	wantTimers(t, s, 0)
	wantTimers(t, s, -1)
	wantNextDue(t, s, 1)

	// In the order of a clock, to the very edge of each timer.
	for _, until := range []int64{0, 1, 254, 255, math.MaxInt64 - 1} {
		want := 0
		for want < len(all) && all[want].Due <= until {
			want++
		}
		wantTimers(t, s, until, all[:want]...)
		wantNextDue(t, s, 1)
	}
	seen := 0
	if err := s.Due(math.MaxInt64, func(store.Timer) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Fatalf("stopped after %d timers, %v, want 3", seen, err)
	}
}

func earlierTimer(t *testing.T, s store.Store) {
	for _, due := range []int64{1000, 900, 950, 2, 1} {
		Apply(t, s, func(b *store.Batch) { b.Set(Key(1, int(due)), due, 0, nil, 1) })
		want := min(due, 900)
		if due == 1000 {
			want = 1000
		}
		wantNextDue(t, s, want)
		wantTimers(t, s, want-1)
		if got := Timers(t, s, want); len(got) != 1 {
			t.Fatalf("%d timers until %d, want 1", len(got), want)
		}
	}
}

func timerAfterLook(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 10, 0, nil, 1) })
	wantTimers(t, s, 9)
	wantTimers(t, s, 10, store.Timer{Due: 10, Key: Key(1, 1)})
	wantNextDue(t, s, 10)
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 0, 10, nil, 1) })
	wantTimers(t, s, 50)
	for _, due := range []int64{51, 50, 49} {
		Apply(t, s, func(b *store.Batch) { b.Set(Key(1, int(due)), due, 0, nil, 1) })
		wantNextDue(t, s, due)
	}
}

func timerSetAndDropped(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(1, 1), 100, 0, nil, 1)
		b.Set(Key(1, 1), 200, 100, nil, 2)
		b.Set(Key(1, 1), 100, 200, nil, 3)
	})
	wantTimers(t, s, 1000, store.Timer{Due: 100, Key: Key(1, 1)})
}

func opsInOrder(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 50, 0, []byte("old"), 1) })
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(1, 2), 60, 0, []byte("gone"), 2)
		b.DeleteRange(Key(1, 0), Key(1, 9))
		b.Set(Key(1, 1), 70, 0, []byte("new"), 3)
		b.Set(Key(1, 1), 80, 70, []byte("newer"), 4)
	})
	wantRows(t, s, nil, nil, row(Key(1, 1), "newer", 80, 4))
	wantTimers(t, s, 1000, store.Timer{Due: 80, Key: Key(1, 1)})
	// The same due time as before the deletion.
	Apply(t, s, func(b *store.Batch) {
		b.DeleteRange(Key(1, 0), Key(1, 9))
		b.Set(Key(1, 1), 80, 0, []byte("again"), 5)
	})
	wantTimers(t, s, 1000, store.Timer{Due: 80, Key: Key(1, 1)})
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(1, 1), 90, 80, []byte("x"), 6)
		b.Set(Key(1, 2), 95, 0, []byte("y"), 6)
		b.DeleteRange(Key(1, 0), Key(1, 9))
	})
	wantRows(t, s, nil, nil)
	wantTimers(t, s, 1000)
}

func deleteRow(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(1, 1), 40, 0, []byte("one"), 1)
		b.Set(Key(1, 2), 50, 0, []byte("two"), 1)
		b.Set(Key(1, 3), 0, 0, []byte("three"), 1)
	})
	Apply(t, s, func(b *store.Batch) {
		b.Delete(Key(1, 1), 40, 9)
		b.Delete(Key(1, 3), 0, 9)
		b.Delete(Key(1, 4), 0, 9) // was never there
		b.Delete(Key(1, 5), 70, 9)
	})
	if _, ok, err := s.Get(Key(1, 1)); ok || err != nil {
		t.Fatalf("a removed row: %v, %v", ok, err)
	}
	wantRows(t, s, nil, nil, row(Key(1, 2), "two", 50, 1))
	wantTimers(t, s, 1000, store.Timer{Due: 50, Key: Key(1, 2)})
	wantNextDue(t, s, 50)
}

func deleteAndSet(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 40, 0, []byte("old"), 1) })
	Apply(t, s, func(b *store.Batch) {
		b.Delete(Key(1, 1), 40, 9)
		b.Set(Key(1, 1), 60, 0, []byte("new"), 2)
		b.Set(Key(1, 2), 70, 0, []byte("gone"), 2)
		b.Delete(Key(1, 2), 70, 9)
	})
	wantRows(t, s, nil, nil, row(Key(1, 1), "new", 60, 2))
	wantTimers(t, s, 1000, store.Timer{Due: 60, Key: Key(1, 1)})
	// The same due time as before, and a range over what went one by one.
	Apply(t, s, func(b *store.Batch) {
		b.Delete(Key(1, 1), 60, 9)
		b.Set(Key(1, 1), 60, 0, []byte("again"), 3)
	})
	wantTimers(t, s, 1000, store.Timer{Due: 60, Key: Key(1, 1)})
	Apply(t, s, func(b *store.Batch) {
		b.Delete(Key(1, 1), 60, 9)
		b.DeleteRange(Key(1, 0), Key(1, 9))
	})
	wantRows(t, s, nil, nil)
	wantTimers(t, s, 1000)
}

func deleteRange(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) {
		for n := 1; n <= 3; n++ {
			for i := 1; i <= 3; i++ {
				b.Set(Key(n, i), int64(10*n+i), 0, nil, 1)
			}
		}
	})
	Apply(t, s, func(b *store.Batch) { b.DeleteRange(Key(2, 1), Key(2, 3)) })
	if _, ok, err := s.Get(Key(2, 1)); ok || err != nil {
		t.Fatalf("a deleted row: %v, %v", ok, err)
	}
	wantRows(t, s, Key(2, 0), Key(3, 0), row(Key(2, 3), "", 23, 1))
	wantTimers(t, s, 29, store.Timer{Due: 11, Key: Key(1, 1)}, store.Timer{Due: 12, Key: Key(1, 2)},
		store.Timer{Due: 13, Key: Key(1, 3)}, store.Timer{Due: 23, Key: Key(2, 3)})
	Apply(t, s, func(b *store.Batch) { b.DeleteRange(Key(1, 0), Key(1, 9)) })
	wantNextDue(t, s, 23)
}

func deleteLargeRange(t *testing.T, s store.Store) {
	const n = 1500
	Apply(t, s, func(b *store.Batch) {
		for i := range n {
			b.Set(Key(1, i), int64(i+1), 0, []byte("x"), 1)
		}
		b.Set(Key(2, 0), n+5, 0, []byte("kept"), 1)
	})
	Apply(t, s, func(b *store.Batch) {
		b.Set(Key(1, n), 3, 0, []byte("x"), 1)
		b.DeleteRange(Key(1, 0), Key(2, 0))
		b.Set(Key(1, 5), 9, 0, []byte("after"), 1)
	})
	wantRows(t, s, nil, nil, row(Key(1, 5), "after", 9, 1), row(Key(2, 0), "kept", n+5, 1))
	wantTimers(t, s, math.MaxInt64, store.Timer{Due: 9, Key: Key(1, 5)}, store.Timer{Due: n + 5, Key: Key(2, 0)})
}

func deleteEverything(t *testing.T, s store.Store) {
	for _, n := range []int{1, 1000} { // as single rows, and as a range
		Apply(t, s, func(b *store.Batch) {
			b.State = []byte("here")
			b.Set([]byte("a"), 3, 0, nil, 1)
			b.Set([]byte("z"), 4, 0, nil, 1)
			for i := range n {
				b.Set(Key(1, i), 5, 0, nil, 1)
			}
		})
		Apply(t, s, func(b *store.Batch) { b.DeleteRange([]byte{}, []byte{0xff}) })
		wantRows(t, s, nil, nil)
		wantTimers(t, s, math.MaxInt64)
		wantState(t, s, "here")
		Apply(t, s, func(b *store.Batch) { b.Set([]byte("a"), 3, 0, nil, 1) })
		wantNextDue(t, s, 3)
		Apply(t, s, func(b *store.Batch) { b.Set([]byte("a"), 0, 3, nil, 1) })
	}
}

func deleteNothing(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 3, 0, nil, 1) })
	Apply(t, s, func(b *store.Batch) {
		b.DeleteRange(Key(1, 1), Key(1, 1))
		b.DeleteRange(Key(2, 1), Key(1, 1))
		b.DeleteRange(Key(2, 1), Key(3, 1))
		b.DeleteRange(Key(1, 1), []byte{})
	})
	wantRows(t, s, nil, nil, row(Key(1, 1), "", 3, 1))
	wantNextDue(t, s, 3)
}

func state(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.State = []byte("one") })
	wantState(t, s, "one")
	wantRows(t, s, nil, nil)
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 0, 0, nil, 1) })
	wantState(t, s, "one")
	Apply(t, s, func(b *store.Batch) { b.State = []byte("two"); b.Set(Key(1, 2), 0, 0, nil, 1) })
	wantState(t, s, "two")
	Apply(t, s, func(b *store.Batch) { b.State = []byte{} })
	if got, err := s.State(); err != nil || got == nil || len(got) != 0 {
		t.Fatalf("an empty state: %#v, %v", got, err)
	}
	Apply(t, s, func(*store.Batch) {})
	wantRows(t, s, nil, nil, row(Key(1, 1), "", 0, 1), row(Key(1, 2), "", 0, 1))
}

func scanBounds(t *testing.T, s store.Store) {
	var rows []store.Row
	Apply(t, s, func(b *store.Batch) {
		for i := range 5 {
			rows = append(rows, row(Key(1, i), "v", 0, 1))
			b.Set(Key(1, i), 0, 0, []byte("v"), 1)
		}
	})
	wantRows(t, s, nil, nil, rows...)
	wantRows(t, s, []byte{}, nil, rows...)
	wantRows(t, s, Key(1, 1), Key(1, 3), rows[1:3]...)
	wantRows(t, s, Key(1, 1), append(Key(1, 3), 0), rows[1:4]...)
	wantRows(t, s, append(Key(1, 1), 0), nil, rows[2:]...)
	wantRows(t, s, nil, Key(1, 2), rows[:2]...)
	wantRows(t, s, Key(1, 2), Key(1, 2))
	wantRows(t, s, Key(1, 3), Key(1, 2))
	wantRows(t, s, nil, []byte{})
	wantRows(t, s, Key(2, 0), nil)
	n := 0
	if err := s.Scan(nil, nil, func(store.Row) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Fatalf("stopped after %d rows, %v, want 2", n, err)
	}
}

func scanFamilies(t *testing.T, s store.Store) {
	keys := [][]byte{
		{0}, {0, 0xff},
		[]byte("a family before the instances\x00\xff"),
		Key(1, 1),
		[]byte("one after them"),
		{'s' - 1, 0xff, 0xff}, {'t' + 1}, {'z'}, {0xff, 0xff},
	}
	var rows []store.Row
	Apply(t, s, func(b *store.Batch) {
		b.State = []byte("state")
		for i, k := range keys {
			rows = append(rows, row(k, "v", int64(i+1), 1))
			b.Set(k, int64(i+1), 0, []byte("v"), 1)
		}
	})
	wantRows(t, s, nil, nil, rows...)
	wantRows(t, s, []byte{'s' - 1}, []byte{'t' + 2}, rows[5:7]...)
	for _, k := range [][]byte{{'s'}, {'s', 'x'}, {'t'}, {'t', 0}} {
		wantRows(t, s, k, []byte{'t' + 1})
		wantRows(t, s, k, nil, rows[6:]...)
		wantRows(t, s, nil, k, rows[:6]...)
		if _, ok, err := s.Get(k); ok || err != nil {
			t.Fatalf("get %q: %v, %v", k, ok, err)
		}
	}
	if got := Timers(t, s, math.MaxInt64); len(got) != len(keys) {
		t.Fatalf("%d timers, want %d", len(got), len(keys))
	}
}

func scanMoment(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) {
		for i := range 10 {
			b.Set(Key(1, i), 0, 0, []byte("before"), 1)
		}
	})
	n := 0
	if err := s.Scan(nil, nil, func(r store.Row) bool {
		if n == 0 {
			Apply(t, s, func(b *store.Batch) {
				b.DeleteRange(Key(1, 5), Key(1, 8))
				b.Set(Key(1, 8), 0, 0, []byte("after"), 1)
				b.Set(Key(1, 20), 0, 0, []byte("after"), 1)
			})
		}
		if string(r.Value) != "before" {
			t.Errorf("row %x: %q", r.Key, r.Value)
		}
		n++
		return true
	}); err != nil || n != 10 {
		t.Fatalf("%d rows, %v, want 10", n, err)
	}
	if rows := Rows(t, s, nil, nil); len(rows) != 8 {
		t.Fatalf("%d rows afterwards, want 8", len(rows))
	}
}

func nested(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 5, 0, []byte("v"), 1); b.State = []byte("s") })
	ok := false
	if err := s.Due(5, func(x store.Timer) bool {
		got, found, err := s.Get(x.Key)
		ok = found && err == nil && string(got.Value) == "v"
		wantNextDue(t, s, 5)
		wantState(t, s, "s")
		wantRows(t, s, nil, nil, row(Key(1, 1), "v", 5, 1))
		return true
	}); err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
}

func snapshot(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) {
		b.State = []byte("one")
		b.Set(Key(1, 1), 5, 0, []byte("v1"), 1)
		b.Set(Key(1, 2), 0, 0, []byte("v1"), 1)
	})
	a, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	Apply(t, s, func(b *store.Batch) {
		b.State = []byte("two")
		b.Set(Key(1, 1), 0, 5, []byte("v2"), 2)
		b.DeleteRange(Key(1, 2), Key(1, 3))
		b.Set(Key(1, 3), 0, 0, []byte("v2"), 2)
	})
	wantState(t, a, "one")
	wantRows(t, a, nil, nil, row(Key(1, 1), "v1", 5, 1), row(Key(1, 2), "v1", 0, 1))
	wantRows(t, a, Key(1, 2), Key(1, 3), row(Key(1, 2), "v1", 0, 1))
	b, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, b, "two")
	wantRows(t, b, nil, nil, row(Key(1, 1), "v2", 0, 2), row(Key(1, 3), "v2", 0, 2))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	wantState(t, b, "two")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wantState(t, s, "two")
}

func ownership(t *testing.T, s store.Store) {
	key, value, st := Key(1, 1), []byte("value"), []byte("state")
	Apply(t, s, func(b *store.Batch) { b.Set(key, 5, 0, value, 1); b.State = st })
	clear(key)
	clear(value)
	clear(st)
	asked := Key(1, 1)
	for range 2 {
		got, ok, err := s.Get(asked)
		if err != nil || !ok || !sameRow(got, row(Key(1, 1), "value", 5, 1)) {
			t.Fatalf("get: %v, %v, %v", got, ok, err)
		}
		clear(got.Key)
		clear(got.Value)
		state, err := s.State()
		if err != nil || string(state) != "state" {
			t.Fatalf("state: %q, %v", state, err)
		}
		clear(state)
	}
}

func batchReuse(t *testing.T, s store.Store) {
	b := Batch(func(b *store.Batch) { b.Set(Key(1, 1), 0, 0, []byte("a"), 1); b.State = []byte("1") })
	if err := s.Apply(b); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	b.Set(Key(1, 2), 0, 0, []byte("b"), 1)
	if err := s.Apply(b); err != nil {
		t.Fatal(err)
	}
	wantRows(t, s, nil, nil, row(Key(1, 1), "a", 0, 1), row(Key(1, 2), "b", 0, 1))
	wantState(t, s, "1")
}

func refused(t *testing.T, s store.Store) {
	for _, key := range [][]byte{{}, nil, {events.FamilyState}, []byte("sformat"), {events.FamilyTimer}, []byte("t12345678i")} {
		err := s.Apply(Batch(func(b *store.Batch) {
			b.State = []byte("changed")
			b.Set(Key(1, 1), 1, 0, nil, 1)
			b.Set(key, 0, 0, nil, 1)
		}))
		if err == nil {
			t.Fatalf("key %q was taken", key)
		}
	}
	empty(t, s)
}

func negativeDue(t *testing.T, s store.Store) {
	if err := s.Apply(Batch(func(b *store.Batch) { b.Set(Key(1, 1), -1, 0, nil, 1) })); err == nil {
		t.Fatal("it was taken")
	}
	empty(t, s)
}

func callbackPanic(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 5, 0, nil, 1) })
	for name, read := range map[string]func(){
		"scan": func() { _ = s.Scan(nil, nil, func(store.Row) bool { panic("mine") }) },
		"due":  func() { _ = s.Due(9, func(store.Timer) bool { panic("mine") }) },
	} {
		func() {
			defer func() {
				if r := recover(); r != "mine" {
					t.Errorf("%s: panicked with %v", name, r)
				}
			}()
			read()
		}()
	}
	wantNextDue(t, s, 5)
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 6, 5, nil, 1) })
}

func closed(t *testing.T, s store.Store) {
	Apply(t, s, func(b *store.Batch) { b.Set(Key(1, 1), 5, 0, nil, 1) })
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, call := range map[string]func() error{
		"state":    func() error { _, err := s.State(); return err },
		"get":      func() error { _, _, err := s.Get(Key(1, 1)); return err },
		"scan":     func() error { return s.Scan(nil, nil, func(store.Row) bool { return true }) },
		"due":      func() error { return s.Due(9, func(store.Timer) bool { return true }) },
		"next due": func() error { _, err := s.NextDue(); return err },
		"apply":    func() error { return s.Apply(Batch(func(b *store.Batch) { b.Set(Key(1, 1), 0, 5, nil, 1) })) },
		"snapshot": func() error { _, err := s.Snapshot(); return err },
	} {
		if call() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// concurrent has readers see whole batches only: each sets ten rows and the state to its number.
func concurrent(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	defer func() {
		close(done)
		wg.Wait()
	}()
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				values := map[string]bool{}
				n := 0
				if err := s.Scan(nil, nil, func(r store.Row) bool { values[string(r.Value)] = true; n++; return true }); err != nil {
					t.Error(err)
				}
				if len(values) > 1 || (n != 0 && n != 10) {
					t.Errorf("%d rows of %d batches in one scan", n, len(values))
				}
				due, err := s.NextDue()
				if err != nil || due < 0 {
					t.Error(due, err)
				}
			}
		})
	}
	for i := 1; i <= 300; i++ {
		due := int64(1 + (i*7919)%1000)
		was := int64(1 + ((i-1)*7919)%1000)
		if i == 1 {
			was = 0
		}
		Apply(t, s, func(b *store.Batch) {
			for j := range 10 {
				b.Set(Key(1, j), due, was, fmt.Append(nil, i), 1)
			}
		})
		wantNextDue(t, s, due)
	}
}

func random(t *testing.T, s store.Store) {
	r := rand.New(rand.NewPCG(3, 4))
	m := NewModel()
	for i := range 400 {
		m.Step(t, r, s)
		if i%10 == 9 {
			m.Check(t, s)
		}
	}
}

// Model is what a store should hold, as plainly as it can be said. Copy it with Clone.
type Model struct {
	Rows  map[string]store.Row
	State []byte
	Steps int
}

// NewModel is the model of an empty store.
func NewModel() *Model { return &Model{Rows: map[string]store.Row{}} }

// Clone copies the model.
func (m *Model) Clone() *Model { return &Model{maps.Clone(m.Rows), m.State, m.Steps} }

// Step applies a random batch to the model and to s. The state row is the number of the step.
func (m *Model) Step(t testing.TB, r *rand.Rand, s store.Store) {
	t.Helper()
	if err := s.Apply(m.Random(r)); err != nil {
		t.Fatal(err)
	}
}

// Random gives a random batch and applies it to the model.
func (m *Model) Random(r *rand.Rand) *store.Batch {
	m.Steps++
	b := &store.Batch{State: fmt.Append(nil, m.Steps)}
	m.State = b.State
	for range r.IntN(12) {
		if r.IntN(8) == 0 {
			n := r.IntN(20)
			from, to := Key(n, r.IntN(4)), Key(n+r.IntN(2), r.IntN(6))
			b.DeleteRange(from, to)
			for k := range m.Rows {
				if k >= string(from) && k < string(to) {
					delete(m.Rows, k)
				}
			}
			continue
		}
		key := Key(r.IntN(20), r.IntN(6))
		was := m.Rows[string(key)].Due
		due := was
		switch r.IntN(3) {
		case 0:
			due = 0
		case 1:
			due = 1 + r.Int64N(1000)
		}
		if r.IntN(6) == 0 {
			b.Delete(key, was, 9)
			delete(m.Rows, string(key))
			continue
		}
		value := make([]byte, r.IntN(300))
		for i := range value {
			value[i] = byte(r.Uint32())
		}
		base := r.Uint64N(1 << 40)
		b.Set(key, due, was, value, base)
		m.Rows[string(key)] = store.Row{Key: key, Value: value, Due: due, Base: base}
	}
	return b
}

// Diff says in what s is not the model; nil: in nothing.
func (m *Model) Diff(s store.Store) error {
	state, err := s.State()
	if err != nil {
		return err
	}
	if string(state) != string(m.State) {
		return fmt.Errorf("state %q, want %q", state, m.State)
	}
	var timers []store.Timer
	keys := slices.Sorted(maps.Keys(m.Rows))
	i := 0
	var diff error
	if err := s.Scan(nil, nil, func(r store.Row) bool {
		if i >= len(keys) || !sameRow(r, m.Rows[keys[i]]) {
			diff = fmt.Errorf("row %d is %x, due %d, base %d, with %d bytes", i, r.Key, r.Due, r.Base, len(r.Value))
			return false
		}
		i++
		return true
	}); err != nil || diff != nil {
		return errors.Join(err, diff)
	}
	if i != len(keys) {
		return fmt.Errorf("%d rows, want %d", i, len(keys))
	}
	for _, k := range keys {
		r, ok, err := s.Get([]byte(k))
		if err != nil {
			return err
		}
		if !ok || !sameRow(r, m.Rows[k]) {
			return fmt.Errorf("row %x is not what the scan gave", k)
		}
		if r.Due != 0 {
			timers = append(timers, store.Timer{Due: r.Due, Key: []byte(k)})
		}
	}
	slices.SortStableFunc(timers, func(a, b store.Timer) int { return int(a.Due - b.Due) })
	next, err := s.NextDue()
	if err != nil {
		return err
	}
	if len(timers) > 0 && next != timers[0].Due || len(timers) == 0 && next != 0 {
		return fmt.Errorf("next due %d of %d timers", next, len(timers))
	}
	i = 0
	if err := s.Due(math.MaxInt64, func(x store.Timer) bool {
		if i >= len(timers) || !sameTimer(x, timers[i]) {
			diff = fmt.Errorf("timer %d is %d of %x", i, x.Due, x.Key)
			return false
		}
		i++
		return true
	}); err != nil || diff != nil {
		return errors.Join(err, diff)
	}
	if i != len(timers) {
		return fmt.Errorf("%d timers, want %d", i, len(timers))
	}
	return nil
}

// Check fails the test when s is not the model.
func (m *Model) Check(t testing.TB, s store.Store) {
	t.Helper()
	if err := m.Diff(s); err != nil {
		t.Fatalf("after %d steps: %v", m.Steps, err)
	}
}
