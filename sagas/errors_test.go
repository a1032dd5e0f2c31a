package sagas_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/sagas"
)

// Parts of definitions that are right, so that each row of the table is wrong in one thing.
var (
	start       = sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.ID} })
	newCapture  = func(o Order) Capture { return Capture{o.ID} }
	newNotice   = func(o Order) Notify { return Notify{o.ID} }
	newHold     = func(o Order) Authorize { return Authorize{o.ID, o.Total} }
	undoHold    = sagas.With(void, func(o Order) Void { return Void{o.ID} })
	hold        = sagas.Step("hold", authorize, newHold, nil).Undo(undoHold)
	pivot       = sagas.Step("pivot", capture, newCapture, nil).Pivot()
	tell        = sagas.Step("tell", notify, newNotice, nil).Retriable()
	nothing     sagas.NodeOf[Order]
	unsupported = sagas.NewCommand[chan int, func()]("payments.commands", "payments.odd")
)

func isTrue(Order) bool { return true }

type secretive struct{ id string }

func define(root sagas.NodeOf[Order]) *sagas.Definition {
	return sagas.Define("shop", "1", start, root)
}

func step(name string) sagas.StepOf[Order] {
	return sagas.Step(name, authorize, newHold, nil).EffectFree()
}

func TestAMistakeIsNamedWithFileLineDefinitionAndNode(t *testing.T) {
	one := step("one")
	pair := sagas.Seq(one, step("two"))
	tests := []struct {
		name string
		def  *sagas.Definition
	}{
		{"nil definition", nil},
		{"empty definition", &sagas.Definition{}},
		{"no definition name", sagas.Define("", "1", start, hold)},
		{"definition name", sagas.Define("Place Order", "1", start, hold)},
		{"long definition name", sagas.Define(strings.Repeat("x", 65), "1", start, hold)},
		{"no version", sagas.Define("shop", "", start, hold)},
		{"version with a space", sagas.Define("shop", "1 beta", start, hold)},

		{"no start", sagas.Define("shop", "1", sagas.StartOf[Order]{}, hold)},
		{"no first data", sagas.Define("shop", "1",
			sagas.StartOn[OrderPlaced, Order](orderPlaced, nil), hold)},
		{"no event", sagas.Define("shop", "1",
			sagas.StartOn(sagas.Event[OrderPlaced]{}, func(OrderPlaced) (o Order) { return }), hold)},
		{"event topic", sagas.Define("shop", "1", sagas.StartOn(
			sagas.NewEvent[OrderPlaced]("orders/eu", "order.placed"),
			func(OrderPlaced) (o Order) { return }), hold)},
		{"event type", sagas.Define("shop", "1", sagas.StartOn(
			sagas.NewEvent[OrderPlaced]("orders", "order\nplaced"),
			func(OrderPlaced) (o Order) { return }), hold)},
		{"type function without a type", sagas.Define("shop", "1", sagas.StartOn(
			sagas.NewEvent[OrderPlaced]("orders", "").
				TypeBy(func(sagas.EventView) (string, error) { return "", nil }),
			func(OrderPlaced) (o Order) { return }), hold)},
		{"event that is no JSON", sagas.Define("shop", "1", sagas.StartOn(sagas.NewEvent[chan int]("orders", ""),
			func(chan int) (o Order) { return }), hold)},
		{"data that is no JSON", sagas.Define("shop", "1", sagas.StartOn(orderPlaced, func(OrderPlaced) (f struct{ F func() }) { return }),
			sagas.Step("s", capture, func(struct{ F func() }) (c Capture) { return }, nil).EffectFree())},
		{"data that would be lost", sagas.Define("shop", "1", sagas.StartOn(orderPlaced, func(e OrderPlaced) secretive { return secretive{e.ID} }),
			sagas.Step("s", capture, func(s secretive) Capture { return Capture{s.id} }, nil).EffectFree())},

		{"no plan", define(nil)},
		{"empty seq", define(sagas.Seq[Order]())},
		{"empty all", define(sagas.Seq(hold, sagas.All[Order](sagas.CancelRest)))},
		{"nil node", define(sagas.Seq(hold, nothing))},
		{"zero node", define(sagas.Seq[Order](sagas.StepOf[Order]{}, hold))},
		{"node twice", define(sagas.Seq(
			hold,
			sagas.Sleep[Order]("pause", time.Second), hold))},
		{"seq twice", define(sagas.Seq(pair, pair))},
		{"name twice", define(sagas.Seq(
			hold,
			sagas.Do("hold", func(*Order) {})))},
		{"no step name", define(step("").Timeout(time.Second))},
		{"step name", define(
			sagas.Sleep[Order]("2nd", time.Second))},
		{"on failure", define(sagas.All(7, hold))},
		{"nil functions", define(sagas.Seq(
			sagas.Step[Order]("a", capture, nil, nil).
				Undo(sagas.With[Order](void, nil)),
			sagas.Do[Order]("b", nil)))},
		{"command topic and type", define(sagas.Step("a",
			sagas.NewCommand[Capture, Nothing]("", ""),
			newCapture, nil).EffectFree())},
		{"zero command", define(sagas.Step("a", sagas.Command[Capture, Nothing]{}, newCapture, nil).EffectFree())},
		{"undo topic and type", define(sagas.Step("a", authorize, newHold, nil).Undo(sagas.With(
			sagas.NewCommand[Void, Nothing]("..", strings.Repeat("t", 257)),
			func(Order) (v Void) { return })))},
		{"payloads that are no JSON", define(sagas.Step("a", unsupported, func(Order) (c chan int) { return }, nil).EffectFree())},
		{"undo elsewhere", define(sagas.Step("a", authorize, newHold, nil).
			Undo(sagas.With(releaseStock, func(Order) (r ReleaseStock) { return })))},
		{"undo of the same type", define(sagas.Step("a", authorize, newHold, nil).
			Undo(sagas.With(authorize, newHold)))},
		{"two undos", define(sagas.Step("a", authorize, newHold, nil).Undo(undoHold).Undo(undoHold))},
		{"empty undo", define(sagas.Step("a", authorize, newHold, nil).EffectFree().Undo(sagas.UndoOf[Order]{}.Timeout(-1)))},

		{"no undo", define(sagas.Seq(
			hold,
			sagas.Step("a", authorize, newHold, nil)))},
		{"no undo before the pivot", define(sagas.Seq(
			sagas.All(sagas.LetItFinish, hold,
				sagas.Step("a", authorize, newHold, nil)),
			pivot, tell))},
		{"effect-free with undo", define(step("a").Undo(undoHold))},
		{"pivot with undo", define(hold.Pivot())},
		{"retriable with undo", define(sagas.Seq(pivot, hold.Retriable()))},
		{"pivot and retriable", define(pivot.Retriable())},
		{"after the pivot", define(sagas.Seq(pivot,
			sagas.Seq(step("a"))))},
		{"retriable before the pivot", define(sagas.Seq(tell, pivot))},
		{"retriable without a pivot", define(tell)},
		{"two pivots", define(sagas.Seq(pivot,
			sagas.Step("again", capture, newCapture, nil).Pivot()))},
		{"pivot in a fork", define(sagas.Seq(
			sagas.All(sagas.CancelRest, sagas.Seq(pivot))))},

		{"durations", define(sagas.Seq(
			sagas.Sleep[Order]("w", 0),
			sagas.Step("a", authorize, newHold, nil).Timeout(-time.Second).
				Undo(undoHold.Timeout(time.Microsecond)))).
			Deadline(0).Retention(-1)},
		{"retry", define(step("a").Retry(sagas.Attempts(0), sagas.Backoff(0, -1), sagas.Jitter(1.5), sagas.NotCodes("x", ""), nil))},
		{"negative attempts", define(step("a").Retry(sagas.Attempts(-1)))},
		{"jitter below nothing", define(step("a").Retry(sagas.Jitter(-0.1)))},
		{"jitter that is no number", define(step("a").Retry(sagas.Jitter(math.NaN())))},
		{"cap below backoff", define(step("a").Retry(sagas.Backoff(time.Minute, time.Second)))},
		{"codes without end", define(step("a").Retry(sagas.NotCodes(strings.Split(strings.Repeat("x,", 100), ",")...), sagas.NotCodes("y")))},
		{"undo's retry", define(sagas.Step("a", authorize, newHold, nil).Undo(
			sagas.With(void, func(Order) (v Void) { return }).Retry(sagas.Jitter(2))))},

		{"deadline", define(sagas.Seq(
			sagas.Sleep[Order]("a", 2*time.Hour),
			sagas.All(sagas.CancelRest,
				sagas.Sleep[Order]("b", 5*time.Hour),
				sagas.Seq(sagas.Sleep[Order]("c", 3*time.Hour), sagas.Sleep[Order]("d", 3*time.Hour))), hold)).
			Deadline(8*time.Hour - 1)},
		{"waits beyond all time", define(sagas.Seq(
			sagas.Sleep[Order]("a", 1<<62), sagas.Sleep[Order]("b", 1<<62), hold)).Deadline(time.Hour)},

		{"its own command starts it", sagas.Define("shop", "1", sagas.StartOn(sagas.NewEvent[OrderPlaced]("payments.commands", ""), func(OrderPlaced) (o Order) { return }),
			hold)},
		{"its own event starts it", define(
			sagas.Emit("again", orderPlaced, func(Order) (e OrderPlaced) { return }))},
		{"during and after", define(hold).During(7).After(8)},

		{"nothing to wait for", define(
			sagas.Wait("w", sagas.Awaited[Void](nil), func(*Order, Void) {}).Within(-1))},
		{"zero event and signal", define(sagas.Seq(
			sagas.Wait[Order]("v", sagas.Event[Void]{}, nil),
			sagas.Wait[Order]("w", sagas.Signal[Void]{}, nil)))},
		{"waits", define(sagas.Seq(
			sagas.Wait[Order]("a",
				sagas.NewEvent[chan int]("a b", "\n"), nil).Within(0).Keep(-1),
			sagas.Wait[Order]("b",
				sagas.NewEvent[Void]("events", "").TypeBy(func(sagas.EventView) (string, error) { return "", nil }), nil),
			sagas.Wait[Order]("c",
				sagas.NewSignal[func()]("Go!"), nil),
			sagas.Wait("d",
				sagas.Approval(""), func(*Order, sagas.Decision) {}).By(func(Order) string { return "" }).Keep(time.Hour)))},
		{"a wait beyond the deadline", define(
			sagas.Wait("w", nudge, func(*Order, string) {}).Within(time.Hour + 1)).Deadline(time.Hour)},
		{"waits that disagree", define(sagas.Seq(
			sagas.Wait[Order]("a", paid, nil),
			sagas.Wait[Order]("b", sagas.NewEvent[Void]("payments", "payment.received"), nil),
			sagas.Wait[Order]("c", paid.
				KeyBy(func(p Paid) string { return p.Purchase }), nil),
			sagas.Wait[Order]("d", nudge, nil),
			sagas.Wait[Order]("e", sagas.NewSignal[int]("nudge"), nil),
			sagas.Wait[Order]("f", paid, nil)))},
		{"emit", define(sagas.Seq(
			sagas.Emit[Order]("a", paid, nil),
			sagas.Emit("b",
				sagas.NewEvent[chan int]("a b", ""), func(Order) (c chan int) { return }).Key(nil),
			sagas.Emit("c", sagas.Event[Paid]{}, func(Order) (p Paid) { return })))},

		{"joins", define(sagas.Seq(
			sagas.All(sagas.CancelRest, step("a")).AtLeast(2),
			sagas.All(sagas.CancelRest, step("b")).AtLeast(0),
			sagas.All(sagas.CancelRest, step("c")).Any().First(),
			sagas.FirstOf[Order](),
			sagas.FirstOf(step("d")).Width(0)))},
		{"choose", define(sagas.Seq(
			sagas.Choose[Order](),
			sagas.Choose(
				sagas.When("a", nil, sagas.NodeOf[Order](step("a"))),
				sagas.Otherwise(sagas.NodeOf[Order](step("b"))),
				sagas.When("a", isTrue, sagas.NodeOf[Order](step("c"))),
				sagas.When("A", isTrue, sagas.NodeOf[Order](step("d"))),
				sagas.When("e", isTrue, nothing),
				sagas.CaseOf[Order]{}),
			sagas.Choose(sagas.Otherwise(step("f")), sagas.Otherwise(step("g")))))},
		{"no condition", define(sagas.Seq(
			sagas.Require[Order]("a", nil),
			sagas.While("b", nil, nothing)))},
		{"loops", define(sagas.Seq(
			sagas.While("a", isTrue, sagas.NodeOf[Order](step("a1"))).Most(0),
			sagas.While("b", isTrue, sagas.NodeOf[Order](step("b1"))).Most(1000001),
			sagas.ForEach("c", nil, sagas.NodeOf[sagas.Each[Order, chan int]](nil)).Most(-1).Width(-1).OnFailure(9),
			sagas.ForEach("d", func(Order) []secretive { return nil }, sagas.Do("d1", func(*sagas.Each[Order, secretive]) {})).Most(3).AtLeast(4)))},
		{"a name twice, in a loop", define(sagas.Seq(step("a"),
			sagas.ForEach("b", func(Order) []int { return nil }, sagas.Do("a", func(*sagas.Each[Order, int]) {}))))},
		{"try", define(sagas.Seq(
			sagas.Try("a", nothing),
			sagas.Try("b", step("b1")).Else(nothing),
			sagas.Try("c", step("c1")).Else(step("c2")).Else(step("c3")).OnFailure(nil)))},
		{"zero nodes", define(sagas.Seq[Order](sagas.AllOf[Order]{}.Any().Width(1), sagas.TryOf[Order]{}.Else(hold), sagas.WaitOf[Order]{}.Keep(1),
			sagas.ForEachOf[Order]{}.First(), sagas.WhileOf[Order]{}.Most(1), sagas.ChooseOf[Order]{}, sagas.EmitOf[Order]{}.Key(nil), sagas.SleepOf[Order]{}))},
		{"no undo in a loop, a choice and a try", define(sagas.Seq(
			sagas.While("w", isTrue, sagas.Step("a", authorize, newHold, nil)),
			sagas.Choose(sagas.When("x", isTrue, sagas.Step("b", authorize, newHold, nil))),
			sagas.Try("t", sagas.Step("c", authorize, newHold, nil)).Else(sagas.Step("d", authorize, newHold, nil))))},
		{"pivots where none may be", define(
			sagas.Choose(sagas.When("x", isTrue, pivot), sagas.When("y", isTrue, sagas.Seq(step("y")))))},
		{"pivot in a loop", define(sagas.While("w", isTrue, pivot))},
		{"pivot in a try", define(sagas.Try("t", sagas.Seq(pivot)))},
		{"undoing after the pivot", define(sagas.Seq(pivot,
			sagas.Try("a", sagas.Seq(step("free").Retriable(), tell)),
			sagas.FirstOf(sagas.Step("b", notify, newNotice, nil).Retriable(), sagas.Sleep[Order]("c", time.Hour)),
			sagas.ForEach("d", func(Order) []int { return nil }, sagas.Step("e", notify, func(sagas.Each[Order, int]) (n Notify) { return }, nil).Retriable()).Any()))},
		{"failing after the pivot", define(sagas.Seq(pivot,
			sagas.Require("a", isTrue),
			sagas.Wait[Order]("b", nudge, nil).Within(time.Hour),
			sagas.Try("c", sagas.Require("fine", isTrue)).Else(sagas.Require("d", isTrue))))},
		{"mistakes in order", define(sagas.Seq(
			sagas.Step("no-undo", authorize, newHold, nil),
			sagas.Sleep[Order]("short", 0),
			sagas.Step("no-undo-either", authorize, newHold, nil))).Deadline(-1)},
		{"too deep", define(deep(101))},
		{"too large", define(wide(sagas.MaxNodes))},
	}
	var got strings.Builder
	for _, tt := range tests {
		fmt.Fprintf(&got, "# %s\n", tt.name)
		plan, err := tt.def.Plan()
		if err == nil || plan != nil {
			t.Errorf("%s: it has a plan", tt.name)
			continue
		}
		fmt.Fprintf(&got, "%v\n\n", err)
		joined, _ := err.(interface{ Unwrap() []error })
		if joined == nil {
			continue
		}
		for _, e := range joined.Unwrap() {
			if d := (*sagas.DefinitionError)(nil); !errors.As(e, &d) {
				t.Errorf("%s: %v is no DefinitionError", tt.name, e)
			}
		}
	}
	golden(t, "testdata/mistakes.txt", got.String())
}

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden compares with a file that says what is right; go test -rewrite writes it, for a person to review.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(b), "\n")
	lines := strings.Split(got, "\n")
	for i := range max(len(want), len(lines)) {
		if i >= len(want) || i >= len(lines) || want[i] != lines[i] {
			t.Fatalf("%s differs from line %d on (go test -rewrite ./sagas, if it should):\ngot\n%s\nwant\n%s", file, i+1,
				strings.Join(lines[min(i, len(lines)):min(i+3, len(lines))], "\n"), strings.Join(want[min(i, len(want)):min(i+3, len(want))], "\n"))
		}
	}
}

