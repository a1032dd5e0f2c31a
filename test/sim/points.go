package main

import (
	"context"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/store"
)

// An owner reaches the world through its ports alone, and each call of each of their methods is a point at which it
// can die: right before, or right after. The wrappers below have every method of their port written out, so that a new
// one does not compile until it is here; points_test.go enumerates the methods from the ports' types, and each must be
// found to crash. What a method is called for is part of the point's name: "Log.Append/claim".

// trap is where an owner dies.
type trap struct {
	point string // "": any
	after bool   // the call, not before it
	count int    // at which time it comes there, from 1
}

// crash is what an owner panics with that dies at a point.
type crash struct{ point string }

// visit passes a point, or dies there. seen counts the points that an owner comes by.
func (o *owner) visit(point string, after bool) {
	if seen := o.s.seen; seen != nil {
		seen[visited{point, after}]++
	}
	t := o.trap
	if t == nil || t.point != "" && (t.point != point || t.after != after) {
		return
	}
	if t.count--; t.count > 0 {
		return
	}
	o.trap = nil
	panic(crash{point})
}

type visited struct {
	point string
	after bool
}

// around makes a call between the two points of its name.
func (o *owner) around(point string, call func()) {
	o.visit(point, false)
	call()
	o.visit(point, true)
}

// named is a call of a port, and its acknowledgement, by what it is called for.
type named struct{ call, ack string }

func names(method string, sorts ...string) (out []named) {
	for _, sort := range sorts {
		out = append(out, named{method + "/" + sort, method + "/" + sort + "/ack"})
	}
	return out
}

const (
	appendClaim = iota
	appendDecision
	appendProgress
	appendCheckpoint
	appendCarry
	appendLastCarry

	produceCommand = iota - appendLastCarry - 1
	produceForward
	produceMessage
	produceQuarantine
	produceEvent
)

var (
	appends  = names("Log.Append", "claim", "decision", "progress", "checkpoint", "carry", "last-carry")
	produces = names("Kafka.Produce", "command", "forward", "message", "quarantine", "event")
)

func sortOf(r *events.Record) int {
	switch {
	case r.Kind == events.KindClaim:
		return appendClaim
	case r.Kind == events.KindCheckpoint:
		return appendCheckpoint
	case r.Carry != nil && r.Carry.End != 0:
		return appendLastCarry
	case r.Carry != nil:
		return appendCarry
	case r.Decision.Outcome == events.Progressed:
		return appendProgress
	}
	return appendDecision
}

func (s *simulation) sortOf(m *events.Message) int {
	switch {
	case s.topics.commands[m.Topic]:
		return produceCommand
	case m.Topic == quarantineTopic:
		return produceQuarantine
	case m.Topic != inboxTopic:
		return produceEvent
	}
	if _, forward := m.Header(events.HeaderForward); forward {
		return produceForward
	}
	return produceMessage
}

// portKafka is a connection of an owner, with points.
type portKafka struct {
	to *connection
	o  *owner
}

var (
	_ orchestrator.Kafka      = portKafka{}
	_ orchestrator.Committer  = portKafka{}
	_ orchestrator.Transactor = portKafka{}
	_ orchestrator.Emitter    = portEmitter{}
	_ orchestrator.Log        = portLog{}
	_ store.Store             = portStore{}
	_ store.Snapshot          = portSnapshot{}
)

func (p portKafka) Check(ctx context.Context, n orchestrator.Needs) (warnings []error, err error) {
	p.o.around("Kafka.Check", func() { warnings, err = p.to.Check(ctx, n) })
	return warnings, err
}

func (p portKafka) Topics(ctx context.Context, names ...string) (found map[string]orchestrator.Topic, err error) {
	p.o.around("Kafka.Topics", func() { found, err = p.to.Topics(ctx, names...) })
	return found, err
}

func (p portKafka) Bounds(ctx context.Context, parts []place) (found map[place]orchestrator.Bounds, err error) {
	p.o.around("Kafka.Bounds", func() { found, err = p.to.Bounds(ctx, parts) })
	return found, err
}

func (p portKafka) DeleteRecords(ctx context.Context, at place, before int64) (err error) {
	p.o.around("Kafka.DeleteRecords", func() { err = p.to.DeleteRecords(ctx, at, before) })
	return err
}

func (p portKafka) Log(topic string, partition int32) (log orchestrator.Log) {
	p.o.around("Kafka.Log", func() { log = portLog{p.to.Log(topic, partition), p.o} })
	return log
}

func (p portKafka) Produce(m *events.Message, done func(error)) {
	what := produces[p.o.s.sortOf(m)]
	p.o.around(what.call, func() {
		p.to.Produce(m, func(err error) { p.o.around(what.ack, func() { done(err) }) })
	})
}

func (p portKafka) Consume(at place, from int64, sink orchestrator.Sink) {
	p.o.around("Kafka.Consume", func() { p.to.Consume(at, from, sink) })
}

func (p portKafka) Stop(at place)   { p.o.around("Kafka.Stop", func() { p.to.Stop(at) }) }
func (p portKafka) Pause(at place)  { p.o.around("Kafka.Pause", func() { p.to.Pause(at) }) }
func (p portKafka) Resume(at place) { p.o.around("Kafka.Resume", func() { p.to.Resume(at) }) }

func (p portKafka) Join(group, topic string, m orchestrator.Member) (leave func(), err error) {
	p.o.around("Kafka.Join", func() { leave, err = p.to.Join(group, topic, m) })
	return leave, err
}

func (p portKafka) MemberID(group string) (id string) {
	p.o.around("Kafka.MemberID", func() { id = p.to.MemberID(group) })
	return id
}

