package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// follower shows what the watch sees until there is a reason to stop.
type follower struct {
	screen   *screen
	watch    *watch
	json     bool
	undoName func(node uint32, step string) string

	once   bool
	wait   time.Duration   // how long after the last order is placed the run may go on
	placed <-chan struct{} // closed when the last order is placed
	failed <-chan error    // something that makes going on pointless
}

// run returns nil when ctx ends, or, with once, when every order is final. What is unfinished when the wait
// is over is listed, and the error is an *exitError.
func (f *follower) run(ctx context.Context) error {
	defer f.screen.Status("")
	defer f.news()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	placed := f.placed
	allPlaced := false
	var late <-chan time.Time
	for {
		f.news()
		t := f.watch.Tally()
		f.screen.Status(statusLine(t))
		if f.once && allPlaced && t.Final() == t.Placed {
			return nil
		}
		select {
		case <-f.watch.wake:
		case <-tick.C:
		case <-placed:
			placed, allPlaced = nil, true
			if f.once {
				timer := time.NewTimer(f.wait)
				defer timer.Stop()
				late = timer.C
			}
		case err := <-f.failed:
			return err
		case <-late:
			return f.unfinished(exitFailed, fmt.Sprintf("not final %s after the last order was placed", f.wait))
		case <-ctx.Done():
			if f.once {
				return f.unfinished(exitInterrupted, "interrupted")
			}
			return nil
		}
	}
}

func (f *follower) news() {
	for _, n := range f.watch.Take() {
		v := viewOf(n.id, n.head, n.history)
		switch {
		case !f.json:
			f.screen.Result(f.screen.Saga(v, f.undoName))
		case n.head.State.Final():
			f.screen.Object(v)
		}
	}
}

// unfinished lists on stderr what is not final; as JSON, the instances among it stand on stdout as well, so
// that there is one object for each.
func (f *follower) unfinished(code int, why string) error {
	f.news()
	left := f.watch.Unfinished()
	if len(left) == 0 && code == exitFailed {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d orders", why, len(left), f.watch.Tally().Placed)
	for i, n := range left {
		if i == 100 {
			fmt.Fprintf(&b, "\n… and %d more", len(left)-i)
			break
		}
		b.WriteByte('\n')
		if n.id.IsZero() {
			fmt.Fprintf(&b, "%s not started: no decision about it was seen here", n.head.Key)
		} else {
			plain := screen{e: f.screen.e}
			b.WriteString(plain.Saga(viewOf(n.id, n.head, n.history), f.undoName))
		}
	}
	if f.json {
		for _, n := range left {
			if !n.id.IsZero() {
				f.screen.Object(viewOf(n.id, n.head, n.history))
			}
		}
	}
	return &exitError{code, b.String()}
}

// summary is the last line of a run.
func summary(t tally, took time.Duration) string {
	s := fmt.Sprintf("%d orders in %s: %d completed, %d compensated", t.Placed, took.Round(100*time.Millisecond), t.Completed, t.Compensated)
	if t.Terminated > 0 {
		s += fmt.Sprintf(", %d terminated", t.Terminated)
	}
	if left := t.Placed - t.Final(); left > 0 {
		s += fmt.Sprintf(", %d not final", left)
		if t.Parked > 0 {
			s += fmt.Sprintf(" (%d parked)", t.Parked)
		}
	}
	return s
}

// pace calls place for 1, 2, … up to n at rate a second, catching up in small steps; n 0 is no end. It
// returns nil after the last, or when ctx ends.
func pace(ctx context.Context, rate float64, n int, place func(number int) error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for number := 1; n == 0 || number <= n; {
		due := int(time.Since(start).Seconds()*rate) + 1
		for ; number <= due && (n == 0 || number <= n); number++ {
			if err := place(number); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
