package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	real "github.com/skald-io/skald/test/kafka"
)

// broker is a cluster that the ports are tried on.
type broker struct {
	addr string
	fake *kfake.Cluster // nil: it is real
}

// onEach runs a test on the embedded broker, and on real Kafka where that is asked for.
func onEach(t *testing.T, test func(t *testing.T, b *broker)) {
	t.Run("embedded", func(t *testing.T) { test(t, embedded(t)) })
	t.Run("real", func(t *testing.T) { test(t, &broker{addr: real.Require(t).Addr()}) })
}

func embedded(t *testing.T) *broker {
	t.Helper()
	d, err := kafka.StartDev(kafka.DevOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return &broker{d.Addr(), d.Cluster()}
}

func (b *broker) dial(t *testing.T, adjust ...func(*kafka.Config)) *kafka.Client {
	t.Helper()
	cfg := kafka.Config{Brokers: []string{b.addr}, Session: 2 * time.Second}
	for _, f := range adjust {
		f(&cfg)
	}
	c, err := kafka.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// plain is a client that is not ours.
func (b *broker) plain(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

var topics atomic.Int64

// name is one that no other test uses.
func name(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '#' {
			return '-'
		}
		return r
	}, t.Name())), topics.Add(1))
}

func (b *broker) topic(t *testing.T, partitions int, config ...string) string {
	t.Helper()
	topic := name(t)
	b.create(t, topic, partitions, config...)
	return topic
}

func (b *broker) create(t *testing.T, topic string, partitions int, config ...string) {
	t.Helper()
	m := make(map[string]*string)
	for i := 0; i < len(config); i += 2 {
		m[config[i]] = &config[i+1]
	}
	if _, err := kadm.NewClient(b.plain(t)).CreateTopic(ctx(t), int32(partitions), 1, m, topic); err != nil {
		t.Fatal(err)
	}
	// The answer comes before every partition has a leader.
	c := b.dial(t)
	until(t, "topic "+topic+" is there", func() bool {
		ts, err := c.Topics(ctx(t), topic)
		if err != nil || ts[topic].Partitions != partitions {
			return false
		}
		var all []orchestrator.TopicPartition
		for p := range partitions {
			all = append(all, orchestrator.TopicPartition{Topic: topic, Partition: int32(p)})
		}
		_, err = c.Bounds(ctx(t), all)
		return err == nil
	})
}

func (b *broker) delete(t *testing.T, topic string) {
	t.Helper()
	if _, err := kadm.NewClient(b.plain(t)).DeleteTopic(ctx(t), topic); err != nil {
		t.Fatal(err)
	}
	c := b.dial(t)
	until(t, "topic "+topic+" is gone", func() bool {
		ts, err := c.Topics(ctx(t), topic)
		return err == nil && ts[topic].Partitions == 0
	})
}

func ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.Tick(5 * time.Millisecond)
	for end := time.Now().Add(30 * time.Second); !cond(); <-tick {
		if time.Now().After(end) {
			t.Fatalf("it never came to pass that %s", what)
		}
	}
}

func tp(topic string, partition int32) orchestrator.TopicPartition {
	return orchestrator.TopicPartition{Topic: topic, Partition: partition}
}

// acks collects what Append says.
type acks struct {
	mu  sync.Mutex
	got []ack
	n   chan struct{}
}

type ack struct {
	i      int
	offset int64
	err    error
}

func newAcks() *acks { return &acks{n: make(chan struct{}, 1<<16)} }

func (a *acks) done(i int) func(int64, error) {
	return func(offset int64, err error) {
		a.mu.Lock()
		a.got = append(a.got, ack{i, offset, err})
		a.mu.Unlock()
		a.n <- struct{}{}
	}
}

func (a *acks) wait(t *testing.T, n int) []ack {
	t.Helper()
	for range n {
		select {
		case <-a.n:
		case <-time.After(30 * time.Second):
			t.Fatalf("an append is never answered; so far: %v", a.all())
		}
	}
	return a.all()
}

