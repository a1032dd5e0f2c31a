package main

import (
	"time"

	"github.com/skald-io/skald/sagas"
)

// What the shop says: an order was placed.
type (
	OrderPlaced struct {
		ID    string `json:"id"`
		Lines []Line `json:"lines"`
	}
	Line struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
		Cents    int64  `json:"cents"`
	}
)

// Order is the saga's data: what its steps have to know of one another.
type Order struct {
	ID            string         `json:"id"`
	Lines         []Line         `json:"lines"`
	Total         int64          `json:"total"` // cents
	Warehouse     string         `json:"warehouse,omitempty"`
	Authorization string         `json:"authorization,omitempty"`
	Approval      sagas.Decision `json:"approval,omitzero"`
}

// What the services are told, and what they answer. All go by the order's id, which is known before anything was
// answered, so that an undo can name what it undoes.
type (
	ReserveStock struct {
		Order string `json:"order"`
		Lines []Line `json:"lines"`
	}
	StockReserved struct {
		Warehouse string `json:"warehouse"`
	}
	Authorize struct {
		Order string `json:"order"`
		Total int64  `json:"total"`
	}
	Authorized struct {
		ID string `json:"id"`
	}
	Capture struct {
		Authorization string `json:"authorization"`
	}
	BookCourier struct {
		Order     string `json:"order"`
		Warehouse string `json:"warehouse"`
	}
	OrderRef struct {
		Order string `json:"order"`
	}
	Nothing struct{}
)

// The vocabulary: events, signals and commands, each declared once, for the saga and for the services.
var (
	orderPlaced = sagas.NewEvent[OrderPlaced]("orders", "order.placed").KeyBy(func(e OrderPlaced) string { return e.ID })
	approved    = sagas.Approval("approval")

	reserveStock  = sagas.NewCommand[ReserveStock, StockReserved]("inventory.commands", "inventory.reserve-stock")
	releaseStock  = sagas.NewCommand[OrderRef, Nothing]("inventory.commands", "inventory.release-stock")
	authorize     = sagas.NewCommand[Authorize, Authorized]("payments.commands", "payments.authorize")
	void          = sagas.NewCommand[OrderRef, Nothing]("payments.commands", "payments.void")
	capture       = sagas.NewCommand[Capture, Nothing]("payments.commands", "payments.capture")
	bookCourier   = sagas.NewCommand[BookCourier, Nothing]("courier.commands", "courier.book")
	cancelCourier = sagas.NewCommand[OrderRef, Nothing]("courier.commands", "courier.cancel")
	notify        = sagas.NewCommand[OrderRef, Nothing]("notifications.commands", "notifications.notify")
)

// large is from where on somebody has to look at an order before money moves, in cents.
const large = 1_000_00

func newOrder(e OrderPlaced) Order {
	o := Order{ID: e.ID, Lines: e.Lines}
	for _, l := range e.Lines {
		o.Total += int64(l.Quantity) * l.Cents
	}
	return o
}

func ref(o Order) OrderRef { return OrderRef{o.ID} }

// PlaceOrder reserves the stock; authorises the card and books a courier side by side; has large orders approved
// within two days; then captures the money, from where there is no way back, and tells the customer.
var PlaceOrder = sagas.Define("place-order", "1",
	sagas.StartOn(orderPlaced, newOrder),
	sagas.Seq(
		sagas.Step("reserve-stock", reserveStock,
			func(o Order) ReserveStock { return ReserveStock{o.ID, o.Lines} },
			func(o *Order, r StockReserved) { o.Warehouse = r.Warehouse }).
			Undo(sagas.With(releaseStock, ref)).
			Timeout(10*time.Second),
		sagas.All(sagas.CancelRest,
			sagas.Step("authorize", authorize,
				func(o Order) Authorize { return Authorize{o.ID, o.Total} },
				func(o *Order, r Authorized) { o.Authorization = r.ID }).
				Undo(sagas.With(void, ref)),
			sagas.Step("book-courier", bookCourier,
				func(o Order) BookCourier { return BookCourier{o.ID, o.Warehouse} }, nil).
				Undo(sagas.With(cancelCourier, ref))),
		sagas.Choose(
			sagas.When("large", func(o Order) bool { return o.Total >= large }, sagas.Seq(
				sagas.Wait("approval", approved, func(o *Order, d sagas.Decision) { o.Approval = d }).Within(48*time.Hour),
				sagas.Require("approved", func(o Order) bool { return o.Approval.Approved })))),
		sagas.Step("capture", capture, func(o Order) Capture { return Capture{o.Authorization} }, nil).Pivot(),
		sagas.Step("notify", notify, ref, nil).Retriable(),
	)).
	During(sagas.DuringIgnore). // an order that is placed twice is one order
	After(sagas.AfterFailure)   // and one that was compensated may be placed anew
