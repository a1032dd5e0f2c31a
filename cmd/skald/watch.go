package main

import (
	"strconv"
	"strings"
	"sync"

	"github.com/skald-io/skald/events"
)

// watch follows the instances of this run's orders through the decisions that the engine applies. It is
// safe for concurrent use; Applied only takes a lock and copies, so that it never holds a shard up.
type watch struct {
	prefix string // of the business keys of this run: prefix + number, from 1

	mu     sync.Mutex
	live   map[events.InstanceID]*watched
	placed int
	final  []bool // by number of the order: a decision that is seen again reports nothing again
	counts map[events.State]int
	news   []news
	wake   chan struct{} // holds one token while there is something to look at
}

type watched struct {
	head    *events.Head
	state   events.State // as counted
	history []events.Entry
}

// news is an instance that just became final, or was parked.
type news struct {
	id      events.InstanceID
	head    *events.Head
	history []events.Entry
}

func newWatch(prefix string) *watch {
	return &watch{prefix: prefix, live: map[events.InstanceID]*watched{}, counts: map[events.State]int{}, wake: make(chan struct{}, 1)}
}

// key is the business key of an order.
func (w *watch) key(number int) string { return w.prefix + strconv.Itoa(number) }

func (w *watch) number(key string) (int, bool) {
	rest, ok := strings.CutPrefix(key, w.prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(rest)
	return n, err == nil && n > 0 && w.key(n) == key
}

// Placed says that orders up to number are placed, or about to be.
func (w *watch) Placed(number int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grow(number)
	w.signal()
}

func (w *watch) grow(number int) {
	if number > w.placed {
		w.placed = number
		w.final = append(w.final, make([]bool, number+1-len(w.final))...)
	}
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Applied is orchestrator.Config.Applied.
func (w *watch) Applied(_ int32, r *events.Record) {
	d := r.Decision
	if d == nil || d.Instance.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.live[d.Instance]
	if i == nil && d.FirstRow != 0 {
		return // it began before this run, or is over
	}
	head := headOf(d)
	if i == nil {
		if head == nil {
			return
		}
		n, mine := w.number(head.Key)
		if !mine || n > w.placed || w.final[n] {
			return
		}
		i = &watched{}
		w.live[d.Instance] = i
	}
	if d.FirstRow > uint64(len(i.history)) {
		return // of a later generation of rows than those seen: the tail will tell it again
	}
	for j := range d.Entries {
		if d.FirstRow+uint64(j) == uint64(len(i.history)) {
			i.history = append(i.history, copyEntry(&d.Entries[j]))
		}
	}
	if head == nil || (i.head != nil && head.Entries < i.head.Entries) {
		return
	}
	i.head = head
	if head.State == i.state {
		return
	}
	if i.state != 0 {
		w.counts[i.state]--
	}
	i.state = head.State
	w.counts[i.state]++
	if i.state.Final() {
		n, _ := w.number(head.Key)
		w.final[n] = true
		delete(w.live, d.Instance)
	}
	if i.state.Final() || i.state == events.Parked {
		w.news = append(w.news, news{d.Instance, head, append([]events.Entry(nil), i.history...)})
	}
	w.signal()
}

// headOf gives a copy of the head that the decision leaves, nil when it changes none.
func headOf(d *events.Decision) *events.Head {
	for i := range d.Rows {
		if d.Rows[i].Ref.Part == events.PartHead {
			h, err := events.DecodeHead(append([]byte(nil), d.Rows[i].Value...))
			if err != nil {
				return nil
			}
			return h
		}
	}
	return nil
}

func copyEntry(e *events.Entry) events.Entry {
	c := *e
	c.Unknown = nil
	c.Step, c.Code, c.Message = strings.Clone(e.Step), strings.Clone(e.Code), strings.Clone(e.Message)
	return c
}

// Take gives what happened since the last call.
func (w *watch) Take() []news {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.news
	w.news = nil
	return n
}

// tally is where the run stands.
type tally struct {
	Placed, Waiting, Running, Compensating, Parked, Completed, Compensated, Terminated int
}

// Final is how many orders are over.
func (t tally) Final() int { return t.Completed + t.Compensated + t.Terminated }

func (w *watch) Tally() tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counts
	t := tally{Placed: w.placed, Running: c[events.Running] + c[events.Suspended], Compensating: c[events.Compensating], Parked: c[events.Parked],
		Completed: c[events.Completed], Compensated: c[events.Compensated], Terminated: c[events.Terminated]}
	t.Waiting = t.Placed - t.Running - t.Compensating - t.Parked - t.Final()
	return t
}

// Unfinished lists the placed orders that are not final, in order. Those no decision was seen of have no id.
func (w *watch) Unfinished() []news {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := map[int]news{}
	for id, i := range w.live {
		if n, ok := w.number(i.head.Key); ok {
			known[n] = news{id, i.head, append([]events.Entry(nil), i.history...)}
		}
	}
	var out []news
	for n := 1; n <= w.placed; n++ {
		if w.final[n] {
			continue
		}
		if i, ok := known[n]; ok {
			out = append(out, i)
		} else {
			out = append(out, news{head: &events.Head{Key: w.key(n)}})
		}
	}
	return out
}
