package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
)

// The state is in Kafka: a node that lost its store reads it back, sends nothing again, and goes on.
func TestANodeThatLostItsStoreRebuildsIt(t *testing.T) {
	c := newCluster(t)
	_, stop := c.node("a")
	c.place(1, 20)
	c.until("every order leaves", func() bool { return c.sent() == 20 })
	stop() // and with it its store, which was in memory

	a, _ := c.node("a")
	c.until("it knows what was", func() bool { return ended(a)[events.Completed] == 20 })
	c.place(21, 21)
	c.until("it goes on", func() bool { return c.sent() == 21 })
}
