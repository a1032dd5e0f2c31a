package machine

import (
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

func TestDelaysDoubleUpToTheCapAndSpreadEvenly(t *testing.T) {
	p := &sagas.Retry{Backoff: time.Second, Cap: 10 * time.Second}
	for attempt, want := range map[uint32]int64{1: 1000, 2: 2000, 4: 8000, 5: 10_000, 70: 10_000, 1 << 31: 10_000} {
		if got := delay(p, events.InstanceID{}, 1, events.Forward, attempt); got != want {
			t.Errorf("after attempt %d: %d ms, want %d", attempt, got, want)
		}
	}
	p.Jitter = 0.5
	buckets := [4]int{}
	for i := range 4000 {
		d := delay(p, events.InstanceID{byte(i), byte(i >> 8)}, 1, events.Forward, 1)
		if d < 500 || d > 1500 {
			t.Fatalf("a delay of %d ms is not within half of 1000", d)
		}
		buckets[min((d-500)/250, 3)]++
	}
	for _, n := range buckets {
		if n < 850 || n > 1150 {
			t.Errorf("not even: %v", buckets)
		}
	}
	for _, p := range []sagas.Retry{{}, {Backoff: 1 << 62, Cap: 1<<63 - 1, Jitter: 1}, {Backoff: -1, Cap: -1}, {Backoff: time.Hour}} {
		for attempt := uint32(1); attempt < 100; attempt++ {
			if d := delay(&p, events.InstanceID{}, 1, events.Forward, attempt); d < 0 {
				t.Fatalf("%+v after attempt %d: %d", p, attempt, d)
			}
		}
	}
}

func TestAttemptsAreUsedUpByThePolicyOrTheRole(t *testing.T) {
	for _, x := range []struct {
		policy, byRole int
		attempts       uint32
		want           bool
	}{
		{0, 3, 2, false}, {0, 3, 3, true}, {0, 3, 4, true}, {5, 3, 4, false}, {5, 3, 5, true}, {1, 3, 1, true},
		{-1, 3, 3, false}, {-1, 3, 1 << 31, false},
	} {
		if got := usedUp(&sagas.Retry{Attempts: x.policy}, x.byRole, x.attempts); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

func TestAttemptsBeyondTheBitmapOweTheirUndo(t *testing.T) {
	w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all(pay:attempts=66,ship)", nil)}})
	w.start("order-1", "m-1", "order-1")
	for w.head().State == events.Running {
		w.fire(nodeRef(1))
		if w.rows[nodeRef(2)].due < w.now { // keep the other branch open
			w.reply(events.Reply{Command: events.CommandID{Node: 2, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyProgress})
		}
	}
	n, err := events.DecodeNode(w.rows[nodeRef(1)].value)
	if err != nil || n.Undo == nil || n.Undo.Attempts != 1 {
		t.Errorf("none of 66 attempts was answered; the row is %s", w.printRow(nodeRef(1), w.rows[nodeRef(1)].value))
	}
}

func TestAttemptsBeyondTheBitmapAreNeverDischarged(t *testing.T) {
	w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all(pay:attempts=66,ship)", nil)}})
	w.start("order-1", "m-1", "order-1")
	reply := func(attempt uint32) {
		w.reply(events.Reply{Command: events.CommandID{Node: 1, Execution: 1, Attempt: attempt, Phase: events.Forward}, Outcome: events.ReplyRejected, Code: events.CodeExpired})
	}
	for attempt := range uint32(66) {
		reply(attempt + 1)
		if attempt < 65 {
			w.fire(nodeRef(1))
		}
	}
	n, err := events.DecodeNode(w.rows[nodeRef(1)].value)
	if err != nil || n.Undo == nil || n.Status != events.NodeUndoing {
		t.Errorf("all of 66 attempts were rejected, which 64 bits cannot tell; the row is %s", w.printRow(nodeRef(1), w.rows[nodeRef(1)].value))
	}
}
