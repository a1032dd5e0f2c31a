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
			sagas.Wait[Order]("pause", time.Second), hold))},
		{"seq twice", define(sagas.Seq(pair, pair))},
		{"name twice", define(sagas.Seq(
			hold,
			sagas.Do("hold", func(*Order) {})))},
		{"no step name", define(step("").Timeout(time.Second))},
		{"step name", define(
			sagas.Wait[Order]("2nd", time.Second))},
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
			sagas.Wait[Order]("w", 0),
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
			sagas.Wait[Order]("a", 2*time.Hour),
			sagas.All(sagas.CancelRest,
				sagas.Wait[Order]("b", 5*time.Hour),
				sagas.Seq(sagas.Wait[Order]("c", 3*time.Hour), sagas.Wait[Order]("d", 3*time.Hour))), hold)).
			Deadline(8*time.Hour - 1)},
		{"waits beyond all time", define(sagas.Seq(
			sagas.Wait[Order]("a", 1<<62), sagas.Wait[Order]("b", 1<<62), hold)).Deadline(time.Hour)},

		{"its own command starts it", sagas.Define("shop", "1", sagas.StartOn(sagas.NewEvent[OrderPlaced]("payments.commands", ""), func(OrderPlaced) (o Order) { return }),
			hold)},
		{"mistakes in order", define(sagas.Seq(
			sagas.Step("no-undo", authorize, newHold, nil),
			sagas.Wait[Order]("short", 0),
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
			sagas.Wait[Order]("b", 0),          // Wait
			sagas.Do[Order]("c", nil)))         // Do
	_, err := def.Plan()
	for _, constructor := range []string{"StartOn", "NewEvent", "Seq", "Step", "NewCommand", "With", "All", "Wait", "Do"} {
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
		nodes[i] = sagas.Wait[Order](fmt.Sprintf("w-%d", i), time.Second)
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
