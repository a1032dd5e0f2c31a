package kafka_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

func hurried(c *kafka.Config) { c.AppendTimeout = time.Second }

func TestAnAppendWhoseAnswerIsLostIsUnknownAndNothingIsAppendedBehindIt(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		w := newSwitch()
		c, topic := b.dial(t, hurried, w.through), b.topic(t, 1)
		l := c.Log(topic, 0)
		defer l.Close()
		appendN(t, l, 0, 1)

		w.deaf.Store(true)
		a := newAcks()
		l.Append([]byte("v1"), a.done(0))
		witness := b.dial(t).Log(topic, 0)
		until(t, "the record is in the log", func() bool {
			records, _ := readAll(t, witness, 0)
			return len(records) >= 2
		})
		l.Append([]byte("v2"), a.done(1))
		for i, x := range a.wait(t, 2) {
			if x.i != i || x.err == nil || errors.Is(x.err, orchestrator.ErrRefused) {
				t.Fatalf("answer %d: %+v", i, x)
			}
		}
		w.on()
		l.Append([]byte("never"), a.done(2))
		if x := a.wait(t, 1)[2]; x.err == nil {
			t.Fatal("an append succeeded behind an unknown outcome")
		}
		next := c.Log(topic, 0)
		defer next.Close()
		appendN(t, next, 3, 1)
		records, _ := readAll(t, next, 0)
		for _, r := range records {
			if string(r.Value) == "never" {
				t.Fatal("it was sent all the same")
			}
		}
	})
}

func TestAnAppendThatReachesNobodyFailsInTime(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		for what, cut := range map[string]func(*wire){
			"the network is cut":   func(w *wire) { w.off() },
			"the broker is silent": func(w *wire) { w.mute.Store(true) },
		} {
			w := newSwitch()
			c, topic := b.dial(t, hurried, w.through), b.topic(t, 1)
			l := c.Log(topic, 0)
			appendN(t, l, 0, 1)
			cut(w)
			start := time.Now()
			a := newAcks()
			l.Append([]byte("v1"), a.done(0))
			if x := a.wait(t, 1)[0]; x.err == nil || errors.Is(x.err, orchestrator.ErrRefused) {
				t.Errorf("%s: %+v", what, x)
			}
			if took := time.Since(start); took > 6*time.Second {
				t.Errorf("%s: told after %s", what, took)
			}
			l.Close()
			w.on()
			next := c.Log(topic, 0)
			appendN(t, next, 1, 1)
			next.Close()
		}
	})
}

func TestCloseDoesNotWaitForASilentBroker(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		w := newSwitch()
		c, topic := b.dial(t, w.through), b.topic(t, 1)
		l := c.Log(topic, 0)
		appendN(t, l, 0, 1)
		w.mute.Store(true)
		a := newAcks()
		for i := range 10 {
			l.Append([]byte("x"), a.done(i))
		}
		start := time.Now()
		l.Close()
		for i, x := range a.wait(t, 10) {
			if x.i != i || x.err == nil {
				t.Errorf("answer %d: %+v", i, x)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("answered after %s", took)
		}
		w.on()
	})
}

func TestAJournalThatIsGoneIsARefusal(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t), b.topic(t, 1)
		l := c.Log(topic, 0)
		defer l.Close()
		appendN(t, l, 0, 1)
		b.delete(t, topic)
		a := newAcks()
		l.Append([]byte("x"), a.done(0))
		if x := a.wait(t, 1)[0]; !errors.Is(x.err, orchestrator.ErrRefused) {
			t.Errorf("append: %v", x.err)
		}
		var e *kafka.Error
		if _, err := l.TopicID(ctx(t)); !errors.As(err, &e) || e.Code != kafka.CodeTopicMissing {
			t.Errorf("topic id: %v", err)
		}
	})
}

