package lint

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// purePackages decide, fold, or are run in deciding: what they do depends on their arguments alone.
var purePackages = []string{"events", "sagas", "orchestrator/machine", "orchestrator/journal"}

// isPure reports whether a file belongs to one of them. sagatest is a test's tool.
func isPure(s source) bool {
	if s.isTest() || strings.HasPrefix(s.path, "sagas/sagatest/") {
		return false
	}
	return slices.ContainsFunc(purePackages, func(p string) bool { return s.dir() == p || strings.HasPrefix(s.path, p+"/") })
}

var bannedImports = map[string]string{
	"context": "a context", "sync": "a lock", "sync/atomic": "shared memory", "math/rand": "randomness", "math/rand/v2": "randomness",
	"crypto/rand": "randomness", "hash/maphash": "randomness", "os": "IO", "net": "IO", "io/fs": "IO", "log": "IO", "log/slog": "IO", "syscall": "IO", "unsafe": "unsafe memory",
}

// allowedOf lists what may be used of a package of which not everything may.
var allowedOf = map[string]func(name string) bool{
	"time": func(name string) bool {
		return !slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "LoadLocation", "Local"}, name)
	},
	// Where a definition was written, and the stack of a user's function that panicked.
	"runtime": func(name string) bool {
		return slices.Contains([]string{"Caller", "Callers", "CallersFrames", "Frame"}, name)
	},
}

var pureSyntax = goFiles(each(func(s source) []string {
	if !isPure(s) {
		return nil
	}
	var found []string
	names := map[string]string{}
	for _, spec := range s.file.Imports {
		pkg, _ := strconv.Unquote(spec.Path.Value)
		top, _, _ := strings.Cut(pkg, "/")
		if why, banned := bannedImports[pkg]; banned || top == "os" || top == "net" {
			if why == "" {
				why = "IO"
			}
			found = append(found, s.at(spec.Pos(), "a pure package imports %s: %s", pkg, why))
		}
		name := path.Base(pkg)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			found = append(found, s.at(spec.Pos(), "a pure package imports %s without its name", pkg))
		}
		names[name] = pkg
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			found = append(found, s.at(x.Pos(), "a pure package starts a goroutine"))
		case *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
			found = append(found, s.at(x.Pos(), "a pure package has a channel"))
		case *ast.UnaryExpr:
			if x.Op == token.ARROW {
				found = append(found, s.at(x.Pos(), "a pure package has a channel"))
			}
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok {
				if allowed := allowedOf[names[id.Name]]; allowed != nil && !allowed(x.Sel.Name) {
					found = append(found, s.at(x.Pos(), "a pure package uses %s.%s", names[id.Name], x.Sel.Name))
				}
			}
		}
		return true
	})
	return found
}))

// exports gives the compiled export data of everything the pure packages import.
var exports = sync.OnceValues(func() (map[string]string, error) {
	top, err := root()
	if err != nil {
		return nil, err
	}
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", "maps", "slices"}
	for _, p := range purePackages {
		args = append(args, "./"+p+"/...")
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, err
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[name] = file
	}
	return files, nil
})

// noMapOrder finds loops over maps without a comment, on the line or the one above, that says why their
// order does not matter: "// order: ...".
var noMapOrder = goFiles(func(all []source) []string {
	files, err := exports()
	if err != nil {
		return []string{err.Error()}
	}
	packages := map[string][]source{}
	var dirs []string
	for _, s := range all {
		if isPure(s) {
			if packages[s.dir()] == nil {
				dirs = append(dirs, s.dir())
			}
			packages[s.dir()] = append(packages[s.dir()], s)
		}
	}
	var found []string
	for _, dir := range dirs {
		found = append(found, mapLoops(dir, packages[dir], files)...)
	}
	return found
})

func mapLoops(dir string, sources []source, exports map[string]string) []string {
	fset := token.NewFileSet() // one for all files of the package
	files := make([]*ast.File, len(sources))
	for i, s := range sources {
		file, err := parser.ParseFile(fset, s.path, s.text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return []string{err.Error()}
		}
		files[i] = file
		sources[i].fset, sources[i].file = fset, file
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	var first error
	conf := types.Config{
		Importer: importer.ForCompiler(fset, "gc", func(pkg string) (io.ReadCloser, error) {
			if exports[pkg] == "" {
				return nil, fmt.Errorf("%s: no export data for %s", dir, pkg)
			}
			return os.Open(exports[pkg])
		}),
		Error: func(err error) {
			if first == nil {
				first = err
			}
		},
	}
	if _, _ = conf.Check(dir, fset, files, info); first != nil {
		return []string{first.Error()}
	}
	var found []string
	for i, s := range sources {
		reasons := map[int]bool{}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if why, ok := strings.CutPrefix(c.Text, "// order: "); ok && strings.TrimSpace(why) != "" {
					reasons[fset.Position(group.End()).Line] = true
				}
			}
		}
		stated := func(pos token.Pos) bool {
			line := fset.Position(pos).Line
			return reasons[line] || reasons[line-1]
		}
		sorted := map[ast.Expr]bool{} // what slices.Sorted and its like are given
		ast.Inspect(files[i], func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.CallExpr:
				if sel, ok := x.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(sel.Sel.Name, "Sorted") && isOf(info.Uses[sel.Sel], "slices") {
					if arg, ok := x.Args[0].(*ast.CallExpr); ok {
						sorted[arg.Fun] = true
					}
				}
			case *ast.RangeStmt:
				if isMap(info.TypeOf(x.X)) && !stated(x.Pos()) {
					found = append(found, s.at(x.Pos(), "a pure package loops over a map: sort its keys, or say why the order does not matter: // order: ..."))
				}
			case *ast.SelectorExpr:
				if isOf(info.Uses[x.Sel], "maps") && slices.Contains([]string{"All", "Keys", "Values"}, x.Sel.Name) && !sorted[x] && !stated(x.Pos()) {
					found = append(found, s.at(x.Pos(), "a pure package walks a map by maps.%s: sort its keys, or say why the order does not matter: // order: ...", x.Sel.Name))
				}
			}
			return true
		})
	}
	return found
}

