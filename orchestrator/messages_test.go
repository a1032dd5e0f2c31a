package orchestrator

import (
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/sagas"
)

type paid struct{ Invoice string }

var (
	invoicePaid = sagas.NewEvent[paid]("orders", "InvoicePaid").KeyBy(func(p paid) string { return p.Invoice })
	// awaiting waits for an event of another key than its own, and so of another shard now and then.
	awaiting = sagas.Define("awaiting", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("orders", "OrderPlaced"), func(e orderPlaced) order { return order(e) }),
		sagas.Seq(
			sagas.Wait[order]("paid", invoicePaid, nil).By(func(o order) string { return "invoice-" + o.ID }).Keep(time.Hour),
			sagas.Step("ship", ship, toCharge, nil).Undo(sagas.With(unship, toCharge)),
		))
)

func (st *story) typed(partition int32, typ, key, value string) {
	st.kafka.put(events.Message{Topic: "orders", Partition: partition, Key: []byte(key), Value: []byte(value), Headers: []events.Header{{Key: events.HeaderType, Value: []byte(typ)}}})
}

// apart is a business key of shard 0 whose invoice is of shard 1.
func apart(n int) string {
	for i := 0; ; i++ {
		key := keyOn(0, 2, n*1000+i)
		if events.NewInstanceID(app, "x", "invoice-"+key, "", 2*events.SlotsPerShard).Shard(2) == 1 {
			return key
		}
	}
}

func correlationOf(key string, shards int) events.InstanceID {
	return events.CorrelationID(app, "awaiting", "orders", "InvoicePaid", "invoice-"+key, shards*events.SlotsPerShard)
}

// subscribe puts what an instance's Wait says to its correlation.
func (st *story) subscribe(key string, offset int64) (waiter events.InstanceID) {
	waiter = events.NewInstanceID(app, "awaiting", key, "m", st.shards*events.SlotsPerShard)
	to := correlationOf(key, st.shards)
	msg := events.InboxMessage{Kind: events.InboxSubscribe, To: to, From: events.Waiter{Instance: waiter, Node: 1, Execution: 1},
		Definition: "awaiting", Topic: "orders", Type: "InvoicePaid", Key: "invoice-" + key}
	m := events.WrapMessage(msg.Encode(nil), to, &events.Origin{Topic: "shop.journal", Partition: waiter.Shard(st.shards), Offset: offset, Low: offset})
	m.Topic, m.Partition = "shop.inbox", to.Shard(st.shards)
	st.kafka.put(m)
	return waiter
}

// L7: what one entity says to another names the record that decided it, and arrives once, though the sender dies and
// its successor says it again.
func TestAMessageIsTakenOnce(t *testing.T) {
	st := newStory(t, 2, awaiting)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	key := apart(1)
	waiter := st.subscribe(key, events.MessageOffset(3, 0))
	st.subscribe(key, events.MessageOffset(3, 0)) // once more, by another owner of the sender
	st.typed(1, "InvoicePaid", "x", `{"Invoice":"invoice-`+key+`"}`)
	must(t, st.turn(b1))
	if n := b1.stats.duplicates.Load(); n != 1 {
		t.Errorf("%d duplicates, want 1", n)
	}
	offers := st.kafka.messages("shop.inbox", 0)
	if len(offers) != 1 {
		t.Fatalf("%d messages for shard 0, want the offer", len(offers))
	}
	msg, origin, ok, err := events.UnwrapMessage(&offers[0])
	if !ok || err != nil || msg.Kind != events.InboxOffer || msg.To != waiter || origin.Topic != "shop.journal" || origin.Partition != 1 || origin.Offset>>16 != int64(b1.applied.Seq) {
		t.Fatalf("it says %+v from %+v (%v)", msg, origin, err)
	}
	c1 := st.open(1, "c") // the progress of emission was not journaled: it says so again
	must(t, st.turn(a0, c1))
	if n := len(st.kafka.messages("shop.inbox", 0)); n != 2 {
		t.Errorf("%d messages for shard 0, want the same one again", n)
	}
	if n := a0.stats.duplicates.Load(); n != 1 {
		t.Errorf("%d duplicates dropped by shard 0, want 1", n)
	}
	st.wantRebuilt(0)
	st.wantRebuilt(1)
}

