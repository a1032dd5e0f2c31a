package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// defaultSteps are scheduled while faults last; what heals afterwards comes to about as many again.
const defaultSteps = 500

// enough seeds have met every fault of the vocabulary.
const enough = 400

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := program(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// program is the whole of it. Its status is 0 when nothing was wrong, 1 when something was, or a fault never landed in
// enough seeds, and 2 when that could not be found out.
func program(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, `Simulates an application under faults: one goroutine, one seed, one story.

	go run ./test/sim -seeds 5000 -steps 250   # as CI does
	go run ./test/sim -seeds 1 -first 17 -tell # the story of one seed

Exit status: 0 when no seed found anything wrong, 1 when one did (its story is shrunk and printed, with the command that
repeats it), or when in %d seeds or more a fault never landed, 2 when that could not be found out.

`, enough)
		flags.PrintDefaults()
	}
	o := many{shrink: shrinkFor}
	flags.IntVar(&o.seeds, "seeds", 100, "how many seeds to run")
	flags.Uint64Var(&o.first, "first", 0, "the first seed")
	flags.IntVar(&o.steps, "steps", defaultSteps, "how many steps are scheduled in which faults may happen")
	flags.IntVar(&o.workers, "workers", runtime.GOMAXPROCS(0), "how many seeds to run side by side")
	flags.BoolVar(&o.pebble, "pebble", false, "keep the stores in Pebble, on a file system in memory that loses what was not synced; ten times slower, and the same hash")
	flags.BoolVar(&o.tell, "tell", false, "print the story of each seed")
	asJSON := flags.Bool("json", false, "print one JSON object, and nothing else, on standard output")
	keep := flags.String("keep", "", "of the scheduled steps, take these alone: numbers and ranges such as 0-12,40")
	without := flags.String("without", "", "faults that do not happen, by name, separated by commas")
	only := flags.String("only", "", "the only faults that happen, in the same way; none: none do")
	if err := flags.Parse(args); err != nil {
		if err == flag.ErrHelp {
			return 0
		}
		return 2
	}
	var err error
	if o.without, err = faultsNamed(*without); err == nil {
		o.keep, err = parseSpans(*keep)
	}
	if err == nil && *only != "" {
		var set faults
		set, err = faultsNamed(strings.TrimPrefix(*only, "none"))
		o.without |= ^set
	}
	if err == nil && (o.seeds < 1 || o.steps < 0 || o.workers < 1 || flags.NArg() > 0) {
		err = fmt.Errorf("-seeds and -workers are at least 1, -steps is not negative, and there are no other arguments")
	}
	if err != nil {
		fmt.Fprintln(stderr, "sim:", err)
		return 2
	}
	r, failed := o.run(ctx)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "sim: stopped before its end")
		return 2
	}
	if *asJSON {
		_ = json.NewEncoder(stdout).Encode(r)
	} else {
		r.print(stdout)
	}
	for _, out := range failed {
		tell := stdout
		if *asJSON {
			tell = stderr
		}
		o.explain(ctx, tell, out)
	}
	if len(r.Violations) > 0 || len(r.Never) > 0 {
		return 1
	}
	return 0
}

// many are the runs that a command makes.
type many struct {
	seeds   int
	first   uint64
	steps   int
	workers int
	pebble  bool
	tell    bool
	shrink  time.Duration // at most, for each story
	keep    spans
	without faults
}

func (o *many) choice(seed uint64) choice {
	c := choice{seed: seed, steps: o.steps, without: o.without, pebble: o.pebble, tell: o.tell}
	if o.keep != nil {
		c.keep = o.keep.has
	}
	return c
}

// report is what a command says.
type report struct {
	Seeds      int            `json:"seeds"`
	First      uint64         `json:"first"`
	Steps      int            `json:"steps"`  // that happened: turns, writes that landed, records that came, commands executed, and so on
	Faults     map[string]int `json:"faults"` // that landed, by name
	Sagas      map[string]int `json:"sagas"`  // instances, by definition and state
	Never      []string       `json:"never"`  // faults that never landed in enough seeds
	Violations []found        `json:"violations"`
	Hash       string         `json:"hash"` // of all traces
	ElapsedS   float64        `json:"elapsed_s"`
	StepsPerS  float64        `json:"steps_per_s"`
	Speedup    float64        `json:"speedup"` // simulated time to elapsed time
}

// found is a violation.
type found struct {
	Seed   uint64 `json:"seed"`
	Step   int    `json:"step"` // of the scheduled ones, in which it was found; their number: afterwards
	What   string `json:"what"`
	Repeat string `json:"repeat"` // the command that repeats it
}

// most violations are looked at closely.
const most = 3

