package participant

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/internal/mutant"
)

// place names a partition.
type place struct {
	topic     string
	partition int32
}

// partition is one assignment of a partition.
type partition struct {
	place
	open   []open // read and not passed, ascending offsets
	base   int    // number of the first of open, from 0 at the assignment
	begun  int    // records whose execution began and whose end was not reported
	closed bool   // being given up: nothing more begins, what began may end and be passed
	gone   bool   // given up: nothing is passed any more
}

type open struct {
	record *kgo.Record
	done   bool
}

// queued is one record to be executed.
type queued struct {
	part   *partition
	number int // among the records of the assignment
	record *kgo.Record
}

// queue holds what was read: records of one key are executed one after the other, others side by side, at
// most workers of them at once. Positions pass a record only when it and all before it in its partition
// are finished. All methods are safe for concurrent use.
type queue struct {
	execute func(*queued)     // reports its end by finish, at once or later, exactly once
	passed  func(*kgo.Record) // everything of the partition up to this record is finished; called with mu held
	slots   chan struct{}     // one per worker

	mu      sync.Mutex
	changed *sync.Cond
	parts   map[place]*partition
	lanes   map[string][]*queued // by key: waiting, behind the one that is executed
	open    int                  // records read and not passed
	stopped bool
}

func newQueue(workers int, execute func(*queued), passed func(*kgo.Record)) *queue {
	q := &queue{execute: execute, passed: passed, slots: make(chan struct{}, workers),
		parts: map[place]*partition{}, lanes: map[string][]*queued{}}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// room waits until fewer than limit records are open and says how many more may be read; 0: stopped.
func (q *queue) room(limit int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.open >= limit && !q.stopped {
		q.changed.Wait()
	}
	if q.stopped {
		return 0
	}
	return limit - q.open
}

// add queues a record behind those of its key.
func (q *queue) add(r *kgo.Record, key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return
	}
	at := place{r.Topic, r.Partition}
	p := q.parts[at]
	if p == nil {
		p = &partition{place: at}
		q.parts[at] = p
	}
	w := &queued{part: p, number: p.base + len(p.open), record: r}
	p.open = append(p.open, open{record: r})
	q.open++
	lane, busy := q.lanes[key]
	q.lanes[key] = append(lane, w)
	if !busy {
		go q.run(key)
	}
}

// run executes one key's records until there are none.
func (q *queue) run(key string) {
	for {
		q.slots <- struct{}{}
		w := q.next(key)
		if w != nil {
			q.execute(w)
		}
		<-q.slots
		if w == nil {
			return
		}
	}
}

func (q *queue) next(key string) *queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	lane := q.lanes[key]
	for len(lane) > 0 && lane[0].part.closed {
		lane = lane[1:]
	}
	if len(lane) == 0 {
		delete(q.lanes, key)
		return nil
	}
	q.lanes[key] = lane[1:]
	lane[0].part.begun++
	return lane[0]
}

// finish reports the end of an execution: done, when its reply is acknowledged or it needs none; otherwise
// the record stays open and is read again by whoever has the partition next.
func (q *queue) finish(w *queued, done bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := w.part
	p.begun--
	q.changed.Broadcast()
	if p.gone || !done && !mutant.On("participant-position-passes-unsent-reply") {
		return
	}
	p.open[w.number-p.base].done = true
	n := 0
	for n < len(p.open) && p.open[n].done {
		n++
	}
	if mutant.On("participant-position-passes-open-command") {
		n = max(n, w.number-p.base+1)
	}
	if n == 0 {
		return
	}
	last := p.open[n-1].record
	p.open, p.base, q.open = append(p.open[:0], p.open[n:]...), p.base+n, q.open-n
	q.passed(last)
}

// close begins nothing more of the partitions and waits until what began is finished, at most as long as
// patience. It reports whether all was.
func (q *queue) close(parts map[string][]int32, patience time.Duration) bool {
	over := false
	timer := time.AfterFunc(patience, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		over = true
		q.changed.Broadcast()
	})
	defer timer.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	closing := q.named(parts)
	for _, p := range closing {
		p.closed = true
	}
	for _, p := range closing {
		for p.begun > 0 {
			if over {
				return false
			}
			q.changed.Wait()
		}
	}
	return true
}

// drop forgets partitions; what is still executed of them is not passed.
func (q *queue) drop(parts map[string][]int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.named(parts) {
		p.closed, p.gone = true, true
		q.open -= len(p.open)
		p.open = nil
		delete(q.parts, p.place)
	}
	q.changed.Broadcast()
}

func (q *queue) named(parts map[string][]int32) (out []*partition) {
	for topic, ps := range parts {
		for _, n := range ps {
			if p := q.parts[place{topic, n}]; p != nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// stop lets nothing more in, and gives the partitions that are left to close and drop.
func (q *queue) stop() map[string][]int32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
	parts := map[string][]int32{}
	for at := range q.parts {
		parts[at.topic] = append(parts[at.topic], at.partition)
	}
	return parts
}
