package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

// L6, L7: the receiver is still quarantining forward 0 when it takes forward 1, whose low mark says that
// everything below 1 is in the inbox. It dies. Its successor reads forward 0 again and takes it for a
// duplicate: it is neither decided nor quarantined.
func TestAForwardThatWasBeingQuarantinedIsNotADuplicate(t *testing.T) {
	st := newStory(t, 2, oneStep)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.kafka.put(events.Message{Topic: "orders", Key: []byte(keyOn(1, 2, 1)), Value: []byte("{not json")})
	must(t, st.turn(a0)) // forwarded and acknowledged
	st.order(0, keyOn(1, 2, 2))
	must(t, st.turn(a0))
	if n := len(st.kafka.messages("shop.inbox", 1)); n != 2 {
		t.Fatalf("%d forwards, want 2", n)
	}
	st.kafka.manual = true
	must(t, st.turn(b1))
	for len(st.kafka.queue) > 0 { // the decisions are acknowledged, the quarantine is not
		w := st.kafka.queue[0]
		st.kafka.queue = st.kafka.queue[1:]
		if w.log != nil {
			st.kafka.write(w, true)
		}
	}
	must(t, st.turn(b1))
	st.kafka.queue, st.kafka.manual = nil, false
	c1 := st.open(1, "c")
	must(t, st.turn(c1))
	if n := len(st.kafka.messages("shop.quarantine", 0)); n != 1 {
		t.Errorf("%d records in quarantine, want 1: the record vanished (duplicates dropped: %d, position %d)", n, c1.stats.duplicates.Load(), c1.byPlace[TopicPartition{"shop.inbox", 1}].low())
	}
}

// markers is a cluster where some partitions end with the marker of a transaction.
type markers struct {
	*model
	at map[TopicPartition]bool
}

func (m markers) Bounds(ctx context.Context, tps []TopicPartition) (map[TopicPartition]Bounds, error) {
	b, err := m.model.Bounds(ctx, tps)
	for tp := range b {
		if m.at[tp] {
			b[tp] = Bounds{b[tp].Start, b[tp].End + 1}
		}
	}
	return b, err
}

// DeleteRecords is left out: the model holds no markers to delete.
func (m markers) DeleteRecords(context.Context, TopicPartition, int64) error { return nil }

// Consume tells a sink that wants it how far it is, as connectors/kafka does.
func (m markers) Consume(tp TopicPartition, from int64, sink Sink) {
	m.model.Consume(tp, from, sink)
	if r, ok := sink.(interface {
		Reached(TopicPartition, int64)
	}); ok && m.at[tp] {
		b, _ := m.Bounds(context.Background(), []TopicPartition{tp})
		r.Reached(tp, b[tp].End)
	}
}

// Participants write replies in transactions; the replies partition ends with a commit marker when the
// shard is taken over. No timer ever fires, and the journal is never compacted, until a further reply comes.
func TestTimersFireThoughTheRepliesEndWithATransactionMarker(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "")
	st.order(0, "y")
	must(t, st.turn(a))
	st.tune = func(c *ShardConfig) {
		c.Kafka = markers{st.kafka, map[TopicPartition]bool{{"shop.replies", 0}: true}}
	}
	b := st.open(0, "b")
	for range 100 {
		st.advance(time.Minute)
		must(t, st.turn(b))
	}
	if n := st.timersFired(0); n == 0 {
		t.Errorf("no timer fired in 100 minutes, backlog %v", b.backlog)
	}
}

// A domain topic is written in transactions and its retention removes everything, markers included, while
// it is idle. Nothing is lost, and yet the input halts for ever at the next hand-over.
func TestAnInputWhoseLastOffsetWasAMarkerIsNotHaltedByRetention(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.order(0, "x")
	st.tune = func(c *ShardConfig) {
		c.Kafka = markers{st.kafka, map[TopicPartition]bool{{"orders", 0}: true}}
	}
	a := st.open(0, "a")
	must(t, st.turn(a))
	st.advance(2 * time.Second)
	must(t, st.turn(a))
	must(t, a.drain())
	a.close()
	st.tune = nil
	p := st.kafka.part(TopicPartition{"orders", 0})
	p.start, p.msgs = 2, nil // record 0, marker 1: both expired
	b := st.open(0, "b")
	st.order(0, "y")
	must(t, st.turn(b))
	if ids, _ := st.commands("payments"); len(ids) != 2 {
		t.Errorf("%d commands, want 2; the input failed: %v", len(ids), b.byPlace[TopicPartition{"orders", 0}].failed)
	}
}

