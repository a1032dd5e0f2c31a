package sagatest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

type (
	Paid    struct{ Order string }
	Shipped struct{ Order string }
	eachInt = sagas.Each[Order, int]
)

var (
	paid    = sagas.NewEvent[Paid]("payments", "order.paid").KeyBy(func(p Paid) string { return p.Order })
	shipped = sagas.NewEvent[Shipped]("shipments", "order.shipped")
	nudge   = sagas.NewSignal[string]("nudge")
)

// threeTurns holds an amount for each of three turns, side by side.
var threeTurns = sagas.Define("turns", "1", started, sagas.ForEach("parts", func(Order) []int { return []int{10, 20, 30} },
	sagas.Step("hold", authorize, func(e eachInt) Authorize { return Authorize{e.Saga.ID, e.Item} },
		func(e *eachInt, r Authorized) { e.Saga.Warehouse += r.ID }).
		Undo(sagas.With(void, func(e eachInt) Void { return Void{e.Saga.ID} }))))

// patient waits for a payment, a nudge and an approval, and tells that it ships.
var patient = sagas.Define("patient", "1", started, sagas.Seq(
	sagas.Wait("paid", paid, func(o *Order, p Paid) { o.Warehouse = "paid " + p.Order }).Within(time.Hour).Keep(time.Hour),
	sagas.Wait("nudged", nudge, func(o *Order, s string) { o.Warehouse += ", " + s }),
	sagas.Wait("approved", sagas.Approval("approval"), func(o *Order, d sagas.Decision) {
		o.Warehouse += ", " + d.By + " " + d.Comment
		if !d.Approved {
			o.Total = 0
		}
	}),
	sagas.Emit("told", shipped, func(o Order) Shipped { return Shipped{o.ID} })))

func TestTurnsAreNamedByTheirNumbers(t *testing.T) {
	s := sagatest.New(t, threeTurns)
	s.Given(order)
	s.Expect("hold[2]").With(Authorize{"o-1", 30})
	s.Expect("hold[0]").With(Authorize{"o-1", 10})
	s.Reply("hold[1]", Authorized{"b"})
	s.Reply("hold[0]", Authorized{"a"})
	s.Reject("hold[2]", "no")
	s.ExpectUndo("hold[1]").With(Void{"o-1"})
	s.ReplyUndo("hold[1]")
	s.ReplyUndo("hold[0]")
	s.ExpectNothing()
	s.State(events.Compensated)
	if d := sagatest.Data[Order](s); d.Warehouse != "ba" {
		t.Errorf("%+v", d)
	}
}

func TestTurnsWithinTurnsAreNamedByBothNumbers(t *testing.T) {
	type inner = sagas.Each[eachInt, string]
	s := sagatest.New(t, sagas.Define("nested", "1", started,
		sagas.ForEach("parts", func(Order) []int { return []int{10, 20} },
			sagas.ForEach("names", func(e eachInt) []string { return []string{"a", "b"}[:e.Item/10] },
				sagas.Step("hold", authorize, func(e inner) Authorize { return Authorize{e.Saga.Saga.ID + e.Item, e.Saga.Item + e.Turn} },
					func(e *inner, r Authorized) { e.Saga.Saga.Warehouse += r.ID }).
					Undo(sagas.With(void, func(e inner) Void { return Void{e.Item} }))).Width(1)).Width(1)))
	s.Given(order)
	s.Expect("hold[0][0]").With(Authorize{"o-1a", 10})
	s.ExpectNothing()
	s.Reply("hold[0][0]", Authorized{"x"})
	s.Reply("hold[1][0]", Authorized{"y"})
	s.Expect("hold[1][1]").With(Authorize{"o-1b", 21})
	s.Reject("hold[1][1]", "no")
	s.ExpectUndo("hold[1][0]").With(Void{"a"})
	s.ExpectNothing() // one after the other
	s.ReplyUndo("hold[1][0]")
	s.ReplyUndo("hold[0][0]")
	s.State(events.Compensated)
	if d := sagatest.Data[Order](s); d.Warehouse != "xy" {
		t.Errorf("%+v", d)
	}
}

