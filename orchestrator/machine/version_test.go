package machine

import (
	"testing"

	"github.com/skald-io/skald/sagas"
)

func TestAnInstanceIsNeverDecidedByAnotherVersion(t *testing.T) {
	for name, change := range map[string]func(*sagas.Plan){
		"another version":       func(p *sagas.Plan) { p.Version = "2" },
		"another tree":          func(p *sagas.Plan) { p.Hash[0]++ },
		"another definition":    func(p *sagas.Plan) { p.Name = "orders" },
		"the one it began with": func(*sagas.Plan) {},
	} {
		w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "seq(reserve,pay)", nil)}})
		w.start("order-1", "m-1", "order-1")
		there := planOf(t, "seq(reserve,ship)", nil)
		change(there)
		w.m = New(Config{App: "shop", Slots: 64, Plans: []*sagas.Plan{there}})
		d := w.m.Reply(w, w.now, doneOf(w, 1))
		if wants := name != "the one it began with"; (d.Outcome == Waits) != wants || wants && len(d.Rows)+len(d.Entries)+len(d.Emits) > 0 {
			t.Errorf("%s: %s", name, w.print(d))
		}
	}
}
