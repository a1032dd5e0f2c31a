package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/skald-io/skald/events"
)

// QuarantinedRecord is a record of the quarantine topic.
type QuarantinedRecord struct {
	Partition int32 // of the quarantine topic
	Offset    int64
	Place     string // topic/partition/offset where it was read
	Reason    string // a stable code, then detail
	Time      int64  // of the record as it was read, ms since 1970
	Message   events.Message
}

// Filter says which records of the quarantine topic are meant; an empty field means every one.
type Filter struct {
	Partition *int32 // of the quarantine topic
	Offsets   []int64
	Reason    string // the code that the reason begins with
	Topic     string // it was read from
	Key       string // the record's
}

func (f *Filter) takes(q *QuarantinedRecord) bool {
	code, _, _ := strings.Cut(q.Reason, ":")
	return (f.Partition == nil || *f.Partition == q.Partition) &&
		(len(f.Offsets) == 0 || slices.Contains(f.Offsets, q.Offset)) &&
		(f.Reason == "" || f.Reason == code || strings.HasPrefix(q.Reason, f.Reason)) &&
		(f.Topic == "" || f.Topic == q.Message.Topic) && (f.Key == "" || f.Key == string(q.Message.Key))
}

// Redriven is what became of one record of a redrive.
type Redriven struct {
	QuarantinedRecord
	Shards []int32 // whose inboxes it was put into
	Err    error   // why it was not: nobody can take it now either
}

// Quarantine calls fn for the records of the quarantine topic that the filter takes, partition by partition in order,
// until it returns false. Records that do not say where they were read are passed over.
func (e *Engine) Quarantine(ctx context.Context, f Filter, fn func(QuarantinedRecord) bool) error {
	return e.readQuarantine(ctx, f, func(q QuarantinedRecord, _ int64) (bool, error) { return fn(q), nil })
}

// Redrive puts the records of the quarantine topic that the filter takes back into the inboxes of the shards that they
// are for, in order, and calls fn for each. They stay in the quarantine topic; a shard takes each of them once, however
// often it is redriven (L7). One that nobody can take now either is passed over, with the error. An error of Redrive
// itself, or of ctx, leaves open what became of the last record; to redrive again is safe.
func (e *Engine) Redrive(ctx context.Context, f Filter, fn func(Redriven)) error {
	if e.shards() == 0 {
		return &ActionError{CodeNotStarted, "the engine does not run yet"}
	}
	return e.readQuarantine(ctx, f, func(q QuarantinedRecord, low int64) (bool, error) {
		r := Redriven{QuarantinedRecord: q}
		if r.Shards, r.Err = e.shardsOf(&q.Message); r.Err == nil {
			for i, shard := range r.Shards {
				again := events.WrapQuarantined(e.cfg.App, &q.Message, q.Reason)
				m := events.WrapForward(&again, events.Origin{Topic: e.topics.Quarantine(), Partition: q.Partition, Offset: q.Offset, Low: low})
				m.Topic, m.Partition = e.topics.Inbox(), shard
				if err := e.produce(ctx, &m); errors.Is(err, ErrTooLarge) {
					r.Err = fmt.Errorf("%s/%d has no room for it: %w", m.Topic, shard, err)
					r.Shards = r.Shards[:i]
					break
				} else if err != nil {
					return false, fmt.Errorf("%s/%d/%d was not put back into %s/%d: %w", e.topics.Quarantine(), q.Partition, q.Offset, m.Topic, shard, err)
				}
			}
		}
		fn(r)
		return true, nil
	})
}

