package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

func planned(t testing.TB, text string) *world {
	return newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, text, map[string]bool{})}})
}

func (w *world) arrives(key, id, value string) *events.Decision {
	w.t.Helper()
	routes, err := w.m.Routes(&events.Message{Topic: "payments", Key: []byte(key), Value: []byte(value),
		Headers: []events.Header{{Key: events.HeaderType, Value: []byte("paid")}, {Key: events.HeaderID, Value: []byte(id)}}})
	if err != nil || len(routes) != 1 || routes[0].Event == nil {
		w.t.Fatalf("%+v %v", routes, err)
	}
	return w.at(routes[0].Instance, func() *events.Decision { return w.m.Event(w, w.now, *routes[0].Event) })
}

func (w *world) does(a events.Action) *events.Decision {
	w.t.Helper()
	return w.message(&events.InboxMessage{Kind: events.InboxAction, To: w.id, Action: &a})
}

func code(d *events.Decision) string {
	c, _, _ := strings.Cut(d.Reason, ":")
	return d.Outcome.String() + " " + c
}

func TestWhatAKeyHoldsIsBounded(t *testing.T) {
	w := planned(t, "paid:on=paid")
	for i := range maxBuffered {
		if d := w.arrives("K", "e"+strconv.Itoa(i), "v"); d.Outcome != events.Applied {
			t.Fatalf("event %d: %s", i, d.Reason)
		}
	}
	if got := code(w.arrives("K", "one more", "v")); got != "quarantined buffer-full" {
		t.Errorf("one more: %s", got)
	}
	if got := code(w.arrives("K", "e3", "v")); got != "ignored duplicate-event" {
		t.Errorf("one of them again: %s", got)
	}
	if d := w.arrives("another", "e", "v"); d.Outcome != events.Applied {
		t.Errorf("another key: %s", d.Reason)
	}
	// The numbers of rows are used again.
	w.start("K", "m1", "K")
	for len(w.sent) > 0 {
		w.deliver(0)
	}
	if d := w.arrives("K", "one more", "v"); d.Outcome != events.Applied || d.Rows[1].Ref != keptRef(0) {
		t.Errorf("after one was taken: %s", w.print(d))
	}
}

