package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	results := flag.String("results", "", "`DIR` with what the sources have printed, NAME.json each; what it lacks is run and kept there; default: a temporary one")
	out := flag.String("o", "", "the `FILE` to write; default: standard output")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := program(ctx, *results, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	os.Exit(status)
}

func program(ctx context.Context, results, out string) (status int, err error) {
	if flag.NArg() > 0 {
		return 2, errors.New("there are no arguments; -h lists the flags")
	}
	if results == "" {
		if results, err = os.MkdirTemp("", "report-"); err != nil {
			return 2, err
		}
		defer os.RemoveAll(results)
	} else if err := os.MkdirAll(results, 0o755); err != nil {
		return 2, err
	}
	p := page{when: time.Now().UTC().Format("2006-01-02"), commit: commit(ctx), machine: fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())}
	for _, s := range sources {
		raw, err := s.result(ctx, results)
		if err != nil {
			return 2, fmt.Errorf("%s: %w", s.name, err)
		}
		f, err := s.read(raw)
		if err != nil {
			return 2, fmt.Errorf("%s: %w", filepath.Join(results, s.name+".json"), err)
		}
		if f.wrong != "" {
			return 1, fmt.Errorf("%s: %s (%s)", s.name, f.wrong, s.command())
		}
		p.findings = append(p.findings, f)
	}
	text := p.String()
	if out == "" {
		fmt.Print(text)
		return 0, nil
	}
	if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
		return 2, err
	}
	return 0, nil
}

// result is what the source has printed, now or earlier.
func (s *source) result(ctx context.Context, dir string) ([]byte, error) {
	file := filepath.Join(dir, s.name+".json")
	if raw, err := os.ReadFile(file); err == nil || !errors.Is(err, os.ErrNotExist) {
		return raw, err
	}
	fmt.Fprintln(os.Stderr, "report:", s.command())
	c := exec.CommandContext(ctx, "go", append([]string{"run"}, s.args...)...)
	c.Stderr = os.Stderr
	raw, err := c.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return nil, err
	}
	return raw, os.WriteFile(file, raw, 0o644)
}

// command is how to repeat it.
func (s *source) command() string { return "go run " + strings.Join(s.args, " ") }

// commit names the state of the checkout.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return string(bytes.TrimSpace(out))
}
