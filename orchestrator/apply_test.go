package orchestrator

import (
	"context"
	"slices"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

func TestWhatIsAcceptedReachesTheStoreTogetherAfterAMoment(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	must(t, st.turn(a))
	st.order(0, "x")
	must(t, st.rush(a))
	ids, _ := st.commands("payments")
	if len(ids) != 1 {
		t.Fatalf("%d commands are out, want 1: the store is not waited for", len(ids))
	}
	st.wantStates(0)
	st.reply(0, ids[0], "")
	must(t, st.rush(a))
	st.wantStates(0)
	st.advance(a.cfg.ApplyAfter)
	must(t, st.rush(a))
	st.wantStates(0, events.Completed)
	st.wantRebuilt(0)
}

// The owner dies with records accepted and emitted that its store does not have. The next one reads them from
// the journal.
func TestWhatTheStoreDoesNotHaveYetIsInTheJournal(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	must(t, st.turn(a))
	st.order(0, "x")
	must(t, st.rush(a))
	st.wantStates(0)
	b := st.open(0, "b")
	must(t, st.turn(b))
	st.wantStates(0, events.Running)
	ids, _ := st.commands("payments")
	if len(ids) != 1 {
		t.Fatalf("%d commands, want 1", len(ids))
	}
	st.reply(0, ids[0], "")
	must(t, st.turn(b))
	st.wantStates(0, events.Completed)
	st.wantRebuilt(0)
}

// Handing over, there is nothing to wait for.
func TestAShardThatEndsLeavesNothingUnapplied(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	must(t, st.turn(a))
	st.order(0, "x")
	must(t, st.rush(a))
	st.wantStates(0)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	must(t, a.Run(ended))
	st.wantStates(0, events.Running)
	st.wantRebuilt(0)
}

func TestARowThatChangesTwiceIsWrittenOnceWithTheTimerTheStoreHas(t *testing.T) {
	var w writes
	id := events.InstanceID{1}
	key := events.RowKey(id, events.RowRef{Part: events.PartHead})
	w.Set(key, 10, 5, []byte("a"), 1)
	w.Set(key, 20, 10, []byte("b"), 2)
	if len(w.Ops) != 1 || w.Ops[0].WasDue != 5 || w.Ops[0].Due != 20 || string(w.Ops[0].Value) != "b" || w.Ops[0].Base != 2 {
		t.Errorf("the batch is %+v, want one row that replaces the timer at 5", w.Ops)
	}
	w.Delete(key, 20, 3)
	if len(w.Ops) != 1 || w.Ops[0].WasDue != 5 || !w.Ops[0].Gone {
		t.Errorf("the batch is %+v, want one row that goes with the timer at 5", w.Ops)
	}
	w.Set(key, 25, 0, []byte("b"), 4)
	if len(w.Ops) != 1 || w.Ops[0].WasDue != 5 || w.Ops[0].Gone || w.Ops[0].Due != 25 {
		t.Errorf("the batch is %+v, want one row that replaces the timer at 5", w.Ops)
	}
	w.DeleteRange(events.InstanceRange(id))
	w.Set(key, 30, 0, []byte("c"), 3)
	deletes := slices.IndexFunc(w.Batch.Ops, func(o store.Op) bool { return o.To != nil })
	if len(w.Ops) != 3 || deletes != 1 || string(w.Ops[2].Value) != "c" {
		t.Errorf("the batch is %+v, want the row set again after its instance is deleted", w.Ops)
	}
	w.reset()
	w.Set(key, 0, 0, []byte("d"), 4)
	if len(w.Ops) != 1 || w.Ops[0].Due != 0 {
		t.Errorf("after a reset the batch is %+v", w.Ops)
	}
}
