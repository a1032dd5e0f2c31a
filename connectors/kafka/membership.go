package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (c *Client) member(group string) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.group == group {
			return m
		}
	}
	return nil
}

// MemberID is this client's id in a group it has joined; "" while it is in none.
func (c *Client) MemberID(group string) string {
	m := c.member(group)
	if m == nil {
		return ""
	}
	id, _ := m.cl.GroupMetadata()
	return id
}

// Rejoin makes this client's member take part at once in a rebalance that is under way; the leader of the group
// starts one by it.
func (c *Client) Rejoin(group string) {
	if m := c.member(group); m != nil {
		m.cl.ForceRebalance()
	}
}

// Members are the ids of the group's members as its coordinator knows them. A group that does not exist has none.
func (c *Client) Members(ctx context.Context, group string) ([]string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	groups, err := kadm.NewClient(c.admin).DescribeGroups(ctx, group)
	if err != nil {
		return nil, c.unreachable(err)
	}
	g := groups[group]
	switch {
	case errors.Is(g.Err, kerr.GroupIDNotFound):
		return nil, nil
	case g.Err != nil:
		return nil, fmt.Errorf("members of group %s: %w", group, g.Err)
	}
	var ids []string
	for _, m := range g.Members {
		ids = append(ids, m.MemberID)
	}
	slices.Sort(ids)
	return ids, nil
}

// Evict removes a member that died from the group, as if it had left: its partitions are given out at once, not when
// its session times out. One that is not, or no more, a member is no error.
func (c *Client) Evict(ctx context.Context, group, member string) error {
	if group == "" || member == "" {
		return fmt.Errorf("group %q: evict member %q: it has no name", group, member)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	req.MemberID = member // up to version 2
	one := kmsg.NewLeaveGroupRequestMember()
	one.MemberID = member
	req.Members = append(req.Members, one)
	resp, err := req.RequestWith(ctx, c.admin)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err == nil && len(resp.Members) > 0 {
		err = kerr.ErrorForCode(resp.Members[0].ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("group %s: evict member %s: %w", group, member, err)
	}
	return nil
}

// suiting is the cooperative sticky balancer, which then moves partitions from members that do not suit to some that
// do. Nodes that know nothing of suiting take part in the same protocol; what counts is the group's leader.
type suiting struct {
	kgo.GroupBalancer
	topic string
	suits func(member string, partition int32) bool
}

func balancer(topic string, suits func(string, int32) bool) kgo.GroupBalancer {
	if suits == nil {
		return kgo.CooperativeStickyBalancer()
	}
	return &suiting{kgo.CooperativeStickyBalancer(), topic, suits}
}

func (s *suiting) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	b, err := kgo.NewConsumerBalancer(balancing{s}, members)
	return b, b.MemberTopics(), err
}

// balancing is suiting as the balance of a kgo.ConsumerBalancer.
type balancing struct{ *suiting }

func (s balancing) Balance(b *kgo.ConsumerBalancer, topics map[string]int32) kgo.IntoSyncAssignment {
	inner, ok := s.GroupBalancer.(kgo.ConsumerBalancerBalance)
	if !ok {
		b.SetError(errors.New("franz-go's balancer cannot be wrapped any more"))
		return nil
	}
	into := inner.Balance(b, topics)
	if plan, ok := into.(*kgo.BalancePlan); ok && s.move(plan.AsMemberIDMap()) {
		// Who has to give one up is told first; the next rebalance gives it to the other.
		plan.AdjustCooperative(b)
	}
	return into
}

// move gives partitions whose planned member does not suit to the least loaded one that does.
func (s *suiting) move(plan map[string]map[string][]int32) (moved bool) {
	members := make([]string, 0, len(plan))
	for id := range plan {
		members = append(members, id)
	}
	slices.Sort(members)
	for _, from := range members {
		for _, p := range slices.Clone(plan[from][s.topic]) {
			if s.suits(from, p) {
				continue
			}
			to := ""
			for _, id := range members {
				if s.suits(id, p) && (to == "" || len(plan[id][s.topic]) < len(plan[to][s.topic])) {
					to = id
				}
			}
			if to == "" {
				continue // nobody suits: better a member that does not than none
			}
			plan[from][s.topic] = slices.DeleteFunc(plan[from][s.topic], func(x int32) bool { return x == p })
			plan[to][s.topic] = append(plan[to][s.topic], p)
			moved = true
		}
	}
	return moved
}
