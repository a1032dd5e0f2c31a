package orchestrator

import (
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/sagas"
)

// An input may concern several entities, on several shards (L6), and entities talk to each other (L7, L20).

// gift concerns two: whoever gives it, by the record's key, and whoever it is for, by a field.
type gift struct{ For string }

var (
	given = sagas.NewEvent[gift]("orders", "")
	giver = sagas.Define("giver", "1", sagas.StartOn(given, func(gift) order { return order{} }),
		sagas.Step("pay", pay, toCharge, nil).Undo(sagas.With(refund, toCharge)))
	taker = sagas.Define("taker", "1", sagas.StartOn(given.KeyBy(func(g gift) string { return g.For }), func(g gift) order { return order{ID: g.For} }),
		sagas.Step("ship", ship, toCharge, nil).Undo(sagas.With(unship, toCharge)))
)

func newGiftStory(t *testing.T, shards int) *story {
	st := newStory(t, shards, giver)
	st.tune = func(c *ShardConfig) {
		var plans []*sagas.Plan
		for _, d := range []Definition{giver, taker} {
			p, err := d.Plan()
			must(t, err)
			plans = append(plans, p)
		}
		c.Machine = machine.New(machine.Config{App: app, Slots: shards * events.SlotsPerShard, Plans: plans})
	}
	return st
}

func (st *story) gift(partition int32, from, to string) {
	st.kafka.put(events.Message{Topic: "orders", Partition: partition, Key: []byte(from), Value: []byte(`{"For":"` + to + `"}`),
		Headers: []events.Header{{Key: events.HeaderID, Value: []byte("gift-" + from)}}})
}

// landFirst lets the first waiting write through that is an append, or is none, and loses the others.
func (st *story) landFirst(appends bool) {
	st.t.Helper()
	for _, w := range st.kafka.queue {
		if (w.log != nil) == appends {
			st.kafka.write(w, true)
			st.kafka.queue = nil
			return
		}
	}
	st.t.Fatal("nothing waits")
}

func TestAnEventForEntitiesOfTwoShardsIsTakenOnceByEach(t *testing.T) {
	st := newGiftStory(t, 2)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.gift(0, keyOn(0, 2, 1), keyOn(1, 2, 2))
	st.gift(0, keyOn(1, 2, 3), keyOn(1, 2, 4)) // both live elsewhere: one forward
	must(t, st.turn(a0, b1))
	st.wantStates(0, events.Running)
	st.wantStates(1, events.Running, events.Running, events.Running)
	if n := len(st.kafka.messages("shop.inbox", 1)); n != 2 {
		t.Errorf("%d forwards, want one for each event", n)
	}
	if low := a0.byPlace[TopicPartition{"orders", 0}].low(); low != 2 {
		t.Errorf("the position is %d, want 2", low)
	}
}

// L6: what is for this shard is decided, the forward is not acknowledged, crash. The next owner forwards it, and knows
// by its id what was taken here.
func TestAPositionDoesNotPassAnEventOfWhichAForwardIsOpen(t *testing.T) {
	st := newGiftStory(t, 2)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.kafka.manual = true
	st.gift(0, keyOn(0, 2, 1), keyOn(1, 2, 2))
	must(t, st.turn(a0))
	st.landFirst(true) // the decision lands, the forward is lost
	must(t, st.turn(a0))
	st.advance(2 * time.Second)
	must(t, st.turn(a0)) // a progress record, if it came to that
	st.kafka.flush()
	if m := a0.applied.Position(journal.TP{Topic: "orders"}); m.Has(0) {
		t.Error("the event is finished, and its forward is not in any inbox")
	}
	st.kafka.manual = false
	c0 := st.open(0, "c")
	must(t, st.turn(c0, b1))
	st.wantStates(0, events.Running)
	st.wantStates(1, events.Running)
	if n := c0.stats.ignored.Load(); n != 1 {
		t.Errorf("%d inputs ignored, want the start that was decided already", n)
	}
}

