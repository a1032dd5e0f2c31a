package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// The floor is the least that any engine must do on Kafka that logs before it acts: for an order and for each
// reply one record in the journal, its acknowledgement awaited, one command then, and one batch a poll in a
// store. It knows nothing of sagas. It runs between the same load and the same topics as the engine, in
// processes of its own as the engine does, with a participant as bare as itself; what it reaches is the most
// that this machine gives, and an engine is judged by the fraction of it that it keeps.

// sizes are those of the records the floor sends.
type sizes struct {
	journal               int   // value of a journal record, which has neither key nor headers
	command, reply, final shape // final: of what tells the load that a saga is final
}

// shape is the size of a message: bytes of key, value and headers together, and how many headers those are.
type shape struct{ bytes, headers int }

const (
	floorHeaderName  = 14 // bytes of a header's name; the engine's have 7 to 21
	floorHeaderValue = 24 // and of its value at most
	floorKey         = 64 // left for key and value whatever the headers take
	maxFloorBytes    = 1 << 20
)

func (s *sizes) check() error {
	if s.journal < 1 || s.journal > maxFloorBytes {
		return fmt.Errorf("-floor-journal-bytes %d: 1 to %d", s.journal, maxFloorBytes)
	}
	for _, m := range []struct {
		name string
		shape
	}{{"command", s.command}, {"reply", s.reply}, {"final", s.final}} {
		// One header at least: it tells the step, or that the saga is completed.
		if m.headers < 1 || m.headers > 100 {
			return fmt.Errorf("-floor-%s-headers %d: 1 to 100", m.name, m.headers)
		}
		if least := floorKey + m.headers*(floorHeaderName+1); m.bytes < least || m.bytes > maxFloorBytes {
			return fmt.Errorf("-floor-%s-bytes %d: %d to %d with %d headers", m.name, m.bytes, least, maxFloorBytes, m.headers)
		}
	}
	return nil
}

func (s *sizes) args() []string {
	return []string{"-floor-journal-bytes", fmt.Sprint(s.journal),
		"-floor-command-bytes", fmt.Sprint(s.command.bytes), "-floor-command-headers", fmt.Sprint(s.command.headers),
		"-floor-reply-bytes", fmt.Sprint(s.reply.bytes), "-floor-reply-headers", fmt.Sprint(s.reply.headers),
		"-floor-final-bytes", fmt.Sprint(s.final.bytes), "-floor-final-headers", fmt.Sprint(s.final.headers)}
}

// stepHeader carries the number of the next step, as one byte.
const stepHeader = "ce_floorstep01"

// message is the shape's message with a first header that means something.
type message struct {
	headers []kgo.RecordHeader
	rest    int // bytes of key and value
}

// first makes the message. What it holds is shared by all records, which only read it.
func (s shape) first(name string, value []byte) message {
	m := message{headers: []kgo.RecordHeader{{Key: name, Value: value}}, rest: s.bytes - len(name) - len(value)}
	if s.headers > 1 {
		each := min(floorHeaderValue, (m.rest-floorKey)/(s.headers-1)-floorHeaderName)
		for i := 1; i < s.headers; i++ {
			h := kgo.RecordHeader{Key: fmt.Sprintf("ce_floor-%05d", i), Value: filler()[i*floorHeaderValue:][:max(each, 0)]}
			m.headers = append(m.headers, h)
			m.rest -= len(h.Key) + len(h.Value)
		}
	}
	return m
}

// steps makes the messages that carry each step from 0 to n.
func (s shape) steps(n int) []message {
	var all []message
	for i := range n + 1 {
		all = append(all, s.first(stepHeader, []byte{byte(i)}))
	}
	return all
}

func (m *message) record(topic string, partition int32, key []byte) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Key: key, Value: fill(max(m.rest-len(key), 0)), Headers: m.headers}
}

const fillerTurns = 1 << 16

// filler is text that compresses as the engine's records do, not as a run of one letter would: orders, each
// with a reference of its own.
var filler = sync.OnceValue(func() []byte {
	event := newWorld(&options{app: "filler", steps: 1, topics: 1}).event
	var b []byte
	for i := uint64(1); len(b) < fillerTurns+maxFloorBytes; i++ {
		text, err := event.Encode(newOrder(fmt.Sprintf("%x", i*0x9e3779b97f4a7c15)))
		if err != nil {
			panic(err) // the bench's own type
		}
		b = append(b, text...)
	}
	return b
})

var filled atomic.Uint64

// fill gives n bytes of filler, each time from another place of it.
func fill(n int) []byte { return filler()[filled.Add(1)*997%fillerTurns:][:n] }

