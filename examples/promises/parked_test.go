package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// Every saga ends, or is visibly parked: none vanishes. What operators do is history like anything else.
func TestWhatCannotGoOnIsParkedUntilSomebodyHelps(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(
		sagas.Step("reserve", reserve, ask, nil).Undo(sagas.With(release, ask).Retry(sagas.Attempts(1))),
		chargeCard)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	s.Reject("charge", "card-declined")
	s.RejectUndo("reserve", "warehouse-burnt-down")
	s.State(events.Parked)

	answer := s.Act(events.Action{Kind: events.ActionResolve, Step: "reserve", Undo: true, Outcome: "compensated", Who: "ann", Why: "written off"})
	if !answer.Done {
		t.Fatalf("refused: %s %s", answer.Code, answer.Message)
	}
	s.State(events.Compensated)
}
