package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const errorsPage = "docs/errors.md"

var (
	codeName    = regexp.MustCompile(`^(Code|Poison|Reason)[A-Z]`)
	codeSection = regexp.MustCompile("(?m)^### (.*)$")
)

// codesHaveSections: every constant that is named as a code, of an error, a quarantined record, an ignored
// input or a parked instance, has one section in docs/errors.md, and every section is of such a code.
func codesHaveSections(all []source) []string {
	var found []string
	page := false
	sections := map[string]int{} // to its line
	codes := map[string]bool{}
	for _, s := range all {
		if s.path != errorsPage {
			continue
		}
		page = true
		for _, m := range codeSection.FindAllStringSubmatchIndex(s.text, -1) {
			line := 1 + strings.Count(s.text[:m[0]], "\n")
			code, quoted := strings.CutPrefix(strings.TrimSuffix(s.text[m[2]:m[3]], "`"), "`")
			if !quoted {
				found = append(found, fmt.Sprintf("%s:%d: a section is headed by a code in backquotes", s.path, line))
			}
			if sections[code] > 0 {
				found = append(found, fmt.Sprintf("%s:%d: a second section of %s", s.path, line, code))
			}
			sections[code] = line
			body, _, _ := strings.Cut(s.text[m[1]:], "\n#")
			if len(strings.Fields(body)) < 4 {
				found = append(found, fmt.Sprintf("%s:%d: nothing is said about %s", s.path, line, code))
			}
		}
	}
	for _, s := range all {
		if s.file == nil || s.isTest() || strings.HasPrefix(s.path, "test/") || strings.HasPrefix(s.path, "cmd/") {
			continue
		}
		for name, code := range namedCodes(s.file) {
			codes[code] = true
			if sections[code] == 0 {
				found = append(found, fmt.Sprintf("%s: %s, %q, has no section in %s", s.path, name, code, errorsPage))
			}
		}
	}
	if page {
		for code, line := range sections {
			if !codes[code] {
				found = append(found, fmt.Sprintf("%s:%d: no constant is the code %s", errorsPage, line, code))
			}
		}
	}
	slices.Sort(found)
	return found
}

func namedCodes(f *ast.File) map[string]string {
	out := map[string]string{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			for i, name := range v.Names {
				if !codeName.MatchString(name.Name) || i >= len(v.Values) {
					continue
				}
				if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					code, _ := strconv.Unquote(lit.Value)
					out[name.Name] = code
				}
			}
		}
	}
	return out
}

func TestEveryCodeHasItsSectionAndEverySectionItsCode(t *testing.T) {
	rule(codesHaveSections).holds(t)
}

func TestACodeWithoutASectionIsFoundAndASectionWithoutACode(t *testing.T) {
	planted := func(page, code string) string {
		t.Helper()
		var all []source
		for name, text := range map[string]string{errorsPage: page, "events/x.go": code} {
			s, err := newSource(name, text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return strings.Join(codesHaveSections(all), "\n")
	}
	const lost = "package events\n\nconst CodeLost = \"lost\"\n"
	for _, x := range []struct{ page, code, want string }{
		{"### `lost`\n\nIt is lost. Look for it.\n", lost, ""},
		{"### `lost`\n\nIt is lost. Look for it.\n", lost + "\nconst CodeCount = 7\n\nvar CodeVar = \"no constant\"\n", ""},
		{"### `found`\n\nIt was found. Be glad.\n", lost, `CodeLost, "lost", has no section`},
		{"### `found`\n\nIt was found. Be glad.\n", lost, "docs/errors.md:1: no constant is the code found"},
		{"### `lost`\n\n### `found`\n", lost, "nothing is said about lost"},
		{"### `lost`\n\nIt is lost. Look.\n\n### `lost`\n\nIt is lost. Look.\n", lost, "docs/errors.md:5: a second section of lost"},
		{"### lost\n\nIt is lost. Look for it.\n", lost, "in backquotes"},
		{"", "package events\n\nconst PoisonGas, ReasonWhy = \"gas\", \"why\"\n", `ReasonWhy, "why", has no section`},
	} {
		if got := planted(x.page, x.code); x.want == "" && got != "" || !strings.Contains(got, x.want) {
			t.Errorf("%q and %q: %q, want %q", x.page, x.code, got, x.want)
		}
	}
}
