package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.packages, "packages", "orchestrator/journal,orchestrator/machine", "`DIRS` of the packages to change, with commas between")
	flag.IntVar(&o.sample, "sample", 0, "of each package only so many changes, chosen by -seed `N`; 0: all")
	flag.Uint64Var(&o.seed, "seed", 1, "of -sample")
	flag.StringVar(&o.only, "only", "", "only changes whose place, function or text has `SUBSTRING` in it")
	flag.StringVar(&o.explained, "explained", "test/mutants/mechanical/survivors.txt", "`FILE` with the survivors that were looked at")
	flag.BoolVar(&o.json, "json", false, "print one JSON object for each change, and nothing else, on standard output")
	flag.IntVar(&o.workers, "workers", 2, "so many at a time `N`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mechanical:", err)
	}
	os.Exit(status)
}

type options struct {
	packages, only, explained string
	sample, workers           int
	seed                      uint64
	json                      bool
}

// result is what became of one change.
type result struct {
	site
	Package   string  `json:"package"`
	Noticed   bool    `json:"noticed"`
	Explained bool    `json:"explained"` // it survived, and survivors.txt says why that is no gap
	ElapsedS  float64 `json:"elapsed_s"`
}

func run(ctx context.Context, o options, out io.Writer) (status int, err error) {
	root, module, err := moduleHere(ctx)
	if err != nil {
		return 2, err
	}
	explained, err := readExplained(filepath.Join(root, o.explained))
	if err != nil {
		return 2, err
	}
	dir, err := os.MkdirTemp("", "skald-mechanical-")
	if err != nil {
		return 2, err
	}
	defer os.RemoveAll(dir)
	var all []result
	for _, pkg := range strings.Split(o.packages, ",") {
		results, err := change(ctx, o, root, module, pkg, dir, explained, out)
		if err != nil {
			return 2, fmt.Errorf("%s: %w", pkg, err)
		}
		all = append(all, results...)
	}
	noticed, unexplained := 0, 0
	for _, r := range all {
		switch {
		case r.Noticed:
			noticed++
		case !r.Explained:
			unexplained++
		}
		if r.Noticed && r.Explained {
			status = 1
			fmt.Fprintf(os.Stderr, "mechanical: %s explains a survivor that is noticed: %s\n", o.explained, r.key())
		}
	}
	if len(all) == 0 {
		return 2, errors.New("there is nothing to change")
	}
	if !o.json {
		fmt.Fprintf(out, "%d changes: %d noticed (%.1f%%), %d survive and are explained, %d survive\n", len(all), noticed, 100*float64(noticed)/float64(len(all)), len(all)-noticed-unexplained, unexplained)
	}
	if unexplained > 0 {
		status = 1
	}
	return status, nil
}

func moduleHere(ctx context.Context) (root, module string, err error) {
	b, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}} {{.Path}}").Output()
	if err != nil {
		return "", "", fmt.Errorf("go list -m: %w", err)
	}
	root, module, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !ok {
		return "", "", fmt.Errorf("go list -m says %q", b)
	}
	return root, module, nil
}

// readExplained reads survivors: a line "key" of a site, and after it, indented, why that is no gap.
func readExplained(file string) (map[string]bool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	keys, last := map[string]bool{}, ""
	for n, line := range strings.Split(string(b), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case !strings.HasPrefix(line, "\t"):
			last = line
		case last == "":
			return nil, fmt.Errorf("%s:%d: a reason without a survivor before it", file, n+1)
		default:
			keys[last] = true
		}
	}
	return keys, nil
}

// runtimeSource is the package that the changed sources ask. It exists for the compiler alone.
const runtimeSource = `package mechanical

import (
	"cmp"
	"os"
	"strconv"
)

var active, _ = strconv.Atoi(os.Getenv("SKALD_MECHANICAL"))

func On(n int) bool { return n == active }

func Is[B ~bool](n int, b B) B { return b != B(n == active) }

func Cmp[T cmp.Ordered](n int, op string, a, b T) bool {
	moved := n == active
	switch op {
	case "<":
		return a < b || moved && a == b
	case "<=":
		return a < b || !moved && a == b
	case ">":
		return a > b || moved && a == b
	}
	return a > b || !moved && a == b
}
`

