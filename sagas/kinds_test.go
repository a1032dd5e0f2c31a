package sagas_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/sagas"
)

// A purchase has one of every kind of node.
type (
	Purchase struct {
		ID       string   `json:"id"`
		Customer string   `json:"customer"`
		Lines    []Line   `json:"lines"`
		Approver string   `json:"approver,omitempty"`
		Paid     bool     `json:"paid"`
		Reminded int      `json:"reminded"`
		Picked   []string `json:"picked,omitempty"`
		Slow     string   `json:"slow,omitempty"`
	}
	Line struct {
		SKU   string `json:"sku"`
		Units []int  `json:"units"`
		Shelf string `json:"shelf,omitempty"`
	}
	Paid    struct{ Customer, Purchase string }
	Shipped struct{ Purchase string }
	Pick    struct{ SKU string }
	OnShelf struct{ Shelf string }
	Return  struct{ SKU, Shelf string }

	pickLine = sagas.Each[Purchase, Line]
	pickUnit = sagas.Each[pickLine, int]
)

var (
	bought   = sagas.NewEvent[Purchase]("purchases", "purchase.made").KeyBy(func(p Purchase) string { return p.ID })
	paid     = sagas.NewEvent[Paid]("payments", "payment.received").KeyBy(func(p Paid) string { return p.Customer })
	shipped  = sagas.NewEvent[Shipped]("shipments", "shipment.left")
	approved = sagas.Approval("approval")
	nudge    = sagas.NewSignal[string]("nudge")

	pick     = sagas.NewCommand[Pick, OnShelf]("picking.commands", "picking.pick")
	putBack  = sagas.NewCommand[Return, Nothing]("picking.commands", "picking.put-back")
	remind   = sagas.NewCommand[Notify, Nothing]("notifications.commands", "notifications.remind")
	sendFast = sagas.NewCommand[Notify, Nothing]("courier.commands", "courier.fast")
	recall   = sagas.NewCommand[Notify, Nothing]("courier.commands", "courier.recall")
)

func noticeOf(p Purchase) Notify { return Notify{p.ID} }

var Everything = sagas.Define("purchase", "1", sagas.StartOn(bought, func(p Purchase) Purchase { return p }), sagas.Seq(
	sagas.Do("tidy", func(p *Purchase) { p.Picked = nil }),
	sagas.Choose(
		sagas.When("many", func(p Purchase) bool { return len(p.Lines) > 100 }, sagas.Seq(
			sagas.Wait("approval", approved, func(p *Purchase, d sagas.Decision) {
				if d.Approved {
					p.Approver = d.By
				}
			}).Within(48*time.Hour),
			sagas.Require("approved", func(p Purchase) bool { return p.Approver != "" }))),
		sagas.When("none", func(p Purchase) bool { return len(p.Lines) == 0 },
			sagas.Require("something", func(Purchase) bool { return false })),
		sagas.Otherwise(sagas.Do("small", func(*Purchase) {}))),
	sagas.ForEach("lines", func(p Purchase) []Line { return p.Lines }, sagas.Seq(
		sagas.Step("pick", pick, func(e pickLine) Pick { return Pick{e.Item.SKU} },
			func(e *pickLine, r OnShelf) { e.Item.Shelf, e.Saga.Picked = r.Shelf, append(e.Saga.Picked, r.Shelf) }).
			Undo(sagas.With(putBack, func(e pickLine) Return { return Return{e.Item.SKU, e.Item.Shelf} })),
		sagas.ForEach("units", func(e pickLine) []int { return e.Item.Units },
			sagas.Do("unit", func(e *pickUnit) { e.Item++; e.Saga.Saga.Reminded += e.Item })).Width(1).Any()),
	).Width(8).Most(1000).OnFailure(sagas.LetItFinish).AtLeast(1),
	sagas.While("unpaid", func(p Purchase) bool { return !p.Paid }, sagas.FirstOf(
		sagas.Wait("paid", paid, func(p *Purchase, _ Paid) { p.Paid = true }).By(func(p Purchase) string { return p.Customer }).Keep(72*time.Hour),
		sagas.Wait("nudged", nudge, func(p *Purchase, _ string) { p.Reminded++ }),
		sagas.Seq(sagas.Sleep[Purchase]("week", 7*24*time.Hour), sagas.Step("remind", remind, noticeOf, nil).EffectFree())),
	).Most(4),
	sagas.All(sagas.CancelRest,
		sagas.Step("fast", sendFast, noticeOf, nil).Undo(sagas.With(recall, noticeOf)),
		sagas.Sleep[Purchase]("an-hour", time.Hour), sagas.Sleep[Purchase]("a-day", 24*time.Hour)).AtLeast(2).Width(2),
	sagas.Try("slow", sagas.Seq(sagas.Step("book", sagas.NewCommand[Notify, Nothing]("courier.commands", "courier.slow"), noticeOf, nil).
		Undo(sagas.With(recall, noticeOf)))).
		OnFailure(func(p *Purchase, f sagas.Failure) { p.Slow = f.Step + " " + f.Code }).
		Else(sagas.Do("by-hand", func(p *Purchase) { p.Slow += ", by hand" })),
	sagas.Step("charge", sagas.NewCommand[Notify, Nothing]("payments.commands", "payments.charge"), noticeOf, nil).Pivot(),
	sagas.Emit("told", shipped, func(p Purchase) Shipped { return Shipped{p.ID} }).Key(func(p Purchase) string { return p.Customer }),
	sagas.Try("thanks", sagas.Wait[Purchase]("thanked", sagas.NewSignal[struct{}]("thanks"), nil).Within(time.Hour)),
	sagas.FirstOf(sagas.Wait[Purchase]("left", shipped, nil), sagas.Sleep[Purchase]("enough", time.Hour)),
)).During(sagas.DuringIgnore).After(sagas.AfterFailure).Deadline(60 * 24 * time.Hour)

