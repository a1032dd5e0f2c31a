package orchestrator

import (
	"context"
	"errors"
	"fmt"
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

// inspect looks at the application's topics, and refuses what would lose something later.
func (e *Engine) inspect(ctx context.Context) (layout, error) {
	own := []string{e.topics.Journal(), e.topics.Inbox(), e.topics.Replies()}
	names := append([]string{}, own...)
	for _, p := range e.plans {
		names = append(names, p.Start.Topic)
	}
	names = append(names, e.topics.Quarantine())
	found, err := e.cfg.Kafka.Topics(ctx, names...)
	if err != nil {
		return layout{}, err
	}
	l := layout{domain: map[string]int{}, ids: map[string][16]byte{}}
	var errs []error
	for _, name := range names {
		t := found[name]
		l.ids[name] = t.ID
		if t.Partitions == 0 {
			errs = append(errs, fmt.Errorf("topic %s does not exist: create it with `skald topics apply`", name))
		}
	}
	l.shards = found[e.topics.Journal()].Partitions
	for _, name := range own {
		if n := found[name].Partitions; n != l.shards && n != 0 {
			errs = append(errs, fmt.Errorf("%w: %s has %d partitions and %s has %d; the three of an application have one each per shard, fixed when it is created", ErrShardCount, name, n, e.topics.Journal(), l.shards))
		}
	}
	for _, p := range e.plans {
		l.domain[p.Start.Topic] = found[p.Start.Topic].Partitions
	}
	return l, errors.Join(errs...)
}
