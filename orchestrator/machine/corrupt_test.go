package machine

import (
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

func TestRowsThatCannotBeReadGiveNoDecision(t *testing.T) {
	for _, bad := range []events.RowRef{headRef, nodeRef(0), nodeRef(1)} {
		w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all(pay,ship)", nil)}})
		w.start("order-1", "m-1", "order-1")
		due := w.rows[nodeRef(1)].due
		w.rows[bad] = cell{value: []byte{0xff, 0xff}, due: due}
		if d := w.m.Reply(w, w.now, doneOf(w, 1)); d != nil {
			t.Errorf("a reply with a damaged row %v: %s", bad, w.print(d))
		}
		if d := w.m.Timer(w, w.now, Timer{w.id, bad, due}); d != nil {
			t.Errorf("a timer of a damaged row %v: %s", bad, w.print(d))
		}
		if d := w.m.Start(w, w.now, Start{Plan: w.plan, Instance: w.id}); bad == headRef && d != nil {
			t.Errorf("a start over a damaged head: %s", w.print(d))
		}
	}
}

func TestMissingRowsAreCorruption(t *testing.T) {
	w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all(pay,ship)", nil)}})
	w.start("order-1", "m-1", "order-1")
	lost := w.rows[nodeRef(2)]
	delete(w.rows, nodeRef(2))
	refused := doneOf(w, 1)
	refused.Outcome = events.ReplyRejected
	if d := w.m.Reply(w, w.now, refused); d != nil {
		t.Errorf("undoing a branch whose row is lost: %s", w.print(d))
	}
	w.rows[nodeRef(2)] = lost
	delete(w.rows, nodeRef(0)) // no branch is open, by its counter
	if d := w.m.Reply(w, w.now, doneOf(w, 1)); d != nil {
		t.Errorf("without the fork's row: %s", w.print(d))
	}
	delete(w.rows, dataRef)
	if d := w.m.Reply(w, w.now, doneOf(w, 2)); d != nil {
		t.Errorf("without the data: %s", w.print(d))
	}
}