// The golden file tells the text; this tells that its lines are those of the source.
func TestEveryConstructorNamesItsOwnLine(t *testing.T) {
	def := sagas.Define("shop", "",
		sagas.StartOn( // StartOn
			sagas.NewEvent[OrderPlaced]("", ""), // NewEvent
			(func(OrderPlaced) Order)(nil)),
		sagas.Seq(
			sagas.Seq[Order](), // Seq
			sagas.Step("a", // Step
				sagas.NewCommand[Capture, Nothing]("", "capture"), // NewCommand
				newCapture, nil).
				Undo(
					sagas.With( // With
						capture, (func(Order) Capture)(nil))),
			sagas.All[Order](sagas.CancelRest), // All
			sagas.Sleep[Order]("b", 0),         // Sleep
			sagas.Do[Order]("c", nil),          // Do
			sagas.Wait[Order]("d", // Wait
				sagas.NewSignal[int](""), nil).Keep(0), // NewSignal
			sagas.Wait[Order]("e",
				sagas.Approval(""), nil), // Approval
			sagas.Emit[Order]("f", orderPlaced, nil),       // Emit
			sagas.FirstOf[Order](),                         // FirstOf
			sagas.Choose[Order](),                          // Choose
			sagas.Choose(sagas.When("g", nil, step("g1"))), // When
			sagas.Choose(sagas.Otherwise[Order](step("h1")), // Otherwise
				sagas.Otherwise[Order](step("h2"))),
			sagas.Require[Order]("i", nil),                                            // Require
			sagas.ForEach("j", nil, sagas.Do("j1", func(*sagas.Each[Order, int]) {})), // ForEach
			sagas.While("k", nil, step("k1")),                                         // While
			sagas.Try("l", nothing)))                                                  // Try
	_, err := def.Plan()
	for _, constructor := range []string{"StartOn", "NewEvent", "Seq", "Step", "NewCommand", "With", "All", "Sleep", "Do",
		"Wait", "NewSignal", "Approval", "Emit", "FirstOf", "Choose", "When", "Otherwise", "Require", "ForEach", "While", "Try"} {
		if at := place(t, "// "+constructor+"\n"); constructor != "Step" && !strings.Contains(err.Error(), at+": ") {
			t.Errorf("no mistake is named at %s, %s, but:\n%v", constructor, at, err)
		}
	}
	p, err := define(
		sagas.Step("a", capture, newCapture, nil).EffectFree(). // the step
									Timeout(time.Second)).Plan()
	if err != nil {
		t.Fatal(err)
	}
	if at := place(t, "// the step\n"); p.Root.Source != at {
		t.Errorf("the step is at %s, not %s", at, p.Root.Source)
	}
}

func deep(levels int) sagas.NodeOf[Order] {
	var n sagas.NodeOf[Order] = hold
	for range levels {
		n = sagas.Seq(n)
	}
	return n
}

func wide(children int) sagas.NodeOf[Order] {
	nodes := make([]sagas.NodeOf[Order], children)
	for i := range nodes {
		nodes[i] = sagas.Sleep[Order](fmt.Sprintf("w-%d", i), time.Second)
	}
	return sagas.Seq(nodes...)
}

// place is where this file says something, as definitions name it.
func place(t *testing.T, says string) string {
	t.Helper()
	b, err := os.ReadFile("errors_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(b), "\n") {
		if strings.Contains(line+"\n", says) {
			return fmt.Sprintf("sagas/errors_test.go:%d", i+1)
		}
	}
	t.Fatalf("no line says %q", says)
	return ""
}
