package checker

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// tree numbers a plan's nodes.
func tree(root *sagas.Node) *sagas.Plan {
	p := &sagas.Plan{Name: "place-order", Version: "1", Root: root}
	var walk func(n *sagas.Node)
	walk = func(n *sagas.Node) {
		n.ID = uint32(len(p.Nodes))
		p.Nodes = append(p.Nodes, n)
		for i, c := range n.Children {
			c.Parent, c.Index = n, i
			walk(c)
		}
	}
	walk(root)
	return p
}

func seq(c ...*sagas.Node) *sagas.Node { return &sagas.Node{Kind: sagas.KindSeq, Children: c} }
func all(c ...*sagas.Node) *sagas.Node { return &sagas.Node{Kind: sagas.KindAll, Children: c} }
func step(name string) *sagas.Node     { return &sagas.Node{Kind: sagas.KindStep, Name: name} }

func TestAPlanOrdersStepsExceptAcrossTheBranchesOfAFork(t *testing.T) {
	_, before := PlanOrder(tree(seq(step("a"), all(seq(step("b"), step("c")), step("d")), step("e"))))
	var got []string
	for _, x := range "abcde" {
		for _, y := range "abcde" {
			if before(string(x), string(y)) {
				got = append(got, fmt.Sprintf("%c%c", x, y))
			}
		}
	}
	if s := strings.Join(got, " "); s != "ab ac ad ae bc be ce de" {
		t.Fatal(s)
	}
}

func TestWithThePlanTheOrderIsJudgedInFull(t *testing.T) {
	name, order := PlanOrder(tree(seq(step("a"), step("b"), step("c"))))
	o := quiescent
	o.Plans = map[string]Order{name: order}
	if r := Check(clean(t).build(), o); !r.OK() {
		t.Fatalf("\n%s", r)
	}
	w := clean(t)
	// b begins on a time-out of a, say, without a being done
	w.line("2 a done").rec.Decision.Entries = w.line("2 a done").rec.Decision.Entries[1:]
	if r := Check(w.build(), o); r.ByRule[RuleForwardOrder] == 0 {
		t.Fatalf("forward order:\n%s", r)
	}
	// nothing but the plan ties a to c, when c began in a decision of its own
	_, free := PlanOrder(tree(all(step("a"), step("b"), step("c"))))
	o.Plans[name] = free
	w = clean(t)
	d := w.line("2 c times out").rec.Decision
	d.Entries = append(d.Entries, fact(events.EntryCommand, "b", events.Compensate, 1))
	if r := Check(w.build(), o); r.ByRule[RuleUndoOrder] != 0 {
		t.Fatalf("branches of a fork may undo together:\n%s", r)
	}
	o.Plans[name] = order
	if r := Check(w.build(), o); r.ByRule[RuleUndoOrder] == 0 {
		t.Fatalf("undo order:\n%s", r)
	}
}

func TestEveryRuleIsViolatedByATest(t *testing.T) {
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	tests := read("check_test.go") + read("plan_test.go")
	rules := regexp.MustCompile(`(?m)^\t(Rule\w+) +Rule = `).FindAllStringSubmatch(read("report.go"), -1)
	if len(rules) < 30 {
		t.Fatalf("only %d rules were found in report.go", len(rules))
	}
	for _, m := range rules {
		if !regexp.MustCompile(m[1] + `\b`).MatchString(tests) {
			t.Errorf("no test plants a violation of %s", m[1])
		}
	}
}