func (a *acks) all() []ack {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// appendN appends values v0, v1, … and waits for their acknowledgements.
func appendN(t *testing.T, l orchestrator.Log, from, n int) []ack {
	t.Helper()
	a := newAcks()
	for i := range n {
		l.Append(fmt.Appendf(nil, "v%d", from+i), a.done(i))
	}
	got := a.wait(t, n)
	for _, x := range got {
		if x.err != nil {
			t.Fatal(x.err)
		}
	}
	return got
}

func readAll(t *testing.T, l orchestrator.Log, from int64) (records []orchestrator.LogRecord, next int64) {
	t.Helper()
	next, err := l.Read(ctx(t), from, func(r orchestrator.LogRecord) error {
		records = append(records, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records, next
}

func TestAppendsAreAcknowledgedInOrderWithTheirOffsetsAndReadBack(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		const n = 2000
		l := b.dial(t).Log(b.topic(t, 2), 1)
		defer l.Close()
		for i, a := range appendN(t, l, 0, n) {
			if a.i != i || a.offset != int64(i) {
				t.Fatalf("acknowledgement %d is of append %d at offset %d", i, a.i, a.offset)
			}
		}
		records, next := readAll(t, l, 0)
		if len(records) != n || next != n {
			t.Fatalf("read %d records up to %d, want %d", len(records), next, n)
		}
		for i, r := range records {
			if r.Offset != int64(i) || string(r.Value) != fmt.Sprintf("v%d", i) {
				t.Fatalf("record %d is %q at offset %d", i, r.Value, r.Offset)
			}
		}
		if records, next := readAll(t, l, 1990); len(records) != 10 || records[0].Offset != 1990 || next != n {
			t.Fatalf("from 1990: %d records up to %d", len(records), next)
		}
		if records, next := readAll(t, l, n); len(records) != 0 || next != n {
			t.Fatalf("from the end: %d records up to %d", len(records), next)
		}
		if _, err := l.Read(ctx(t), n+1, nil); !errors.Is(err, orchestrator.ErrPositionLost) {
			t.Fatalf("from above the end: %v", err)
		}
	})
}

func TestAReadEndsWhereTheLogEndedWhenItBegan(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		w := newSwitch()
		l := b.dial(t, w.through).Log(b.topic(t, 1), 0)
		defer l.Close()
		appendN(t, l, 0, 10)
		const fetch = 1
		w.before(fetch, func() { appendN(t, l, 10, 10) })
		seen := 0
		next, err := l.Read(ctx(t), 0, func(orchestrator.LogRecord) error { seen++; return nil })
		if err != nil || seen != 10 || next != 10 {
			t.Fatalf("read %d records up to %d: %v", seen, next, err)
		}
		if records, _ := readAll(t, l, 0); len(records) != 20 {
			t.Fatalf("%d records: nothing was appended between", len(records))
		}
	})
}

func TestAReadThatItsCallerEndsGoesOnAtTheSameRecord(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		l := b.dial(t).Log(b.topic(t, 1), 0)
		defer l.Close()
		appendN(t, l, 0, 5)
		stop := errors.New("enough")
		next, err := l.Read(ctx(t), 0, func(r orchestrator.LogRecord) error {
			if r.Offset == 3 {
				return stop
			}
			return nil
		})
		if err != stop || next != 3 {
			t.Fatalf("%d, %v", next, err)
		}
	})
}

func TestTrimIsExact(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c := b.dial(t)
		l := c.Log(b.topic(t, 1), 0)
		defer l.Close()
		appendN(t, l, 0, 100) // in few batches: a trim must cut one
		for _, before := range []int64{37, 37, 12} {
			if err := l.Trim(ctx(t), before); err != nil {
				t.Fatalf("trim to %d: %v", before, err)
			}
		}
		if bounds, err := l.Bounds(ctx(t)); err != nil || bounds != (orchestrator.Bounds{Start: 37, End: 100}) {
			t.Fatalf("%+v, %v", bounds, err)
		}
		if records, next := readAll(t, l, 0); len(records) != 63 || records[0].Offset != 37 || next != 100 {
			t.Fatalf("%d records up to %d", len(records), next)
		}
		if err := l.Trim(ctx(t), 101); !errors.Is(err, orchestrator.ErrPositionLost) {
			t.Fatalf("trim above the end: %v", err)
		}
		if err := l.Trim(ctx(t), 100); err != nil {
			t.Fatal(err)
		}
		if records, next := readAll(t, l, 0); len(records) != 0 || next != 100 {
			t.Fatalf("after trimming all: %d records up to %d", len(records), next)
		}
	})
}

