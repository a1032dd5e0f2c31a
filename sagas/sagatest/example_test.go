package sagatest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas/sagatest"
)

// In a test of your own, t is the *testing.T that it gets.
var t = testing.TB(printer{})

// printer stands for a *testing.T where there is none.
type printer struct{ testing.TB }

func (printer) Helper() {}

func (printer) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func Example() {
	s := sagatest.New(t, PlaceOrder)

	s.Given(OrderPlaced{ID: "o-1", Total: 4200})
	s.Expect("reserve-stock").With(ReserveStock{Order: "o-1"})
	s.Reply("reserve-stock", StockReserved{Warehouse: "north"})

	s.Expect("authorize").With(Authorize{Order: "o-1", Total: 4200})
	s.Expect("book-courier").With(BookCourier{Order: "o-1", From: "north"})
	s.Reply("book-courier", nil)
	s.Reject("authorize", "card-declined")

	s.ExpectUndo("book-courier")
	s.ExpectNothing() // the stock is released after the courier is cancelled
	s.ReplyUndo("book-courier")
	s.ExpectUndo("reserve-stock").With(ReleaseStock{Order: "o-1", Warehouse: "north"})
	s.ReplyUndo("reserve-stock")

	s.State(events.Compensated)
	fmt.Println(s.Head().State, s.Head().Code)
	// Output:
	// compensated card-declined
}

// Stand-ins answer by themselves, so that a test says only what it is about.
func ExampleScenario_On() {
	s := sagatest.New(t, PlaceOrder)
	s.On("reserve-stock").Retry("busy").Silent().Done(StockReserved{Warehouse: "south"})
	s.AllDone()

	s.Given(OrderPlaced{ID: "o-1", Total: 4200})
	s.Finish()

	s.State(events.Completed)
	fmt.Println(sagatest.Data[Order](s).Warehouse)
	// Output:
	// south
}

// Time is the test's.
func ExampleScenario_Advance() {
	s := sagatest.New(t, PlaceOrder)
	s.AllDone()
	s.Given(OrderPlaced{ID: "o-1"})

	s.State(events.Running) // in its cool-off
	s.Advance(59 * time.Second)
	s.State(events.Running)
	s.Advance(time.Second)
	s.State(events.Completed)

	s.Advance(7 * 24 * time.Hour)
	s.Purged()
	fmt.Print(s.History())
	// Output:
	// +0s        started event-1
	// +0s        command reserve-stock
	// +0s        done reserve-stock
	// +0s        command authorize
	// +0s        command book-courier
	// +0s        done authorize
	// +0s        done book-courier
	// +1m0s      done cool-off
	// +1m0s      command capture
	// +1m0s      done capture
	// +1m0s      command notify
	// +1m0s      done notify
	// +1m0s      completed
	// +168h1m0s  purged
}
