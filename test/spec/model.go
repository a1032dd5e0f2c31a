package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What a model's first line says of it.
const (
	holds   = "Holds"      // no invariant or property of it is violated
	refuted = "Refuted by" // a rule is missing, or a broker breaks its word, and what is named is violated
	reached = "Reached"    // no rule is missing; what is named says that something never happens, and is violated
)

// model is one configuration of a module.
type model struct {
	Name    string // of its file, without the ending
	Module  string
	Kind    string
	Named   string // what has to be violated; "" where it holds
	Story   string
	Checks  []string // its invariants and properties
	Without []string // constants that are FALSE and named as a rule of the module
}

func (m model) expected() string {
	if m.Kind == holds {
		return holds
	}
	return m.Kind + " " + m.Named
}

var firstLine = regexp.MustCompile(`^\\\* (?:(Holds)|(Refuted by) (\w+)|(Reached) (\w+)): (\S.*)$`)

// models reads the configurations of a folder, in order of their names.
func models(dir string) ([]model, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.cfg"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []model
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := parseModel(strings.TrimSuffix(filepath.Base(file), ".cfg"), string(text))
		if err != nil {
			return nil, err
		}
		module, err := os.ReadFile(filepath.Join(dir, m.Module+".tla"))
		if err != nil {
			return nil, err
		}
		rules := rulesOf(string(module))
		m.Without = slices.DeleteFunc(m.Without, func(name string) bool { return !slices.Contains(rules, name) })
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no models", dir)
	}
	return all, nil
}

func parseModel(name, text string) (model, error) {
	m := model{Name: name}
	m.Module, _, _ = strings.Cut(name, "-")
	first, rest, _ := strings.Cut(text, "\n")
	said := firstLine.FindStringSubmatch(first)
	if said == nil {
		return m, fmt.Errorf("%s.cfg: its first line says neither %q, %q with a name, nor %q with a name", name, holds, refuted, reached)
	}
	m.Kind, m.Named, m.Story = said[1]+said[2]+said[4], said[3]+said[5], said[6]
	for line := range strings.Lines(rest) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "INVARIANTS" || words[0] == "PROPERTIES":
			m.Checks = append(m.Checks, words[1:]...)
		case len(words) == 3 && words[1] == "=" && words[2] == "FALSE":
			m.Without = append(m.Without, words[0])
		}
	}
	switch {
	case len(m.Checks) == 0:
		return m, fmt.Errorf("%s.cfg: it checks nothing", name)
	case m.Kind != holds && (len(m.Checks) != 1 || m.Checks[0] != m.Named):
		// TLC does not name the property that is violated.
		return m, fmt.Errorf("%s.cfg: it has to check %s and nothing else, and checks %v", name, m.Named, m.Checks)
	}
	return m, nil
}

var ruleConstant = regexp.MustCompile(`(?m)^  (\w+),?\s+\\\*`)

// rulesOf gives the constants of a module below the line that says that they are rules.
func rulesOf(module string) []string {
	_, rules, ok := strings.Cut(module, `\* The rules.`)
	if !ok {
		return nil
	}
	rules, _, _ = strings.Cut(rules, "\n\n")
	var names []string
	for _, m := range ruleConstant.FindAllStringSubmatch(rules, -1) {
		names = append(names, m[1])
	}
	return names
}

var (
	definition = regexp.MustCompile(`(?m)^(\w+)(?:\([^)]*\))? ==`)
	word       = regexp.MustCompile(`\w+`)
	ranges     = regexp.MustCompile(`\\in [^:]*:`) // of bound variables
)

// actionsOf gives the actions of a module: the definitions that its Next is made of, in that order.
func actionsOf(module string) []string {
	defined := map[string]bool{}
	for _, m := range definition.FindAllStringSubmatch(module, -1) {
		defined[m[1]] = true
	}
	_, next, ok := strings.Cut(module, "\nNext ==")
	if !ok {
		return nil
	}
	next, _, _ = strings.Cut(next, "\n\n")
	next = ranges.ReplaceAllString(next, "")
	var names []string
	for _, name := range word.FindAllString(next, -1) {
		if defined[name] && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
