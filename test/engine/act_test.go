package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// What operators do to instances, through the engine's API.

// approving is a saga that reserves, waits for an approval, and ships.
func (w *world) approving(c *orchestrator.Config) {
	reserve := sagas.NewCommand[Reserve, Reserved](w.cmds(), "reserve")
	release := sagas.NewCommand[Reserve, struct{}](w.cmds(), "release")
	ship := sagas.NewCommand[Reserve, struct{}](w.cmds(), "ship")
	c.Definitions = []orchestrator.Definition{sagas.Define("order", "1",
		sagas.StartOn(sagas.NewEvent[Order](w.orders(), "OrderPlaced"), startOrder),
		sagas.Seq(
			sagas.Step("reserve", reserve, buildReserve, takeReserved).Undo(sagas.With(release, plainReserve)),
			sagas.Wait[Order]("approved", sagas.NewSignal[Order]("approve"), func(o *Order, s Order) { o.Note = s.Note }),
			sagas.Step("ship", ship, plainReserve, nil).Undo(sagas.With(release, plainReserve)),
		)).Retention(time.Hour)}
}

func approve(key string) orchestrator.Action {
	return orchestrator.Action{Action: events.Action{Kind: events.ActionSignal, Definition: "order", Key: key, Name: "approve", Payload: []byte(`{"note":"fine"}`), Who: "alice"}}
}

func (w *world) waiting(t *testing.T, n *node, key string) orchestrator.Description {
	t.Helper()
	var d orchestrator.Description
	until(t, "order "+key+" waits", func() bool {
		found, ok, err := n.Describe(w.id(key))
		d = found
		return ok && err == nil && len(d.Waits) == 1
	})
	return d
}

func TestAnActionIsAnsweredByWhateverNodeIsAsked(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		one := w.start(t, w.approving)
		one.owns(t, 2)
		two := w.start(t, w.approving)
		until(t, "each node owns a shard", func() bool { return len(one.Shards()) == 1 && len(two.Shards()) == 1 })
		keys := []string{"a", "b", "c", "d"}
		w.place(t, 0, keys...)
		for _, key := range keys {
			owner, other := one, two
			if one.Shards()[0] != one.ShardOf(key) {
				owner, other = two, one
			}
			d := w.waiting(t, owner, key)
			if d.Waits[0].Signal != "approve" || d.Waits[0].Name != "approved" || len(d.Owed) != 1 || d.Owed[0].Step != "reserve" || d.Owed[0].Type != "release" {
				t.Errorf("order %s waits for %+v and owes %+v", key, d.Waits, d.Owed)
			}
			if _, _, err := other.Describe(w.id(key)); !errors.Is(err, orchestrator.ErrNotHere) {
				t.Errorf("the node that does not own it says %v", err)
			}
			// What is not for this state is refused by the owner, and answered.
			resume := orchestrator.Action{Instance: w.id(key), Action: events.Action{ID: "resume-" + key, Kind: events.ActionResume, Who: "bob"}}
			refused, err := other.Act(bounded(t), resume)
			if err != nil || refused.Done || refused.Code == "" || refused.Instance != w.id(key) {
				t.Fatalf("a resume of what runs is answered %+v (%v)", refused, err)
			}
			again, err := owner.Act(bounded(t), resume)
			if err != nil || again != refused {
				t.Errorf("the same id is answered %+v by another node, and was %+v (%v)", again, refused, err)
			}
			a := approve(key)
			a.ID = "approve-" + key
			first, err := other.Act(bounded(t), a)
			if err != nil || !first.Done || first.ID != a.ID || first.Instance != w.id(key) {
				t.Fatalf("the signal is answered %+v (%v)", first, err)
			}
			if again, err := other.Act(bounded(t), a); err != nil || again != first {
				t.Errorf("the same signal again is answered %+v, and was %+v (%v)", again, first, err)
			}
			inst := w.state(t, key, events.Completed, one, two)
			var signals int
			for _, e := range inst.History {
				if e.Kind == events.EntryEvent {
					signals++
				}
			}
			if signals != 1 {
				t.Errorf("order %s took %d signals", key, signals)
			}
		}
		one.stop(t)
		two.stop(t)
	})
}

