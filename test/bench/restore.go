package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/skald-io/skald/orchestrator"
)

// restored is what the engine process says of a restore.
type restored struct {
	One  orchestrator.Comparison   `json:"one"` // shard 0, alone
	All  []orchestrator.Comparison `json:"all"` // every shard, at once
	Took restoreTimes              `json:"took"`
	CPU  int64                     `json:"cpu_us"` // of the process, for All with its comparison
}

// restoreTimes are how long reading the journal took, without the comparison.
type restoreTimes struct{ One, All time.Duration }

// restore rebuilds the shards as they are now. With -profile it writes engine.restore.pprof of the pass over all.
func (p *profiler) restore(ctx context.Context, e *orchestrator.Engine) (out restored, err error) {
	if out.One, err = e.Verify(ctx, 0); err != nil {
		return out, err
	}
	out.Took.One = out.One.Took
	if p.dir != "" {
		f, err := os.Create(filepath.Join(p.dir, "engine.restore.pprof"))
		if err != nil {
			return out, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return out, err
		}
		defer pprof.StopCPUProfile()
	}
	before := processSample().CPU
	shards := e.Shards()
	out.All = make([]orchestrator.Comparison, len(shards))
	errs := make([]error, len(shards))
	var all sync.WaitGroup
	for i, s := range shards {
		all.Go(func() { out.All[i], errs[i] = e.Verify(ctx, s) })
	}
	all.Wait()
	out.CPU = processSample().CPU - before
	for _, c := range out.All {
		out.Took.All = max(out.Took.All, c.Took)
	}
	return out, errors.Join(errs...)
}

// restore has the engine rebuild what it has journaled, and reports how fast it did and whether the result is
// the same. A difference is an error too: the run is spoiled.
func restore(engine *child, r report) error {
	var got restored
	if err := engine.askWithin(time.Hour, "restore", &got); err != nil {
		return err
	}
	return got.report(r)
}

func (got *restored) report(r report) error {
	var differs error
	for _, c := range append(got.All, got.One) {
		if !c.Equal {
			differs = fmt.Errorf("shard %d is not what its journal says: %d rows live, %d rebuilt at offset %d", c.Shard, c.Rows, c.Rebuilt, c.Offset)
		}
	}
	records := 0
	for _, c := range got.All {
		records += c.Records
	}
	r.set("records", records)
	r.set("records_per_s", per(float64(records), got.Took.All.Seconds()))
	r.set("records_per_s_one_shard", per(float64(got.One.Records), got.Took.One.Seconds()))
	r.set("restore_cpu_us_per_record", per(float64(got.CPU), float64(records)))
	r.set("same", differs == nil)
	return differs
}