// floorClient consumes all partitions of the topics from their start, and produces to the partition it is told.
func floorClient(o *options, topics ...string) (*kgo.Client, error) {
	parts := map[string]map[int32]kgo.Offset{}
	for _, t := range topics {
		parts[t] = map[int32]kgo.Offset{}
		for p := range int32(o.shards) {
			parts[t][p] = kgo.NewOffset().AtStart()
		}
	}
	return kgo.NewClient(kgo.SeedBrokers(strings.Split(o.brokers, ",")...), kgo.ConsumePartitions(parts), kgo.ProducerLinger(o.linger),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.FetchMaxWait(100*time.Millisecond), kgo.MaxBufferedRecords(1<<21))
}

// floorLoop polls until ctx ends or something fails; each is called for a record, done after those of a poll. The
// function it hands them says that a record was not sent.
func floorLoop(ctx context.Context, cl *kgo.Client, each func(r *kgo.Record, sent func(error)) error, done func() error) error {
	failed := make(chan error, 1)
	sent := func(err error) {
		if err != nil && ctx.Err() == nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	for {
		fetches := cl.PollFetches(ctx)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		default:
		}
		var err error
		fetches.EachError(func(topic string, p int32, e error) {
			if !kerr.IsRetriable(e) {
				err = fmt.Errorf("reading partition %d of %s: %w", p, topic, e)
			}
		})
		for it := fetches.RecordIter(); err == nil && !it.Done(); {
			err = each(it.Next(), sent)
		}
		if err == nil {
			err = done()
		}
		if err != nil {
			return err
		}
	}
}

// stepOf reads the step of a record that the floor sent.
func stepOf(r *kgo.Record, steps int) (int, error) {
	if len(r.Headers) == 0 || r.Headers[0].Key != stepHeader || len(r.Headers[0].Value) != 1 || int(r.Headers[0].Value[0]) > steps {
		return 0, fmt.Errorf("offset %d in partition %d of %s is not the floor's", r.Offset, r.Partition, r.Topic)
	}
	return int(r.Headers[0].Value[0]), nil
}