// L22.
func TestASignalToAKeyIsAnsweredAlikeEachTime(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 1)
		w.participant(t)
		one := w.start(t, w.approving)
		one.owns(t, 1)
		w.place(t, 0, "a")
		w.waiting(t, one, "a")
		a := approve("a")
		a.ID = "approve-a"
		first, err := one.Act(bounded(t), a)
		if err != nil || !first.Done || first.Instance != w.id("a") {
			t.Fatalf("the signal is answered %+v (%v)", first, err)
		}
		w.state(t, "a", events.Completed, one)
		two := w.start(t, w.approving) // it owns nothing, and reads the journal
		until(t, "the other takes part", func() bool { return two.Health().Member })
		for name, n := range map[string]*node{"the owner": one, "another node": two} {
			if again, err := n.Act(bounded(t), a); err != nil || again != first {
				t.Errorf("again, %s answers %+v, and it was %+v (%v)", name, again, first, err)
			}
		}
	})
}

func TestWhoeverActedAndWhyStandsInTheHistory(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	w.participant(t)
	n := w.start(t, w.approving)
	n.owns(t, 1)
	w.place(t, 0, "a")
	w.waiting(t, n, "a")
	answer, err := n.Act(bounded(t), orchestrator.Action{Instance: w.id("a"), Action: events.Action{Kind: events.ActionCancel, Who: "alice", Why: "changed her mind"}})
	if err != nil || !answer.Done || answer.ID == "" {
		t.Fatalf("a cancel is answered %+v (%v)", answer, err)
	}
	inst := w.state(t, "a", events.Compensated, n)
	found := false
	for _, e := range inst.History {
		found = found || e.Kind == events.EntryAction && e.Code == "cancel" && e.Who == "alice" && strings.Contains(e.Message, "changed her mind")
	}
	if !found {
		t.Errorf("the history is %+v", inst.History)
	}
	answer, err = n.Act(bounded(t), approve("nobody"))
	if err != nil || answer.Done || !answer.Instance.IsZero() {
		t.Errorf("a signal for nobody is answered %+v (%v)", answer, err)
	}
	n.stop(t)
}

func TestAnActionThatMakesNoSenseIsNotSent(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	n := w.start(t, w.approving)
	n.owns(t, 1)
	id := w.id("a")
	for why, a := range map[string]orchestrator.Action{
		"no kind":              {Instance: id},
		"nobody":               {Action: events.Action{Kind: events.ActionResume}},
		"two":                  {Instance: id, Action: events.Action{Kind: events.ActionResume, Definition: "order", Key: "a"}},
		"no key":               {Action: events.Action{Kind: events.ActionResume, Definition: "order"}},
		"no reason":            {Instance: id, Action: events.Action{Kind: events.ActionTerminate, Why: " "}},
		"no name":              {Instance: id, Action: events.Action{Kind: events.ActionSignal}},
		"no outcome":           {Instance: id, Action: events.Action{Kind: events.ActionResolve, Why: "x", Outcome: "perhaps"}},
		"no patch":             {Instance: id, Action: events.Action{Kind: events.ActionPatchData, Why: "x"}},
		"too long a reason":    {Instance: id, Action: events.Action{Kind: events.ActionSuspend, Why: strings.Repeat("x", 1025)}},
		"who is no text":       {Instance: id, Action: events.Action{Kind: events.ActionSuspend, Who: "\xff"}},
		"too large a payload":  {Instance: id, Action: events.Action{Kind: events.ActionSignal, Name: "approve", Payload: make([]byte, 1<<20)}},
		"too long an id":       {Instance: id, Action: events.Action{Kind: events.ActionSuspend, ID: strings.Repeat("x", 600)}},
		"a key beyond its end": {Action: events.Action{Kind: events.ActionSuspend, Definition: "order", Key: strings.Repeat("k", 1025)}},
	} {
		var bad *orchestrator.ActionError
		if _, err := n.Act(bounded(t), a); !errors.As(err, &bad) || bad.Code != orchestrator.CodeBadAction {
			t.Errorf("%s: %v", why, err)
		}
	}
	if got := w.everything(t, w.own().Inbox()); len(got) != 0 {
		t.Errorf("%d records stand in the inbox", len(got))
	}
	// Nobody owns the shard: what was sent stays, and the same id asks again.
	n.stop(t)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := n.Act(ctx, approve("a")); err == nil {
		t.Error("an action is answered by an engine that ended")
	}
}

