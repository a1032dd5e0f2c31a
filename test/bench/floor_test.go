package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
)

// floorSizes are none of the defaults, so that a child that is not given them is found out.
var floorSizes = sizes{journal: 700, command: shape{450, 7}, reply: shape{300, 5}, final: shape{222, 1}}

func TestTheFloorSendsTheSizesItIsGiven(t *testing.T) {
	got := bench(t, options{steps: 3, concurrency: 4, duration: time.Second, floor: true, fsync: true, linger: time.Millisecond, sizes: floorSizes})
	for name, want := range map[string]float64{"journal_bytes_per_decision": 700, "command_bytes": 450, "command_headers": 7,
		"reply_bytes": 300, "reply_headers": 5, "final_bytes": 222, "final_headers": 1, "not_completed": 0, "linger_ms": 1} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if got["floor"] != true {
		t.Error("the report does not say that it is of the floor")
	}
	// A start and a reply for each step; the sagas at the window's borders have some of theirs on the other side.
	if d := got["decisions_per_saga"].(float64); d < 3.2 || d > 4.8 {
		t.Errorf("%v journal records a saga of three steps, want about 4", d)
	}
	for _, name := range []string{"sagas_per_s", "p50_ms", "p99_ms", "engine_cpu_us_per_saga", "participants_cpu_us_per_saga"} {
		if v, ok := got[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v, want more than 0", name, got[name])
		}
	}
}

// heldBroker keeps what is produced, and acknowledges when the test says so.
type heldBroker struct {
	records []*kgo.Record
	acks    []func(*kgo.Record, error)
}

func (b *heldBroker) Produce(_ context.Context, r *kgo.Record, ack func(*kgo.Record, error)) {
	b.records, b.acks = append(b.records, r), append(b.acks, ack)
}

func (b *heldBroker) TryProduce(ctx context.Context, r *kgo.Record, ack func(*kgo.Record, error)) {
	b.Produce(ctx, r, ack)
}

func TestTheFloorCommandsOnceTheJournalHasItAndWritesEachPollToItsStore(t *testing.T) {
	o := &options{app: "a", steps: 1, topics: 1, shards: 4}
	store, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	broker := &heldBroker{}
	f := &floorEngine{o: o, w: newWorld(o), client: broker, store: store, batch: store.NewBatch(), topics: events.Topics{App: "a"},
		commands: floorSizes.command.steps(1), final: floorSizes.final.first(events.HeaderType, []byte("saga.completed"))}
	defer func() { f.batch.Close() }()
	sent := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	reply := floorSizes.reply.steps(1)[1].record("a.replies", 2, []byte("7-0"))
	for i, c := range []struct {
		in   *kgo.Record
		then string
	}{{&kgo.Record{Topic: f.w.orders, Partition: 2, Key: []byte("7-0"), Value: []byte("an order")}, f.w.commands[0]}, {reply, "a.lifecycle"}} {
		if err := f.take(c.in, sent); err != nil {
			t.Fatal(err)
		}
		if n := len(broker.records); n != 2*i+1 || broker.records[n-1].Topic != "a.journal" {
			t.Fatalf("before the journal acknowledged record %d, %d were sent, the last to %s", i, n, broker.records[n-1].Topic)
		}
		broker.acks[2*i](nil, nil)
		if n := len(broker.records); n != 2*i+2 || broker.records[n-1].Topic != c.then || broker.records[n-1].Partition != 2 || string(broker.records[n-1].Key) != "7-0" {
			t.Fatalf("after it did, %d were sent, the last %+v; want one to %s", n, broker.records[n-1], c.then)
		}
		if err := f.apply(); err != nil {
			t.Fatal(err)
		}
		kept, done, err := store.Get([]byte("7-0"))
		if err != nil || !bytes.Equal(kept, c.in.Value) {
			t.Fatalf("the store has %q of the saga (%v), want what came last", kept, err)
		}
		done.Close()
	}
	var failed error
	if err := f.take(reply, func(err error) { failed = err }); err != nil {
		t.Fatal(err)
	}
	broker.acks[4](nil, errors.New("refused"))
	if failed == nil || len(broker.records) != 5 {
		t.Errorf("after the journal refused, %v and %d records; want the error, and nothing more sent", failed, len(broker.records))
	}
	if err := f.take(&kgo.Record{Topic: "a.replies"}, sent); err == nil {
		t.Error("a reply that says no step is taken")
	}
}

