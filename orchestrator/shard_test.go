package orchestrator

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

type orderPlaced struct{ ID string }
type order struct{ ID string }
type charge struct{ ID string }
type charged struct{}

var (
	placed = sagas.NewEvent[orderPlaced]("orders", "")
	pay    = sagas.NewCommand[charge, charged]("payments", "pay")
	refund = sagas.NewCommand[charge, charged]("payments", "refund")
	ship   = sagas.NewCommand[charge, charged]("shipping", "ship")
	unship = sagas.NewCommand[charge, charged]("shipping", "unship")
)

func toCharge(o order) charge { return charge(o) }

var oneStep = sagas.Define("one", "1", sagas.StartOn(placed, func(e orderPlaced) order { return order(e) }),
	sagas.Step("pay", pay, toCharge, nil).Undo(sagas.With(refund, toCharge)))

var twoSteps = sagas.Define("two", "1", sagas.StartOn(placed, func(e orderPlaced) order { return order(e) }),
	sagas.Seq(
		sagas.Step("pay", pay, toCharge, nil).Undo(sagas.With(refund, toCharge)),
		sagas.Step("ship", ship, toCharge, nil).Undo(sagas.With(unship, toCharge)),
	))

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestASagaCompletes(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	if len(ids) != 1 {
		t.Fatalf("%d commands, want 1", len(ids))
	}
	st.reply(0, ids[0], "")
	must(t, st.turn(a))
	st.wantStates(0, events.Completed)
	st.wantRebuilt(0)
}

// G5, L14: nothing leaves before the journal acknowledged the decision.
func TestNothingIsEmittedBeforeItsRecordIsAcknowledged(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true
	st.order(0, "x")
	must(t, st.turn(a))
	if ids, _ := st.commands("payments"); len(ids) != 0 || len(st.kafka.queue) != 1 {
		t.Fatalf("%d commands out and %d writes waiting before the ack, want 0 and the append", len(ids), len(st.kafka.queue))
	}
	st.wantStates(0)
	st.kafka.step()
	must(t, st.turn(a))
	st.kafka.flush()
	if ids, _ := st.commands("payments"); len(ids) != 1 {
		t.Errorf("%d commands after the ack, want 1", len(ids))
	}
}

// Decisions run ahead: a second input of the same instance is decided before the first is acknowledged.
func TestDecisionsRunAheadOfAcknowledgements(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true
	for _, k := range []string{"x", "y", "z"} {
		st.order(0, k)
	}
	must(t, st.turn(a))
	if n := len(a.inflight); n != 3 {
		t.Fatalf("%d decisions in flight, want 3", n)
	}
	st.kafka.flush()
	must(t, st.turn(a))
	st.wantStates(0, events.Running, events.Running, events.Running)
}

// The owner dies between append and ack: the record is in the journal, the command is not out. The next
// owner emits it, under the id the dead one decided.
func TestAnOwnerThatDiesBeforeItsAckIsContinued(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true
	st.order(0, "x")
	must(t, st.turn(a))
	st.kafka.write(st.kafka.queue[0], false) // in the log; the ack is never seen
	st.kafka.queue = nil
	st.kafka.manual = false
	b := st.open(0, "b")
	must(t, st.turn(b))
	ids, repeats := st.commands("payments")
	if len(ids) != 1 || repeats != 0 {
		t.Fatalf("%d commands and %d repeats, want 1 and 0", len(ids), repeats)
	}
	st.reply(0, ids[0], "")
	must(t, st.turn(b))
	st.wantStates(0, events.Completed)
	st.wantRebuilt(0)
}

// The owner dies with its record lost: nothing was decided, and the next owner decides the input.
func TestALostRecordWasNeverDecided(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true
	st.order(0, "x")
	must(t, st.turn(a))
	st.kafka.queue = nil
	st.kafka.manual = false
	b := st.open(0, "b")
	must(t, st.turn(b))
	if ids, _ := st.commands("payments"); len(ids) != 1 {
		t.Fatalf("%d commands, want 1", len(ids))
	}
	st.wantStates(0, events.Running)
}

