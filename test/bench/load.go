package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// run prepares the topics and the children, measures, and clears up.
func run(ctx context.Context, o *options, r report) (err error) {
	w := newWorld(o)
	remove, err := topics(ctx, o, w)
	if err != nil {
		return err
	}
	defer remove()
	l, err := newLoad(o, w)
	if err != nil {
		return err
	}
	defer l.client.Close()
	engineMode, servicesMode := "engine", "participants"
	if o.floor {
		engineMode, servicesMode = "floor-engine", "floor-participants"
	}
	engine, err := spawn(o, engineMode)
	if err != nil {
		return err
	}
	defer engine.stop()
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := awaitShards(ready, engine, o.shards); err != nil {
		return err
	}
	if o.starts > 0 {
		if err := l.many(ctx, engine, r); err != nil || !o.restore {
			return err
		}
		return restore(engine, r)
	}
	if o.sleeping > 0 && !o.awake {
		if err := l.sleepers(ctx, engine, r); err != nil {
			return err
		}
	}
	services, err := spawn(o, servicesMode)
	if err != nil {
		return err
	}
	defer services.stop()
	measure := l.closed
	if o.rate > 0 {
		measure = l.open
	}
	if err := measure(ctx, engine, services, r); err != nil || !o.restore {
		return err
	}
	return restore(engine, r)
}

// topics creates what the run needs; remove deletes it again, for a broker that serves many runs.
func topics(ctx context.Context, o *options, w *world) (remove func(), err error) {
	client, err := kafka.Dial(kafka.Config{Brokers: strings.Split(o.brokers, ",")})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	plan := kafka.Plan(kafka.PlanOptions{App: o.app, Partitions: o.shards, Replication: 1, MinISR: 1, Inputs: []string{w.orders}, Commands: w.commands,
		Lifecycle: true, Create: true})
	var names []string
	for _, t := range plan.Topics {
		if o.fsync && t.Name == (events.Topics{App: o.app}).Journal() {
			t.Config["flush.messages"] = "1"
		}
		names = append(names, t.Name)
	}
	remove = func() {
		cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(o.brokers, ",")...))
		if err != nil {
			return
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := kadm.NewClient(cl).DeleteTopics(ctx, names...); err != nil {
			fmt.Fprintln(os.Stderr, "bench: its topics stay:", err)
		}
	}
	if _, err := plan.Apply(ctx, client); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// load places orders and learns of their end. Its keys are <client>-<number>, so that what is read finds its
// client without a map.
type load struct {
	o      *options
	w      *world
	client *kgo.Client

	mu     sync.Mutex
	failed error
}

func newLoad(o *options, w *world) (*load, error) {
	lifecycle := events.Topics{App: o.app}.Lifecycle()
	parts := map[int32]kgo.Offset{}
	for p := range int32(o.shards) {
		parts[p] = kgo.NewOffset().AtStart()
	}
	partitioner := kgo.StickyKeyPartitioner(nil) // the Java client's choice for every record: what the shards expect
	if o.forward {
		partitioner = newForeign(w.orders)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(o.brokers, ",")...), kgo.ProducerLinger(o.linger), kgo.MaxBufferedRecords(100_000),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{lifecycle: parts}),
		kgo.RecordPartitioner(partitioner))
	if err != nil {
		return nil, err
	}
	return &load{o: o, w: w, client: cl}, nil
}

func (l *load) place(ctx context.Context, client, number int) {
	l.send(ctx, l.w.event, strconv.Itoa(client)+"-"+strconv.Itoa(number))
}

func (l *load) send(ctx context.Context, event sagas.Event[orderPlaced], key string) {
	value, err := event.Encode(newOrder(key))
	if err != nil {
		l.fail(err)
		return
	}
	r := &kgo.Record{Topic: l.w.orders, Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{
		{Key: events.HeaderSpecVersion, Value: []byte("1.0")}, {Key: events.HeaderID, Value: []byte(key)}, {Key: events.HeaderSource, Value: []byte("/shop")},
		{Key: events.HeaderType, Value: []byte(event.Type())}, {Key: events.HeaderContentType, Value: []byte("application/json")}}}
	l.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil && ctx.Err() == nil {
			l.fail(fmt.Errorf("order %s was not placed: %w", key, err))
		}
	})
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = errors.Join(l.failed, err)
}

