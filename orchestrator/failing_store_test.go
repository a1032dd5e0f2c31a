package orchestrator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// failing is a store that does what it is told until it is broken.
type failing struct {
	store.Store
	op     string // that fails
	broken bool
}

var errDisk = errors.New("no space left on device")

func (f *failing) fails(op string) bool { return f.broken && op == f.op }

func (f *failing) Apply(b *store.Batch) error {
	if f.fails("apply") {
		return errDisk
	}
	return f.Store.Apply(b)
}

func (f *failing) Get(key []byte) (store.Row, bool, error) {
	if f.fails("get") {
		return store.Row{}, false, errDisk
	}
	return f.Store.Get(key)
}

func (f *failing) Due(until int64, fn func(store.Timer) bool) error {
	if f.fails("due") {
		return errDisk
	}
	return f.Store.Due(until, fn)
}

func (f *failing) Scan(from, to []byte, fn func(store.Row) bool) error {
	if f.fails("scan") {
		return errDisk
	}
	return f.Store.Scan(from, to, fn)
}

// A store that fails stops its shard, whatever the shard wanted of it, and nothing is decided on what it did
// not say. Its successor, with an empty store, goes on from Kafka alone.
func TestAFailingStoreStopsTheShardAndTheNextOneGoesOn(t *testing.T) {
	for _, op := range []string{"apply", "get", "due", "scan"} {
		t.Run(op, func(t *testing.T) {
			st := newStory(t, 1, oneStep)
			var broken *failing
			st.tune = func(c *ShardConfig) {
				broken = &failing{Store: c.Store, op: op}
				c.Store, c.RowCache = broken, 1
			}
			a := st.open(0, "a")
			st.order(0, "before")
			must(t, st.turn(a))
			broken.broken = true
			if op == "scan" {
				a.cfg.CompactAfter = 1
			}
			ids, _ := st.commands("payments")
			st.order(0, "during")
			if len(ids) > 0 {
				st.reply(0, ids[0], "done")
			}
			st.advance(time.Hour) // timers are due
			var err error
			for n := 0; n < 5 && err == nil; n++ { // a compaction round takes turns of its own
				err = st.turn(a)
			}
			if !errors.Is(err, ErrStoreFailed) || !errors.Is(err, errDisk) {
				t.Fatalf("the shard goes on with %v", err)
			}
			if ErrorCode(err) != CodeStoreFailed {
				t.Errorf("its code is %q", ErrorCode(err))
			}
			a.close()

			st.tune = nil
			st.lose(0)
			b := st.open(0, "b")
			must(t, st.turn(b))
			for range 3 {
				ids, _ := st.commands("payments")
				for _, id := range ids {
					st.reply(0, id, "done")
				}
				must(t, st.turn(b))
			}
			st.wantStates(0, events.Completed, events.Completed)
			st.wantRebuilt(0)
			b.close()
		})
	}
}

// Whoever waits for the shard waits for nothing else.
func TestAnIdleShardIsHandedOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStory(t, 1, oneStep)
		a := st.open(0, "a")
		must(t, st.turn(a))
		select {
		case <-a.mail.wake: // it has been asleep
		default:
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		began := time.Now()
		must(t, a.Run(ctx))
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %s", took)
		}
	})
}