// shardsOf are the shards that a record is for.
func (e *Engine) shardsOf(m *events.Message) ([]int32, error) {
	shards := e.shards()
	if m.Topic == e.topics.Inbox() {
		msg, _, ok, err := events.UnwrapMessage(m)
		if err != nil || !ok {
			return nil, errors.Join(err, errors.New("it was no message"))
		}
		return []int32{msg.To.Shard(shards)}, nil
	}
	routes, err := e.machine.Routes(m)
	if err != nil {
		return nil, err
	}
	var to []int32
	for i := range routes {
		r := &routes[i]
		switch {
		case r.Poison != nil:
			return nil, fmt.Errorf("%s: %w", r.Reason, r.Poison)
		case r.Kind == events.InputNone:
			return nil, errors.New(r.Reason)
		case !slices.Contains(to, r.Instance.Shard(shards)):
			to = append(to, r.Instance.Shard(shards))
		}
	}
	return to, nil
}

// readQuarantine reads the quarantine topic up to its end as it is now. low is the begin of the partition: what is
// below cannot be redriven any more.
func (e *Engine) readQuarantine(ctx context.Context, f Filter, fn func(q QuarantinedRecord, low int64) (more bool, err error)) error {
	e.putting.Lock()
	defer e.putting.Unlock()
	topic := e.topics.Quarantine()
	found, err := e.cfg.Kafka.Topics(ctx, topic)
	if err != nil {
		return err
	}
	var parts []TopicPartition
	for p := range found[topic].Partitions {
		if f.Partition == nil || *f.Partition == int32(p) {
			parts = append(parts, TopicPartition{topic, int32(p)})
		}
	}
	bounds, err := e.cfg.Kafka.Bounds(ctx, parts)
	if err != nil {
		return err
	}
	for _, tp := range parts {
		more, err := e.readPartition(ctx, tp, bounds[tp], func(m *events.Message) (bool, error) {
			original, reason, ok := events.UnwrapQuarantined(m)
			q := QuarantinedRecord{Partition: tp.Partition, Offset: m.Offset, Place: original.Place(), Reason: reason, Time: original.Time, Message: original}
			if !ok || !f.takes(&q) {
				return true, nil
			}
			return fn(q, bounds[tp].Start)
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// readPartition calls fn for the records of a partition within bounds.
func (e *Engine) readPartition(ctx context.Context, tp TopicPartition, b Bounds, fn func(*events.Message) (bool, error)) (more bool, err error) {
	if b.Start >= b.End {
		return true, nil
	}
	r := &reading{wake: make(chan struct{}, 1), next: b.Start}
	e.cfg.Kafka.Consume(tp, b.Start, r)
	defer e.cfg.Kafka.Stop(tp)
	for {
		e.cfg.Kafka.Pause(tp) // what is read and not looked at stays bounded
		batch, next, err := r.take()
		if err != nil {
			return false, fmt.Errorf("%s/%d: %w", tp.Topic, tp.Partition, err)
		}
		for i := range batch {
			if batch[i].Offset >= b.End {
				return true, nil
			}
			if more, err := fn(&batch[i]); err != nil || !more {
				return false, err
			}
		}
		if next >= b.End {
			return true, nil
		}
		e.cfg.Kafka.Resume(tp)
		select {
		case <-r.wake:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// reading is a Sink that is read from.
type reading struct {
	mu    sync.Mutex
	wake  chan struct{}
	batch []events.Message
	next  int64
	err   error
}

func (r *reading) take() (batch []events.Message, next int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch, r.batch = r.batch, nil
	return batch, r.next, r.err
}

func (r *reading) note(change func()) {
	r.mu.Lock()
	change()
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Records implements Sink.
func (r *reading) Records(_ TopicPartition, batch []events.Message) {
	r.note(func() {
		r.batch = append(r.batch, batch...)
		if n := len(batch); n > 0 {
			r.next = max(r.next, batch[n-1].Offset+1)
		}
	})
}

// Reached is described at Shard.Reached.
func (r *reading) Reached(_ TopicPartition, next int64) {
	r.note(func() { r.next = max(r.next, next) })
}

// Failed implements Sink.
func (r *reading) Failed(_ TopicPartition, err error) { r.note(func() { r.err = err }) }
