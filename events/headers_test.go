package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// poison gives the code of a *PoisonError, "" for no error, and fails on any other.
func poison(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var p *PoisonError
	if !errors.As(err, &p) || !IsPoison(err) || p.Detail == "" {
		t.Fatalf("%v is no poison", err)
	}
	return p.Code
}

func TestHeadersAreRefusedByStatedRules(t *testing.T) {
	many := func(n int) []Header {
		h := make([]Header, n)
		for i := range h {
			h[i].Key = fmt.Sprint("x-", i)
		}
		return h
	}
	big := func(n int) []Header { return []Header{{"blob", make([]byte, n-len("blob"))}} }
	for why, x := range map[string]struct {
		headers []Header
		code    string
	}{
		"none":                             {nil, ""},
		"as many as allowed":               {many(MaxHeaders), ""},
		"one too many":                     {many(MaxHeaders + 1), PoisonOversize},
		"as large as allowed":              {big(MaxHeaderBytes), ""},
		"a byte too large":                 {big(MaxHeaderBytes + 1), PoisonOversize},
		"a long name":                      {[]Header{{strings.Repeat("n", MaxHeaderBytes+1), nil}}, PoisonOversize},
		"ce_id twice":                      {[]Header{{HeaderID, []byte("a")}, {HeaderID, []byte("a")}}, PoisonDuplicateHeader},
		"an unknown attribute twice":       {[]Header{{"ce_x", nil}, {"y", nil}, {"ce_x", nil}}, PoisonDuplicateHeader},
		"traceparent twice":                {[]Header{{HeaderTraceParent, nil}, {HeaderTraceParent, nil}}, PoisonDuplicateHeader},
		"a header of the user's own twice": {[]Header{{"x", nil}, {"x", []byte{0xff}}}, ""},
		"ce_type not in UTF-8":             {[]Header{{HeaderType, []byte{0xff}}}, PoisonInvalidUTF8},
		"baggage not in UTF-8":             {[]Header{{HeaderBaggage, []byte("a\xc3")}}, PoisonInvalidUTF8},
		"content-type not in UTF-8":        {[]Header{{HeaderContentType, []byte{0x80}}}, PoisonInvalidUTF8},
	} {
		if got := poison(t, CheckHeaders(x.headers)); got != x.code {
			t.Errorf("%s: %q, not %q", why, got, x.code)
		}
	}
}

func TestARepliesHeadersDecideWhatItSays(t *testing.T) {
	id := sampleCommand.Text("shop")
	answers := Header{HeaderCausationID, []byte(id)}
	message := func(h ...Header) *Message {
		return &Message{Topic: "shop.replies", Headers: h, Value: []byte(`{"n":1}`)}
	}
	for why, x := range map[string]struct {
		m    *Message
		want Reply
		code string
	}{
		"one header is enough": {message(answers), Reply{Command: sampleCommand, Outcome: ReplyDone, Payload: []byte(`{"n":1}`)}, ""},
		"done":                 {message(answers, Header{HeaderOutcome, []byte("done")}), Reply{Command: sampleCommand, Outcome: ReplyDone, Payload: []byte(`{"n":1}`)}, ""},
		"an empty outcome":     {message(answers, Header{HeaderOutcome, nil}), Reply{Command: sampleCommand, Outcome: ReplyDone, Payload: []byte(`{"n":1}`)}, ""},
		"a null value":         {&Message{Headers: []Header{answers}}, Reply{Command: sampleCommand, Outcome: ReplyDone}, ""},
		"rejected": {message(answers, Header{HeaderOutcome, []byte("rejected")}, Header{HeaderErrorCode, []byte("declined")}, Header{HeaderErrorMessage, []byte("no funds")}),
			Reply{sampleCommand, ReplyRejected, "declined", "no funds", []byte(`{"n":1}`)}, ""},
		"retry":               {message(answers, Header{HeaderOutcome, []byte("retry")}), Reply{Command: sampleCommand, Outcome: ReplyRetry, Payload: []byte(`{"n":1}`)}, ""},
		"progress":            {message(answers, Header{HeaderOutcome, []byte("progress")}), Reply{Command: sampleCommand, Outcome: ReplyProgress, Payload: []byte(`{"n":1}`)}, ""},
		"no causation":        {message(), Reply{}, PoisonMissingHeader},
		"another outcome":     {message(answers, Header{HeaderOutcome, []byte("DONE")}), Reply{}, PoisonUnknownOutcome},
		"a forged id":         {message(Header{HeaderCausationID, []byte(id[:len(id)-1] + "A")}), Reply{}, PoisonForgedID},
		"another app's id":    {message(Header{HeaderCausationID, []byte(sampleCommand.Text("bank"))}), Reply{}, PoisonForgedID},
		"two causations":      {message(answers, answers), Reply{}, PoisonDuplicateHeader},
		"a binary error code": {message(answers, Header{HeaderErrorCode, []byte{0xff}}), Reply{}, PoisonInvalidUTF8},
	} {
		got, err := ParseReply("shop", x.m)
		if code := poison(t, err); code != x.code || !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %+v %q", why, got, code)
		}
	}
}

