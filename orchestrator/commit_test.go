package orchestrator

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/orchestrator/journal"
)

// observed is the model with a group that takes positions.
type observed struct {
	*model
	mu    sync.Mutex
	at    map[TopicPartition]int64
	calls int
	err   error
}

func (o *observed) Commit(_ context.Context, group string, positions map[TopicPartition]int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	if group != app {
		return errors.New("another group")
	}
	if o.err == nil {
		maps.Copy(o.at, positions)
	}
	return o.err
}

func (o *observed) has(tp TopicPartition) (at int64, calls int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.at[tp], o.calls
}

func TestLagToolsAreToldJournaledPositionsAndNothingElseDependsOnIt(t *testing.T) {
	st := newStory(t, 1, oneStep)
	o := &observed{model: st.kafka, at: map[TopicPartition]int64{}}
	st.tune = func(c *ShardConfig) { c.Kafka = o }
	orders := TopicPartition{st.plan.Start.Topic, 0}
	a := st.open(0, "a")
	passes := func(d time.Duration) {
		t.Helper()
		st.advance(d)
		must(t, st.turn(a))
		a.background.Wait()
		must(t, st.turn(a))
	}
	st.order(0, "x")
	st.order(0, "y")
	must(t, st.turn(a))
	passes(6 * time.Second) // journals the positions
	passes(6 * time.Second)
	if at, _ := o.has(orders); at != 2 || a.applied.Position(journal.TP(orders)).Low != 2 {
		t.Errorf("tools are told %d, the journal says %d", at, a.applied.Position(journal.TP(orders)).Low)
	}
	// What stands still is not said again, but for once an hour.
	_, before := o.has(orders)
	passes(6 * time.Second)
	if _, calls := o.has(orders); calls != before {
		t.Errorf("%d commits of the same", calls-before)
	}
	passes(time.Hour)
	if _, calls := o.has(orders); calls == before {
		t.Error("offsets that nobody subscribes to are left to expire")
	}
	// A failure costs nothing.
	o.mu.Lock()
	o.err = errors.New("not allowed")
	o.mu.Unlock()
	st.order(0, "z")
	must(t, st.turn(a))
	_, before = o.has(orders)
	passes(6 * time.Second)
	passes(6 * time.Second)
	if _, calls := o.has(orders); calls == before {
		t.Error("after a failure it is not tried again")
	}
	if low := a.applied.Position(journal.TP(orders)).Low; low != 3 {
		t.Errorf("the journal says %d", low)
	}
}
