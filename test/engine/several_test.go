package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// Paid is an event that carries another key than the saga that waits for it.
type Paid struct {
	Invoice string `json:"invoice"`
}

// billed has two definitions that start on one event, under keys of their own; one waits for an event under a third.
func (w *world) billed(c *orchestrator.Config) {
	ship := sagas.NewCommand[Reserve, struct{}](w.cmds(), "ship")
	release := sagas.NewCommand[Reserve, struct{}](w.cmds(), "release")
	placed := sagas.NewEvent[Order](w.orders(), "OrderPlaced")
	c.Definitions = []orchestrator.Definition{
		sagas.Define("order", "1", sagas.StartOn(placed, startOrder), sagas.Seq(
			sagas.Wait[Order]("paid", sagas.NewEvent[Paid](w.orders(), "InvoicePaid").KeyBy(func(p Paid) string { return p.Invoice }), nil).
				By(func(o Order) string { return "invoice-" + o.ID }).Keep(time.Hour),
			sagas.Step("ship", ship, plainReserve, nil).Undo(sagas.With(release, plainReserve)),
		)).Retention(time.Hour),
		sagas.Define("receipt", "1", sagas.StartOn(placed.KeyBy(func(o Order) string { return "receipt-" + o.ID }), startOrder),
			sagas.Step("print", ship, plainReserve, nil).Undo(sagas.With(release, plainReserve))).Retention(time.Hour),
	}
}

func TestAnEventReachesAllWhomItConcernsWhateverTheirShards(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 3)
		w.participant(t)
		one := w.start(t, w.billed)
		one.owns(t, 3)
		two := w.start(t, w.billed)
		until(t, "both nodes own shards", func() bool {
			return len(one.Shards()) > 0 && len(two.Shards()) > 0 && len(one.Shards())+len(two.Shards()) == 3
		})
		paid := func(key string, partition int32) {
			w.put(t, w.orders(), partition, &kgo.Record{Key: []byte("bank"), Value: []byte(`{"invoice":"invoice-` + key + `"}`),
				Headers: headers(events.HeaderType, "InvoicePaid", events.HeaderID, "paid-"+key)})
		}
		var keys []string
		for n := range 12 {
			key := fmt.Sprint("k", n)
			keys = append(keys, key)
			if n%3 == 0 {
				paid(key, int32(n%2)) // before anybody waits
			}
			w.place(t, int32(n%3), key)
			if n%3 != 0 {
				paid(key, int32(n%2))
				paid(key, 2) // again: the same event
			}
		}
		for _, key := range keys {
			w.state(t, key, events.Completed, one, two)
			receipt := events.NewInstanceID(w.app, "receipt", "receipt-"+key, key, w.shards*events.SlotsPerShard)
			until(t, "the receipt of "+key+" is printed", func() bool {
				for _, n := range []*node{one, two} {
					if i, ok, err := n.Get(receipt); ok && err == nil && i.State == events.Completed {
						return true
					}
				}
				return false
			})
		}
		total := 0
		for _, n := range []*node{one, two} {
			if err := n.List(func(orchestrator.Instance) bool { total++; return true }); err != nil {
				t.Fatal(err)
			}
		}
		if total != 2*len(keys) {
			t.Errorf("%d instances, want %d", total, 2*len(keys))
		}
		one.stop(t)
		two.stop(t)
	})
}
