package participant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Config says who the participant is. App, Brokers and Name are needed.
type Config struct {
	App     string   // the application whose sagas send the commands
	Brokers []string // host:port
	Name    string   // of the service; it stands in ce_source and in the group's name
	Group   string   // the consumer group; default: <app>.<name>

	Ledger Ledger       // default: NewMemory(), which forgets with the process
	Logger *slog.Logger // default: slog.Default()

	Workers   int           // commands executed at once, of different record keys; default 16
	Retention time.Duration // how long keys are remembered beyond their expiry, and longer than any step's time-out; default 7 days
	Skew      time.Duration // how far this clock may be ahead of the engine's: commands are refused that much later; default 0
	MaxReply  int           // largest payload of a reply, in bytes; default 960 KiB: below a broker's default of 1 MiB
	Grace     time.Duration // how long Run waits for handlers that are at work when it is told to stop; default 10 s

	Now     func() time.Time // the clock; default time.Now
	Options []kgo.Opt        // further options of the Kafka client: TLS, SASL, timeouts
}

// maxOpen bounds the records that were read and not yet committed: the memory for them, and how much is
// read again after a crash.
const maxOpen = 4096

// Participant executes commands. Register its handlers, then call Run.
type Participant struct {
	cfg    Config
	source string
	log    *slog.Logger
	exec   executor
	client *kgo.Client
	queue  *queue

	handlers map[string]map[string]handler // by topic, then type
	started  atomic.Bool
	wrong    []error
	counts   counters

	pruned time.Time // used by Run alone

	// crash is for tests: called at named points of a command's way; true ends the process there.
	crash func(point string, c *command) bool
}

// Stats counts what became of the records that were read, since New.
type Stats struct {
	Done, Rejected, Retried int64 // answers found, by outcome
	Repeated                int64 // answers given again from the ledger
	Skipped                 int64 // commands of types that have no handler here
	Unanswerable            int64 // records that name no id or no topic to reply to
	Unsent                  int64 // replies that Kafka refuses for good
}

type counters struct {
	done, rejected, retried, repeated, skipped, unanswerable, unsent atomic.Int64
}