func TestAClosedLogFailsEveryAppendInOrderAndItsSuccessorWorks(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		l := c.Log(topic, 0)
		const n = 500
		a := newAcks()
		for i := range n {
			if i == 400 {
				l.Close()
			}
			l.Append([]byte("x"), a.done(i))
		}
		failed := false
		for i, x := range a.wait(t, n) {
			if x.i != i {
				t.Fatalf("answer %d is to append %d", i, x.i)
			}
			if x.err == nil && failed {
				t.Fatalf("append %d succeeded behind one of unknown outcome", i)
			}
			failed = failed || x.err != nil
			if i >= 400 && x.err == nil {
				t.Fatalf("append %d succeeded after Close", i)
			}
		}
		next := c.Log(topic, 0)
		defer next.Close()
		appendN(t, next, 0, 3)
	})
}

func TestAnswersComeOneAtATimeThoughTheLogIsClosedMeanwhile(t *testing.T) {
	b := embedded(t)
	l := b.dial(t).Log(b.topic(t, 1), 0)
	second := make(chan struct{})
	first := make(chan bool)
	l.Append([]byte("first"), func(int64, error) {
		l.Close()
		l.Append([]byte("second"), func(int64, error) { close(second) })
		select {
		case <-second:
			first <- false
		case <-time.After(100 * time.Millisecond):
			first <- true
		}
	})
	if !<-first {
		t.Fatal("the second was answered during the first")
	}
	<-second
}

func TestAJournalStampsRecordsWithTheBrokersTime(t *testing.T) {
	b := &broker{addr: real.Require(t).Addr()}
	l := b.dial(t).Log(b.topic(t, 1, "message.timestamp.type", "LogAppendTime"), 0)
	defer l.Close()
	before := time.Now().UnixMilli()
	appendN(t, l, 0, 1)
	after := time.Now().UnixMilli()
	records, _ := readAll(t, l, 0)
	if at := records[0].Time; at < before || at > after {
		t.Fatalf("appended between %d and %d, stamped %d", before, after, at)
	}
}

func TestATopicCreatedAnewHasAnotherID(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		l := c.Log(topic, 0)
		defer l.Close()
		first, err := l.TopicID(ctx(t))
		if err != nil || first == ([16]byte{}) {
			t.Fatalf("%x, %v", first, err)
		}
		if again, err := c.Log(topic, 0).TopicID(ctx(t)); err != nil || again != first {
			t.Fatalf("%x is now %x, %v", first, again, err)
		}
		b.delete(t, topic)
		b.create(t, topic, 1)
		if second, err := l.TopicID(ctx(t)); err != nil || second == first || second == ([16]byte{}) {
			t.Fatalf("%x, %v", second, err)
		}
	})
}

// produce waits for the answer to one message.
func produce(t *testing.T, c orchestrator.Kafka, m *events.Message) error {
	t.Helper()
	done := make(chan error, 1)
	c.Produce(m, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("a message is never answered")
		return nil
	}
}

func TestKeysGoToThePartitionOfTheJavaClientAndKeepTheirOrder(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 12)
		// org.apache.kafka.common.utils.Utils.toPositive(murmur2(key)) % 12
		java := map[string]int32{"order-1": 0, "order-2": 0, "order-3": 0, "": 0, "ü": 0}
		for key := range java {
			java[key] = int32(murmur2([]byte(key))&0x7fffffff) % 12
		}
		const each = 50
		var wg sync.WaitGroup
		for i := range each {
			for key := range java {
				wg.Add(1)
				c.Produce(&events.Message{Topic: topic, Partition: -1, Key: []byte(key), Value: fmt.Append(nil, i),
					Headers: []events.Header{{Key: "h", Value: []byte("1")}, {Key: "h", Value: nil}}, Time: 1_700_000_000_000},
					func(err error) {
						if err != nil {
							t.Error(err)
						}
						wg.Done()
					})
			}
		}
		wg.Wait()
		s := newSink()
		for p := range int32(12) {
			c.Consume(tp(topic, p), 0, s)
		}
		next := make(map[string]int)
		for _, m := range s.wait(t, each*len(java)) {
			key := string(m.Key)
			if m.Partition != java[key] {
				t.Fatalf("key %q is in partition %d, the Java client uses %d", key, m.Partition, java[key])
			}
			if string(m.Value) != fmt.Sprint(next[key]) {
				t.Fatalf("key %q: got %s, want %d", key, m.Value, next[key])
			}
			next[key]++
			if m.Time != 1_700_000_000_000 || len(m.Headers) != 2 || m.Headers[0].Key != "h" || string(m.Headers[0].Value) != "1" {
				t.Fatalf("%+v", m)
			}
		}
	})
}

