package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// inputs delivers partitions to sinks. One goroutine polls, delivers and tells franz-go what to fetch, one
// after the other: so no batch in hand can be of an earlier Consume than the one it is delivered to.
type inputs struct {
	cl     *kgo.Client
	log    *slog.Logger
	budget *budget

	mu    sync.Mutex
	subs  map[orchestrator.TopicPartition]*sub // as the callers want it
	todo  []change                             // what the poller has to do for that, in order
	wake  context.CancelFunc                   // ends the poll under way
	ended chan struct{}

	// The poller's own.
	active map[orchestrator.TopicPartition]*sub
	warned map[string]time.Time
}

// sub is one Consume.
type sub struct {
	p    orchestrator.TopicPartition
	sink orchestrator.Sink

	paused atomic.Bool // without mu, so that a sink, or who holds a lock that a sink takes, may pause

	mu      sync.Mutex // held while the sink is called
	next    int64      // records below it were delivered
	stopped bool
	held    []events.Message // were in hand when it was paused
	told    int64            // the sink knows that it has all below
}

type change struct {
	what int
	s    *sub
}

const (
	begin = iota
	end
	flow // pause or resume, as the sub says by then
)

const fetchWait = 100 * time.Millisecond

// inputBudget is what may be decompressed and not yet delivered, in bytes, of all inputs together; the batch
// that exceeds it counts as within. Four of the largest batches are enough where those are small.
const inputBudget = 16 << 20

func newInputs(c *Client) (*inputs, error) {
	in := &inputs{
		log:    c.cfg.Logger,
		budget: newBudget(min(inputBudget, 4*int64(c.cfg.MaxBatchBytes))),
		subs:   make(map[orchestrator.TopicPartition]*sub),
		active: make(map[orchestrator.TopicPartition]*sub),
		warned: make(map[string]time.Time),
		wake:   func() {},
		ended:  make(chan struct{}),
	}
	var err error
	in.cl, err = c.client("inputs",
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.FetchMinBytes(1),
		kgo.KeepControlRecords(), // for their offsets
		// A partition that is added or resumed waits for the fetch under way to end.
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(int32(c.cfg.MaxFetchBytes)),
		kgo.FetchMaxPartitionBytes(int32(min(c.cfg.MaxFetchBytes, 256<<10))),
		kgo.BrokerMaxReadBytes(int32(max(2*c.cfg.MaxFetchBytes, 100<<20))),
		kgo.MaxConcurrentFetches(8),
		kgo.WithDecompressor(newDecompressor(c.cfg.MaxBatchBytes, in.budget)),
	)
	if err != nil {
		return nil, err
	}
	go in.run()
	return in, nil
}

// Consume begins to deliver the partition's records from an offset to sink; a Consume of the same partition
// before ends. An offset outside the log, a truncation below what was delivered, or a topic created anew is
// reported to the sink as orchestrator.ErrPositionLost. Everything else is tried again for ever.
//
// Offsets without a record, as the end of a transaction leaves them, are passed in silence; a sink with the
// method Reached is told (see Reacher).
//
// A batch that would decompress to more than Config.MaxBatchBytes is skipped: in its place stands one
// message at its first offset, without key and value, whose header events.HeaderReason says so.
func (c *Client) Consume(p orchestrator.TopicPartition, from int64, sink orchestrator.Sink) {
	c.inputs.stop(p)
	c.inputs.begin(&sub{p: p, sink: sink, next: from, told: from})
}

// Reacher is a Sink that wants to know how far it is where the last offsets hold no record: without it, who
// waits for the end of a partition that is written in transactions would wait for ever. next is the offset
// that the next record has or exceeds. Calls come between those of Records, under the same rules.
type Reacher interface {
	Reached(p orchestrator.TopicPartition, next int64)
}

// Stop ends the delivery; none is under way when it returns. So it must not be called by the sink itself, nor
// with a lock held that the sink takes.
func (c *Client) Stop(p orchestrator.TopicPartition) { c.inputs.stop(p) }

// Pause holds the delivery back: none begins after it returned. What is in hand is kept, and no more is
// fetched.
func (c *Client) Pause(p orchestrator.TopicPartition) { c.inputs.flow(p, true) }

// Resume lets the delivery go on.
func (c *Client) Resume(p orchestrator.TopicPartition) { c.inputs.flow(p, false) }

func (in *inputs) begin(s *sub) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.subs[s.p] = s
	in.change(begin, s)
}

