package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

func journalOpts(cfg Config) []kgo.Opt {
	return append(cancellable(cfg),
		kgo.RecordDeliveryTimeout(cfg.AppendTimeout),
		kgo.ProduceRequestTimeout(min(cfg.AppendTimeout, 10*time.Second)),
		kgo.RequestTimeoutOverhead(min(max(cfg.AppendTimeout/2, 100*time.Millisecond), 5*time.Second)),
	)
}

var errLogClosed = errors.New("the log was closed by its owner")

// journal is one partition of the journal as one owner uses it. After one failed append every later one
// fails too, so that nothing is decided behind an unknown outcome: the owner closes it, opens another and
// claims anew.
type journal struct {
	c         *Client
	topic     string
	partition int32
	promise   func(*kgo.Record, error) // acknowledged

	calling sync.Mutex // held while done functions are called: one at a time, in order

	mu       sync.Mutex
	pending  []*appended // sent, not acknowledged, in order
	failing  []*appended // to be told err, in order
	draining bool        // a goroutine is at it
	err      error       // sticky
	failed   atomic.Bool // err is not nil
}

type appended struct {
	record kgo.Record
	done   func(int64, error)
}

// Log opens one partition of the journal. Opening asks nothing of the cluster.
func (c *Client) Log(topic string, partition int32) orchestrator.Log {
	l := &journal{c: c, topic: topic, partition: partition}
	l.promise = l.acknowledged
	return l
}

func (l *journal) Append(value []byte, done func(offset int64, err error)) {
	a := &appended{kgo.Record{Topic: l.topic, Partition: l.partition, Value: value}, done}
	l.mu.Lock()
	defer l.mu.Unlock() // held over add, so that the order here is the order there
	if mutant.On("kafka-append-behind-a-failed-one") {
		l.err = nil
	}
	if l.err != nil {
		l.failing = append(l.failing, a)
		l.drain()
		return
	}
	l.pending = append(l.pending, a)
	l.c.appends.add(&a.record, l.promise, &l.failed)
}

func (l *journal) acknowledged(r *kgo.Record, err error) {
	defer l.c.appends.answered() // not before a failure is known to those that are held
	if e, ok := r.Context.(noPartition); ok {
		err = e.err
	}
	l.calling.Lock()
	defer l.calling.Unlock()
	l.mu.Lock()
	switch {
	case l.err != nil: // told already, or about to be
		l.mu.Unlock()
		return
	case err != nil:
		err = refusal(err, l.topic, l.partition)
	case len(l.pending) == 0 || &l.pending[0].record != r:
		err = fmt.Errorf("%s: acknowledged out of order at offset %d", place(l.topic, l.partition), r.Offset)
	}
	if err != nil {
		l.fail(err)
		l.mu.Unlock()
		return
	}
	done := l.pending[0].done
	l.pending[0] = nil
	l.pending = l.pending[1:]
	l.mu.Unlock()
	done(r.Offset, nil)
}

// fail is called with mu held. What is pending is told at once, without waiting for the broker: its outcome
// is unknown either way.
func (l *journal) fail(err error) {
	if l.err != nil {
		return
	}
	l.err = err
	l.failed.Store(true)
	l.failing, l.pending = l.pending, nil
	if errors.Is(err, kerr.UnknownTopicID) {
		go l.c.journal.PurgeTopicsFromProducing(l.topic)
	}
	l.drain()
}

// drain is called with mu held.
func (l *journal) drain() {
	if l.draining || len(l.failing) == 0 {
		return
	}
	l.draining = true
	go func() {
		l.calling.Lock()
		defer l.calling.Unlock()
		for {
			l.mu.Lock()
			told, err := l.failing, l.err
			l.failing = nil
			if len(told) == 0 {
				l.draining = false
				l.mu.Unlock()
				return
			}
			l.mu.Unlock()
			for _, a := range told {
				a.done(0, err)
			}
		}
	}()
}

func (l *journal) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(fmt.Errorf("%s: %w", place(l.topic, l.partition), errLogClosed))
}

func (l *journal) tp() orchestrator.TopicPartition {
	return orchestrator.TopicPartition{Topic: l.topic, Partition: l.partition}
}

func (l *journal) Bounds(ctx context.Context) (orchestrator.Bounds, error) {
	b, err := l.c.Bounds(ctx, []orchestrator.TopicPartition{l.tp()})
	return b[l.tp()], err
}

