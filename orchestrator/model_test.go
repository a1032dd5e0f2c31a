package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

// model is a cluster in memory: every append and produce waits in a queue until the test lets it through,
// so that a test decides what was acknowledged, lost or late when an owner dies.
type model struct {
	mu      sync.Mutex
	now     int64
	parts   map[TopicPartition]*modelPart
	queue   []*modelWrite // produced and appended, not yet in the log
	manual  bool          // writes wait for step or flush
	refused map[string]error
	sinks   map[TopicPartition]*modelSink
	trimErr error
}

type modelPart struct {
	start   int64
	records []LogRecord
	msgs    []events.Message
}

type modelWrite struct {
	tp   TopicPartition
	log  *modelLog // nil: a produced message
	v    []byte
	m    events.Message
	ack  func(int64, error)
	done func(error)
}

type modelSink struct {
	sink Sink
	next int64
	held bool
}

func newModel(shards int, topics ...string) *model {
	m := &model{now: 1_000_000, parts: map[TopicPartition]*modelPart{}, refused: map[string]error{}, sinks: map[TopicPartition]*modelSink{}}
	for _, t := range topics {
		for p := range shards {
			m.parts[TopicPartition{t, int32(p)}] = &modelPart{}
		}
	}
	return m
}

func (m *model) part(tp TopicPartition) *modelPart {
	if m.parts[tp] == nil {
		m.parts[tp] = &modelPart{}
	}
	return m.parts[tp]
}

func (m *model) Check(context.Context, Needs) ([]error, error) { return nil, nil }

func (m *model) Topics(context.Context, ...string) (map[string]Topic, error) {
	return nil, errors.New("not modelled")
}

func (m *model) Bounds(_ context.Context, tps []TopicPartition) (map[TopicPartition]Bounds, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[TopicPartition]Bounds{}
	for _, tp := range tps {
		p := m.part(tp)
		out[tp] = Bounds{p.start, p.start + int64(len(p.msgs))}
	}
	return out, nil
}

func (m *model) DeleteRecords(_ context.Context, tp TopicPartition, before int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.part(tp)
	if n := before - p.start; n > 0 {
		p.msgs, p.start = p.msgs[n:], before
	}
	return nil
}

func (m *model) Produce(msg *events.Message, done func(error)) {
	m.mu.Lock()
	if err := m.refused[msg.Topic]; err != nil {
		m.mu.Unlock()
		done(err)
		return
	}
	w := &modelWrite{m: *msg, done: done}
	p := msg.Partition
	if p < 0 {
		p = 0
	}
	w.tp = TopicPartition{msg.Topic, p}
	m.queue = append(m.queue, w)
	manual := m.manual
	m.mu.Unlock()
	if !manual {
		m.flush()
	}
}

// flush lets everything through that waits, in order.
func (m *model) flush() {
	for m.step() {
	}
}

// step lets the first waiting write through; false when none waits.
func (m *model) step() bool {
	m.mu.Lock()
	if len(m.queue) == 0 {
		m.mu.Unlock()
		return false
	}
	w := m.queue[0]
	m.queue = m.queue[1:]
	m.mu.Unlock()
	m.write(w, true)
	return true
}

// write puts w into its log and, if acked, tells its writer.
func (m *model) write(w *modelWrite, acked bool) {
	m.mu.Lock()
	p := m.part(w.tp)
	var offset int64
	if w.done == nil {
		offset = p.start + int64(len(p.records))
		p.records = append(p.records, LogRecord{Offset: offset, Time: m.now, Value: w.v})
	} else {
		offset = p.start + int64(len(p.msgs))
		w.m.Offset, w.m.Partition, w.m.Topic = offset, w.tp.Partition, w.tp.Topic
		p.msgs = append(p.msgs, w.m)
	}
	m.mu.Unlock()
	if acked {
		if w.done != nil {
			w.done(nil)
		} else {
			w.ack(offset, nil)
		}
	}
	m.deliverTo(w.tp)
}

// put adds a message from outside.
func (m *model) put(msg events.Message) {
	m.write(&modelWrite{tp: TopicPartition{msg.Topic, msg.Partition}, m: msg, done: func(error) {}}, true)
}

func (m *model) deliverTo(tp TopicPartition) {
	m.mu.Lock()
	s := m.sinks[tp]
	p := m.part(tp)
	var batch []events.Message
	if s != nil && !s.held && s.next < p.start+int64(len(p.msgs)) {
		batch = slices.Clone(p.msgs[s.next-p.start:])
		s.next = p.start + int64(len(p.msgs))
	}
	m.mu.Unlock()
	if len(batch) > 0 {
		s.sink.Records(tp, batch)
	}
}

func (m *model) Consume(tp TopicPartition, from int64, sink Sink) {
	m.mu.Lock()
	m.sinks[tp] = &modelSink{sink: sink, next: from}
	m.mu.Unlock()
	m.deliverTo(tp)
}

func (m *model) Stop(tp TopicPartition) {
	m.mu.Lock()
	delete(m.sinks, tp)
	m.mu.Unlock()
}