func (in *inputs) stop(p orchestrator.TopicPartition) {
	in.mu.Lock()
	s := in.subs[p]
	if s != nil {
		delete(in.subs, p)
		in.change(end, s)
	}
	in.mu.Unlock()
	if s != nil {
		s.mu.Lock() // waits for the sink
		s.stopped, s.held = true, nil
		s.mu.Unlock()
	}
}

func (in *inputs) flow(p orchestrator.TopicPartition, paused bool) {
	in.mu.Lock()
	s := in.subs[p]
	in.mu.Unlock()
	if s == nil {
		return
	}
	if s.paused.Swap(paused) != paused {
		in.mu.Lock()
		in.change(flow, s)
		in.mu.Unlock()
	}
}

// change is called with mu held.
func (in *inputs) change(what int, s *sub) {
	in.todo = append(in.todo, change{what, s})
	in.wake()
}

func (in *inputs) close() {
	in.cl.Close()
	<-in.ended
}

func (in *inputs) run() {
	defer close(in.ended)
	for {
		in.mu.Lock()
		todo := in.todo
		in.todo = nil
		ctx, cancel := context.WithCancel(context.Background())
		in.wake = cancel
		in.mu.Unlock()
		if len(todo) > 0 {
			cancel()
			in.apply(todo)
			continue
		}
		fetches := in.cl.PollFetches(ctx)
		cancel()
		// All that was decompressed is in fetches now, or thrown away.
		in.budget.fill()
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachPartition(in.deliver)
	}
}

// apply does the changes in order, several in one call to franz-go where no partition is named twice: each
// such call interrupts all fetches.
func (in *inputs) apply(todo []change) {
	add := make(map[string]map[int32]kgo.Offset)
	remove := make(map[string][]int32)
	touched := make(map[orchestrator.TopicPartition]bool)
	flush := func() {
		if len(remove) > 0 {
			in.cl.RemoveConsumePartitions(remove)
		}
		if len(add) > 0 {
			in.cl.AddConsumePartitions(add)
		}
		add, remove = make(map[string]map[int32]kgo.Offset), make(map[string][]int32)
		clear(touched)
	}
	for _, c := range todo {
		p := c.s.p
		one := map[string][]int32{p.Topic: {p.Partition}}
		if c.what == flow {
			if in.active[p] != c.s {
				continue
			}
			c.s.mu.Lock()
			c.s.give(nil)
			if c.s.paused.Load() {
				in.cl.PauseFetchPartitions(one)
			} else {
				in.cl.ResumeFetchPartitions(one)
			}
			c.s.mu.Unlock()
			continue
		}
		if touched[p] && (c.what == end || in.active[p] != nil) {
			flush()
		}
		touched[p] = true
		switch c.what {
		case end:
			if in.active[p] == c.s {
				delete(in.active, p)
				remove[p.Topic] = append(remove[p.Topic], p.Partition)
			}
		case begin:
			if add[p.Topic] == nil {
				add[p.Topic] = make(map[int32]kgo.Offset)
			}
			add[p.Topic][p.Partition] = kgo.NewOffset().At(c.s.next)
			in.active[p] = c.s
			in.cl.ResumeFetchPartitions(one) // the pause of an earlier Consume is none of this one's
		}
	}
	flush()
}

// deliver hands one partition's part of a poll to its sink.
func (in *inputs) deliver(ftp kgo.FetchTopicPartition) {
	p := orchestrator.TopicPartition{Topic: ftp.Topic, Partition: ftp.Partition}
	s := in.active[p]
	if s == nil {
		if err := ftp.Err; err != nil && !errors.Is(err, context.Canceled) {
			in.warn(p, err)
		}
		return
	}
	// franz-go may look up where a partition begins before it first fetches from it, and then goes on there
	// in silence.
	if ftp.LogStartOffset > s.next && !mutant.On("kafka-lost-position-goes-on-at-the-start") {
		in.failed(s, positionLost(p, s.next, ftp))
		return
	}
	if len(ftp.Records) > 0 {
		s.take(ftp.Records)
	}
	err := ftp.Err
	var tooLarge *kgo.ErrDecompressTooLarge
	var lost *kgo.ErrDataLoss
	switch {
	case err == nil, errors.Is(err, errOverBudget):
	case errors.As(err, &tooLarge):
		in.skip(s, tooLarge)
	case errors.Is(err, kerr.OffsetOutOfRange) && mutant.On("kafka-lost-position-goes-on-at-the-start"):
		in.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.Topic: {p.Partition: {Epoch: -1, Offset: ftp.LogStartOffset}}})
	case errors.Is(err, kerr.OffsetOutOfRange):
		in.failed(s, positionLost(p, s.next, ftp))
	case errors.As(err, &lost):
		in.failed(s, fmt.Errorf("%s/%d: %w: at %d, but the brokers lost what lay above %d", p.Topic, p.Partition, orchestrator.ErrPositionLost,
			lost.ConsumedTo, lost.ResetTo))
	case errors.Is(err, kerr.UnknownTopicID):
		in.recreated(p.Topic)
	default:
		in.warn(p, err)
	}
}

