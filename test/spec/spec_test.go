package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	root = "../.."
	dir  = root + "/docs/spec"

	envAll = "SKALD_SPEC" // 1: check all models here too, as go run ./test/spec does, which CI runs
)

func TestEveryModelIsAsItSays(t *testing.T) {
	if os.Getenv(envAll) != "1" {
		t.Skipf("not asked for: set %s=1 (it needs Java 17 or newer, Maven the first time, and some minutes)", envAll)
	}
	all, err := models(dir)
	if err != nil {
		t.Fatal(err)
	}
	tlc, err := fetchTLC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = checkAll(t.Context(), tlc, dir, all, min(2, runtime.NumCPU()), 10*time.Minute, func(r result) {
		t.Logf("%-32s %9d states, depth %3d, %6.1f s: %s", r.Model, r.States, r.Depth, r.Seconds, r.Result)
		if !r.OK {
			t.Errorf("%s: it says %s, and %s\n%s", r.Model, r.Expected, r.Result, r.Output)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func modules(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.tla"))
	if err != nil || len(files) == 0 {
		t.Fatal("no modules", err)
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".tla")] = string(text)
	}
	return all
}

func TestEveryModuleHoldsAndEachOfItsRulesHasAStory(t *testing.T) {
	all, err := models(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range modules(t) {
		rules := rulesOf(text)
		if len(rules) == 0 {
			t.Errorf("%s names no rules", name)
		}
		if !slices.ContainsFunc(all, func(m model) bool { return m.Name == name && m.Kind == holds && len(m.Without) == 0 }) {
			t.Errorf("%s.cfg does not say that the module holds with all its rules", name)
		}
		for _, rule := range rules {
			if !slices.ContainsFunc(all, func(m model) bool {
				return m.Module == name && m.Kind == refuted && slices.Contains(m.Without, rule)
			}) {
				t.Errorf("%s: nothing is refuted without %s", name, rule)
			}
		}
	}
	for _, m := range all {
		if m.Kind == reached && len(m.Without) > 0 {
			t.Errorf("%s reaches something without %v, which says nothing of the rules", m.Name, m.Without)
		}
	}
}

func TestThePageListsEveryModelAsItIs(t *testing.T) {
	all, err := models(dir)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := table(all)
	if !strings.Contains(string(page), want) {
		t.Errorf("docs/spec/README.md has to hold this table:\n%s", want)
	}
}

// table is the table of models in docs/spec/README.md.
func table(all []model) string {
	var b strings.Builder
	b.WriteString("| model | without | result | story |\n|---|---|---|---|\n")
	for _, m := range all {
		result := "holds"
		if m.Kind != holds {
			result = strings.ToLower(m.Kind) + " `" + m.Named + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, strings.Join(m.Without, ", "), result, m.Story)
	}
	return b.String()
}

var named = regexp.MustCompile(`docs/spec: ([\w.]+(?:, [\w.]+)*)`)

// namedIn gives the actions that comments of a Go file name, each with its place.
func namedIn(name, text string) (map[string]string, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		f, ok := n.(*ast.FuncDecl)
		if !ok {
			return true
		}
		for _, m := range named.FindAllStringSubmatch(f.Doc.Text(), -1) {
			for action := range strings.SplitSeq(m[1], ", ") {
				found[action] = fset.Position(f.Pos()).String()
			}
		}
		return false
	})
	return found, nil
}

// differ says which actions are not named beside code, and which are named and are none.
func differ(modules map[string]string, code map[string]string) []string {
	var found []string
	actions := map[string]bool{}
	for name, text := range modules {
		for _, action := range actionsOf(text) {
			actions[name+"."+action] = true
			if code[name+"."+action] == "" {
				found = append(found, fmt.Sprintf("no function's comment says \"docs/spec: %s.%s\"", name, action))
			}
		}
	}
	for action, place := range code {
		if !actions[action] {
			found = append(found, fmt.Sprintf("%s: %s is no action of docs/spec", place, action))
		}
	}
	slices.Sort(found)
	return found
}

func TestEveryActionIsNamedBesideTheCodeThatDoesIt(t *testing.T) {
	code := map[string]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(file) != ".go" {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		found, err := namedIn(file, string(text))
		for action, place := range found {
			code[action] = place
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range differ(modules(t), code) {
		t.Error(f)
	}
}

const planted = `---- MODULE M ----
CONSTANTS
  N, \* a bound
  \* The rules.
  One,  \* the first
  Two   \* the second

One1 == 1
Go(o) == One1
Stop == TRUE

Next ==
  \/ \E o \in One1 : Go(o)
  \/ Stop

Spec == Next
====
`

func TestAnActionThatIsNotNamedIsFoundAndANameThatIsNoAction(t *testing.T) {
	if got := actionsOf(planted); !slices.Equal(got, []string{"Go", "Stop"}) {
		t.Errorf("its actions are %v", got)
	}
	if got := rulesOf(planted); !slices.Equal(got, []string{"One", "Two"}) {
		t.Errorf("its rules are %v", got)
	}
	code, err := namedIn("x.go", "package x\n\n// f goes.\n//\n// docs/spec: M.Go, M.Fly\nfunc f() {}\n\n// docs/spec: M.Stop\n\nfunc g() {}\n")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(differ(map[string]string{"M": planted}, code), "\n")
	if want := "no function's comment says \"docs/spec: M.Stop\"\nx.go:6:1: M.Fly is no action of docs/spec"; got != want {
		t.Errorf("found:\n%s\nwant:\n%s", got, want)
	}
}

func TestAModelThatDoesNotSayWhatComesOfItIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"SPECIFICATION Spec\n":                                  "its first line",
		"\\* Refuted: story.\nINVARIANTS X\n":                   "its first line",
		"\\* Holds: all.\nSPECIFICATION Spec\n":                 "checks nothing",
		"\\* Refuted by X: story.\nINVARIANTS Y\n":              "has to check X",
		"\\* Reached X: story.\nINVARIANTS X\nPROPERTIES Y\n":   "has to check X",
		"\\* Refuted by X: story.\nPROPERTIES X\n  R = FALSE\n": "",
	} {
		_, err := parseModel("M-x", text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q gives %v, want %q", text, err, want)
		}
	}
}

func TestOnlyWhatIsNamedRefutesAModel(t *testing.T) {
	const (
		done = "Model checking completed. No error has been found.\n7 states generated, 5 distinct states found, 0 states left on queue.\n"
		none = "Model checking completed. No error has been found.\n1 states generated, 1 distinct states found, 0 states left on queue.\n"
		x    = "Error: Invariant X is violated.\n"
		live = "Error: Temporal properties were violated.\n"
	)
	holding := model{Kind: holds, Checks: []string{"X", "Y"}}
	without := model{Kind: refuted, Named: "X", Checks: []string{"X"}}
	for _, c := range []struct {
		m    model
		exit int
		out  string
		ok   bool
	}{
		{holding, 0, done, true},
		{holding, 0, none, false}, // nothing ever happens in it
		{holding, 0, "", false},
		{holding, 12, x, false},
		{holding, 13, live, false},
		{without, 12, x, true},
		{without, 13, live, true},
		{without, 0, done, false},
		{without, 12, "Error: Invariant Y is violated.\n", false},
		{without, 12, "Error: Evaluating invariant X failed.\n", false},
		{without, 150, x, false},
		{without, 11, "Error: Deadlock reached.\n", false},
	} {
		r := result{}
		r.judge(c.m, c.exit, []byte(c.out))
		if r.OK != c.ok {
			t.Errorf("%s, status %d, %q: %v, it %s", c.m.expected(), c.exit, c.out, r.OK, r.Result)
		}
	}
}
