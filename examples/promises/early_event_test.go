package promises

import (
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

var paidOrder = sagas.Define("order", "1", onPlaced, sagas.Seq(
	reserveStock,
	sagas.Wait[Order]("payment", paid, nil).Within(7*24*time.Hour).Keep(24*time.Hour),
	sendParcel,
))

// An event that comes before anybody waits for it is kept.
func TestAnEventThatComesEarlyIsKept(t *testing.T) {
	s := sagatest.New(t, paidOrder)
	s.Event("payment", Paid{Order: "o-1"}) // before the order is even placed
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Expect("send")
}

// For as long as the saga says, and not longer.
func TestAnEventIsNotKeptForEver(t *testing.T) {
	s := sagatest.New(t, paidOrder)
	s.Event("payment", Paid{Order: "o-1"})
	s.Advance(24 * time.Hour)
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.ExpectNothing()
	s.Advance(7 * 24 * time.Hour)
	s.ReplyUndo("reserve")
	s.State(events.Compensated)
}

// The event of another order is another order's.
func TestAnEventFindsItsOrder(t *testing.T) {
	s := sagatest.New(t, paidOrder)
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Event("payment", Paid{Order: "o-2"})
	s.ExpectNothing()
	s.Event("payment", Paid{Order: "o-1"})
	s.Expect("send")
}
