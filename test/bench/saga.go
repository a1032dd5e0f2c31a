package main

import (
	"fmt"
	"time"

	"github.com/skald-io/skald/sagas"
)

// The payloads are of the size of an ordinary shop's: an order of three lines with an address, commands that
// name what they are about, replies with a reference and a few facts.
type (
	line struct {
		SKU      string `json:"sku"`
		Name     string `json:"name"`
		Quantity int    `json:"quantity"`
		Price    int64  `json:"price"`
	}
	address struct {
		Name    string `json:"name"`
		Street  string `json:"street"`
		City    string `json:"city"`
		Zip     string `json:"zip"`
		Country string `json:"country"`
	}
	// orderPlaced is the domain event.
	orderPlaced struct {
		Order    string  `json:"order"`
		Customer string  `json:"customer"`
		Lines    []line  `json:"lines"`
		Amount   int64   `json:"amount"`
		Currency string  `json:"currency"`
		ShipTo   address `json:"ship_to"`
	}
	// order is the saga's data.
	order struct {
		Order    string   `json:"order"`
		Customer string   `json:"customer"`
		Lines    []line   `json:"lines"`
		Amount   int64    `json:"amount"`
		Currency string   `json:"currency"`
		ShipTo   address  `json:"ship_to"`
		Refs     []string `json:"refs,omitempty"` // one of each step
	}
	// command is what a step's participant is told.
	command struct {
		Order    string  `json:"order"`
		Customer string  `json:"customer"`
		Lines    []line  `json:"lines"`
		Amount   int64   `json:"amount"`
		Currency string  `json:"currency"`
		ShipTo   address `json:"ship_to"`
	}
	// undo needs nothing but the order.
	undo struct {
		Order string `json:"order"`
	}
	reply struct {
		Reference string `json:"reference"`
		Location  string `json:"location"`
		ReadyAt   string `json:"ready_at"`
	}
	nothing struct{}
)

// world is the run's saga and the topics it needs.
type world struct {
	orders   string
	commands []string // the topics of the steps
	forward  []sagas.Command[command, reply]
	backward []sagas.Command[undo, nothing]
	event    sagas.Event[orderPlaced]
	saga     *sagas.Definition
	asleep   sagas.Event[orderPlaced] // starts a sleeper
	sleeper  *sagas.Definition
}

const sleeperName = "defer-order"

// sleeps is how long a sleeper sleeps: longer than any run.
const sleeps = 24 * time.Hour

// stepTimeout is how long an attempt may take, unless nobody is there to answer.
const stepTimeout = 30 * time.Second

// newWorld makes the saga.
func newWorld(o *options) *world {
	w := &world{orders: o.app + "-orders"}
	timeout := stepTimeout
	if o.starts > 0 {
		timeout = 24 * time.Hour
	}
	w.event = sagas.NewEvent[orderPlaced](w.orders, "shop.order-placed")
	var steps []sagas.NodeOf[order]
	for i := range o.topics {
		w.commands = append(w.commands, fmt.Sprintf("%s-commands-%d", o.app, i+1))
	}
	for i := range o.steps {
		topic := w.commands[i%o.topics]
		do := sagas.NewCommand[command, reply](topic, fmt.Sprintf("service-%d.reserve", i+1))
		back := sagas.NewCommand[undo, nothing](topic, fmt.Sprintf("service-%d.release", i+1))
		w.forward, w.backward = append(w.forward, do), append(w.backward, back)
		steps = append(steps, sagas.Step(fmt.Sprintf("step-%d", i+1), do,
			func(o order) command { return command{o.Order, o.Customer, o.Lines, o.Amount, o.Currency, o.ShipTo} },
			func(o *order, r reply) { o.Refs = append(o.Refs, r.Reference) }).
			Undo(sagas.With(back, func(o order) undo { return undo{o.Order} })).
			Timeout(timeout).
			Retry(sagas.Attempts(3), sagas.Backoff(200*time.Millisecond, 5*time.Second)))
	}
	w.saga = sagas.Define("place-order", "1",
		sagas.StartOn(w.event, newSaga),
		sagas.Seq(steps...))
	w.asleep = sagas.NewEvent[orderPlaced](w.orders, "shop.order-deferred")
	w.sleeper = sagas.Define(sleeperName, "1", sagas.StartOn(w.asleep, newSaga), sagas.Seq(sagas.Sleep[order]("night", sleeps)))
	return w
}

func newSaga(e orderPlaced) order {
	return order{Order: e.Order, Customer: e.Customer, Lines: e.Lines, Amount: e.Amount, Currency: e.Currency, ShipTo: e.ShipTo}
}

// newOrder is the event of one order.
func newOrder(key string) orderPlaced {
	return orderPlaced{Order: key, Customer: "customer-" + key, Currency: "EUR", Amount: 12_940,
		Lines: []line{
			{"SKU-4711-BLK", "Teapot, cast iron, 0.8 l", 1, 7_490},
			{"SKU-0815-GRN", "Sencha, first flush, 250 g", 2, 1_890},
			{"SKU-1234-WHT", "Cup, porcelain", 4, 415},
		},
		ShipTo: address{"Ada Example", "Rue de l'Exemple 17", "Strasbourg", "67000", "FR"}}
}
