package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// ours are the goroutines that run code of the engine's, its connection's or its stores'.
func ours() string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var found []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		for _, pkg := range []string{"skald/orchestrator", "skald/connectors/kafka", "cockroachdb/pebble"} {
			if strings.Contains(g, pkg) && !strings.Contains(g, "skald/test/engine") {
				found = append(found, g)
				break
			}
		}
	}
	return strings.Join(found, "\n\n")
}

func nothingLeft(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(15 * time.Second); ours() != ""; {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("these goroutines outlive the engine:\n%s", ours())
		}
	}
}

// moment is a connection that tells when the engine first comes to some call, before it is made.
type moment struct {
	orchestrator.Kafka
	at   string
	stop func()
	once sync.Once
}

func (m *moment) come(at string) {
	if at == m.at {
		m.once.Do(m.stop)
	}
}

func (m *moment) Check(ctx context.Context, n orchestrator.Needs) ([]error, error) {
	m.come("check")
	return m.Kafka.Check(ctx, n)
}

func (m *moment) Topics(ctx context.Context, names ...string) (map[string]orchestrator.Topic, error) {
	m.come("topics")
	return m.Kafka.Topics(ctx, names...)
}

func (m *moment) Join(group, topic string, x orchestrator.Member) (func(), error) {
	m.come("join")
	assigned, revoked := x.Assigned, x.Revoked
	x.Assigned = func(generation int32, ps []int32) { m.come("assigned"); assigned(generation, ps) }
	x.Revoked = func(ps []int32) { m.come("revoked"); revoked(ps) }
	return m.Kafka.Join(group, topic, x)
}

func (m *moment) Log(topic string, p int32) orchestrator.Log {
	m.come("log")
	return momentOfLog{m.Kafka.Log(topic, p), m}
}

func (m *moment) Bounds(ctx context.Context, ps []orchestrator.TopicPartition) (map[orchestrator.TopicPartition]orchestrator.Bounds, error) {
	m.come("bounds of inputs")
	return m.Kafka.Bounds(ctx, ps)
}

func (m *moment) Consume(p orchestrator.TopicPartition, from int64, s orchestrator.Sink) {
	m.come("consume")
	m.Kafka.Consume(p, from, s)
}

func (m *moment) Produce(x *events.Message, done func(error)) {
	m.come("produce")
	m.Kafka.Produce(x, done)
}

type momentOfLog struct {
	orchestrator.Log
	m *moment
}

func (l momentOfLog) Bounds(ctx context.Context) (orchestrator.Bounds, error) {
	l.m.come("bounds of the journal")
	return l.Log.Bounds(ctx)
}

func (l momentOfLog) Read(ctx context.Context, from int64, fn func(orchestrator.LogRecord) error) (int64, error) {
	l.m.come("read")
	return l.Log.Read(ctx, from, fn)
}

func (l momentOfLog) Append(value []byte, done func(int64, error)) {
	if r, err := events.DecodeRecord(value); err == nil {
		l.m.come("append " + r.Kind.String())
	}
	l.Log.Append(value, done)
}

func TestAnEngineThatIsToldToStopAtAnyMomentStopsAndLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		stopped := w.participant(t)
		dir := t.TempDir()
		var keys []string
		for i, at := range []string{"before it runs", "check", "topics", "join", "assigned", "log", "bounds of the journal", "append claim", "read",
			"bounds of inputs", "append decision", "consume", "produce"} {
			keys = append(keys, fmt.Sprintf("order-%d", i))
			w.place(t, int32(i%2), keys[i])
			t.Run(at, func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if at == "before it runs" {
					cancel()
				}
				l := &logs{}
				c, err := kafka.Dial(kafka.Config{Brokers: []string{b.addr}, Logger: slog.New(l)})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				e := w.engine(t, l, &moment{Kafka: c, at: at, stop: cancel}, inDir(dir))
				ended := make(chan error, 1)
				go func() { ended <- e.Run(ctx) }()
				select {
				case err := <-ended:
					if err != nil || ctx.Err() == nil {
						t.Errorf("it ended with %v; was it told to: %v\n%s", err, ctx.Err(), l.tail())
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("it does not stop\n%s", l.tail())
				}
				if n := len(e.Shards()); n != 0 {
					t.Errorf("it owns %d shards", n)
				}
				c.Close()
				nothingLeft(t)
			})
		}
		n := w.start(t, inDir(dir))
		w.completed(t, n, keys...)
		n.stop(t)
		stopped()
		nothingLeft(t)
	})
}

// Two nodes of one application in one process: one stays, the other comes and goes while orders come in.
func TestNodesThatComeAndGoUnderLoadLoseNothing(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		const rounds = 10
		w := newWorld(t, b, 4)
		done := w.participant(t)
		one := w.start(t, inDir(t.TempDir()))
		two := t.TempDir()
		one.owns(t, 4)

		stop, placed := make(chan struct{}), make(chan []string, 1)
		go func() {
			var keys []string
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					placed <- keys
					return
				case <-tick.C:
					key := fmt.Sprintf("order-%d", len(keys))
					r := order(key, "")
					r.Topic, r.Partition = w.orders(), int32(len(keys)%4)
					if err := w.plain.ProduceSync(context.Background(), r).FirstErr(); err != nil {
						t.Error(err)
						placed <- keys
						return
					}
					keys = append(keys, key)
				}
			}
		}()
		for range rounds {
			other := w.start(t, inDir(two))
			until(t, "the shards are shared", func() bool { return len(other.Shards()) == 2 && len(one.Shards()) == 2 })
			other.stop(t)
			one.owns(t, 4)
		}
		close(stop)
		keys := <-placed
		if len(keys) < 10*rounds {
			t.Fatalf("only %d orders", len(keys))
		}
		w.completed(t, one, keys...)
		one.stop(t)
		done()

		effects := map[string]int{}
		w.mu.Lock()
		for _, c := range w.commands {
			if c.typ == "release" {
				t.Errorf("order %s was undone", c.key)
			}
			effects[c.idempotency]++
		}
		w.mu.Unlock()
		if len(effects) != 2*len(keys) {
			t.Errorf("%d effects of %d orders", len(effects), len(keys))
		}
		for at, ds := range w.decisions(t) {
			if len(ds) != 1 {
				t.Errorf("%d decisions about %s", len(ds), at)
			}
		}
		nothingLeft(t)
	})
}
