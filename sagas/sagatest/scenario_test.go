package sagatest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

var order = OrderPlaced{ID: "o-1", Total: 4200}

func TestALateAnswerOfAnEarlierAttemptCounts(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.Given(order)
	first := s.Expect("reserve-stock")
	s.Advance(30 * time.Second) // unknown
	s.ExpectNothing()
	s.AdvanceToTimer() // the backoff
	if second := s.Expect("reserve-stock"); first.Attempt != 1 || second.Attempt != 2 {
		t.Errorf("attempts %d and %d", first.Attempt, second.Attempt)
	}
	first.Done(StockReserved{"north"})
	s.Expect("authorize")
	first.Done(StockReserved{"north"}) // once more: nothing
	s.Expect("book-courier").With(BookCourier{"o-1", "north"})
	s.ExpectNothing()
}

func TestASilentStepFailsAndOwesItsUndo(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.On("reserve-stock").Silent()
	s.OnUndo("reserve-stock").Retry("busy").Done(nil)
	s.Given(order)
	s.Finish()
	s.State(events.Compensated)
	s.Code("timeout")
	var got []string
	for _, c := range s.Commands() {
		got = append(got, c.String())
	}
	if want := "reserve-stock, reserve-stock (attempt 2), reserve-stock (attempt 3), undo of reserve-stock, undo of reserve-stock (attempt 2)"; strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestWhatIsDueHappensAtItsTime(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.AllDone()
	s.Given(order)
	s.Advance(time.Hour)
	s.State(events.Completed)
	if ended := time.UnixMilli(s.Head().Ended); !ended.Equal(sagatest.Start.Add(time.Minute)) {
		t.Errorf("it ended at %v, after %v", ended, ended.Sub(sagatest.Start))
	}
	if !s.Now().Equal(sagatest.Start.Add(time.Hour)) {
		t.Errorf("it is %v", s.Now())
	}
}

func TestProgressKeepsAnAttemptAlive(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.Given(order)
	s.Expect("reserve-stock")
	for range 5 {
		s.Advance(29 * time.Second)
		s.Progress("reserve-stock")
	}
	s.ExpectNothing()
	s.Reply("reserve-stock", StockReserved{})
	s.Expect("authorize")
}

func TestTheDeadlineCompensates(t *testing.T) {
	s := sagatest.New(t, sagas.Define("slow", "1", started, sagas.Seq(
		sagas.Step("hold", authorize, func(o Order) Authorize { return Authorize{o.ID, o.Total} }, nil).
			Undo(sagas.With(void, func(o Order) Void { return Void{o.ID} })).Timeout(time.Hour))).
		Deadline(time.Minute))
	s.Given(order)
	s.Advance(time.Minute)
	s.ExpectUndo("hold").With(Void{"o-1"})
	s.ReplyUndo("hold")
	s.State(events.Compensated)
	s.Code("deadline")
}

func TestAPanicParks(t *testing.T) {
	s := sagatest.New(t, sagas.Define("panics", "1", started, sagas.Seq(
		sagas.Step("a", capture, func(o Order) Capture { return Capture{o.ID} }, func(*Order, Nothing) { panic("no such order") }).EffectFree())))
	s.Given(order)
	s.Reply("a", nil)
	s.State(events.Parked)
	s.Code("user-function")
	if m := s.Head().Message; !strings.Contains(m, "no such order") || !strings.Contains(m, "scenario_test.go") {
		t.Errorf("the stack is missing: %s", m)
	}
}

func TestAReplyThatIsGarbageParks(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.Given(order)
	s.Reply("reserve-stock", []byte(`{"Warehouse":`))
	s.State(events.Parked)
}

func TestAnEventThatComesTwiceStartsOnce(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	m := events.Message{Topic: "orders", Value: []byte(`{"id":"o-9"}`), Headers: []events.Header{
		{Key: "ce_type", Value: []byte("order.placed")}, {Key: "ce_id", Value: []byte("e-9")}}}
	s.GivenMessage(m)
	s.GivenMessage(m)
	s.Expect("reserve-stock").With(ReserveStock{"o-9"})
	s.ExpectNothing()
}

func TestADoAndAnEffectFreeStep(t *testing.T) {
	s := sagatest.New(t, sagas.Define("check", "1", started, sagas.Seq(
		sagas.Do("double", func(o *Order) { o.Total *= 2 }),
		sagas.Step("a", authorize, func(o Order) Authorize { return Authorize{o.ID, o.Total} }, nil).EffectFree(),
		sagas.Step("b", capture, func(o Order) Capture { return Capture{o.ID} }, nil).EffectFree())))
	s.Given(order)
	s.Expect("a").With(Authorize{"o-1", 8400})
	s.Reply("a", Authorized{"x"})
	s.Reject("b", "no")
	s.State(events.Compensated)
}

// fake is a test that fails without ending the real one.
type fake struct {
	testing.TB
	message string
}

type failed struct{}

func (f *fake) Helper() {}

func (f *fake) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(failed{})
}

