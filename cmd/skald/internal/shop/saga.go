// Package shop is the demo's world: the saga place-order and the four services that take part in it.
//
// saga.go is what a user of Skald writes; services.go is what the teams behind the topics would have
// written; orders.go makes customers. It is imported by cmd/skald alone. The rule that must not break: the
// services know nothing of the saga, and nothing of each other; they speak over Kafka.
package shop

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/skald-io/skald/sagas"
)

// Topics of the shop.
const (
	OrdersTopic        = "orders"
	InventoryTopic     = "inventory.commands"
	PaymentsTopic      = "payments.commands"
	CourierTopic       = "courier.commands"
	NotificationsTopic = "notifications.commands"
)

// OrderPlaced is the domain event: plain JSON, keyed by the order's id.
type OrderPlaced struct {
	Type   string `json:"type"` // "OrderPlaced"
	Order  string `json:"order"`
	Lines  []Line `json:"lines"`
	Amount int64  `json:"amount"` // in cents
}

// Line is one line of an order.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

// What the services are told, and what they answer. All of them go by the order's id: it is known before
// anything was answered, so that an undo can name what it undoes.
type (
	ReserveStock struct {
		Order string `json:"order"`
		Lines []Line `json:"lines"`
	}
	StockReserved struct {
		Warehouse string `json:"warehouse"`
	}
	AuthorizePayment struct {
		Order  string `json:"order"`
		Amount int64  `json:"amount"`
	}
	PaymentAuthorized struct {
		Authorization string `json:"authorization"`
	}
	BookCourier struct {
		Order     string `json:"order"`
		Warehouse string `json:"warehouse"`
	}
	CourierBooked struct {
		Tracking string `json:"tracking"`
	}
	CapturePayment struct {
		Order         string `json:"order"`
		Authorization string `json:"authorization"`
	}
	NotifyCustomer struct {
		Order    string `json:"order"`
		Tracking string `json:"tracking"`
	}
	// OrderRef is all that an undo needs.
	OrderRef struct {
		Order string `json:"order"`
	}
	// Nothing is the answer of who has nothing to say.
	Nothing struct{}
)

// The commands, shared by the saga and the services.
var (
	reserveStock  = sagas.NewCommand[ReserveStock, StockReserved](InventoryTopic, "inventory.reserve-stock")
	releaseStock  = sagas.NewCommand[OrderRef, Nothing](InventoryTopic, "inventory.release-stock")
	authorize     = sagas.NewCommand[AuthorizePayment, PaymentAuthorized](PaymentsTopic, "payments.authorize")
	void          = sagas.NewCommand[OrderRef, Nothing](PaymentsTopic, "payments.void")
	capture       = sagas.NewCommand[CapturePayment, Nothing](PaymentsTopic, "payments.capture")
	bookCourier   = sagas.NewCommand[BookCourier, CourierBooked](CourierTopic, "courier.book-courier")
	cancelCourier = sagas.NewCommand[OrderRef, Nothing](CourierTopic, "courier.cancel-courier")
	notify        = sagas.NewCommand[NotifyCustomer, Nothing](NotificationsTopic, "notifications.notify")

	orderPlaced = sagas.NewEvent[OrderPlaced](OrdersTopic, "OrderPlaced").
			TypeBy(typeField).
			IDBy(func(e OrderPlaced) string { return e.Order }) // placed twice by a retrying shop, it is one order
)

// typeField reads the type that this shop keeps in its events.
func typeField(e sagas.EventView) (string, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(e.Value, &head); err != nil {
		return "", fmt.Errorf("an order is a JSON object with a type: %w", err)
	}
	return head.Type, nil
}

// Order is the saga's data.
type Order struct {
	ID            string `json:"id"`
	Lines         []Line `json:"lines"`
	Amount        int64  `json:"amount"`
	Warehouse     string `json:"warehouse,omitempty"`
	Authorization string `json:"authorization,omitempty"`
	Tracking      string `json:"tracking,omitempty"`
}

// patience is how long an attempt may take here. Real sagas wait longer; the demo wants to show what
// happens when an outcome is unknown.
const patience = 1500 * time.Millisecond

// PlaceOrder takes an order from its placing to its shipping, or back. Undos and what follows the pivot are
// tried for ever: nothing here gets parked because a service is away.
var PlaceOrder = sagas.Define("place-order", "1",
	sagas.StartOn(orderPlaced, func(e OrderPlaced) Order { return Order{ID: e.Order, Lines: e.Lines, Amount: e.Amount} }),
	sagas.Seq(
		sagas.Step("reserve-stock", reserveStock,
			func(o Order) ReserveStock { return ReserveStock{o.ID, o.Lines} },
			func(o *Order, r StockReserved) { o.Warehouse = r.Warehouse }).
			Undo(undo(releaseStock)).
			Timeout(patience).Retry(thrice...),
		sagas.All(sagas.CancelRest,
			sagas.Step("authorize", authorize,
				func(o Order) AuthorizePayment { return AuthorizePayment{o.ID, o.Amount} },
				func(o *Order, r PaymentAuthorized) { o.Authorization = r.Authorization }).
				Undo(undo(void)).
				Timeout(patience).Retry(thrice...),
			sagas.Step("book-courier", bookCourier,
				func(o Order) BookCourier { return BookCourier{o.ID, o.Warehouse} },
				func(o *Order, r CourierBooked) { o.Tracking = r.Tracking }).
				Undo(undo(cancelCourier)).
				Timeout(patience).Retry(thrice...)),
		sagas.Step("capture", capture,
			func(o Order) CapturePayment { return CapturePayment{o.ID, o.Authorization} }, nil).
			Pivot().Timeout(patience).Retry(sagas.ForEver(), backoff),
		sagas.Step("notify", notify,
			func(o Order) NotifyCustomer { return NotifyCustomer{o.ID, o.Tracking} }, nil).
			Retriable().Timeout(patience).Retry(sagas.ForEver(), backoff),
	)).Retention(time.Hour)

var (
	backoff = sagas.Backoff(200*time.Millisecond, 5*time.Second)
	thrice  = []sagas.RetryOption{sagas.Attempts(3), backoff}
)

func undo(command sagas.Command[OrderRef, Nothing]) sagas.UndoOf[Order] {
	return sagas.With(command, func(o Order) OrderRef { return OrderRef{o.ID} }).
		Timeout(patience).Retry(sagas.ForEver(), backoff)
}