func (p portKafka) Members(ctx context.Context, group string) (ids []string, err error) {
	p.o.around("Kafka.Members", func() { ids, err = p.to.Members(ctx, group) })
	return ids, err
}

func (p portKafka) Evict(ctx context.Context, group, member string) (err error) {
	p.o.around("Kafka.Evict", func() { err = p.to.Evict(ctx, group, member) })
	return err
}

func (p portKafka) Rejoin(group string) { p.o.around("Kafka.Rejoin", func() { p.to.Rejoin(group) }) }
func (p portKafka) Close()              { p.o.around("Kafka.Close", func() { p.to.Close() }) }

func (p portKafka) Commit(ctx context.Context, group string, positions map[place]int64) (err error) {
	p.o.around("Committer.Commit", func() { err = p.to.Commit(ctx, group, positions) })
	return err
}

func (p portKafka) Transactions(id, group string, journal place, topics []string) (e orchestrator.Emitter) {
	p.o.around("Transactor.Transactions", func() { e = portEmitter{p.to.Transactions(id, group, journal, topics), p.o} })
	return e
}

type portEmitter struct {
	to orchestrator.Emitter
	o  *owner
}

func (p portEmitter) Open(ctx context.Context) (done orchestrator.Emitted, err error) {
	p.o.around("Emitter.Open", func() { done, err = p.to.Open(ctx) })
	return done, err
}

func (p portEmitter) Emit(at orchestrator.Emitted, messages []*events.Message, done func(int, error)) {
	p.o.around("Emitter.Emit", func() {
		p.to.Emit(at, messages, func(n int, err error) { p.o.around("Emitter.Emit/ack", func() { done(n, err) }) })
	})
}

func (p portEmitter) Close() { p.o.around("Emitter.Close", func() { p.to.Close() }) }

type portLog struct {
	to *journalLog
	o  *owner
}

func (p portLog) Append(value []byte, done func(int64, error)) {
	rec, err := events.DecodeRecord(value)
	if err != nil {
		p.o.s.wrong("%s appends what cannot be read: %v", p.o, err)
	}
	what := appends[sortOf(rec)]
	p.o.around(what.call, func() {
		p.to.append(value, rec, func(at int64, err error) { p.o.around(what.ack, func() { done(at, err) }) })
	})
}

func (p portLog) Read(ctx context.Context, from int64, fn func(orchestrator.LogRecord) error) (next int64, err error) {
	p.o.around("Log.Read", func() { next, err = p.to.Read(ctx, from, fn) })
	return next, err
}

func (p portLog) Bounds(ctx context.Context) (b orchestrator.Bounds, err error) {
	p.o.around("Log.Bounds", func() { b, err = p.to.Bounds(ctx) })
	return b, err
}

func (p portLog) Trim(ctx context.Context, before int64) (err error) {
	p.o.around("Log.Trim", func() { err = p.to.Trim(ctx, before) })
	return err
}

func (p portLog) TopicID(ctx context.Context) (id [16]byte, err error) {
	p.o.around("Log.TopicID", func() { id, err = p.to.TopicID(ctx) })
	return id, err
}

func (p portLog) Close() { p.o.around("Log.Close", func() { p.to.Close() }) }

// portStore is the store of an owner, with points, and with a disk that may fail (disk.go).
type portStore struct {
	to store.Store
	o  *owner
}

// use makes a call of the store, unless its disk fails.
func (p portStore) use(point string, call func() error) (err error) {
	p.o.around(point, func() {
		if err = p.o.diskFails(); err == nil {
			err = call()
		}
	})
	return err
}

func (p portStore) State() (row []byte, err error) {
	err = p.use("Store.State", func() (err error) { row, err = p.to.State(); return err })
	return row, err
}

func (p portStore) Get(key []byte) (row store.Row, ok bool, err error) {
	err = p.use("Store.Get", func() (err error) { row, ok, err = p.to.Get(key); return err })
	return row, ok, err
}

func (p portStore) Scan(from, to []byte, fn func(store.Row) bool) error {
	return p.use("Store.Scan", func() error { return p.to.Scan(from, to, fn) })
}

func (p portStore) Due(until int64, fn func(store.Timer) bool) error {
	return p.use("Store.Due", func() error { return p.to.Due(until, fn) })
}

func (p portStore) NextDue() (due int64, err error) {
	err = p.use("Store.NextDue", func() (err error) { due, err = p.to.NextDue(); return err })
	return due, err
}

func (p portStore) Apply(b *store.Batch) error {
	return p.use("Store.Apply", func() error { return p.o.disk.apply(p.to, b) })
}

func (p portStore) Load(c *store.Changes, state []byte) error {
	return p.use("Store.Load", func() error { return p.o.disk.load(p.to, c, state) })
}

func (p portStore) Snapshot() (snap store.Snapshot, err error) {
	err = p.use("Store.Snapshot", func() (err error) { snap, err = p.to.Snapshot(); return err })
	if err != nil {
		return nil, err
	}
	return portSnapshot{snap, p.o}, nil
}

func (p portStore) Close() (err error) {
	p.o.around("Store.Close", func() { err = p.to.Close() })
	return err
}

type portSnapshot struct {
	to store.Snapshot
	o  *owner
}

func (p portSnapshot) State() (row []byte, err error) {
	p.o.around("Snapshot.State", func() { row, err = p.to.State() })
	return row, err
}

func (p portSnapshot) Scan(from, to []byte, fn func(store.Row) bool) (err error) {
	p.o.around("Snapshot.Scan", func() { err = p.to.Scan(from, to, fn) })
	return err
}

func (p portSnapshot) Close() (err error) {
	p.o.around("Snapshot.Close", func() { err = p.to.Close() })
	return err
}