func TestOnlySoManyWaitForAKeyAndTheNextFailsAtOnce(t *testing.T) {
	w := planned(t, "seq(a,paid:on=paid:by=K)")
	id := events.CorrelationID("shop", "order", "payments", "paid", "K", 64)
	subscribe := func(i int) *events.Decision {
		return w.message(&events.InboxMessage{Kind: events.InboxSubscribe, To: id, Definition: "order", Topic: "payments", Type: "paid", Key: "K",
			From: events.Waiter{Instance: events.NewInstanceID("shop", "order", strconv.Itoa(i), "m", 64), Node: 2, Execution: 1}})
	}
	w.quiet = true
	for i := range maxWaiting {
		subscribe(i)
	}
	w.start("order-1", "m1", "order-1")
	w.reply(events.Reply{Command: events.CommandID{Node: 1, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyDone})
	w.deliver(0)
	if m := w.sent[0]; m.Kind != events.InboxDenied {
		t.Fatalf("the key says %s", m.Kind)
	}
	w.deliver(0)
	if h := w.head(); h.State != events.Compensating || h.Code != CodeTooManyWaits {
		t.Errorf("%s %s", h.State, h.Code)
	}
	w.deliver(0) // its end meets what the key remembers
	if c, err := events.DecodeCorrelation(w.of(id)[correlationRef].value); err != nil || len(c.Ended) != 0 || len(c.Waiting) != maxWaiting {
		t.Errorf("%d ended, %d wait: %v", len(c.Ended), len(c.Waiting), err)
	}
}

func TestAnAnswerThatNobodyAskedForChangesNothing(t *testing.T) {
	w := planned(t, "paid:on=paid")
	w.arrives("K", "e1", "v")
	w.start("K", "m1", "K")
	w.deliver(0) // it is offered
	id := events.CorrelationID("shop", "order", "payments", "paid", "K", 64)
	for name, m := range map[string]events.InboxMessage{
		"another instance's":  {Kind: events.InboxTaken, From: events.Waiter{Instance: id, Node: 0, Execution: 1}, EventID: "e1"},
		"another execution's": {Kind: events.InboxTaken, From: events.Waiter{Instance: w.id, Node: 0, Execution: 2}, EventID: "e1"},
		"for another event":   {Kind: events.InboxRefused, From: events.Waiter{Instance: w.id, Node: 0, Execution: 1}, EventID: "e2"},
	} {
		m.To = id
		if got := code(w.message(&m)); got != "ignored unknown-offer" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestAWaitTakesOnlyWhatIsOfferedToItsExecution(t *testing.T) {
	w := planned(t, "seq(paid:on=paid,a)")
	w.start("K", "m1", "K")
	offer := func(execution uint32) *events.Decision {
		return w.message(&events.InboxMessage{Kind: events.InboxOffer, To: w.id, From: events.Waiter{Instance: w.id, Node: 1, Execution: execution},
			Correlation: events.CorrelationID("shop", "order", "payments", "paid", "K", 64), EventID: "e1", Payload: []byte("v")})
	}
	before := string(w.rows[headRef].value)
	offer(2)
	if m := w.sent[1]; m.Kind != events.InboxRefused || string(w.rows[headRef].value) != before {
		t.Fatalf("what was offered to another execution is answered %s", m.Kind)
	}
	offer(1)
	if m := w.sent[2]; m.Kind != events.InboxTaken {
		t.Errorf("what was offered to this one is answered %s", m.Kind)
	}
	offer(1)
	if m := w.sent[3]; m.Kind != events.InboxRefused {
		t.Errorf("the same offer again is answered %s", m.Kind)
	}
}

func TestTheQueueIsBoundedAndKeepsItsOrder(t *testing.T) {
	w := planned(t, "seq(a,x:signal=x,y:signal=y)")
	w.quiet = true
	w.start("K", "m1", "K")
	signal := func(id, name string) string {
		return code(w.does(events.Action{ID: id, Kind: events.ActionSignal, Name: name, Payload: []byte(id)}))
	}
	for i := range maxQueue {
		if got := signal(fmt.Sprintf("y%d", i), "y"); got != "applied " {
			t.Fatalf("signal %d: %s", i, got)
		}
	}
	if got := signal("more", "x"); got != "quarantined queue-full" {
		t.Fatalf("one more: %s", got)
	}
	if _, ok := AnswerOf(w, w.id, "more"); ok {
		t.Error("it has an answer, so that it cannot be sent again")
	}
	w.reply(events.Reply{Command: events.CommandID{Node: 1, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyDone})
	// The Wait that is open takes what is sent now, whatever the queue; then the next takes the oldest.
	if got := signal("more", "x"); got != "applied " {
		t.Fatalf("sent again: %s", got)
	}
	if d, _, _ := w.Row(w.id, dataRef); string(d) != "K,a=nil,x=more,y=y0" {
		t.Errorf("the data are %s", d)
	}
	if h := w.head(); h.QueueNext-h.QueueFirst != maxQueue-1 {
		t.Errorf("%d are left", h.QueueNext-h.QueueFirst)
	}
}

func TestGapsInTheQueueAreClosedInOrder(t *testing.T) {
	w := planned(t, "seq(a,b)")
	w.start("K", "m1", "K")
	w.quiet = true
	h := w.head()
	h.QueueNext = maxQueueSpan
	w.rows[headRef] = cell{h.Encode(nil), 0}
	for i, n := range []uint64{0, 7, 500} {
		w.rows[queueRef(n)] = cell{(&events.Queued{Name: "x", MessageID: strconv.Itoa(i)}).Encode(nil), 0}
	}
	w.does(events.Action{ID: "s", Kind: events.ActionSignal, Name: "x"})
	var ids []string
	h = w.head()
	for n := h.QueueFirst; n < h.QueueNext; n++ {
		q, err := events.DecodeQueued(w.rows[queueRef(n)].value)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, q.MessageID)
	}
	if got := strings.Join(ids, " "); got != "0 1 2 s" {
		t.Errorf("the queue is %s", got)
	}
	if _, ok := w.rows[queueRef(7)]; ok {
		t.Error("a row is left behind")
	}
}

func TestAnInstanceFromBeforeThereWereKeysEndsAndIsPurged(t *testing.T) {
	w := planned(t, "a")
	w.start("K", "m1", "K")
	delete(w.of(w.m.keyID("order", "K")), keyRef)
	first := w.id
	w.start("K", "m2", "K") // of its key nothing is known
	second := w.id
	w.turnTo(first)
	w.reply(events.Reply{Command: events.CommandID{Node: 0, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyDone})
	w.fire(headRef)
	if len(w.rows) != 0 {
		t.Errorf("%d rows are left", len(w.rows))
	}
	if k, err := events.DecodeKeyState(w.of(w.m.keyID("order", "K"))[keyRef].value); err != nil || k.Live != second {
		t.Errorf("the key's live instance is %s: %v", k.Live, err)
	}
}

func TestAnswersOfAnInstanceAreBounded(t *testing.T) {
	w := planned(t, "a")
	w.start("K", "m1", "K")
	h := w.head()
	h.Answers = maxAnswers
	w.rows[headRef] = cell{h.Encode(nil), 0}
	for _, kind := range []events.ActionKind{events.ActionSuspend, events.ActionResume, events.ActionSignal} {
		if got := code(w.does(events.Action{ID: "x" + string(kind), Kind: kind, Name: "n"})); got != "quarantined too-many-answers" {
			t.Errorf("%s: %s", kind, got)
		}
	}
	if w.head().State != events.Running {
		t.Error("half of it was done")
	}
}

// Whatever an inbox holds: it is refused by name, or taken; nothing panics, and nothing is half done.
func TestHostileMessagesAreRefusedByName(t *testing.T) {
	w := planned(t, "seq(paid:on=paid,ok:signal=ok,a)")
	w.start("K", "m1", "K")
	key := w.m.keyID("order", "K")
	corr := events.CorrelationID("shop", "order", "payments", "paid", "K", 64)
	me := events.Waiter{Instance: w.id, Node: 1, Execution: 1}
	long := strings.Repeat("x", 5000)
	act := func(a events.Action) events.InboxMessage {
		return events.InboxMessage{Kind: events.InboxAction, To: w.id, Action: &a}
	}
	for name, x := range map[string]struct {
		msg  events.InboxMessage
		want string
	}{
		"a kind of a newer build":              {events.InboxMessage{Kind: 77, To: w.id}, "quarantined bad-message"},
		"an action without a body":             {events.InboxMessage{Kind: events.InboxAction, To: w.id}, "quarantined bad-message"},
		"an action without an id":              {act(events.Action{Kind: events.ActionRetry}), "quarantined bad-message"},
		"an id that is too long":               {act(events.Action{ID: long}), "quarantined bad-message"},
		"who is too long":                      {act(events.Action{ID: "1", Who: long}), "quarantined bad-message"},
		"why is no text":                       {act(events.Action{ID: "1", Why: "\xff"}), "quarantined bad-message"},
		"a step that is too long":              {act(events.Action{ID: "1", Step: long}), "quarantined bad-message"},
		"a payload that is too long":           {act(events.Action{ID: "1", Payload: make([]byte, DefaultMaxRecord/4+1)}), "quarantined bad-message"},
		"a key of no definition":               {act(events.Action{ID: "1", Key: "K"}), "quarantined bad-message"},
		"a key that it is not sent to":         {act(events.Action{ID: "1", Key: "K", Definition: "order"}), "quarantined bad-message"},
		"a subscription of nobody":             {events.InboxMessage{Kind: events.InboxSubscribe, To: corr, Definition: "order", Topic: "payments", Type: "paid", Key: "K"}, "quarantined bad-message"},
		"a subscription to another key":        {events.InboxMessage{Kind: events.InboxSubscribe, To: corr, From: me, Definition: "order", Topic: "payments", Type: "paid", Key: "L"}, "quarantined bad-message"},
		"a subscription with a huge key":       {events.InboxMessage{Kind: events.InboxSubscribe, To: corr, From: me, Definition: "order", Topic: "payments", Type: "paid", Key: long}, "quarantined bad-message"},
		"taken without an event":               {events.InboxMessage{Kind: events.InboxTaken, To: corr, From: me}, "quarantined bad-message"},
		"an offer for another":                 {events.InboxMessage{Kind: events.InboxOffer, To: w.id, From: events.Waiter{Instance: corr, Node: 1, Execution: 1}, Correlation: corr, EventID: "e"}, "quarantined bad-message"},
		"an offer of nothing":                  {events.InboxMessage{Kind: events.InboxOffer, To: w.id, From: me, Correlation: corr}, "quarantined bad-message"},
		"an offer that is too long":            {events.InboxMessage{Kind: events.InboxOffer, To: w.id, From: me, Correlation: corr, EventID: "e", Payload: make([]byte, DefaultMaxRecord/2+1)}, "quarantined bad-message"},
		"an offer to a row that no loop makes": {events.InboxMessage{Kind: events.InboxOffer, To: w.id, From: events.Waiter{Instance: w.id, Node: 1 << 31, Execution: 1}, Correlation: corr, EventID: "e"}, "applied "},
		"a denial of nothing":                  {events.InboxMessage{Kind: events.InboxDenied, To: w.id, From: events.Waiter{Instance: w.id, Node: 9, Execution: 1}}, "ignored unknown-offer"},
		"a signal without a name":              {act(events.Action{ID: "n1", Kind: events.ActionSignal}), "applied "},
		"a step by a wild label":               {act(events.Action{ID: "n2", Kind: events.ActionResolve, Step: "a[][", Outcome: "done"}), "applied "},
		"a turn that there is not":             {act(events.Action{ID: "n3", Kind: events.ActionResolve, Step: "a[99999999999]", Outcome: "done"}), "applied "},
		"a payload that is no patch":           {act(events.Action{ID: "n4", Kind: events.ActionPatchData, Payload: []byte("{")}), "applied "},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.head()
			x.msg.To = either(x.msg.To, key)
			if got := code(w.message(&x.msg)); got != x.want {
				t.Errorf("%s, want %s", got, x.want)
			}
			if h := w.head(); h.State != before.State || h.Code != before.Code {
				t.Errorf("the instance is %s", h.State)
			}
			if a := x.msg.Action; a != nil && x.want == "applied " {
				if answer, ok := AnswerOf(w, w.id, a.ID); !ok || answer.Done || answer.Code == "" {
					t.Errorf("the answer is %+v", answer)
				}
			}
		})
	}
}

func either(a, b events.InstanceID) events.InstanceID {
	if a.IsZero() {
		return b
	}
	return a
}

func TestMergePatch(t *testing.T) {
	// Of RFC 7396, appendix A, and what it does not say.
	for _, x := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"n":12345678901234567890.10}`, `{"m":1}`, `{"m":1,"n":12345678901234567890.10}`},
	} {
		got, err := mergePatch([]byte(x.target), []byte(x.patch))
		if err != nil || string(got) != x.want {
			t.Errorf("%s with %s: %s, %v, want %s", x.target, x.patch, got, err, x.want)
		}
	}
	deep := strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)
	for name, x := range map[string][2]string{"no JSON": {`{}`, `{`}, "no JSON to patch": {`x`, `{}`}, "no text": {`{}`, "\"\xff\""}, "too deep": {`{}`, deep}, "empty": {`{}`, ``}} {
		if got, err := mergePatch([]byte(x[0]), []byte(x[1])); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzMergePatch(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1}}`), []byte(`{"a":{"b":null,"c":[1]}}`))
	f.Add([]byte(`1`), []byte(`{"a":null}`))
	f.Fuzz(func(t *testing.T, target, patch []byte) {
		got, err := mergePatch(target, patch)
		if err != nil {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("%q with %q: %q", target, patch, got)
		}
		if again, err := mergePatch(got, patch); err != nil || !json.Valid(again) {
			t.Fatalf("the same patch again: %q, %v", again, err)
		}
	})
}

