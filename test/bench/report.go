package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// report is the JSON object of a run: by name, so that encoding/json prints it in order.
type report map[string]any

func (r report) set(name string, v any) {
	if f, ok := v.(float64); ok {
		v = math.Round(f*1000) / 1000
	}
	r[name] = v
}

func (r report) environment(o *options, kafka string) error {
	r.set("app", o.app)
	r.set("floor", o.floor)
	r.set("steps", o.steps)
	r.set("shards", o.shards)
	r.set("linger_ms", float64(o.linger.Microseconds())/1000)
	r.set("fsync_journal", o.fsync)
	r.set("command_topics", o.topics)
	r.set("plain_participants", o.plain)
	r.set("transactional", o.transact)
	r.set("sleeping", o.sleeping)
	r.set("scatter", o.scatter)
	r.set("forward", o.forward)
	r.set("telemetry", o.telemetry)
	r.set("kafka", kafka)
	r.set("gomaxprocs", runtime.GOMAXPROCS(0))
	r.set("cpus", runtime.NumCPU())
	r.set("go", runtime.Version())
	r.set("load_average_begin", loadAverage())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				r.set("revision", s.Value)
			}
		}
	}
	return nil
}

// loadAverage is the machine's over the last minute; -1 where that is not known. Above the number of CPUs
// less this run's own share, somebody else is at work, and the figures are worth little.
func loadAverage() float64 {
	var one float64
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	if n, _ := fmt.Sscan(string(b), &one); n != 1 {
		return -1
	}
	return one
}

// latencies sets percentiles of sorted durations.
func (r report) latencies(sorted []time.Duration, steps int) {
	q := func(p float64) float64 {
		if len(sorted) == 0 {
			return 0
		}
		return float64(sorted[int(float64(len(sorted)-1)*p)].Microseconds()) / 1000
	}
	r.set("p50_ms", q(.5))
	r.set("p95_ms", q(.95))
	r.set("p99_ms", q(.99))
	r.set("step_p50_ms", q(.5)/float64(steps))
}

// engine sets what the engine's two samples say about n sagas.
func (r report) engine(before, after *engineSample, n int) {
	decisions := float64(after.Decisions - before.Decisions)
	r.set("engine_cpu_us_per_saga", per(float64(after.CPU-before.CPU), float64(n)))
	r.set("engine_rss_mib", mib(after.RSS))
	r.set("engine_rss_peak_mib", mib(after.RSSPeak))
	r.set("allocs_per_decision", per(float64(after.Mallocs-before.Mallocs), decisions))
	r.set("alloc_bytes_per_decision", per(float64(after.AllocB-before.AllocB), decisions))
	r.set("gcs", after.GCs-before.GCs)
	r.set("decisions_per_saga", per(decisions, float64(n)))
	r.set("forwards_per_saga", per(float64(after.Forwards-before.Forwards), float64(n)))
	r.set("journal_bytes_per_decision", after.Journal.meanSince(before.Journal))
	r.set("command_bytes", after.Commands.meanSince(before.Commands))
	r.set("reply_bytes", after.Replies.meanSince(before.Replies))
	r.set("final_bytes", after.Ends.meanSince(before.Ends))
	r.set("command_headers", after.Commands.headersSince(before.Commands))
	r.set("reply_headers", after.Replies.headersSince(before.Replies))
	r.set("final_headers", after.Ends.headersSince(before.Ends))
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func per(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// print writes the report for people, a figure a line.
func (r report) print(out io.Writer) error {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&b, "%-30s %v\n", k, r[k])
	}
	_, err := io.WriteString(out, b.String())
	return err
}
