package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/test/kafka"
)

const usage = `usage: go run ./test/bench [flags]

Measures a saga of -steps typed steps (JSON payloads; each step with undo, 30 s time-out and retry), history
on, with Pebble stores in a temporary folder, on real Kafka: the one at -brokers, or one that is started for
the purpose (needs Java and Maven). Engine, participants and load run in processes of their own.

The loop is closed: each of -concurrency clients places its next order when its saga is final, as announced
on <app>.lifecycle. What is measured is what ends within -duration, after -warmup.

  go run ./test/bench -steps 5 -concurrency 64 -duration 20s -json
  go run ./test/bench -brokers localhost:9092 -profile /tmp/profiles
  go run ./test/bench -rate 500                        open loop: 500 orders a second, whatever becomes of them
  go run ./test/bench -starts 1000000                  many sagas waiting at once: the engine's memory
  go run ./test/bench -floor -concurrency 200 -linger 1ms   the least that any engine must do, with records of the same sizes
  go run ./test/bench -pairs 5 -floor-linger 0,1ms     engine and floor in turns on one warm broker: the fraction it keeps

With -json, stdout is one JSON object:

  sagas_per_s               sagas that became final in the window, by its length
  p50_ms p95_ms p99_ms      from placing an order to reading that its saga is final
  step_p50_ms               p50_ms by the number of steps
  not_completed             sagas that ended otherwise than completed; anything but 0 spoils the run
  engine_cpu_us_per_saga    user and system time of the engine process over the window, by sagas
  engine_rss_mib            resident memory of the engine at the window's end
  engine_rss_peak_mib       and at most, since it started
  allocs_per_decision       heap objects the engine process allocated in the window, by journal records accepted
  alloc_bytes_per_decision  the same in bytes
  journal_bytes_per_decision  mean value of a journal record
  command_bytes             mean command: key, value, and names and values of headers
  reply_bytes               mean reply, likewise
  final_bytes               mean announcement on <app>.lifecycle, likewise
  command_headers reply_headers final_headers  how many headers those have, in the mean
  participants_cpu_us_per_saga  of the participants' process; the load's own is not counted
  forwards_per_saga         records that were sent on to the shard of their saga: 1 with -forward, one a step with -scatter
  decisions_per_saga, and the parameters, gomaxprocs, cpus, load_average at begin and end, kafka

With -rate, sagas_per_s counts what became final in the window, and the percentiles are of every order that was
due in it, from the moment it was due; late_placed_ms is the longest that the load itself was behind.

With -restore, after the run, the engine reads the journal it has written into empty stores (orchestrator.Engine.Verify,
which folds as a start does), and compares them with its live ones: first shard 0 alone, then all shards at once.

  records                   journal records read into the stores of all shards
  records_per_s             these, by the time until the last shard had read its own
  records_per_s_one_shard   of shard 0 alone
  restore_cpu_us_per_record  user and system time of the engine process for all shards, the comparison included
  same                      true when all rows, and the shards' states, are those of the live stores, by hash

With -sleeping the load runs twice, each time on an application and an engine of its own: first alone, whose figures
are named empty_..., then beside -sleeping sagas that sleep for a day. Beside those of the load:

  sleeping                  so many sagas asleep, and in sleep_seconds all of them were
  sleeping_rss_mib          the engine's resident memory with all of them asleep and nothing else to do
  sleeping_rss_peak_mib     and at most, until then
  sleeping_disk_mib         its stores on disk; sleeping_disk_bytes for one of them
  cost_of_sleep             engine_cpu_us_per_saga by that of the load alone: 1 when sleepers cost a decision nothing

With -starts: starts, start_seconds (until each start is decided), starts_per_s, rss_peak_waiting_mib (the
engine's largest, with all of them waiting), finish_seconds, sagas_per_s while finishing, rss_peak_mib.

With -floor, the figures of the engine are those of the floor's process in its place, and its decisions are
acknowledged journal records.

With -pairs: turns, each pair with the report of its engine and those of its floors; engine and floor, the
medians of their figures; floor_linger_ms, the floor's best of -floor-linger, which the following are of;
fraction, the median of the pairs' engine sagas_per_s by the floor's, and p50_ratio and cpu_ratio likewise;
not_completed of all turns; load_average, the largest that a turn began or ended with.

Flags:
`