// murmur2 as in org.apache.kafka.common.utils.Utils.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

func TestMurmur2IsThatOfTheJavaClient(t *testing.T) {
	// From org.apache.kafka.common.utils.UtilsTest.
	for key, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}

func TestANamedPartitionIsTaken(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 3)
		for p := range int32(3) {
			if err := produce(t, c, &events.Message{Topic: topic, Partition: p, Key: []byte("same"), Value: fmt.Append(nil, p)}); err != nil {
				t.Fatal(err)
			}
		}
		s := newSink()
		for p := range int32(3) {
			c.Consume(tp(topic, p), 0, s)
		}
		for _, m := range s.wait(t, 3) {
			if string(m.Value) != fmt.Sprint(m.Partition) {
				t.Fatalf("%s is in partition %d", m.Value, m.Partition)
			}
		}
	})
}

func TestWhatCanNeverArriveIsRefusedAndItsNeighboursAreNot(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c := b.dial(t)
		good, deleted, small := b.topic(t, 1), b.topic(t, 1), b.topic(t, 1, "max.message.bytes", "1000")
		if err := produce(t, c, &events.Message{Topic: deleted, Value: []byte("was there")}); err != nil {
			t.Fatal(err)
		}
		b.delete(t, deleted)
		never := map[string]*events.Message{
			"an unknown topic":        {Topic: name(t), Partition: -1, Key: []byte("k")},
			"a deleted topic":         {Topic: deleted, Partition: -1, Key: []byte("k")},
			"no such partition":       {Topic: good, Partition: 1},
			"an invalid topic":        {Topic: "not a topic", Partition: -1},
			"too large for us":        {Topic: good, Value: make([]byte, 2<<20)},
			"too large for the topic": {Topic: small, Value: incompressible(2000)},
		}
		type answer struct {
			what string
			err  error
			took time.Duration
		}
		start := time.Now()
		answers := make(chan answer, len(never))
		for what, m := range never {
			c.Produce(m, func(err error) { answers <- answer{what, err, time.Since(start)} })
		}
		if err := produce(t, c, &events.Message{Topic: good, Value: []byte("neighbour")}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a neighbour waited %s", took)
		}
		for range never {
			select {
			case a := <-answers:
				if !errors.Is(a.err, orchestrator.ErrRefused) {
					t.Errorf("%s: %v", a.what, a.err)
				}
				if a.took > 8*time.Second {
					t.Errorf("%s: refused after %s", a.what, a.took)
				}
				delete(never, a.what)
			case <-time.After(20 * time.Second):
				t.Fatalf("never answered: %v", never)
			}
		}
	})
}

func TestCloseSendsWhatWasProduced(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t, func(c *kafka.Config) { c.Linger = time.Second }), b.topic(t, 1)
		answers := make(chan error, 100)
		for range cap(answers) {
			c.Produce(&events.Message{Topic: topic, Value: []byte("x")}, func(err error) { answers <- err })
		}
		c.Close()
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestATopicCreatedAnewTakesMessagesAgain(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		if err := produce(t, c, &events.Message{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		b.delete(t, topic)
		b.create(t, topic, 1)
		until(t, "a message is taken", func() bool {
			err := produce(t, c, &events.Message{Topic: topic})
			if err != nil && !errors.Is(err, orchestrator.ErrRefused) {
				t.Fatal(err)
			}
			return err == nil
		})
	})
}

func incompressible(n int) []byte {
	out := make([]byte, n)
	x := uint32(1)
	for i := range out {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		out[i] = byte(x)
	}
	return out
}

// sink collects what is delivered.
type sink struct {
	mu      sync.Mutex
	got     []events.Message
	failed  []error
	largest int // batch
	busy    atomic.Int32
	news    chan struct{}
	on      func() // called by Records, before it notes them
}