func isOf(obj types.Object, pkg string) bool {
	return obj != nil && obj.Pkg() != nil && obj.Pkg().Path() == pkg
}

func isMap(t types.Type) bool {
	if t == nil {
		return false
	}
	if p, ok := t.(*types.TypeParam); ok {
		t = p.Constraint()
	}
	if i, ok := t.Underlying().(*types.Interface); ok { // of a type parameter: any of its types
		for e := range i.EmbeddedTypes() {
			if u, ok := e.(*types.Union); ok {
				for term := range u.Terms() {
					if isMap(term.Type()) {
						return true
					}
				}
			} else if isMap(e) {
				return true
			}
		}
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

func TestPurePackagesHaveNoClockNoChanceAndNoIO(t *testing.T) { pureSyntax.holds(t) }

func TestPurePackagesDoNotDependOnTheOrderOfMaps(t *testing.T) { noMapOrder.holds(t) }

func TestImpurityIsFound(t *testing.T) {
	code := func(imports, body string) string {
		return "package x\n\nimport (\n" + imports + "\n)\n\nfunc f() {\n" + body + "\n}\n"
	}
	for _, x := range []struct{ imports, body, want string }{
		{`"time"`, `_ = time.Second; _ = time.UnixMilli(1)`, ""},
		{`"runtime"`, `runtime.Caller(1)`, ""},
		{`"context"`, ``, "imports context"},
		{`"sync"`, ``, "imports sync"},
		{`"sync/atomic"`, ``, "imports sync/atomic"},
		{`"math/rand"`, ``, "randomness"},
		{`"math/rand/v2"`, ``, "randomness"},
		{`"crypto/rand"`, ``, "randomness"},
		{`"os"`, ``, "IO"},
		{`"os/exec"`, ``, "IO"},
		{`"net"`, ``, "IO"},
		{`"net/http"`, ``, "IO"},
		{`. "time"`, ``, "without its name"},
		{`"time"`, `_ = time.Now()`, "time.Now"},
		{`clock "time"`, `now := clock.Now; _ = now`, "time.Now"},
		{`"time"`, `_ = time.Since(time.UnixMilli(1))`, "time.Since"},
		{`"time"`, `time.Sleep(1)`, "time.Sleep"},
		{`"time"`, `_ = time.After(1)`, "time.After"},
		{`"time"`, `_ = time.NewTimer(1)`, "time.NewTimer"},
		{`"runtime"`, `runtime.Gosched()`, "runtime.Gosched"},
		{``, `go f()`, "goroutine"},
		{``, `select {}`, "channel"},
		{``, `var c chan int; _ = c`, "channel"},
		{``, `<-g()`, "channel"},
	} {
		for _, name := range []string{"events/x.go", "sagas/x.go", "sagas/flow/x.go", "orchestrator/machine/x.go", "orchestrator/journal/x.go"} {
			pureSyntax.finds(t, name, code(x.imports, x.body), x.want)
		}
		for _, name := range []string{"events/x_test.go", "sagas/sagatest/x.go", "orchestrator/x.go", "orchestrator/store/x.go", "cmd/skald/x.go"} {
			pureSyntax.finds(t, name, code(x.imports, x.body), "")
		}
	}
}

func TestDependenceOnTheOrderOfAMapIsFound(t *testing.T) {
	const want = "over a map"
	for _, x := range []struct{ body, want string }{
		{"for range m {\n}", want},
		{"for k := range m {\n_ = k\n}", want},
		{"type named map[int]int\nfor range (named)(nil) {\n}", want},
		{"// order: a sum\nfor range m {\n}", ""},
		{"for range m { // order: a sum\n}", ""},
		{"// order:\nfor range m {\n}", want},
		{"// a sum\nfor range m {\n}", want},
		{"// order: a sum\n\nfor range m {\n}", want},
		{"for range []int{1} {\n}", ""},
		{"for range 3 {\n}", ""},
		{"for range maps.Keys(m) {\n}", "maps.Keys"},
		{"for range maps.Keys(m) { // order: a count\n}", ""},
		{"_ = maps.Clone(m)", ""},
		{"_ = slices.Sorted(maps.Keys(m))", ""},
		{"_ = slices.SortedFunc(maps.Keys(m), nil)", ""},
		{"_ = slices.Collect(maps.Keys(m))", "maps.Keys"},
	} {
		text := "package x\n\nimport (\n\"maps\"\n\"slices\"\n)\n\nvar _ = slices.Sort[[]int]\n\nvar m map[string]int\n\nvar _ = maps.Clone[map[int]int]\n\nfunc f() {\n" + x.body + "\n}\n"
		noMapOrder.finds(t, "events/x.go", text, x.want)
		noMapOrder.finds(t, "orchestrator/x.go", text, "")
	}
	noMapOrder.finds(t, "sagas/x.go", "package x\n\nfunc f[M ~map[K]int, K comparable](m M) {\nfor range m {\n}\n}\n", want)
}
