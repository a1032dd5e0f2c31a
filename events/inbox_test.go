package events

import (
	"errors"
	"reflect"
	"testing"
)

func TestAMessageArrivesAsItWasDecided(t *testing.T) {
	for name, sample := range samplesOfFormat2() {
		want, ok := sample.(*InboxMessage)
		if !ok {
			continue
		}
		origin := &Origin{Topic: "shop.journal", Partition: 3, Offset: MessageOffset(4711, 2), Low: MessageOffset(4700, 0)}
		sent := WrapMessage(want.Encode(nil), want.To, origin)
		got, o, ok, err := UnwrapMessage(&sent)
		if !ok || err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(o, origin) {
			t.Errorf("%s arrives as\n%+v from %+v (%v)", name, got, o, err)
		}
		if string(sent.Key) != string(want.To[:]) {
			t.Errorf("%s has key %x", name, sent.Key)
		}
	}
	if got := (&Origin{Topic: "shop.journal", Partition: 3, Offset: MessageOffset(4711, 2)}).ID(); got != "shop.journal-3-4711-2" {
		t.Errorf("its id is %q", got)
	}
	forward := WrapForward(&Message{}, Origin{Topic: "orders"})
	if _, _, ok, err := UnwrapMessage(&forward); ok || err != nil {
		t.Errorf("a forwarded record is read as a message: %v", err)
	}
}

func TestMessagesAreRefusedByStatedRules(t *testing.T) {
	origin := Origin{Topic: "shop.journal", Offset: 7}
	marked := func(headers ...Header) func(*Message) { return func(m *Message) { m.Headers = headers } }
	from := func(o Origin) func(*Message) { return marked(WrapMessage(nil, sampleID, &o).Headers...) }
	valued := func(x InboxMessage) func(*Message) { return func(m *Message) { m.Value = x.Encode(nil) } }
	good := InboxMessage{Kind: InboxTaken, To: sampleID}
	for why, x := range map[string]struct {
		change func(*Message)
		want   string
	}{
		"nothing wrong":              {func(*Message) {}, ""},
		"two origins":                {func(m *Message) { m.Headers = append(m.Headers, m.Headers...) }, PoisonForward},
		"a damaged origin":           {marked(Header{HeaderMessage, []byte{0xff}}), PoisonForward},
		"an origin without a topic":  {from(Origin{Offset: 1}), PoisonForward},
		"a negative offset":          {from(Origin{Topic: "t", Offset: -1}), PoisonForward},
		"a negative low mark":        {from(Origin{Topic: "t", Low: -1}), PoisonForward},
		"no origin":                  {marked(Header{HeaderMessage, nil}), PoisonForward},
		"a damaged value":            {func(m *Message) { m.Value = m.Value[:3] }, PoisonUndecodable},
		"no value":                   {func(m *Message) { m.Value = nil }, PoisonForward},
		"nobody it is for":           {valued(InboxMessage{Kind: InboxTaken}), PoisonForward},
		"an action without its body": {valued(InboxMessage{Kind: InboxAction, To: sampleID}), PoisonForward},
		"an action without an id":    {valued(InboxMessage{Kind: InboxAction, To: sampleID, Action: &Action{Kind: ActionRetry}}), PoisonForward},
	} {
		m := WrapMessage(good.Encode(nil), sampleID, &origin)
		x.change(&m)
		_, _, ok, err := UnwrapMessage(&m)
		if code := poison(t, err); !ok || code != x.want {
			t.Errorf("%s: %q, want %q", why, code, x.want)
		}
	}
	act := WrapMessage((&InboxMessage{Kind: InboxAction, To: sampleID, Action: &Action{ID: "a-1"}}).Encode(nil), sampleID, nil)
	if _, o, ok, err := UnwrapMessage(&act); !ok || err != nil || o != nil {
		t.Errorf("an action of the API has origin %+v (%v)", o, err)
	}
}