func TestAStandInAnswersEachTurnFromItsFirstAnswerOn(t *testing.T) {
	s := sagatest.New(t, threeTurns)
	s.On("hold").Retry("busy").Done(Authorized{"x"})
	s.On("hold[1]").Done(Authorized{"y"})
	s.Given(order)
	s.Finish()
	s.State(events.Completed)
	var got []string
	for _, c := range s.Commands() {
		got = append(got, c.String())
	}
	if len(got) != 5 {
		t.Errorf("the commands are %v", got)
	}
	s.ExpectNothing()
	if d := sagatest.Data[Order](s); d.Warehouse != "yxx" {
		t.Errorf("%+v", d)
	}
	s.Expect("hold[0]")
	if second := s.Expect("hold[0]"); second.Attempt != 2 {
		t.Errorf("attempt %d", second.Attempt)
	}
}

func TestEventsSignalsAndApprovalsReachTheirWaits(t *testing.T) {
	s := sagatest.New(t, patient)
	s.Given(order)
	s.Event("paid", Paid{"another"})
	s.Signal("nudge", "early")
	s.Event("paid", Paid{"o-1"})
	s.Approve("approval", "ann")
	s.State(events.Completed)
	if e := s.ExpectEvent("told").With(Shipped{"o-1"}); e.Topic != "shipments" || e.Type != "order.shipped" || e.Key != "o-1" {
		t.Errorf("%+v", e)
	}
	if d := sagatest.Data[Order](s); d.Warehouse != "paid o-1, early, ann " {
		t.Errorf("%+v", d)
	}
	if n := len(s.Emitted()); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestAnEventBeforeTheStartIsKeptAndTheSameOneAgainIsIgnored(t *testing.T) {
	s := sagatest.New(t, patient)
	m := events.Message{Topic: "payments", Value: []byte(`{"Order":"o-1"}`), Headers: []events.Header{
		{Key: events.HeaderType, Value: []byte("order.paid")}, {Key: events.HeaderID, Value: []byte("p-1")}}}
	s.EventMessage(m)
	s.EventMessage(m)
	s.Advance(59 * time.Minute)
	s.Given(order)
	if h := s.History(); !strings.Contains(h, "ignored: duplicate-event") || !strings.Contains(h, "done paid") {
		t.Error(h)
	}
	s.Advance(24 * time.Hour)
	s.State(events.Running) // it waits for the nudge, and nothing times out
}

func TestADenialSaysSo(t *testing.T) {
	s := sagatest.New(t, patient)
	s.Given(order)
	s.Event("paid", Paid{"o-1"})
	s.SignalFrom("bob", "nudge", "late")
	s.Deny("approval", "ann", "never")
	if d := sagatest.Data[Order](s); d.Warehouse != "paid o-1, late, ann never" || d.Total != 0 {
		t.Errorf("%+v", d)
	}
}

func TestAWaitThatNobodyEndsTimesOut(t *testing.T) {
	s := sagatest.New(t, patient)
	s.Given(order)
	s.Advance(time.Hour)
	s.State(events.Compensated)
	s.Code("timeout")
}

func TestAnActionIsAnsweredOnce(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.Given(order)
	a := events.Action{ID: "a-1", Kind: events.ActionCancel, Who: "ann", Why: "changed my mind"}
	if first, second := s.Act(a), s.Act(a); !first.Done || first.Code != second.Code || first.Time != second.Time {
		t.Errorf("the answers are %+v and %+v", first, second)
	}
	s.ExpectUndo("reserve-stock")
	s.ReplyUndo("reserve-stock")
	s.State(events.Compensated)
	if h := s.History(); strings.Count(h, "action cancel by ann changed my mind") != 1 {
		t.Error(h)
	}
}

func TestASecondStartDoesWhatTheDefinitionSays(t *testing.T) {
	def := sagas.Define("once", "1", started, sagas.Step("a", capture, func(o Order) Capture { return Capture{o.ID} }, nil).EffectFree())
	s := sagatest.New(t, def.During(sagas.DuringIgnore).After(sagas.AfterFailure))
	s.Given(order)
	if outcome, why := s.GivenAgain(order); outcome != events.Ignored || !strings.HasPrefix(why, "key-live") {
		t.Error(outcome, why)
	}
	s.Reject("a", "no")
	first := s.Head().Started
	s.Advance(time.Second)
	if outcome, why := s.GivenAgain(order); outcome != events.Applied {
		t.Error(outcome, why)
	}
	s.State(events.Running)
	if s.Head().Started == first {
		t.Error("it is still about the first instance")
	}
	s.Reply("a", nil)
	s.State(events.Completed)
	if outcome, why := s.GivenAgain(order); outcome != events.Ignored || !strings.HasPrefix(why, "key-ended") {
		t.Error(outcome, why)
	}
	s.Advance(7 * 24 * time.Hour)
	s.Purged()
	if outcome, why := s.GivenAgain(order); outcome != events.Applied {
		t.Error("nothing is known any more of what is purged, and yet it is", outcome, why)
	}
}

func TestWhatIsNotAsTheTestSaysOfTheNewKindsFailsIt(t *testing.T) {
	given := func(then func(*sagatest.Scenario)) func(*sagatest.Scenario) {
		return func(s *sagatest.Scenario) { s.Given(order); then(s) }
	}
	for _, c := range []struct {
		name string
		test func(*sagatest.Scenario)
		want string
	}{
		{"event for no wait", func(s *sagatest.Scenario) { s.Event("pay", Paid{}) }, `the definition has no Wait "pay" for an event`},
		{"event for a signal's wait", func(s *sagatest.Scenario) { s.Event("nudged", "x") }, `the definition has no Wait "nudged" for an event`},
		{"event of another type", func(s *sagatest.Scenario) { s.Event("paid", Shipped{}) }, "the event of paid is a sagatest_test.Paid, not a sagatest_test.Shipped"},
		{"event of another topic", func(s *sagatest.Scenario) { s.EventMessage(events.Message{Topic: "other"}) }, "no Wait is for this event: unknown-topic"},
		{"event that is garbage", func(s *sagatest.Scenario) { s.Event("paid", []byte("{")) }, "the event is refused: "},
		{"signal before the start", func(s *sagatest.Scenario) { s.Signal("nudge", "x") }, "nothing started the saga: begin with Given"},
		{"signal for nobody", given(func(s *sagatest.Scenario) { s.Signal("other", nil) }), `the definition waits for no signal "other"`},
		{"signal of another type", given(func(s *sagatest.Scenario) { s.Signal("nudge", 7) }), "the signal nudge is a string, not a int"},
		{"emit that is none", given(func(s *sagatest.Scenario) { s.ExpectEvent("paid") }), `the definition has no Emit "paid"`},
		{"event that was not told", given(func(s *sagatest.Scenario) { s.ExpectEvent("told") }), "there is no new event: told"},
		{"event that was told once", given(func(s *sagatest.Scenario) {
			s.Event("paid", Paid{"o-1"})
			s.Signal("nudge", nil)
			s.Approve("approval", "ann")
			s.ExpectEvent("told")
			s.ExpectEvent("told")
		}), "there is no new event: told"},
		{"event with another payload", given(func(s *sagatest.Scenario) {
			s.Event("paid", Paid{"o-1"})
			s.Signal("nudge", nil)
			s.Approve("approval", "ann")
			s.ExpectEvent("told").With(Shipped{"o-2"})
		}), "the event of told is"},
		{"approval that is none", given(func(s *sagatest.Scenario) {
			s.Event("paid", Paid{"o-1"})
			s.Signal("nudge", nil)
			s.Signal("approval", []byte(`{"approved":"perhaps"}`))
		}), "the signal approval is refused: "},
		{"second start before the first", func(s *sagatest.Scenario) { s.GivenAgain(order) }, "nothing started the saga: begin with Given"},
		{"second start of another", given(func(s *sagatest.Scenario) { s.GivenAgain(OrderPlaced{ID: "o-2"}) }), `the event is about the business key "o-2", not "o-1"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := failure(t, patient, c.test)
			if first, _, _ := strings.Cut(got, "\n"); !strings.HasPrefix(first, c.want) {
				t.Errorf("it says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
