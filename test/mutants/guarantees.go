package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/skald-io/skald/internal/mutant"
)

// guarantees prints, for each guarantee and each rule of the log, the tests that try to break it and what became
// of the breaks that were planted for it. An error names the rules for which there is nothing to print.
func guarantees(results map[string]result) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`# Guarantees, and what tries to break them

<!-- Written by "go run ./test/mutants -guarantees docs/guarantees.md"; CI refuses one that is out of date. -->

Each line is a break that was planted in the code on purpose, and the test that has to fail because of it; the test passes
without it. "go run ./test/mutants" repeats all of them.

`)
	var empty []string
	for _, r := range mutant.Rules {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n| planted break | what goes wrong | test | result |\n|---|---|---|---|\n", r.ID, r.Text)
		n := 0
		for _, m := range mutant.All {
			if !slices.Contains(strings.Split(m.Breaks, ", "), r.ID) {
				continue
			}
			verdict := "**not caught**"
			if results[m.Name].Caught {
				verdict = "caught"
			}
			fmt.Fprintf(&b, "| `%s` | %s | `%s` %s | %s |\n", m.Name, cell(m.Description), m.CaughtBy.Package, cell(testName(m.CaughtBy.Run)), verdict)
			n++
		}
		if n == 0 {
			empty = append(empty, r.ID)
		}
		b.WriteByte('\n')
	}
	if len(empty) > 0 {
		return nil, fmt.Errorf("no break is planted for %s: a guarantee that nothing tries to break is none", strings.Join(empty, ", "))
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// testName is an anchored expression as the name of the test, and of its case.
func testName(run string) string { return strings.NewReplacer("^", "", "$", "").Replace(run) }

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func writeGuarantees(file string, results map[string]result) error {
	text, err := guarantees(results)
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
