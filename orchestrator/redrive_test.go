package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/skald-io/skald/events"
)

// shelf is a Kafka whose quarantine topic has one partition, and whose inboxes take small records only.
type shelf struct {
	Kafka
	records []events.Message
	put     []int64 // offsets in quarantine of what the inboxes took
}

func (k *shelf) Topics(_ context.Context, names ...string) (map[string]Topic, error) {
	return map[string]Topic{names[0]: {Name: names[0], Partitions: 1}}, nil
}

func (k *shelf) Bounds(_ context.Context, tps []TopicPartition) (map[TopicPartition]Bounds, error) {
	return map[TopicPartition]Bounds{tps[0]: {End: int64(len(k.records))}}, nil
}

func (k *shelf) Consume(tp TopicPartition, _ int64, sink Sink) { sink.Records(tp, k.records) }
func (k *shelf) Stop(TopicPartition)                           {}
func (k *shelf) Pause(TopicPartition)                          {}
func (k *shelf) Resume(TopicPartition)                         {}

func (k *shelf) Produce(m *events.Message, done func(error)) {
	if sizeOf(m) > 64<<10 {
		done(fmt.Errorf("%w: inbox", ErrTooLarge))
		return
	}
	_, origin, err := events.UnwrapForward(m)
	if err == nil {
		k.put = append(k.put, origin.Offset)
	}
	done(err)
}

// G11: what has no room in the inbox now either is left, with the reason, and what stands behind it is put back.
func TestARedriveGoesOnBehindWhatFitsNoInbox(t *testing.T) {
	e := &Engine{cfg: Config{App: "shop"}, topics: events.Topics{App: "shop"}}
	e.layout.shards = 1
	k := &shelf{}
	e.cfg.Kafka = k
	for n, size := range []int{10, 100 << 10, 10} {
		to := events.KeyID("shop", "order", "a", events.SlotsPerShard)
		msg := events.InboxMessage{Kind: events.InboxAction, To: to, Action: &events.Action{ID: fmt.Sprint(n), Kind: events.ActionSignal, Definition: "order", Key: "a", Name: "approve", Payload: make([]byte, size)}}
		m := events.WrapMessage(msg.Encode(nil), to, nil)
		m.Topic, m.Offset = "shop.inbox", int64(n)
		q := events.WrapQuarantined("shop", &m, "queue-full")
		q.Partition, q.Offset = 0, int64(n)
		k.records = append(k.records, q)
	}
	var left []int64
	err := e.Redrive(t.Context(), Filter{}, func(r Redriven) {
		if r.Err != nil {
			left = append(left, r.Offset)
		}
		if (r.Err != nil) == (len(r.Shards) == 1) {
			t.Errorf("%d was put into %v: %v", r.Offset, r.Shards, r.Err)
		}
	})
	if err != nil || !slices.Equal(k.put, []int64{0, 2}) || !slices.Equal(left, []int64{1}) {
		t.Errorf("%v are put back and %v left (%v), want 0 and 2, and 1", k.put, left, err)
	}
}