func TestAPlanOfEveryKindIsExportedAndDrawn(t *testing.T) {
	p := plan(t, Everything)
	golden(t, "testdata/everything.plan", p.Export())
	golden(t, "testdata/everything.mmd", p.Mermaid())
	golden(t, "testdata/place-order.mmd", plan(t, PlaceOrder).Mermaid())
}

func TestKindsCompileToWhatTheEngineReads(t *testing.T) {
	p := plan(t, Everything)
	if p.During != sagas.DuringIgnore || p.After != sagas.AfterFailure {
		t.Error(p.During, p.After)
	}
	for name, want := range map[string]string{
		"lines":    "for-each let-it-finish some 1 width 8 most 1000",
		"units":    "for-each cancel-rest some 1 width 1 most 10000",
		"unpaid":   "while cancel-rest all 0 width 0 most 4",
		"all-1":    "all cancel-rest first 0 width 0 most 0",
		"all-2":    "all cancel-rest some 2 width 2 most 0",
		"choose-1": "choose cancel-rest all 0 width 0 most 0",
	} {
		n := node(t, p, name)
		if got := fmt.Sprint(n.Kind, " ", n.OnFailure, " ", n.Join, " ", n.Quorum, " width ", n.Width, " most ", n.Most); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"approval": `signal "approval" within 48h0m0s keep 0s key false`,
		"paid":     `signal "" within 0s keep 72h0m0s key true`,
		"left":     `signal "" within 0s keep 24h0m0s key false`,
		"week":     `signal "" within 0s keep 0s key false`,
	} {
		w := node(t, p, name).Wait
		if got := fmt.Sprintf("signal %q within %v keep %v key %t", w.Signal, w.Within, w.Keep, w.Key != nil); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}
	choose := node(t, p, "choose-1")
	if len(choose.Children) != 3 || strings.Join(choose.Cases, " ") != "many none otherwise" || choose.Conds[0] == nil || choose.Conds[1] == nil || choose.Conds[2] != nil {
		t.Error(choose.Cases, choose.Conds)
	}
	if slow := node(t, p, "slow"); len(slow.Children) != 2 || slow.OnFail == nil || slow.Children[1].Name != "by-hand" {
		t.Error(slow)
	}
	if thanks := node(t, p, "thanks"); len(thanks.Children) != 1 || thanks.OnFail != nil {
		t.Error(thanks)
	}
}

