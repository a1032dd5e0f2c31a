package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// Final is final: past the pivot nothing is undone, and the rest is tried until it is done.
func TestPastThePivotASagaOnlyGoesForward(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, sendParcel, thank)))
	s.On("reserve").Done(nil)
	s.On("send").Done(nil)
	s.On("thank").Silent().Retry("mail-is-down").Done(nil)
	s.Given(Placed{ID: "o-1"})
	s.Finish()
	s.ExpectNothing()
	s.State(events.Completed)
}

// A pivot that is refused is no pivot: the saga compensates.
func TestAPivotThatIsRefusedCompensates(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, sendParcel, thank)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Reject("send", "address-unknown")
	s.ReplyUndo("reserve")
	s.State(events.Compensated)
}
