package kafka

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// Bounds of one transaction. Readers of the topics wait for its end, so it is short; and whoever owned the
// shard and hangs in one holds them up for transactionTimeout at most.
const (
	transactionTimeout  = 10 * time.Second
	transactionMessages = 2000
	transactionBytes    = 4 << 20
)

// Transactions prepares to emit under a transactional id; see orchestrator.Transactor.
func (c *Client) Transactions(id, group string, at orchestrator.TopicPartition, topics []string) orchestrator.Emitter {
	ctx, cancel := context.WithCancel(context.Background())
	sorted := slices.Sorted(slices.Values(topics))
	return &emitter{c: c, id: id, group: group, at: at, topics: hashOf(sorted), ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// emitter has one transaction under way at a time; what is queued meanwhile goes into the next. Whatever
// leaves a transaction's outcome unknown is answered as a new owner would: take the id over again, which
// ends the transaction one way or the other, read the committed progress, and go on from there.
type emitter struct {
	c         *Client
	id, group string
	at        orchestrator.TopicPartition
	topics    string // a hash of their names: progress with others does not cover these

	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
	ended  chan struct{}

	mu      sync.Mutex
	queue   []*unit
	closing bool
	running bool

	// Of the one that opens, and then of run.
	cl        *kgo.Client
	implicit  bool // the brokers add partitions to transactions by themselves (KIP-890)
	journalID [16]byte
}

// unit is what one record emits.
type unit struct {
	at   orchestrator.Emitted
	msgs []*events.Message // nil where it is refused
	size int
	done func(int, error)
}

func (u *unit) tell(err error) {
	for i, m := range u.msgs {
		if m != nil {
			u.done(i, err)
		}
	}
}

// Open takes the id over, fencing whoever used it, and then reads what is committed.
func (e *emitter) Open(ctx context.Context) (orchestrator.Emitted, error) {
	at, err := e.open(ctx)
	if err != nil {
		return at, err
	}
	e.mu.Lock()
	e.running = true
	e.mu.Unlock()
	go e.run()
	return at, nil
}

func (e *emitter) open(ctx context.Context) (at orchestrator.Emitted, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if e.cl != nil {
		e.cl.Close()
		e.cl = nil
	}
	topic, err := e.c.metadata(ctx, e.at.Topic)
	if err != nil {
		return at, err
	}
	e.journalID = topic.TopicID
	if e.implicit, err = e.c.transactions2(ctx); err != nil {
		return at, err
	}
	opts := append(producerOpts(e.c.cfg),
		kgo.TransactionalID(e.id),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordDeliveryTimeout(e.c.cfg.AppendTimeout),
	)
	if !e.implicit {
		v := kversion.Stable()
		v.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
		opts = append(opts, kgo.MaxVersions(v))
	}
	if e.cl, err = e.c.client("emit", opts...); err != nil {
		return at, err
	}
	if _, _, err = e.cl.ProducerID(ctx); err != nil {
		return at, e.explain(err)
	}
	return e.committed(ctx)
}

// transactions2 says whether the brokers run the second version of transactions.
func (c *Client) transactions2(ctx context.Context) (bool, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "skald", "1"
	resp, err := req.RequestWith(ctx, c.admin)
	if err != nil {
		return false, c.unreachable(err)
	}
	most := map[int16]int16{}
	for _, k := range resp.ApiKeys {
		most[k.ApiKey] = k.MaxVersion
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" && f.MaxVersionLevel >= 2 {
			return most[int16(kmsg.Produce)] >= 12 && most[int16(kmsg.EndTxn)] >= 5 && most[int16(kmsg.TxnOffsetCommit)] >= 5, nil
		}
	}
	return false, nil
}

// committed reads the progress once no transaction that could change it is pending.
func (e *emitter) committed(ctx context.Context) (at orchestrator.Emitted, err error) {
	for {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.RequireStable = true
		req.Group = e.group
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = e.at.Topic, []int32{e.at.Partition}
		req.Topics = append(req.Topics, rt)
		rg := kmsg.NewOffsetFetchRequestGroup()
		rg.Group, rg.MemberEpoch = e.group, -1
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID, gt.Partitions = e.at.Topic, e.journalID, []int32{e.at.Partition}
		rg.Topics = append(rg.Topics, gt)
		req.Groups = append(req.Groups, rg)
		resp, err := req.RequestWith(ctx, e.c.admin)
		offset, metadata := int64(-1), ""
		take := func(code int16, o int64, m *string) {
			if err == nil {
				err = kerr.ErrorForCode(code)
			}
			if offset = o; m != nil {
				metadata = *m
			}
		}
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					take(p.ErrorCode, p.Offset, p.Metadata)
				}
			}
			for _, g := range resp.Groups {
				take(g.ErrorCode, -1, nil)
				for _, t := range g.Topics {
					for _, p := range t.Partitions {
						take(p.ErrorCode, p.Offset, p.Metadata)
					}
				}
			}
		}
		switch {
		case err == nil:
			seq, ok := e.understand(metadata)
			if offset < 0 || !ok {
				return at, nil
			}
			return orchestrator.Emitted{Next: offset, Seq: seq}, nil
		case errors.Is(err, kerr.GroupIDNotFound):
			return at, nil
		case !errors.Is(err, kerr.UnstableOffsetCommit) && !passes(err), !pause(ctx, 20*time.Millisecond):
			return at, e.explain(fmt.Errorf("group %s: %w", e.group, err))
		}
	}
}

