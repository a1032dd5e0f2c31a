package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	kafkaconn "github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/test/check/checker"
	"github.com/skald-io/skald/test/kafka"
)

// copying is a connection that lets nothing be deleted from the journal before the recorder has it, and counts.
type copying struct {
	orchestrator.Kafka
	rec     *checker.Recorder
	journal string

	mu    sync.Mutex
	trims map[int32]int
}

func (c *copying) Log(topic string, partition int32) orchestrator.Log {
	return &copyingLog{c.Kafka.Log(topic, partition), c, partition}
}

type copyingLog struct {
	orchestrator.Log
	c         *copying
	partition int32
}

func (l *copyingLog) Trim(ctx context.Context, before int64) error {
	if err := l.c.rec.CatchUp(ctx, l.c.journal); err != nil {
		return err
	}
	if err := l.Log.Trim(ctx, before); err != nil {
		return err
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.trims[l.partition]++
	return nil
}

// fewest is how often the least compacted of n shards was trimmed.
func (c *copying) fewest(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	least := 1 << 30
	for p := range n {
		least = min(least, c.trims[int32(p)])
	}
	return least
}

// folded is what a reader of one shard's journal comes to, offsets aside.
type folded struct {
	rows  []string
	state []byte
}

// fold reads records by the rules of the log into an empty store.
func fold(t *testing.T, records []events.Message) folded {
	t.Helper()
	return foldWithout(t, records, -1)
}

// lastCarry finds the last record that carries rows.
func lastCarry(records []events.Message) int {
	for i := len(records) - 1; i > 0; i-- {
		if r, err := events.DecodeRecord(records[i].Value); err == nil && r.Carry != nil && len(r.Carry.Rows) > 0 {
			return i
		}
	}
	return -1
}

type nowhere struct{}

func (nowhere) Set([]byte, int64, int64, []byte, uint64) {}
func (nowhere) Delete([]byte, int64, uint64)             {}
func (nowhere) DeleteRange([]byte, []byte)               {}

// foldWithout loses the rows of one record.
func foldWithout(t *testing.T, records []events.Message, lost int) folded {
	t.Helper()
	s, mem := journal.NewState(), store.NewMemory()
	var batch store.Batch
	for i := range records {
		m := &records[i]
		var to journal.Rows = &batch
		if i == lost {
			to = nowhere{}
		}
		if _, _, err := s.Fold(m.Offset, i == 0, m.Value, to); err != nil {
			t.Fatalf("%s: %v", m.Place(), err)
		}
		if err := mem.Apply(&batch); err != nil {
			t.Fatal(err)
		}
		batch.Reset()
	}
	f := folded{state: (&events.Record{Kind: events.KindCheckpoint, Nonce: s.Nonce, Term: s.Term, Seq: s.Seq, Prev: s.Hash, Time: s.Time, Checkpoint: s.NewCheckpoint()}).Encode(nil)}
	if err := mem.Scan(nil, nil, func(r store.Row) bool {
		f.rows = append(f.rows, fmt.Sprintf("%x due %d base %d: %x", r.Key, r.Due, r.Base, r.Value))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f folded) same(t *testing.T, what string, g folded) {
	t.Helper()
	if len(f.rows) != len(g.rows) {
		t.Errorf("%s: %d rows, not %d", what, len(g.rows), len(f.rows))
	}
	for i := range min(len(f.rows), len(g.rows)) {
		if f.rows[i] != g.rows[i] {
			t.Errorf("%s: row %d is\n%.200s, not\n%.200s", what, i, g.rows[i], f.rows[i])
			break
		}
	}
	if !bytes.Equal(f.state, g.state) {
		t.Errorf("%s: positions, progress or chain differ", what)
	}
}

// compacted runs sagas until the journal of every shard was trimmed five times, and gives the journal in full, and
// what is left of it.
func compacted(t *testing.T, brokers []string, shards int) (full, left map[int32][]events.Message, cl *kgo.Client, app string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	app = fmt.Sprintf("fold-%d", time.Now().UnixNano())
	c := newCast(app)
	names := events.Topics{App: app}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	client, err := kafkaconn.Dial(kafkaconn.Config{Brokers: brokers})
	must(err)
	_, err = kafkaconn.Plan(kafkaconn.PlanOptions{App: app, Partitions: shards, Replication: 1, MinISR: 1, Commands: c.topics, Inputs: c.inputs(), Create: true}).Apply(ctx, client)
	must(err)
	cl, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	must(err)
	t.Cleanup(cl.Close)
	rec, err := checker.NewRecorder(ctx, app, brokers, nil, nil)
	must(err)
	defer rec.Close()

	running, stop := context.WithCancel(ctx)
	defer stop()
	quiet := slog.New(slog.DiscardHandler)
	conn := &copying{Kafka: client, rec: rec, journal: names.Journal(), trims: map[int32]int{}}
	engine, err := orchestrator.New(orchestrator.Config{App: app, Kafka: conn, Definitions: c.definitions(), From: orchestrator.FromEarliest, Logger: quiet, CompactAfter: 16 << 10})
	must(err)
	p := participant.New(participant.Config{App: app, Name: "all", Brokers: brokers, Logger: quiet, Workers: 64})
	c.handlers(p, "stock", "payments", "courier", "notices")
	ended := make(chan error, 2)
	go func() { ended <- engine.Run(running) }()
	go func() { ended <- p.Run(running) }()
	// The load: whatever fails at once, so that many sagas end, and some are open at the end.
	modes := []string{modeOK, modeDecline, modePivot, modeBranch, modeFlaky}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for n < 400 || conn.fewest(shards) < 5 {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("after %d orders a journal was trimmed only %d times", n, conn.fewest(shards))
		}
		k, id := c.kinds[n%len(c.kinds)], fmt.Sprintf("order-%d", n)
		cl.Produce(ctx, &kgo.Record{Topic: c.events, Key: []byte(id), Value: fmt.Appendf(nil, `{"id":%q,"mode":%q}`, id, modes[n%len(modes)]),
			Headers: []kgo.RecordHeader{{Key: events.HeaderType, Value: []byte(k.typ)}}}, nil)
		n++
	}
	stop()
	must(errors.Join(<-ended, <-ended))
	client.Close()

	read := func(ev *checker.Evidence) map[int32][]events.Message {
		out := map[int32][]events.Message{}
		for p := range shards {
			l := ev.Log(names.Journal(), int32(p))
			out[int32(p)] = l.Records
		}
		return out
	}
	must(rec.CatchUp(ctx))
	ev, err := rec.Finish(ctx)
	must(err)
	full = read(ev)
	late, err := checker.NewRecorder(ctx, app, brokers, nil, nil)
	must(err)
	ev, err = late.Finish(ctx)
	must(err)
	left = read(ev)
	for p := range full {
		if len(full[p]) == 0 || full[p][0].Offset != 0 || len(left[p]) == 0 || left[p][0].Offset == 0 {
			t.Fatalf("shard %d: %d records in the copy, %d left", p, len(full[p]), len(left[p]))
		}
	}
	t.Logf("%d orders; trimmed %v times", n, conn.trims)
	return full, left, cl, app
}

// shifted copies journals to another topic whose offsets begin higher, and reads them from there.
func shifted(t *testing.T, cl *kgo.Client, brokers []string, topic string, from map[int32][]events.Message) map[int32][]events.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(ctx, int32(len(from)), 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	w, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	put := func(p int32, values ...[]byte) {
		var recs []*kgo.Record
		for _, v := range values {
			recs = append(recs, &kgo.Record{Topic: topic, Partition: p, Value: v})
		}
		if err := w.ProduceSync(ctx, recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	trim := kadm.Offsets{}
	for p := range from {
		put(p, slices.Repeat([][]byte{[]byte("somebody else's")}, 1000+int(p))...)
		trim.AddOffset(topic, p, 1000+int64(p), -1)
	}
	if _, err := adm.DeleteRecords(ctx, trim); err != nil {
		t.Fatal(err)
	}
	for p, records := range from {
		var values [][]byte
		for _, m := range records {
			values = append(values, m.Value)
		}
		put(p, values...)
	}
	// The copy is read like the journal of an application of that name.
	rec, err := checker.NewRecorder(ctx, strings.TrimSuffix(topic, ".journal"), brokers, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := rec.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32][]events.Message{}
	for p := range from {
		out[p] = ev.Log(topic, p).Records
		if len(out[p]) != len(from[p]) || out[p][0].Offset == from[p][0].Offset {
			t.Fatalf("shard %d: the copy has %d of %d records, and begins at %d", p, len(out[p]), len(from[p]), out[p][0].Offset)
		}
	}
	return out
}

func TestAJournalCompactedFiveTimesUnderLoadFoldsLikeItsUncompactedCopy(t *testing.T) {
	for name, start := range map[string]func(*testing.T) []string{
		"embedded": func(t *testing.T) []string {
			dev, err := kafkaconn.StartDev(kafkaconn.DevOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(dev.Close)
			return []string{dev.Addr()}
		},
		"kafka": func(t *testing.T) []string { return kafka.Require(t).Addrs() },
	} {
		t.Run(name, func(t *testing.T) {
			brokers := start(t)
			const shards = 2
			full, left, cl, app := compacted(t, brokers, shards)
			want := map[int32]folded{}
			for p := range full {
				want[p] = fold(t, full[p])
				if len(want[p].rows) < 100 {
					t.Errorf("shard %d has only %d rows: this shows little", p, len(want[p].rows))
				}
				want[p].same(t, fmt.Sprintf("shard %d, compacted", p), fold(t, left[p]))
			}
			for what, records := range map[string]map[int32][]events.Message{"whole": full, "compacted": left} {
				for p, copied := range shifted(t, cl, brokers, app+"-"+what+".journal", records) {
					want[p].same(t, fmt.Sprintf("shard %d, %s, copied with other offsets", p, what), fold(t, copied))
				}
			}
			// The comparison sees a carry that is missing.
			for p, records := range left {
				if got := foldWithout(t, records, lastCarry(records)); slices.Equal(got.rows, want[p].rows) {
					t.Errorf("shard %d: without a carry the rows are the same", p)
				}
			}
		})
	}
}
