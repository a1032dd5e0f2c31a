// Command mutants shows that the tests would notice: it switches on each planted break of internal/mutant,
// one at a time, and runs the test that is said to catch it.
//
//	go run ./test/mutants [-json] [-run EXPR] [-guarantees FILE]
//	go run ./test/mutants -tier simulation [-json] [-run EXPR]
//
// With -tier, only that tier of mutant.Tiers runs, and has to find by itself what is said of it there.
//
// Each package's tests are compiled once, with the tag `mutants`. First every such test has to pass with no
// mutant on, or its failing would say nothing. Exit status: 0 when all are caught, 1 when one is not, 2 when
// that could not be found out. It has to be started within the module.
//
// It belongs to the tests: it may import internal/mutant alone, and nothing imports it. The rule that must not
// break: a mutant counts as caught only by a test that ran, and that passes without it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/skald-io/skald/internal/mutant"
)

func main() {
	asJSON := flag.Bool("json", false, "print one JSON object for each mutant, and nothing else, on standard output")
	only := flag.String("run", "", "run the mutants whose names match this regular expression")
	file := flag.String("guarantees", "", "write a page with each guarantee, its tests, planted breaks and results to `FILE`; not with -run")
	tier := flag.String("tier", "", "let this tier find its mutants, with no other test: "+tierNames())
	timeout := flag.Duration("timeout", 5*time.Minute, "for one test; one that takes longer counts as failed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, *asJSON, *only, *file, *tier, *timeout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	os.Exit(status)
}

func run(ctx context.Context, asJSON bool, only, file, tier string, timeout time.Duration) (status int, err error) {
	expr, err := regexp.Compile(only)
	if err != nil {
		return 2, fmt.Errorf("-run: %w", err)
	}
	if (only != "" || tier != "") && file != "" {
		return 2, errors.New("-guarantees needs the results of all mutants, and -run and -tier leave some out")
	}
	all, args, err := ofTier(tier)
	if err != nil {
		return 2, err
	}
	var selected []mutant.Mutant
	for _, m := range all {
		if expr.MatchString(m.Name) {
			selected = append(selected, m)
		}
	}
	if len(selected) == 0 {
		return 2, fmt.Errorf("no mutant is named like %q", only)
	}
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	if err != nil || root == "." || root == os.DevNull {
		return 2, errors.New("not within the module: start it from the repository")
	}
	binaries, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return 2, err
	}
	defer os.RemoveAll(binaries)
	h := &hunt{root: root, binaries: binaries, args: args, timeout: timeout, progress: os.Stderr}
	uncaught := 0
	results := map[string]result{}
	err = h.all(ctx, selected, func(r result) {
		results[r.Name] = r
		if !r.Caught {
			uncaught++
		}
		r.print(os.Stdout, asJSON)
	})
	if err == nil && file != "" {
		err = writeGuarantees(file, results)
	}
	switch {
	case err != nil:
		return 2, err
	case uncaught > 0:
		return 1, fmt.Errorf("%d of %d mutants were not caught", uncaught, len(selected))
	}
	return 0, nil
}

// ofTier gives the mutants that a tier finds, to be caught by it, and the flags of its test; all, each to be caught by its own test, when it is "".
func ofTier(name string) (found []mutant.Mutant, args []string, err error) {
	if name == "" {
		return mutant.All, nil, nil
	}
	i := slices.IndexFunc(mutant.Tiers, func(t mutant.Tier) bool { return t.Name == name })
	if i < 0 {
		return nil, nil, fmt.Errorf("-tier %q: there are %s", name, tierNames())
	}
	t := mutant.Tiers[i]
	for _, m := range mutant.All {
		if slices.Contains(t.Finds, m.Name) {
			m.CaughtBy = t.Test
			found = append(found, m)
		}
	}
	return found, t.Args, nil
}

