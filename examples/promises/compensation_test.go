package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// All or nothing, in meaning; undos run in the reverse order of what they undo.
func TestWhatWasDoneIsUndoneInReverse(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, chargeCard, bookCourier)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Reply("charge", nil)
	s.Reject("book", "no-courier")

	s.ExpectUndo("charge").With(Ask{Order: "o-1"})
	s.ExpectNothing() // the stock waits for the money
	s.ReplyUndo("charge")
	s.ExpectUndo("reserve")
	s.ReplyUndo("reserve")
	s.State(events.Compensated)
	s.Code("no-courier")
}
