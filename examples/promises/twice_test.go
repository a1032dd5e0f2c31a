package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// Every input counts once.
func TestAReplyThatComesTwiceCountsOnce(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(
		sagas.Step("reserve", reserve, ask, func(o *Order, r Answer) { o.Reserved = append(o.Reserved, r.ID) }).Undo(sagas.With(release, ask)),
		sendParcel)))
	s.Given(Placed{ID: "o-1"})
	command := s.Expect("reserve")
	command.Done(Answer{ID: "r-1"})
	command.Done(Answer{ID: "r-1"})
	s.Expect("send")
	s.ExpectNothing()
	if got := sagatest.Data[Order](s).Reserved; len(got) != 1 {
		t.Errorf("reserved %v", got)
	}
}

// So does an operator's action, by its id.
func TestAnActionThatIsSentTwiceIsDoneOnce(t *testing.T) {
	s := sagatest.New(t, sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, sendParcel)))
	s.Given(Placed{ID: "o-1"})
	s.Reply("reserve", nil)
	cancel := events.Action{ID: "click-1", Kind: events.ActionSuspend, Who: "ann", Why: "let me look"}
	first, second := s.Act(cancel), s.Act(cancel)
	if !first.Done || first.Time != second.Time || first.Code != second.Code {
		t.Errorf("the answers are %+v and %+v", first, second)
	}
	s.State(events.Suspended)
}