func TestARepliesTextsAreCut(t *testing.T) {
	m := &Message{Headers: []Header{{HeaderCausationID, []byte(sampleCommand.Text("shop"))},
		{HeaderErrorMessage, []byte(strings.Repeat("€", 3000))}, {HeaderErrorCode, []byte(strings.Repeat("c", 1000))}}}
	r, err := ParseReply("shop", m)
	if err != nil || len(r.Message) > MaxMessage || len(r.Message) < MaxMessage-3 || !utf8.ValidString(r.Message) || len(r.Code) != 128 {
		t.Errorf("%d and %d bytes (%v)", len(r.Message), len(r.Code), err)
	}
	for n := range 8 {
		if got := Cut("a€b", n); len(got) > n || !strings.HasPrefix("a€b", got) || !utf8.ValidString(got) {
			t.Errorf("cut to %d: %q", n, got)
		}
	}
}

func TestAMessageWithoutAnIDIsNamedByItsPlace(t *testing.T) {
	m := Message{Topic: "orders", Partition: 3, Offset: 42}
	if got := MessageIDOf(&m); got != "orders-3-42" || m.Place() != "orders/3/42" {
		t.Errorf("%q at %q", got, m.Place())
	}
	m.Headers = []Header{{HeaderID, nil}}
	if got := MessageIDOf(&m); got != "orders-3-42" {
		t.Errorf("with an empty id: %q", got)
	}
	m.Headers = []Header{{HeaderID, []byte("evt-1")}}
	if got := MessageIDOf(&m); got != "evt-1" {
		t.Errorf("with an id: %q", got)
	}
}

