package mutant

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	switches = regexp.MustCompile(`mutant\.On\(("[^"]*")?`)
	names    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	breaks   = regexp.MustCompile(`^(G([1-9]|1[0-2])|L([1-9]|1[0-9]|2[0-3])|§[67])(, (G([1-9]|1[0-2])|L([1-9]|1[0-9]|2[0-3])|§[67]))*$`)
)

// inCode finds the switches of the repository: how often each name stands in code that is no test.
func inCode(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	root := filepath.Join("..", "..")
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || path == filepath.Join(root, "internal", "mutant")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range switches.FindAllStringSubmatch(string(text), -1) {
			if m[1] == "" {
				t.Errorf("%s: the name of a mutant has to be a literal", path)
				continue
			}
			found[strings.Trim(m[1], `"`)]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTheListAndTheSwitchesInTheCodeAgree(t *testing.T) {
	found := inCode(t)
	listed := map[string]bool{}
	for _, m := range All {
		if listed[m.Name] {
			t.Errorf("%s is listed twice", m.Name)
		}
		listed[m.Name] = true
		if found[m.Name] == 0 {
			t.Errorf("%s is listed and stands nowhere in the code", m.Name)
		}
	}
	for name := range found {
		if !listed[name] {
			t.Errorf("%s stands in the code and is not listed", name)
		}
	}
}

func TestEveryMutantSaysWhatItBreaksAndWhoCatchesIt(t *testing.T) {
	for _, m := range All {
		if !names.MatchString(m.Name) || !breaks.MatchString(m.Breaks) || m.Description == "" {
			t.Errorf("%+v: a name, a guarantee or rule, or a description is missing", m)
		}
		if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(m.CaughtBy.Package))); err != nil || m.CaughtBy.Package == "" {
			t.Errorf("%s: its test's package: %v", m.Name, err)
		}
		if r := m.CaughtBy.Run; !strings.HasPrefix(r, "^Test") || !strings.HasSuffix(r, "$") {
			t.Errorf("%s: %q is not the anchored name of a test", m.Name, r)
		}
	}
}

func TestTiersFindMutantsThatThereAre(t *testing.T) {
	for _, tier := range Tiers {
		seen := map[string]bool{}
		for _, name := range tier.Finds {
			if seen[name] || !slices.ContainsFunc(All, func(m Mutant) bool { return m.Name == name }) {
				t.Errorf("%s: %s is no mutant, or listed twice", tier.Name, name)
			}
			seen[name] = true
		}
	}
}

func TestWithoutTheTagNoMutantIsOn(t *testing.T) {
	for _, m := range All {
		if On(m.Name) {
			t.Errorf("%s is on", m.Name)
		}
	}
}
