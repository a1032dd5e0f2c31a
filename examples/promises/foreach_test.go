package promises

import (
	"slices"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/sagas/sagatest"
)

// EachLine is a line of an order, as the body of the loop sees it.
type EachLine = sagas.Each[Order, string]

func askLine(l EachLine) Ask { return Ask{Order: l.Saga.ID, Line: l.Item} }

var manyLines = sagas.Define("order", "1", onPlaced, sagas.Seq(
	sagas.ForEach("lines", func(o Order) []string { return o.Lines },
		sagas.Step("reserve", reserve, askLine, func(l *EachLine, r Answer) { l.Saga.Reserved = append(l.Saga.Reserved, r.ID) }).
			Undo(sagas.With(release, askLine))).
		Width(2),
	sendParcel,
))

// As many commands as there are lines, two at a time.
func TestLinesAreReservedSideBySide(t *testing.T) {
	s := sagatest.New(t, manyLines)
	s.Given(Placed{ID: "o-1", Lines: []string{"pen", "ink", "paper"}})
	s.Expect("reserve[0]").With(Ask{Order: "o-1", Line: "pen"})
	s.Expect("reserve[1]").With(Ask{Order: "o-1", Line: "ink"})
	s.ExpectNothing()
	s.Reply("reserve[1]", Answer{ID: "r-ink"})
	s.Expect("reserve[2]").With(Ask{Order: "o-1", Line: "paper"})
	s.Reply("reserve[0]", Answer{ID: "r-pen"})
	s.Reply("reserve[2]", Answer{ID: "r-paper"})
	s.Reply("send", nil)
	s.State(events.Completed)
	if got := sagatest.Data[Order](s).Reserved; !slices.Equal(got, []string{"r-ink", "r-pen", "r-paper"}) {
		t.Errorf("reserved %v", got)
	}
}

// No undo is forgotten, of any turn.
func TestEveryLineIsReleased(t *testing.T) {
	s := sagatest.New(t, manyLines)
	s.On("reserve").Done(nil)
	s.On("reserve[2]").Reject("out-of-stock")
	s.Given(Placed{ID: "o-1", Lines: []string{"pen", "ink", "unicorn"}})
	s.ExpectUndo("reserve[0]").With(Ask{Order: "o-1", Line: "pen"})
	s.ExpectUndo("reserve[1]").With(Ask{Order: "o-1", Line: "ink"})
	s.ExpectNothing()
	s.ReplyUndo("reserve[0]")
	s.ReplyUndo("reserve[1]")
	s.State(events.Compensated)
}