func positionLost(p orchestrator.TopicPartition, at int64, ftp kgo.FetchTopicPartition) error {
	return fmt.Errorf("%s/%d: %w: at %d, but it holds %d to %d", p.Topic, p.Partition, orchestrator.ErrPositionLost, at, ftp.LogStartOffset, ftp.HighWatermark)
}

// recreated fails every partition of a topic that was deleted and created anew: a position in the old one
// says nothing about the new one, even where it has such an offset.
func (in *inputs) recreated(topic string) {
	for p, s := range in.active {
		if p.Topic == topic {
			in.failed(s, fmt.Errorf("%s/%d: %w: at %d, of a topic that was deleted and created anew", p.Topic, p.Partition, orchestrator.ErrPositionLost, s.next))
		}
	}
	in.cl.PurgeTopicsFromConsuming(topic) // or franz-go would stay with the old one
}

func (s *sub) take(records []*kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := make([]events.Message, 0, len(records))
	for _, r := range records {
		if r.Offset < s.next {
			continue
		}
		s.next = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		m := events.Message{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Headers: headersOf(r), Time: r.Timestamp.UnixMilli()}
		batch = append(batch, m)
	}
	s.give(batch)
}

// give hands over what is held and batch, unless the sub is paused. It is called with mu held.
func (s *sub) give(batch []events.Message) {
	if len(s.held) == 0 {
		s.held = batch
	} else {
		s.held = append(s.held, batch...)
	}
	if s.stopped || s.paused.Load() {
		return
	}
	if batch = s.held; len(batch) > 0 {
		s.held = nil
		s.told = batch[len(batch)-1].Offset + 1
		s.sink.Records(s.p, batch)
	}
	if r, ok := s.sink.(Reacher); ok && s.next > s.told {
		s.told = s.next
		r.Reached(s.p, s.next)
	}
}

// skip passes a batch that must not be decompressed, and leaves a message in its place.
func (in *inputs) skip(s *sub, e *kgo.ErrDecompressTooLarge) {
	in.log.Error("a batch was skipped: it decompresses to more than is allowed",
		"topic", e.Topic, "partition", e.Partition, "offset", e.Offset, "next", e.NextOffset)
	s.mu.Lock()
	if e.NextOffset > s.next {
		at := max(e.Offset, s.next)
		s.next = e.NextOffset
		s.give([]events.Message{{Topic: e.Topic, Partition: e.Partition, Offset: at, Time: time.Now().UnixMilli(),
			Headers: []events.Header{{Key: events.HeaderReason, Value: fmt.Appendf(nil,
				"%s: the batch at offsets %d to %d decompresses to more than is allowed", events.PoisonOversize, at, e.NextOffset-1)}}}})
	}
	s.mu.Unlock()
	in.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{e.Topic: {e.Partition: {Epoch: -1, Offset: e.NextOffset}}})
}

func (in *inputs) failed(s *sub, err error) {
	in.mu.Lock()
	if in.subs[s.p] == s {
		delete(in.subs, s.p)
	}
	in.mu.Unlock()
	delete(in.active, s.p)
	in.cl.RemoveConsumePartitions(map[string][]int32{s.p.Topic: {s.p.Partition}})
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		// What is held lies below what was lost; it is dropped like all that was not delivered.
		s.stopped, s.held = true, nil
		s.sink.Failed(s.p, err)
	}
}

// warn logs what passes, at most once a minute for each partition.
func (in *inputs) warn(p orchestrator.TopicPartition, err error) {
	key := place(p.Topic, p.Partition)
	if now := time.Now(); now.Sub(in.warned[key]) > time.Minute {
		in.warned[key] = now
		in.log.Warn("no records from an input; trying on", "topic", p.Topic, "partition", p.Partition, "err", err)
	}
}