func TestNodesOfEveryKindAreValuesThatMethodsLeaveAlone(t *testing.T) {
	wait := sagas.Wait[Order]("w", nudge, nil)
	all := sagas.All(sagas.CancelRest, step("a"))
	each := sagas.ForEach("f", func(Order) []int { return nil }, sagas.Do("d", func(*sagas.Each[Order, int]) {}))
	while := sagas.While("x", isTrue, step("b"))
	try := sagas.Try("t", step("c"))
	emit := sagas.Emit("e", paid, func(Order) (p Paid) { return })
	root := sagas.Seq[Order](wait, all, each, while, try, emit)
	before := plan(t, define(root)).Export()

	wait.Within(1).Keep(1).By(nil)
	all.Any().Width(1)
	each.First().AtLeast(3).Any().Width(1).Most(1).OnFailure(sagas.LetItFinish)
	while.Most(1)
	try.Else(step("d")).OnFailure(nil)
	emit.Key(func(Order) string { return "" })
	after := plan(t, define(root))
	if text := after.Export(); text != before {
		t.Errorf("before\n%s\nafter\n%s", before, text)
	}
	if node(t, after, "e").Emit.Key != nil || node(t, after, "t").OnFail != nil {
		t.Error("a function that was given to a changed node is the old one's as well")
	}
}

func TestAPlanKnowsItsTopics(t *testing.T) {
	p := plan(t, Everything)
	if got := strings.Join(p.Reads(), " "); got != "payments purchases shipments" {
		t.Errorf("it reads %s", got)
	}
	if got := strings.Join(p.Writes(), " "); got != "courier.commands notifications.commands payments.commands picking.commands shipments" {
		t.Errorf("it writes %s", got)
	}
}

