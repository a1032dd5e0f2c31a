package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/orchestrator"
)

// Config says how to reach a cluster. Brokers is required; every other zero value means the default.
type Config struct {
	Brokers  []string // host:port of some brokers
	ClientID string   // default "skald"
	Logger   *slog.Logger

	// Session is after how long of silence the group gives a member's partitions to others; heartbeats are
	// sent every third of it, at least every second. Default 10 s; brokers refuse less than their
	// group.min.session.timeout.ms.
	Session time.Duration
	// Linger is how long a produced record waits for company. 0, the default, adapts: it does so only while the answer
	// to what was sent before is awaited, and at most 2 ms. Anything below 0, NoLinger, is none.
	Linger time.Duration
	// AppendTimeout bounds how long an append may go without an acknowledgement before its outcome is
	// reported as unknown. Default 30 s.
	AppendTimeout time.Duration
	// MaxMessageBytes is the largest batch produced, and so the largest record, before compression. Default
	// 1 MiB; it must not exceed the topics' max.message.bytes.
	MaxMessageBytes int
	// MaxFetchBytes bounds one fetch from one broker, as sent. Default 2 MiB.
	MaxFetchBytes int
	// MaxBatchBytes bounds what one batch of records may decompress to; a larger one is skipped, see
	// Client.Consume. Default 32 MiB.
	MaxBatchBytes int

	TLS  TLS
	SASL SASL

	DialTimeout    time.Duration // of a connection; default 5 s
	RequestTimeout time.Duration // of an answer, beyond what the request allows the broker; default 10 s
	MetadataMaxAge time.Duration // of what is known of topics and leaders; default 30 s

	Opts []kgo.Opt // over everything else

	places map[string]string // where settings were made, by key; see Load
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Brokers) == 0 {
		return c, &Error{Code: CodeUnreachable, Detail: "no broker named", Cure: "name one, as host:port"}
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxMessageBytes, 1<<20)
	def(&c.MaxFetchBytes, 2<<20)
	def(&c.MaxBatchBytes, 32<<20)
	if c.ClientID == "" {
		c.ClientID = "skald"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Session <= 0 {
		c.Session = 10 * time.Second
	}
	if c.AppendTimeout <= 0 {
		c.AppendTimeout = 30 * time.Second
	}
	return c, nil
}

// NoLinger is a Config.Linger: each record is sent at once.
const NoLinger time.Duration = -1

const (
	adminTimeout = 15 * time.Second // of one question to the cluster, when the caller's context has no end
	closeTimeout = 3 * time.Second
)

// Client is a connection to a cluster: the orchestrator.Kafka of production. It is safe for concurrent use.
type Client struct {
	cfg     Config
	reach   []kgo.Opt // addresses, TLS, authentication
	admin   *kgo.Client
	journal *kgo.Client
	emit    *kgo.Client
	appends *gatherer // before journal
	emits   *gatherer // before emit
	inputs  *inputs

	mu      sync.Mutex
	members []*member
	closed  bool
}

var (
	_ orchestrator.Kafka      = (*Client)(nil)
	_ orchestrator.Transactor = (*Client)(nil)
	_ orchestrator.Committer  = (*Client)(nil)
	_ orchestrator.Gatherer   = (*Client)(nil)
)

// Dial prepares the connection; it does not wait for a broker, Check does. An error says what is wrong
// with cfg.
func Dial(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg}
	fail := func(err error) (*Client, error) {
		c.Close()
		return nil, fmt.Errorf("kafka at %s: %w", strings.Join(cfg.Brokers, ", "), err)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if c.reach, err = cfg.reach(); err != nil {
		return nil, err
	}
	if c.admin, err = c.client("admin", kgo.RetryTimeout(5*time.Second)); err != nil {
		return fail(err)
	}
	if c.journal, err = c.client("journal", journalOpts(cfg)...); err != nil {
		return fail(err)
	}
	if c.emit, err = c.client("emit", emitOpts(cfg)...); err != nil {
		return fail(err)
	}
	c.appends, c.emits = newGatherer(cfg.Linger, c.journal), newGatherer(cfg.Linger, c.emit)
	if c.inputs, err = newInputs(c); err != nil {
		return fail(err)
	}
	return c, nil
}

