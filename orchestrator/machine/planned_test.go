package machine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// combinator reads the word before the children, name:attribute=value:attribute:
//
//	seq
//	all                fork; finish is all:finish
//	each:n=3           fork over n elements i0, i1, ...; :itemsize=N makes them longer; :most=N
//	                   forks have :width=N, :finish, :q=N (done when so many are), :first
//	choose:when=A|B    each child's condition: yes, no, - for none, or a text that the data have to contain
//	while:by=X:times=N as long as the data have less than N entries X, or, with :per=Y, N for each Y; :most=N
//	try                the body, and what goes on after its failure
func (r *planReader) combinator(n *sagas.Node, text string) {
	words := strings.Split(text, ":")
	attrs := map[string]string{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		attrs[k] = v
	}
	number := func(k string) int { i, _ := strconv.Atoi(attrs[k]); return i }
	n.Name = words[0] + "-" + strconv.Itoa(int(n.ID))
	n.Most = 100
	if _, ok := attrs["most"]; ok {
		n.Most = number("most")
	}
	n.Width = number("width")
	if n.Quorum = number("q"); n.Quorum > 0 {
		n.Join = sagas.JoinSome
	}
	if _, ok := attrs["first"]; ok {
		n.Join = sagas.JoinFirst
	}
	if _, ok := attrs["finish"]; ok || words[0] == "finish" {
		n.OnFailure = sagas.LetItFinish
	}
	check := r.check(n.Name)
	switch words[0] {
	case "seq":
		n.Kind = sagas.KindSeq
	case "all", "finish":
		n.Kind = sagas.KindAll
	case "choose":
		n.Kind = sagas.KindChoose
		for _, when := range strings.Split(attrs["when"], "|") {
			n.Cases = append(n.Cases, when)
			if when == "-" {
				n.Conds = append(n.Conds, nil)
				continue
			}
			n.Conds = append(n.Conds, func(d any) (bool, error) { return d.(*testData).holds(when), check("cond") })
		}
	case "while":
		n.Kind = sagas.KindWhile
		by, times := attrs["by"], number("times")
		n.Conds = []func(any) (bool, error){func(d any) (bool, error) {
			most := times
			if per, ok := attrs["per"]; ok {
				most *= d.(*testData).count(per)
			}
			return d.(*testData).count(by) < most, check("cond")
		}}
	case "try":
		n.Kind = sagas.KindTry
		n.OnFail = func(d any, f sagas.Failure) error {
			d.(*testData).note(fmt.Sprintf("%s-failed-%s-%s", n.Name, f.Step, f.Code))
			return check("onfail")
		}
	case "each":
		n.Kind = sagas.KindForEach
		n.Each = r.each(n.Name, number("n"), number("itemsize"))
	default:
		r.t.Fatalf("plan: %q is no combinator", words[0])
	}
}

// each makes elements that are logs like the saga's data, and see it around them.
func (r *planReader) each(name string, elements, size int) *sagas.EachPlan {
	check := r.check(name)
	return &sagas.EachPlan{
		Items: func(d any) (items [][]byte, err error) {
			for i := range elements {
				items = append(items, []byte("i"+strconv.Itoa(i)+strings.Repeat("#", size)))
			}
			return items, check("items")
		},
		Enter: func(outer any, item []byte, turn int) (any, error) {
			return &testData{log: strings.Split(string(item), ","), outer: outer.(*testData)}, check("enter")
		},
		Leave: func(inner any) ([]byte, error) {
			return []byte(strings.Join(inner.(*testData).log, ",")), check("leave")
		},
	}
}

// check gives what a user function of that name ends with: what the story broke.
func (r *planReader) check(name string) func(fn string) error {
	return func(fn string) error {
		if r.broken[name+"."+fn+".panic"] {
			panic(name + " " + fn + " panics")
		}
		if r.broken[name+"."+fn] {
			return errors.New(name + " " + fn + " fails")
		}
		return nil
	}
}

func (d *testData) note(what string) { d.log = append(d.log, what) }

// root is the saga's own data.
func (d *testData) root() *testData {
	for d.outer != nil {
		d = d.outer
	}
	return d
}

func (d *testData) holds(when string) bool {
	return when == "yes" || when != "no" && strings.Contains(d.String(), when)
}

func (d *testData) count(what string) (n int) {
	for _, entry := range d.log {
		if entry == what || strings.HasPrefix(entry, what+"=") {
			n++
		}
	}
	return n
}

// numberOf finds the row of a label, NAME or NAME[turn].
func (w *world) numberOf(label string) uint32 {
	if !strings.Contains(label, "[") {
		for _, n := range w.plan.Nodes {
			if n.Name == label && !w.inLoop(n) {
				return n.ID
			}
		}
	}
	for ref := range w.rows {
		if ref.Part == events.PartNode && w.labelOf(ref.N) == label {
			return uint32(ref.N)
		}
	}
	w.t.Fatalf("no row of %q", label)
	return 0
}

func (w *world) inLoop(n *sagas.Node) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if loops(p) {
			return true
		}
	}
	return false
}

func (w *world) labelOf(row uint64) string {
	if w.plan == nil {
		return strconv.Itoa(int(row))
	}
	loads, again := w.loads, w.again
	w.again = nil
	defer func() { w.loads, w.again = loads, again }()
	x := w.m.open(w, w.now, w.id)
	x.plan = w.plan
	n, ok := x.placeOf(x.row(uint32(row)))
	if !ok {
		return "row " + strconv.Itoa(int(row))
	}
	return x.label(n)
}

// nodeRefs lists the rows of nodes by number.
func (w *world) nodeRefs() (refs []events.RowRef) {
	for ref := range w.rows {
		if ref.Part == events.PartNode {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b events.RowRef) int { return cmp.Compare(a.N, b.N) })
	return refs
}
