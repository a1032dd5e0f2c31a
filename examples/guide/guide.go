// Package guide holds the code of docs/guides, so that what the guides show compiles and is tested. Its test
// compares the two.
//
// The saga is larger than most: it has one of everything. The rule that must not break: every block of Go in a
// guide stands here, or in the tests beside it, line by line.
package guide

import (
	"time"

	"github.com/skald-io/skald/sagas"
)

// What others say.
type OrderPlaced struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Lines    []Line `json:"lines"`
}

type Line struct {
	SKU       string `json:"sku"`
	Quantity  int    `json:"quantity"`
	Cents     int64  `json:"cents"`
	Warehouse string `json:"warehouse,omitempty"`
}

type PaymentReceived struct {
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

// What the saga says.
type OrderShipped struct {
	Order string `json:"order"`
}

// The saga's data.
type Order struct {
	ID        string         `json:"id"`
	Customer  string         `json:"customer"`
	Lines     []Line         `json:"lines"`
	Total     int64          `json:"total"`
	Approval  sagas.Decision `json:"approval,omitzero"`
	Paid      int64          `json:"paid"`
	Reminders int            `json:"reminders"`
	Express   bool           `json:"express"`
	Why       string         `json:"why,omitempty"`
}

// What services are told, and what they answer.
type Reserve struct {
	Reservation string `json:"reservation"`
	SKU         string `json:"sku"`
	Quantity    int    `json:"quantity"`
}

type Reserved struct {
	Warehouse string `json:"warehouse"`
}

type Release struct {
	Reservation string `json:"reservation"`
}

type Notice struct {
	Order string `json:"order"`
	Text  string `json:"text"`
}

type OrderRef struct {
	Order string `json:"order"`
}

type Nothing struct{}

var (
	orderPlaced = sagas.NewEvent[OrderPlaced]("orders", "order.placed").
			KeyBy(func(e OrderPlaced) string { return e.ID })
	paymentReceived = sagas.NewEvent[PaymentReceived]("payments", "payment.received").
			KeyBy(func(e PaymentReceived) string { return e.Customer })
	orderShipped = sagas.NewEvent[OrderShipped]("shipments", "order.shipped")

	reserve = sagas.NewCommand[Reserve, Reserved]("inventory.commands", "inventory.reserve")
	release = sagas.NewCommand[Release, Nothing]("inventory.commands", "inventory.release")
	credit  = sagas.NewCommand[OrderRef, Nothing]("accounts.commands", "accounts.check-credit")
	tell    = sagas.NewCommand[Notice, Nothing]("mail.commands", "mail.send")
	book    = sagas.NewCommand[OrderRef, Nothing]("courier.commands", "courier.book")
	express = sagas.NewCommand[OrderRef, Nothing]("courier.commands", "courier.book-express")
	cancel  = sagas.NewCommand[OrderRef, Nothing]("courier.commands", "courier.cancel")
	handOut = sagas.NewCommand[OrderRef, Nothing]("courier.commands", "courier.hand-out")

	approved = sagas.Approval("approval")
	waive    = sagas.NewSignal[string]("waive-payment")
)

func ref(o Order) OrderRef { return OrderRef{o.ID} }

var reserveOne = sagas.Step("reserve-one", reserve,
	func(o Order) Reserve { return Reserve{Reservation: o.ID, SKU: o.Lines[0].SKU, Quantity: 1} },
	func(o *Order, r Reserved) { o.Lines[0].Warehouse = r.Warehouse }).
	Undo(sagas.With(release, func(o Order) Release { return Release{o.ID} })).
	Timeout(10*time.Second).
	Retry(sagas.Attempts(5), sagas.Backoff(time.Second, time.Minute), sagas.NotCodes("discontinued"))

var checks = sagas.All(sagas.CancelRest,
	sagas.Step("check-credit", credit, ref, nil).EffectFree(),
	sagas.Step("book-courier", book, ref, nil).Undo(sagas.With(cancel, ref)),
)

var approveLarge = sagas.Choose(
	sagas.When("large", func(o Order) bool { return o.Total >= 100_000 }, sagas.Seq(
		sagas.Wait("approval", approved, func(o *Order, d sagas.Decision) { o.Approval = d }).Within(48*time.Hour),
		sagas.Require("approved", func(o Order) bool { return o.Approval.Approved }),
	)),
)

type EachLine = sagas.Each[Order, Line]

var reserveLines = sagas.ForEach("lines", func(o Order) []Line { return o.Lines },
	sagas.Step("reserve", reserve,
		func(l EachLine) Reserve { return Reserve{reservation(l), l.Item.SKU, l.Item.Quantity} },
		func(l *EachLine, r Reserved) { l.Saga.Lines[l.Turn].Warehouse = r.Warehouse }).
		Undo(sagas.With(release, func(l EachLine) Release { return Release{reservation(l)} })),
).Width(10)

func reservation(l EachLine) string { return l.Saga.ID + "/" + l.Item.SKU }

var awaitPayment = sagas.While("unpaid", func(o Order) bool { return o.Paid < o.Total }, sagas.FirstOf(
	sagas.Wait("payment", paymentReceived, func(o *Order, p PaymentReceived) { o.Paid += p.Cents }).
		By(func(o Order) string { return o.Customer }),
	sagas.Wait("waived", waive, func(o *Order, why string) { o.Paid, o.Why = o.Total, why }),
	sagas.Seq(
		sagas.Sleep[Order]("a-week", 7*24*time.Hour),
		sagas.Step("remind", tell, func(o Order) Notice { return Notice{o.ID, "please pay"} }, nil).EffectFree(),
		sagas.Do("reminded", func(o *Order) { o.Reminders++ }),
	),
)).Most(12)

var ship = sagas.Try("express",
	sagas.Step("book-express", express, ref, func(o *Order, _ Nothing) { o.Express = true }).
		Undo(sagas.With(cancel, ref)),
).OnFailure(func(o *Order, f sagas.Failure) { o.Why = f.Step + ": " + f.Code }).
	Else(checks)

var FulfilOrder = sagas.Define("fulfil-order", "1",
	sagas.StartOn(orderPlaced, func(e OrderPlaced) Order {
		o := Order{ID: e.ID, Customer: e.Customer, Lines: e.Lines}
		for _, l := range e.Lines {
			o.Total += int64(l.Quantity) * l.Cents
		}
		return o
	}),
	sagas.Seq(
		reserveLines,
		approveLarge,
		awaitPayment,
		ship,
		sagas.Step("hand-out", handOut, ref, nil).Pivot(),
		sagas.Emit("shipped", orderShipped, func(o Order) OrderShipped { return OrderShipped{o.ID} }),
		sagas.Step("notify", tell, func(o Order) Notice { return Notice{o.ID, "it is on its way"} }, nil).Retriable(),
	)).
	Deadline(120 * 24 * time.Hour).
	During(sagas.DuringIgnore).
	After(sagas.AfterFailure)

// Simple is the first saga of the guide.
var Simple = sagas.Define("buy-one", "1",
	sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.ID, Lines: e.Lines} }),
	sagas.Seq(
		reserveOne,
		sagas.Step("hand-out", handOut, ref, nil).Pivot(),
		sagas.Step("notify", tell, func(o Order) Notice { return Notice{o.ID, "it is on its way"} }, nil).Retriable(),
	))