// docs/spec: Compact.Delete
func (l *journal) Trim(ctx context.Context, before int64) error {
	if mutant.On("kafka-trim-takes-one-more") {
		before++
	}
	return l.c.DeleteRecords(ctx, l.tp(), before)
}

func (l *journal) TopicID(ctx context.Context) ([16]byte, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	t, err := l.c.metadata(ctx, l.topic)
	if err != nil {
		return [16]byte{}, err
	}
	if mutant.On("kafka-topic-id-unread") {
		return [16]byte{}, nil
	}
	return t.TopicID, nil
}

// metadata asks for one topic, past every cache.
func (c *Client) metadata(ctx context.Context, topic string) (*kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, c.admin)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("topic %s: the broker left it out of its answer", topic)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, missing(topic)
		}
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	return &resp.Topics[0], nil
}

const readBytes = 4 << 20 // of one fetch of the journal, as sent

// Read calls fn for the records from an offset, or from the log's start if that is higher, to the end as it
// is when Read is called. A position above the end, or records that are deleted while they are being read,
// are an error that wraps orchestrator.ErrPositionLost. The values belong to fn.
func (l *journal) Read(ctx context.Context, from int64, fn func(orchestrator.LogRecord) error) (int64, error) {
	b, err := l.Bounds(ctx)
	if err != nil {
		return from, err
	}
	if from > b.End {
		return from, fmt.Errorf("%s: read from %d, but it ends at %d: %w", place(l.topic, l.partition), from, b.End, orchestrator.ErrPositionLost)
	}
	next := max(from, b.Start)
	var at *leader
	for next < b.End {
		if at == nil {
			if at, err = l.leader(ctx); err != nil {
				return next, err
			}
		}
		fp, after, err := l.fetch(ctx, at, next)
		if err == nil {
			err = fp.Err
		}
		if errors.Is(err, kerr.OffsetOutOfRange) {
			return next, fmt.Errorf("%s: read at %d: it now starts at %d: %w", place(l.topic, l.partition), next, fp.LogStartOffset, orchestrator.ErrPositionLost)
		}
		if err != nil && !passes(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return next, fmt.Errorf("%s: read at %d: %w", place(l.topic, l.partition), next, err)
		}
		if err != nil {
			at = nil // the leader moved, or is not one yet
		}
		for _, r := range fp.Records {
			if r.Offset >= b.End {
				return b.End, nil
			}
			if err := fn(orchestrator.LogRecord{Offset: r.Offset, Time: r.Timestamp.UnixMilli(), Value: r.Value}); err != nil {
				return r.Offset, err
			}
			next = r.Offset + 1
		}
		// Past the last record may lie offsets without one: control batches.
		progress := after > next || len(fp.Records) > 0
		next = max(next, after)
		if !progress && !pause(ctx, 20*time.Millisecond) {
			return next, fmt.Errorf("%s: read at %d: %w", place(l.topic, l.partition), next, ctx.Err())
		}
	}
	return min(next, max(b.End, from)), nil
}

type leader struct {
	broker *kgo.Broker
	id     [16]byte
}

// leader waits for the partition to have one.
func (l *journal) leader(ctx context.Context) (*leader, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		t, err := l.c.metadata(ctx, l.topic)
		if err != nil {
			return nil, err
		}
		found := false
		for _, p := range t.Partitions {
			if p.Partition != l.partition {
				continue
			}
			found = true
			if p.Leader >= 0 {
				return &leader{l.c.admin.Broker(int(p.Leader)), t.TopicID}, nil
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: %w", place(l.topic, l.partition), errNoPartition)
		}
		if !pause(ctx, 50*time.Millisecond) {
			return nil, fmt.Errorf("%s has no leader: %w", place(l.topic, l.partition), ctx.Err())
		}
	}
}

func (l *journal) fetch(ctx context.Context, at *leader, from int64) (kgo.FetchPartition, int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 500, 1, readBytes
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = l.topic, at.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = l.partition, from, readBytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	kresp, err := at.broker.RetriableRequest(ctx, req)
	if err != nil {
		return kgo.FetchPartition{}, from, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return kgo.FetchPartition{}, from, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != l.partition {
		return kgo.FetchPartition{}, from, errors.New("the broker left the partition out of its answer")
	}
	opts := kgo.ProcessFetchPartitionOpts{Offset: from, Topic: l.topic, Partition: l.partition}
	fp, next := kgo.ProcessFetchPartition(opts, &resp.Topics[0].Partitions[0], newDecompressor(l.c.cfg.MaxBatchBytes, nil), nil)
	return fp, next, nil
}
