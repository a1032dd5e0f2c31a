package promises

import (
	"testing"

	"github.com/skald-io/skald/events"
)

// Nodes share the work; who comes late or goes early changes nothing, and no effect happens twice.
func TestANodeThatGoesIsReplaced(t *testing.T) {
	c := newCluster(t)
	_, stop := c.node("a")
	c.place(1, 20)
	c.until("the first orders leave", func() bool { return c.sent() >= 10 })
	b, _ := c.node("b")
	c.place(21, 60)
	c.until("more orders leave", func() bool { return c.sent() >= 30 })
	stop()
	c.place(61, 80)
	c.until("every order leaves", func() bool { return c.sent() == 80 })
	c.until("the node that is left knows them all", func() bool { return ended(b)[events.Completed] == 80 })
}
