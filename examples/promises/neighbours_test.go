package promises

import "testing"

// A record that nobody can read goes to quarantine; its neighbours go on.
func TestABadRecordHarmsNobody(t *testing.T) {
	c := newCluster(t)
	c.node("a")
	c.place(1, 5)
	c.put([]byte("{"))
	c.put(nil)
	c.place(6, 10)
	c.until("every order leaves", func() bool { return c.sent() == 10 })
}