// limited is a cluster whose inbox refuses what is larger than a message may be.
type limited struct{ *model }

func (m limited) Produce(msg *events.Message, done func(error)) {
	if len(msg.Key)+len(msg.Value) > 1<<20 {
		done(fmt.Errorf("%w: message too large", ErrRefused))
		return
	}
	m.model.Produce(msg, done)
}

// G11: a reply that fits its topic and not, wrapped, the inbox ends the shard, again and again.
func TestAForwardThatIsRefusedDoesNotStopTheShard(t *testing.T) {
	st := newStory(t, 2, oneStep)
	st.tune = func(c *ShardConfig) { c.Kafka = limited{st.kafka} }
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.order(1, keyOn(1, 2, 1))
	must(t, st.turn(a0, b1))
	ids, _ := st.commands("payments")
	st.kafka.put(events.Message{Topic: "shop.replies", Partition: 0, Key: make([]byte, 800<<10), Value: make([]byte, 300<<10),
		Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte(ids[0])}}})
	err := st.turn(a0)
	for i := range 3 {
		if err == nil {
			break
		}
		t.Logf("owner %d ended: %v", i, err)
		a0 = st.open(0, "a")
		err = st.turn(a0)
	}
	if err != nil {
		t.Errorf("the shard ends again and again: %v", err)
	}
}

// narrow is a cluster whose inbox was made for smaller records than the domain topics have.
type narrow struct{ *model }

func (m narrow) Produce(msg *events.Message, done func(error)) {
	if msg.Topic == "shop.inbox" && sizeOf(msg) > 64<<10 {
		done(fmt.Errorf("%w: inbox", ErrTooLarge))
		return
	}
	m.model.Produce(msg, done)
}

// G11: what fits no inbox, though no rule of ours is broken, goes to quarantine as it was read; its neighbours go on,
// and whoever takes over does not do it again.
func TestAForwardThatFitsNoInboxGoesToQuarantine(t *testing.T) {
	st := newStory(t, 2, oneStep)
	st.tune = func(c *ShardConfig) { c.Kafka = narrow{st.kafka} }
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	key := keyOn(1, 2, 1)
	st.order(1, key)
	must(t, st.turn(a0, b1))
	ids, _ := st.commands("payments")
	large := events.Message{Topic: "shop.replies", Partition: 0, Key: []byte(key), Value: make([]byte, 100<<10),
		Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte(ids[0])}}}
	st.kafka.put(large)
	st.reply(0, ids[0], "") // the same answer, smaller, behind it
	must(t, st.turn(a0, b1))
	st.wantStates(1, events.Completed)
	put := st.kafka.messages("shop.quarantine", 0)
	if len(put) != 1 {
		t.Fatalf("%d records in quarantine, want 1", len(put))
	}
	was, reason, ok := events.UnwrapQuarantined(&put[0])
	if !ok || was.Place() != "shop.replies/0/0" || len(was.Value) != len(large.Value) || len(was.Headers) != 1 || !strings.HasPrefix(reason, events.PoisonOversize+":") {
		t.Errorf("%s with %d headers is in quarantine: %s", was.Place(), len(was.Headers), reason)
	}
	st.advance(2 * time.Second)
	must(t, st.turn(a0))
	c0 := st.open(0, "c")
	must(t, st.turn(c0, b1))
	if n := len(st.kafka.messages("shop.quarantine", 0)); n != 1 {
		t.Errorf("%d records in quarantine after a take-over, want 1", n)
	}
}

func (st *story) compare(id int32, live *journal.State, rows store.Scanner) (Comparison, error) {
	st.t.Helper()
	return Compare(context.Background(), st.kafka.Log("shop.journal", id), live, rows, store.NewMemory(), slog.New(slog.DiscardHandler))
}

func (st *story) state(id int32) *journal.State {
	st.t.Helper()
	row, err := st.stores[id].State()
	must(st.t, err)
	live, err := journal.DecodeState(row)
	must(st.t, err)
	return live
}