// Begin says that the caller may append and produce more until it calls End: what is sent meanwhile is sent together.
func (c *Client) Begin() {
	c.appends.begin()
	c.emits.begin()
}

// End ends what Begin began.
func (c *Client) End() {
	c.appends.end()
	c.emits.end()
}

func (c *Client) client(part string, opts ...kgo.Opt) (*kgo.Client, error) {
	own := []kgo.Opt{
		kgo.ClientID(c.cfg.ClientID + "-" + part),
		kgo.SoftwareNameAndVersion("skald", "1"),
		kgo.WithLogger(logger{c.cfg.Logger.With("client", part)}),
		kgo.DisableClientMetrics(),
		// The default of 5 s would be how long a moved leader is looked for.
		kgo.MetadataMinAge(250 * time.Millisecond),
		// What was forbidden, or missing, and no longer is gets noticed within this.
		kgo.MetadataMaxAge(30 * time.Second),
	}
	return kgo.NewClient(slices.Concat(own, c.reach, opts, c.cfg.Opts)...)
}

// Close waits a few seconds for what is being emitted, leaves the groups and ends everything else.
func (c *Client) Close() {
	c.mu.Lock()
	members := c.members
	c.members, c.closed = nil, true
	c.mu.Unlock()
	for _, m := range members {
		m.leave()
	}
	if c.inputs != nil {
		c.inputs.close()
	}
	if c.emit != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		if c.emits != nil {
			c.emits.flush()
		}
		c.emit.Flush(ctx)
		cancel()
	}
	for _, cl := range []*kgo.Client{c.emit, c.journal, c.admin} {
		if cl != nil {
			cl.Close()
		}
	}
}

