package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/internal/mutant"
)

// A module of its own, with a rule, a switch that breaks it, and tests of several kinds.
var module = map[string]string{
	"go.mod": "module example.org/m\n\ngo 1.26\n",
	"sum/sum.go": `package sum

import "os"

func Sum(a, b int) int {
	switch os.Getenv("SKALD_MUTANT") {
	case "off-by-one":
		return a + b + 1
	case "dies":
		os.Exit(0)
	}
	return a + b
}

func init() {
	if os.Getenv("SKALD_MUTANT") == "never-starts" {
		panic("no such mutant")
	}
}
`,
	"sum/sum_test.go": `package sum

import "testing"

func TestSum(t *testing.T) {
	if got := Sum(1, 2); got != 3 {
		t.Fatal(got)
	}
}

func TestBlind(t *testing.T) { Sum(1, 2) }

func TestAlwaysFails(t *testing.T) { t.Fatal("for a reason of its own") }

func TestSkipped(t *testing.T) { t.Skip("no broker") }
`,
	"bare/bare.go": "package bare\n",
}

func newHunt(t *testing.T) *hunt {
	t.Helper()
	root := t.TempDir()
	for name, text := range module {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &hunt{root: root, binaries: t.TempDir(), timeout: time.Minute, progress: io.Discard}
}

func TestOnlyATestThatFailsCatchesAMutant(t *testing.T) {
	h := newHunt(t)
	caught := map[string]bool{}
	err := h.all(t.Context(), []mutant.Mutant{
		{Name: "off-by-one", CaughtBy: mutant.Test{Package: "sum", Run: "^TestSum$"}},
		{Name: "dies", CaughtBy: mutant.Test{Package: "sum", Run: "^TestSum$"}},
		{Name: "harmless", CaughtBy: mutant.Test{Package: "sum", Run: "^TestSum$"}},
		{Name: "off-by-one", CaughtBy: mutant.Test{Package: "sum", Run: "^TestBlind$"}},
	}, func(r result) { caught[r.Name+" by "+r.By] = r.Caught })
	if err != nil {
		t.Fatal(err)
	}
	for by, want := range map[string]bool{
		"off-by-one by sum ^TestSum$":   true,
		"dies by sum ^TestSum$":         true,
		"harmless by sum ^TestSum$":     false,
		"off-by-one by sum ^TestBlind$": false,
	} {
		if got, ok := caught[by]; !ok || got != want {
			t.Errorf("%s: caught %v, reported %v, want %v", by, got, ok, want)
		}
	}
}

func TestATestThatProvesNothingIsAnError(t *testing.T) {
	h := newHunt(t)
	for _, c := range []struct{ pkg, run, want string }{
		{"sum", "^TestAlwaysFails$", "fails with no mutant on"},
		{"sum", "^TestNoSuch$", "no such test"},
		{"sum", "^TestSkipped$", "is skipped"},
		{"bare", "^TestSum$", "no tests"},
		{"nowhere", "^TestSum$", "compiling the tests of nowhere"},
	} {
		err := h.all(t.Context(), []mutant.Mutant{{Name: "x", CaughtBy: mutant.Test{Package: c.pkg, Run: c.run}}},
			func(r result) { t.Errorf("%s %s: a verdict: %v", c.pkg, c.run, r) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.pkg, c.run, err, c.want)
		}
	}
}

func TestAMutantThatKeepsTheTestFromStartingIsNotCaught(t *testing.T) {
	h := newHunt(t)
	err := h.all(t.Context(), []mutant.Mutant{{Name: "never-starts", CaughtBy: mutant.Test{Package: "sum", Run: "^TestSum$"}}},
		func(r result) { t.Errorf("a verdict: %v", r) })
	if err == nil || !strings.Contains(err.Error(), "did not even start") {
		t.Error(err)
	}
}

func TestAResultIsOneJSONObject(t *testing.T) {
	var b bytes.Buffer
	result{Name: "x", Breaks: "G1", Caught: true, By: "p ^T$", ElapsedS: 1.5}.print(&b, true)
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{"name": "x", "caught": true, "by": "p ^T$", "elapsed_s": 1.5} {
		if got[k] != want {
			t.Errorf("%s: %v, want %v", k, got[k], want)
		}
	}
}

func TestAGuaranteeThatNothingTriesToBreakIsAnError(t *testing.T) {
	all, rules := mutant.All, mutant.Rules
	defer func() { mutant.All, mutant.Rules = all, rules }()
	mutant.Rules = []mutant.Rule{{ID: "G1", Text: "It ends."}, {ID: "G11", Text: "It goes on."}}
	mutant.All = []mutant.Mutant{{Name: "ends-never", Breaks: "G1, G2", Description: "it|never ends", CaughtBy: mutant.Test{Package: "sum", Run: "^TestSum$/^end$"}}}
	if _, err := guarantees(nil); err == nil || !strings.Contains(err.Error(), "for G11:") {
		t.Fatalf("an empty cell gives %v", err)
	}
	mutant.Rules = mutant.Rules[:1]
	page, err := guarantees(map[string]result{"ends-never": {Caught: true}})
	if err != nil || !strings.Contains(string(page), "| `ends-never` | it\\|never ends | `sum` TestSum/end | caught |") {
		t.Errorf("%v:\n%s", err, page)
	}
	if page, _ = guarantees(nil); !strings.Contains(string(page), "**not caught**") {
		t.Errorf("what was not caught is not said:\n%s", page)
	}
}