func tierNames() string {
	var names []string
	for _, t := range mutant.Tiers {
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}

// result is what is said of one mutant.
type result struct {
	Name     string  `json:"name"`
	Breaks   string  `json:"breaks"`
	Caught   bool    `json:"caught"`
	By       string  `json:"by"`
	ElapsedS float64 `json:"elapsed_s"`
}

func (r result) print(w io.Writer, asJSON bool) {
	if asJSON {
		_ = json.NewEncoder(w).Encode(r)
		return
	}
	verdict := "caught    "
	if !r.Caught {
		verdict = "NOT CAUGHT"
	}
	fmt.Fprintf(w, "%s  %-32s %-4s %6.1fs  %s\n", verdict, r.Name, r.Breaks, r.ElapsedS, r.By)
}

// hunt runs tests against mutants.
type hunt struct {
	root     string   // of the module
	binaries string   // directory for the compiled tests
	args     []string // flags of the tests' own
	timeout  time.Duration
	progress io.Writer
}

// all compiles, checks that the tests pass by themselves, and reports on each mutant. An error says that the
// verdicts would be worth nothing.
func (h *hunt) all(ctx context.Context, mutants []mutant.Mutant, report func(result)) error {
	healthy := map[mutant.Test]bool{}
	for _, m := range mutants {
		t := m.CaughtBy
		if healthy[t] {
			continue
		}
		if err := h.compile(ctx, t.Package); err != nil {
			return err
		}
		passed, out, err := h.test(ctx, t, "")
		if err != nil {
			return err
		}
		if !passed {
			return fmt.Errorf("%s: it fails with no mutant on, so it can catch none:\n%s", name(t), tail(out))
		}
		if !started(out) {
			return fmt.Errorf("%s: there is no such test", name(t))
		}
		if bytes.Contains(out, []byte("--- SKIP")) {
			return fmt.Errorf("%s: it is skipped here, so it can catch none:\n%s", name(t), tail(out))
		}
		healthy[t] = true
	}
	for _, m := range mutants {
		began := time.Now()
		passed, out, err := h.test(ctx, m.CaughtBy, m.Name)
		if err != nil {
			return err
		}
		if !started(out) {
			return fmt.Errorf("%s: with %s on it did not even start:\n%s", name(m.CaughtBy), m.Name, tail(out))
		}
		report(result{m.Name, m.Breaks, !passed, name(m.CaughtBy), time.Since(began).Seconds()})
	}
	return nil
}

func started(out []byte) bool { return bytes.Contains(out, []byte("=== RUN")) }

func name(t mutant.Test) string { return t.Package + " " + t.Run }

func (h *hunt) binary(pkg string) string {
	return filepath.Join(h.binaries, strings.ReplaceAll(pkg, "/", "-")+".test")
}

func (h *hunt) compile(ctx context.Context, pkg string) error {
	if _, err := os.Stat(h.binary(pkg)); err == nil {
		return nil
	}
	fmt.Fprintln(h.progress, "compiling the tests of", pkg)
	c := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "mutants", "-o", h.binary(pkg), "./"+pkg)
	c.Dir = h.root
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the tests of %s: %w\n%s", pkg, err, tail(out))
	}
	if _, err := os.Stat(h.binary(pkg)); err != nil {
		return fmt.Errorf("%s has no tests", pkg)
	}
	return nil
}

// test runs a compiled test with a mutant, or "" for none. A test that dies or hangs has failed as well.
func (h *hunt) test(ctx context.Context, t mutant.Test, on string) (passed bool, out []byte, err error) {
	args := []string{"-test.run", t.Run, "-test.v", "-test.failfast", "-test.count=1", "-test.paniconexit0", "-test.timeout", h.timeout.String()}
	c := exec.CommandContext(ctx, h.binary(t.Package), append(args, h.args...)...)
	c.Dir = filepath.Join(h.root, filepath.FromSlash(t.Package))
	c.Env = append(os.Environ(), "SKALD_MUTANT="+on)
	// The test's own clock cannot stop it when the mutant hangs the process.
	c.WaitDelay = 10 * time.Second
	hung := time.AfterFunc(h.timeout+10*time.Second, func() { _ = c.Process.Kill() })
	defer hung.Stop()
	out, err = c.CombinedOutput()
	if ctx.Err() != nil {
		return false, nil, ctx.Err()
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return false, nil, fmt.Errorf("%s: %w", name(t), err)
	}
	return err == nil, out, nil
}

func tail(out []byte) []byte {
	const limit = 4000
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return bytes.TrimSpace(out)
}
