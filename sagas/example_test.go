package sagas_test

import (
	"fmt"
	"time"

	"github.com/skald-io/skald/sagas"
)

// The shop of the examples and tests.
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
	ReleaseStock  struct{ Order string }
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
)

var PlaceOrder = sagas.Define("place-order", "1",
	sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.ID, Total: e.Total} }),
	sagas.Seq(
		sagas.Step("reserve-stock", reserveStock,
			func(o Order) ReserveStock { return ReserveStock{o.ID} },
			func(o *Order, r StockReserved) { o.Warehouse = r.Warehouse }).
			Undo(sagas.With(releaseStock, func(o Order) ReleaseStock { return ReleaseStock{o.ID} })).
			Timeout(10*time.Second),
		sagas.All(sagas.CancelRest,
			sagas.Step("authorize", authorize, func(o Order) Authorize { return Authorize{o.ID, o.Total} }, nil).
				Undo(sagas.With(void, func(o Order) Void { return Void{o.ID} })).
				Retry(sagas.Attempts(5), sagas.NotCodes("card-stolen")),
			sagas.Step("book-courier", bookCourier, func(o Order) BookCourier { return BookCourier{o.ID, o.Warehouse} }, nil).
				Undo(sagas.With(cancelCourier, func(o Order) CancelCourier { return CancelCourier{o.ID} }))),
		sagas.Sleep[Order]("cool-off", time.Minute),
		sagas.Step("capture", capture, func(o Order) Capture { return Capture{o.ID} }, nil).Pivot(),
		sagas.Step("notify", notify, func(o Order) Notify { return Notify{o.ID} }, nil).Retriable().Retry(sagas.ForEver()),
	)).Deadline(24 * time.Hour)

// A definition is checked when the engine is built; its plan prints as text.
func Example() {
	plan, err := PlaceOrder.Plan()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan.Export())
	// Output:
	// skald-plan 1
	// definition "place-order" version "1"
	// start topic "orders" type "order.placed"
	// deadline 24h0m0s
	// retention 168h0m0s
	// seq "seq-1"
	//  step "reserve-stock" compensatable topic "inventory.commands" type "inventory.reserve" timeout 10s attempts 0 backoff 500ms cap 1m0s jitter 0.2
	//   undo topic "inventory.commands" type "inventory.release" timeout 30s attempts 0 backoff 1s cap 5m0s jitter 0.2
	//  all "all-1" cancel-rest
	//   step "authorize" compensatable topic "payments.commands" type "payments.authorize" timeout 30s attempts 5 backoff 500ms cap 1m0s jitter 0.2 not "card-stolen"
	//    undo topic "payments.commands" type "payments.void" timeout 30s attempts 0 backoff 1s cap 5m0s jitter 0.2
	//   step "book-courier" compensatable topic "courier.commands" type "courier.book" timeout 30s attempts 0 backoff 500ms cap 1m0s jitter 0.2
	//    undo topic "courier.commands" type "courier.cancel" timeout 30s attempts 0 backoff 1s cap 5m0s jitter 0.2
	//  wait "cool-off" 1m0s
	//  step "capture" pivot topic "payments.commands" type "payments.capture" timeout 30s attempts 0 backoff 500ms cap 1m0s jitter 0.2
	//  step "notify" retriable topic "notifications.commands" type "notifications.send" timeout 30s attempts -1 backoff 500ms cap 1m0s jitter 0.2
}

// What is wrong with a definition is said with file and line.
func ExampleDefinition_Plan() {
	careless := sagas.Define("careless", "1",
		sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.ID} }),
		sagas.Step("authorize", authorize, func(o Order) Authorize { return Authorize{o.ID, o.Total} }, nil))

	_, err := careless.Plan()
	fmt.Println(err)
	// Output:
	// sagas/example_test.go:101: saga "careless" version "1": step "authorize": it has no Undo: give it one, or mark it EffectFree if it changes nothing
}
