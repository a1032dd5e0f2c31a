package lint

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The words are put together here so that this file does not find itself.
var forbidden = []struct {
	re  *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`), "something was left to do"},
	{regexp.MustCompile(`(^|[^\w.}/*-])(/wo` + `rk/|/ro` + `ot/|/tmp/ba` + `sh_jobs)`), "a path of one machine"},
}

var noLeftovers = each(func(s source) []string {
	if path.Base(s.path) == "go.sum" {
		return nil
	}
	var found []string
	n := 0
	for line := range strings.Lines(s.text) {
		n++
		for _, f := range forbidden {
			if m := f.re.FindString(line); m != "" {
				found = append(found, fmt.Sprintf("%s:%d: %s: %s", s.path, n, f.why, strings.TrimSpace(m)))
			}
		}
	}
	return found
})

func TestNothingIsLeftToDoAndNoMachineIsNamed(t *testing.T) { noLeftovers.holds(t) }

func TestLeftoversAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"// TO" + "DO: later":             "left to do",
		"# FIX" + "ME":                    "left to do",
		"x X" + "XX y":                    "left to do",
		"cd /wo" + "rk/main":              "path of one machine",
		"\"/ro" + "ot/go/pkg\"":           "path of one machine",
		"cat /tmp/ba" + "sh_jobs.0/1":     "path of one machine",
		"a todolist, X" + "XXL, network/": "",
		"docs/wo" + "rk/x ./wo" + "rk/y":  "",
	} {
		noLeftovers.finds(t, "docs/a.md", text+"\n", want)
		noLeftovers.finds(t, "deploy/Dockerfile", text+"\n", want)
		noLeftovers.finds(t, ".ci/run", text+"\n", want)
	}
}

// testsDoNotSleep: a test waits for a condition, or moves a virtual clock, which is that of testing/synctest.
var testsDoNotSleep = goFiles(each(func(s source) []string {
	if !s.isTest() {
		return nil
	}
	clock := ""
	for _, spec := range s.file.Imports {
		if spec.Path.Value == `"time"` {
			clock = "time"
			if spec.Name != nil {
				clock = spec.Name.Name
			}
		}
	}
	is := func(n ast.Node, pkg, name string) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		id, ok := sel.X.(*ast.Ident)
		return ok && id.Name == pkg && sel.Sel.Name == name
	}
	var found []string
	ast.Inspect(s.file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && is(call.Fun, "synctest", "Test") {
			return false
		}
		if clock != "" && is(n, clock, "Sleep") {
			found = append(found, s.at(n.Pos(), "a test sleeps"))
		}
		return true
	})
	return found
}))

func TestTestsDoNotSleep(t *testing.T) { testsDoNotSleep.holds(t) }

func TestSleepIsFound(t *testing.T) {
	text := "package x\n\nimport (\n\"testing\"\n%s\n)\n\nfunc TestX(t *testing.T) {\n%s\n}\n"
	testsDoNotSleep.finds(t, "events/x_test.go", fmt.Sprintf(text, `"time"`, "time.Sleep(1)"), "sleeps")
	testsDoNotSleep.finds(t, "events/x_test.go", fmt.Sprintf(text, `clock "time"`, "clock.Sleep(1)"), "sleeps")
	testsDoNotSleep.finds(t, "events/x_test.go", fmt.Sprintf(text, `"time"`, "nap := time.Sleep; nap(1)"), "sleeps")
	testsDoNotSleep.finds(t, "events/x_test.go", fmt.Sprintf(text, `"time"`, "synctest.Test(t, func(t *testing.T) { time.Sleep(1) })"), "")
	testsDoNotSleep.finds(t, "events/x_test.go", fmt.Sprintf(text, `"time"`, "_ = time.Second"), "")
	testsDoNotSleep.finds(t, "cmd/skald/x.go", fmt.Sprintf(text, `"time"`, "time.Sleep(1)"), "")
}

// packagesSayWhatTheyAre: one file of each package has a comment that begins as Go wants it.
var packagesSayWhatTheyAre = goFiles(func(all []source) []string {
	var dirs []string
	name, said := map[string]string{}, map[string]bool{}
	for _, s := range all {
		pkg := strings.TrimSuffix(s.file.Name.Name, "_test")
		if name[s.dir()] == "" {
			dirs = append(dirs, s.dir())
		}
		if name[s.dir()] == "" || !s.isTest() {
			name[s.dir()] = pkg
		}
		doc := strings.TrimSpace(s.file.Doc.Text())
		begin := "Package " + pkg + " "
		if pkg == "main" {
			begin = "Command " + path.Base(s.dir()) + " "
		}
		if strings.HasPrefix(doc, begin) && len(doc) >= len(begin)+30 {
			said[s.dir()] = true
		}
	}
	var found []string
	for _, dir := range dirs {
		if !said[dir] {
			found = append(found, fmt.Sprintf("%s: no comment says what package %s is", dir, name[dir]))
		}
	}
	return found
})

func TestEveryPackageSaysWhatItIs(t *testing.T) { packagesSayWhatTheyAre.holds(t) }

func TestAPackageWithoutACommentIsFound(t *testing.T) {
	const want = "no comment says"
	packagesSayWhatTheyAre.finds(t, "events/doc.go", "// Package events is what stands on the wire, as data.\npackage events\n", "")
	packagesSayWhatTheyAre.finds(t, "cmd/skald/main.go", "// Command skald runs sagas on Kafka, and shows them.\npackage main\n", "")
	packagesSayWhatTheyAre.finds(t, "test/x/x_test.go", "// Package x tries what happens when all is well.\npackage x_test\n", "")
	packagesSayWhatTheyAre.finds(t, "events/doc.go", "package events\n", want)
	packagesSayWhatTheyAre.finds(t, "events/doc.go", "// Package events.\npackage events\n", want)
	packagesSayWhatTheyAre.finds(t, "events/doc.go", "// Package event is what stands on the wire, as data.\npackage events\n", want)
	packagesSayWhatTheyAre.finds(t, "events/doc.go", "// Package events is what stands on the wire, as data.\n\npackage events\n", want)
	packagesSayWhatTheyAre.finds(t, "cmd/skald/main.go", "// Package main runs sagas on Kafka, and shows them.\npackage main\n", want)
}

// maxLines bounds a file that people read from its begin to its end.
const maxLines = 900

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

var filesAreShort = goFiles(each(func(s source) []string {
	if s.isTest() || generated.MatchString(s.text) {
		return nil
	}
	if n := strings.Count(s.text, "\n"); n > maxLines {
		return []string{fmt.Sprintf("%s has %d lines, more than %d", s.path, n, maxLines)}
	}
	return nil
}))

func TestNoFileIsLong(t *testing.T) { filesAreShort.holds(t) }

func TestALongFileIsFound(t *testing.T) {
	lines := func(n int) string { return "package x\n" + strings.Repeat("\n", n-1) }
	filesAreShort.finds(t, "events/x.go", lines(maxLines), "")
	filesAreShort.finds(t, "events/x.go", lines(maxLines+1), "901 lines")
	filesAreShort.finds(t, "events/x_test.go", lines(maxLines+1), "")
	filesAreShort.finds(t, "events/x.go", "// Code generated by hand. DO NOT EDIT.\n"+lines(maxLines+1), "")
	filesAreShort.finds(t, "events/x.go", "// As in Code generated by hand. DO NOT EDIT.\n"+lines(maxLines+1), "lines")
}

var (
	link    = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]:\s+(\S+)`)
	heading = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
	slugged = regexp.MustCompile(`[^\p{L}\p{N}_ -]+`)
)

// outsideCode gives the lines of a Markdown text that are not code, by number from 1.
func outsideCode(text string) map[int]string {
	lines := map[int]string{}
	fence := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimLeft(line, " >")
		switch {
		case fence != "":
			if strings.HasPrefix(trimmed, fence) {
				fence = ""
			}
		case strings.HasPrefix(trimmed, "```"), strings.HasPrefix(trimmed, "~~~"):
			fence = trimmed[:3]
		default:
			lines[i+1] = line
		}
	}
	return lines
}

// anchors are the names that GitHub gives to a text's headings.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, line := range outsideCode(text) {
		if m := heading.FindStringSubmatch(line); m != nil {
			names[strings.ReplaceAll(slugged.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
	}
	return names
}

// linksLead checks Markdown's links to files and headings of this repository. read gives a file's text; a
// folder has the text "".
func linksLead(read func(name string) (text string, ok bool)) rule {
	return each(func(s source) []string {
		if !strings.HasSuffix(s.path, ".md") {
			return nil
		}
		var found []string
		for n, line := range outsideCode(s.text) {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target := m[1] + m[2]
				if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				file, anchor, _ := strings.Cut(target, "#")
				text := s.text
				if file != "" {
					name := path.Join(s.dir(), file)
					if strings.HasPrefix(file, "/") {
						name = file[1:]
					}
					var ok bool
					if text, ok = read(name); !ok || strings.HasPrefix(name, "..") {
						found = append(found, fmt.Sprintf("%s:%d: the link %s leads nowhere", s.path, n, target))
						continue
					}
				}
				if anchor != "" && (file == "" || strings.HasSuffix(file, ".md")) && !anchors(text)[anchor] {
					found = append(found, fmt.Sprintf("%s:%d: no heading for the link %s", s.path, n, target))
				}
			}
		}
		return found
	})
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	top, err := root()
	if err != nil {
		t.Fatal(err)
	}
	linksLead(func(name string) (string, bool) {
		file := filepath.Join(top, filepath.FromSlash(name))
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			return "", err == nil
		}
		b, err := os.ReadFile(file)
		return string(b), err == nil
	}).holds(t)
}

func TestALinkThatLeadsNowhereIsFound(t *testing.T) {
	r := linksLead(func(name string) (string, bool) {
		text, ok := map[string]string{"docs": "", "docs/a.md": "# One `two`: three!\n\n```\n# four\n```\n", "LICENSE": "..."}[name]
		return text, ok
	})
	for text, want := range map[string]string{
		"[a](docs/a.md) and [b](LICENSE)":             "",
		"[a](docs)":                                   "",
		"[a](docs/a.md#one-two-three)":                "",
		"[a](https://example.org/x#y)":                "",
		"# Here\n[a](#here)":                          "",
		"```\n[a](nowhere.md)\n```":                   "",
		"[a](nowhere.md)":                             "leads nowhere",
		"[![a](nowhere.svg)](LICENSE)":                "leads nowhere",
		"[a](LICENSE) [a](nowhere.md \"a title\")":    "leads nowhere",
		"[a]: nowhere.md":                             "leads nowhere",
		"[a](../outside.md)":                          "leads nowhere",
		"[a](docs/a.md#four)":                         "no heading",
		"[a](#nowhere)":                               "no heading",
		"```\ncode\n```\n[a](nowhere.md)\n```\n```\n": "leads nowhere",
	} {
		r.finds(t, "README.md", text+"\n", want)
	}
	r.finds(t, "docs/b.md", "[a](a.md) [b](../LICENSE)\n", "")
	r.finds(t, "docs/b.md", "[a](docs/a.md)\n", "leads nowhere")
}

// modulesArePinned: a clone builds from go.mod and go.sum alone, with versions that others can fetch. The examples are a
// module that nobody imports, and are built against the Skald beside them.
var modulesArePinned = each(func(s source) []string {
	if path.Base(s.path) != "go.mod" {
		return nil
	}
	pin := regexp.MustCompile(`^\S+ v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+incompatible)?( // indirect)?$`)
	var found []string
	block := ""
	n := 0
	for line := range strings.Lines(s.text) {
		n++
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "//"):
			continue
		case line == ")":
			block = ""
			continue
		case rest == "(":
			block = verb
			continue
		case block != "":
			verb, rest = block, line
		}
		switch verb {
		case "module", "go", "tool":
		case "replace":
			if s.path != "examples/go.mod" || rest != module+" => ../" {
				found = append(found, fmt.Sprintf("%s:%d: replace stands in the way of who imports this module", s.path, n))
			}
		case "require":
			if !pin.MatchString(rest) {
				found = append(found, fmt.Sprintf("%s:%d: no pinned version: %s", s.path, n, rest))
			}
		default:
			found = append(found, fmt.Sprintf("%s:%d: %s stands in the way of who imports this module", s.path, n, verb))
		}
	}
	return found
})

func TestModulesArePinned(t *testing.T) { modulesArePinned.holds(t) }

func TestAModuleThatIsNotPinnedIsFound(t *testing.T) {
	for text, want := range map[string]string{
		"module " + module + "\n\ngo 1.26.0\n\nrequire a.org/b v1.2.3\n\nrequire (\n\ta.org/c v0.0.0-20260101000000-abcdefabcdef // indirect\n)\n": "",
		"replace a.org/b => ../b\n":                   "replace stands",
		"replace (\n\ta.org/b => a.org/c v1.0.0\n)\n": "replace stands",
		"exclude a.org/b v1.0.0\n":                    "exclude stands",
		"toolchain go1.26.8\n":                        "toolchain stands",
		"require a.org/b latest\n":                    "no pinned version",
		"require (\n\ta.org/b v1\n)\n":                "no pinned version",
	} {
		modulesArePinned.finds(t, "go.mod", text, want)
	}
	modulesArePinned.finds(t, "examples/go.mod", "replace "+module+" => ../\n", "")
	modulesArePinned.finds(t, "examples/go.mod", "replace a.org/b => ../\n", "replace stands")
}

func TestFindingsNameTheLine(t *testing.T) {
	s, err := newSource("events/x.go", "package x\n\nimport \""+module+"/sagas\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if found := importsPointDown([]source{s}); len(found) != 1 || !strings.HasPrefix(found[0], "events/x.go:"+strconv.Itoa(3)+":") {
		t.Error(found)
	}
}
