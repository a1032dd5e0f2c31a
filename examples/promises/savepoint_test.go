package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// A save-point: what is behind it is undone, what is before it stays, and the saga goes on another way.
func TestASavePointGoesOnAnotherWay(t *testing.T) {
	pickUp := sagas.Do("pick-up", func(o *Order) { o.Carrier = "the customer" })
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(
		reserveStock,
		sagas.Try("delivery", sagas.Seq(bookCourier, chargeCard)).
			OnFailure(func(o *Order, f sagas.Failure) { o.Lines = append(o.Lines, f.Step+" "+f.Code) }).
			Else(pickUp),
		sendParcel)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Reply("book", nil)
	s.Reject("charge", "card-declined")

	s.ExpectUndo("book") // and not the stock
	s.ExpectNothing()
	s.State(events.Running)
	s.ReplyUndo("book")
	s.Reply("send", nil)
	s.State(events.Completed)
	if o := sagatest.Data[Order](s); o.Carrier != "the customer" || len(o.Lines) != 1 || o.Lines[0] != "charge card-declined" {
		t.Errorf("%+v", o)
	}
}
