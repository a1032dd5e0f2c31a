package kafka

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/internal/mutant"
)

// Bounds of what a gatherer holds.
const (
	maxHold      = 2 * time.Millisecond
	maxHeldBytes = 256 << 10 // of keys and values
)

// gatherer stands before a producer and makes few large requests of many small ones, by as much as there is to do. It
// holds a record only while one that it handed over is not answered, or somebody is at work who may add more in a moment,
// and never longer than maxHold: what comes alone goes at once. That is Nagle's algorithm (RFC 896), with an end.
//
// Records leave in the order in which they were added. It is safe for concurrent use.
type gatherer struct {
	to   producer
	hold time.Duration // for how long a record may be held; 0: none is

	mu       sync.Mutex
	held     []heldRecord
	bytes    int // of them
	working  int
	awaiting int // records that were handed over and are not answered
	timer    *time.Timer
}

type heldRecord struct {
	record  *kgo.Record
	done    func(*kgo.Record, error)
	givenUp *atomic.Bool // true: its owner sends nothing any more, and told whom it concerns; nil: that never happens
}

// producer is a kgo.Client whose buffer has no bound, so that its Produce does not block; it answers from another goroutine.
type producer interface {
	Produce(ctx context.Context, r *kgo.Record, done func(*kgo.Record, error))
}

// newGatherer hands to a producer, in batches that adapt; a linger that is set otherwise is the producer's own affair.
func newGatherer(linger time.Duration, to producer) *gatherer {
	g := &gatherer{to: to}
	if linger == 0 {
		g.hold = maxHold
	}
	return g
}

// add takes a record. Whatever calls done calls answered first.
func (g *gatherer) add(r *kgo.Record, done func(*kgo.Record, error), givenUp *atomic.Bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = append(g.held, heldRecord{r, done, givenUp})
	g.bytes += len(r.Key) + len(r.Value)
	if g.hold == 0 || g.bytes >= maxHeldBytes {
		g.handOver()
		return
	}
	g.release()
	if len(g.held) == 1 && !mutant.On("kafka-held-for-ever") {
		if g.timer == nil {
			g.timer = time.AfterFunc(g.hold, g.flush)
		} else {
			g.timer.Reset(g.hold)
		}
	}
}

// begin says that the caller may add records until it calls end.
func (g *gatherer) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.working++
}

func (g *gatherer) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.working--
	g.release()
}

// answered says that a record that was handed over is acknowledged, or has failed.
func (g *gatherer) answered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.awaiting--
	g.release()
}

// flush hands over what is held.
func (g *gatherer) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handOver()
}

// release is called with mu held.
func (g *gatherer) release() {
	if len(g.held) > 0 && (g.working == 0 && g.awaiting == 0 || mutant.On("kafka-nothing-gathered")) {
		g.handOver()
	}
}

// handOver is called with mu held, so that records leave in their order.
func (g *gatherer) handOver() {
	for i := range g.held {
		h := &g.held[i]
		if h.givenUp != nil && h.givenUp.Load() && !mutant.On("kafka-held-append-follows-a-failed-one") {
			continue
		}
		g.awaiting++
		g.to.Produce(context.Background(), h.record, h.done)
	}
	clear(g.held)
	g.held, g.bytes = g.held[:0], 0
	if g.timer != nil {
		g.timer.Stop()
	}
}