// The owner dies between ack and emission progress: the next one sends the same command again, with the
// same id and bytes (L14); the store is lost as well.
func TestTheTailIsEmittedAgainUnderTheSameIDs(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	st.lose(0)
	b := st.open(0, "b")
	must(t, st.turn(b))
	ids, repeats := st.commands("payments")
	if len(ids) != 1 || repeats != 1 {
		t.Fatalf("%d commands and %d repeats, want 1 and 1", len(ids), repeats)
	}
	// Once the progress is journaled, nobody sends it again.
	st.advance(2 * time.Second)
	must(t, st.turn(b))
	c := st.open(0, "c")
	must(t, st.turn(c))
	if _, repeats := st.commands("payments"); repeats != 1 {
		t.Errorf("%d repeats after the progress was journaled, want 1", repeats)
	}
}

// G9: an owner is paused, its shard moves, it wakes: its appends do not count and it stops.
func TestAPausedOwnerThatWakesChangesNothing(t *testing.T) {
	st := newStory(t, 1, twoSteps)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	b := st.open(0, "b")
	must(t, st.turn(b))
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	must(t, st.turn(b))
	if ids, _ := st.commands("shipping"); len(ids) != 1 {
		t.Fatalf("the new owner sent %d commands, want 1", len(ids))
	}
	// a still has the reply in its hands, from before the pause.
	a.Records(TopicPartition{"shop.replies", 0}, st.kafka.messages("shop.replies", 0))
	err := st.turn(a)
	if !errors.Is(err, ErrClaimLost) {
		t.Fatalf("the woken owner ends with %v, want ErrClaimLost", err)
	}
	if ids, repeats := st.commands("shipping"); len(ids) != 1 || repeats != 0 {
		t.Errorf("%d commands and %d repeats after the zombie woke, want 1 and 0", len(ids), repeats)
	}
	st.advance(time.Second)
	must(t, st.turn(b)) // b sees a foreign record before its own, reads back, and goes on
	st.order(0, "y")
	must(t, st.turn(b))
	st.wantStates(0, events.Running, events.Running)
	st.wantRebuilt(0)
}

// L3: an ack below the expected offset means that acknowledged records are gone.
func TestATruncatedJournalEndsTheEpoch(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	p := st.kafka.part(TopicPartition{"shop.journal", 0})
	p.records = p.records[:len(p.records)-1]
	st.order(0, "y")
	if err := st.turn(a); !errors.Is(err, ErrTruncated) {
		t.Fatalf("ends with %v, want ErrTruncated", err)
	}
	// The store is ahead of the journal now: it is not trusted (L4).
	if _, err := OpenShard(context.Background(), st.config(0, "a")); !errors.Is(err, ErrUntrusted) {
		t.Errorf("the store of another history opens with %v, want ErrUntrusted", err)
	}
}

// L4: a store of the same length but another history is found out by its hash.
func TestAStoreOfAnotherHistoryIsNotTrusted(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	other := newStory(t, 1, oneStep)
	b := other.open(0, "b")
	other.order(0, "other")
	must(t, other.turn(b))
	other.order(0, "more")
	must(t, other.turn(b))
	st.stores[0], other.stores[0] = other.stores[0], st.stores[0]
	for _, s := range []*story{st, other} {
		if _, err := OpenShard(context.Background(), s.config(0, "c")); !errors.Is(err, ErrUntrusted) {
			t.Errorf("opens with %v, want ErrUntrusted", err)
		}
	}
}

