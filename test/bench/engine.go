package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// engineSample is what the engine process says of itself at one moment; the parent takes differences.
type engineSample struct {
	sample
	Shards    int    `json:"shards"`
	Asleep    int64  `json:"asleep"` // sleepers that are running, with -sleeping
	Decisions uint64 `json:"decisions"`
	Forwards  uint64 `json:"forwards"`
	Mallocs   uint64 `json:"mallocs"`
	AllocB    uint64 `json:"alloc_bytes"`
	GCs       uint32 `json:"gcs"`
	Journal   tally  `json:"journal"`
	Commands  tally  `json:"commands"`
	Replies   tally  `json:"replies"`
	Ends      tally  `json:"ends"` // what is announced on <app>.lifecycle
}

// engineRole runs the engine until it is told to end. "begin" and "end" are the borders of the window.
func engineRole(ctx context.Context, o *options) error {
	orchestrator.LimitMemory(int64(o.memory)<<20, int64(o.cache)<<20)
	w := newWorld(o)
	client, err := kafka.Dial(kafka.Config{Brokers: strings.Split(o.brokers, ","), Linger: o.linger, Logger: logger()})
	if err != nil {
		return err
	}
	defer client.Close()
	m := newMeter(client, o.app, w.commands)
	hooks, untold, err := told(ctx, o)
	if err != nil {
		return err
	}
	defer untold()
	var transactional []string
	if o.transact {
		transactional = w.commands
	}
	var compactAfter int64
	if o.restore {
		compactAfter = 1 << 50 // never: all that was decided is to be read again
	}
	definitions := []orchestrator.Definition{w.saga}
	var asleep sleeping
	if o.sleeping > 0 {
		definitions = append(definitions, w.sleeper)
		hooks = append(hooks, &asleep)
	}
	engine, err := orchestrator.New(orchestrator.Config{App: o.app, Kafka: m, Definitions: definitions,
		Dir: filepath.Join(o.dir, "stores"), From: orchestrator.FromEarliest, Lifecycle: true, Logger: logger(),
		CacheBytes: int64(o.cache) << 20, CompactAfter: compactAfter, Hooks: hooks, Transactional: transactional})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }()
	take := func() engineSample {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		s := engine.Stats()
		return engineSample{sample: processSample(), Shards: s.Shards, Decisions: s.Decisions, Forwards: s.Forwards, Asleep: asleep.n.Load(), Mallocs: mem.Mallocs, AllocB: mem.TotalAlloc, GCs: mem.NumGC,
			Journal: m.journal.read(), Commands: m.commands.read(), Replies: m.replies.read(), Ends: m.ends.read()}
	}
	prof := profiler{dir: o.profile, role: "engine"}
	return serve(ctx, ended, func(word string) (any, error) {
		switch word {
		case "begin":
			if err := prof.begin(); err != nil {
				return nil, err
			}
			return take(), nil
		case "end":
			s := take()
			return s, prof.end()
		case "sample":
			return take(), nil
		case "waiting":
			return take(), prof.heap()
		case "restore":
			return prof.restore(ctx, engine)
		case "shards": // without stopping the world
			s := engine.Stats()
			return engineSample{sample: processSample(), Shards: s.Shards, Decisions: s.Decisions, Asleep: asleep.n.Load()}, nil
		}
		return nil, errors.New("unknown word " + word)
	})
}

// profiler writes the profiles of the window of one role; dir is empty when none are wanted.
type profiler struct {
	dir, role string
	cpu       *os.File
}

func (p *profiler) begin() (err error) {
	if p.dir == "" {
		return nil
	}
	if err := p.allocs("allocs.base"); err != nil {
		return err
	}
	if p.cpu, err = p.create("cpu"); err != nil {
		return err
	}
	return pprof.StartCPUProfile(p.cpu)
}

func (p *profiler) end() error {
	if p.dir == "" {
		return nil
	}
	pprof.StopCPUProfile()
	return errors.Join(p.cpu.Close(), p.allocs("allocs"))
}