// failure runs a test that must fail and gives what it says.
func failure(t *testing.T, def *sagas.Definition, test func(*sagatest.Scenario)) string {
	t.Helper()
	f := &fake{}
	func() {
		defer func() {
			if p := recover(); p != nil && p != (failed{}) {
				panic(p)
			}
		}()
		test(sagatest.New(f, def))
	}()
	if f.message == "" {
		t.Fatal("the test passes")
	}
	return f.message
}

func TestAFailureShowsTheHistory(t *testing.T) {
	got := failure(t, PlaceOrder, func(s *sagatest.Scenario) {
		s.Given(order)
		s.Advance(2 * time.Second)
		s.Reply("reserve-stock", StockReserved{"north"})
		s.Advance(1500 * time.Millisecond)
		s.Reject("authorize", "card-declined")
		s.State(events.Compensated)
	})
	want := `the instance is compensating because of card-declined; want compensated
place-order "o-1" at +3.5s:
+0s        started event-1
+0s        command reserve-stock
+2s        done reserve-stock
+2s        command authorize
+2s        command book-courier
+3.5s      rejected authorize card-declined
+3.5s      failed authorize card-declined
+3.5s      discharged authorize
+3.5s      compensating card-declined
+3.5s      command undo of book-courier
commands without an answer: book-courier, undo of book-courier
due next: book-courier, at +33.5s`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhatIsNotAsTheTestSaysFailsIt(t *testing.T) {
	given := func(then func(*sagatest.Scenario)) func(*sagatest.Scenario) {
		return func(s *sagatest.Scenario) { s.Given(order); then(s) }
	}
	for _, c := range []struct {
		name string
		test func(*sagatest.Scenario)
		want string // the first line
	}{
		{"state before the start", func(s *sagatest.Scenario) { s.State(events.Running) }, "nothing started the saga: begin with Given"},
		{"event of another type", func(s *sagatest.Scenario) { s.Given(Order{}) }, "the event is a sagatest_test.OrderPlaced, not a sagatest_test.Order"},
		{"event without a key", func(s *sagatest.Scenario) { s.Given(OrderPlaced{}) }, "the event is refused: missing-key: "},
		{"event that is garbage", func(s *sagatest.Scenario) { s.Given([]byte("{")) }, "the event is refused: undecodable: "},
		{"event of another topic", func(s *sagatest.Scenario) { s.GivenMessage(events.Message{Topic: "other"}) }, "the event does not start the saga: unknown-topic: "},
		{"two instances", given(func(s *sagatest.Scenario) { s.Given(order) }), "the saga is started already"},
		{"another instance", given(func(s *sagatest.Scenario) {
			s.GivenMessage(events.Message{Topic: "orders", Value: []byte(`{"id":"o-2"}`), Headers: []events.Header{{Key: "ce_type", Value: []byte("order.placed")}}})
		}), `the event starts another instance, by key "o-2"`},
		{"state", given(func(s *sagatest.Scenario) { s.State(events.Completed) }), "the instance is running; want completed"},
		{"state with its reason", given(func(s *sagatest.Scenario) { s.Reject("reserve-stock", "none-left"); s.State(events.Completed) }), "the instance is compensated because of none-left; want completed"},
		{"code", given(func(s *sagatest.Scenario) { s.Code("x") }), `the instance is running because of ""; want "x"`},
		{"misspelled step", given(func(s *sagatest.Scenario) { s.Expect("reserve") }), `the definition has no step "reserve"`},
		{"stand-in for a misspelled step", func(s *sagatest.Scenario) { s.On("reserve") }, `the definition has no step "reserve"`},
		{"undo of what has none", given(func(s *sagatest.Scenario) { s.ExpectUndo("capture") }), `step "capture" has no undo`},
		{"command that was not decided", given(func(s *sagatest.Scenario) { s.Expect("capture") }), "there is no new command: capture"},
		{"command twice", given(func(s *sagatest.Scenario) { s.Expect("reserve-stock"); s.Expect("reserve-stock") }), "there is no new command: reserve-stock"},
		{"undo that was not decided", given(func(s *sagatest.Scenario) { s.ReplyUndo("reserve-stock") }), "there is no open command: undo of reserve-stock"},
		{"command that nobody expects", given(func(s *sagatest.Scenario) { s.ExpectNothing() }), "there is a command that nobody expects: reserve-stock"},
		{"answer twice", given(func(s *sagatest.Scenario) { s.Retry("reserve-stock", "busy"); s.Reject("reserve-stock", "x") }), "the command is answered already: reserve-stock"},
		{"reply of another type", given(func(s *sagatest.Scenario) { s.Reply("reserve-stock", Authorized{}) }), "the reply of reserve-stock is a sagatest_test.StockReserved, not a sagatest_test.Authorized"},
		{"stand-in of another type", func(s *sagatest.Scenario) { s.On("reserve-stock").Done(7) }, "the reply of reserve-stock is a sagatest_test.StockReserved, not a int"},
		{"payload", given(func(s *sagatest.Scenario) { s.Expect("reserve-stock").With(ReserveStock{"o-2"}) }), "the payload of reserve-stock is"},
		{"payload of another type", given(func(s *sagatest.Scenario) { s.Expect("reserve-stock").With(Capture{}) }), "the payload of reserve-stock is a sagatest_test.ReserveStock, not a sagatest_test.Capture"},
		{"back in time", given(func(s *sagatest.Scenario) { s.Advance(-1) }), "time does not go back by 1ns"},
		{"nothing due", func(s *sagatest.Scenario) { s.AdvanceToTimer() }, "nothing is due, now or later"},
		{"rows that are left", given(func(s *sagatest.Scenario) { s.Purged() }), "4 rows of the instance are left"},
		{"data of another type", given(func(s *sagatest.Scenario) { sagatest.Data[OrderPlaced](s) }), "the saga's data is a sagatest_test.Order, not a sagatest_test.OrderPlaced"},
		{"finish of a parked instance", given(func(s *sagatest.Scenario) { s.Reply("reserve-stock", []byte("{")); s.Finish() }), `the instance is parked in step "reserve-stock": user-function: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := failure(t, PlaceOrder, c.test)
			if first, _, _ := strings.Cut(got, "\n"); !strings.HasPrefix(first, c.want) {
				t.Errorf("it says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestAFunctionThatIsNotPureFailsTheTest(t *testing.T) {
	n := 0
	counts := func(o Order) Capture { n++; return Capture{fmt.Sprint(o.ID, "-", n)} }
	got := failure(t, sagas.Define("impure", "1", started, sagas.Step("a", capture, counts, nil).EffectFree()),
		func(s *sagatest.Scenario) { s.Given(order) })
	if !strings.HasPrefix(got, "the same decision, made twice, differs: a function of the definition is not pure") || !strings.Contains(got, "o-1-2") {
		t.Error(got)
	}
}

func TestADefinitionWithMistakesFailsTheTest(t *testing.T) {
	got := failure(t, sagas.Define("Bad", "1", started, sagas.Sleep[Order]("w", 0)), func(*sagatest.Scenario) {})
	if !strings.HasPrefix(got, "the definition has mistakes:\nsagatest/scenario_test.go:") {
		t.Error(got)
	}
}
