package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/test/check/checker"
)

// transactionalSchedule is the order of kills in a run whose nodes emit in transactions.
var transactionalSchedule = strings.Fields("commit appended committed decided commit committed decided commit appended committed")

func b2n(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Transactions wraps what a shard emits with.
func (f *faults) Transactions(id, group string, journal orchestrator.TopicPartition, topics []string) orchestrator.Emitter {
	return &faultyEmitter{f.Kafka.(orchestrator.Transactor).Transactions(id, group, journal, topics), f, id}
}

type faultyEmitter struct {
	orchestrator.Emitter
	f  *faults
	id string
}

// Open forgets what whoever emitted under this id before had queued here.
func (e *faultyEmitter) Open(ctx context.Context) (orchestrator.Emitted, error) {
	e.f.mu.Lock()
	e.f.queued[e.id] = map[string]bool{}
	e.f.mu.Unlock()
	return e.Emitter.Open(ctx)
}

func (e *faultyEmitter) Emit(at orchestrator.Emitted, msgs []*events.Message, done func(int, error)) {
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		e.f.produced(m)
		ids[i], _ = m.Header(events.HeaderID)
	}
	e.f.mu.Lock()
	queued := e.f.queued[e.id]
	for _, id := range ids {
		queued[id] = true
	}
	e.f.mu.Unlock()
	e.Emitter.Emit(at, msgs, func(i int, err error) {
		e.f.mu.Lock()
		delete(queued, ids[i])
		e.f.mu.Unlock()
		done(i, err)
	})
}

// dial gives a connection that holds still around the request that ends a transaction.
func (f *faults) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return &faultyConn{f.wire.over(c), f}, nil
}

type faultyConn struct {
	net.Conn
	f *faults
}

// Write is given one request at a time by the client.
func (c *faultyConn) Write(b []byte) (int, error) {
	id, ok := endsTransaction(b)
	if !ok {
		return c.Conn.Write(b)
	}
	evidence := func() string {
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		ids := slices.Sorted(keysOf(c.f.queued[id]))
		return fmt.Sprintf("%s commands=%s", id, strings.Join(ids, ","))
	}
	c.f.at(pointCommit, evidence())
	n, err := c.Conn.Write(b)
	if err == nil {
		c.f.at(pointCommitted, evidence())
	}
	return n, err
}

// endsTransaction says whether a request commits a transaction, and under which id.
func endsTransaction(b []byte) (id string, ok bool) {
	const header = 4 + 2 + 2 + 4 + 2 // size, key, version, correlation id, length of the client's id
	if len(b) < header || int16(binary.BigEndian.Uint16(b[4:])) != int16(kmsg.EndTxn) {
		return "", false
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.SetVersion(int16(binary.BigEndian.Uint16(b[6:])))
	body := b[header+max(0, int(int16(binary.BigEndian.Uint16(b[12:])))):]
	if req.IsFlexible() {
		body = body[1:] // no tags
	}
	err := req.ReadFrom(body)
	return req.TransactionalID, err == nil && req.Commit
}

// committedReader is somebody who reads committed records only, and counts them.
type committedReader struct {
	client *kgo.Client
	topics []string
	ended  chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	seen    map[string]map[string]int // topic → ce_id → how often
	marks   map[string]bool           // partitions that are read to their end
}

const endMark = "end-of-run"

func readCommitted(brokers, topics []string) (*committedReader, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	r := &committedReader{client: cl, topics: topics, ended: make(chan struct{}), seen: map[string]map[string]int{}, marks: map[string]bool{}}
	for _, t := range topics {
		r.seen[t] = map[string]int{}
	}
	r.changed = sync.NewCond(&r.mu)
	go r.read()
	return r, nil
}

func (r *committedReader) read() {
	defer close(r.ended)
	for {
		f := r.client.PollFetches(context.Background())
		if f.IsClientClosed() {
			return
		}
		r.mu.Lock()
		f.EachRecord(func(rec *kgo.Record) {
			if string(rec.Key) == endMark {
				r.marks[fmt.Sprintf("%s/%d", rec.Topic, rec.Partition)] = true
				return
			}
			for _, h := range rec.Headers {
				if h.Key == events.HeaderID {
					r.seen[rec.Topic][string(h.Value)]++
				}
			}
		})
		r.mu.Unlock()
		r.changed.Broadcast()
	}
}

// sees waits until one of the ids, at least, is there, and gives all that are.
func (r *committedReader) sees(ids []string, timeout time.Duration) (out []string) {
	late := time.Now().Add(timeout)
	timer := time.AfterFunc(timeout, r.changed.Broadcast)
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for _, id := range ids {
			if slices.ContainsFunc(r.topics, func(t string) bool { return r.seen[t][id] > 0 }) {
				out = append(out, id)
			}
		}
		if len(out) > 0 || !time.Now().Before(late) {
			return out
		}
		r.changed.Wait()
	}
}

