package orchestrator

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
)

func TestAHookWithoutAnyMethodIsAMistake(t *testing.T) {
	if _, err := newHooks([]Hook{struct{}{}}); err == nil || !strings.Contains(err.Error(), "struct {}") {
		t.Errorf("%v", err)
	}
	h, err := newHooks(nil)
	if err != nil || len(h.accepted) != 0 {
		t.Errorf("%v %v", h, err)
	}
}

func TestACensusCountsEveryInstanceThatHasNotEnded(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	var b store.Batch
	want := map[standing]int64{}
	for i := range 3000 {
		h := events.Head{Definition: fmt.Sprintf("d%d", i%3), State: events.State(1 + i%7), Key: fmt.Sprint(i)}
		id := events.NewInstanceID("shop", h.Definition, h.Key, "m", 64)
		b.Set(events.RowKey(id, headRow), 0, 0, h.Encode(nil), 1)
		for n := range uint64(3) { // so that it takes several looks
			b.Set(events.RowKey(id, events.RowRef{Part: events.PartHistory, N: n}), 0, 0, h.Encode(nil), 1)
		}
		if !h.State.Final() {
			want[standing{h.Definition, h.State}]++
		}
	}
	if err := st.Apply(&b); err != nil {
		t.Fatal(err)
	}
	snap, err := st.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	got, looks := map[standing]int64{}, 0
	counted, err := count(context.Background(), snap, func(found map[standing]int64) {
		looks++
		for at, n := range found {
			got[at] += n
		}
	})
	if err != nil || !counted || looks < 2 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v in %d looks, not %v (%v)", got, looks, want, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if counted, err := count(ended, snap, func(map[standing]int64) {}); counted || err != nil {
		t.Errorf("a census that was ended says %v %v", counted, err)
	}
}

func TestARestoreTellsHowFarItIsAndEndsAtItsEnd(t *testing.T) {
	var got, of int64
	f := follower{state: journal.NewState(), tell: func(read, total int64) { got, of = read, total }}
	f.state.Next = 10
	if f.progress(110); got != 0 || of != 100 {
		t.Errorf("%d of %d at its beginning", got, of)
	}
	f.read, f.state.Next = 100, 110
	if f.progress(110); got != 100 || of != 100 {
		t.Errorf("%d of %d at its end", got, of)
	}
}
