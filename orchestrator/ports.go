package orchestrator

import (
	"context"
	"errors"
	"fmt"

	"github.com/skald-io/skald/events"
)

// The ports are what a node needs of Kafka. connectors/kafka implements them over franz-go; tests over a
// model log. All of them are safe for concurrent use.

// ErrRefused is wrapped by the error of a Produce that will never succeed: the topic is gone, not allowed,
// or the message too large. Anything else that Produce reports leaves the outcome open.
var ErrRefused = errors.New("refused by Kafka")

// ErrTooLarge is the ErrRefused of a message that the topic has no room for: others go on being taken.
var ErrTooLarge = fmt.Errorf("%w: too large", ErrRefused)

// ErrPositionLost is wrapped when a position lies outside what the partition still holds.
var ErrPositionLost = errors.New("the position is outside the log")

// TopicPartition names an input.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Topic is what the broker says of a topic.
type Topic struct {
	Name        string
	ID          [16]byte // zero where the broker has none
	Partitions  int      // 0: it does not exist
	Replication int
	Config      map[string]string // effective values; nil when not allowed to read them
}

// Needs are what an application needs of its cluster, besides its own topics.
type Needs struct {
	App       string
	Shards    int      // partitions of journal, inbox and replies; 0: any number, as long as it is the same
	Inputs    []string // domain topics, which must exist
	Commands  []string // topics of commands and of events that sagas emit, which must exist
	Lifecycle bool     // <app>.lifecycle must exist
	// Transactional are those of Commands that are written in transactions (L16).
	Transactional []string
}

// Kafka is a connection to a cluster.
type Kafka interface {
	// Check asks the cluster whether the application can run on it. The error names everything that keeps it
	// from that, each with code, cause and cure; the warnings are risks that one may choose to live with.
	Check(ctx context.Context, n Needs) (warnings []error, err error)
	// Topics describes the named topics; one that does not exist has 0 partitions. An unreachable cluster
	// is an error that names the addresses.
	Topics(ctx context.Context, names ...string) (map[string]Topic, error)
	// Bounds gives the log start and the end (high watermark) of each partition.
	Bounds(ctx context.Context, parts []TopicPartition) (map[TopicPartition]Bounds, error)
	// DeleteRecords deletes what lies below before; deleting what is gone already is no error.
	DeleteRecords(ctx context.Context, p TopicPartition, before int64) error
	// Log opens one partition of the journal.
	Log(topic string, partition int32) Log
	// Produce sends m, to m.Partition, or, when that is negative, to the partition the Java client's
	// default partitioner picks for the key. done is called once, from another goroutine, and must not
	// block. Messages to one partition arrive in the order of the calls. Before done is called the caller changes
	// nothing of m, and afterwards nobody else reads it.
	Produce(m *events.Message, done func(error))
	// Consume begins to deliver the partition's records from an offset to sink. Offsets are given, never
	// guessed: a position outside the log is reported to the sink.
	Consume(p TopicPartition, from int64, sink Sink)
	// Stop ends the delivery; none is under way when it returns.
	Stop(p TopicPartition)
	// Pause holds the delivery back, Resume lets it go on; nothing is lost in between.
	Pause(p TopicPartition)
	Resume(p TopicPartition)
	// Join enters the consumer group that gives out the partitions of topic, and calls m until leave. The
	// group's records are not read.
	Join(group, topic string, m Member) (leave func(), err error)
	// MemberID is this connection's id in a group it has joined; "" while it is in none. Members are the ids of
	// all members as the group's coordinator knows them.
	MemberID(group string) string
	Members(ctx context.Context, group string) ([]string, error)
	// Evict removes a member that is known to have died from the group, as if it had left it. One that is not, or
	// no more, a member is no error. A member that lives all the same is told that it lost everything, and joins anew.
	Evict(ctx context.Context, group, member string) error
	// Rejoin makes this connection's member of the group take part at once in a rebalance that is under way, instead
	// of with its next heartbeat; the leader of the group starts one by it.
	Rejoin(group string)
	// Close waits for what is under way, at most a few seconds.
	Close()
}

// Committer is a Kafka that can tell the usual lag tools how far inputs are read. Nothing is ever read back from
// there: what counts stands in the journal.
type Committer interface {
	// Commit commits positions in a group that this connection has joined, as a member of its present
	// generation: one that was replaced overwrites nothing. While the group is being shared out anew it does
	// nothing.
	Commit(ctx context.Context, group string, positions map[TopicPartition]int64) error
}

// Gatherer is a Kafka that sends together what it is given between Begin and End, which come in pairs, from any
// goroutine. Everything is sent without them as well, if in more pieces.
type Gatherer interface {
	Begin()
	End()
}

// Bounds are a partition's first offset and the one after its last.
type Bounds struct{ Start, End int64 }

// Sink takes what Consume delivers. Its methods are called one at a time per partition and must not block;
// the slice is the sink's.
type Sink interface {
	Records(p TopicPartition, batch []events.Message)
	// Failed says that the partition is not delivered any further; err wraps ErrPositionLost when its
	// records are gone. Errors that pass are not reported.
	Failed(p TopicPartition, err error)
}

// Member is told what the group assigns. Calls come one at a time.
type Member struct {
	Assigned func(generation int32, partitions []int32)
	// Revoked returns when the partitions may be given to others: everything is handed over.
	Revoked func(partitions []int32)
	// Lost says that others own the partitions already.
	Lost func(partitions []int32)
	// Suits says whether the member with that id should get the partition, when there is a choice; nil: any does.
	// It is asked on the group's leader, from other goroutines, in the course of a rebalance.
	Suits func(member string, partition int32) bool
}

// Log is one partition of the journal.
type Log interface {
	// Append queues a record. done is called once for each, in the order of the calls, from another
	// goroutine, and must not block: with the record's offset, or with an error that leaves it unknown
	// whether the record is, or will be, in the log.
	Append(value []byte, done func(offset int64, err error))
	// Read calls fn for the records from an offset (the log's start if that is higher) to the end as it is
	// when Read is called, and returns the offset to go on from.
	Read(ctx context.Context, from int64, fn func(LogRecord) error) (next int64, err error)
	Bounds(ctx context.Context) (Bounds, error)
	Trim(ctx context.Context, before int64) error
	// TopicID identifies the topic, so that one of the same name created anew is noticed; zero if unknown.
	TopicID(ctx context.Context) ([16]byte, error)
	// Close ends the use by this owner; what is still under way may or may not arrive.
	Close()
}

// LogRecord is a journal record as read.
type LogRecord struct {
	Offset int64
	Time   int64 // the broker's append time, ms since 1970
	Value  []byte
}