// finish reads to the end and gives what was seen.
func (r *committedReader) finish(ctx context.Context) (map[string]map[string]int, error) {
	want := map[string]bool{}
	for _, t := range r.topics {
		parts, err := r.partitions(ctx, t)
		if err != nil {
			return nil, err
		}
		for p := range parts {
			if err := r.client.ProduceSync(ctx, &kgo.Record{Topic: t, Partition: p, Key: []byte(endMark)}).FirstErr(); err != nil {
				return nil, err
			}
			want[fmt.Sprintf("%s/%d", t, p)] = true
		}
	}
	stop := context.AfterFunc(ctx, r.changed.Broadcast)
	defer stop()
	r.mu.Lock()
	for len(r.marks) < len(want) && ctx.Err() == nil {
		r.changed.Wait()
	}
	r.mu.Unlock()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("who reads committed records came to the end of %d of %d partitions", len(r.marks), len(want))
	}
	r.close()
	return r.seen, nil
}

func (r *committedReader) partitions(ctx context.Context, topic string) (int32, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return 0, err
	}
	return int32(len(resp.Topics[0].Partitions)), nil
}

func (r *committedReader) close() {
	if r != nil {
		r.client.Close()
		<-r.ended
	}
}

// broken is a transaction in which a node was killed, and what proves where.
type broken struct {
	point, line string
	ids         []string // commands in it: at commit, those that are on their topics and not committed; at committed, those that are
}

// inTransaction waits for the proof that a node is held where it says.
func (h *harness) inTransaction(point, node, line string) error {
	_, list, _ := strings.Cut(line, "commands=")
	ids := strings.Split(list, ",")
	b := broken{point: point, line: node + " " + line}
	if point == pointCommitted {
		b.ids = h.reader.sees(ids, takeOverTime)
	} else {
		late := time.Now().Add(takeOverTime)
		for len(b.ids) == 0 && time.Now().Before(late) {
			h.rec.With(func(e *checker.Evidence) { b.ids = onTopics(e, ids) })
			h.pause(20 * time.Millisecond)
		}
		if seen := h.reader.sees(b.ids, 500*time.Millisecond); len(seen) > 0 {
			return fmt.Errorf("%s is held before its commit, and who reads committed records sees %v", node, seen)
		}
	}
	if len(b.ids) == 0 {
		return fmt.Errorf("%s is held (%s), and nothing shows it", node, line)
	}
	h.out.broken = append(h.out.broken, b)
	return nil
}

// onTopics are the ids of those messages that stand on a topic, committed or not.
func onTopics(e *checker.Evidence, ids []string) (out []string) {
	n := copies(e)
	for _, id := range ids {
		if n[id] > 0 {
			out = append(out, id)
		}
	}
	return out
}

// copies counts what stands on topics other than the application's own, by ce_id.
func copies(e *checker.Evidence) map[string]int {
	n := map[string]int{}
	for p, l := range e.Logs {
		if strings.HasPrefix(p.Topic, e.App+".") {
			continue
		}
		for i := range l.Records {
			if id, ok := l.Records[i].Header(events.HeaderID); ok {
				n[id]++
			}
		}
	}
	return n
}

// transactionalVerdict says what is missing for a run in transactions to have shown what it is for.
func (o *outcome) transactionalVerdict() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(len(o.report.Violations)+o.report.Suppressed == 0, "%d violations", len(o.report.Violations)+o.report.Suppressed)
	want(len(o.report.Limits) == 0, "the checker could not judge everything: %s", strings.Join(o.report.Limits, "; "))
	want(o.report.Told > 0 && o.report.Commands > 0, "%d commands and %d events were emitted", o.report.Commands, o.report.Told)
	want(o.compensated() >= 0.1, "%.0f%% of the sagas compensated", 100*o.compensated())
	confirmed, _ := o.fates()
	want(confirmed >= 3, "%d kills are proven to be between append and transaction", confirmed)
	n, points := copies(o.evidence), map[string]int{}
	for _, b := range o.broken {
		points[b.point]++
		for _, id := range b.ids {
			if b.point == pointCommit {
				want(n[id] > 1, "%s: %s stands on its topic once, so that its transaction was not aborted", b.line, id)
			} else {
				want(n[id] == 1, "%s: %s was committed, and emitted %d times", b.line, id, n[id])
			}
		}
	}
	want(points[pointCommit] >= 3 && points[pointCommitted] >= 3, "kills before and after a commit was sent: %v", points)
	return errors.Join(errs...)
}

// transactionalString prints the figures of such a run.
func (o *outcome) transactionalString() string {
	var b strings.Builder
	_, lines := o.fates()
	for _, l := range lines {
		fmt.Fprintf(&b, "  %s\n", l)
	}
	for _, x := range o.broken {
		line, _, _ := strings.Cut(x.line, " commands=")
		what := "on their topics and aborted"
		if x.point == pointCommitted {
			what = "committed, and not sent again"
		}
		fmt.Fprintf(&b, "  %s: %d messages are %s\n", line, len(x.ids), what)
	}
	seen := 0
	for _, ids := range o.committed {
		seen += len(ids)
	}
	all := 0
	for _, n := range copies(o.evidence) {
		all += n
	}
	fmt.Fprintf(&b, "orders: %d, compensated %.0f%%; messages on topics %d, seen by who reads committed records %d\n", o.orders, 100*o.compensated(), all, seen)
	b.WriteString(o.report.String())
	return b.String()
}