// L23, L7: what was put aside comes back in order, each once.
func TestWhatWasQuarantinedIsRedrivenInOrderAndOnce(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		n := w.start(t, w.approving)
		n.owns(t, 2)
		w.place(t, 0, "a")
		w.waiting(t, n, "a")
		for _, id := range []string{"second", "third"} { // while the first lives
			r := order("a", "")
			r.Headers = headers(events.HeaderType, "OrderPlaced", events.HeaderID, id)
			w.put(t, w.orders(), 1, r)
		}
		list := func(f orchestrator.Filter) (out []orchestrator.QuarantinedRecord) {
			if err := n.Quarantine(bounded(t), f, func(q orchestrator.QuarantinedRecord) bool { out = append(out, q); return true }); err != nil {
				t.Fatal(err)
			}
			return out
		}
		until(t, "both are in quarantine", func() bool { return len(list(orchestrator.Filter{Key: "a"})) == 2 })
		for i, q := range list(orchestrator.Filter{Key: "a"}) {
			if id, _ := q.Message.Header(events.HeaderID); id != []string{"second", "third"}[i] || q.Message.Topic != w.orders() || q.Reason == "" {
				t.Errorf("record %d of the quarantine is %+v", i, q)
			}
		}
		if got := list(orchestrator.Filter{Key: "a", Topic: "another"}); len(got) != 0 {
			t.Errorf("%d records of another topic", len(got))
		}
		if answer, err := n.Act(bounded(t), approve("a")); err != nil || !answer.Done {
			t.Fatalf("%+v (%v)", answer, err)
		}
		w.state(t, "a", events.Completed, n)
		redrive := func() (n1 int) {
			err := n.Redrive(bounded(t), orchestrator.Filter{Key: "a"}, func(r orchestrator.Redriven) {
				if r.Err != nil || len(r.Shards) != 1 || r.Shards[0] != n.ShardOf("a") {
					t.Errorf("%s/%d is put back into %v (%v)", r.Place, r.Offset, r.Shards, r.Err)
				}
				n1++
			})
			if err != nil {
				t.Fatal(err)
			}
			return n1
		}
		if got := redrive(); got != 2 {
			t.Fatalf("%d records were put back, want 2", got)
		}
		second := events.NewInstanceID(w.app, "order", "a", "second", w.shards*events.SlotsPerShard)
		until(t, "the second order of a waits", func() bool {
			d, ok, err := n.Describe(second)
			return ok && err == nil && len(d.Waits) == 1
		})
		// The third came back while the second lives, and is put aside again; redriven once more, the second is known.
		until(t, "the third is in quarantine again", func() bool { return len(list(orchestrator.Filter{Key: "a"})) == 3 })
		if answer, err := n.Act(bounded(t), approve("a")); err != nil || !answer.Done || answer.Instance != second {
			t.Fatalf("%+v (%v)", answer, err)
		}
		until(t, "the second order of a is completed", func() bool {
			inst, ok, err := n.Get(second)
			return ok && err == nil && inst.State == events.Completed
		})
		redrive()
		third := events.NewInstanceID(w.app, "order", "a", "third", w.shards*events.SlotsPerShard)
		until(t, "the third order of a waits", func() bool {
			d, ok, err := n.Describe(third)
			return ok && err == nil && len(d.Waits) == 1
		})
		started := 0
		if err := n.List(func(i orchestrator.Instance) bool {
			if i.Key == "a" {
				started++
			}
			return true
		}); err != nil || started != 3 {
			t.Errorf("%d instances of a (%v), want 3", started, err)
		}
		if id, ok, err := n.Find("order", "a"); err != nil || !ok || id != third {
			t.Errorf("under its key stands %s (%v, %v), want %s", id, ok, err, third)
		}
		n.stop(t)
	})
}