// L6: two of one shard; the first one's record lands, and the second's is lost.
func TestAnEventForTwoOfOneShardIsFinishedWithTheLast(t *testing.T) {
	st := newGiftStory(t, 1)
	a := st.open(0, "a")
	st.kafka.manual = true
	st.gift(0, "anna", "bert")
	must(t, st.turn(a))
	if len(st.kafka.queue) != 2 {
		t.Fatalf("%d records wait, want one for each of two", len(st.kafka.queue))
	}
	st.landFirst(true)
	st.kafka.manual = false
	b := st.open(0, "b")
	must(t, st.turn(b))
	st.wantStates(0, events.Running, events.Running)
	st.advance(2 * time.Second)
	must(t, st.turn(b))
	c := st.open(0, "c")
	must(t, st.turn(c))
	if n := c.stats.ignored.Load(); n != 0 {
		t.Errorf("%d inputs were looked at again after both were decided", n)
	}
	st.wantRebuilt(0)
}

// G11: one definition cannot read the event, another one takes it.
func TestWhatOneDefinitionCannotReadIsQuarantinedOnceAndTakenByTheOthers(t *testing.T) {
	for name, from := range map[string]int32{"taken here": 0, "taken elsewhere": 1} {
		t.Run(name, func(t *testing.T) {
			st := newGiftStory(t, 2)
			a0, b1 := st.open(0, "a"), st.open(1, "b")
			st.gift(0, keyOn(from, 2, 1), "") // for nobody: it has no key
			must(t, st.turn(a0, b1))
			st.wantStates(from, events.Running)
			st.wantStates(1 - from)
			q := st.kafka.messages("shop.quarantine", 0)
			if len(q) != 1 {
				t.Fatalf("%d records in quarantine, want 1", len(q))
			}
			if why, _ := q[0].Header(events.HeaderReason); !strings.HasPrefix(why, "taker: "+events.PoisonMissingKey) {
				t.Errorf("it is quarantined for %q", why)
			}
			if low := a0.byPlace[TopicPartition{"orders", 0}].low(); low != 1 {
				t.Errorf("the position is %d, want 1", low)
			}
		})
	}
}

// L6: the record for quarantine is there and its forward is not: the position waits for both.
func TestAPositionWaitsForTheForwardOfWhatIsQuarantinedAsWell(t *testing.T) {
	st := newGiftStory(t, 2)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.kafka.manual = true
	st.gift(0, keyOn(1, 2, 1), "")
	must(t, st.turn(a0))
	var forward *modelWrite
	for i, w := range st.kafka.queue {
		if w.tp.Topic == "shop.inbox" {
			forward = w
			st.kafka.queue = append(st.kafka.queue[:i:i], st.kafka.queue[i+1:]...)
			break
		}
	}
	st.kafka.flush()
	must(t, st.turn(a0)) // it is in quarantine, and that is decided
	st.kafka.flush()
	must(t, st.turn(a0))
	if forward == nil || len(st.kafka.messages("shop.quarantine", 0)) != 1 || a0.applied.Position(journal.TP{Topic: "orders"}).Has(0) {
		t.Fatal("the event is finished with its forward on the way")
	}
	st.kafka.write(forward, true)
	st.kafka.manual = false
	must(t, st.turn(a0, b1))
	if low := a0.byPlace[TopicPartition{"orders", 0}].low(); low != 1 {
		t.Errorf("the position is %d, want 1", low)
	}
	st.wantStates(1, events.Running)
}

// putBack sends what is in quarantine to an inbox, as a redrive does.
func (st *story) putBack(to int32) {
	for _, q := range st.kafka.messages("shop.quarantine", 0) {
		f := events.WrapForward(&q, events.Origin{Topic: q.Topic, Partition: q.Partition, Offset: q.Offset})
		f.Topic, f.Partition = "shop.inbox", to
		st.kafka.put(f)
	}
}

func TestWhatComesBackFromQuarantineIsTakenOnceAsItWasReadFirst(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	original := events.Message{Topic: "orders", Partition: 7, Offset: 42, Key: []byte("k"), Value: []byte(`{"id":"k"}`)}
	q := events.WrapQuarantined(app, &original, "undecodable: by an older build")
	q.Partition = 0
	st.kafka.put(q)
	st.putBack(0)
	st.putBack(0) // an operator asks twice
	must(t, st.turn(a))
	st.wantStates(0, events.Running)
	for _, h := range st.heads(0) {
		if h.Key != "k" {
			t.Errorf("it starts %+v", h)
		}
	}
	if n := a.stats.duplicates.Load(); n != 1 {
		t.Errorf("%d duplicates, want 1", n)
	}
	id := events.NewInstanceID(app, "one", "k", "orders-7-42", events.SlotsPerShard)
	if st.heads(0)[id] == nil {
		t.Error("its id is not that of the place it was first read at")
	}
}