func TestMessagesAreSentUntilTheBrokerTakesThem(t *testing.T) {
	b := embedded(t)
	c, topic, other := b.dial(t), b.topic(t, 1), b.topic(t, 1)
	for _, passing := range []*kerr.Error{kerr.NotEnoughReplicas, kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.RequestTimedOut, kerr.UnknownTopicOrPartition} {
		f := b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: passing, Count: 2})
		if err := produce(t, c, &events.Message{Topic: topic, Value: []byte(passing.Message)}); err != nil {
			t.Errorf("%s: %v", passing.Message, err)
		}
		if f.Hits() == 0 {
			t.Errorf("%s never happened", passing.Message)
		}
		f.Remove()
	}
	// One partition that takes nothing for long holds back no other.
	f := b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotEnoughReplicas, Count: -1})
	stuck := make(chan error, 60_000)
	for range cap(stuck) {
		c.Produce(&events.Message{Topic: topic, Value: []byte("x")}, func(err error) { stuck <- err })
	}
	if err := produce(t, c, &events.Message{Topic: other, Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	f.Remove()
	for range cap(stuck) {
		if err := <-stuck; err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsForbiddenIsRefused(t *testing.T) {
	b := embedded(t)
	c, topic := b.dial(t), b.topic(t, 1)
	f := b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	if err := produce(t, c, &events.Message{Topic: topic}); !errors.Is(err, orchestrator.ErrRefused) {
		t.Fatal(err)
	}
	f.Remove()
	if err := produce(t, c, &events.Message{Topic: topic}); err != nil {
		t.Fatalf("allowed again: %v", err)
	}
}

func TestReadsAndBoundsOutliveAChangeOfLeader(t *testing.T) {
	b := embedded(t)
	c, topic := b.dial(t), b.topic(t, 1)
	l := c.Log(topic, 0)
	defer l.Close()
	appendN(t, l, 0, 10)
	b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 3})
	b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Err: kerr.OffsetNotAvailable, Count: 3})
	b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DeleteRecords}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 2})
	if records, _ := readAll(t, l, 0); len(records) != 10 {
		t.Fatalf("%d records", len(records))
	}
	if err := l.Trim(ctx(t), 3); err != nil {
		t.Fatal(err)
	}
}

// bomb is a batch that is small on the wire and large in memory.
func (b *broker) bomb(t *testing.T, topic string, codec kgo.CompressionCodec, size, batches int) {
	t.Helper()
	cl := b.plain(t, kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(int32(size+1<<16)), kgo.BrokerMaxWriteBytes(200<<20))
	for range batches {
		if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: topic, Value: make([]byte, size)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACompressionBombIsSkippedAndItsNeighboursAreNot(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c := b.dial(t, func(c *kafka.Config) { c.MaxBatchBytes = 1 << 20 })
		for what, codec := range map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
			"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
			topic := b.topic(t, 1)
			b.fill(t, topic, 0, 2)
			b.bomb(t, topic, codec, 12<<20, 1)
			b.fill(t, topic, 3, 2)
			s := newSink()
			c.Consume(tp(topic, 0), 0, s)
			got := s.wait(t, 5)
			inOrder(t, got[:2], 0)
			inOrder(t, got[3:], 3)
			m := got[2]
			if reason, _ := m.Header(events.HeaderReason); m.Offset != 2 || m.Value != nil || !strings.Contains(reason, "decompresses") {
				t.Errorf("%s: in its place stands %+v", what, m)
			}
			if err := s.failure(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestManySmallBombsAreDeliveredAFewAtATime(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t, func(c *kafka.Config) { c.MaxBatchBytes = 1 << 20 }), b.topic(t, 1)
		const size, n = 900 << 10, 60
		b.bomb(t, topic, kgo.ZstdCompression(), size, n)
		s := newSink()
		c.Consume(tp(topic, 0), 0, s)
		got := s.wait(t, n)
		for i, m := range got {
			if m.Offset != int64(i) || len(m.Value) != size {
				t.Fatalf("record %d: offset %d, %d bytes", i, m.Offset, len(m.Value))
			}
		}
		if s.largest > 6 {
			t.Errorf("%d of them were decompressed at once", s.largest)
		}
	})
}

func TestABombInTheJournalIsAnErrorThatNamesIt(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, topic := b.dial(t, func(c *kafka.Config) { c.MaxBatchBytes = 1 << 20 }), b.topic(t, 1)
		b.fill(t, topic, 0, 3)
		b.bomb(t, topic, kgo.ZstdCompression(), 12<<20, 1)
		_, err := c.Log(topic, 0).Read(ctx(t), 0, func(orchestrator.LogRecord) error { return nil })
		if !errors.Is(err, kgo.ErrMaxDecompress) || !strings.Contains(err.Error(), "3") {
			t.Fatalf("%v", err)
		}
	})
}

func codeOf(err error) string {
	var e *kafka.Error
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Code
}

func TestAnUnreachableClusterIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c := (&broker{addr: addr}).dial(t)
	start := time.Now()
	_, err = c.Check(ctx(t), orchestrator.Needs{App: "shop"})
	if codeOf(err) != kafka.CodeUnreachable || !strings.Contains(err.Error(), addr) {
		t.Fatalf("%v", err)
	}
	if took := time.Since(start); took > 12*time.Second {
		t.Errorf("after %s", took)
	}
	if _, err := kafka.Dial(kafka.Config{}); codeOf(err) != kafka.CodeUnreachable {
		t.Errorf("no broker named: %v", err)
	}
}

func TestAPlanIsAppliedOnceAndNeverAltersWhatExists(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		c, app := b.dial(t), name(t)
		o := kafka.PlanOptions{App: app, Partitions: 4, Replication: 1, Inputs: []string{app + "-orders"}, Commands: []string{app + "-payments"}, Lifecycle: true, Create: true}
		check := orchestrator.Needs{App: app, Shards: 4, Inputs: o.Inputs, Commands: o.Commands, Lifecycle: true}

		_, err := c.Check(ctx(t), check)
		for _, topic := range []string{".journal", ".inbox", ".replies", ".meta", ".quarantine", ".lifecycle", "-orders", "-payments"} {
			if err == nil || !strings.Contains(err.Error(), app+topic+": it does not exist") {
				t.Errorf("%s is missing and nobody says so: %v", topic, err)
			}
		}
		done, err := kafka.Plan(o).Apply(ctx(t), c)
		if err != nil || len(done.Created) != 8 || len(done.Existing) != 0 {
			t.Fatalf("%+v, %v", done, err)
		}
		warnings, err := c.Check(ctx(t), check)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range warnings { // one broker cannot do better
			if codeOf(w) != kafka.CodeReplication && codeOf(w) != kafka.CodeMinISR {
				t.Errorf("%v", w)
			}
		}
		o.Partitions = 5
		done, err = kafka.Plan(o).Apply(ctx(t), c)
		if err != nil || len(done.Created) != 0 || len(done.Existing) != 8 || len(done.Differences) == 0 {
			t.Fatalf("%+v, %v", done, err)
		}
		for _, d := range done.Differences {
			if d.Setting != "partitions" || d.Is != "4" && d.Is != "3" || d.Planned != "5" && d.Planned != "3" {
				t.Errorf("%s", d)
			}
		}
		check.Shards = 5
		if _, err := c.Check(ctx(t), check); codeOf(err) != kafka.CodePartitions {
			t.Errorf("%v", err)
		}
		if ts, err := c.Topics(ctx(t), app+".journal"); err != nil || ts[app+".journal"].Partitions != 4 {
			t.Errorf("%v, %v", ts, err)
		}
	})
}

func TestAMoreReplicatedPlanThanTheClusterHasBrokersSaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		done, err := kafka.Plan(kafka.PlanOptions{App: name(t), Partitions: 1}).Apply(ctx(t), b.dial(t))
		if codeOf(err) != kafka.CodeReplication || len(done.Created) != 0 {
			t.Fatalf("%+v, %v", done, err)
		}
	})
}

func TestWhatWouldLoseSagasIsRefusedAtTheStart(t *testing.T) {
	for _, c := range []struct {
		what, topic string
		config      []string
		code        string
		fatal       bool
	}{
		{"time retention of the journal", "journal", []string{"retention.ms", "1000"}, kafka.CodeRetention, true},
		{"size retention of the inbox", "inbox", []string{"retention.bytes", "1000"}, kafka.CodeRetention, true},
		{"default retention of the replies", "replies", []string{"retention.ms", "604800000"}, kafka.CodeRetention, true},
		{"a compacted journal", "journal", []string{"cleanup.policy", "compact"}, kafka.CodeCleanup, true},
		{"small messages", "journal", []string{"max.message.bytes", "1000"}, kafka.CodeMessageBytes, true},
		{"no room in the inbox", "inbox", []string{"max.message.bytes", "1000"}, kafka.CodeMessageBytes, true},
		{"a meta topic that forgets", "meta", []string{"cleanup.policy", "delete"}, kafka.CodeCleanup, true},
		{"no replica could take a record", "journal", []string{"min.insync.replicas", "2"}, kafka.CodeMinISR, true},
		{"clocks of the nodes", "journal", []string{"message.timestamp.type", "CreateTime"}, kafka.CodeTimestamp, false},
		{"one replica", "journal", nil, kafka.CodeReplication, false},
		{"one replica in sync", "inbox", nil, kafka.CodeMinISR, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := embedded(t)
			for _, p := range kafka.Plan(kafka.PlanOptions{App: "shop", Partitions: 2, Replication: 1}).Topics {
				var config []string
				for k, v := range p.Config {
					if p.Name == "shop."+c.topic {
						if i := slices.Index(c.config, k); i >= 0 {
							v = c.config[i+1]
						}
					}
					config = append(config, k, v)
				}
				b.create(t, p.Name, p.Partitions, config...)
			}
			warnings, err := b.dial(t).Check(ctx(t), orchestrator.Needs{App: "shop"})
			var found *kafka.Error
			for _, warning := range warnings {
				if w := (*kafka.Error)(nil); errors.As(warning, &w) && w.Code == c.code && w.Topic == "shop."+c.topic {
					found = w
				}
			}
			if c.fatal {
				errors.As(err, &found)
			} else if err != nil {
				t.Fatal(err)
			}
			if found == nil || found.Code != c.code || found.Topic != "shop."+c.topic || found.Cure == "" {
				t.Fatalf("%v; warnings %v", err, warnings)
			}
		})
	}
}

