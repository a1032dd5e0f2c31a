package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/orchestrator"
)

// Commit tells lag tools how far inputs are read; see orchestrator.Committer. It uses the group that gives out
// the shards, so that kafka-consumer-groups.sh --describe shows members and lag in one place, no further right is
// needed, and the coordinator refuses what a member of an older generation says. The group's partitions are
// those of the inbox; Kafka takes offsets of any topic from a member.
func (c *Client) Commit(ctx context.Context, group string, positions map[orchestrator.TopicPartition]int64) error {
	c.mu.Lock()
	var m *member
	for _, o := range c.members {
		if o.group == group {
			m = o
		}
	}
	c.mu.Unlock()
	if m == nil {
		return nil // it has left, or has not joined yet
	}
	id, generation := m.cl.GroupMetadata()
	if id == "" || generation < 0 {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = group, id, generation
	at := map[string]int{}
	var names []string
	for p, offset := range positions {
		i, ok := at[p.Topic]
		if !ok {
			i = len(req.Topics)
			at[p.Topic] = i
			names = append(names, p.Topic)
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic = p.Topic
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset = p.Partition, offset
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	// Newer brokers are asked by id.
	topics, err := kadm.NewClient(c.admin).ListTopicsWithInternal(ctx, names...)
	if err != nil {
		return c.unreachable(err)
	}
	for i := range req.Topics {
		req.Topics[i].TopicID = topics[req.Topics[i].Topic].ID
	}
	resp, err := req.RequestWith(ctx, c.admin)
	if err != nil {
		return c.unreachable(err)
	}
	var errs []error
	for i, t := range resp.Topics {
		for _, p := range t.Partitions {
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case err == nil, errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.UnknownMemberID):
			default:
				name := t.Topic
				if name == "" && i < len(req.Topics) {
					name = req.Topics[i].Topic
				}
				errs = append(errs, fmt.Errorf("%s: %w", place(name, p.Partition), err))
			}
		}
	}
	return errors.Join(errs...)
}
