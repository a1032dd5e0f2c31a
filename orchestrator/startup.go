package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrShardCount says that the application's topics do not have the partition count it was created with.
var ErrShardCount = errors.New("wrong partition count")

// layout is what the cluster looks like at start: how many shards there are, and which domain partitions
// each of them reads.
type layout struct {
	shards int
	domain map[string]int // partitions by topic
	ids    map[string][16]byte
}

// inputsOf are the domain partitions of a shard: those whose number is the shard's modulo the number of
// shards, so that a topic with as many partitions, keyed alike, needs no forwarding.
func (l layout) inputsOf(shard int32) []TopicPartition {
	var out []TopicPartition
	for topic, n := range l.domain {
		for p := int(shard); p < n; p += l.shards {
			out = append(out, TopicPartition{topic, int32(p)})
		}
	}
	return out
}

// needs is what the definitions ask of the cluster.
func (e *Engine) needs() Needs {
	n := Needs{App: e.cfg.App, Lifecycle: e.cfg.Lifecycle, Transactional: e.cfg.Transactional}
	add := func(list *[]string, topics []string) {
		for _, topic := range topics {
			if !slices.Contains(*list, topic) {
				*list = append(*list, topic)
			}
		}
	}
	for _, p := range e.plans {
		add(&n.Inputs, p.Reads())
		add(&n.Commands, p.Writes())
	}
	return n
}

// inspect looks at the application's topics, and refuses what would lose something later.
func (e *Engine) inspect(ctx context.Context) (layout, error) {
	needs := e.needs()
	for _, topic := range needs.Transactional {
		if !slices.Contains(needs.Commands, topic) {
			return layout{}, fmt.Errorf("topic %s: Config.Transactional names it, but no definition sends commands there; they go to %s", topic, strings.Join(needs.Commands, ", "))
		}
	}
	warnings, err := e.cfg.Kafka.Check(ctx, needs)
	for _, w := range warnings {
		e.log.Warn("the cluster risks something", "err", w)
	}
	if err != nil {
		return layout{}, err
	}
	own := []string{e.topics.Journal(), e.topics.Inbox(), e.topics.Replies()}
	found, err := e.cfg.Kafka.Topics(ctx, append(own, needs.Inputs...)...)
	if err != nil {
		return layout{}, err
	}
	l := layout{shards: found[own[0]].Partitions, domain: map[string]int{}, ids: map[string][16]byte{}}
	for name, t := range found {
		l.ids[name] = t.ID
	}
	for _, topic := range needs.Inputs {
		l.domain[topic] = found[topic].Partitions
	}
	return l, nil
}