func TestThePlanPrintsTheRightsOfEngineAndParticipants(t *testing.T) {
	text := kafka.Plan(kafka.PlanOptions{App: "shop", Inputs: []string{"orders"}, Commands: []string{"payments"}}).String()
	for _, want := range []string{
		"shop.journal: ", "12 partitions, replication 3", "message.timestamp.type=LogAppendTime", "min.insync.replicas=2", "retention.ms=-1",
		"--add --allow-principal User:skald --topic shop.journal --operation Read --operation Write --operation Delete --operation DescribeConfigs\n",
		"--allow-principal User:skald --topic orders --operation Read\n",
		"--allow-principal User:skald --topic payments --operation Write\n",
		"--allow-principal User:skald --group shop --operation Read\n",
		"--allow-principal User:participant --topic payments --operation Read\n",
		"--allow-principal User:participant --topic shop.replies --operation Write\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "User:participant") && (strings.Contains(line, ".inbox") || strings.Contains(line, ".journal")) {
			t.Errorf("participants get %s", line)
		}
		if strings.Contains(line, "--topic orders --") && strings.Contains(line, "Create") {
			t.Errorf("%s", line)
		}
	}
	if strings.Contains(text, "  orders: ") {
		t.Error("a topic that belongs to others is planned")
	}
}

func TestTheDevelopmentBrokerListensOnLoopbackAndKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	d, err := kafka.StartDev(kafka.DevOptions{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.StartDev(kafka.DevOptions{Addr: d.Addr()}); codeOf(err) != kafka.CodePortBusy || !strings.Contains(err.Error(), d.Addr()) {
		t.Errorf("a busy port: %v", err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "example.com:9092"} {
		if x, err := kafka.StartDev(kafka.DevOptions{Addr: addr}); err == nil {
			x.Close()
			t.Errorf("it listens on %s", addr)
		}
	}
	b := &broker{addr: d.Addr()}
	topic := b.topic(t, 1)
	appendN(t, b.dial(t).Log(topic, 0), 0, 5)
	d.Close()
	if d, err = kafka.StartDev(kafka.DevOptions{DataDir: dir, Addr: d.Addr()}); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if records, _ := readAll(t, b.dial(t).Log(topic, 0), 0); len(records) != 5 {
		t.Fatalf("%d records are left", len(records))
	}
}

func TestACloseOfTheClientAnswersEverything(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		w := newSwitch()
		c, topic := b.dial(t, w.through), b.topic(t, 1)
		l := c.Log(topic, 0)
		appendN(t, l, 0, 1)
		if err := produce(t, c, &events.Message{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		s := newSink()
		c.Consume(tp(topic, 0), 0, s)
		s.wait(t, 2)
		w.off()
		a := newAcks()
		sent := make(chan error, 1)
		l.Append([]byte("x"), a.done(0))
		c.Produce(&events.Message{Topic: topic}, func(err error) { sent <- err })
		start := time.Now()
		c.Close()
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("Close took %s", took)
		}
		if x := a.wait(t, 1)[0]; x.err == nil {
			t.Error("appended over a cut wire")
		}
		if err := <-sent; err == nil || errors.Is(err, orchestrator.ErrRefused) {
			t.Errorf("produced: %v", err)
		}
		c.Close() // again: nothing happens
	})
}
