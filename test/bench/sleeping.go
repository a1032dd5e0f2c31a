package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// sleepingRate is the load beside sleepers: small, so that it is the sleepers that can be seen.
const sleepingRate = 100

// besideSleepers runs the load on an empty store, and beside sleepers. Each run has an application, an engine
// and stores of its own, so that neither finds anything of the other.
func besideSleepers(ctx context.Context, o *options, r report) error {
	if o.rate == 0 {
		o.rate = sleepingRate
	}
	alone := *o
	alone.awake, alone.restore, alone.profile = true, false, ""
	alone.app, alone.dir = o.app+"-empty", filepath.Join(o.dir, "empty")
	empty := report{}
	if err := run(ctx, &alone, empty); err != nil {
		return fmt.Errorf("the load alone: %w", err)
	}
	if err := run(ctx, o, r); err != nil {
		return err
	}
	for _, name := range []string{"sagas_per_s", "p50_ms", "p99_ms", "engine_cpu_us_per_saga", "engine_rss_mib", "decisions_per_saga", "not_completed"} {
		r.set("empty_"+name, empty[name])
	}
	r.set("cost_of_sleep", per(r["engine_cpu_us_per_saga"].(float64), empty["engine_cpu_us_per_saga"].(float64)))
	return nil
}

// sleepers starts the sagas that sleep, and reports what they take once all of them do.
func (l *load) sleepers(ctx context.Context, engine *child, r report) error {
	n := l.o.sleeping
	began := time.Now()
	for i := range n {
		l.send(ctx, l.w.asleep, "sleeper-"+strconv.Itoa(i)) // waits when too many are under way
		if err := errors.Join(l.failure(), ctx.Err()); err != nil {
			return err
		}
	}
	if err := awaitAsleep(ctx, engine, int64(n)); err != nil {
		return err
	}
	took := time.Since(began)
	disk, err := settled(ctx, filepath.Join(l.o.dir, "stores"))
	if err != nil {
		return err
	}
	var asleep engineSample
	if err := engine.ask("waiting", &asleep); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %d sagas sleep after %s; the engine holds %.0f MiB, at most %.0f\n", n, took.Round(time.Second), mib(asleep.RSS), mib(asleep.RSSPeak))
	r.set("sleep_seconds", took.Seconds())
	r.set("sleeping_rss_mib", mib(asleep.RSS))
	r.set("sleeping_rss_peak_mib", mib(asleep.RSSPeak))
	r.set("sleeping_disk_mib", mib(disk))
	r.set("sleeping_disk_bytes", per(float64(disk), float64(n)))
	return nil
}

// awaitAsleep waits until n sagas sleep, as long as their number grows.
func awaitAsleep(ctx context.Context, engine *child, n int64) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last, moved := int64(-1), time.Now()
	for {
		var s engineSample
		if err := engine.ask("shards", &s); err != nil {
			return err
		}
		if s.Asleep >= n {
			return nil
		}
		if s.Asleep != last {
			last, moved = s.Asleep, time.Now()
		}
		if time.Since(moved) > time.Minute {
			return fmt.Errorf("the engine stands still at %d of %d sleepers", s.Asleep, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settled gives the size of a folder's files once it has been the same for a second: what was accepted reaches the
// store a little later, and the store packs its files a little later still. After a minute it is what it is.
func settled(ctx context.Context, dir string) (bytes int64, err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	began, changed := time.Now(), time.Now()
	for {
		now, err := sizeOfFiles(dir)
		if err != nil {
			return 0, err
		}
		if now != bytes {
			bytes, changed = now, time.Now()
		}
		if time.Since(changed) >= time.Second || time.Since(began) >= time.Minute {
			return bytes, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// sizeOfFiles adds up a folder's files. One that goes meanwhile does not count.
func sizeOfFiles(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

// sleeping is a hook that counts the sleepers.
type sleeping struct{ n atomic.Int64 }

var _ orchestrator.HookInstances = (*sleeping)(nil)

// Instances implements orchestrator.HookInstances.
func (s *sleeping) Instances(_ int32, definition string, state events.State, n int64) {
	if definition == sleeperName && state == events.Running {
		s.n.Add(n)
	}
}

// Counted implements orchestrator.HookInstances.
func (s *sleeping) Counted(int32) {}