// G7: a mark that held a span once and is empty again compares unequal: nil against empty.
func TestACheckFindsAStoreEqualAfterAForwardWasOvertaken(t *testing.T) {
	st := newStory(t, 2, oneStep)
	a0 := st.open(0, "a")
	st.kafka.manual = true
	st.order(0, keyOn(1, 2, 1)) // to be forwarded
	st.order(0, keyOn(0, 2, 2)) // decided meanwhile
	must(t, st.turn(a0))
	st.kafka.flush()
	st.kafka.manual = false
	must(t, st.turn(a0))
	st.order(0, keyOn(0, 2, 3))
	must(t, st.turn(a0))
	c, err := st.compare(0, st.state(0), st.stores[0])
	must(t, err)
	if !c.Equal {
		t.Errorf("the rebuild differs, though the rows are the same: %v", c.LiveHash == c.Hash)
	}
}

// The snapshot is taken in the middle of a compaction round, the round ends and trims before the rebuild
// reads the journal's start: the rebuild lacks the rows carried after the snapshot.
func TestACheckThatMeetsATrimDoesNotReportADifference(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	for i := range 3 {
		st.order(0, keyOn(0, 1, i))
	}
	must(t, st.turn(a))
	a.cfg.CompactAfter = 1
	_, err := a.Turn(context.Background()) // the checkpoint goes out
	must(t, err)
	a.cfg.CompactAfter = 1 << 40
	st.kafka.manual = true
	must(t, st.turn(a)) // it is acknowledged, and the walk's carries wait
	snap, err := st.stores[0].Snapshot()
	must(t, err)
	defer snap.Close()
	live := st.state(0)
	st.kafka.flush()
	must(t, st.turn(a))
	a.background.Wait()
	if st.kafka.part(TopicPartition{"shop.journal", 0}).start == 0 {
		t.Fatal("nothing was trimmed: the test proves nothing")
	}
	c, err := st.compare(0, live, snap)
	if err == nil && !c.Equal || err != nil && !errors.Is(err, ErrUntrusted) {
		t.Errorf("a healthy store of %d rows is compared with %d rebuilt ones: equal %v, err %v; want ErrUntrusted, so that Verify tries again", c.Rows, c.Rebuilt, c.Equal, err)
	}
}

// G11: one instance whose head cannot be read and that has 256 timers due: nobody's timer fires any more,
// and the loop turns without rest.
func TestABrokenInstanceWithManyTimersDoesNotStopTheOthersTimers(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	cmd, err := events.ParseCommandID(app, ids[0])
	must(t, err)
	rows := []events.RowChange{{Ref: events.RowRef{Part: events.PartHead}, Value: []byte{0xff}}}
	for i := range 256 {
		rows = append(rows, events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: uint64(1000 + i)}, Due: st.kafka.now + 10, Value: []byte{}})
	}
	a.append(&events.Record{Kind: events.KindDecision, Decision: &events.Decision{Outcome: events.Applied, Instance: cmd.Instance, Rows: rows}})
	must(t, st.turn(a))
	st.lose(0)
	b := st.open(0, "b")
	st.order(0, "y")
	must(t, st.turn(b))
	before := st.timersFired(0)
	st.advance(time.Minute) // y's attempt times out
	spins := 0
	for range 50 {
		wait, err := b.Turn(context.Background())
		must(t, err)
		if wait == 0 && !b.hasMail() {
			spins++
		}
	}
	y := st.commandsOf("y")
	t.Logf("%d of 50 turns asked for another at once; %d timer decisions", spins, st.timersFired(0)-before)
	st.advance(time.Minute)
	for range 50 {
		_, err := b.Turn(context.Background())
		must(t, err)
	}
	if n := st.commandsOf("y"); n < 2 {
		t.Errorf("the neighbour has %d commands (%d before), want its second attempt", n, y)
	}
	if spins > 40 {
		t.Errorf("the loop spins")
	}
}

func (st *story) commandsOf(key string) (n int) {
	for _, m := range st.kafka.messages("payments", 0) {
		if string(m.Key) == key {
			n++
		}
	}
	return n
}