type options struct {
	mode        string
	app         string
	brokers     string
	dir         string
	steps       int
	concurrency int
	duration    time.Duration
	warmup      time.Duration
	shards      int
	linger      time.Duration
	fsync       bool
	json        bool
	profile     string
	starts      int
	rate        int
	transact    bool
	scatter     bool
	forward     bool
	restore     bool
	sleeping    int
	awake       bool // of -sleeping: the load alone, without the sleepers
	plain       bool
	workers     int
	telemetry   string
	topics      int
	cache       int
	memory      int
	floor       bool
	floorLinger string // durations with commas between
	pairs       int
	sizes       sizes
}

func (o *options) flags(f *flag.FlagSet) {
	f.StringVar(&o.mode, "mode", "", "internal: the role of a child `ROLE`")
	f.StringVar(&o.app, "app", "", "internal: the application of this run `NAME`")
	f.StringVar(&o.dir, "dir", "", "where the stores are; default: a temporary folder, removed at the end `DIR`")
	f.StringVar(&o.brokers, "brokers", "", "Kafka, host:port, with commas between several; default: start one `ADDR`")
	f.IntVar(&o.steps, "steps", 5, "steps of the saga, 1 to 100 `N`")
	f.IntVar(&o.concurrency, "concurrency", 64, "sagas in flight `C`")
	f.DurationVar(&o.duration, "duration", 20*time.Second, "of the measured window `DURATION`")
	f.DurationVar(&o.warmup, "warmup", 5*time.Second, "before it, from the first saga's end `DURATION`")
	f.IntVar(&o.shards, "shards", 4, "shards of the application, and partitions of every topic `N`")
	f.DurationVar(&o.linger, "linger", 0, "producer linger of engine, participants and load `DURATION`")
	f.BoolVar(&o.fsync, "fsync-journal", false, "create the journal with flush.messages=1: every decision on disk before it counts")
	f.BoolVar(&o.json, "json", false, "one JSON object on stdout and nothing else")
	f.StringVar(&o.profile, "profile", "", "write engine.cpu.pprof, engine.allocs.pprof and those of the participants' process there, of the window; with -starts those of the engine while all finish, and engine.heap.pprof before; costs a little speed `DIR`")
	f.IntVar(&o.starts, "starts", 0, "instead: so many sagas started and waiting while no participant runs, then all finished `N`")
	f.BoolVar(&o.transact, "transactional", false, "emit the commands in transactions, together with the progress")
	f.BoolVar(&o.scatter, "scatter", false, "participants put every reply on a partition that is not its saga's shard")
	f.BoolVar(&o.forward, "forward", false, "the load puts every order on a partition that is not its saga's shard")
	f.BoolVar(&o.restore, "restore", false, "after the run, rebuild every shard from its journal and compare; the journal is not compacted meanwhile")
	f.IntVar(&o.sleeping, "sleeping", 0, "run the load twice: on an empty store, and beside so many sagas asleep on a timer of a day; open loop, by default of 100 orders a second `N`")
	f.IntVar(&o.rate, "rate", 0, "open loop instead: orders a second, whether sagas end or not; -concurrency is not used `N`")
	f.BoolVar(&o.plain, "plain-participants", false, "answer with a bare loop instead of the participant kit, to see what the kit costs")
	f.IntVar(&o.topics, "command-topics", 1, "topics that the steps' commands are spread over, 1 to -steps `N`")
	f.IntVar(&o.cache, "cache", 0, "memory for the engine's stores, MiB; 0: the engine's default `N`")
	f.IntVar(&o.memory, "memory", orchestrator.DefaultMemory>>20, "soft limit of the engine's memory, MiB `N`")
	f.IntVar(&o.workers, "workers", 64, "workers of the participant kit `N`")
	f.StringVar(&o.telemetry, "telemetry", "off", "off; on: metrics, and traces sampled as by default; metrics: those alone; all: every saga traced. Traces go to a collector in the parent that takes and drops them `WHAT`")
	o.floorFlags(f)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
}