// run makes the runs, side by side, and adds them up in order of their seeds. It stops at some violations.
func (o *many) run(ctx context.Context) (r report, failed []outcome) {
	began := time.Now()
	outs := make([]*outcome, o.seeds)
	var next, wrong atomic.Int64
	var wait sync.WaitGroup
	for range min(o.workers, o.seeds) {
		wait.Go(func() {
			for ctx.Err() == nil && wrong.Load() < most {
				n := int(next.Add(1)) - 1
				if n >= o.seeds {
					return
				}
				out := simulate(o.choice(o.first + uint64(n)))
				if outs[n] = &out; out.violation != "" {
					wrong.Add(1)
				}
			}
		})
	}
	wait.Wait()
	r = report{First: o.first, Faults: map[string]int{}, Sagas: map[string]int{}, Never: []string{}, Violations: []found{}}
	var landed [faultCount]int
	var simulated time.Duration
	hash := uint64(0)
	for _, out := range outs {
		if out == nil {
			continue
		}
		r.Seeds++
		r.Steps += out.steps
		simulated += out.simulated
		for f := range faultCount {
			landed[f] += out.landed[f]
		}
		for end, n := range out.ends {
			r.Sagas[end] += n
		}
		hash = (hash ^ out.hash) * 0x9E3779B97F4A7C15
		hash ^= hash >> 31
		if out.violation != "" {
			r.Violations = append(r.Violations, found{out.seed, out.at, out.violation, o.command(out.seed)})
			failed = append(failed, *out)
		} else if o.tell {
			failed = append(failed, *out)
		}
	}
	for f := range faultCount {
		r.Faults[f.String()] = landed[f]
		if landed[f] == 0 && r.Seeds >= enough && !o.without.has(f) {
			r.Never = append(r.Never, f.String())
		}
	}
	r.Hash = fmt.Sprintf("%016x", hash)
	r.ElapsedS = time.Since(began).Seconds()
	r.StepsPerS = float64(r.Steps) / r.ElapsedS
	r.Speedup = simulated.Seconds() / r.ElapsedS
	return r, failed
}

// command is how to repeat a seed.
func (o *many) command(seed uint64) string {
	c := fmt.Sprintf("go run ./test/sim -seeds 1 -first %d -steps %d", seed, o.steps)
	if o.pebble {
		c += " -pebble"
	}
	if o.keep != nil {
		c += " -keep " + o.keep.String()
	}
	switch on := (^o.without).list(); {
	case len(on) == 0:
		c += " -only none"
	case len(on) < int(faultCount)/2:
		c += " -only " + strings.Join(on, ",")
	case len(on) < int(faultCount):
		c += " -without " + strings.Join(o.without.list(), ",")
	}
	return c
}

// explain prints the story of a seed; that of one that found something wrong is shrunk first.
func (o *many) explain(ctx context.Context, w io.Writer, out outcome) {
	if out.violation == "" {
		fmt.Fprintf(w, "\nthe story of seed %d:\n%s\n", out.seed, strings.Join(out.story, "\n"))
		return
	}
	fmt.Fprintf(w, "\nseed %d: %s\n%s\n", out.seed, out.violation, o.command(out.seed))
	small := shrink(ctx, o.choice(out.seed), out, o.shrink)
	least := *o
	least.keep, least.without = small.kept, small.choice.without
	fmt.Fprintf(w, "\nThe shortest story that was found of it, %d of %d steps, %d runs tried:\n%s\n\n%s -tell\n%s\n",
		small.kept.len(), o.steps, small.tries, small.out.violation, least.command(out.seed), strings.Join(small.out.story, "\n"))
}

func (r *report) print(w io.Writer) {
	for _, f := range slices.Sorted(mapKeys(r.Faults)) {
		fmt.Fprintf(w, "%9d × %s\n", r.Faults[f], f)
	}
	for _, end := range slices.Sorted(mapKeys(r.Sagas)) {
		fmt.Fprintf(w, "%9d sagas %s\n", r.Sagas[end], end)
	}
	fmt.Fprintf(w, "%d seeds from %d, %d steps, hash %s, %.1f s, %.0f steps/s, %.0f times as fast as time\n", r.Seeds, r.First, r.Steps, r.Hash, r.ElapsedS, r.StepsPerS, r.Speedup)
	for _, f := range r.Never {
		fmt.Fprintf(w, "in no run did this fault land: %s\n", f)
	}
	fmt.Fprintf(w, "%d violations\n", len(r.Violations))
}

func mapKeys(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// faultsNamed reads a list of faults.
func faultsNamed(list string) (set faults, err error) {
	if list == "" {
		return 0, nil
	}
	for _, name := range strings.Split(list, ",") {
		f := fault(slices.IndexFunc(vocabulary[:], func(k kind) bool { return k.name == name }))
		if f >= faultCount {
			return 0, fmt.Errorf("no fault is named %q", name)
		}
		set = set.with(f)
	}
	return set, nil
}

// spans are numbers of steps, as ranges, in order; both ends are among them.
type spans [][2]int

func (s spans) has(n int) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i][1] >= n })
	return i < len(s) && s[i][0] <= n
}

func (s spans) len() (n int) {
	for _, r := range s {
		n += r[1] - r[0] + 1
	}
	return n
}

func (s spans) String() string {
	var parts []string
	for _, r := range s {
		if r[0] == r[1] {
			parts = append(parts, strconv.Itoa(r[0]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}

func parseSpans(list string) (spans, error) {
	switch list {
	case "":
		return nil, nil
	case "none":
		return spans{}, nil
	}
	var s spans
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil || b < a || len(s) > 0 && a <= s[len(s)-1][1] {
			return nil, fmt.Errorf("-keep %q: numbers and ranges in ascending order, such as 0-12,40", list)
		}
		s = append(s, [2]int{a, b})
	}
	return s, nil
}

// spansOf makes ranges of numbers in order.
func spansOf(numbers []int) spans {
	s := spans{}
	for _, n := range numbers {
		if k := len(s) - 1; k >= 0 && s[k][1] == n-1 {
			s[k][1] = n
		} else {
			s = append(s, [2]int{n, n})
		}
	}
	return s
}
