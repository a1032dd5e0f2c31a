package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// site is one place to change.
type site struct {
	Number int    `json:"number"` // from 1, in its package
	Place  string `json:"place"`  // file:line
	Func   string `json:"func"`
	Kind   string `json:"kind"` // negated, moved by one, left out
	Text   string `json:"text"` // the source as it stands, on one line
}

// key names a site across changes elsewhere in its file.
func (s *site) key() string { return s.Func + ": " + s.Kind + ": " + s.Text }

// edit inserts text into a source, or puts it in the place of length bytes.
type edit struct {
	at, length int
	text       string
	depth      int  // of the node it belongs to: an outer one begins before an inner one at the same place
	end        bool // it stands behind its node: an inner one ends before an outer one
}

const runtimeName = "mechanical_"

// source is a file of the package and what is to be changed in it.
type source struct {
	path  string
	text  []byte
	edits []edit
}

// finder collects the sites of one package.
type finder struct {
	fset    *token.FileSet
	root    string // of the module; places are told from there
	sites   []site
	sources []*source

	src   *source
	fn    string
	depth int
}

// find reads the package in dir, below root.
func find(root, dir string) (*finder, error) {
	f := &finder{fset: token.NewFileSet(), root: root}
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(f.fset, path, text, 0)
		if err != nil {
			return nil, err
		}
		f.src = &source{path: path, text: text}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				f.fn = nameOf(fn)
				f.walk(fn.Body)
			}
		}
		if len(f.src.edits) > 0 {
			f.sources = append(f.sources, f.src)
		}
	}
	return f, nil
}

func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// walk looks at a node and all below it.
func (f *finder) walk(n ast.Node) {
	ast.PreorderStack(n, nil, func(n ast.Node, stack []ast.Node) bool {
		f.depth = len(stack)
		switch n := n.(type) {
		case *ast.GenDecl:
			return n.Tok != token.CONST
		case *ast.BlockStmt:
			f.statements(n.List)
		case *ast.CaseClause:
			f.statements(n.Body)
			if s, ok := stack[len(stack)-2].(*ast.SwitchStmt); ok && s.Tag == nil {
				for _, e := range n.List {
					f.condition(e)
				}
			}
		case *ast.IfStmt:
			if f.onlyPlanted(n.Cond) {
				return false
			}
			f.condition(n.Cond)
		case *ast.ForStmt:
			if n.Cond != nil {
				f.condition(n.Cond)
			}
		case *ast.BinaryExpr:
			switch n.Op {
			case token.LAND:
				if f.onlyPlanted(n) {
					return false
				}
				f.condition(n.X)
				f.condition(n.Y)
			case token.LOR:
				f.condition(n.X)
				f.condition(n.Y)
			case token.LSS, token.LEQ, token.GTR, token.GEQ:
				f.bound(n)
			}
		}
		return true
	})
}

// condition adds the negation of a condition, unless it is one of a switch of internal/mutant or made of parts.
func (f *finder) condition(e ast.Expr) {
	for {
		p, ok := e.(*ast.ParenExpr)
		if !ok {
			break
		}
		e = p.X
	}
	if b, ok := e.(*ast.BinaryExpr); ok && (b.Op == token.LAND || b.Op == token.LOR) {
		return // its parts are negated
	}
	if f.planted(e) {
		return
	}
	n := f.add(e, "negated")
	f.around(e, fmt.Sprintf("%s.Is(%d, ", runtimeName, n), ")", 0)
}

// bound adds the move of a bound: < becomes <=, and so on.
func (f *finder) bound(e *ast.BinaryExpr) {
	if f.planted(e) {
		return
	}
	n := f.add(e, "moved by one")
	f.around(e, fmt.Sprintf("%s.Cmp(%d, %q, ", runtimeName, n, e.Op), ")", 1)
	at := f.offset(e.OpPos)
	f.src.edits = append(f.src.edits, edit{at: at, length: len(e.Op.String()), text: ",", depth: f.depth})
}

// statements adds the omission of each statement that can be left out by itself.
func (f *finder) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); ok {
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
					continue
				}
			}
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
		case *ast.IncDecStmt:
		default:
			continue
		}
		if f.planted(s) {
			continue
		}
		n := f.add(s, "left out")
		f.around(s, fmt.Sprintf("if !%s.On(%d) { ", runtimeName, n), " }", 0)
	}
}

// planted says that a switch of internal/mutant is asked in it.
func (f *finder) planted(n ast.Node) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == "mutant" {
				found = true
			}
		}
		return !found
	})
	return found
}

// onlyPlanted says that a conjunction can only hold while a switch of internal/mutant is on.
func (f *finder) onlyPlanted(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return f.onlyPlanted(e.X)
	case *ast.BinaryExpr:
		return e.Op == token.LAND && (f.onlyPlanted(e.X) || f.onlyPlanted(e.Y))
	case *ast.CallExpr:
		return f.planted(e.Fun)
	}
	return false
}

func (f *finder) add(n ast.Node, kind string) int {
	pos := f.fset.Position(n.Pos())
	rel, err := filepath.Rel(f.root, pos.Filename)
	if err != nil {
		rel = pos.Filename
	}
	text := strings.Join(strings.Fields(string(f.src.text[f.offset(n.Pos()):f.offset(n.End())])), " ")
	const most = 160
	if len(text) > most {
		text = text[:most] + "…"
	}
	f.sites = append(f.sites, site{Number: len(f.sites) + 1, Place: fmt.Sprintf("%s:%d", filepath.ToSlash(rel), pos.Line), Func: f.fn, Kind: kind, Text: text})
	return len(f.sites)
}

// around puts text before and behind a node. inner tells which of two pairs around one node is the inner one.
func (f *finder) around(n ast.Node, before, behind string, inner int) {
	depth := 2*f.depth + inner
	if _, condition := n.(ast.Expr); condition && inner == 0 {
		// Whoever asks is the parent of the condition.
		depth += 2
	}
	f.src.edits = append(f.src.edits,
		edit{at: f.offset(n.Pos()), text: before, depth: depth},
		edit{at: f.offset(n.End()), text: behind, depth: depth, end: true})
}

func (f *finder) offset(p token.Pos) int { return f.fset.Position(p).Offset }

// changed is the source with all changes in it, and the package that switches them on imported.
func (s *source) changed(importPath string) []byte {
	slices.SortStableFunc(s.edits, func(a, b edit) int {
		switch {
		case a.at != b.at:
			return cmp.Compare(a.at, b.at)
		case a.end != b.end: // what ends here ends before what begins here
			if a.end {
				return -1
			}
			return 1
		case a.end:
			return cmp.Compare(b.depth, a.depth)
		}
		return cmp.Compare(a.depth, b.depth)
	})
	var out []byte
	at := 0
	for _, e := range s.edits {
		out = append(out, s.text[at:e.at]...)
		out = append(out, e.text...)
		at = e.at + e.length
	}
	out = append(out, s.text[at:]...)
	// On the line of the package clause, so that no line moves.
	i := strings.Index(string(out), "\npackage ") + 1
	if strings.HasPrefix(string(out), "package ") {
		i = 0
	}
	end := i + strings.IndexByte(string(out[i:]), '\n')
	return slices.Concat(out[:end], []byte("; import "+runtimeName+" \""+importPath+"\""), out[end:])
}