// New makes a participant. What is wrong with cfg is reported by Run.
func New(cfg Config) *Participant {
	p := &Participant{cfg: cfg, handlers: map[string]map[string]handler{}}
	for _, need := range []struct{ name, value string }{{"App", cfg.App}, {"Name", cfg.Name}, {"Brokers", strings.Join(cfg.Brokers, "")}} {
		if need.value == "" {
			p.wrong = append(p.wrong, fmt.Errorf("the field Config.%s is empty", need.name))
		}
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{{"Retention", cfg.Retention}, {"Skew", cfg.Skew}, {"Grace", cfg.Grace}} {
		if d.v < 0 {
			p.wrong = append(p.wrong, fmt.Errorf("the field Config.%s is %v: it must not be negative", d.name, d.v))
		}
	}
	if cfg.Workers < 0 || cfg.MaxReply < 0 {
		p.wrong = append(p.wrong, fmt.Errorf("the field Config.Workers is %d, Config.MaxReply %d: they must not be negative", cfg.Workers, cfg.MaxReply))
	}
	c := &p.cfg
	if c.Group == "" {
		c.Group = c.App + "." + c.Name
	}
	if c.Ledger == nil {
		c.Ledger = NewMemory()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Workers == 0 {
		c.Workers = 16
	}
	if c.Retention == 0 {
		c.Retention = 7 * 24 * time.Hour
	}
	if c.MaxReply == 0 {
		c.MaxReply = 960 << 10
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p.source = "/" + c.App + "/" + c.Name
	p.log = c.Logger.With("participant", c.Name)
	p.exec = executor{ledger: c.Ledger, now: c.Now, skew: c.Skew, retention: c.Retention, maxValue: c.MaxReply, log: p.logCommand}
	if a, ok := c.Ledger.(Atomic); ok {
		p.exec.atomic = a.Atomic()
	}
	return p
}

// Handle registers the handler of a command, forward or undo. It is called for one command of a record key
// at a time, for those of other keys at once. Its context ends when the participant stops
// and has waited Grace. An error is
// answered as Reject or Retry says; a panic like Retry. Whatever is wrong is reported by Run.
func Handle[C, R any](p *Participant, command sagas.Command[C, R], fn func(context.Context, Call, C) (R, error)) {
	p.handle(command.Topic(), command.Type(), func(payload []byte) (func(context.Context, Call) ([]byte, error), error) {
		in, err := command.DecodeCommand(payload)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, c Call) ([]byte, error) {
			out, err := fn(ctx, c, in)
			if err != nil {
				return nil, err
			}
			value, err := command.EncodeReply(out)
			if err != nil {
				return nil, Retry(CodeReplySize, "%v", err)
			}
			return value, nil
		}, nil
	})
}

func (p *Participant) handle(topic, typ string, h handler) {
	switch {
	case p.started.Load():
		p.log.Error("a handler was registered after Run and is ignored", "topic", topic, "type", typ)
		return
	case !isTopic(topic) || typ == "":
		p.wrong = append(p.wrong, fmt.Errorf("a handler for topic %q and type %q: both are needed", topic, typ))
		return
	case p.handlers[topic][typ] != nil:
		p.wrong = append(p.wrong, fmt.Errorf("two handlers for topic %q and type %q", topic, typ))
		return
	}
	if p.handlers[topic] == nil {
		p.handlers[topic] = map[string]handler{}
	}
	p.handlers[topic][typ] = h
}

// Stats gives the counts so far.
func (p *Participant) Stats() Stats {
	c := &p.counts
	return Stats{c.done.Load(), c.rejected.Load(), c.retried.Load(), c.repeated.Load(), c.skipped.Load(), c.unanswerable.Load(), c.unsent.Load()}
}

// Run executes commands until ctx ends; then it waits for the handlers at work and their replies, commits,
// leaves the group and returns nil. An error says why it could not start. It may be called once.
//
// A new group begins at the start of the topic: commands that nobody took in time have expired.
func (p *Participant) Run(ctx context.Context) error {
	if p.started.Swap(true) {
		return fmt.Errorf("participant %s: Run was called twice", p.cfg.Name)
	}
	if len(p.handlers) == 0 {
		p.wrong = append(p.wrong, errors.New("no handler is registered: call Handle before Run"))
	}
	if len(p.wrong) > 0 {
		return fmt.Errorf("participant %s: %w", p.cfg.Name, errors.Join(p.wrong...))
	}
	// Handlers and the ledger outlive ctx for as long as Grace.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	p.queue = newQueue(p.cfg.Workers, func(w *queued) { p.execute(work, w) }, func(r *kgo.Record) { p.client.MarkCommitRecords(r) })
	if err := p.connect(ctx); err != nil {
		return fmt.Errorf("participant %s: %w", p.cfg.Name, err)
	}
	p.log.Info("participant runs", "group", p.cfg.Group, "topics", p.topics())
	for p.poll(ctx) {
		p.prune(work)
	}
	p.leave(p.client, p.queue.stop())
	abandon()
	p.client.CloseAllowingRebalance()
	return nil
}

func (p *Participant) topics() []string {
	var topics []string
	for t := range p.handlers {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	return topics
}

func (p *Participant) connect(ctx context.Context) error {
	topics := p.topics()
	opts := append([]kgo.Opt{
		kgo.SeedBrokers(p.cfg.Brokers...),
		kgo.ConsumerGroup(p.cfg.Group),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Only what is marked is committed, and it is marked in order, after its reply is acknowledged.
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(time.Second),
		// Between a poll and AllowRebalance what was read enters the queue: a partition that is taken away
		// is then known to it, with all that was read of it.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(func(_ context.Context, client *kgo.Client, parts map[string][]int32) { p.leave(client, parts) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { p.queue.drop(parts) }),
		// A partition that joins while a fetch waits is read only after it: with the client's 5 s, a new
		// owner would often stand still for as long.
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(int32(max(p.cfg.MaxReply+2*events.MaxHeaderBytes, 1000012))),
	}, p.cfg.Options...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	check, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	found, err := kadm.NewClient(client).ListTopics(check, topics...)
	if err != nil {
		client.CloseAllowingRebalance()
		return fmt.Errorf("no answer from Kafka at %s: %w; check that brokers listen there", strings.Join(p.cfg.Brokers, ","), err)
	}
	for _, t := range topics {
		if d, ok := found[t]; !ok || d.Err != nil {
			client.CloseAllowingRebalance()
			return fmt.Errorf("topic %s: %w; create it (skald topics plan prints how) or allow %s to read it", t, d.Err, p.cfg.Group)
		}
	}
	p.client = client
	return nil
}

// poll reads once. It reports whether there is more to read.
func (p *Participant) poll(ctx context.Context) bool {
	stop := context.AfterFunc(ctx, func() { p.queue.stop() })
	defer stop()
	room := p.queue.room(maxOpen)
	if room == 0 || ctx.Err() != nil {
		return false
	}
	fetches := p.client.PollRecords(ctx, room)
	defer p.client.AllowRebalance()
	if ctx.Err() != nil || fetches.IsClientClosed() {
		return false // what was read and not queued was not marked
	}
	fetches.EachError(func(topic string, partition int32, err error) {
		p.log.Warn("commands cannot be read; trying again", "topic", topic, "partition", partition, "err", err)
	})
	fetches.EachRecord(func(r *kgo.Record) { p.queue.add(r, laneOf(r)) })
	return true
}

// laneOf is what must be executed in order: everything of one saga. A record without a key, which is not
// the engine's, is its own saga.
func laneOf(r *kgo.Record) string {
	if len(r.Key) > 0 {
		return string(r.Key)
	}
	return fmt.Sprintf("\x00%s/%d/%d", r.Topic, r.Partition, r.Offset)
}

// leave hands partitions over: what began is finished and committed, so that the next owner does not
// meet it half done.
func (p *Participant) leave(client *kgo.Client, parts map[string][]int32) {
	if !p.queue.close(parts, p.cfg.Grace) {
		p.log.Warn("handlers did not end in time; their commands will be read again", "grace", p.cfg.Grace)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.CommitMarkedOffsets(ctx); err != nil {
		p.log.Warn("positions were not committed; commands will be read again, and answered from the ledger", "err", err)
	}
	p.queue.drop(parts)
}

// execute takes one record from reading to its acknowledged reply.
func (p *Participant) execute(ctx context.Context, w *queued) {
	r := w.record
	h := p.handlers[r.Topic][typeOf(r)]
	if h == nil {
		p.counts.skipped.Add(1)
		p.log.Debug("a command that has no handler here is skipped", "type", bounded(typeOf(r), 80), "topic", r.Topic, "partition", r.Partition, "offset", r.Offset)
		p.queue.finish(w, true)
		return
	}
	c, err := parseCommand(r)
	if err != nil {
		p.counts.unanswerable.Add(1)
		p.log.Error("a command that cannot be answered is skipped", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
		p.queue.finish(w, true)
		return
	}
	c.partition, c.offset = r.Partition, r.Offset
	a, repeated, err := p.exec.execute(ctx, c, h, p.progress(ctx, c))
	if err != nil || p.crashes("executed", c) {
		p.queue.finish(w, false)
		return
	}
	p.count(a, repeated)
	p.client.Produce(ctx, c.reply(p.source, a, ""), func(reply *kgo.Record, err error) {
		if p.crashes("answered", c) {
			p.queue.finish(w, false)
			return
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, kgo.ErrClientClosed) {
			// The client gives up only on what will never succeed. Waiting would stop the neighbours; the
			// saga asks again after its time-out.
			p.counts.unsent.Add(1)
			p.log.Error("Kafka refuses a reply; check the topic and the right to write it", "topic", c.topic, "partition", c.partition, "offset", c.offset, "replies", reply.Topic, "command", c.id, "err", err)
			err = nil
		}
		p.queue.finish(w, err == nil)
	})
}

func (p *Participant) crashes(point string, c *command) bool {
	return p.crash != nil && p.crash(point, c)
}

// progress makes the function behind Call.Progress.
func (p *Participant) progress(ctx context.Context, c *command) func() {
	var n atomic.Int64
	return func() {
		a := p.exec.answer(events.ReplyProgress, "", "")
		p.client.TryProduce(ctx, c.reply(p.source, a, fmt.Sprintf("-%d", n.Add(1))), nil)
	}
}

func (p *Participant) count(a Answer, repeated bool) {
	switch {
	case repeated:
		p.counts.repeated.Add(1)
	case a.Outcome == events.ReplyDone:
		p.counts.done.Add(1)
	case a.Outcome == events.ReplyRejected:
		p.counts.rejected.Add(1)
	default:
		p.counts.retried.Add(1)
	}
}

// prune forgets, now and then: in passing, because a ledger grows only when commands come.
func (p *Participant) prune(ctx context.Context) {
	now := p.cfg.Now()
	if now.Sub(p.pruned) < min(time.Minute, p.cfg.Retention) {
		return
	}
	p.pruned = now
	if err := p.cfg.Ledger.Prune(ctx, now); err != nil && ctx.Err() == nil {
		p.log.Error("the ledger cannot forget old keys and grows", "err", err)
	}
}

func (p *Participant) logCommand(c *command, msg string, err error, more ...any) {
	args := []any{"topic", c.topic, "partition", c.partition, "offset", c.offset, "command", c.id, "instance", c.instance, "type", bounded(c.typ, 80), "key", bounded(c.idempotency, 256)}
	if err != nil {
		args = append(args, "err", err)
	}
	p.log.Error(msg, append(args, more...)...)
}

func typeOf(r *kgo.Record) string {
	for _, h := range r.Headers {
		if h.Key == events.HeaderType {
			return string(h.Value)
		}
	}
	return ""
}