// L7: a start and a reply that land on a foreign shard's partition are forwarded, and taken once although
// the sender dies and its successor forwards them again.
func TestAForwardIsTakenOnce(t *testing.T) {
	st := newStory(t, 2, oneStep)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	key := keyOn(1, 2, 1)
	st.order(0, key) // belongs to shard 1
	must(t, st.turn(a0, b1))
	ids, _ := st.commands("payments")
	if len(ids) != 1 {
		t.Fatalf("%d commands, want 1", len(ids))
	}
	// The sender dies before its position is journaled; its successor forwards again.
	c0 := st.open(0, "c")
	must(t, st.turn(c0, b1))
	if n := len(st.kafka.messages("shop.inbox", 1)); n != 2 {
		t.Fatalf("%d forwards, want 2: the second sender repeats the first", n)
	}
	st.reply(0, ids[0], "")
	must(t, st.turn(c0, b1))
	st.wantStates(1, events.Completed)
	st.wantStates(0)
	if got := b1.stats.duplicates.Load(); got != 1 {
		t.Errorf("%d duplicates dropped, want 1", got)
	}
	st.wantRebuilt(1)
}

// L6: 50 is being forwarded, 51 is decided here, crash: the position must not have passed 50.
func TestAPositionDoesNotPassAnUnacknowledgedForward(t *testing.T) {
	st := newStory(t, 2, oneStep)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.kafka.manual = true
	st.order(0, keyOn(1, 2, 1)) // to be forwarded
	st.order(0, keyOn(0, 2, 2)) // decided here
	must(t, st.turn(a0))
	for i, w := range st.kafka.queue {
		if w.log != nil { // the decision is acknowledged, the forward is lost
			st.kafka.write(w, true)
			st.kafka.queue = append(st.kafka.queue[:i:i], st.kafka.queue[i+1:]...)
			break
		}
	}
	must(t, st.turn(a0))
	st.advance(2 * time.Second)
	must(t, st.turn(a0)) // a progress record, if it came to that
	st.kafka.queue, st.kafka.manual = nil, false
	c0 := st.open(0, "c")
	must(t, st.turn(c0, b1))
	st.wantStates(0, events.Running)
	st.wantStates(1, events.Running)
}

// L10: the replies waited in the inbox while nobody owned the shard; they are taken before any timer fires.
func TestTimersWaitForTheBacklog(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	st.advance(time.Hour)
	b := st.open(0, "b")
	must(t, st.turn(b))
	st.wantStates(0, events.Completed)
	if n := st.timersFired(0); n != 0 {
		t.Errorf("%d timers fired before the backlog was decided", n)
	}
}

func TestATimedOutAttemptIsRepeatedAndThenUndone(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	for range 40 {
		st.advance(15 * time.Second)
		must(t, st.turn(a))
	}
	ids, _ := st.commands("payments")
	var undo string
	for _, m := range st.kafka.messages("payments", 0) {
		if phase, _ := m.Header(events.HeaderSagaPhase); phase == "compensate" {
			undo, _ = m.Header(events.HeaderID)
		}
	}
	if len(ids) < 4 || undo == "" {
		t.Fatalf("%d commands, undo %q: want three attempts and an undo", len(ids), undo)
	}
	st.reply(0, undo, "")
	must(t, st.turn(a))
	st.wantStates(0, events.Compensated)
	st.wantRebuilt(0)
}

// L14: a topic that is gone refuses its commands; the attempt is unknown, and progress passes it.
func TestARefusedCommandBecomesAnInput(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.kafka.refused["payments"] = ErrRefused
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	st.advance(2 * time.Second)
	must(t, st.turn(a))
	if a.applied.EmittedSeq == 0 {
		t.Error("progress does not pass a refused command")
	}
	delete(st.kafka.refused, "payments")
	st.advance(time.Minute)
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	if len(ids) != 1 {
		t.Fatalf("%d commands after the topic came back, want the next attempt", len(ids))
	}
	st.reply(0, ids[0], "")
	must(t, st.turn(a))
	st.wantStates(0, events.Completed)
}

