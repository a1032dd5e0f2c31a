package sagatest_test

import (
	"time"

	"github.com/skald-io/skald/sagas"
)

type (
	OrderPlaced struct {
		ID    string `json:"id"`
		Total int    `json:"total"` // cents
	}
	Order struct {
		ID        string `json:"id"`
		Total     int    `json:"total"`
		Warehouse string `json:"warehouse,omitempty"`
	}

	ReserveStock  struct{ Order string }
	StockReserved struct{ Warehouse string }
	ReleaseStock  struct{ Order, Warehouse string }
	Authorize     struct {
		Order string
		Total int
	}
	Authorized    struct{ ID string }
	Void          struct{ Order string }
	BookCourier   struct{ Order, From string }
	CancelCourier struct{ Order string }
	Capture       struct{ Order string }
	Notify        struct{ Order string }
	Nothing       struct{}
)

var (
	orderPlaced = sagas.NewEvent[OrderPlaced]("orders", "order.placed").KeyBy(func(e OrderPlaced) string { return e.ID })

	reserveStock  = sagas.NewCommand[ReserveStock, StockReserved]("inventory.commands", "inventory.reserve")
	releaseStock  = sagas.NewCommand[ReleaseStock, Nothing]("inventory.commands", "inventory.release")
	authorize     = sagas.NewCommand[Authorize, Authorized]("payments.commands", "payments.authorize")
	void          = sagas.NewCommand[Void, Nothing]("payments.commands", "payments.void")
	capture       = sagas.NewCommand[Capture, Nothing]("payments.commands", "payments.capture")
	bookCourier   = sagas.NewCommand[BookCourier, Nothing]("courier.commands", "courier.book")
	cancelCourier = sagas.NewCommand[CancelCourier, Nothing]("courier.commands", "courier.cancel")
	notify        = sagas.NewCommand[Notify, Nothing]("notifications.commands", "notifications.send")

	started = sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.ID, Total: e.Total} })
)

// PlaceOrder reserves, authorizes and books beside one another, waits a minute, captures, notifies.
var PlaceOrder = sagas.Define("place-order", "1", started,
	sagas.Seq(
		sagas.Step("reserve-stock", reserveStock,
			func(o Order) ReserveStock { return ReserveStock{o.ID} },
			func(o *Order, r StockReserved) { o.Warehouse = r.Warehouse }).
			Undo(sagas.With(releaseStock, func(o Order) ReleaseStock { return ReleaseStock{o.ID, o.Warehouse} })).
			Timeout(30*time.Second),
		sagas.All(sagas.CancelRest,
			sagas.Step("authorize", authorize, func(o Order) Authorize { return Authorize{o.ID, o.Total} }, nil).
				Undo(sagas.With(void, func(o Order) Void { return Void{o.ID} })),
			sagas.Step("book-courier", bookCourier, func(o Order) BookCourier { return BookCourier{o.ID, o.Warehouse} }, nil).
				Undo(sagas.With(cancelCourier, func(o Order) CancelCourier { return CancelCourier{o.ID} }))),
		sagas.Sleep[Order]("cool-off", time.Minute),
		sagas.Step("capture", capture, func(o Order) Capture { return Capture{o.ID} }, nil).Pivot(),
		sagas.Step("notify", notify, func(o Order) Notify { return Notify{o.ID} }, nil).Retriable(),
	)).Deadline(24 * time.Hour)
