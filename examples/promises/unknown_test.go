package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// Every possible effect is undone, those nobody knows of included.
func TestWhatMayHaveHappenedIsUndone(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, chargeCard)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.On("charge").Silent() // it may have charged the card, and died before it said so
	s.OnUndo("reserve").Done(nil)
	s.OnUndo("charge").Retry("busy").Done(nil)
	s.Finish()
	s.ExpectUndo("charge")
	s.State(events.Compensated)
	s.Code("timeout")
}

// What definitely did not happen is not undone.
func TestWhatWasRefusedIsNotUndone(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, chargeCard)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Reject("charge", "card-declined")
	s.ExpectUndo("reserve")
	s.ReplyUndo("reserve")
	s.ExpectNothing()
	s.State(events.Compensated)
}
