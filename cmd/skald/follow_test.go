package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skald-io/skald/events"
)

func testEnv() (e *env, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &env{stdout: stdout, stderr: stderr, getenv: func(string) string { return "" }, width: func() int { return 0 }}, stdout, stderr
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func undoNames(_ uint32, step string) string { return "un-" + step }

func newFollower(e *env, json bool, placed int) *follower {
	w := newWatch("order-")
	w.Placed(placed)
	return &follower{screen: newScreen(e), watch: w, json: json, undoName: undoNames, once: true, wait: time.Minute, placed: closed()}
}

func TestARunEndsWhenEveryOrderIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, stdout, _ := testEnv()
		f := newFollower(e, false, 2)
		go func() {
			f.watch.Applied(0, decided("order-1", 0, events.Completed, entry(events.EntryDone)))
			time.Sleep(10 * time.Second)
			f.watch.Applied(1, decided("order-2", 0, events.Compensated, entry(events.EntryDone)))
		}()
		start := time.Now()
		if err := f.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("it ended after %s", took)
		}
		if got, want := stdout.String(), "order-1 completed: a ✓\norder-2 compensated: a ✓\n"; got != want {
			t.Errorf("stdout %q, want %q", got, want)
		}
	})
}

func TestAWaitThatPassesListsTheUnfinishedAndFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, stdout, _ := testEnv()
		f := newFollower(e, true, 3)
		f.watch.Applied(0, decided("order-1", 0, events.Completed, entry(events.EntryDone)))
		f.watch.Applied(0, decided("order-2", 0, events.Running, entry(events.EntryCommand)))
		start := time.Now()
		err := f.run(t.Context())
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != exitFailed {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it waited %s", took)
		}
		for _, want := range []string{"2 of 3", "order-2 running: a …", "order-3 not started"} {
			if !strings.Contains(exit.text, want) {
				t.Errorf("%q is not in %q", want, exit.text)
			}
		}
		states := map[string]string{}
		for line := range strings.Lines(stdout.String()) {
			var v instanceView
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			states[v.Key] = v.State
		}
		if len(states) != 2 || states["order-1"] != "completed" || states["order-2"] != "running" {
			t.Errorf("objects on stdout: %v", states)
		}
	})
}

func TestAnInterruptedRunSaysSo(t *testing.T) {
	e, _, _ := testEnv()
	f := newFollower(e, false, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var exit *exitError
	if err := f.run(ctx); !errors.As(err, &exit) || exit.code != exitInterrupted {
		t.Errorf("with --once: %v", err)
	}
	f.once = false
	if err := f.run(ctx); err != nil {
		t.Errorf("without --once, Ctrl-C is the ordinary end: %v", err)
	}
}

func TestAnEngineThatFailsEndsTheRun(t *testing.T) {
	e, _, _ := testEnv()
	f := newFollower(e, false, 1)
	failed := make(chan error, 1)
	failed <- errors.New("journal topic recreated")
	f.failed = failed
	if err := f.run(t.Context()); err == nil || err.Error() != "journal topic recreated" {
		t.Errorf("got %v", err)
	}
}

func TestOrdersArePlacedAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		err := pace(t.Context(), 4, 5, func(number int) error {
			if number != len(at)+1 {
				t.Errorf("order %d after %d", number, len(at))
			}
			at = append(at, time.Since(start))
			return nil
		})
		if err != nil || len(at) != 5 {
			t.Fatalf("%v, %v", at, err)
		}
		if at[0] != 0 || at[4] < time.Second || at[4] > 1050*time.Millisecond {
			t.Errorf("at 4 a second, five orders were placed at %v", at)
		}
	})
}