// During a rolling deployment the new build forwards the start of a new saga to a shard of the old one. The old
// one has never heard of its topic and drops it: it stands in no quarantine, no journal and no log.
func TestAForwardThatThisBuildDoesNotKnowIsNotDropped(t *testing.T) {
	st := newStory(t, 2, oneStep)
	a0 := st.open(0, "new")
	old := sagas.Define("old", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("parcels", ""), func(e orderPlaced) order { return order(e) }),
		sagas.Step("pay", pay, toCharge, nil).Undo(sagas.With(refund, toCharge)))
	plan, err := old.Plan()
	must(t, err)
	tune := st.tune
	st.tune = func(c *ShardConfig) {
		c.Machine = machine.New(machine.Config{App: app, Slots: 2 * events.SlotsPerShard, Plans: []*sagas.Plan{plan}})
	}
	b1 := st.open(1, "old")
	st.order(0, keyOn(1, 2, 1))
	must(t, st.turn(a0, b1))
	st.advance(2 * time.Second)
	must(t, st.turn(a0, b1)) // both positions are journaled: nobody reads it again
	st.tune = tune
	c1 := st.open(1, "new")
	must(t, st.turn(a0, c1))
	if n, q := len(st.heads(1)), len(st.kafka.messages("shop.quarantine", 0)); n+q == 0 {
		t.Errorf("%d instances, %d records in quarantine: the start vanished (skipped: %d)", n, q, b1.stats.skipped.Load())
	}
}

// A backlog of starts in the inbox keeps the shard busy; a reply that was delivered before all of them is not
// looked at, its attempt times out, and in the end the saga is undone though the participant answered at once.
func TestRepliesAreNotStarvedByABacklogOfStarts(t *testing.T) {
	st := newStory(t, 2, oneStep)
	b1 := st.open(1, "b")
	st.order(1, keyOn(1, 2, 0))
	must(t, st.turn(b1))
	ids, _ := st.commands("payments")
	st.reply(1, ids[0], "") // answered at once
	for i := range 4000 {
		m := events.Message{Topic: "orders", Partition: 0, Offset: int64(i), Key: []byte(keyOn(1, 2, i+1)), Value: []byte(`{"id":"z"}`)}
		f := events.WrapForward(&m, events.Origin{Topic: "orders", Partition: 0, Offset: int64(i), Low: int64(i)})
		f.Topic, f.Partition = "shop.inbox", 1
		st.kafka.put(f)
	}
	for range 35 { // a hundred starts a second: the backlog takes longer than an attempt's time-out
		_, err := b1.Turn(context.Background())
		must(t, err)
		st.advance(time.Second)
	}
	if attempts := st.commandsOf(keyOn(1, 2, 0)); attempts != 1 {
		t.Errorf("%d attempts: the first timed out, with its reply in the shard's queue all the time", attempts)
	}
}

// L14: the refusal's decision is in flight when the store notes that nothing is open any more, and is lost. The
// next owner neither emits the command nor knows that it was refused.
func TestARefusalThatWasNotJournaledIsMetAgain(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.ApplyAfter = 0 }
	a := st.open(0, "a")
	turn := func() {
		_, err := a.Turn(context.Background())
		must(t, err)
	}
	st.kafka.refused["payments"] = ErrRefused
	st.kafka.manual = true
	st.order(0, "x")
	turn()
	st.kafka.step() // x's decision is acknowledged
	st.order(0, "y")
	turn()          // its command is refused, the answer is in the mail; y is decided
	turn()          // the refusal is decided, behind y
	st.kafka.step() // y is acknowledged: the store's state says that x is done with
	turn()
	st.kafka.queue, st.kafka.manual = nil, false // the refusal is lost
	delete(st.kafka.refused, "payments")
	b := st.open(0, "b")
	must(t, st.turn(b))
	if n := st.commandsOf("x"); n != 1 {
		t.Errorf("%d commands of x, want 1: its refusal is in no journal", n)
	}
}

// The queue of an input is bounded in records, not in bytes.
func TestAnInputOfLargeRecordsIsHeldBack(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true // nothing is acknowledged: 100 decisions in flight, and no more
	value := []byte(`{"id":"` + string(make([]byte, 300<<10)) + `"}`)
	for i := range 8000 {
		st.kafka.put(events.Message{Topic: "orders", Key: []byte(fmt.Sprint(i)), Value: value})
	}
	_, err := a.Turn(context.Background())
	must(t, err)
	in := a.byPlace[TopicPartition{"orders", 0}]
	if held := in.bytes >> 20; !in.paused && held > 256 {
		t.Errorf("%d MiB are queued by one input of one shard, and it is not paused", held)
	}
}

// A function that List calls asks for the instance it was shown, while the shard is handed over: nobody goes on.
func TestAListenerMayAskForAnInstanceWhileTheShardIsHandedOver(t *testing.T) {
	r := &runner{store: store.NewMemory(), owns: true}
	b := store.Batch{}
	head := events.Head{State: events.Running}
	b.Set(events.RowKey(events.InstanceID{1}, events.RowRef{Part: events.PartHead}), 0, 0, head.Encode(nil), 1)
	must(t, r.store.Apply(&b))
	shown := 0
	_, err := r.list(func(Instance) bool {
		shown++
		if !r.mu.TryLock() { // as Engine.runShard does when the shard ends
			t.Error("the end of the shard waits for this function, and its Get for the end of the shard")
			return false
		}
		r.mu.Unlock()
		return true
	})
	must(t, err)
	if shown != 1 {
		t.Errorf("%d instances shown, want 1", shown)
	}
}