func newSink() *sink { return &sink{news: make(chan struct{}, 1)} }

func (s *sink) Records(p orchestrator.TopicPartition, batch []events.Message) {
	s.busy.Add(1)
	defer s.busy.Add(-1)
	if s.on != nil {
		s.on()
	}
	s.mu.Lock()
	s.got = append(s.got, batch...)
	s.largest = max(s.largest, len(batch))
	s.mu.Unlock()
	s.note()
}

func (s *sink) Failed(p orchestrator.TopicPartition, err error) {
	s.mu.Lock()
	s.failed = append(s.failed, err)
	s.mu.Unlock()
	s.note()
}

func (s *sink) note() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *sink) all() []events.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func (s *sink) wait(t *testing.T, n int) []events.Message {
	t.Helper()
	for {
		if got := s.all(); len(got) >= n {
			return got
		}
		select {
		case <-s.news:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d records came, want %d; failures: %v", len(s.all()), n, s.failure())
		}
	}
}

func (s *sink) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failed...)
}

func (s *sink) waitFailed(t *testing.T) error {
	t.Helper()
	until(t, "the partition fails", func() bool { return s.failure() != nil })
	return s.failure()
}

// fill produces n values from a number on to partition 0.
func (b *broker) fill(t *testing.T, topic string, from, n int) {
	t.Helper()
	b.fillPartition(t, topic, 0, from, n)
}

func (b *broker) fillPartition(t *testing.T, topic string, partition int32, from, n int) {
	t.Helper()
	cl := b.plain(t)
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Append(nil, from+i)})
	}
	if err := cl.ProduceSync(ctx(t), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// inOrder checks that got are the records from an offset on, without gap or repetition.
func inOrder(t *testing.T, got []events.Message, from int64) {
	t.Helper()
	for i, m := range got {
		if m.Offset != from+int64(i) || string(m.Value) != fmt.Sprint(m.Offset) {
			t.Fatalf("record %d is %q at offset %d, want offset %d", i, m.Value, m.Offset, from+int64(i))
		}
	}
}

func TestRecordsComeFromTheGivenOffset(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		b.fill(t, topic, 0, 100)
		s := newSink()
		c.Consume(tp(topic, 0), 42, s)
		inOrder(t, s.wait(t, 58), 42)
		b.fill(t, topic, 100, 10)
		inOrder(t, s.wait(t, 68), 42)
	})
}

func TestNothingIsDeliveredWhilePausedAndNothingIsLost(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic, other := b.dial(t), b.topic(t, 1), b.topic(t, 1)
		s, o := newSink(), newSink()
		c.Consume(tp(topic, 0), 0, s)
		c.Consume(tp(other, 0), 0, o)
		total := 0
		for round := range 5 {
			b.fill(t, topic, total, 20)
			total += 20
			s.wait(t, 1)
			c.Pause(tp(topic, 0))
			held := len(s.all())
			b.fill(t, topic, total, 20)
			total += 20
			// A neighbour's records come after these and show that time has passed.
			b.fill(t, other, round, 1)
			o.wait(t, round+1)
			if now := len(s.all()); now != held {
				t.Fatalf("%d records came while paused", now-held)
			}
			c.Resume(tp(topic, 0))
			inOrder(t, s.wait(t, total), 0)
		}
		inOrder(t, s.all(), 0)
	})
}

// together has two partitions delivered from one poll, and calls during for the other one while the first of
// them is delivered.
func together(t *testing.T, b *broker, c *kafka.Client, topic string, from int64, sinks [2]*sink, during func(other int32)) {
	t.Helper()
	blocker, blocked, release := newSink(), make(chan struct{}), make(chan struct{})
	gate := b.topic(t, 1)
	b.fill(t, gate, 0, 1)
	blocker.on = func() { close(blocked); <-release }
	c.Consume(tp(gate, 0), 0, blocker)
	<-blocked
	var once sync.Once
	for p := range int32(2) {
		sinks[p].on = func() { once.Do(func() { during(1 - p) }) }
		c.Consume(tp(topic, p), from, sinks[p])
	}
	close(release)
}

