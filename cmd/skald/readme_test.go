package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const moduleRoot = "../.."

// fenced gives the fenced block that follows a marker in the README.
func fenced(t *testing.T, marker string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "<!-- "+marker+" -->\n```")
	if !ok {
		t.Fatalf("the README has no block marked %s", marker)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	block, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatalf("the block marked %s does not end", marker)
	}
	return block
}

// The program is built as a command of this module: an overlay puts it beside its test in testdata/program.
func TestTheProgramInTheREADMEBuildsAndItsSagaIsSound(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the Go tool")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(fenced(t, "program")), 0o644); err != nil {
		t.Fatal(err)
	}
	place, err := filepath.Abs("testdata/program/main.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{place: file}})
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "test", "-overlay", filepath.Join(dir, "overlay.json"), "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("gofmt", "-l", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("it is not formatted: %s %v", out, err)
	}
}

func TestThePaymentsServiceInTheREADMEIsTheOneThatCIRuns(t *testing.T) {
	want, err := os.ReadFile(filepath.Join(moduleRoot, "test", "interop", "payments.py"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fenced(t, "payments.py"); got != string(want) {
		t.Errorf("README:\n%s\ntest/interop/payments.py:\n%s", got, want)
	}
}

func TestLinksInTheREADMELeadSomewhere(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Builder{}
	for i, part := range strings.Split(string(b), "```") {
		if i%2 == 0 {
			text.WriteString(part)
		}
	}
	for _, part := range strings.Split(text.String(), "](")[1:] {
		link, _, _ := strings.Cut(part, ")")
		if strings.Contains(link, "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(moduleRoot, link)); err != nil {
			t.Errorf("%s: %v", link, err)
		}
	}
}
