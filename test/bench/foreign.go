package main

import (
	"hash/fnv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// foreign puts every record of one topic on another partition than the one that the Java client picks for its
// key, which is its instance's shard: the same for all records of a key, and any of the others over all keys.
// Other topics' records lie where the Java client puts them.
type foreign struct {
	kgo.Partitioner
	topic string
}

func newForeign(topic string) kgo.Partitioner {
	return foreign{kgo.StickyKeyPartitioner(nil), topic}
}

func (f foreign) ForTopic(topic string) kgo.TopicPartitioner {
	home := f.Partitioner.ForTopic(topic)
	if topic != f.topic {
		return home
	}
	return foreignTopic{home}
}

type foreignTopic struct{ home kgo.TopicPartitioner }

func (f foreignTopic) RequiresConsistency(*kgo.Record) bool { return true }

func (f foreignTopic) Partition(r *kgo.Record, n int) int {
	home := f.home.Partition(r, n)
	if n < 2 {
		return home
	}
	h := fnv.New32a()
	h.Write(r.Key)
	return (home + 1 + int(h.Sum32()%uint32(n-1))) % n
}
