package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

var oneAtATime = sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, sendParcel)).
	During(sagas.DuringIgnore). // placed twice, it is one order
	After(sagas.AfterFailure)   // placed again after it was compensated, it is a new one

// An order has one live saga.
func TestAnOrderHasOneLiveSaga(t *testing.T) {
	s := sagatest.New(t, oneAtATime)
	s.Given(Placed{ID: "o-1"})
	if outcome, why := s.GivenAgain(Placed{ID: "o-1"}); outcome != events.Ignored {
		t.Errorf("the second one is %s: %s", outcome, why)
	}
	s.Expect("reserve")
	s.ExpectNothing()

	s.Reject("reserve", "out-of-stock")
	s.State(events.Compensated)
	if outcome, why := s.GivenAgain(Placed{ID: "o-1"}); outcome != events.Applied {
		t.Errorf("the third one is %s: %s", outcome, why)
	}
	s.Reply("reserve", nil)
	s.Reply("send", nil)
	s.State(events.Completed)
	if outcome, why := s.GivenAgain(Placed{ID: "o-1"}); outcome != events.Ignored {
		t.Errorf("the fourth one is %s: %s", outcome, why)
	}
}
