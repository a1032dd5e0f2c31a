package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// pair is one turn of the engine, and after it one of the floor for each linger.
type pair struct {
	Engine report   `json:"engine"`
	Floors []report `json:"floors"`
}

// pairs runs engine and floor in turns on one broker, so that both meet the same company on the machine, and
// compares each turn with its neighbour only.
func pairs(ctx context.Context, o *options, where string, out io.Writer) error {
	lingers, err := o.floorLingers()
	if err != nil {
		return err
	}
	// Turns are told as they end: a run is long, and an interrupted one has shown something too.
	told := out
	if o.json {
		told = os.Stderr
	}
	one := func(what string, o options) (report, error) {
		o.dir = filepath.Join(o.dir, fmt.Sprint(time.Now().UnixNano()))
		if err := os.Mkdir(o.dir, 0o755); err != nil {
			return nil, err
		}
		defer os.RemoveAll(o.dir)
		r, err := turn(ctx, &o, where)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		fmt.Fprintf(told, "%-32s %8.0f sagas/s  p50 %7.2f  p99 %8.2f ms  CPU %6.0f µs a saga  load %.1f to %.1f\n", what,
			r.figure("sagas_per_s"), r.figure("p50_ms"), r.figure("p99_ms"), r.figure("engine_cpu_us_per_saga"), r.figure("load_average_begin"), r.figure("load_average_end"))
		return r, nil
	}
	floor := func(linger time.Duration, s sizes) options {
		f := *o
		f.floor, f.pairs, f.floorLinger, f.linger, f.sizes = true, 0, "", linger, s
		return f
	}
	// A broker is twice as fast once it is warm; the floor warms it most. Its figures are not used.
	if _, err := one("to warm the broker: floor", floor(lingers[0], o.sizes)); err != nil {
		return err
	}
	var all []pair
	for i := range o.pairs {
		engine, err := one(fmt.Sprintf("pair %d: engine, linger %s", i+1, o.linger), *o)
		if err != nil {
			return err
		}
		s := engine.sizes()
		if err := s.check(); err != nil {
			return fmt.Errorf("the engine's records as measured: %w", err)
		}
		p := pair{Engine: engine}
		for _, linger := range lingers {
			r, err := one(fmt.Sprintf("pair %d: floor, linger %s", i+1, linger), floor(linger, s))
			if err != nil {
				return err
			}
			p.Floors = append(p.Floors, r)
		}
		all = append(all, p)
	}
	r := compare(all)
	if o.json {
		return json.NewEncoder(out).Encode(r)
	}
	for _, who := range []string{"engine", "floor"} {
		m := r[who].(report)
		fmt.Fprintf(out, "%-32s %8.0f sagas/s  p50 %7.2f  p99 %8.2f ms  CPU %6.0f µs a saga\n", who+", median",
			m.figure("sagas_per_s"), m.figure("p50_ms"), m.figure("p99_ms"), m.figure("engine_cpu_us_per_saga"))
	}
	_, err = fmt.Fprintf(out, "medians of %d pairs with the floor at a linger of %v ms: fraction %.3f, p50 ratio %.2f, CPU ratio %.2f; %v not completed; load average up to %.1f\n",
		len(all), r["floor_linger_ms"], r["fraction"], r["p50_ratio"], r["cpu_ratio"], r["not_completed"], r["load_average"])
	return err
}

// figure is a number of the report, 0 when it has none of that name.
func (r report) figure(name string) float64 {
	f, _ := r[name].(float64)
	return f
}

// sizes are those of the records that an engine's turn measured.
func (r report) sizes() sizes {
	n := func(name string) int { return int(math.Round(r.figure(name))) }
	return sizes{journal: n("journal_bytes_per_decision"), command: shape{n("command_bytes"), n("command_headers")},
		reply: shape{n("reply_bytes"), n("reply_headers")}, final: shape{n("final_bytes"), n("final_headers")}}
}

// compare makes the report of pairs, of which there is one at least: the floor at its best linger against the engine.
func compare(all []pair) report {
	best, most := 0, -1.0
	for i := range all[0].Floors {
		if m := median(all, func(p pair) float64 { return p.Floors[i].figure("sagas_per_s") }); m > most {
			best, most = i, m
		}
	}
	r := report{"pairs": len(all), "turns": all, "floor_linger_ms": all[0].Floors[best]["linger_ms"]}
	engine, floor := report{}, report{}
	for _, name := range []string{"sagas_per_s", "p50_ms", "p95_ms", "p99_ms", "step_p50_ms", "engine_cpu_us_per_saga", "participants_cpu_us_per_saga", "engine_rss_peak_mib"} {
		engine.set(name, median(all, func(p pair) float64 { return p.Engine.figure(name) }))
		floor.set(name, median(all, func(p pair) float64 { return p.Floors[best].figure(name) }))
	}
	r.set("engine", engine)
	r.set("floor", floor)
	for name, of := range map[string]string{"fraction": "sagas_per_s", "p50_ratio": "p50_ms", "cpu_ratio": "engine_cpu_us_per_saga"} {
		r.set(name, median(all, func(p pair) float64 { return per(p.Engine.figure(of), p.Floors[best].figure(of)) }))
	}
	other, load := 0, -1.0
	for _, p := range all {
		for _, t := range append([]report{p.Engine}, p.Floors...) {
			n, _ := t["not_completed"].(int)
			other += n
			load = max(load, t.figure("load_average_begin"), t.figure("load_average_end"))
		}
	}
	r.set("not_completed", other)
	r.set("load_average", load)
	return r
}

// median of a figure of the pairs; of an even number, the mean of the middle two.
func median(all []pair, figure func(pair) float64) float64 {
	var v []float64
	for _, p := range all {
		v = append(v, figure(p))
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