func TestFunctionsOfEveryKindReadAndChangeTheData(t *testing.T) {
	p := plan(t, Everything)
	data := &Purchase{ID: "p-1", Customer: "c-1", Lines: []Line{{SKU: "pen"}, {SKU: "ink", Units: []int{4, 5}}}}
	ask := func(name string, i int) bool {
		t.Helper()
		yes, err := node(t, p, name).Conds[i](data)
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	if ask("choose-1", 0) || ask("choose-1", 1) || ask("approved", 0) || !ask("unpaid", 0) {
		t.Error("a condition gives the wrong answer")
	}

	lines := node(t, p, "lines").Each
	items, err := lines.Items(data)
	if err != nil || len(items) != 2 || string(items[1]) != `{"sku":"ink","units":[4,5]}` {
		t.Fatalf("%s %v", items, err)
	}
	inner, err := lines.Enter(data, items[1], 1)
	if err != nil {
		t.Fatal(err)
	}
	step := node(t, p, "pick").Step
	if b, err := step.Build(inner); string(b) != `{"SKU":"ink"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
	if err := step.OnReply(inner, []byte(`{"Shelf":"s-9"}`)); err != nil {
		t.Fatal(err)
	}
	if b, err := step.Undo.Build(inner); string(b) != `{"SKU":"ink","Shelf":"s-9"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
	units := node(t, p, "units").Each
	unit, err := units.Enter(inner, []byte("5"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := node(t, p, "unit").Do(unit); err != nil {
		t.Fatal(err)
	}
	if b, err := units.Leave(unit); string(b) != "6" || err != nil {
		t.Errorf("%s %v", b, err)
	}
	if b, err := lines.Leave(inner); string(b) != `{"sku":"ink","units":[4,5],"shelf":"s-9"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
	if turn := inner.(*pickLine).Turn; turn != 1 || data.Reminded != 6 || !reflect.DeepEqual(data.Picked, []string{"s-9"}) {
		t.Errorf("turn %d, data %+v", turn, data)
	}

	take := func(name string, in sagas.Taken) error { return node(t, p, name).Wait.Take(data, in) }
	if err := take("paid", sagas.Taken{Payload: []byte(`{"Customer":"c-1"}`)}); err != nil || !data.Paid {
		t.Error(err, data.Paid)
	}
	if err := take("nudged", sagas.Taken{}); err != nil {
		t.Errorf("a signal may be its name alone: %v", err)
	}
	if key, err := node(t, p, "paid").Wait.Key(data); key != "c-1" || err != nil {
		t.Error(key, err)
	}
	if key, err := node(t, p, "paid").Wait.Event.Key(sagas.EventView{Value: []byte(`{"Customer":"c-2"}`)}); key != "c-2" || err != nil {
		t.Error(key, err)
	}
	if node(t, p, "left").Wait.Take != nil {
		t.Error("an event that nobody reads is decoded")
	}
	told := node(t, p, "told").Emit
	if b, err := told.Build(data); string(b) != `{"Purchase":"p-1"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
	if key, err := told.Key(data); key != "c-1" || err != nil {
		t.Error(key, err)
	}
	if err := node(t, p, "slow").OnFail(data, sagas.Failure{Step: "book", Code: "full"}); err != nil || data.Slow != "book full" {
		t.Error(data.Slow, err)
	}
}

func TestAnApprovalSaysYesOrNoAndWhoSentIt(t *testing.T) {
	take := node(t, plan(t, Everything), "approval").Wait.Take
	data := &Purchase{}
	if err := take(data, sagas.Taken{Who: "ann", Payload: []byte(`{"approved":true,"by":"the boss"}`)}); err != nil || data.Approver != "ann" {
		t.Errorf("it was approved by %q: %v", data.Approver, err)
	}
	for payload, want := range map[string]string{
		``:                            "the payload is empty",
		`null`:                        "the payload is null",
		`{}`:                          `neither "approved": true nor "approved": false`,
		`{"approved":null}`:           `neither "approved": true nor "approved": false`,
		`{"comment":"yes, approved"}`: `neither "approved": true nor "approved": false`,
		`{"approved":"yes"}`:          "cannot unmarshal string",
		"{\"approved\":true\xff}":     "not UTF-8",
	} {
		if err := take(data, sagas.Taken{Payload: []byte(payload)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %s", payload, err, want)
		}
	}
	b, err := approved.Encode(sagas.Decision{Comment: "too much"})
	if string(b) != `{"approved":false,"comment":"too much"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
}

func TestGarbageIsNeitherEventNorSignalNorElement(t *testing.T) {
	p := plan(t, Everything)
	data := &Purchase{}
	for _, garbage := range []string{"x", "[]", `{"Customer":7}`, `{} {}`, "\xff"} {
		if err := node(t, p, "paid").Wait.Take(data, sagas.Taken{Payload: []byte(garbage)}); err == nil {
			t.Errorf("%q is a payment", garbage)
		}
		if err := node(t, p, "nudged").Wait.Take(data, sagas.Taken{Payload: []byte(garbage)}); err == nil {
			t.Errorf("%q is a nudge", garbage)
		}
		if inner, err := node(t, p, "lines").Each.Enter(data, []byte(`{"sku":`+garbage), 3); err == nil || !strings.HasPrefix(err.Error(), "element 3: ") {
			t.Errorf("%q is an element: %v, %v", garbage, inner, err)
		}
	}
	if data.Paid {
		t.Error("it counts as paid")
	}
}

func TestFunctionsOfAnotherSagaAreRefused(t *testing.T) {
	p := plan(t, Everything)
	wrong := &Order{}
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	for _, n := range p.Nodes {
		for _, cond := range n.Conds {
			if cond != nil {
				_, err := cond(wrong)
				add(err)
			}
		}
		if n.Each != nil {
			_, err := n.Each.Items(wrong)
			add(err)
			_, err = n.Each.Enter(wrong, []byte(`{}`), 0)
			add(err)
			_, err = n.Each.Leave(wrong)
			add(err)
		}
		if n.Wait != nil && n.Wait.Take != nil {
			add(n.Wait.Take(wrong, sagas.Taken{}))
		}
		if n.Wait != nil && n.Wait.Key != nil {
			_, err := n.Wait.Key(wrong)
			add(err)
		}
		if n.Emit != nil {
			_, err := n.Emit.Key(wrong)
			add(err)
		}
		if n.OnFail != nil {
			add(n.OnFail(wrong, sagas.Failure{}))
		}
	}
	if len(errs) != 17 {
		t.Errorf("%d functions were asked", len(errs))
	}
	for _, err := range errs {
		if err == nil || !strings.HasPrefix(err.Error(), "the saga's data is a *sagas") || !strings.HasSuffix(err.Error(), "not a *sagas_test.Order") {
			t.Error(err)
		}
	}
}

func TestAListThatCannotBeJSONNamesItsElement(t *testing.T) {
	p := plan(t, define(sagas.ForEach("f", func(Order) []json.Number { return []json.Number{"1", "one"} }, sagas.Do("d", func(*sagas.Each[Order, json.Number]) {}))))
	_, err := p.Root.Each.Items(&Order{})
	var bad *json.MarshalerError
	if err == nil || errors.As(err, &bad) || !strings.HasPrefix(err.Error(), "element 1: ") {
		t.Error(err)
	}
}

func TestTheTypesOfEventsAndSignalsAreKnown(t *testing.T) {
	for _, c := range []struct {
		find func(string) (reflect.Type, bool)
		name string
		want string
	}{
		{Everything.WaitType, "paid", "sagas_test.Paid"},
		{Everything.WaitType, "nudged", "string"},
		{Everything.WaitType, "week", ""},
		{Everything.SignalType, "approval", "sagas.Decision"},
		{Everything.SignalType, "nudge", "string"},
		{Everything.SignalType, "paid", ""},
		{Everything.SignalType, "", ""},
		{Everything.EmitType, "told", "sagas_test.Shipped"},
		{Everything.EmitType, "paid", ""},
	} {
		got := ""
		if typ, ok := c.find(c.name); ok {
			got = typ.String()
		}
		if got != c.want {
			t.Errorf("%s is a %q, not a %q", c.name, got, c.want)
		}
	}
	if _, ok := Everything.StepTypes("pick"); !ok {
		t.Error("a step within a loop is not found")
	}
	if _, ok := sagas.Define("shop", "1", start, sagas.Try("t", hold).Else(tellOnce)).StepTypes("once"); !ok {
		t.Error("a step of an Else is not found")
	}
}

var tellOnce = sagas.Step("once", notify, newNotice, nil).EffectFree()

// leaf and the like are plans that differ in one thing of each new kind.
func TestTheHashTellsPlansOfTheNewKindsApart(t *testing.T) {
	yes := func(Order) bool { return true }
	leaf := sagas.Do("d", func(*Order) {})
	two := sagas.Do("e", func(*Order) {})
	event := sagas.NewEvent[Paid]("payments", "paid")
	items := func(Order) []int { return nil }
	body := sagas.Do("d", func(*sagas.Each[Order, int]) {})
	each := func() sagas.ForEachOf[Order] { return sagas.ForEach("f", items, body) }
	seen := map[string]string{}
	for name, n := range map[string]sagas.NodeOf[Order]{
		"do":                leaf,
		"all":               sagas.All(sagas.CancelRest, leaf, two),
		"any":               sagas.All(sagas.CancelRest, leaf, two).Any(),
		"two":               sagas.All(sagas.CancelRest, leaf, two).AtLeast(2),
		"first":             sagas.All(sagas.CancelRest, leaf, two).First(),
		"width":             sagas.All(sagas.CancelRest, leaf, two).Width(1),
		"sleep":             sagas.Sleep[Order]("w", time.Hour),
		"event":             sagas.Wait[Order]("w", event, nil),
		"event type":        sagas.Wait[Order]("w", sagas.NewEvent[Paid]("payments", "other"), nil),
		"event topic":       sagas.Wait[Order]("w", sagas.NewEvent[Paid]("other", "paid"), nil),
		"within":            sagas.Wait[Order]("w", event, nil).Within(time.Hour),
		"keep":              sagas.Wait[Order]("w", event, nil).Keep(time.Hour),
		"signal":            sagas.Wait[Order]("w", nudge, nil),
		"other signal":      sagas.Wait[Order]("w", approved, nil),
		"signal within":     sagas.Wait[Order]("w", nudge, nil).Within(time.Hour),
		"emit":              sagas.Emit("w", event, func(Order) (p Paid) { return }),
		"emit type":         sagas.Emit("w", sagas.NewEvent[Paid]("payments", "other"), func(Order) (p Paid) { return }),
		"choose":            sagas.Choose(sagas.When("a", yes, leaf), sagas.When("b", yes, two)),
		"choose names":      sagas.Choose(sagas.When("a", yes, leaf), sagas.When("c", yes, two)),
		"choose otherwise":  sagas.Choose(sagas.When("a", yes, leaf), sagas.Otherwise(two)),
		"choose by name":    sagas.Choose(sagas.When("a", yes, leaf), sagas.When("otherwise", yes, two)),
		"require":           sagas.Require("w", yes),
		"each":              each(),
		"each most":         each().Most(5),
		"each width":        each().Width(5),
		"each first":        each().First(),
		"each any":          each().Any(),
		"each let finish":   each().OnFailure(sagas.LetItFinish),
		"while":             sagas.While("w", yes, leaf),
		"while most":        sagas.While("w", yes, leaf).Most(5),
		"try":               sagas.Try("w", leaf),
		"try else":          sagas.Try("w", leaf).Else(two),
		"try two":           sagas.Try("w", sagas.Seq(leaf, two)),
		"try and then":      sagas.Seq(sagas.Try("w", leaf), two),
		"try with a choose": sagas.Try("w", sagas.Choose(sagas.When("a", yes, leaf))).Else(two),
	} {
		text := plan(t, define(n)).Export()
		if other, taken := seen[text]; taken {
			t.Errorf("%s and %s are one plan:\n%s", name, other, text)
		}
		seen[text] = name
		old := strings.HasPrefix(text, "skald-plan 1\n")
		if want := name == "do" || name == "all" || name == "sleep"; old != want {
			t.Errorf("%s is a plan of format 1: %t\n%s", name, old, text)
		}
	}
	for name, d := range map[string]*sagas.Definition{
		"during ignore":    define(leaf).During(sagas.DuringIgnore),
		"after failure":    define(leaf).After(sagas.AfterFailure),
		"after quarantine": define(leaf).After(sagas.AfterQuarantine),
		"after ignore":     define(leaf).After(sagas.AfterIgnore),
	} {
		text := plan(t, d).Export()
		if other, taken := seen[text]; taken {
			t.Errorf("%s and %s are one plan:\n%s", name, other, text)
		}
		seen[text] = name
	}
}

func TestADeadlineThatCanBeMetIsNotRefused(t *testing.T) {
	yes := func(Order) bool { return true }
	sleep := func(name string, hours int) sagas.NodeOf[Order] {
		return sagas.Sleep[Order](name, time.Duration(hours)*time.Hour)
	}
	var three []sagas.NodeOf[Order]
	for i := range 3 {
		three = append(three, sleep(fmt.Sprint("n", i), i+1))
	}
	for name, c := range map[string]struct {
		node  sagas.NodeOf[Order]
		hours int // it takes at least
	}{
		"seq":                {sagas.Seq(three...), 6},
		"all":                {sagas.All(sagas.CancelRest, three...), 3},
		"all, one at a time": {sagas.All(sagas.CancelRest, three...).Width(1), 6},
		"all, two at a time": {sagas.All(sagas.CancelRest, three...).Width(2), 3},
		"any":                {sagas.All(sagas.CancelRest, three...).Any(), 1},
		"two of three":       {sagas.All(sagas.CancelRest, three...).AtLeast(2), 2},
		"first":              {sagas.FirstOf(three...), 1},
		"choose":             {sagas.Choose(sagas.When("a", yes, three[2]), sagas.Otherwise(three[1])), 2},
		"choose, or not":     {sagas.Choose(sagas.When("a", yes, three[2])), 0},
		"while":              {sagas.While("w", yes, three[0]), 0},
		"for each":           {sagas.ForEach("f", func(Order) []int { return nil }, sagas.Sleep[sagas.Each[Order, int]]("s", time.Hour)), 0},
		"try":                {sagas.Try("t", three[0]).Else(three[1]), 0},
		"within":             {sagas.Wait[Order]("w", nudge, nil).Within(time.Hour), 0},
	} {
		n := sagas.Seq(c.node, sleep("more", 1))
		least := time.Duration(c.hours+1) * time.Hour
		if _, err := define(n).Deadline(least).Plan(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := define(n).Deadline(least - 1).Plan(); err == nil || !strings.Contains(err.Error(), "cannot be met: its pauses take at least "+least.String()) {
			t.Errorf("%s with a deadline below %v: %v", name, least, err)
		}
	}
}

// A chart shows what users wrote; nothing of it may be more than text.
func TestTextInAChartIsOnlyText(t *testing.T) {
	const evil = `x"]; click n0 "javascript:alert(1)" %%{init: {}}%% <img src=x onerror=alert(1)> #quot; ` + "`**b**`" + ` | } end`
	event := sagas.NewEvent[Paid]("payments", evil)
	chart := plan(t, define(sagas.Seq(
		sagas.Emit("e", event, func(Order) (p Paid) { return }),
		sagas.Wait[Order]("w", event, nil),
		sagas.Step("s", authorize, newHold, nil).Undo(sagas.With(sagas.NewCommand[Void, Nothing]("payments.commands", evil), func(Order) (v Void) { return }))))).Mermaid()
	for _, bad := range []string{`x"`, "<", "`", "%%", "{init", "= ", "#quot;"} {
		if strings.Contains(chart, bad) {
			t.Errorf("%q stands in the chart:\n%s", bad, chart)
		}
	}
	if n := strings.Count(chart, "x#34;#93;#59; click n0 #34;javascript:alert(1)#34;"); n != 3 {
		t.Errorf("the text stands in it %d times:\n%s", n, chart)
	}
}