func (l *load) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// ends reads what became final, until fn says that it has enough.
func (l *load) ends(ctx context.Context, patience time.Duration, fn func(client, number int, completed bool, now time.Time) (more bool)) error {
	last := time.Now()
	for {
		poll, cancel := context.WithTimeout(ctx, time.Second)
		fetches := l.client.PollFetches(poll)
		cancel()
		now := time.Now()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := l.failure(); err != nil {
			return err
		}
		more := true
		for it := fetches.RecordIter(); more && !it.Done(); {
			r := it.Next()
			last = now
			client, number, ok := keyOf(r.Key)
			if !ok {
				return fmt.Errorf("a saga of key %q was announced that nobody started", r.Key)
			}
			typ := ""
			for _, h := range r.Headers {
				if h.Key == events.HeaderType {
					typ = string(h.Value)
				}
			}
			more = fn(client, number, typ == "saga.completed", now)
		}
		if !more {
			return nil
		}
		if now.Sub(last) > patience {
			return fmt.Errorf("no saga became final for %s", patience)
		}
	}
}

func keyOf(key []byte) (client, number int, ok bool) {
	a, b, ok := strings.Cut(string(key), "-")
	client, err := strconv.Atoi(a)
	if err != nil || !ok {
		return 0, 0, false
	}
	number, err = strconv.Atoi(b)
	return client, number, err == nil
}