// heap writes what is live now.
func (p *profiler) heap() error {
	if p.dir == "" {
		return nil
	}
	f, err := p.create("heap")
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

func (p *profiler) create(kind string) (*os.File, error) {
	return os.Create(filepath.Join(p.dir, p.role+"."+kind+".pprof"))
}

// allocs writes all allocations since the start: `go tool pprof -base` takes the difference.
func (p *profiler) allocs(kind string) error {
	f, err := p.create(kind)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// meter is the Kafka port with counters of what goes through it. They cost a few atomic additions a record.
type meter struct {
	orchestrator.Kafka
	replyTopic string
	endTopic   string
	isCommand  map[string]bool

	journal, commands, replies, ends counter
}

func newMeter(k orchestrator.Kafka, app string, commands []string) *meter {
	m := &meter{Kafka: k, replyTopic: events.Topics{App: app}.Replies(), endTopic: events.Topics{App: app}.Lifecycle(), isCommand: map[string]bool{}}
	for _, t := range commands {
		m.isCommand[t] = true
	}
	return m
}

func (m *meter) Log(topic string, partition int32) orchestrator.Log {
	return &meteredLog{m.Kafka.Log(topic, partition), &m.journal}
}

func (m *meter) Produce(msg *events.Message, done func(error)) {
	if m.isCommand[msg.Topic] {
		m.commands.add(sizeOf(msg), len(msg.Headers))
	} else if msg.Topic == m.endTopic {
		m.ends.add(sizeOf(msg), len(msg.Headers))
	}
	m.Kafka.Produce(msg, done)
}

func (m *meter) Consume(p orchestrator.TopicPartition, from int64, sink orchestrator.Sink) {
	if p.Topic == m.replyTopic {
		sink = &meteredSink{sink, &m.replies}
	}
	m.Kafka.Consume(p, from, sink)
}

// Begin, End and Commit make the meter an orchestrator.Gatherer and an orchestrator.Committer, as what it wraps is.
func (m *meter) Begin() { m.Kafka.(orchestrator.Gatherer).Begin() }
func (m *meter) End()   { m.Kafka.(orchestrator.Gatherer).End() }
func (m *meter) Commit(ctx context.Context, group string, positions map[orchestrator.TopicPartition]int64) error {
	return m.Kafka.(orchestrator.Committer).Commit(ctx, group, positions)
}

// Transactions makes the meter an orchestrator.Transactor, as what it wraps is.
func (m *meter) Transactions(id, group string, journal orchestrator.TopicPartition, topics []string) orchestrator.Emitter {
	return &meteredEmitter{m.Kafka.(orchestrator.Transactor).Transactions(id, group, journal, topics), &m.commands}
}

type meteredEmitter struct {
	orchestrator.Emitter
	c *counter
}

func (e *meteredEmitter) Emit(at orchestrator.Emitted, messages []*events.Message, done func(n int, err error)) {
	for _, msg := range messages {
		e.c.add(sizeOf(msg), len(msg.Headers))
	}
	e.Emitter.Emit(at, messages, done)
}

type meteredLog struct {
	orchestrator.Log
	c *counter
}

func (l *meteredLog) Append(value []byte, done func(int64, error)) {
	l.c.add(len(value), 0)
	l.Log.Append(value, done)
}

type meteredSink struct {
	orchestrator.Sink
	c *counter
}

func (s *meteredSink) Records(p orchestrator.TopicPartition, batch []events.Message) {
	for i := range batch {
		s.c.add(sizeOf(&batch[i]), len(batch[i].Headers))
	}
	s.Sink.Records(p, batch)
}

func sizeOf(m *events.Message) int {
	n := len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

// awaitShards waits until the engine decides for every shard.
func awaitShards(ctx context.Context, c *child, shards int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var s engineSample
		if err := c.ask("shards", &s); err != nil {
			return err
		}
		if s.Shards >= shards {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("the engine did not take its shards in time")
		}
	}
}
