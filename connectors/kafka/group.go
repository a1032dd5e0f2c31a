package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/orchestrator"
)

type member struct {
	group string
	cl    *kgo.Client
	once  sync.Once
	ended chan struct{}
}

// leaveTimeout bounds the wait for Member.Revoked and for the coordinator's answer when leaving.
const leaveTimeout = 10 * time.Second

// rebalanceTimeout is how long the coordinator waits for a member's Revoked before it gives the partitions
// away.
const rebalanceTimeout = 30 * time.Second

// Join enters the consumer group that gives out the partitions of topic, and calls m until leave. Partitions
// move one at a time (cooperative, sticky): a rebalance that leaves a partition where it is does not
// interrupt it, and a new owner is told only after Revoked returned at the old one. Assigned is told what
// came in addition, and is called with nothing when only the generation is new. leave returns when Revoked
// has, or after a few seconds.
func (c *Client) Join(group, topic string, m orchestrator.Member) (leave func(), err error) {
	give := func(f func([]int32)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			if ps := parts[topic]; len(ps) > 0 && f != nil {
				slices.Sort(ps)
				f(ps)
			}
		}
	}
	cl, err := c.client("group",
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.Balancers(balancer(topic, m.Suits)),
		kgo.SessionTimeout(c.cfg.Session),
		// A member learns of a rebalance by its next heartbeat, and a move takes two.
		kgo.HeartbeatInterval(min(max(c.cfg.Session/3, time.Millisecond), time.Second)),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.DisableAutoCommit(),
		kgo.MaxConcurrentFetches(0), // its records are not read
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
			_, generation := cl.GroupMetadata()
			ps := parts[topic]
			slices.Sort(ps)
			m.Assigned(generation, ps)
		}),
		kgo.OnPartitionsRevoked(give(m.Revoked)),
		kgo.OnPartitionsLost(give(m.Lost)),
	)
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", group, err)
	}
	cl.PauseFetchTopics(topic)
	mem := &member{group: group, cl: cl, ended: make(chan struct{})}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.members = append(c.members, mem)
	}
	c.mu.Unlock()
	if closed {
		cl.Close()
		return nil, fmt.Errorf("group %s: %w", group, kgo.ErrClientClosed)
	}
	// Nothing is fetched, but what keeps the member out of its group is reported to polls.
	go func() {
		defer close(mem.ended)
		for {
			f := cl.PollFetches(context.Background())
			if f.IsClientClosed() {
				return
			}
			f.EachError(func(_ string, _ int32, err error) {
				var session *kgo.ErrGroupSession
				if errors.As(err, &session) {
					c.cfg.Logger.Warn("not in the consumer group; trying on", "group", group, "err", session.Err)
				}
			})
		}
	}()
	return func() {
		mem.leave()
		c.mu.Lock()
		c.members = slices.DeleteFunc(c.members, func(o *member) bool { return o == mem })
		c.mu.Unlock()
	}, nil
}

func (m *member) leave() {
	m.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		defer cancel()
		m.cl.LeaveGroupContext(ctx)
		m.cl.CloseAllowingRebalance()
		<-m.ended
	})
}