func TestWhatIsInHandWhenAPartitionIsPausedIsKept(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 2)
		b.fill(t, topic, 0, 10)
		b.fillPartition(t, topic, 1, 0, 10)
		sinks := [2]*sink{newSink(), newSink()}
		paused := make(chan int32, 1)
		together(t, b, c, topic, 0, sinks, func(other int32) {
			c.Pause(tp(topic, other))
			paused <- other
		})
		other := <-paused
		inOrder(t, sinks[1-other].wait(t, 10), 0)
		b.fillPartition(t, topic, 1-other, 10, 1) // shows that the poll is over
		sinks[1-other].wait(t, 11)
		if n := len(sinks[other].all()); n != 0 {
			t.Fatalf("%d records came to who was paused", n)
		}
		c.Resume(tp(topic, other))
		inOrder(t, sinks[other].wait(t, 10), 0)
	})
}

func TestWhatIsInHandWhenAPartitionIsConsumedAnewIsOfTheOldOne(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 2)
		b.fill(t, topic, 0, 10)
		b.fillPartition(t, topic, 1, 0, 10)
		sinks, anew := [2]*sink{newSink(), newSink()}, newSink()
		together(t, b, c, topic, 5, sinks, func(other int32) { c.Consume(tp(topic, other), 0, anew) })
		inOrder(t, anew.wait(t, 10), 0)
	})
}

// counter counts what franz-go fetches of a topic.
type counter struct {
	topic string
	n     atomic.Int64
}

func (c *counter) OnFetchRecordBuffered(r *kgo.Record) {
	if r.Topic == c.topic {
		c.n.Add(1)
	}
}

func TestAPausedPartitionIsNotFetched(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		topic, other := b.topic(t, 1), b.topic(t, 1)
		fetched := &counter{topic: topic}
		c := b.dial(t, func(c *kafka.Config) { c.Opts = append(c.Opts, kgo.WithHooks(fetched)) })
		s, o := newSink(), newSink()
		c.Consume(tp(topic, 0), 0, s)
		c.Consume(tp(other, 0), 0, o)
		b.fill(t, topic, 0, 1)
		s.wait(t, 1)
		c.Pause(tp(topic, 0))
		const n = 30
		for i := range n { // each takes a fetch that carries the neighbour's
			b.fill(t, topic, i+1, 1)
			b.fill(t, other, i, 1)
			o.wait(t, i+1)
		}
		if got := fetched.n.Load(); got > n/2 {
			t.Fatalf("%d records of a paused partition were fetched", got)
		}
		c.Resume(tp(topic, 0))
		inOrder(t, s.wait(t, n+1), 0)
	})
}

func TestPausedAndResumedAtOnceIsResumed(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		s := newSink()
		c.Consume(tp(topic, 0), 0, s)
		for i := range 50 {
			c.Pause(tp(topic, 0))
			c.Resume(tp(topic, 0))
			if i%10 == 0 {
				b.fill(t, topic, i, 10)
			}
		}
		inOrder(t, s.wait(t, 50), 0)
	})
}

func TestNoDeliveryIsUnderWayWhenStopReturns(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		b.fill(t, topic, 0, 10)
		for range 10 {
			s := newSink()
			entered := make(chan struct{}, 100)
			s.on = func() {
				entered <- struct{}{}
				<-time.After(20 * time.Millisecond) // a delivery that takes its time, to be caught in the act
			}
			c.Consume(tp(topic, 0), 0, s)
			<-entered
			c.Stop(tp(topic, 0))
			if s.busy.Load() != 0 {
				t.Fatal("Stop returned during a delivery")
			}
		}
	})
}

func TestASinkNeverSeesRecordsOfAnEarlierConsume(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		b.fill(t, topic, 0, 1000)
		for i := range 40 {
			from := int64(i*397) % 1000
			s := newSink()
			c.Consume(tp(topic, 0), from, s)
			if i%3 == 0 {
				c.Stop(tp(topic, 0))
				if got := s.all(); len(got) > 0 {
					inOrder(t, got, from)
				}
				continue
			}
			inOrder(t, s.wait(t, 1), from)
			if i%3 == 1 {
				c.Stop(tp(topic, 0))
			}
		}
	})
}

