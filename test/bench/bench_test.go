package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/orchestrator"
)

// TestMain lets the test binary play the engine and the participants.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-mode") {
		main()
		return
	}
	os.Exit(m.Run())
}

func bench(t *testing.T, o options) map[string]any {
	t.Helper()
	broker, err := kafka.StartDev(kafka.DevOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	o.brokers, o.shards, o.workers, o.topics, o.json = broker.Addr(), 2, 16, 1, true
	o.telemetry, o.memory = "off", orchestrator.DefaultMemory>>20
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := parent(t.Context(), &o, &out); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	d := json.NewDecoder(&out)
	if err := d.Decode(&got); err != nil || d.More() {
		t.Fatalf("stdout is not one JSON object: %v", err)
	}
	return got
}

func TestAClosedLoopReportsWhatItPromises(t *testing.T) {
	dir := t.TempDir()
	got := bench(t, options{steps: 2, concurrency: 4, duration: time.Second, profile: dir})
	for _, name := range []string{"sagas_per_s", "p50_ms", "p95_ms", "p99_ms", "step_p50_ms", "engine_cpu_us_per_saga", "engine_rss_peak_mib",
		"allocs_per_decision", "journal_bytes_per_decision", "command_bytes", "reply_bytes", "gomaxprocs"} {
		if v, ok := got[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v, want more than 0", name, got[name])
		}
	}
	if got["not_completed"] != 0.0 {
		t.Errorf("%v sagas were not completed", got["not_completed"])
	}
	// A start and a reply for each step, and now and then a record of progress.
	if d := got["decisions_per_saga"].(float64); d < 2 || d > 5 {
		t.Errorf("%v decisions a saga of two steps, want about 3", d)
	}
	for _, name := range []string{"engine.cpu.pprof", "engine.allocs.base.pprof", "engine.allocs.pprof", "participants.cpu.pprof", "participants.allocs.base.pprof", "participants.allocs.pprof"} {
		if f, err := os.Stat(dir + "/" + name); err != nil || f.Size() == 0 {
			t.Errorf("no profile %s: %v", name, err)
		}
	}
}

func TestAnOpenLoopPlacesItsOrdersWhateverBecomesOfThem(t *testing.T) {
	got := bench(t, options{steps: 2, concurrency: 1, duration: time.Second, rate: 40})
	if got["sagas"] != 40.0 || got["not_completed"] != 0.0 {
		t.Errorf("%v sagas, %v not completed; want 40 and 0: as many as were due", got["sagas"], got["not_completed"])
	}
	for _, name := range []string{"sagas_per_s", "p50_ms", "p99_ms", "engine_cpu_us_per_saga", "late_placed_ms"} {
		if v, ok := got[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v, want more than 0", name, got[name])
		}
	}
}

func TestCommandsInTransactionsAreCountedAsWell(t *testing.T) {
	got := bench(t, options{steps: 2, concurrency: 4, duration: time.Second, transact: true})
	if v, _ := got["command_bytes"].(float64); v <= 0 || got["transactional"] != true || got["not_completed"] != 0.0 {
		t.Errorf("commands of %v bytes, transactional %v, %v not completed; want some, true and 0", got["command_bytes"], got["transactional"], got["not_completed"])
	}
}

func TestForeignPartitionsCostAForwardEach(t *testing.T) {
	for name, c := range map[string]struct {
		options
		want float64
	}{
		"neither":            {options{}, 0},
		"replies":            {options{scatter: true}, 2},
		"replies of a loop":  {options{scatter: true, plain: true}, 2},
		"orders":             {options{forward: true}, 1},
		"orders and replies": {options{scatter: true, forward: true}, 3},
	} {
		o := c.options
		o.steps, o.concurrency, o.duration = 2, 4, time.Second
		got := bench(t, o)
		// The sagas at the window's borders have some of theirs on the other side, and on a busy machine they are
		// nearly all: what counts is which runs forward at all, and about how much.
		if v, _ := got["forwards_per_saga"].(float64); v < c.want/2 || v > c.want*2 || got["not_completed"] != 0.0 {
			t.Errorf("%s: %v forwards a saga of two steps, %v not completed; want about %v and 0", name, got["forwards_per_saga"], got["not_completed"], c.want)
		}
	}
}

func TestWhatWasJournaledIsRebuiltAndIsTheSame(t *testing.T) {
	dir := t.TempDir()
	got := bench(t, options{steps: 2, concurrency: 4, duration: time.Second, restore: true, profile: dir})
	// Three records a saga, but for those that had not reached the live store yet when it was frozen.
	if least := got["sagas"].(float64) * 2; got["records"].(float64) < least || got["same"] != true {
		t.Errorf("%v records, same %v; want at least %v, and the same", got["records"], got["same"], least)
	}
	for _, name := range []string{"records_per_s", "records_per_s_one_shard", "restore_cpu_us_per_record"} {
		if v, _ := got[name].(float64); v <= 0 {
			t.Errorf("%s is %v, want more than 0", name, got[name])
		}
	}
	if f, err := os.Stat(dir + "/engine.restore.pprof"); err != nil || f.Size() == 0 {
		t.Errorf("no profile of the restore: %v", err)
	}
}

func TestARebuiltShardThatDiffersSpoilsTheRun(t *testing.T) {
	r := report{}
	got := restored{One: orchestrator.Comparison{Equal: true}, All: []orchestrator.Comparison{{Records: 3, Equal: true}, {Shard: 1, Records: 4}}, Took: restoreTimes{All: time.Second}}
	if err := got.report(r); err == nil || r["same"] != false {
		t.Errorf("error %v, same %v; want one, and false", err, r["same"])
	}
	if r["records"] != 7 || r["records_per_s"] != 7.0 {
		t.Errorf("%v records, %v a second; want 7 of both", r["records"], r["records_per_s"])
	}
}

func TestSleepersAreWeighedAgainstAnEmptyStore(t *testing.T) {
	got := bench(t, options{steps: 2, concurrency: 1, duration: time.Second, rate: 20, sleeping: 300})
	for _, name := range []string{"sleeping_rss_mib", "sleeping_rss_peak_mib", "sleeping_disk_mib", "sleep_seconds", "cost_of_sleep", "engine_cpu_us_per_saga",
		"empty_engine_cpu_us_per_saga", "empty_p50_ms", "empty_sagas_per_s"} {
		if v, ok := got[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v, want more than 0", name, got[name])
		}
	}
	// A sleeper's row alone is larger than its order.
	if v, _ := got["sleeping_disk_bytes"].(float64); v < 200 {
		t.Errorf("%v bytes on disk for a sleeper, want at least 200", v)
	}
	if got["sagas"] != 20.0 || got["not_completed"] != 0.0 || got["empty_not_completed"] != 0.0 || got["sleeping"] != 300.0 {
		t.Errorf("%v sagas, %v and %v not completed beside %v sleepers; want 20, 0, 0 and 300", got["sagas"], got["not_completed"], got["empty_not_completed"], got["sleeping"])
	}
}

func TestManyStartsWaitAndThenFinish(t *testing.T) {
	got := bench(t, options{steps: 1, concurrency: 1, duration: time.Second, starts: 50, plain: true})
	if got["starts"] != 50.0 || got["not_completed"] != 0.0 {
		t.Errorf("%v starts, %v not completed; want 50 and 0", got["starts"], got["not_completed"])
	}
	if v, _ := got["rss_peak_waiting_mib"].(float64); v <= 0 {
		t.Errorf("the memory with all waiting is %v", got["rss_peak_waiting_mib"])
	}
}

func TestWrongParametersAreRefused(t *testing.T) {
	good := options{steps: 1, topics: 1, concurrency: 1, duration: time.Second, shards: 1, telemetry: "off", memory: 64}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*options){
		"no steps":       func(o *options) { o.steps = 0 },
		"no clients":     func(o *options) { o.concurrency = 0 },
		"no time":        func(o *options) { o.duration = 0 },
		"no shards":      func(o *options) { o.shards = 0 },
		"a long linger":  func(o *options) { o.linger = time.Minute },
		"negative warm":  func(o *options) { o.warmup = -1 },
		"negative rate":  func(o *options) { o.rate = -1 },
		"one shard":      func(o *options) { o.scatter = true },
		"asleep twice":   func(o *options) { o.sleeping, o.starts = 1, 1 },
		"two loops":      func(o *options) { o.rate, o.starts = 1, 1 },
		"too many start": func(o *options) { o.starts = 1 << 30 },
	} {
		o := good
		change(&o)
		if o.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