// L14: an event that Kafka refuses for good holds nobody up, and the history says that the world was not told.
func TestARefusedEventStandsInTheHistory(t *testing.T) {
	told := sagas.NewEvent[order]("orders-told", "Told")
	telling := sagas.Define("telling", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("orders", ""), func(e orderPlaced) order { return order(e) }),
		sagas.Seq[order](sagas.Emit("tell", told, func(o order) order { return o }), sagas.Step("pay", pay, toCharge, nil).Undo(sagas.With(refund, toCharge)).Timeout(time.Minute)))
	st := newStory(t, 1, telling)
	st.kafka.refused["orders-told"] = ErrRefused
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	st.advance(2 * time.Second)
	must(t, st.turn(a))
	if a.applied.EmittedSeq == 0 {
		t.Error("progress does not pass a refused event")
	}
	var undelivered []events.Entry
	for _, rec := range st.kafka.part(TopicPartition{"shop.journal", 0}).records {
		r, err := events.DecodeRecord(rec.Value)
		must(t, err)
		if r.Decision != nil {
			for _, e := range r.Decision.Entries {
				if e.Kind == events.EntryUndelivered {
					undelivered = append(undelivered, e)
					if in := r.Decision.Input; in.Kind != events.InputRefused || in.MessageID == "" {
						t.Errorf("the input is %+v", in)
					}
				}
			}
		}
	}
	if len(undelivered) != 1 || undelivered[0].Step != "tell" || undelivered[0].Code != "refused" || undelivered[0].Message == "" {
		t.Errorf("the journal says %+v", undelivered)
	}
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	must(t, st.turn(a))
	st.wantStates(0, events.Completed)
	st.wantRebuilt(0)
	// One that is refused when its saga has ended stands there as well.
	last := sagas.Define("last", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("orders", ""), func(e orderPlaced) order { return order(e) }),
		sagas.Emit("tell", told, func(o order) order { return o }))
	st = newStory(t, 1, last)
	st.kafka.refused["orders-told"] = ErrRefused
	a = st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	st.wantStates(0, events.Completed)
	for _, h := range st.heads(0) {
		if h.Entries != 4 { // started, emitted, completed, undelivered
			t.Errorf("the history has %d entries", h.Entries)
		}
	}
	st.wantRebuilt(0)
}

// G11: what nobody can read is quarantined; its neighbours go on.
func TestPoisonIsQuarantinedAndItsNeighboursGoOn(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.put(events.Message{Topic: "orders", Key: []byte("k"), Value: []byte("{not json")})
	st.kafka.put(events.Message{Topic: "orders", Key: []byte("k")})
	st.kafka.put(events.Message{Topic: "orders", Value: []byte("{}")})
	st.kafka.put(events.Message{Topic: "shop.replies", Value: []byte("{}")})
	st.kafka.put(events.Message{Topic: "shop.replies", Value: []byte("{}"), Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte("forged")}}})
	st.kafka.put(events.Message{Topic: "shop.inbox", Key: []byte("k"), Value: []byte("{}")})
	st.order(0, "good")
	must(t, st.turn(a))
	st.wantStates(0, events.Running)
	q := st.kafka.messages("shop.quarantine", 0)
	if len(q) != 6 {
		t.Fatalf("%d records in quarantine, want 6", len(q))
	}
	for _, m := range q {
		if why, ok := m.Header(events.HeaderReason); !ok || why == "" {
			t.Errorf("%s is quarantined without a reason", m.Place())
		}
	}
	st.advance(2 * time.Second)
	must(t, st.turn(a))
	b := st.open(0, "b")
	must(t, st.turn(b))
	if n := len(st.kafka.messages("shop.quarantine", 0)); n != 6 {
		t.Errorf("%d records in quarantine after a new owner, want the same 6", n)
	}
}

