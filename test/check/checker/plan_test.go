package checker

import (
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

// pairs are the steps of which the plan says that the first comes before the second; ? where it may go on without.
func pairs(p *sagas.Plan, labels ...string) string {
	s := shapeOf(p)
	var got []string
	for _, x := range labels {
		for _, y := range labels {
			if before, without := s.before(x, y); before {
				got = append(got, x+"<"+y+strings.Repeat("?", b2n(without)))
			}
		}
	}
	return strings.Join(got, " ")
}

func TestAPlanOrdersStepsExceptAcrossTheBranchesOfAFork(t *testing.T) {
	p := tree(seq(step("a"), all(seq(step("b"), step("c")), step("d")), step("e")))
	if s := pairs(p, "a", "b", "c", "d", "e"); s != "a<b a<c a<d a<e b<c b<e c<e d<e" {
		t.Fatal(s)
	}
}

func TestTurnsOfALoopAreOrderedWhenTheyRunOneAfterTheOther(t *testing.T) {
	while := &sagas.Node{Kind: sagas.KindWhile, Name: "w", Children: []*sagas.Node{seq(step("a"), step("b"))}}
	each := &sagas.Node{Kind: sagas.KindForEach, Name: "f", Width: 2, Children: []*sagas.Node{seq(step("c"), step("d"))}}
	p := tree(seq(while, each))
	if s := pairs(p, "a[0]", "b[0]", "a[1]", "c[0]", "d[0]", "c[1]"); s != "a[0]<b[0] a[0]<a[1] a[0]<c[0] a[0]<d[0] a[0]<c[1] b[0]<a[1] b[0]<c[0] b[0]<d[0] b[0]<c[1] a[1]<c[0] a[1]<d[0] a[1]<c[1] c[0]<d[0]" {
		t.Fatal(s)
	}
	each.Width = 1
	if s := pairs(p, "d[0]", "c[1]"); s != "d[0]<c[1]" {
		t.Fatal(s)
	}
	for _, label := range []string{"a", "a[0][1]", "a[x]", "a[0]b", "a[0", "z[0]"} {
		if _, ok := shapeOf(p).spot(label); ok {
			t.Errorf("%q is said to name a step of the plan", label)
		}
	}
}

func TestWhatASavePointOrAForkGoesOnWithoutNeedNotBeDone(t *testing.T) {
	try := &sagas.Node{Kind: sagas.KindTry, Name: "t", Children: []*sagas.Node{step("a"), step("b")}}
	some := &sagas.Node{Kind: sagas.KindAll, Join: sagas.JoinSome, Quorum: 1, Children: []*sagas.Node{step("c"), step("d")}}
	p := tree(seq(try, some, step("e")))
	if s := pairs(p, "a", "b", "c", "e"); s != "a<b? a<c? a<e? b<c b<e c<e?" {
		t.Fatal(s)
	}
	s := shapeOf(p)
	for label, want := range map[string]bool{"a": true, "b": false, "c": true, "e": false} {
		if s.optional(label) != want {
			t.Errorf("optional(%s) is not %v", label, want)
		}
	}
}

func TestWithThePlanTheOrderIsJudgedInFull(t *testing.T) {
	plan := tree(seq(step("a"), step("b"), step("c")))
	o := quiescent
	o.Plans = map[string]*sagas.Plan{PlanName(plan): plan}
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
	o.Plans[PlanName(plan)] = tree(all(step("a"), step("b"), step("c")))
	w = clean(t)
	d := w.line("2 c times out").rec.Decision
	d.Entries = append(d.Entries, fact(events.EntryCommand, "b", events.Compensate, 1))
	if r := Check(w.build(), o); r.ByRule[RuleUndoOrder] != 0 {
		t.Fatalf("branches of a fork may undo together:\n%s", r)
	}
	o.Plans[PlanName(plan)] = plan
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
	tests := read("check_test.go") + read("plan_test.go") + read("kinds_test.go")
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