// Topics describes the named topics; one that does not exist has 0 partitions. Config is nil when the
// broker does not let us read it.
func (c *Client) Topics(ctx context.Context, names ...string) (map[string]orchestrator.Topic, error) {
	out := make(map[string]orchestrator.Topic, len(names))
	if len(names) == 0 {
		return out, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	adm := kadm.NewClient(c.admin)
	details, err := adm.ListTopicsWithInternal(ctx, names...)
	if err != nil {
		return nil, c.unreachable(err)
	}
	var known []string
	for _, name := range names {
		d := details[name]
		t := orchestrator.Topic{Name: name}
		switch {
		case d.Err == nil && len(d.Partitions) > 0:
			t.ID, t.Partitions = d.ID, len(d.Partitions)
			t.Replication = len(d.Partitions[0].Replicas)
			for _, p := range d.Partitions {
				t.Replication = min(t.Replication, len(p.Replicas))
			}
			known = append(known, name)
		case d.Err == nil, errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		case errors.Is(d.Err, kerr.TopicAuthorizationFailed):
			return nil, &Error{Code: CodeForbidden, Topic: name, Detail: "the cluster does not let us describe it",
				Cure: "give this principal the ACLs that `skald topics plan` prints", Err: d.Err}
		default:
			return nil, fmt.Errorf("topic %s: %w", name, d.Err)
		}
		out[name] = t
	}
	if len(known) == 0 {
		return out, nil
	}
	configs, err := c.topicConfigs(ctx, known)
	if err != nil {
		return nil, c.unreachable(err)
	}
	for name, config := range configs {
		t := out[name]
		t.Config = config
		out[name] = t
	}
	return out, nil
}

// Bounds gives the log start and the end (high watermark) of each partition. It asks again while a leader
// is being elected, as long as ctx allows.
func (c *Client) Bounds(ctx context.Context, parts []orchestrator.TopicPartition) (map[orchestrator.TopicPartition]orchestrator.Bounds, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var starts map[orchestrator.TopicPartition]int64
	var startErr error
	var wg sync.WaitGroup
	wg.Go(func() { starts, startErr = c.offsets(ctx, parts, -2) })
	ends, err := c.offsets(ctx, parts, -1)
	wg.Wait()
	if err = errors.Join(startErr, err); err != nil {
		return nil, err
	}
	out := make(map[orchestrator.TopicPartition]orchestrator.Bounds, len(parts))
	for _, p := range parts {
		out[p] = orchestrator.Bounds{Start: starts[p], End: ends[p]}
	}
	return out, nil
}

// offsets asks for the offset at a timestamp: -2 the log start, -1 the end. The broker answers the latter
// only when its high watermark is known to cover all that was ever acknowledged (KIP-207), which a fetch's
// high watermark, after a change of leader, is not.
func (c *Client) offsets(ctx context.Context, parts []orchestrator.TopicPartition, at int64) (map[orchestrator.TopicPartition]int64, error) {
	out := make(map[orchestrator.TopicPartition]int64, len(parts))
	todo := slices.Clone(parts)
	for {
		req := kmsg.NewPtrListOffsetsRequest()
		topics := make(map[string]int)
		for _, p := range todo {
			i, ok := topics[p.Topic]
			if !ok {
				i = len(req.Topics)
				topics[p.Topic] = i
				t := kmsg.NewListOffsetsRequestTopic()
				t.Topic = p.Topic
				req.Topics = append(req.Topics, t)
			}
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p.Partition, at
			req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
		}
		var last error
		for _, shard := range c.admin.RequestSharded(ctx, req) {
			if shard.Err != nil {
				last = shard.Err
				continue
			}
			for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
				for _, rp := range t.Partitions {
					p := orchestrator.TopicPartition{Topic: t.Topic, Partition: rp.Partition}
					if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
						last = fmt.Errorf("%s/%d: %w", p.Topic, p.Partition, err)
						continue
					}
					out[p] = rp.Offset
				}
			}
		}
		todo = slices.DeleteFunc(todo, func(p orchestrator.TopicPartition) bool { _, ok := out[p]; return ok })
		if len(todo) == 0 {
			return out, nil
		}
		if last == nil {
			last = errors.New("the broker left it out of its answer")
		}
		if !passes(last) {
			return nil, fmt.Errorf("bounds of %s/%d: %w", todo[0].Topic, todo[0].Partition, last)
		}
		if !pause(ctx, 50*time.Millisecond) {
			return nil, c.unreachable(fmt.Errorf("bounds of %s/%d: %w", todo[0].Topic, todo[0].Partition, last))
		}
	}
}

// DeleteRecords deletes what lies below before; deleting what is gone already is no error.
func (c *Client) DeleteRecords(ctx context.Context, p orchestrator.TopicPartition, before int64) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if before < 0 {
		return fmt.Errorf("%s/%d: delete records below %d: no such offset", p.Topic, p.Partition, before)
	}
	for {
		var os kadm.Offsets
		os.AddOffset(p.Topic, p.Partition, before, -1)
		resp, err := kadm.NewClient(c.admin).DeleteRecords(ctx, os)
		if err == nil {
			err = resp.Error()
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, kerr.OffsetOutOfRange) {
			// Above the end is a mistake; below the start, somebody was faster.
			if b, berr := c.Bounds(ctx, []orchestrator.TopicPartition{p}); berr == nil && before <= b[p].Start {
				return nil
			}
			return fmt.Errorf("%s/%d: delete records below %d: %w", p.Topic, p.Partition, before, orchestrator.ErrPositionLost)
		}
		if !passes(err) || !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%s/%d: delete records below %d: %w", p.Topic, p.Partition, before, err)
		}
	}
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, adminTimeout)
}

// pause waits for d and says whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// logger hands franz-go's log on. What it calls info is its own bookkeeping, of use to no operator.
type logger struct{ l *slog.Logger }

func (l logger) Level() kgo.LogLevel {
	if l.l.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

func (l logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	at := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		at = slog.LevelError
	case kgo.LogLevelWarn:
		at = slog.LevelWarn
	}
	l.l.Log(context.Background(), at, msg, keyvals...)
}
