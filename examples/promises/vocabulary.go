// Package promises shows what Skald promises, one small saga and its test for each promise: what the README says
// a saga does, seen happening. Most run on the machine that decides in production, with a clock of their own and no
// Kafka; those that take nodes have a development broker (cluster_test.go). go test -v ./promises.
//
// This file is the vocabulary they share; every other file is complete with it. The rule that must not break: one
// promise a file, and no line in it that is not about the promise.
package promises

import "github.com/skald-io/skald/sagas"

type (
	// Placed is the event that an order was placed.
	Placed struct {
		ID    string   `json:"id"`
		Lines []string `json:"lines"`
	}
	// Order is the data of the sagas.
	Order struct {
		ID       string         `json:"id"`
		Lines    []string       `json:"lines"`
		Reserved []string       `json:"reserved,omitempty"`
		Decision sagas.Decision `json:"decision"`
		Carrier  string         `json:"carrier,omitempty"`
	}
	// Ask is what every service is told, and Answer what it answers.
	Ask struct {
		Order string `json:"order"`
		Line  string `json:"line,omitempty"`
	}
	Answer struct {
		ID string `json:"id"`
	}
	// Paid is the event that an order was paid.
	Paid struct {
		Order string `json:"order"`
	}
)

var (
	placed = sagas.NewEvent[Placed]("orders", "order.placed").KeyBy(func(e Placed) string { return e.ID })
	paid   = sagas.NewEvent[Paid]("payments", "order.paid").KeyBy(func(e Paid) string { return e.Order })

	reserve = sagas.NewCommand[Ask, Answer]("inventory.commands", "inventory.reserve")
	release = sagas.NewCommand[Ask, Answer]("inventory.commands", "inventory.release")
	charge  = sagas.NewCommand[Ask, Answer]("payments.commands", "payments.charge")
	refund  = sagas.NewCommand[Ask, Answer]("payments.commands", "payments.refund")
	book    = sagas.NewCommand[Ask, Answer]("courier.commands", "courier.book")
	cancel  = sagas.NewCommand[Ask, Answer]("courier.commands", "courier.cancel")
	send    = sagas.NewCommand[Ask, Answer]("courier.commands", "courier.send")
	mail    = sagas.NewCommand[Ask, Answer]("mail.commands", "mail.send")

	onPlaced = sagas.StartOn(placed, func(e Placed) Order { return Order{ID: e.ID, Lines: e.Lines} })
)

func ask(o Order) Ask { return Ask{Order: o.ID} }

// The steps that most of the sagas are made of.
var (
	reserveStock = sagas.Step("reserve", reserve, ask, nil).Undo(sagas.With(release, ask))
	chargeCard   = sagas.Step("charge", charge, ask, nil).Undo(sagas.With(refund, ask))
	bookCourier  = sagas.Step("book", book, ask, nil).Undo(sagas.With(cancel, ask))
	sendParcel   = sagas.Step("send", send, ask, nil).Pivot()
	thank        = sagas.Step("thank", mail, ask, nil).Retriable()
)