// change compiles the tests of pkg with all changes in it, and runs them once for each.
func change(ctx context.Context, o options, root, module, pkg, dir string, explained map[string]bool, out io.Writer) ([]result, error) {
	f, err := find(root, pkg)
	if err != nil {
		return nil, err
	}
	binary, err := compile(ctx, f, root, module, pkg, dir)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if noticed, text := test(ctx, binary, filepath.Join(root, pkg), 0, 10*time.Minute); noticed {
		return nil, fmt.Errorf("the tests fail without any change:\n%s", text)
	}
	limit := 3*time.Since(began) + 10*time.Second
	sites := slices.DeleteFunc(slices.Clone(f.sites), func(s site) bool {
		return !strings.Contains(s.Place+" "+s.key(), o.only)
	})
	if o.sample > 0 && o.sample < len(sites) {
		rng := rand.New(rand.NewPCG(o.seed, 1))
		rng.Shuffle(len(sites), func(i, j int) { sites[i], sites[j] = sites[j], sites[i] })
		sites = sites[:o.sample]
		slices.SortFunc(sites, func(a, b site) int { return cmp.Compare(a.Number, b.Number) })
	}
	if !o.json {
		fmt.Fprintf(out, "%s: %d changes, each given %v at most\n", pkg, len(sites), limit.Round(time.Second))
	}
	results := make([]result, len(sites))
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := make(chan int)
	for range max(o.workers, 1) {
		wg.Go(func() {
			for i := range next {
				began := time.Now()
				noticed, _ := test(ctx, binary, filepath.Join(root, pkg), sites[i].Number, limit)
				r := result{site: sites[i], Package: pkg, Noticed: noticed, Explained: explained[sites[i].key()], ElapsedS: time.Since(began).Seconds()}
				mu.Lock()
				results[i] = r
				tell(o, out, &r)
				mu.Unlock()
			}
		})
	}
	for i := range sites {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return results, ctx.Err()
}

func tell(o options, out io.Writer, r *result) {
	if o.json {
		b, err := json.Marshal(r)
		if err == nil {
			fmt.Fprintln(out, string(b))
		}
		return
	}
	if !r.Noticed {
		fmt.Fprintf(out, "survived: %s %s\n", r.Place, r.key())
	}
}

// compile builds the tests of a package from its changed sources.
func compile(ctx context.Context, f *finder, root, module, pkg, dir string) (binary string, err error) {
	importPath := module + "/internal/mechanical"
	replace := map[string]string{filepath.Join(root, "internal", "mechanical", "mechanical.go"): filepath.Join(dir, "mechanical.go")}
	if err := os.WriteFile(filepath.Join(dir, "mechanical.go"), []byte(runtimeSource), 0o600); err != nil {
		return "", err
	}
	base := strings.ReplaceAll(pkg, "/", "-")
	for i, s := range f.sources {
		to := filepath.Join(dir, base+"-"+strconv.Itoa(i)+".go")
		if err := os.WriteFile(to, s.changed(importPath), 0o600); err != nil {
			return "", err
		}
		replace[s.path] = to
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, base+".json"), overlay, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, base+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, base+".json"), "-o", binary, "./"+pkg)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the changes: %w\n%s", err, b)
	}
	return binary, nil
}

// test runs a package's tests with one change switched on; 0 is none. Noticed: they fail, or do not end in time.
func test(ctx context.Context, binary, dir string, n int, limit time.Duration) (noticed bool, text string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.timeout=0")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SKALD_MECHANICAL="+strconv.Itoa(n), "GOMEMLIMIT=1GiB")
	var b bytes.Buffer
	w := &bounded{w: &b, left: 64 << 10}
	cmd.Stdout, cmd.Stderr = w, w
	return cmd.Run() != nil, b.String()
}

// bounded drops what is written beyond a limit: a changed loop may print for ever.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.left)]
	b.left -= len(keep)
	if _, err := b.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}