// LOG §1: rounds of compaction under load keep the rows; a reader of what is left sees the same.
func TestCompactionKeepsTheRows(t *testing.T) {
	st := newStory(t, 1, twoSteps)
	st.tune = func(c *ShardConfig) { c.CompactAfter = 4 << 10 }
	a := st.open(0, "a")
	for i := range 120 {
		st.order(0, keyOn(0, 1, i))
		must(t, st.turn(a))
		ids, _ := st.commands("payments")
		if i%2 == 0 {
			st.reply(0, ids[len(ids)-1], "")
		}
		if i%7 == 0 {
			st.advance(time.Second)
		}
		must(t, st.turn(a))
	}
	orders := 120
	waitFor(t, func() bool {
		st.order(0, keyOn(0, 1, orders))
		orders++
		must(t, st.turn(a))
		a.background.Wait()
		must(t, st.turn(a))
		return a.stats.rounds.Load() >= 5
	})
	if start := st.kafka.part(TopicPartition{"shop.journal", 0}).start; start == 0 {
		t.Error("nothing was trimmed")
	}
	st.wantRebuilt(0)
	st.lose(0)
	b := st.open(0, "b")
	st.order(0, "after")
	must(t, st.turn(b))
	if n := len(st.heads(0)); n != orders+1 {
		t.Errorf("%d instances after a rebuild from the compacted journal, want %d", n, orders+1)
	}
}

func TestAFinalInstanceIsPurgedAfterItsRetention(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	must(t, st.turn(a))
	st.wantStates(0, events.Completed)
	st.advance(st.plan.Retention + time.Second)
	must(t, st.turn(a))
	st.wantStates(0)
	if n, _ := rowsOf(t, st, 0); n != 0 {
		t.Errorf("%d rows are left after the purge", n)
	}
	st.wantRebuilt(0)
}

// A graceful hand-over leaves nothing to repeat.
func TestAHandOverLeavesNothingToRepeat(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	must(t, a.drain())
	a.close()
	b := st.open(0, "b")
	must(t, st.turn(b))
	if ids, repeats := st.commands("payments"); len(ids) != 1 || repeats != 0 {
		t.Errorf("%d commands and %d repeats after a hand-over, want 1 and 0", len(ids), repeats)
	}
}

// L3: a record of the last owner lands after the new one read the journal and before its claim. The new
// owner must know it before it decides.
func TestWhatLandsBeforeTheClaimIsRead(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true
	st.order(0, "x")
	must(t, st.turn(a)) // its append waits, ahead of b's claim
	b := st.open(0, "b")
	st.kafka.manual = false
	must(t, st.turn(b))
	ids, repeats := st.commands("payments")
	if len(ids) != 1 {
		t.Fatalf("%d commands (%d repeats), want the one that was decided", len(ids), repeats)
	}
	st.reply(0, ids[0], "")
	must(t, st.turn(b))
	st.wantStates(0, events.Completed)
	st.wantRebuilt(0)
}

// L5: B cannot reach A though A lives. Whoever lost its claim to a later generation waits until it takes
// part in that one; in the same or an older one it may claim back, after a while.
func TestWhoLostToALaterGenerationDoesNotClaimBack(t *testing.T) {
	lost := &claimLost{node: "b", term: 2, generation: 7}
	for own, want := range map[int32]bool{6: false, 7: true, 8: true} {
		if got := lost.mayClaimBack(own); got != want {
			t.Errorf("in generation %d: may claim back is %v, want %v", own, got, want)
		}
	}
}

// L8: the first owner starts at the end of a topic and dies before it decides anything; what arrived
// meanwhile is not skipped by the next one.
func TestAStartPositionIsJournaledBeforeTheFirstPoll(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.From = FromLatest }
	st.order(0, "before")
	st.open(0, "a")
	st.order(0, "meanwhile")
	b := st.open(0, "b")
	must(t, st.turn(b))
	st.wantStates(0, events.Running)
}

// L8: a domain partition that appears later is read from its start.
func TestAPartitionThatAppearsLaterIsReadFromItsStart(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.From = FromLatest }
	st.open(0, "a")
	st.order(1, "early")
	st.tune = func(c *ShardConfig) {
		c.From = FromLatest
		c.Domain = map[string]int{"orders": 2}
		c.Inputs = []TopicPartition{{"orders", 0}, {"orders", 1}}
	}
	b := st.open(0, "b")
	must(t, st.turn(b))
	st.wantStates(0, events.Running)
}