func (m *model) Pause(tp TopicPartition) {
	m.mu.Lock()
	m.sinks[tp].held = true
	m.mu.Unlock()
}

func (m *model) Resume(tp TopicPartition) {
	m.mu.Lock()
	m.sinks[tp].held = false
	m.mu.Unlock()
	m.deliverTo(tp)
}

func (m *model) Join(string, string, Member) (func(), error) { return nil, errors.New("not modelled") }
func (m *model) MemberID(string) string                      { return "" }
func (m *model) Rejoin(string)                               {}

func (m *model) Members(context.Context, string) ([]string, error) {
	return nil, errors.New("not modelled")
}

func (m *model) Evict(context.Context, string, string) error { return errors.New("not modelled") }

func (m *model) Close() {}

func (m *model) Log(topic string, partition int32) Log {
	return &modelLog{m: m, tp: TopicPartition{topic, partition}}
}

type modelLog struct {
	m  *model
	tp TopicPartition
}

func (l *modelLog) Append(v []byte, done func(int64, error)) {
	l.m.mu.Lock()
	l.m.queue = append(l.m.queue, &modelWrite{tp: l.tp, log: l, v: v, ack: done})
	manual := l.m.manual
	l.m.mu.Unlock()
	if !manual {
		l.m.flush()
	}
}

func (l *modelLog) Read(_ context.Context, from int64, fn func(LogRecord) error) (int64, error) {
	l.m.mu.Lock()
	p := l.m.part(l.tp)
	from = max(from, p.start)
	records := slices.Clone(p.records[from-p.start:])
	l.m.mu.Unlock()
	for _, r := range records {
		if err := fn(r); err != nil {
			return r.Offset, err
		}
	}
	return from + int64(len(records)), nil
}

func (l *modelLog) Bounds(context.Context) (Bounds, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	p := l.m.part(l.tp)
	return Bounds{p.start, p.start + int64(len(p.records))}, nil
}

func (l *modelLog) Trim(_ context.Context, before int64) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	p := l.m.part(l.tp)
	if l.m.trimErr != nil {
		return l.m.trimErr
	}
	if n := before - p.start; n > 0 {
		p.records, p.start = p.records[n:], before
	}
	return nil
}

func (l *modelLog) TopicID(context.Context) ([16]byte, error) { return [16]byte{1}, nil }
func (l *modelLog) Close()                                    {}

// records of a topic's partition.
func (m *model) messages(topic string, partition int32) []events.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.part(TopicPartition{topic, partition}).msgs)
}

// story drives shards of one application on a model, without goroutines of its own.
type story struct {
	t      *testing.T
	kafka  *model
	shards int
	plan   *sagas.Plan
	stores map[int32]*store.Memory
	tune   func(*ShardConfig)
	nonces byte
}

const app = "shop"

func newStory(t *testing.T, shards int, def Definition) *story {
	t.Helper()
	plan, err := def.Plan()
	if err != nil {
		t.Fatal(err)
	}
	topics := events.Topics{App: app}
	return &story{t: t, shards: shards, plan: plan, stores: map[int32]*store.Memory{},
		kafka: newModel(shards, topics.Journal(), topics.Inbox(), topics.Replies(), plan.Start.Topic)}
}

func (st *story) config(id int32, node string) ShardConfig {
	if st.stores[id] == nil {
		st.stores[id] = store.NewMemory()
	}
	l := layout{shards: st.shards, domain: map[string]int{st.plan.Start.Topic: st.shards}}
	cfg := ShardConfig{
		App: app, ID: id, Shards: st.shards, Node: node, Kafka: st.kafka, Store: st.stores[id], Inputs: l.inputsOf(id), Domain: l.domain,
		Machine: machine.New(machine.Config{App: app, Slots: st.shards * events.SlotsPerShard, Plans: []*sagas.Plan{st.plan}}),
		From:    FromEarliest, Logger: slog.New(slog.DiscardHandler), Stats: &shardStats{}, MaxRecord: 768 << 10, MaxInFlight: 100, CompactAfter: 1 << 40, RowCache: 8 << 10, ApplyAfter: 200 * time.Millisecond, BacklogWait: time.Minute,
		Clock: func() int64 { st.kafka.mu.Lock(); defer st.kafka.mu.Unlock(); return st.kafka.now },
		Nonce: func() events.Nonce { st.nonces++; return events.Nonce{st.nonces} },
	}
	if st.tune != nil {
		st.tune(&cfg)
	}
	return cfg
}

// open opens a shard with what it needs acknowledged.
func (st *story) open(id int32, node string) *Shard {
	st.t.Helper()
	manual := st.kafka.manual
	st.kafka.manual = false
	sh, err := OpenShard(context.Background(), st.config(id, node))
	st.kafka.manual = manual
	if err != nil {
		st.t.Fatalf("opening shard %d on %s: %v", id, node, err)
	}
	return sh
}

// lose forgets a shard's store: the next owner rebuilds it from the journal.
func (st *story) lose(id int32) { delete(st.stores, id) }