func (o *options) check() error {
	switch {
	case o.steps < 1 || o.steps > 100:
		return fmt.Errorf("-steps %d: 1 to 100", o.steps)
	case o.topics < 1 || o.topics > o.steps:
		return fmt.Errorf("-command-topics %d: 1 to the number of steps", o.topics)
	case o.concurrency < 1 || o.concurrency > 1_000_000:
		return fmt.Errorf("-concurrency %d: 1 to 1000000", o.concurrency)
	case o.duration < time.Second:
		return fmt.Errorf("-duration %s: at least 1s", o.duration)
	case o.warmup < 0:
		return fmt.Errorf("-warmup %s: not negative", o.warmup)
	case o.shards < 1 || o.shards > events.MaxShards:
		return fmt.Errorf("-shards %d: 1 to %d", o.shards, events.MaxShards)
	case (o.scatter || o.forward) && o.shards < 2:
		return errors.New("-scatter and -forward: with at least 2 -shards")
	case o.linger < 0 || o.linger > time.Second:
		return fmt.Errorf("-linger %s: 0 to 1s", o.linger)
	case o.telemetry != "off" && o.telemetry != "on" && o.telemetry != "metrics" && o.telemetry != "all":
		return fmt.Errorf("-telemetry %q: off, on, metrics or all", o.telemetry)
	case o.cache < 0:
		return fmt.Errorf("-cache %d: not negative", o.cache)
	case o.memory < 32:
		return fmt.Errorf("-memory %d: at least 32", o.memory)
	case o.rate < 0 || o.rate > 100_000:
		return fmt.Errorf("-rate %d: 0 to 100000", o.rate)
	case o.rate > 0 && o.starts > 0:
		return errors.New("-rate and -starts: one of them")
	case o.rate > 0 && float64(o.rate)*(o.warmup+o.duration).Seconds() > 50_000_000:
		return errors.New("-rate: at most 50000000 orders in -warmup and -duration")
	case o.sleeping < 0 || o.sleeping > 10_000_000:
		return fmt.Errorf("-sleeping %d: 0 to 10000000", o.sleeping)
	case o.sleeping > 0 && o.starts > 0:
		return errors.New("-sleeping and -starts: one of them")
	case o.starts < 0 || o.starts > 10_000_000:
		return fmt.Errorf("-starts %d: 0 to 10000000", o.starts)
	}
	return o.checkFloor()
}

// args are the flags that a child is given.
func (o *options) args(mode string) []string {
	a := []string{"-mode", mode, "-app", o.app, "-brokers", o.brokers, "-dir", o.dir, "-profile", o.profile,
		"-steps", fmt.Sprint(o.steps), "-shards", fmt.Sprint(o.shards), "-linger", o.linger.String(), "-workers", fmt.Sprint(o.workers),
		"-command-topics", fmt.Sprint(o.topics), "-cache", fmt.Sprint(o.cache), "-memory", fmt.Sprint(o.memory)}
	a = append(a, "-telemetry", o.telemetry)
	if o.plain {
		a = append(a, "-plain-participants")
	}
	if o.transact {
		a = append(a, "-transactional")
	}
	if o.scatter {
		a = append(a, "-scatter")
	}
	if o.restore {
		a = append(a, "-restore")
	}
	if o.sleeping > 0 {
		a = append(a, "-sleeping", fmt.Sprint(o.sleeping))
	}
	if o.starts > 0 {
		a = append(a, "-starts", fmt.Sprint(o.starts))
	}
	if o.floor {
		a = append(a, o.sizes.args()...)
	}
	return a
}

func main() {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	o.flags(f)
	if err := f.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		os.Exit(2)
	}
	err := o.check()
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	switch o.mode {
	case "engine":
		err = engineRole(ctx, &o)
	case "participants":
		err = participantsRole(ctx, &o)
	case "floor-engine":
		err = floorEngineRole(ctx, &o)
	case "floor-participants":
		err = floorParticipantsRole(ctx, &o)
	default:
		err = parent(ctx, &o, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.TrimSpace("bench "+o.mode)+":", err)
		os.Exit(1)
	}
}

// parent starts what the run needs, runs it, and prints what came out.
func parent(ctx context.Context, o *options, out io.Writer) (err error) {
	where := "as given"
	if o.brokers == "" {
		cluster, err := kafka.Start(ctx, kafka.Options{HeapMiB: 1024})
		if err != nil {
			return err
		}
		defer cluster.Stop()
		o.brokers, where = cluster.Addr(), "started for this run: 1 broker"
	}
	untaken, err := collector(o)
	if err != nil {
		return err
	}
	defer untaken()
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "skald-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	if o.pairs > 0 {
		return pairs(ctx, o, where, out)
	}
	r, err := turn(ctx, o, where)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(out).Encode(r)
	}
	return r.print(out)
}

// turn is one run with an application of its own.
func turn(ctx context.Context, o *options, where string) (report, error) {
	o.app = fmt.Sprintf("bench-%x", time.Now().UnixMilli())
	r := report{}
	if err := r.environment(o, where); err != nil {
		return nil, err
	}
	measure := run
	if o.sleeping > 0 {
		measure = besideSleepers
	}
	if err := measure(ctx, o, r); err != nil {
		return nil, err
	}
	r.set("load_average_end", loadAverage())
	return r, nil
}
