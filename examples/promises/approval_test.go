package promises

import (
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

var approvedOrder = sagas.Define("order", "1", onPlaced, sagas.Seq(
	reserveStock,
	sagas.Wait("approval", sagas.Approval("approval"), func(o *Order, d sagas.Decision) { o.Decision = d }).Within(48*time.Hour),
	sagas.Require("approved", func(o Order) bool { return o.Decision.Approved }),
	sendParcel,
))

// A person decides, and who it was is kept.
func TestAPersonApproves(t *testing.T) {
	s := sagatest.New(t, approvedOrder)
	s.AllDone()
	s.Given(Placed{ID: "o-1"})
	s.Advance(47 * time.Hour)
	s.State(events.Running)
	s.Approve("approval", "ann")
	s.State(events.Completed)
	if by := sagatest.Data[Order](s).Decision.By; by != "ann" {
		t.Errorf("approved by %q", by)
	}
}

func TestAPersonSaysNo(t *testing.T) {
	s := sagatest.New(t, approvedOrder)
	s.AllDone()
	s.Given(Placed{ID: "o-1"})
	s.Deny("approval", "ann", "too much")
	s.ExpectUndo("reserve")
	s.State(events.Compensated)
}

// Nobody decides: the saga does not wait for ever.
func TestAnApprovalHasATimeLimit(t *testing.T) {
	s := sagatest.New(t, approvedOrder)
	s.AllDone()
	s.Given(Placed{ID: "o-1"})
	s.Advance(48 * time.Hour)
	s.ExpectUndo("reserve")
	s.State(events.Compensated)
	s.Code("timeout")
}