func TestTraceContextIsHandedOnWithinBounds(t *testing.T) {
	trace := Header{HeaderTraceParent, []byte("00-1-2-01")}
	got := TraceHeaders([]Header{{HeaderID, []byte("x")}, trace, {HeaderTraceState, make([]byte, 1025)}, {HeaderBaggage, make([]byte, 1024)}, {"x", nil}})
	if want := []Header{trace, {HeaderBaggage, make([]byte, 1024)}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestAForwardedMessageArrivesAsItWasRead(t *testing.T) {
	m := Message{Topic: "shop.replies", Partition: 1, Offset: 500, Key: []byte("k"), Value: []byte("v"), Time: 1_790_000_000_000,
		Headers: []Header{{HeaderCausationID, []byte("c")}, {"x", nil}}}
	origin := Origin{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Low: 480}
	sent := WrapForward(&m, origin)
	sent.Topic, sent.Partition, sent.Offset, sent.Time = "shop.inbox", 7, 3, 1_790_000_000_500
	got, o, err := UnwrapForward(&sent)
	if err != nil || !reflect.DeepEqual(got, m) || !reflect.DeepEqual(*o, origin) {
		t.Errorf("%+v from %+v (%v)", got, o, err)
	}
	m.Value, m.Key = nil, nil
	sent = WrapForward(&m, origin)
	if got, _, err := UnwrapForward(&sent); err != nil || got.Value != nil || got.Key != nil {
		t.Errorf("a null value became %v (%v)", got.Value, err)
	}
}

func TestAForwardKeepsWhatANewerBuildSaysOfItsOrigin(t *testing.T) {
	origin := Origin{Topic: "shop.replies", Offset: 500, Unknown: protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "newer")}
	sent := WrapForward(&Message{Time: 5}, origin)
	if got, o, err := UnwrapForward(&sent); err != nil || !reflect.DeepEqual(*o, origin) || got.Time != 5 {
		t.Errorf("%+v (%v)", o, err)
	}
}

func TestAnOriginFromOutsideIsDropped(t *testing.T) {
	m := Message{Headers: []Header{{HeaderForward, []byte("forged")}, {"x", []byte("kept")}}}
	sent := WrapForward(&m, Origin{Topic: "orders", Offset: 1})
	got, o, err := UnwrapForward(&sent)
	if err != nil || o.Topic != "orders" || len(got.Headers) != 1 || got.Headers[0].Key != "x" {
		t.Errorf("%+v %+v (%v)", got, o, err)
	}
}

func TestAnInboxTakesOnlyMessagesWithOneWholeOrigin(t *testing.T) {
	good := WrapForward(&Message{}, Origin{Topic: "orders", Partition: 1, Offset: 2}).Headers[0].Value
	with := func(o Origin) []Header { return WrapForward(&Message{}, o).Headers }
	for why, headers := range map[string][]Header{
		"none":                 {{"x", nil}},
		"two":                  {{HeaderForward, good}, {HeaderForward, good}},
		"an empty one":         {{HeaderForward, nil}},
		"a damaged one":        {{HeaderForward, good[:len(good)-1]}},
		"no topic":             with(Origin{Offset: 1}),
		"no topic Kafka knows": with(Origin{Topic: "a\x00b"}),
		"a dot":                with(Origin{Topic: "."}),
		"a long topic":         with(Origin{Topic: strings.Repeat("t", 250)}),
		"a negative partition": with(Origin{Topic: "t", Partition: -1}),
		"a negative offset":    with(Origin{Topic: "t", Offset: -1}),
		"a negative low mark":  with(Origin{Topic: "t", Low: -1}),
		"a time that is none":  {{HeaderForward, append(good[:len(good)-2:len(good)-2], 15<<3|2, 0)}},
	} {
		_, o, err := UnwrapForward(&Message{Topic: "shop.inbox", Headers: headers})
		if code := poison(t, err); code != PoisonForward {
			t.Errorf("%s: %+v %q", why, o, code)
		}
	}
}

func header(t *testing.T, m *Message, name string) string {
	t.Helper()
	v, ok := m.Header(name)
	if !ok {
		t.Errorf("%s is missing", name)
	}
	return v
}

func TestACommandCarriesAllThatAParticipantNeeds(t *testing.T) {
	r := typicalDecision()
	out, err := Outgoing("shop", r)
	if err != nil || len(out) != 1 {
		t.Fatalf("%d messages (%v)", len(out), err)
	}
	m := &out[0]
	if err := CheckHeaders(m.Headers); err != nil {
		t.Error(err)
	}
	if m.Topic != "payments.commands" || string(m.Key) != "order-7" || string(m.Value) != `{"order":"order-7","amount":4200,"currency":"EUR"}` || m.Time != r.Time {
		t.Errorf("%s %q %q %d", m.Topic, m.Key, m.Value, m.Time)
	}
	id := CommandID{Instance: sampleID, Node: 2, Execution: 1, Attempt: 1, Phase: Forward}
	want := map[string]string{
		HeaderSpecVersion: "1.0", HeaderID: id.Text("shop"), HeaderSource: "/skald/shop", HeaderType: "Authorize",
		HeaderTime: "2026-09-21T14:13:20.120Z", HeaderContentType: "application/json", HeaderCausationID: r.Decision.Input.MessageID,
		HeaderCorrelationID: sampleID.String(), HeaderIdempotencyKey: sampleID.String() + "/authorize/1", HeaderReplyTo: "shop.replies",
		HeaderExpiryTime: "2026-09-21T14:13:50.120Z", HeaderSagaPhase: "forward", HeaderSagaAttempt: "1",
		HeaderTraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	for name, v := range want {
		if got := header(t, m, name); got != v {
			t.Errorf("%s is %q, not %q", name, got, v)
		}
	}
	if len(m.Headers) != len(want) {
		t.Errorf("%d headers, not %d: %v", len(m.Headers), len(want), m.Headers)
	}
	again, err := Outgoing("shop", r)
	if err != nil || !reflect.DeepEqual(again, out) {
		t.Errorf("sent again it differs (%v)", err)
	}
}

func TestAnUndoNamesWhatItUndoesAndNeverExpires(t *testing.T) {
	r := typicalDecision()
	r.Decision.Emits = []Emit{{Kind: EmitCommand, Topic: "payments.commands", Type: "VoidAuthorization", Step: "authorize", Node: 2, Execution: 1, Attempt: 3, Phase: Compensate}}
	out, err := Outgoing("shop", r)
	if err != nil || len(out) != 1 {
		t.Fatalf("%d messages (%v)", len(out), err)
	}
	m := &out[0]
	key := sampleID.String() + "/authorize/1"
	if header(t, m, HeaderUndoes) != key || header(t, m, HeaderIdempotencyKey) != key+"/undo" || header(t, m, HeaderSagaPhase) != "compensate" || header(t, m, HeaderSagaAttempt) != "3" {
		t.Errorf("%v", m.Headers)
	}
	if v, ok := m.Header(HeaderExpiryTime); ok {
		t.Errorf("it expires at %s", v)
	}
	if string(m.Value) != `{"order":"order-7"}` || string(m.Key) != "order-7" {
		t.Errorf("%q %q", m.Key, m.Value)
	}
}

func TestEveryEmitFindsItsRowAmongMany(t *testing.T) {
	r := typicalDecision()
	d := r.Decision
	d.Rows, d.Emits = d.Rows[:1], nil
	for n := range uint32(200) {
		node := NodeState{Status: NodeActive, Payload: []byte(fmt.Sprint(n))}
		d.Rows = append(d.Rows, RowChange{Ref: RowRef{PartNode, uint64(n)}, Value: node.Encode(nil)}, RowChange{Ref: RowRef{PartHistory, uint64(n)}})
		d.Emits = append(d.Emits, Emit{Kind: EmitCommand, Topic: "t", Node: n, Execution: 1, Attempt: 1, Phase: Forward})
	}
	out, err := Outgoing("shop", r)
	if err != nil || len(out) != 200 {
		t.Fatalf("%d messages (%v)", len(out), err)
	}
	for i := range out {
		if string(out[i].Value) != fmt.Sprint(i) {
			t.Errorf("node %d carries the payload of %s", i, out[i].Value)
		}
	}
}

func TestALifecycleEventTellsTheInstance(t *testing.T) {
	head := sampleHead()
	head.State, head.Ended, head.Code = Compensated, head.Started+1500, "declined"
	r := &Record{Kind: KindDecision, Seq: 12, Time: head.Ended, Decision: &Decision{Instance: sampleID,
		Rows:  []RowChange{{Ref: RowRef{PartHead, 0}, Value: head.Encode(nil)}},
		Emits: []Emit{{Kind: EmitLifecycle, Topic: "shop.lifecycle", Type: "skald.saga.compensated"}, {Kind: 77, Topic: "of a newer build"}}}}
	out, err := Outgoing("shop", r)
	if err != nil || len(out) != 2 {
		t.Fatalf("%d messages (%v)", len(out), err)
	}
	if out[1].Topic != "" {
		t.Errorf("what a newer build emits goes to %q", out[1].Topic)
	}
	var got map[string]any
	if err := json.Unmarshal(out[0].Value, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"id": sampleID.String(), "key": "order-7", "definition": "place-order", "version": "1", "state": "compensated",
		"started": "2026-09-21T14:13:20.000Z", "ended": "2026-09-21T14:13:21.500Z", "code": "declined"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if header(t, &out[0], HeaderID) != sampleID.String()+"-12" || header(t, &out[0], HeaderType) != "skald.saga.compensated" {
		t.Errorf("%v", out[0].Headers)
	}
}

func TestALifecycleEventIsPrintedAsEncodingJSONDoes(t *testing.T) {
	for _, text := range []string{"", "order-7", `"quoted" \ <&>`, "tab\tline\nnull\x00del\x7f", "größe €\u2028\u2029", "\xff broken \xe2\x82"} {
		for _, ended := range []int64{0, 1_790_000_000_007} {
			h := &Head{Definition: text, Version: text, Key: text, State: Completed, Started: 1_790_000_000_000, Ended: ended, Code: text, Message: text}
			e := LifecycleEvent{ID: sampleID, Key: text, Definition: text, Version: text, State: h.State, Started: Timestamp(h.Started), Code: text, Message: text}
			if ended != 0 {
				e.Ended = Timestamp(ended)
			}
			want, err := json.Marshal(e)
			if got := lifecycleValue(sampleID, h); err != nil || string(got) != string(want) {
				t.Errorf("%s, not %s (%v)", got, want, err)
			}
		}
	}
}

// What a Printer keeps from one record must neither show in the next nor be written over by it.
func TestOnePrinterSaysOfEveryRecordWhatANewOneDoes(t *testing.T) {
	p := NewPrinter("shop")
	var all, first []Message
	for i := range 60 {
		r := typicalDecision()
		d := r.Decision
		r.Seq, r.Time = uint64(i), r.Time+int64(i/3*1000+i%2)
		d.Input.MessageID = fmt.Sprint("message-", i)
		e := &d.Emits[0]
		e.Attempt = uint32(i%4 + 1)
		switch i % 5 {
		case 1:
			e.Phase = Compensate
			e.Expiry = 0
		case 2:
			e.Phase, e.Expiry = 9, e.Expiry+int64(i)
		case 3:
			d.Emits = append(d.Emits, Emit{Kind: EmitLifecycle, Topic: "shop.lifecycle", Type: "skald.saga.completed"},
				Emit{Kind: EmitEvent, Topic: "shipped", Type: "Shipped", Key: fmt.Sprint("key-", i), Payload: []byte("{}")},
				Emit{Kind: EmitMessage, To: sampleID, Payload: []byte("m")})
		}
		want, err := Outgoing("shop", r)
		if err != nil {
			t.Fatal(err)
		}
		at := len(all)
		if all, err = p.Outgoing(all, r); err != nil || !reflect.DeepEqual(all[at:], want) {
			t.Fatalf("record %d: %v, not %v (%v)", i, all[at:], want, err)
		}
		first = append(first, want...)
	}
	if !reflect.DeepEqual(all, first) {
		t.Error("a record changed what was printed for one before it")
	}
}

func TestARecordWhoseEmitsDoNotFitItsRowsSendsNothing(t *testing.T) {
	change := func(fn func(d *Decision)) *Record {
		r := typicalDecision()
		fn(r.Decision)
		return r
	}
	for why, r := range map[string]*Record{
		"no head":       change(func(d *Decision) { d.Rows = d.Rows[1:] }),
		"no node":       change(func(d *Decision) { d.Rows = d.Rows[:4] }),
		"another node":  change(func(d *Decision) { d.Emits[0].Node = 9 }),
		"bad head":      change(func(d *Decision) { d.Rows[0].Value = []byte{0xff} }),
		"bad node":      change(func(d *Decision) { d.Rows[4].Value = []byte{0xff} }),
		"nothing to it": change(func(d *Decision) { d.Emits[0].Phase = Compensate; d.Emits[0].Node = 0 }),
	} {
		if out, err := Outgoing("shop", r); !errors.Is(err, ErrMalformed) || out != nil {
			t.Errorf("%s: %d messages (%v)", why, len(out), err)
		}
	}
	if out, err := Outgoing("shop", &Record{Kind: KindClaim, Claim: &Claim{}}); out != nil || err != nil {
		t.Errorf("a claim sends %v (%v)", out, err)
	}
}

func TestTimestampsAreRFC3339InMilliseconds(t *testing.T) {
	for ms, want := range map[int64]string{0: "1970-01-01T00:00:00.000Z", 1_790_000_000_007: "2026-09-21T14:13:20.007Z", -1: "1969-12-31T23:59:59.999Z"} {
		if got := Timestamp(ms); got != want {
			t.Errorf("%d is printed as %s", ms, got)
		}
		if got, err := ParseTimestamp(want); err != nil || got != ms {
			t.Errorf("%s is read as %d (%v)", want, got, err)
		}
	}
	if got, err := ParseTimestamp("2026-09-21T16:13:20.0079999+02:00"); err != nil || got != 1_790_000_000_007 {
		t.Errorf("another zone and more digits: %d (%v)", got, err)
	}
	for _, bad := range []string{"", "now", "2026-09-21", "1790000000007", "2026-09-21T14:13:20", strings.Repeat("2", 1<<16)} {
		if _, err := ParseTimestamp(bad); !errors.Is(err, ErrMalformed) || len(err.Error()) > 500 {
			t.Errorf("%.40q is taken (%v)", bad, err)
		}
	}
	// What a deadline may become: the longest duration from now is printed and read.
	far := time.UnixMilli(1_790_000_000_000).Add(1<<63 - 1).UnixMilli()
	if got, err := ParseTimestamp(Timestamp(far)); err != nil || got != far {
		t.Errorf("%d comes back as %d (%v)", far, got, err)
	}
}

func TestTopicsAreNamedAfterTheApplication(t *testing.T) {
	names := Topics{"shop"}
	for got, want := range map[string]string{names.Journal(): "shop.journal", names.Inbox(): "shop.inbox", names.Replies(): "shop.replies",
		names.Quarantine(): "shop.quarantine", names.Lifecycle(): "shop.lifecycle"} {
		if got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}