func recordSize(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// producer is the part of the client that the floor's engine sends with.
type producer interface {
	Produce(context.Context, *kgo.Record, func(*kgo.Record, error))
	TryProduce(context.Context, *kgo.Record, func(*kgo.Record, error))
}

// floorEngine is the engine's place in the floor.
type floorEngine struct {
	o        *options
	w        *world
	client   producer
	store    *pebble.DB
	batch    *pebble.Batch
	topics   events.Topics
	commands []message // of each step
	final    message

	accepted                     atomic.Uint64 // journal records
	journal, sent, replies, ends counter
}

func floorEngineRole(ctx context.Context, o *options) error {
	orchestrator.LimitMemory(int64(o.memory)<<20, int64(o.cache)<<20) // as the engine does
	f := &floorEngine{o: o, w: newWorld(o), topics: events.Topics{App: o.app},
		commands: o.sizes.command.steps(o.steps), final: o.sizes.final.first(events.HeaderType, []byte("saga.completed"))}
	var err error
	if f.store, err = pebble.Open(filepath.Join(o.dir, "floor"), &pebble.Options{Logger: silent{}}); err != nil {
		return err
	}
	defer f.store.Close()
	cl, err := floorClient(o, f.w.orders, f.topics.Replies())
	if err != nil {
		return err
	}
	defer cl.Close()
	f.client = cl
	ctx, cancel := context.WithCancel(ctx)
	ended, over := make(chan error, 1), make(chan struct{})
	f.batch = f.store.NewBatch()
	go func() {
		defer close(over)
		ended <- floorLoop(ctx, cl, f.take, f.apply)
	}()
	defer func() { cancel(); <-over; f.batch.Close() }()
	return serve(ctx, ended, func(word string) (any, error) {
		switch word {
		case "begin", "end", "sample":
			return f.sample(), nil
		case "shards": // from the first record on, it takes whatever comes
			return engineSample{sample: processSample(), Shards: o.shards}, nil
		}
		return nil, errors.New("unknown word " + word)
	})
}

// take puts one order or reply into the journal, and sends what follows once that is acknowledged.
func (f *floorEngine) take(r *kgo.Record, sent func(error)) (err error) {
	step := 0
	if r.Topic != f.w.orders {
		f.replies.add(recordSize(r), len(r.Headers))
		if step, err = stepOf(r, f.o.steps); err != nil {
			return err
		}
	}
	entry := &kgo.Record{Topic: f.topics.Journal(), Partition: r.Partition, Value: fill(f.o.sizes.journal)}
	f.journal.add(len(entry.Value), 0)
	f.client.Produce(context.Background(), entry, func(_ *kgo.Record, err error) {
		if err != nil {
			sent(err)
			return
		}
		f.accepted.Add(1)
		next, c := f.final.record(f.topics.Lifecycle(), r.Partition, r.Key), &f.ends
		if step < f.o.steps {
			next, c = f.commands[step].record(f.w.commands[step%len(f.w.commands)], r.Partition, r.Key), &f.sent
		}
		c.add(recordSize(next), len(next.Headers))
		// The client calls this while it holds up its other acknowledgements: it may not wait for room.
		f.client.TryProduce(context.Background(), next, func(_ *kgo.Record, err error) { sent(err) })
	})
	return f.batch.Set(r.Key, r.Value, nil)
}

// apply writes what one poll brought.
func (f *floorEngine) apply() error {
	if f.batch.Empty() {
		return nil
	}
	err := errors.Join(f.batch.Commit(pebble.NoSync), f.batch.Close())
	f.batch = f.store.NewBatch()
	return err
}

func (f *floorEngine) sample() engineSample {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return engineSample{sample: processSample(), Shards: f.o.shards, Decisions: f.accepted.Load(), Mallocs: mem.Mallocs, AllocB: mem.TotalAlloc, GCs: mem.NumGC,
		Journal: f.journal.read(), Commands: f.sent.read(), Replies: f.replies.read(), Ends: f.ends.read()}
}

// floorParticipantsRole answers each command with the next step's reply.
func floorParticipantsRole(ctx context.Context, o *options) error {
	cl, err := floorClient(o, newWorld(o).commands...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies, topic := o.sizes.reply.steps(o.steps), events.Topics{App: o.app}.Replies()
	ended := make(chan error, 1)
	go func() {
		ended <- floorLoop(ctx, cl, func(r *kgo.Record, sent func(error)) error {
			step, err := stepOf(r, o.steps-1)
			if err != nil {
				return err
			}
			cl.Produce(context.Background(), replies[step+1].record(topic, r.Partition, r.Key), func(_ *kgo.Record, err error) { sent(err) })
			return nil
		}, func() error { return nil })
	}()
	return serve(ctx, ended, func(string) (any, error) { return processSample(), nil })
}

// silent drops what Pebble tells of its own life.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func (o *options) floorFlags(f *flag.FlagSet) {
	f.BoolVar(&o.floor, "floor", false, "instead of the engine: the least that any must do, without any logic, with records of the sizes below")
	f.IntVar(&o.pairs, "pairs", 0, "so many times the engine and then the floor with the sizes of the engine's records, on one broker `N`")
	f.StringVar(&o.floorLinger, "floor-linger", "", "with -pairs: one floor a pair for each of these, with commas between; default: as -linger `DURATIONS`")
	// The engine's as of docs/performance.md.
	f.IntVar(&o.sizes.journal, "floor-journal-bytes", 1372, "value of the floor's journal records `N`")
	f.IntVar(&o.sizes.command.bytes, "floor-command-bytes", 876, "the floor's commands: key, value and headers `N`")
	f.IntVar(&o.sizes.command.headers, "floor-command-headers", 13, "how many headers of a command `N`")
	f.IntVar(&o.sizes.reply.bytes, "floor-reply-bytes", 392, "the floor's replies `N`")
	f.IntVar(&o.sizes.reply.headers, "floor-reply-headers", 9, "how many headers of a reply `N`")
	f.IntVar(&o.sizes.final.bytes, "floor-final-bytes", 412, "what the floor announces at the end of a saga `N`")
	f.IntVar(&o.sizes.final.headers, "floor-final-headers", 7, "how many headers of that `N`")
}

func (o *options) checkFloor() error {
	lingers, err := o.floorLingers()
	switch {
	case err != nil:
		return err
	case o.pairs < 0 || o.pairs > 1000:
		return fmt.Errorf("-pairs %d: 0 to 1000", o.pairs)
	case o.floor && o.pairs > 0:
		return errors.New("-floor and -pairs: one of them; -pairs runs both engine and floor")
	case o.floorLinger != "" && o.pairs == 0:
		return errors.New("-floor-linger: only with -pairs; -floor takes -linger")
	case (o.floor || o.pairs > 0) && (o.starts > 0 || o.restore || o.sleeping > 0):
		return errors.New("-starts, -restore and -sleeping: none of them with -floor or -pairs")
	case (o.floor || o.pairs > 0) && o.profile != "":
		return errors.New("-profile: neither with -floor nor with -pairs")
	case len(lingers) > 10:
		return errors.New("-floor-linger: at most 10")
	case o.floor || o.pairs > 0:
		return o.sizes.check()
	}
	return nil
}

// floorLingers are those of a pair's floors.
func (o *options) floorLingers() ([]time.Duration, error) {
	if o.floorLinger == "" {
		return []time.Duration{o.linger}, nil
	}
	var all []time.Duration
	for _, s := range strings.Split(o.floorLinger, ",") {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > time.Second {
			return nil, fmt.Errorf("-floor-linger %q: durations of 0 to 1s with commas between, as 0s,1ms", o.floorLinger)
		}
		all = append(all, d)
	}
	return all, nil
}