func TestPairsGiveTheFloorTheSizesOfTheEngineBeforeIt(t *testing.T) {
	got := bench(t, options{steps: 2, concurrency: 4, duration: time.Second, pairs: 2, floorLinger: "0s,1ms", sizes: floorSizes})
	turns, _ := got["turns"].([]any)
	if len(turns) != 2 {
		t.Fatalf("%d pairs, want 2", len(turns))
	}
	apps := map[any]bool{}
	for _, p := range turns {
		engine, floors := p.(map[string]any)["engine"].(map[string]any), p.(map[string]any)["floors"].([]any)
		if engine["floor"] != false || len(floors) != 2 {
			t.Fatalf("a pair of an engine (floor: %v) and %d floors, want an engine and 2", engine["floor"], len(floors))
		}
		apps[engine["app"]] = true
		for i, f := range floors {
			f := f.(map[string]any)
			apps[f["app"]] = true
			if f["floor"] != true || f["linger_ms"] != float64(i) {
				t.Errorf("floor %d: floor %v with a linger of %v ms", i+1, f["floor"], f["linger_ms"])
			}
			for _, name := range []string{"journal_bytes_per_decision", "command_bytes", "command_headers", "reply_bytes", "reply_headers", "final_bytes", "final_headers"} {
				measured, sent := engine[name].(float64), f[name].(float64)
				if measured <= 0 || sent < measured-.51 || sent > measured+.51 {
					t.Errorf("floor %d: %s is %v, and was %v of the engine before", i+1, name, sent, measured)
				}
			}
		}
	}
	if len(apps) != 6 {
		t.Errorf("%d applications in 6 turns: each has its own", len(apps))
	}
	for _, name := range []string{"fraction", "p50_ratio", "cpu_ratio"} {
		if v, ok := got[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v, want more than 0", name, got[name])
		}
	}
	if got["not_completed"] != 0.0 {
		t.Errorf("%v sagas were not completed", got["not_completed"])
	}
}

func TestTheFractionIsTheMedianOfNeighboursWithTheFloorsBestLinger(t *testing.T) {
	turn := func(rate, p50, load float64, linger time.Duration, other int) report {
		return report{"sagas_per_s": rate, "p50_ms": p50, "engine_cpu_us_per_saga": 100 * p50, "load_average_begin": 1.0, "load_average_end": load,
			"linger_ms": linger.Seconds() * 1000, "not_completed": other}
	}
	// The machine is twice as fast in the second pair: only neighbours compare. The floor lingers best at 1 ms.
	all := []pair{
		{turn(100, 10, 2, 0, 0), []report{turn(150, 1, 2, 0, 0), turn(200, 5, 2, time.Millisecond, 0)}},
		{turn(240, 4, 2, 0, 1), []report{turn(900, 1, 7, 0, 2), turn(400, 1, 2, time.Millisecond, 0)}},
		{turn(70, 8, 2, 0, 0), []report{turn(140, 1, 2, 0, 0), turn(175, 4, 2, time.Millisecond, 0)}},
	}
	got := compare(all)
	for name, want := range map[string]any{"fraction": .5, "p50_ratio": 2.0, "cpu_ratio": 2.0, "floor_linger_ms": 1.0, "load_average": 7.0, "not_completed": 3, "pairs": 3} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if e, f := got["engine"].(report)["sagas_per_s"], got["floor"].(report)["sagas_per_s"]; e != 100.0 || f != 200.0 {
		t.Errorf("medians of %v and %v, want 100 and 200", e, f)
	}
	if even := compare([]pair{all[0], all[2]})["fraction"]; even != .45 {
		t.Errorf("the fraction of two pairs, of 0.5 and 0.4, is %v, want their mean", even)
	}
}

func TestTheFloorsJournalIsFlushedAsTheEnginesIs(t *testing.T) {
	broker, err := kafka.StartDev(kafka.DevOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, floor := range []bool{false, true} {
		for _, fsync := range []bool{false, true} {
			o := &options{app: fmt.Sprintf("a-%v-%v", floor, fsync), brokers: broker.Addr(), steps: 1, topics: 1, shards: 1, floor: floor, fsync: fsync}
			if _, err := topics(t.Context(), o, newWorld(o)); err != nil {
				t.Fatal(err)
			}
			configs, err := kadm.NewClient(cl).DescribeTopicConfigs(t.Context(), o.app+".journal")
			if err != nil || configs[0].Err != nil {
				t.Fatal(err, configs)
			}
			flushed := slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "flush.messages" && c.MaybeValue() == "1" })
			if flushed != fsync {
				t.Errorf("floor %v, -fsync-journal %v: each record flushed is %v", floor, fsync, flushed)
			}
		}
	}
}

func TestAFloorThatCannotBeIsRefused(t *testing.T) {
	good := options{steps: 1, topics: 1, concurrency: 1, duration: time.Second, shards: 1, telemetry: "off", memory: 64, floor: true, sizes: floorSizes}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*options){
		"both":                     func(o *options) { o.pairs = 1 },
		"no journal":               func(o *options) { o.sizes.journal = 0 },
		"a huge journal":           func(o *options) { o.sizes.journal = 1 << 30 },
		"no header for the step":   func(o *options) { o.sizes.reply.headers = 0 },
		"headers without room":     func(o *options) { o.sizes.command = shape{200, 20} },
		"a final record too huge":  func(o *options) { o.sizes.final.bytes = 1 << 30 },
		"starts":                   func(o *options) { o.starts = 1 },
		"a restore":                func(o *options) { o.restore = true },
		"sleepers":                 func(o *options) { o.sleeping = 1 },
		"a profile":                func(o *options) { o.profile = "somewhere" },
		"its linger without pairs": func(o *options) { o.floorLinger = "1ms" },
		"negative pairs":           func(o *options) { o.floor, o.pairs = false, -1 },
		"no duration":              func(o *options) { o.floor, o.pairs, o.floorLinger = false, 1, "1ms,much" },
		"a long linger":            func(o *options) { o.floor, o.pairs, o.floorLinger = false, 1, "0s,1m" },
	} {
		o := good
		change(&o)
		if o.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