// L7: the low mark says what has arrived. A message that is on its way must not be taken for a duplicate when a later
// one overtakes it.
func TestALowMarkDoesNotPassAMessageOnItsWay(t *testing.T) {
	st := newStory(t, 2, awaiting)
	a0, b1 := st.open(0, "a"), st.open(1, "b")
	for n := range 2 {
		st.subscribe(apart(n+1), events.MessageOffset(uint64(n+1), 0))
	}
	must(t, st.turn(b1))
	st.kafka.manual = true
	for n := range 2 {
		st.typed(1, "InvoicePaid", "x", `{"Invoice":"invoice-`+apart(n+1)+`"}`)
	}
	must(t, st.turn(b1))
	var offers []*modelWrite
	for range 20 {
		for i := 0; i < len(st.kafka.queue); i++ {
			if w := st.kafka.queue[i]; w.tp == (TopicPartition{"shop.inbox", 0}) {
				offers = append(offers, w)
				st.kafka.queue = append(st.kafka.queue[:i:i], st.kafka.queue[i+1:]...)
				i--
			}
		}
		st.kafka.step()
		must(t, st.turn(b1))
	}
	if len(offers) != 2 {
		t.Fatalf("%d offers are on their way, want 2", len(offers))
	}
	st.kafka.manual = false
	st.kafka.write(offers[1], true)
	must(t, st.turn(a0))
	st.kafka.write(offers[0], true)
	must(t, st.turn(a0))
	if n := a0.stats.duplicates.Load(); n != 0 {
		t.Errorf("%d messages were dropped as duplicates, want none", n)
	}
	mark := a0.applied.Origin(journal.TP{Topic: "shop.journal", Partition: 1})
	_, first, _, _ := events.UnwrapMessage(&offers[0].m)
	_, second, _, _ := events.UnwrapMessage(&offers[1].m)
	if !mark.Has(first.Offset) || !mark.Has(second.Offset) {
		t.Errorf("shard 0 remembers %+v, want %d and %d", mark, first.Offset, second.Offset)
	}
}

// Messages that no entity of the shard can be meant by, or that are none, go to quarantine.
func TestAMessageForAnotherShardIsQuarantined(t *testing.T) {
	st := newStory(t, 2, awaiting)
	a0 := st.open(0, "a")
	to := correlationOf(apart(1), 2) // of shard 1
	msg := events.InboxMessage{Kind: events.InboxUnsubscribe, To: to, From: events.Waiter{Instance: to, Execution: 1}}
	m := events.WrapMessage(msg.Encode(nil), to, &events.Origin{Topic: "shop.journal", Partition: 1, Offset: 9})
	m.Topic = "shop.inbox"
	st.kafka.put(m)
	m.Value = m.Value[:3]
	st.kafka.put(m)
	must(t, st.turn(a0))
	if n := len(st.kafka.messages("shop.quarantine", 0)); n != 2 {
		t.Errorf("%d records in quarantine, want 2", n)
	}
}

// L22, G10: an action is answered when its decision is durable, not before; the same one again is answered as the first.
func TestAnActionIsAnsweredOnceItIsDurable(t *testing.T) {
	var answers []Answer
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.Acted = func(a Answer) { answers = append(answers, a) } }
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	var id events.InstanceID
	for id = range st.heads(0) {
	}
	act := func(kind events.ActionKind) {
		msg := events.InboxMessage{Kind: events.InboxAction, To: id, Action: &events.Action{ID: "a-1", Kind: kind, Who: "alice"}}
		m := events.WrapMessage(msg.Encode(nil), id, nil)
		m.Topic = "shop.inbox"
		st.kafka.put(m)
	}
	st.kafka.manual = true
	act(events.ActionSuspend)
	must(t, st.turn(a))
	if len(answers) != 0 {
		t.Fatalf("it is answered %+v before the journal has it", answers)
	}
	st.kafka.flush()
	st.kafka.manual = false
	must(t, st.turn(a))
	act(events.ActionSuspend) // once more, and by another owner
	must(t, st.turn(a))
	b := st.open(0, "b")
	act(events.ActionSuspend)
	must(t, st.turn(b))
	if len(answers) != 3 || !answers[0].Done || answers[0].Instance != id || answers[1] != answers[0] || answers[2] != answers[0] {
		t.Errorf("it is answered %+v", answers)
	}
	st.wantStates(0, events.Suspended)
}
