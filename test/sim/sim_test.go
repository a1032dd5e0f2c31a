package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// go test makes few runs; go run ./test/sim makes many.
var (
	simSeeds  = flag.Int("seeds", 60, "how many runs TestSimulation makes")
	simShrink = flag.Duration("shrink", shrinkFor, "for how long the story of a failure is made shorter")
)

func TestSimulation(t *testing.T) {
	o := many{seeds: *simSeeds, steps: defaultSteps, workers: 2, shrink: *simShrink}
	r, failed := o.run(context.Background())
	for _, out := range failed[:min(len(failed), 1)] {
		var story strings.Builder
		o.explain(context.Background(), &story, out)
		t.Error(story.String())
	}
	for _, f := range r.Never {
		t.Errorf("in no run did this fault land: %s", f)
	}
	for _, end := range []string{"two completed", "two compensated", "parcel completed", "parcel compensated", "errand completed", "errand compensated", "receipt completed"} {
		if r.Sagas[end] == 0 && len(failed) == 0 {
			t.Errorf("in no run an instance of %s", end)
		}
	}
	t.Logf("%d seeds, %d steps, %.0f steps/s, hash %s", r.Seeds, r.Steps, r.StepsPerS, r.Hash)
}

// Seeds that have found something once; what it was stands beside each.
func TestSeedsThatFoundSomethingFindNothing(t *testing.T) {
	for _, x := range []struct {
		seed  uint64
		steps int
		found string
	}{
		{10, 500, "a trimmed journal, put back from offset 0 on, was ignored, and its shard began anew"},
		{24, 500, "the same, before the first timer"},
		{36, 500, "a record that was there twice was emitted again, though a transaction had committed it"},
		{47, 500, "the same, for the command of a record behind a checkpoint"},
		{120, 500, "the same, after an owner that died within a turn"},
		{3020, 250, "an owner whose claim was lost had heard of a refusal while it opened: no fault of the engine's"},
	} {
		if out := simulate(choice{seed: x.seed, steps: x.steps}); out.violation != "" {
			t.Errorf("seed %d, which once found that %s: %s", x.seed, x.found, out.violation)
		}
	}
}

func TestASeedDecidesItsWholeSimulation(t *testing.T) {
	hashes := map[uint64]bool{}
	for seed := range uint64(6) {
		a, b := simulate(choice{seed: seed, steps: 300}), simulate(choice{seed: seed, steps: 300, tell: true})
		if a.hash != b.hash || a.steps != b.steps {
			t.Errorf("seed %d runs in two ways", seed)
		}
		hashes[a.hash] = true
	}
	if len(hashes) != 6 {
		t.Errorf("six seeds run in %d ways: the hash says nothing", len(hashes))
	}
}

// The second tier: the same seeds with stores in Pebble, over a file system that loses what was not synced. What a store
// kept of itself over a crash must not show: neither in what happened, nor in the rows at the end, which are part of the hash.
func TestPebbleEndsWithTheSameTraceAndRows(t *testing.T) {
	for seed := range uint64(6) {
		a, b := simulate(choice{seed: seed, steps: 250}), simulate(choice{seed: seed, steps: 250, pebble: true})
		if b.violation != "" {
			t.Errorf("seed %d on Pebble: %s", seed, b.violation)
		}
		if a.hash != b.hash || a.steps != b.steps {
			t.Errorf("seed %d: hash %x after %d steps in memory, %x after %d on Pebble", seed, a.hash, a.steps, b.hash, b.steps)
		}
	}
}

func TestShrinkingKeepsWhatFailsAndLeavesOutTheRest(t *testing.T) {
	// A run that is said to be wrong because one fault landed.
	var seed uint64
	for ; simulate(choice{seed: seed, steps: 200}).landed[poisoned] == 0; seed++ {
	}
	c := choice{seed: seed, steps: 200, forbidden: faults(0).with(poisoned)}
	out := simulate(c)
	if out.violation == "" {
		t.Fatal("a fault that is forbidden landed, and nothing was wrong")
	}
	small := shrink(context.Background(), c, out, 20*time.Second)
	if small.kept.len() != 1 || small.out.violation == "" {
		t.Errorf("%d steps are left, %s, with %q; want the one in which the fault lands", small.kept.len(), small.kept, small.out.violation)
	}
	if on := (^small.choice.without).list(); len(on) != 1 || on[0] != poisoned.String() {
		t.Errorf("the faults that are left are %v", on)
	}
	if len(small.out.story) == 0 {
		t.Error("there is no story")
	}
}

func TestTheCommandSaysWhatItDidAndItsStatusMeansIt(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := program(context.Background(), []string{"-seeds", "3", "-steps", "100", "-json"}, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	var r map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"seeds", "steps", "faults", "violations", "hash", "elapsed_s", "speedup"} {
		if _, ok := r[key]; !ok {
			t.Errorf("the object has no %s", key)
		}
	}
	if faults, _ := r["faults"].(map[string]any); len(faults) != int(faultCount) {
		t.Errorf("%d kinds of faults, want %d", len(faults), faultCount)
	}
	for _, x := range []struct {
		args []string
		want int
	}{
		{[]string{"-h"}, 0},
		{[]string{"-seeds", "0"}, 2},
		{[]string{"-without", "no-such-fault"}, 2},
		{[]string{"-keep", "5-2"}, 2},
		{[]string{"-seeds", "400", "-steps", "0"}, 1}, // enough seeds, and no fault landed
	} {
		stdout.Reset()
		stderr.Reset()
		if status := program(context.Background(), x.args, &stdout, &stderr); status != x.want {
			t.Errorf("%v ends with %d, want %d: %s%s", x.args, status, x.want, stdout.String(), stderr.String())
		}
	}
}

// The table of the package's comment is the vocabulary.
func TestTheTableOfFaultsIsCurrent(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for f, k := range vocabulary {
		if k.name == "" || k.says == "" || k.rules == "" || names[k.name] {
			t.Errorf("fault %d is named %q, says %q, and tells of %q", f, k.name, k.says, k.rules)
		}
		names[k.name] = true
		if line := tableLine(k); !strings.Contains(string(text), line) {
			t.Errorf("doc.go lacks the line\n%s", line)
		}
	}
}

func tableLine(k kind) string { return fmt.Sprintf("//	%-19s %-16s %s\n", k.name, k.rules, k.says) }
