package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sample = `// Package sample is changed.
package sample

import "example.com/mutant"

type T struct{ n int }

const most = 1 < 2

func (t *T) f(a, b int, ok bool) bool {
	if a < b && !ok || mutant.On("x") {
		t.n++
		t.n = a
	}
	if mutant.On("y") && a > b {
		t.n = 3
	}
	for i := 0; i <= a; i++ {
		println(i)
	}
	switch {
	case (ok):
		panic("no")
	}
	c := a
	return c >= b
}
`

func TestEverySiteOfASourceIsFoundAndCompiles(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "sample.go"), []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := find(root, ".")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range f.sites {
		got = append(got, s.key())
	}
	slices.Sort(got)
	want := []string{
		"T.f: left out: println(i)", "T.f: left out: t.n = a", "T.f: left out: t.n++",
		"T.f: moved by one: a < b", "T.f: moved by one: c >= b", "T.f: moved by one: i <= a",
		"T.f: negated: !ok", "T.f: negated: a < b", "T.f: negated: i <= a", "T.f: negated: ok",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text := f.sources[0].changed("example.com/m")
	if _, err := parser.ParseFile(token.NewFileSet(), "sample.go", text, 0); err != nil {
		t.Errorf("what is changed is no Go: %v\n%s", err, text)
	}
	if a, b := strings.Count(sample, "\n"), strings.Count(string(text), "\n"); a != b {
		t.Errorf("%d lines became %d: places would be wrong", a, b)
	}
}