// closed is the closed loop: each client places its next order when its saga is final.
func (l *load) closed(ctx context.Context, engine, services *child, r report) error {
	type slot struct {
		number int
		placed time.Time
	}
	clients := make([]slot, l.o.concurrency)
	for c := range clients {
		clients[c].placed = time.Now()
		l.place(ctx, c, 0)
	}
	var begin, end time.Time // of the window
	var before, after engineSample
	var servicesBefore, servicesAfter sample
	var took []time.Duration
	other, measuring := 0, false
	var failed error
	err := l.ends(ctx, time.Minute, func(c, number int, completed bool, now time.Time) bool {
		if c >= len(clients) || clients[c].number != number {
			return true // announced again, by a new owner
		}
		s := &clients[c]
		switch {
		case begin.IsZero():
			begin = now.Add(l.o.warmup)
			end = begin.Add(l.o.duration)
		case now.Before(begin):
		case !measuring:
			measuring = true
			failed = errors.Join(engine.ask("begin", &before), services.ask("begin", &servicesBefore))
			begin = time.Now()
			end = begin.Add(l.o.duration)
		case now.After(end):
			failed = errors.Join(engine.ask("end", &after), services.ask("end", &servicesAfter))
			end = now
			return false
		default:
			took = append(took, now.Sub(s.placed))
			if !completed {
				other++
			}
		}
		s.number++
		s.placed = time.Now()
		l.place(ctx, c, s.number)
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	r.set("concurrency", l.o.concurrency)
	r.set("duration_s", end.Sub(begin).Seconds())
	r.set("warmup_s", l.o.warmup.Seconds())
	r.set("sagas", len(took))
	r.set("sagas_per_s", float64(len(took))/end.Sub(begin).Seconds())
	r.set("not_completed", other)
	slices.Sort(took)
	r.latencies(took, l.o.steps)
	r.engine(&before, &after, len(took))
	r.set("participants_cpu_us_per_saga", per(float64(servicesAfter.CPU-servicesBefore.CPU), float64(len(took))))
	return nil
}

// open is the open loop: order i is due i/rate seconds after the first, whatever became of those before it. Latency
// counts from when an order was due, so that a load or an engine that falls behind cannot hide it.
func (l *load) open(ctx context.Context, engine, services *child, r report) error {
	n := int(float64(l.o.rate) * (l.o.warmup + l.o.duration).Seconds())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := time.Now()
	due := func(i int) time.Time {
		return first.Add(time.Duration(float64(i) / float64(l.o.rate) * float64(time.Second)))
	}
	begin, end := first.Add(l.o.warmup), first.Add(l.o.warmup+l.o.duration)
	placed := make(chan time.Duration, 1)
	go func() {
		var late time.Duration
		for i := 0; i < n && ctx.Err() == nil; i++ {
			if wait := time.Until(due(i)); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
				}
			}
			late = max(late, time.Since(due(i)))
			l.place(ctx, i, 0)
		}
		placed <- late
	}()
	var before, after engineSample
	var servicesBefore, servicesAfter sample
	var from, to time.Time // of the window, as sampled
	finish := func() error {
		to = time.Now()
		return errors.Join(engine.ask("end", &after), services.ask("end", &servicesAfter))
	}
	var took []time.Duration
	final := make([]bool, n)
	count, ended, other := 0, 0, 0
	var failed error
	err := l.ends(ctx, time.Minute, func(i, _ int, completed bool, now time.Time) bool {
		if i < 0 || i >= n || final[i] {
			return true // announced again, by a new owner
		}
		final[i] = true
		count++
		if from.IsZero() && !now.Before(begin) {
			failed = errors.Join(engine.ask("begin", &before), services.ask("begin", &servicesBefore))
			from = time.Now()
		} else if !from.IsZero() && to.IsZero() {
			ended++
			if now.After(end) {
				failed = finish()
			}
		}
		if !due(i).Before(begin) {
			took = append(took, now.Sub(due(i)))
			if !completed {
				other++
			}
		}
		return failed == nil && count < n
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("%d of %d sagas are final: %w", count, n, err)
	}
	if to.IsZero() { // the last order's saga was final before the window closed
		if err := finish(); err != nil {
			return err
		}
	}
	r.set("rate", l.o.rate)
	r.set("duration_s", to.Sub(from).Seconds())
	r.set("warmup_s", l.o.warmup.Seconds())
	r.set("sagas", len(took))
	r.set("sagas_per_s", float64(ended)/to.Sub(from).Seconds())
	r.set("not_completed", other)
	r.set("late_placed_ms", float64((<-placed).Microseconds())/1000)
	slices.Sort(took)
	r.latencies(took, l.o.steps)
	r.engine(&before, &after, ended)
	r.set("participants_cpu_us_per_saga", per(float64(servicesAfter.CPU-servicesBefore.CPU), float64(ended)))
	return nil
}

// many starts sagas while no participant runs, then lets all of them finish.
func (l *load) many(ctx context.Context, engine *child, r report) error {
	n := l.o.starts
	began := time.Now()
	for i := range n {
		l.place(ctx, i, 0) // waits when too many are under way
		if err := errors.Join(l.failure(), ctx.Err()); err != nil {
			return err
		}
	}
	if err := l.awaitDecisions(ctx, engine, uint64(n)); err != nil {
		return err
	}
	started := time.Since(began)
	var waiting engineSample
	if err := engine.ask("waiting", &waiting); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %d sagas wait after %s; the engine holds %.0f MiB, at most %.0f\n", n, started.Round(time.Second), mib(waiting.RSS), mib(waiting.RSSPeak))
	r.set("starts", n)
	r.set("start_seconds", started.Seconds())
	r.set("starts_per_s", float64(n)/started.Seconds())
	r.set("rss_waiting_mib", mib(waiting.RSS))
	r.set("rss_peak_waiting_mib", mib(waiting.RSSPeak))

	began = time.Now()
	services, err := spawn(l.o, "participants")
	if err != nil {
		return err
	}
	defer services.stop()
	if err := engine.ask("begin", &waiting); err != nil {
		return err
	}
	final := make([]bool, n)
	count, other := 0, 0
	// The first saga ends when nearly all of them have nearly ended: their commands stand in one line.
	if err := l.ends(ctx, 2*time.Hour, func(c, _ int, completed bool, _ time.Time) bool {
		if c < n && !final[c] {
			final[c] = true
			count++
			if !completed {
				other++
			}
		}
		return count < n
	}); err != nil {
		return fmt.Errorf("%d of %d sagas are final: %w", count, n, err)
	}
	finished := time.Since(began)
	var after engineSample
	if err := engine.ask("end", &after); err != nil {
		return err
	}
	r.set("finish_seconds", finished.Seconds())
	r.set("sagas_per_s", float64(n)/finished.Seconds())
	r.set("not_completed", other)
	r.set("rss_peak_mib", mib(after.RSSPeak))
	r.set("engine_cpu_us_per_saga", per(float64(after.CPU), float64(n)))
	r.set("journal_bytes_per_decision", after.Journal.meanSince(tally{}))
	return nil
}

// awaitDecisions waits until the engine has decided n starts, as long as it gets on.
func (l *load) awaitDecisions(ctx context.Context, engine *child, n uint64) error {
	var s engineSample
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last, moved := uint64(0), time.Now()
	for {
		if err := engine.ask("sample", &s); err != nil {
			return err
		}
		// Each start is one command; other records than starts are counted as decisions too.
		if uint64(s.Commands.N) >= n {
			return nil
		}
		if s.Decisions != last {
			last, moved = s.Decisions, time.Now()
		}
		if time.Since(moved) > time.Minute {
			return fmt.Errorf("the engine stands still at %d of %d starts", s.Commands.N, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
