package main

import (
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas/sagatest"
)

var (
	pens  = OrderPlaced{ID: "o-1", Lines: []Line{{"pen", 2, 1_50}}}
	desks = OrderPlaced{ID: "o-2", Lines: []Line{{"desk", 3, 499_00}}}
)

func TestASmallOrderNeedsNobody(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.On("reserve-stock").Done(StockReserved{Warehouse: "north"})
	s.On("authorize").Done(Authorized{ID: "a-1"})
	s.AllDone()
	s.Given(pens)
	s.Expect("book-courier").With(BookCourier{Order: "o-1", Warehouse: "north"})
	s.Expect("capture").With(Capture{Authorization: "a-1"})
	s.State(events.Completed)
}

func TestALargeOrderIsApproved(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.AllDone()
	s.Given(desks)
	s.State(events.Running)
	s.Approve("approval", "ann")
	s.State(events.Completed)
}

func TestALargeOrderThatNobodyApprovesIsUndone(t *testing.T) {
	s := sagatest.New(t, PlaceOrder)
	s.AllDone()
	s.Given(desks)
	s.Advance(48 * time.Hour)
	s.ExpectUndo("reserve-stock").With(OrderRef{Order: "o-2"})
	s.ExpectUndo("authorize")
	s.ExpectUndo("book-courier")
	s.State(events.Compensated)
	s.Code("timeout")
}

func TestTheShopRuns(t *testing.T) {
	orders := []OrderPlaced{pens, {ID: "broke-1", Lines: pens.Lines}, {ID: "no-such-1", Lines: []Line{{"unicorn", 1, 1}}}}
	ended, err := place(t.Context(), "", 1, orders)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]events.State{"o-1": events.Completed, "broke-1": events.Compensated, "no-such-1": events.Compensated} {
		if ended[id] != want {
			t.Errorf("%s is %s, not %s", id, ended[id], want)
		}
	}
}
