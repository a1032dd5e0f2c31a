package main

import (
	"testing"

	"github.com/skald-io/skald/events"
)

func decided(key string, firstRow uint64, state events.State, entries ...events.Entry) *events.Record {
	id := events.NewInstanceID("shop", "place-order", key, "m", 256)
	head := events.Head{Definition: "place-order", Key: key, State: state, Started: 1_000_000, Entries: firstRow + uint64(len(entries))}
	if state.Final() {
		head.Ended = 1_000_100
	}
	return &events.Record{Kind: events.KindDecision, Decision: &events.Decision{Outcome: events.Applied, Instance: id, FirstRow: firstRow,
		Entries: entries, Rows: []events.RowChange{{Ref: events.RowRef{Part: events.PartHead}, Value: head.Encode(nil)}}}}
}

func entry(kind events.EntryKind) events.Entry {
	return events.Entry{Kind: kind, Time: 1_000_000, Step: "a", Node: 1, Phase: events.Forward, Execution: 1, Attempt: 1}
}

func TestAnInstanceIsReportedOnceWhateverIsReplayed(t *testing.T) {
	w := newWatch("order-")
	w.Placed(2)
	records := []*events.Record{
		decided("order-1", 0, events.Running, entry(events.EntryCommand)),
		decided("order-1", 1, events.Completed, entry(events.EntryDone)),
	}
	for range 3 { // a take-over replays the tail
		for _, r := range records {
			w.Applied(0, r)
		}
	}
	got := w.Take()
	if len(got) != 1 {
		t.Fatalf("reported %d times", len(got))
	}
	if s := short(stepsOf(got[0].history)); s != "a/forward done×1" {
		t.Errorf("its steps: %s", s)
	}
	if tally := w.Tally(); tally.Final() != 1 || tally.Completed != 1 || tally.Waiting != 1 || tally.Running != 0 {
		t.Errorf("tally %+v", tally)
	}
}

func TestAReplayedTailDoesNotDoubleHistory(t *testing.T) {
	w := newWatch("order-")
	w.Placed(1)
	first := decided("order-1", 0, events.Running, entry(events.EntryCommand))
	w.Applied(0, first)
	w.Applied(0, first)
	w.Applied(0, decided("order-1", 1, events.Completed, entry(events.EntryDone)))
	if got := w.Take(); len(got) != 1 || len(got[0].history) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestOrdersOfOtherRunsAreNotOurs(t *testing.T) {
	w := newWatch("order-b-")
	w.Placed(3)
	w.Applied(0, decided("order-a-1", 0, events.Completed, entry(events.EntryDone)))
	w.Applied(0, decided("order-b-9", 0, events.Completed, entry(events.EntryDone)))  // never placed
	w.Applied(0, decided("order-b-01", 0, events.Completed, entry(events.EntryDone))) // not how we write it
	w.Applied(0, decided("order-b-2", 5, events.Completed, entry(events.EntryDone)))  // its beginning was not seen
	w.Applied(0, &events.Record{Kind: events.KindClaim, Claim: &events.Claim{}})
	if got := w.Take(); len(got) != 0 || w.Tally().Final() != 0 || len(w.Unfinished()) != 3 {
		t.Errorf("%+v, %+v, unfinished %+v", got, w.Tally(), w.Unfinished())
	}
}

func TestAParkedInstanceIsNewsButNotFinal(t *testing.T) {
	w := newWatch("order-")
	w.Placed(2)
	w.Applied(0, decided("order-1", 0, events.Running, entry(events.EntryCommand)))
	w.Applied(0, decided("order-1", 1, events.Parked, entry(events.EntryUnknown)))
	if got := w.Take(); len(got) != 1 || got[0].head.State != events.Parked {
		t.Fatalf("%+v", got)
	}
	left := w.Unfinished()
	if len(left) != 2 || left[0].head.Key != "order-1" || left[1].head.Key != "order-2" || !left[1].id.IsZero() {
		t.Fatalf("unfinished: %+v", left)
	}
	w.Applied(0, decided("order-1", 2, events.Completed, entry(events.EntryDone)))
	if tally := w.Tally(); tally.Parked != 0 || tally.Completed != 1 {
		t.Errorf("tally %+v", tally)
	}
}
