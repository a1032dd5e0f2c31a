// Command spec checks the specification of the log, docs/spec, with TLC, the model checker of TLA+.
//
//	go run ./test/spec [-json] [-run EXPR] [-parallel N] [-timeout D]
//
// Each file .cfg of docs/spec is one model, and its first line says what has to come of it: that it holds, that the
// variant without a rule is refuted by an invariant or property that is named, or that something is reached, without
// which the others would say little. Exit status: 0 when all are as they say, 1 when one is not, 2 when that could
// not be found out. It needs Java 17 or newer, and Maven the first time. It has to be started within the module.
//
// It belongs to the tests: it may import test/kafka alone, and nothing imports it. The rule that must not break: a
// model counts as refuted only by what its first line names.
package main

import (
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
	"strings"
	"syscall"
	"time"
)

func main() {
	asJSON := flag.Bool("json", false, "print one JSON object for each model, and nothing else, on standard output")
	only := flag.String("run", "", "check the models whose names match this regular expression")
	parallel := flag.Int("parallel", 2, "models that are checked at the same time, each with one processor and at most 2 GiB")
	timeout := flag.Duration("timeout", 10*time.Minute, "for one model; one that takes longer was not checked")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, *asJSON, *only, *parallel, *timeout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "spec:", err)
	}
	os.Exit(status)
}

func run(ctx context.Context, asJSON bool, only string, parallel int, timeout time.Duration) (status int, err error) {
	expr, err := regexp.Compile(only)
	if err != nil {
		return 2, fmt.Errorf("-run: %w", err)
	}
	if flag.NArg() > 0 || parallel < 1 {
		return 2, errors.New("there are no arguments, and -parallel is at least 1")
	}
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	if err != nil || root == "." || root == os.DevNull {
		return 2, errors.New("not within the module: start it from the repository")
	}
	dir := filepath.Join(root, "docs", "spec")
	all, err := models(dir)
	if err != nil {
		return 2, err
	}
	var selected []model
	for _, m := range all {
		if expr.MatchString(m.Name) {
			selected = append(selected, m)
		}
	}
	if len(selected) == 0 {
		return 2, fmt.Errorf("no model is named like %q", only)
	}
	tlc, err := fetchTLC(ctx)
	if err != nil {
		return 2, err
	}
	if !asJSON {
		fmt.Printf("%-32s %9s %6s %8s  %s\n", "model", "states", "depth", "seconds", "result")
	}
	wrong := 0
	err = checkAll(ctx, tlc, dir, selected, parallel, timeout, func(r result) {
		if !r.OK {
			wrong++
		}
		r.print(os.Stdout, asJSON)
	})
	switch {
	case err != nil:
		return 2, err
	case wrong > 0:
		return 1, fmt.Errorf("%d of %d models are not as they say", wrong, len(selected))
	}
	return 0, nil
}

// result is what came of a model.
type result struct {
	Model    string   `json:"model"`
	Expected string   `json:"expected"` // the model's first line, up to the colon
	Without  []string `json:"without"`  // rules that are left out
	Story    string   `json:"story"`
	OK       bool     `json:"ok"`
	Result   string   `json:"result"`
	States   int      `json:"states"` // distinct ones
	Depth    int      `json:"depth"`
	Seconds  float64  `json:"seconds"`
	Output   string   `json:"output,omitempty"` // of TLC, its end, when the model is not as it says
}

func (r result) print(w io.Writer, asJSON bool) {
	if asJSON {
		_ = json.NewEncoder(w).Encode(r)
		return
	}
	verdict := r.Result
	if !r.OK {
		verdict = "NOT AS IT SAYS: " + r.Result + ", and it says: " + r.Expected
	}
	fmt.Fprintf(w, "%-32s %9d %6d %8.1f  %s\n", r.Model, r.States, r.Depth, r.Seconds, verdict)
	if !r.OK {
		fmt.Fprintln(w, r.Output)
	}
}