func TestAPositionOutsideTheLogIsReported(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic, other := b.dial(t), b.topic(t, 1), b.topic(t, 1)
		b.fill(t, topic, 0, 10)
		o := newSink()
		c.Consume(tp(other, 0), 0, o)
		if err := c.DeleteRecords(ctx(t), tp(topic, 0), 5); err != nil {
			t.Fatal(err)
		}
		for _, from := range []int64{4, 11} {
			s := newSink()
			c.Consume(tp(topic, 0), from, s)
			until(t, "the partition fails or delivers", func() bool { return s.failure() != nil || len(s.all()) > 0 })
			if len(s.all()) > 0 {
				t.Fatalf("from %d: records came, the first at %d", from, s.all()[0].Offset)
			}
			if err := s.failure(); !errors.Is(err, orchestrator.ErrPositionLost) || !strings.Contains(err.Error(), fmt.Sprintf("%s/0", topic)) {
				t.Errorf("from %d: %v", from, err)
			}
		}
		s := newSink()
		c.Consume(tp(topic, 0), 5, s)
		inOrder(t, s.wait(t, 5), 5)
		b.fill(t, other, 0, 3)
		inOrder(t, o.wait(t, 3), 0)
	})
}

func TestAnInputThatIsCreatedAnewIsReported(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 2)
		b.fill(t, topic, 0, 3)
		s := newSink()
		c.Consume(tp(topic, 0), 0, s)
		empty := newSink()
		c.Consume(tp(topic, 1), 0, empty)
		s.wait(t, 3)
		b.delete(t, topic)
		b.create(t, topic, 2)
		if err := s.waitFailed(t); !errors.Is(err, orchestrator.ErrPositionLost) {
			t.Fatal(err)
		}
		// Offset 0 is in the new topic too, and yet it is not that of the old one.
		if err := empty.waitFailed(t); !errors.Is(err, orchestrator.ErrPositionLost) {
			t.Fatal(err)
		}
		b.fill(t, topic, 0, 3)
		fresh := newSink()
		c.Consume(tp(topic, 0), 0, fresh)
		inOrder(t, fresh.wait(t, 3), 0)
	})
}

// reacher is a sink that also notes how far it is.
type reacher struct {
	*sink
	next atomic.Int64
}

func (r *reacher) Reached(_ orchestrator.TopicPartition, next int64) { r.next.Store(next) }

func TestTheEndIsReachedThoughATransactionLeftAnOffsetWithoutRecord(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		r := &reacher{sink: newSink()}
		c.Consume(tp(topic, 0), 0, r)
		cl := b.plain(t, kgo.TransactionalID(topic))
		transact := func() {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(ctx(t), kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
		}
		atEnd := func() bool {
			bounds, err := c.Bounds(ctx(t), []orchestrator.TopicPartition{tp(topic, 0)})
			return err == nil && r.next.Load() == bounds[tp(topic, 0)].End
		}
		transact()
		until(t, "the end is reached", atEnd)
		c.Pause(tp(topic, 0))
		transact()
		c.Resume(tp(topic, 0))
		until(t, "the end is reached again", atEnd)
		if got := r.all(); len(got) != 2 || got[0].Offset != 0 || got[1].Offset != 2 {
			t.Fatalf("%v", got)
		}
	})
}

// assignment keeps what a member holds.
type assignment struct {
	mu         sync.Mutex
	held       map[int32]bool
	generation int32
	revoking   func()
	revoked    int
	lost       int
}

func (a *assignment) member() orchestrator.Member {
	a.held = make(map[int32]bool)
	drop := func(ps []int32) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, p := range ps {
			delete(a.held, p)
		}
	}
	return orchestrator.Member{
		Assigned: func(generation int32, ps []int32) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.generation = generation
			for _, p := range ps {
				a.held[p] = true
			}
		},
		Revoked: func(ps []int32) {
			if a.revoking != nil {
				a.revoking()
			}
			drop(ps)
			a.mu.Lock()
			a.revoked += len(ps)
			a.mu.Unlock()
		},
		Lost: func(ps []int32) {
			drop(ps)
			a.mu.Lock()
			a.lost++
			a.mu.Unlock()
		},
	}
}

func (a *assignment) has() (held []int32, generation int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p := range a.held {
		held = append(held, p)
	}
	slices.Sort(held)
	return held, a.generation
}