// A position below the log's start halts that input, and no other.
func TestAPositionBelowTheLogsStartHaltsThatInput(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	for _, k := range []string{"lost", "gone"} {
		st.kafka.Stop(TopicPartition{"orders", 0})
		st.order(0, k)
	}
	must(t, st.kafka.DeleteRecords(context.Background(), TopicPartition{"orders", 0}, 2))
	b := st.open(0, "b")
	must(t, st.turn(b))
	if in := b.byPlace[TopicPartition{"orders", 0}]; !in.failed {
		t.Error("the input goes on although records are lost")
	}
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	must(t, st.turn(b))
	st.wantStates(0, events.Completed)
}

// L11: an owner whose clock is an hour ahead fires nothing early.
func TestAClockAnHourAheadFiresNothingEarly(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	st.tune = func(c *ShardConfig) {
		clock := c.Clock
		c.Clock = func() int64 { return clock() + time.Hour.Milliseconds() }
	}
	b := st.open(0, "b")
	must(t, st.turn(b))
	if n := st.timersFired(0); n != 0 {
		t.Errorf("%d timers fired early", n)
	}
	st.advance(31 * time.Second)
	must(t, st.turn(b))
	if n := st.timersFired(0); n != 1 {
		t.Errorf("%d timers fired in their time, want 1", n)
	}
}

// LOG §1: a row whose record is in flight when the checkpoint is appended is not in the store yet; it must
// be carried all the same.
func TestARowInFlightAtTheCheckpointIsCarried(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.CompactAfter = 2 << 10 }
	a := st.open(0, "a")
	for i := range 3 {
		st.order(0, keyOn(0, 1, i))
	}
	a.cfg.CompactAfter = 1 << 40
	must(t, st.turn(a))
	st.kafka.manual = true
	st.order(0, "in-flight")
	must(t, st.turn(a))
	a.cfg.CompactAfter = 1
	must(t, st.turn(a)) // the checkpoint goes behind the decision
	must(t, st.turn(a)) // a walk now would not see the row
	for a.round != nil || a.stats.rounds.Load() == 0 {
		st.kafka.flush()
		must(t, st.turn(a))
		a.cfg.CompactAfter = 1 << 40
	}
	st.wantRebuilt(0)
}

// LOG §1: nothing is deleted while a carry may still be lost.
func TestNothingIsTrimmedBeforeTheLastCarryIsAcknowledged(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	for i := range 3 {
		st.order(0, keyOn(0, 1, i))
	}
	must(t, st.turn(a))
	a.cfg.CompactAfter = 1
	_, err := a.Turn(context.Background())
	must(t, err)
	a.cfg.CompactAfter = 1 << 40
	st.kafka.manual = true
	must(t, st.turn(a)) // the walk: its carries wait
	must(t, st.turn(a)) // and again, with nothing acknowledged
	if a.round == nil || a.round.end == 0 || len(st.kafka.queue) == 0 {
		t.Fatal("no carry is in flight: the test proves nothing")
	}
	a.background.Wait()
	if start := st.kafka.part(TopicPartition{"shop.journal", 0}).start; start != 0 {
		t.Fatalf("trimmed to %d while a carry is in flight", start)
	}
	st.kafka.flush()
	must(t, st.turn(a))
	a.background.Wait()
	if start := st.kafka.part(TopicPartition{"shop.journal", 0}).start; start == 0 {
		t.Error("not trimmed after the last carry was acknowledged")
	}
	st.wantRebuilt(0)
}

// What a walk carries stands in memory until it is acknowledged: a broker that is slow must not let it grow.
func TestAWalkIsNoFasterThanItsAcknowledgements(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	for i := range 2_000 { // several turns' worth
		st.order(0, keyOn(0, 1, i))
	}
	must(t, st.turn(a))
	a.cfg.CompactAfter = 1
	_, err := a.Turn(context.Background())
	must(t, err)
	a.cfg.CompactAfter = 1 << 40
	st.kafka.manual = true
	for range 100 {
		_, err := a.Turn(context.Background())
		must(t, err)
	}
	if a.round == nil || a.round.end != 0 || len(st.kafka.queue) == 0 {
		t.Fatal("no walk is under way: the test proves nothing")
	}
	if n := a.round.carried; n > 2*carryBytes {
		t.Errorf("%d bytes are carried before any of them is acknowledged", n)
	}
	for a.round != nil {
		st.kafka.flush()
		must(t, st.turn(a))
		a.background.Wait()
	}
	st.wantRebuilt(0)
}