func TestEntitiesHaveIDsOfTheirOwnInTheSlotOfTheirKey(t *testing.T) {
	const slots = 4 * SlotsPerShard
	seen := map[InstanceID]string{}
	for what, id := range map[string]InstanceID{
		"instance":               NewInstanceID("shop", "def", "k", "", slots),
		"instance called key":    NewInstanceID("shop", "key", "k", "def", slots),
		"key":                    KeyID("shop", "def", "k", slots),
		"key of another":         KeyID("shop", "other", "k", slots),
		"correlation":            CorrelationID("shop", "def", "t", "T", "k", slots),
		"correlation of another": CorrelationID("shop", "other", "t", "T", "k", slots),
		"of another topic":       CorrelationID("shop", "def", "u", "T", "k", slots),
		"of another type":        CorrelationID("shop", "def", "t", "", "k", slots),
		"of another application": CorrelationID("bank", "def", "t", "T", "k", slots),
	} {
		if other, taken := seen[id]; taken {
			t.Errorf("%s and %s are both %s", what, other, id)
		}
		seen[id] = what
		if id.Slot() != Slot([]byte("k"), slots) {
			t.Errorf("%s lives in slot %d", what, id.Slot())
		}
	}
}

func TestWhatIsEmittedBesidesCommandsIsComplete(t *testing.T) {
	r := samplesOfFormat2()["decision-start-with-key"].(*Record)
	out, err := Outgoing("shop", r)
	if err != nil || len(out) != 2 {
		t.Fatalf("%d messages (%v)", len(out), err)
	}
	event, message := &out[0], &out[1]
	if event.Topic != "order.events" || string(event.Key) != "order-7" || string(event.Value) != `{"order":"order-7"}` {
		t.Errorf("the event is %+v", event)
	}
	for name, want := range map[string]string{
		HeaderSpecVersion: "1.0", HeaderID: sampleID.String() + "-4713-0", HeaderSource: "/skald/shop", HeaderType: "OrderAccepted",
		HeaderTime: Timestamp(r.Time), HeaderCausationID: "evt-7", HeaderCorrelationID: sampleID.String(), HeaderTraceParent: string(sampleHead().Trace[0].Value),
	} {
		if got := header(t, event, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if err := CheckHeaders(event.Headers); err != nil {
		t.Error(err)
	}
	e := &r.Decision.Emits[1]
	if message.Topic != "shop.inbox" || string(message.Key) != string(e.To[:]) || string(message.Value) != string(e.Payload) || len(message.Headers) != 0 {
		t.Errorf("the message is %+v", message)
	}
	// A correlation has no head, and sends messages all the same; nothing else.
	r.Decision.Rows, r.Decision.Emits = nil, r.Decision.Emits[1:]
	if out, err := Outgoing("shop", r); err != nil || len(out) != 1 {
		t.Errorf("a correlation sends %d messages (%v)", len(out), err)
	}
	r.Decision.Emits[0].To = InstanceID{}
	if _, err := Outgoing("shop", r); !errors.Is(err, ErrMalformed) {
		t.Errorf("a message to nobody: %v", err)
	}
}

func TestWhatIsEmittedIsOfTheDecisionsOwnInstance(t *testing.T) {
	other := KeyID("shop", "d", "k", SlotsPerShard)
	r := typicalDecision()
	r.Decision.Rows = append(r.Decision.Rows,
		RowChange{Of: other, Ref: RowRef{PartHead, 0}, Value: (&Head{Key: "of another"}).Encode(nil)},
		RowChange{Of: other, Ref: RowRef{PartNode, 2}, Value: (&NodeState{Payload: []byte("of another")}).Encode(nil)})
	want, err := Outgoing("shop", typicalDecision())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Outgoing("shop", r); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v (%v)\nand without rows of another entity\n%+v", got, err, want)
	}
	if got := r.Decision.Whose(&r.Decision.Rows[0]); got != sampleID {
		t.Errorf("a row of nobody in particular is of %s", got)
	}
	if got := r.Decision.Whose(&r.Decision.Rows[6]); got != other {
		t.Errorf("a row of %s is of %s", other, got)
	}
	r.Decision.Rows[4].Gone = true
	if _, err := Outgoing("shop", r); !errors.Is(err, ErrMalformed) {
		t.Errorf("a command of a row that goes: %v", err)
	}
}
