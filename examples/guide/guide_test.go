package guide

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas/sagatest"
)

func TestAnOrderIsFulfilled(t *testing.T) {
	s := sagatest.New(t, FulfilOrder)
	s.AllDone()
	s.Given(OrderPlaced{ID: "o-1", Customer: "c-1", Lines: []Line{{SKU: "pen", Quantity: 2, Cents: 150}, {SKU: "ink", Quantity: 1, Cents: 900}}})

	s.Expect("reserve[1]").With(Reserve{Reservation: "o-1/ink", SKU: "ink", Quantity: 1})
	s.Event("payment", PaymentReceived{Customer: "c-1", Cents: 200})
	s.State(events.Running) // 1,000 are missing
	s.Event("payment", PaymentReceived{Customer: "c-1", Cents: 1000})

	s.ExpectEvent("shipped").With(OrderShipped{Order: "o-1"})
	s.State(events.Completed)
}

func TestWithoutStockNothingIsReserved(t *testing.T) {
	s := sagatest.New(t, FulfilOrder)
	s.Given(OrderPlaced{ID: "o-1", Lines: []Line{{SKU: "pen"}, {SKU: "unicorn"}}})
	s.Reply("reserve[0]", Reserved{Warehouse: "north"})
	s.Reject("reserve[1]", "out-of-stock")

	s.ExpectUndo("reserve[0]").With(Release{Reservation: "o-1/pen"})
	s.ReplyUndo("reserve[0]")
	s.State(events.Compensated)
	s.Code("out-of-stock")
}

func TestALargeOrderIsApprovedInTime(t *testing.T) {
	large := OrderPlaced{ID: "o-1", Customer: "c-1", Lines: []Line{{SKU: "desk", Quantity: 3, Cents: 49_900}}}

	s := sagatest.New(t, FulfilOrder)
	s.AllDone()
	s.Given(large)
	s.Approve("approval", "ann")
	if by := sagatest.Data[Order](s).Approval.By; by != "ann" {
		t.Errorf("it was approved by %q", by)
	}
	s.Signal("waive-payment", "an old friend")
	s.State(events.Completed)

	s = sagatest.New(t, FulfilOrder)
	s.AllDone()
	s.Given(large)
	s.Deny("approval", "ann", "who needs three desks?")
	s.State(events.Compensated)
	s.Code("required")

	s = sagatest.New(t, FulfilOrder)
	s.AllDone()
	s.Given(large)
	s.Advance(48 * time.Hour)
	s.State(events.Compensated)
	s.Code("timeout")
}

func TestACustomerIsReminded(t *testing.T) {
	s := sagatest.New(t, FulfilOrder)
	s.AllDone()
	s.Given(OrderPlaced{ID: "o-1", Customer: "c-1", Lines: []Line{{SKU: "pen", Quantity: 1, Cents: 150}}})
	s.Advance(14 * 24 * time.Hour)
	s.Expect("remind[0]")
	s.Expect("remind[1]").With(Notice{Order: "o-1", Text: "please pay"})
	s.Event("payment", PaymentReceived{Customer: "c-1", Cents: 150})
	s.State(events.Completed)
	if n := sagatest.Data[Order](s).Reminders; n != 2 {
		t.Errorf("%d reminders", n)
	}
}

func TestWhenExpressFailsAnotherCourierIsBooked(t *testing.T) {
	s := sagatest.New(t, FulfilOrder)
	s.On("book-express").Silent() // nobody knows whether it is booked, so it is cancelled
	s.AllDone()
	s.Given(OrderPlaced{ID: "o-1"})
	s.Finish()
	s.State(events.Completed)
	s.ExpectUndo("book-express")
	s.Expect("book-courier")
	if why := sagatest.Data[Order](s).Why; why != "book-express: timeout" {
		t.Errorf("it says %q", why)
	}
}

func TestAnOperatorSaysWhatHappened(t *testing.T) {
	s := sagatest.New(t, Simple)
	s.Given(OrderPlaced{ID: "o-1", Lines: []Line{{SKU: "pen"}}})
	s.Reply("reserve-one", Reserved{Warehouse: "north"})
	s.Advance(time.Hour) // nobody answers, and all attempts are used up
	s.State(events.Parked)

	answer := s.Act(events.Action{Kind: events.ActionResolve, Step: "hand-out", Outcome: "done", Who: "ann", Why: "the courier says so"})
	if !answer.Done {
		t.Fatalf("it is refused: %s %s", answer.Code, answer.Message)
	}
	s.Reply("notify", nil)
	s.State(events.Completed)
}

func TestAPlanCanBeDrawn(t *testing.T) {
	plan, err := FulfilOrder.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if chart := plan.Mermaid(); !strings.Contains(chart, "hand-out (pivot)") {
		t.Error(chart)
	}
}

// Every block of Go in a guide stands in this folder, in one piece. Indentation does not count.
func TestTheGuidesShowCodeThatCompiles(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, f := range files {
		code.WriteString(squeeze(t, f))
	}
	guides, err := filepath.Glob("../../docs/guides/*-a-saga.md")
	if err != nil || len(guides) < 2 {
		t.Fatal(guides, err)
	}
	for _, g := range guides {
		blocks := strings.Split(squeeze(t, g), "\n```go\n")[1:]
		if len(blocks) == 0 {
			t.Errorf("%s shows no code", g)
		}
		for _, b := range blocks {
			block, _, _ := strings.Cut(b, "\n```\n")
			for _, piece := range strings.Split(block, "\n// ...\n") {
				if !strings.Contains(code.String(), "\n"+strings.TrimSpace(piece)+"\n") {
					t.Errorf("%s: not in one piece here:\n%s", g, piece)
				}
			}
		}
	}
}

// squeeze gives a file's lines without their indentation and without empty ones.
func squeeze(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	s.WriteByte('\n')
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			s.WriteString(line + "\n")
		}
	}
	return s.String()
}