// G11: an instance whose rows contradict each other, in the store and in the journal alike, costs one
// rebuild, and then its neighbours go on without it.
func TestACorruptInstanceDoesNotStopItsNeighbours(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	cmd, err := events.ParseCommandID(app, ids[0])
	must(t, err)
	a.append(&events.Record{Kind: events.KindDecision, Decision: &events.Decision{Outcome: events.Applied, Instance: cmd.Instance,
		Rows: []events.RowChange{{Ref: events.RowRef{Part: events.PartHead}, Due: st.kafka.now + 10, Value: []byte{0xff}}}}})
	must(t, st.turn(a))
	a = st.open(0, "a")
	st.reply(0, ids[0], "")
	if err := st.turn(a); !errors.Is(err, ErrStoreFailed) {
		t.Fatalf("ends with %v, want ErrStoreFailed: the store is in doubt", err)
	}
	st.lose(0)
	b := st.open(0, "b")
	st.advance(time.Minute)
	st.order(0, "y")
	must(t, st.turn(b))
	if ids, _ := st.commands("payments"); len(ids) != 2 {
		t.Errorf("%d commands, want the neighbour's as well", len(ids))
	}
}

// The last offsets of a partition that is written in transactions hold no record: the backlog is decided
// all the same, and timers fire.
func TestAPartitionThatEndsWithoutARecordIsNoBacklog(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	st.order(0, "marker")
	replies := TopicPartition{"orders", 0}
	st.kafka.mu.Lock()
	st.kafka.sinks[replies].next++ // b's reader will not see a record there
	st.kafka.mu.Unlock()
	b := st.open(0, "b")
	b.byPlace[replies].queue, b.mail.records = nil, nil
	st.advance(time.Minute)
	b.cfg.BacklogWait = time.Hour
	must(t, st.turn(b))
	if n := st.timersFired(0); n != 0 {
		t.Fatalf("%d timers fired before the end was reached", n)
	}
	b.Reached(replies, 2)
	must(t, st.turn(b))
	if n := st.timersFired(0); n != 1 {
		t.Errorf("%d timers fired after the end was reached, want 1", n)
	}
}

// G9: an owner is paused; its shard moves, the new owner compacts and trims the journal past what the old one
// knows. It wakes: the claim that superseded it is gone from the journal, and must not be taken for absent.
func TestAnOwnerThatWakesAfterATrimChangesNothing(t *testing.T) {
	st := newStory(t, 1, twoSteps)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	b := st.open(0, "b")
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	must(t, st.turn(b))
	b.cfg.CompactAfter = 1
	_, err := b.Turn(context.Background())
	must(t, err)
	b.cfg.CompactAfter = 1 << 40
	for b.stats.rounds.Load() == 0 {
		must(t, st.turn(b))
		b.background.Wait()
	}
	if start := st.kafka.part(TopicPartition{"shop.journal", 0}).start; start <= a.expect {
		t.Fatalf("trimmed to %d, the sleeper knows up to %d: the test proves nothing", start, a.expect)
	}
	before, _ := st.commands("shipping")
	a.Records(TopicPartition{"shop.replies", 0}, st.kafka.messages("shop.replies", 0))
	if err := st.turn(a); !errors.Is(err, ErrClaimLost) {
		t.Fatalf("the woken owner ends with %v, want ErrClaimLost", err)
	}
	if after, repeats := st.commands("shipping"); len(after) != len(before) || repeats != 0 {
		t.Errorf("%d commands and %d repeats after the zombie woke, want %d and 0", len(after), repeats, len(before))
	}
	must(t, st.turn(b))
	st.wantRebuilt(0)
}
