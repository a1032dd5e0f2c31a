package kafka_test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
)

func TestAnEvictedMemberIsReplacedAtOnceAndComesBackIfItLives(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 4)
		// Nobody's session ends in this test.
		patient := func(c *kafka.Config) {
			c.Session = time.Minute
			c.Opts = append(c.Opts, kgo.HeartbeatInterval(100*time.Millisecond))
		}
		var one, two assignment
		c1, c2 := b.dial(t, patient), b.dial(t, patient)
		leave1, err := c1.Join(topic, topic, one.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave1()
		leave2, err := c2.Join(topic, topic, two.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave2()
		share := func() bool { h1, _ := one.has(); h2, _ := two.has(); return len(h1) == 2 && len(h2) == 2 }
		until(t, "they share", share)
		dead := c1.MemberID(topic)
		ids := []string{dead, c2.MemberID(topic)}
		slices.Sort(ids)
		if got, err := c2.Members(ctx(t), topic); err != nil || !slices.Equal(got, ids) {
			t.Fatalf("members %v, %v; want %v", got, err, ids)
		}
		began := time.Now()
		if err := c2.Evict(ctx(t), topic, dead); err != nil {
			t.Fatal(err)
		}
		c2.Rejoin(topic)
		until(t, "the first has lost what it had", func() bool { return c1.MemberID(topic) != dead })
		until(t, "they share again", share)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v, as long as a session", took)
		}
		if err := c2.Evict(ctx(t), topic, dead); err != nil {
			t.Errorf("who is evicted already: %v", err)
		}
		if err := c2.Evict(ctx(t), topic, ""); err == nil {
			t.Error("a member without a name is nobody")
		}
		if got, err := c2.Members(ctx(t), topic+"-none"); err != nil || len(got) != 0 {
			t.Errorf("the members of no group: %v, %v", got, err)
		}
	})
}

func TestPartitionsMoveToMembersThatSuit(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 4)
		var one, two assignment
		quick := func(c *kafka.Config) { c.Opts = append(c.Opts, kgo.HeartbeatInterval(100*time.Millisecond)) }
		c1, c2 := b.dial(t, quick), b.dial(t, quick)
		// Whoever leads: partition 0 and 1 are for the second alone.
		suits := func(member string, p int32) bool { return p > 1 || member == c2.MemberID(topic) }
		m1, m2 := one.member(), two.member()
		m1.Suits, m2.Suits = suits, suits
		leave1, err := c1.Join(topic, topic, m1)
		if err != nil {
			t.Fatal(err)
		}
		defer leave1()
		until(t, "the first has all: nobody suits better", func() bool { held, _ := one.has(); return len(held) == 4 })
		leave2, err := c2.Join(topic, topic, m2)
		if err != nil {
			t.Fatal(err)
		}
		defer leave2()
		until(t, "the second has what is for it alone", func() bool {
			c1.Rejoin(topic) // who leads, and did not know of it when it balanced, balances again
			c2.Rejoin(topic)
			h1, _ := one.has()
			h2, _ := two.has()
			return len(h1)+len(h2) == 4 && slices.Contains(h2, 0) && slices.Contains(h2, 1)
		})
	})
}