// turn drives a shard until it has nothing more to do, also not in its store.
func (st *story) turn(shards ...*Shard) error {
	st.t.Helper()
	if err := st.rush(shards...); err != nil {
		return err
	}
	for _, sh := range shards {
		if err := sh.apply(); err != nil {
			return err
		}
	}
	return nil
}

// rush drives a shard until nothing is left to do but what has time.
func (st *story) rush(shards ...*Shard) error {
	st.t.Helper()
	for range 1000 {
		busy := false
		for _, sh := range shards {
			wait, err := sh.Turn(context.Background())
			if err != nil {
				return err
			}
			busy = busy || sh.hasMail() || wait == 0
		}
		if !busy {
			return nil
		}
	}
	st.t.Fatal("the shards do not come to rest")
	return nil
}

func (s *Shard) hasMail() bool {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	return len(s.mail.acks)+len(s.mail.records)+len(s.mail.done) > 0
}

func (st *story) advance(d time.Duration) {
	st.kafka.mu.Lock()
	st.kafka.now += d.Milliseconds()
	st.kafka.mu.Unlock()
}

func (st *story) order(partition int32, key string) {
	st.kafka.put(events.Message{Topic: st.plan.Start.Topic, Partition: partition, Key: []byte(key), Value: []byte(`{"id":"` + key + `"}`)})
}

// commands are the messages on a command topic, by ce_id, in order, without repeats.
func (st *story) commands(topic string) (ids []string, repeats int) {
	for _, m := range st.kafka.messages(topic, 0) {
		id, _ := m.Header(events.HeaderID)
		if slices.Contains(ids, id) {
			repeats++
			continue
		}
		ids = append(ids, id)
	}
	return ids, repeats
}

// reply answers a command on a partition of the replies topic.
func (st *story) reply(partition int32, command, outcome string) {
	headers := []events.Header{{Key: events.HeaderCausationID, Value: []byte(command)}}
	if outcome != "" {
		headers = append(headers, events.Header{Key: events.HeaderOutcome, Value: []byte(outcome)})
	}
	st.kafka.put(events.Message{Topic: events.Topics{App: app}.Replies(), Partition: partition, Key: []byte("k"), Value: []byte(`{}`), Headers: headers})
}

// heads are the instances of a shard as its store has them.
func (st *story) heads(id int32) map[events.InstanceID]*events.Head {
	st.t.Helper()
	out := map[events.InstanceID]*events.Head{}
	err := st.stores[id].Scan([]byte{events.FamilyInstance}, []byte{events.FamilyInstance + 1}, func(r store.Row) bool {
		iid, ref, _ := events.ParseRowKey(r.Key)
		if ref.Part == events.PartHead {
			h, err := events.DecodeHead(slices.Clone(r.Value))
			if err != nil {
				st.t.Fatal(err)
			}
			out[iid] = h
		}
		return true
	})
	if err != nil {
		st.t.Fatal(err)
	}
	return out
}

func (st *story) wantStates(id int32, want ...events.State) {
	st.t.Helper()
	var got []events.State
	for _, h := range st.heads(id) {
		got = append(got, h.State)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		st.t.Errorf("shard %d holds instances in states %v, want %v", id, got, want)
	}
}

// rebuilt folds the shard's journal from its start into an empty store and compares it with the live one.
func (st *story) wantRebuilt(id int32) {
	st.t.Helper()
	fresh := store.NewMemory()
	f := follower{log: st.kafka.Log(events.Topics{App: app}.Journal(), id), store: fresh, logger: slog.New(slog.DiscardHandler)}
	if err := errors.Join(f.load(context.Background()), f.catchUp(context.Background())); err != nil {
		st.t.Fatal(err)
	}
	n, want, err := store.Hash(st.stores[id])
	if err != nil {
		st.t.Fatal(err)
	}
	m, got, err := store.Hash(fresh)
	if err != nil {
		st.t.Fatal(err)
	}
	if got != want {
		st.t.Errorf("a rebuild of shard %d gives %d rows (%x), the live store has %d (%x)", id, m, got[:4], n, want[:4])
	}
}

func keyOn(shard int32, shards int, n int) string {
	for i := 0; ; i++ {
		k := fmt.Sprintf("order-%d-%d", n, i)
		if int32(int(events.Slot([]byte(k), shards*events.SlotsPerShard))%shards) == shard {
			return k
		}
	}
}

// waitFor tries until ok: trims run beside the loop.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

func rowsOf(t *testing.T, st *story, id int32) (n int, sum [32]byte) {
	t.Helper()
	n, sum, err := store.Hash(st.stores[id])
	if err != nil {
		t.Fatal(err)
	}
	return n, sum
}

// timersFired counts the decisions in a shard's journal that answer a timer.
func (st *story) timersFired(id int32) (n int) {
	st.t.Helper()
	for _, r := range st.kafka.part(TopicPartition{"shop.journal", id}).records {
		rec, err := events.DecodeRecord(r.Value)
		if err != nil {
			st.t.Fatal(err)
		}
		if rec.Decision != nil && rec.Decision.Input.Kind == events.InputTimer {
			n++
		}
	}
	return n
}