func TestAGroupGivesOutPartitionsAndMovesThemOnlyWhenHandedOver(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 6)
		var one, two assignment
		c1, c2 := b.dial(t), b.dial(t)
		leave1, err := c1.Join(topic, topic, one.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave1()
		until(t, "the first has all", func() bool { held, _ := one.has(); return len(held) == 6 })
		_, generation := one.has()

		release := make(chan struct{})
		revoking := make(chan struct{}, 10)
		one.revoking = func() {
			revoking <- struct{}{}
			<-release
		}
		leave2, err := c2.Join(topic, topic, two.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave2()
		<-revoking
		// The first is not done with its partitions, so none of them may be given out, however long it
		// takes; more than two heartbeats would be enough to get them.
		tick := time.Tick(10 * time.Millisecond)
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); <-tick {
			if held, _ := two.has(); len(held) != 0 {
				t.Fatalf("partitions %v were given to the second while the first handed over", held)
			}
		}
		close(release)
		until(t, "both have three", func() bool {
			h1, g1 := one.has()
			h2, g2 := two.has()
			return len(h1) == 3 && len(h2) == 3 && g1 == g2
		})
		one.mu.Lock()
		revoked := one.revoked
		one.mu.Unlock()
		if revoked != 3 {
			t.Fatalf("%d partitions were revoked: what stays must not be interrupted", revoked)
		}
		h1, g1 := one.has()
		h2, _ := two.has()
		if all := append(h1, h2...); len(slices.Compact(slices.Sorted(slices.Values(all)))) != 6 {
			t.Fatalf("they share %v", all)
		}
		if g1 <= generation {
			t.Fatalf("generation %d came after %d", g1, generation)
		}

		leave1()
		if held, _ := one.has(); len(held) != 0 {
			t.Fatalf("who left has %v", held)
		}
		until(t, "the second has all", func() bool { held, _ := two.has(); return len(held) == 6 })
	})
}

func TestACrashedMemberIsReplacedAfterItsSession(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 4)
		short := func(c *kafka.Config) { c.Session = time.Second }
		cut := newSwitch()
		c1, c2 := b.dial(t, short, cut.through), b.dial(t, short)
		var one, two assignment
		leave1, err := c1.Join(topic, topic, one.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave1()
		until(t, "the first has all", func() bool { held, _ := one.has(); return len(held) == 4 })
		leave2, err := c2.Join(topic, topic, two.member())
		if err != nil {
			t.Fatal(err)
		}
		defer leave2()
		until(t, "the second has some", func() bool { held, _ := two.has(); return len(held) == 2 })

		cut.off()
		until(t, "the second has all", func() bool { held, _ := two.has(); return len(held) == 4 })
		cut.on()
		until(t, "the first learns that it lost them and joins again", func() bool {
			one.mu.Lock()
			lost := one.lost
			one.mu.Unlock()
			h1, _ := one.has()
			h2, _ := two.has()
			return lost > 0 && len(h1) == 2 && len(h2) == 2
		})
	})
}

func TestTopicsAreDescribedAndWhatIsMissingHasNoPartitions(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic, none := b.dial(t), b.topic(t, 3, "retention.ms", "-1"), name(t)
		got, err := c.Topics(ctx(t), topic, none)
		if err != nil {
			t.Fatal(err)
		}
		if d := got[topic]; d.Partitions != 3 || d.Replication != 1 || d.ID == ([16]byte{}) || d.Config["retention.ms"] != "-1" {
			t.Errorf("%+v", d)
		}
		if d, ok := got[none]; !ok || d.Partitions != 0 {
			t.Errorf("%+v", d)
		}
	})
}

func TestBoundsOfManyPartitions(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, one, two := b.dial(t), b.topic(t, 2), b.topic(t, 1)
		b.fill(t, one, 0, 7)
		if err := c.DeleteRecords(ctx(t), tp(one, 0), 2); err != nil {
			t.Fatal(err)
		}
		got, err := c.Bounds(ctx(t), []orchestrator.TopicPartition{tp(one, 0), tp(one, 1), tp(two, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 || got[tp(one, 0)] != (orchestrator.Bounds{Start: 2, End: 7}) || got[tp(one, 1)] != (orchestrator.Bounds{}) {
			t.Fatalf("%v", got)
		}
		if _, err := c.Bounds(ctx(t), []orchestrator.TopicPartition{tp(name(t), 0)}); err == nil {
			t.Fatal("a topic that does not exist has bounds")
		}
	})
}
