package sagas_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/skald-io/skald/sagas"
)

// show prints the nodes of a plan.
func show(root sagas.NodeOf[Purchase]) {
	plan, err := sagas.Define("example", "1", sagas.StartOn(bought, func(p Purchase) Purchase { return p }), root).Plan()
	if err != nil {
		fmt.Println(err)
		return
	}
	lines := strings.SplitAfter(plan.Export(), "\n")
	fmt.Print(strings.Join(lines[5:], ""))
}

// An event of another service, by the customer and not by the purchase, within a week.
func ExampleWait() {
	show(sagas.Wait("paid", paid, func(p *Purchase, e Paid) { p.Paid = e.Purchase == p.ID }).
		By(func(p Purchase) string { return p.Customer }).
		Within(7 * 24 * time.Hour))
	// Output:
	// wait "paid" event topic "payments" type "payment.received" keep 24h0m0s within 168h0m0s
}

// Somebody has to say yes, within two days.
func ExampleApproval() {
	approved := sagas.Approval("approval")
	show(sagas.Seq(
		sagas.Wait("approval", approved, func(p *Purchase, d sagas.Decision) {
			if d.Approved {
				p.Approver = d.By
			}
		}).Within(48*time.Hour),
		sagas.Require("approved", func(p Purchase) bool { return p.Approver != "" })))
	// Output:
	// seq "seq-1"
	//  wait "approval" signal "approval" within 48h0m0s
	//  require "approved"
}

// Whichever comes first: the payment, or the end of the week.
func ExampleFirstOf() {
	show(sagas.FirstOf(
		sagas.Wait("paid", paid, func(p *Purchase, _ Paid) { p.Paid = true }),
		sagas.Sleep[Purchase]("week", 7*24*time.Hour)))
	// Output:
	// all "all-1" cancel-rest first
	//  wait "paid" event topic "payments" type "payment.received" keep 24h0m0s
	//  wait "week" 168h0m0s
}

func ExampleChoose() {
	show(sagas.Choose(
		sagas.When("many", func(p Purchase) bool { return len(p.Lines) > 100 }, sagas.Sleep[Purchase]("overnight", 12*time.Hour)),
		sagas.Otherwise(sagas.Do("at-once", func(*Purchase) {}))))
	// Output:
	// choose "choose-1" when "many" otherwise "otherwise"
	//  wait "overnight" 12h0m0s
	//  do "at-once"
}

// Every line is picked, eight at a time; each pick has its own undo.
func ExampleForEach() {
	type eachLine = sagas.Each[Purchase, Line]
	show(sagas.ForEach("lines", func(p Purchase) []Line { return p.Lines },
		sagas.Step("pick", pick,
			func(l eachLine) Pick { return Pick{l.Item.SKU} },
			func(l *eachLine, r OnShelf) { l.Item.Shelf = r.Shelf }).
			Undo(sagas.With(putBack, func(l eachLine) Return { return Return{l.Item.SKU, l.Item.Shelf} }))).
		Width(8))
	// Output:
	// for-each "lines" cancel-rest width 8 most 10000
	//  step "pick" compensatable topic "picking.commands" type "picking.pick" timeout 30s attempts 0 backoff 500ms cap 1m0s jitter 0.2
	//   undo topic "picking.commands" type "picking.put-back" timeout 30s attempts 0 backoff 1s cap 5m0s jitter 0.2
}

func ExampleWhile() {
	show(sagas.While("unpaid", func(p Purchase) bool { return !p.Paid && p.Reminded < 3 }, sagas.Seq(
		sagas.Sleep[Purchase]("week", 7*24*time.Hour),
		sagas.Step("remind", remind, func(p Purchase) Notify { return Notify{p.ID} }, nil).EffectFree(),
		sagas.Do("count", func(p *Purchase) { p.Reminded++ }))))
	// Output:
	// while "unpaid" most 10000
	//  seq "seq-1"
	//   wait "week" 168h0m0s
	//   step "remind" compensatable effect-free topic "notifications.commands" type "notifications.remind" timeout 30s attempts 0 backoff 500ms cap 1m0s jitter 0.2
	//   do "count"
}

// When the fast courier fails it is recalled, and the saga goes on.
func ExampleTry() {
	show(sagas.Try("fast",
		sagas.Step("book", sendFast, noticeOf, nil).Undo(sagas.With(recall, noticeOf))).
		OnFailure(func(p *Purchase, f sagas.Failure) { p.Slow = f.Code }).
		Else(sagas.Do("by-hand", func(*Purchase) {})))
	// Output:
	// try "fast"
	//  step "book" compensatable topic "courier.commands" type "courier.fast" timeout 30s attempts 0 backoff 500ms cap 1m0s jitter 0.2
	//   undo topic "courier.commands" type "courier.recall" timeout 30s attempts 0 backoff 1s cap 5m0s jitter 0.2
	//  do "by-hand"
}

func ExampleEmit() {
	show(sagas.Emit("told", shipped, func(p Purchase) Shipped { return Shipped{p.ID} }))
	// Output:
	// emit "told" topic "shipments" type "shipment.left"
}

func ExamplePlan_Mermaid() {
	plan, err := sagas.Define("cool-off", "1",
		sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.ID} }),
		sagas.Seq(
			sagas.Sleep[Order]("an-hour", time.Hour),
			sagas.Step("capture", capture, func(o Order) Capture { return Capture{o.ID} }, nil).Pivot())).Plan()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan.Mermaid())
	// Output:
	// flowchart TD
	//   start(["order.placed on orders"])
	//   n1(["an-hour: 1h"])
	//   n2{{"capture (pivot)"}}:::pivot
	//   stop(["cool-off completed"])
	//   start --> n1
	//   n1 --> n2
	//   n2 --> stop
	//   classDef pivot stroke-width:3px
	//   classDef undo stroke-dasharray:4
}