func TestPatchedDataHaveToBeTheDefinitions(t *testing.T) {
	type data struct{ Count int }
	p := planOf(t, "seq(a,b)", nil)
	p.Start.Data = func([]byte) (any, error) { return &data{1}, nil }
	p.NewData = func() any { return &data{} }
	p.Decode = func(row []byte, d any) error {
		if err := json.Unmarshal(row, d); err != nil {
			return err
		}
		if d.(*data).Count > 100 {
			return errors.New("a count of more than a hundred")
		}
		return nil
	}
	p.Encode = func(d any) ([]byte, error) { return json.Marshal(d) }
	for _, n := range p.Nodes[1:] {
		n.Step.Build = func(d any) ([]byte, error) { return []byte(strconv.Itoa(d.(*data).Count)), nil }
		n.Step.Undo.Build, n.Step.OnReply = n.Step.Build, nil
	}
	w := newWorld(t, Config{Plans: []*sagas.Plan{p}})
	w.start("K", "m1", "K")
	for i, x := range []struct{ patch, code string }{
		{`{"Count":7}`, ""}, {`{"Count":"x"}`, CodeBadPatch}, {`{"Count":101}`, CodeBadPatch}, {`[]`, CodeBadPatch}, {`{`, CodeBadPatch},
		{`{"Count":` + strings.Repeat("1", DefaultMaxRecord/4) + `}`, ""},
	} {
		id := strconv.Itoa(i)
		d := w.does(events.Action{ID: id, Kind: events.ActionPatchData, Payload: []byte(x.patch)})
		if len(x.patch) > 1000 {
			if code(d) != "quarantined bad-message" {
				t.Errorf("a patch that is too long: %s", d.Reason)
			}
			continue
		}
		if a, ok := AnswerOf(w, w.id, id); !ok || a.Code != x.code || a.Done != (x.code == "") {
			t.Errorf("%s: %+v", x.patch, a)
		}
	}
	if raw, _, _ := w.Row(w.id, dataRef); string(raw) != `{"Count":7}` {
		t.Errorf("the data are %s", raw)
	}
	w.reply(events.Reply{Command: events.CommandID{Node: 1, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyDone})
	if n, err := events.DecodeNode(w.rows[nodeRef(2)].value); err != nil || string(n.Payload) != "7" {
		t.Errorf("the next command says %q: %v", n.Payload, err)
	}
}

// FuzzMessage lets anything that can be read as a message of an inbox reach an instance, its key and its correlation.
func FuzzMessage(f *testing.F) {
	w := planned(f, "seq(a,all(paid:on=paid:within=1h,ok:signal=ok),each:n=2(b))")
	w.start("K", "m1", "K")
	w.reply(events.Reply{Command: events.CommandID{Node: 1, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyDone})
	w.arrives("K", "e1", "v")
	w.deliver(0)
	corr := w.m.correlationID("order", &sagas.EventPlan{Topic: "payments", Type: "paid"}, "K")
	for _, m := range append(w.sent, &events.InboxMessage{Kind: events.InboxTaken, To: corr, From: events.Waiter{Instance: w.id, Node: 3, Execution: 1}, EventID: "e1"}) {
		f.Add(m.Encode(nil))
	}
	for _, kind := range []string{"signal", "retry", "resolve", "skip", "compensate", "cancel", "suspend", "resume", "terminate", "patch-data"} {
		for _, args := range []map[string]string{{"id": "1"}, {"id": "2", "step": "b[1]", "outcome": "done", "payload": "{}"}, {"id": "3", "key": "K", "name": "ok", "payload": "x"}, {"id": "4", "step": "a", "outcome": "rejected"}} {
			f.Add(w.actionOf(kind, args, nil).Encode(nil))
		}
	}
	w.quiet = true
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := events.DecodeInboxMessage(b)
		if err != nil || m.To.IsZero() {
			return
		}
		d := w.m.Message(w, w.now, m)
		if d == nil {
			t.Fatal("it finds the rows corrupt")
		}
		if d.Outcome != events.Applied && (d.Reason == "" || len(d.Rows)+len(d.Emits) > 0) {
			t.Fatalf("half of it is done: %s", w.print(d))
		}
		value := (&events.Record{Kind: events.KindDecision, Seq: 1, Time: w.now, Decision: d}).Encode(nil)
		rec, err := events.DecodeRecord(value)
		if err != nil || len(value) > w.m.cfg.MaxRecord+4000 {
			t.Fatalf("%d bytes: %v", len(value), err)
		}
		if out, err := events.Outgoing("shop", rec); err != nil || len(out) != len(d.Emits) {
			t.Fatalf("%d go out: %v", len(out), err)
		}
	})
}
