package kafka_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/skald-io/skald/orchestrator"
)

func TestPositionsOfAnyInputAreCommittedByAMemberOfTheGroup(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		inbox, orders := b.topic(t, 2), b.topic(t, 3)
		c := b.dial(t)
		if err := c.Commit(ctx(t), inbox, map[orchestrator.TopicPartition]int64{{Topic: orders}: 1}); err != nil {
			t.Errorf("before it joined: %v", err)
		}
		var a assignment
		leave, err := c.Join(inbox, inbox, a.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		admin := kadm.NewClient(b.plain(t))
		want := map[orchestrator.TopicPartition]int64{{Topic: orders, Partition: 2}: 7, {Topic: orders, Partition: 0}: 1, {Topic: inbox, Partition: 1}: 3}
		until(t, "the group has the positions", func() bool {
			if err := c.Commit(ctx(t), inbox, want); err != nil {
				t.Fatal(err)
			}
			got, err := admin.FetchOffsets(ctx(t), inbox)
			if err != nil {
				return false
			}
			for p, offset := range want {
				if o, ok := got.Lookup(p.Topic, p.Partition); !ok || o.At != offset {
					return false
				}
			}
			return true
		})
	})
}
