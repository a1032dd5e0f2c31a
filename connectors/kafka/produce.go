package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
)

func producerOpts(cfg Config) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(max(cfg.Linger, 0)),
		kgo.ProducerBatchMaxBytes(int32(min(cfg.MaxMessageBytes, math.MaxInt32))),
		kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)}),
		// Produce must not block, and a partition without a leader must not stop its neighbours when its
		// records fill a common buffer. The bound is the caller's: it has the count of what is not done.
		kgo.MaxBufferedRecords(math.MaxInt),
	}
}

func emitOpts(cfg Config) []kgo.Opt { return cancellable(cfg) }

// cancellable are for producers outside transactions, where franz-go does not allow it.
func cancellable(cfg Config) []kgo.Opt {
	return append(producerOpts(cfg),
		// Without this franz-go would wait for ever for the outcome of what is in flight: of an append past
		// its time, of a message to a topic that was deleted under it. That a record may then be there
		// twice, or after all, is for the chain of hashes, and for the participant, to sort out.
		kgo.AllowIdempotentProduceCancellation(),
	)
}

// Produce sends m, to m.Partition, or, when that is negative, to the partition that the Java client's
// default partitioner picks for the key. It is sent until it is acknowledged or refused: done gets nil, an
// error that wraps orchestrator.ErrRefused, or, when the client is closed first, an error that leaves the
// outcome open. done is called once, from another goroutine, and must not block. Messages to one partition
// arrive in the order of the calls. What is not done is held in memory; the caller bounds it, and changes nothing of
// m before.
func (c *Client) Produce(m *events.Message, done func(error)) {
	c.emits.add(recordOf(m), func(r *kgo.Record, err error) {
		c.emits.answered()
		if err == nil {
			done(nil)
			return
		}
		if e, ok := r.Context.(noPartition); ok {
			err = e.err
		}
		topic, partition := m.Topic, m.Partition
		if errors.Is(err, kerr.UnknownTopicID) {
			// franz-go never takes up a topic that was created anew until it is told to forget the old one.
			go c.emit.PurgeTopicsFromProducing(topic)
		}
		done(refusal(err, topic, partition))
	}, nil)
}

func recordOf(m *events.Message) *kgo.Record {
	r := &kgo.Record{Topic: m.Topic, Partition: m.Partition, Key: m.Key, Value: m.Value}
	if r.Partition < 0 {
		r.Partition = anyPartition
	}
	if m.Time > 0 {
		r.Timestamp = time.UnixMilli(m.Time)
	}
	if len(m.Headers) > 0 {
		r.Headers = unsafe.Slice((*kgo.RecordHeader)(unsafe.Pointer(&m.Headers[0])), len(m.Headers))
	}
	return r
}

// headersOf gives the headers of a record that was read.
func headersOf(r *kgo.Record) []events.Header {
	if len(r.Headers) == 0 {
		return nil
	}
	return unsafe.Slice((*events.Header)(unsafe.Pointer(&r.Headers[0])), len(r.Headers))
}

// A header is the same here and there, field by field, so that a list of them need not be copied: on every command and
// every reply there are about ten. This does not compile when they differ.
var _ = kgo.RecordHeader(events.Header{})

const anyPartition = math.MinInt32

var errNoPartition = errors.New("the topic has no such partition")

// noPartition travels in a record's context, the only thing that a partitioner can leave a note on.
type noPartition struct {
	context.Context
	err error
}

// partitioner takes the partition that a record names, or else chooses as the Java client does.
type partitioner struct{ java kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return topicPartitioner{p.java.ForTopic(topic)}
}

type topicPartitioner struct{ java kgo.TopicPartitioner }

func (p topicPartitioner) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition != anyPartition || p.java.RequiresConsistency(r)
}

func (p topicPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Partition == anyPartition {
		return p.java.Partition(r, n)
	}
	if int(r.Partition) >= n {
		r.Context = noPartition{context.Background(), fmt.Errorf("%w: it has %d", errNoPartition, n)}
	}
	return int(r.Partition)
}
