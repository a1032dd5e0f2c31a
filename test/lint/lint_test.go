// Package lint holds the repository to its own rules, in tests alone: which way imports point, what the
// pure packages must not touch, and what no file may contain.
//
// A rule is a function from sources to findings, so that each has a test that plants a violation and sees
// it found. It reads source text and runs the Go tool, and imports nothing of Skald. The rule that must not
// break: a rule without such a test is no rule.
package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

const module = "github.com/skald-io/skald"

// source is one file of the repository, or a planted one.
type source struct {
	path string // below the root, with slashes
	text string
	fset *token.FileSet
	file *ast.File // of Go files
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// at prints where a node stands.
func (s source) at(pos token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.fset.Position(pos).Line, fmt.Sprintf(format, args...))
}

func newSource(name, text string) (source, error) {
	s := source{path: name, text: text, fset: token.NewFileSet()}
	if !strings.HasSuffix(name, ".go") {
		return s, nil
	}
	file, err := parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	s.file = file
	return s, err
}

// root is the repository's root: the folder of go.mod.
var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fs.ErrNotExist
		}
	}
	return "", err
})

// repository reads every text file of the repository once. Folders that begin with a dot hold tools' own
// files, but .ci and .github; testdata holds what tests feed to programs.
var repository = sync.OnceValues(func() ([]source, error) {
	top, err := root()
	if err != nil {
		return nil, err
	}
	var all []source
	err = filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); file != top && (strings.HasPrefix(base, ".") && base != ".ci" && base != ".github" || base == "testdata" || base == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err != nil || info.Size() > 1<<20 {
			return err // a binary that somebody built
		}
		b, err := os.ReadFile(file)
		if err != nil || !utf8.Valid(b) {
			return err
		}
		s, err := newSource(filepath.ToSlash(name), string(b))
		all = append(all, s)
		return err
	})
	return all, err
})

// rule finds what is wrong in some files.
type rule func([]source) []string

// each makes a rule of one for a single file.
func each(one func(source) []string) rule {
	return func(all []source) []string {
		var found []string
		for _, s := range all {
			found = append(found, one(s)...)
		}
		return found
	}
}

// goFiles restricts a rule to Go files.
func goFiles(r rule) rule {
	return func(all []source) []string {
		var files []source
		for _, s := range all {
			if s.file != nil {
				files = append(files, s)
			}
		}
		return r(files)
	}
}

// holds checks the repository.
func (r rule) holds(t *testing.T) {
	t.Helper()
	all, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r(all) {
		t.Error(f)
	}
}

// finds checks that the rule sees what is planted: a finding that contains want, or, when want is empty, none.
func (r rule) finds(t *testing.T, name, text, want string) {
	t.Helper()
	s, err := newSource(name, text)
	if err != nil {
		t.Fatalf("the planted %s: %v", name, err)
	}
	found := strings.Join(r([]source{s}), "\n")
	switch {
	case want == "" && found != "":
		t.Errorf("%s is faulted without reason: %s\n%s", name, found, text)
	case !strings.Contains(found, want):
		t.Errorf("%s should be faulted for %q, and is for %q\n%s", name, want, found, text)
	}
}