// The hand-over of a shard with nothing to report does not wait.
func TestAHandOverWithNothingToReportIsImmediate(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	must(t, st.turn(a))
	a.sleep(context.Background(), time.Millisecond) // as Run does
	began := time.Now()
	must(t, a.drain())
	if d := time.Since(began); d > 500*time.Millisecond {
		t.Errorf("it takes %v", d)
	}
}

// stuck is a cluster where one topic's partition has no leader.
type stuck struct {
	*model
	topic string
}

func (m stuck) Produce(msg *events.Message, done func(error)) {
	if msg.Topic != m.topic {
		m.model.Produce(msg, done)
	}
}

// G11: a command topic is unavailable, not gone. Once 8,192 commands wait for it, the shard decides nothing at
// all any more: no reply, no timer, of no instance; and it turns a thousand times a second.
func TestAnUnavailableCommandTopicDoesNotStopItsNeighbours(t *testing.T) {
	st := newStory(t, 1, twoSteps)
	st.tune = func(c *ShardConfig) { c.MaxInFlight = 1 << 20 }
	a := st.open(0, "a")
	st.order(0, "neighbour")
	must(t, st.turn(a))
	pays, _ := st.commands("payments")
	a.cfg.Kafka = stuck{st.kafka, "shipping"} // from here on
	for i := range maxEmits {
		st.order(0, fmt.Sprint(i))
	}
	must(t, st.turn(a))
	all := map[string]bool{}
	for _, m := range st.kafka.messages("payments", 0) {
		id, _ := m.Header(events.HeaderID)
		if id != pays[0] && !all[id] {
			all[id] = true
			st.reply(0, id, "") // each of them wants to ship
		}
	}
	must(t, st.turn(a))
	st.reply(0, pays[0], "rejected") // needs no shipping
	must(t, st.turn(a))
	st.advance(time.Hour)
	must(t, st.turn(a))
	if n := st.timersFired(0); n == 0 {
		t.Errorf("no timer fires while %d emissions are open; the loop sleeps %v", a.emits.open, a.idle())
	}
}

// L14: a new owner journals the progress that its predecessor did not get to journal. Otherwise whoever has no
// store emits again, days later.
func TestProgressIsJournaledByTheNextOwner(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "progress")
	must(t, st.turn(a))
	st.reply(0, ids[0], "progress")
	must(t, st.turn(a)) // a dies before its second is over
	b := st.open(0, "b")
	for range 5 {
		st.advance(2 * time.Second)
		must(t, st.turn(b))
	}
	_, before := st.commands("payments")
	st.lose(0)
	c := st.open(0, "c")
	must(t, st.turn(c))
	if _, repeats := st.commands("payments"); repeats != before {
		t.Errorf("emitted again, %d times, though its emission was known for 10 s to an owner", repeats-before)
	}
}

// A store is closed and discarded while Verify has a snapshot of it; the shard opens again.
func TestADiscardedStoreOpensAgainThoughASnapshotIsHeld(t *testing.T) {
	dir := t.TempDir() + "/shard-0000"
	st, err := store.OpenPebble(dir, store.Options{})
	must(t, err)
	b := store.Batch{State: []byte("s")}
	must(t, st.Apply(&b))
	snap, err := st.Snapshot()
	must(t, err)
	t.Log("close:", st.Close())
	must(t, store.Destroy(dir))
	again, err := store.OpenPebble(dir, store.Options{})
	must(t, err)
	must(t, snap.Close())
	must(t, again.Close())
}