// The progress is committed with what it is about: the journal's topic, the sequence of its last record, and
// the topics it covers. With another journal of that name, or other topics, it says nothing.
func (e *emitter) metadata(seq uint64) string {
	return fmt.Sprintf("skald 1 %s %s %d", hex.EncodeToString(e.journalID[:]), e.topics, seq)
}

func (e *emitter) understand(metadata string) (seq uint64, ok bool) {
	var id, topics string
	if n, err := fmt.Sscanf(metadata, "skald 1 %s %s %d", &id, &topics, &seq); n != 3 || err != nil {
		return 0, false
	}
	return seq, id == hex.EncodeToString(e.journalID[:]) && topics == e.topics
}

func hashOf(names []string) string {
	h := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return hex.EncodeToString(h[:8])
}

func (e *emitter) Emit(at orchestrator.Emitted, msgs []*events.Message, done func(int, error)) {
	u := &unit{at: at, msgs: slices.Clone(msgs), done: done}
	for _, m := range msgs {
		u.size += len(m.Key) + len(m.Value) + events.MaxHeaderBytes/16
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing || !e.running {
		go u.tell(errEmitterClosed)
		return
	}
	e.queue = append(e.queue, u)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

var errEmitterClosed = errors.New("the emitter was closed by its owner")

// Close lets the transaction under way end, and aborts it when it does not within a few seconds.
func (e *emitter) Close() {
	e.mu.Lock()
	running := e.running
	e.closing = true
	e.mu.Unlock()
	if running {
		select {
		case e.wake <- struct{}{}:
		default:
		}
		select {
		case <-e.ended:
		case <-time.After(closeTimeout):
		}
		e.cancel()
		<-e.ended
	}
	e.cancel()
	if e.cl != nil {
		e.cl.Close()
	}
}

func (e *emitter) run() {
	defer close(e.ended)
	var fenced error
	for {
		batch, closing := e.take()
		switch {
		case closing || fenced != nil:
			err := fenced
			if err == nil {
				err = errEmitterClosed
			}
			for _, u := range batch {
				u.tell(err)
			}
			if closing {
				return
			}
		case len(batch) > 0:
			if fenced = e.commit(batch); fenced != nil {
				for _, u := range batch {
					u.tell(fenced)
				}
			}
		default:
			select {
			case <-e.wake:
			case <-e.ctx.Done():
			}
		}
	}
}

// take gives what the next transaction holds; everything when the emitter is closing.
func (e *emitter) take() (batch []*unit, closing bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, messages, bytes := 0, 0, 0
	for n < len(e.queue) && (e.closing || messages < transactionMessages && bytes < transactionBytes) {
		messages += len(e.queue[n].msgs)
		bytes += e.queue[n].size
		n++
	}
	batch, e.queue = e.queue[:n:n], e.queue[n:]
	return batch, e.closing
}

// commit emits a batch, in one transaction unless something intervenes, and tells each unit. The error is
// that somebody else took the id over; then nobody is told.
func (e *emitter) commit(batch []*unit) error {
	again := 20 * time.Millisecond
	for open, singly := true, false; len(batch) > 0; {
		if !open {
			// The last transaction's outcome is whatever the brokers made of it.
			at, err := e.open(e.ctx)
			switch {
			case err == nil:
				open = true
			case e.ctx.Err() != nil:
				tell(batch, errEmitterClosed)
				return nil
			default:
				e.c.cfg.Logger.Warn("cannot emit in transactions; trying on", "id", e.id, "err", err)
				pause(e.ctx, again)
				again = min(2*again, 2*time.Second)
				continue
			}
			n := 0
			for n < len(batch) && batch[n].at.Next <= at.Next && batch[n].at.Seq <= at.Seq {
				n++
			}
			tell(batch[:n], nil)
			batch = batch[n:]
			continue
		}
		refused, err := e.transaction(batch, singly)
		singly = singly || refused > 0
		switch {
		case err == nil && refused == 0:
			tell(batch, nil)
			return nil
		case err == nil: // without what was refused, once more
		case e.ctx.Err() != nil:
			tell(batch, errEmitterClosed)
			return nil
		case errors.Is(err, orchestrator.ErrFenced):
			return err
		default:
			e.c.cfg.Logger.Warn("a transaction failed; its messages are emitted again", "id", e.id, "err", err)
			open = false
			pause(e.ctx, again)
			again = min(2*again, 2*time.Second)
		}
	}
	return nil
}

func tell(batch []*unit, err error) {
	for _, u := range batch {
		u.tell(err)
	}
}

// transaction emits the batch with its progress, or nothing of it. refused counts the messages that never can
// be emitted; the others are then not emitted either. A refusal is of all that a client sent in one piece: who is
// meant shows only when each is sent singly, and only then is it told.
func (e *emitter) transaction(batch []*unit, singly bool) (refused int, err error) {
	type sent struct {
		u   *unit
		i   int
		err error
	}
	var all []*sent
	for _, u := range batch {
		for i, m := range u.msgs {
			if m != nil {
				all = append(all, &sent{u: u, i: i})
			}
		}
	}
	if len(all) == 0 {
		return 0, nil // the next transaction's progress passes them
	}
	if err := e.cl.BeginTransaction(); err != nil {
		return 0, e.explain(err)
	}
	var wg sync.WaitGroup
	for _, s := range all {
		m := s.u.msgs[s.i]
		wg.Add(1)
		e.cl.Produce(e.ctx, recordOf(m), func(r *kgo.Record, err error) {
			defer wg.Done()
			if n, ok := r.Context.(noPartition); ok {
				err = n.err
			}
			s.err = err
		})
		if singly {
			wg.Wait()
		}
	}
	wg.Wait()
	for _, s := range all {
		if s.err == nil {
			continue
		}
		m := s.u.msgs[s.i]
		s.err = refusal(s.err, m.Topic, m.Partition)
		if !errors.Is(s.err, orchestrator.ErrRefused) {
			err = errors.Join(err, s.err)
			continue
		}
		if errors.Is(s.err, kerr.UnknownTopicID) {
			err = errors.Join(err, s.err) // a new client takes up the topic that was created anew
		}
		if refused++; singly || mutant.On("kafka-refusal-of-the-whole-batch") {
			s.u.done(s.i, s.err)
			s.u.msgs[s.i] = nil
		}
	}
	if err == nil && refused == 0 {
		last := batch[len(batch)-1].at
		if err = e.progress(last); err == nil {
			return 0, e.explain(e.cl.EndTransaction(e.ctx, kgo.TryCommit))
		}
	}
	if aerr := e.cl.EndTransaction(e.ctx, kgo.TryAbort); err == nil && aerr != nil {
		err = aerr
	}
	if err == nil {
		return refused, nil
	}
	return refused, e.explain(err)
}

// progress adds to the transaction that everything up to at is emitted.
func (e *emitter) progress(at orchestrator.Emitted) error {
	if mutant.On("kafka-transaction-without-progress") {
		return nil
	}
	ctx, cancel := context.WithTimeout(e.ctx, transactionTimeout)
	defer cancel()
	id, epoch, err := e.cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	for !e.implicit {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = e.id, id, epoch, e.group
		resp, err := req.RequestWith(ctx, e.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) || !pause(ctx, 10*time.Millisecond) {
			return err
		}
	}
	for {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = e.id, e.group, id, epoch
		req.Generation = -1
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic, t.TopicID = e.at.Topic, e.journalID
		p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = e.at.Partition, at.Next, kmsg.StringPtr(e.metadata(at.Seq))
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, e.cl)
		if err == nil && (len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1) {
			err = errors.New("the broker left the partition out of its answer")
		}
		if err == nil {
			err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) && !passes(err) || !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("group %s: %w", e.group, err)
		}
	}
}

// explain says what the operator or the engine has to know of an error.
func (e *emitter) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("%w: transactional id %s: %w", orchestrator.ErrFenced, e.id, err)
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
		return &Error{Code: CodeForbidden, Detail: fmt.Sprintf("transactional id %s, with group %s", e.id, e.group), Cure: "set the ACLs that `skald topics plan --transactional` prints", Err: err}
	}
	return err
}