// Accepted records reach the store later than the round that they end is trimmed. A snapshot of the store then lies
// between the checkpoint and its carries, and a rebuild up to there has no rows: no race is needed.
func TestACheckAfterARoundWhoseCarriesAreNotYetInTheStore(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.ApplyAfter = time.Hour }
	a := st.open(0, "a")
	for i := range 3 {
		st.order(0, keyOn(0, 1, i))
	}
	turn := func() {
		_, err := a.Turn(context.Background())
		must(t, err)
		a.background.Wait()
	}
	for range 10 {
		turn()
	}
	a.cfg.CompactAfter = 1
	turn()
	a.cfg.CompactAfter = 1 << 40
	for range 10 {
		turn()
	}
	start := st.kafka.part(TopicPartition{"shop.journal", 0}).start
	if start == 0 {
		t.Fatal("nothing was trimmed: the test proves nothing")
	}
	snap, err := st.stores[0].Snapshot() // after the journal's begin was read, as Verify does
	must(t, err)
	defer snap.Close()
	c, err := st.compare(0, st.state(0), snap)
	if err != nil || !c.Equal {
		t.Errorf("journal from %d, store at %d: %d rows, rebuilt %d, equal %v, err %v", start, st.state(0).Next, c.Rows, c.Rebuilt, c.Equal, err)
	}
}

// L7: a forward comes twice, from a sender and its successor, and the second while the first is on its way to the
// quarantine topic. It was taken already.
func TestAForwardThatIsBeingQuarantinedIsNotTakenAgain(t *testing.T) {
	st := newStory(t, 2, oneStep)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	st.kafka.put(events.Message{Topic: "orders", Key: []byte(keyOn(1, 2, 1)), Value: []byte("{not json")})
	must(t, st.turn(a0)) // forwarded, and its position not journaled
	must(t, st.turn(st.open(0, "c")))
	if n := len(st.kafka.messages("shop.inbox", 1)); n != 2 {
		t.Fatalf("%d forwards, want 2", n)
	}
	must(t, st.turn(b1))
	if n := len(st.kafka.messages("shop.quarantine", 0)); n != 1 {
		t.Errorf("%d records in quarantine, want 1", n)
	}
}

// LOG §1, L14: the last command below a checkpoint is refused, and in the same turn the round's last carry is
// acknowledged. The refusal's decision is in flight when the journal is trimmed, and is lost: nobody knows any
// more that there was a command.
func TestNothingIsTrimmedWhoseRefusalIsNotJournaled(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.kafka.manual = true
	st.order(0, "x")
	must(t, st.turn(a))
	st.kafka.step() // x is decided
	a.cfg.CompactAfter = 1
	for range 5 { // a round goes by; its command waits for Kafka
		for k := 0; k < len(st.kafka.queue); k++ {
			if w := st.kafka.queue[k]; w.log != nil {
				st.kafka.queue = append(st.kafka.queue[:k:k], st.kafka.queue[k+1:]...)
				st.kafka.write(w, true)
				k--
			}
		}
		_, err := a.Turn(context.Background())
		must(t, err)
	}
	if a.round == nil || a.round.end == 0 || a.applied.Seq < a.round.end || len(st.kafka.queue) != 1 {
		t.Fatal("the round does not wait for the command alone: the test proves nothing")
	}
	st.kafka.queue[0].done(ErrRefused)
	_, err := a.Turn(context.Background())
	must(t, err)
	a.background.Wait()
	st.kafka.queue, st.kafka.manual = nil, false // a dies
	b := st.open(0, "b")
	must(t, st.turn(b))
	if n := st.commandsOf("x"); n != 1 {
		t.Errorf("%d commands of x, want 1: its refusal is in no journal", n)
	}
}

// L4: behind the last accepted record a store has read a claim that the journal lost afterwards; what stands in its
// place is accepted. The hash of the store's last record is right, and yet the store is no prefix: its next
// owner would decide without what it skips.
func TestAStoreThatReadALostClaimReadsWhatReplacedIt(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	part := st.kafka.part(TopicPartition{"shop.journal", 0})
	kept := len(part.records)
	lost := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{99}, Term: 7, Claim: &events.Claim{Node: "lost", Shards: 1, Slots: events.SlotsPerShard}}
	st.kafka.write(&modelWrite{tp: TopicPartition{"shop.journal", 0}, v: lost.Encode(nil)}, false)

	other := store.NewMemory() // of a node that reads this far, and no further
	f := follower{log: st.kafka.Log("shop.journal", 0), store: other, logger: slog.New(slog.DiscardHandler)}
	must(t, errors.Join(f.load(context.Background()), f.catchUp(context.Background())))
	part.records = part.records[:kept:kept]
	st.order(0, "y")
	must(t, st.turn(a))

	st.stores[0] = other
	b := st.open(0, "b")
	st.order(0, "z")
	must(t, st.turn(b))
	st.wantStates(0, events.Running, events.Running, events.Running)
	st.wantRebuilt(0)
}
