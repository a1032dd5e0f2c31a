package sagas

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mermaid draws the plan as a flowchart in the language of https://mermaid.js.org, which GitHub, GitLab and
// many editors show: put it into a Markdown block marked mermaid.
//
//	rectangle       a step; behind a dotted line, the command that undoes it
//	hexagon         the pivot; beyond it nothing is undone
//	double frame    a Do
//	rounded         a Wait: its time, event or signal
//	slanted         an Emit
//	rhombus         a Choose, a Require or a While, with its ways out
//	two circles     a fork, and its join with the rule by which it is done
//	frame           a Try, left by a dotted line when its body failed and is undone; or the body of a ForEach
//
// Whatever users wrote is escaped, so that it is text to whoever shows the chart. The drawing is for people: it
// may change with any version, and is no part of the plan's hash.
func (p *Plan) Mermaid() string {
	var c chart
	c.line("flowchart TD")
	c.level = 1
	what := p.Start.Type
	if what == "" {
		what = "any event"
	}
	c.line(`start(["%s"])`, text(what+" on "+p.Start.Topic))
	outs := []edge{{from: "start"}}
	if p.Root != nil {
		outs = c.draw(p.Root, outs)
	}
	c.line(`stop(["%s"])`, text(p.Name+" completed"))
	c.join(outs, "stop")
	c.b.WriteString(c.arrows.String())
	c.line("classDef pivot stroke-width:3px")
	c.line("classDef undo stroke-dasharray:4")
	return c.b.String()
}

type chart struct {
	b      strings.Builder
	arrows strings.Builder // they stand last: one within a frame would draw its node into it
	level  int
}

// edge leaves a node for the one that comes next.
type edge struct {
	from, label string
	dotted      bool
}

func (c *chart) line(format string, args ...any) {
	c.b.WriteString(strings.Repeat("  ", c.level))
	fmt.Fprintf(&c.b, format, args...)
	c.b.WriteByte('\n')
}

func (c *chart) join(edges []edge, to string) {
	for _, e := range edges {
		arrow := "-->"
		if e.dotted {
			arrow = "-.->"
		}
		if e.label != "" {
			arrow += `|"` + text(e.label) + `"|`
		}
		fmt.Fprintf(&c.arrows, "  %s %s %s\n", e.from, arrow, to)
	}
}

// draw draws a node and what is in it, and joins to it what comes before; it gives the ways out.
func (c *chart) draw(n *Node, from []edge) []edge {
	id := "n" + strconv.Itoa(int(n.ID))
	out := []edge{{from: id}}
	switch n.Kind {
	case KindStep:
		c.step(id, n)
	case KindWait:
		c.line(`%s(["%s"])`, id, text(n.Name+": "+n.Wait.text()))
	case KindDo:
		c.line(`%s[["%s"]]`, id, text(n.Name))
	case KindEmit:
		c.line(`%s[/"%s"/]`, id, text(n.Name+": "+n.Emit.Type))
	case KindRequire:
		c.line(`%s{"%s"}`, id, text(n.Name+"?"))
		c.line(`%sx(("%s"))`, id, text("fails"))
		c.join([]edge{{from: id, label: "no"}}, id+"x")
		out = []edge{{from: id, label: "yes"}}
	case KindSeq:
		for _, child := range n.Children {
			from = c.draw(child, from)
		}
		return from
	case KindChoose:
		c.line(`%s{"%s"}`, id, text(n.Name))
		c.join(from, id)
		out, otherwise := []edge(nil), false
		for i, child := range n.Children {
			out = append(out, c.draw(child, []edge{{from: id, label: n.Cases[i]}})...)
			otherwise = otherwise || n.Conds[i] == nil
		}
		if !otherwise {
			out = append(out, edge{from: id, label: "otherwise"})
		}
		return out
	case KindWhile:
		c.line(`%s{"%s"}`, id, text(fmt.Sprintf("while %s, at most %d times", n.Name, n.Most)))
		c.join(from, id)
		for _, child := range n.Children {
			c.join(c.draw(child, []edge{{from: id, label: "yes"}}), id)
		}
		return []edge{{from: id, label: "no"}}
	case KindAll:
		c.line(`%s(("%s"))`, id, text(n.Name))
		c.join(from, id)
		return c.branches(id, n)
	case KindForEach:
		c.line(`%s(("%s"))`, id, text("for each of "+n.Name))
		c.join(from, id)
		c.open(id, "one turn for each element, at most "+strconv.Itoa(n.Most))
		out = c.branches(id, n)
		c.close()
		return out
	case KindTry:
		c.open(id, "try "+n.Name)
		out = nil
		if len(n.Children) > 0 {
			out = c.draw(n.Children[0], from)
		}
		c.close()
		failed := []edge{{from: id + "s", label: "failed and undone", dotted: true}}
		if len(n.Children) > 1 {
			failed = c.draw(n.Children[1], failed)
		}
		return append(out, failed...)
	default: // of a newer build
		c.line(`%s["%s"]`, id, text(n.Kind.String()+" "+n.Name))
	}
	c.join(from, id)
	return out
}

func (c *chart) step(id string, n *Node) {
	switch n.Step.Role {
	case Pivot:
		c.line(`%s{{"%s"}}:::pivot`, id, text(n.Name+" (pivot)"))
	case Retriable:
		c.line(`%s["%s"]`, id, text(n.Name+" (retriable)"))
	default:
		c.line(`%s["%s"]`, id, text(n.Name))
	}
	if u := n.Step.Undo; u != nil {
		c.line(`%su["%s"]:::undo`, id, text(u.Type))
		fmt.Fprintf(&c.arrows, "  %s -. \"undo\" .- %su\n", id, id)
	}
}

// branches draws what a fork holds, between it and its join.
func (c *chart) branches(id string, n *Node) []edge {
	var ends []edge
	for _, child := range n.Children {
		ends = append(ends, c.draw(child, []edge{{from: id}})...)
	}
	rule := n.Join.String()
	if n.Join == JoinSome {
		rule = "at least " + strconv.Itoa(n.Quorum)
	}
	if n.Width > 0 {
		rule += ", " + strconv.Itoa(n.Width) + " at a time"
	}
	c.line(`%sj(("%s"))`, id, text(rule))
	c.join(ends, id+"j")
	return []edge{{from: id + "j"}}
}

func (c *chart) open(id, title string) {
	c.line(`subgraph %ss["%s"]`, id, text(title))
	c.level++
}

func (c *chart) close() {
	c.level--
	c.line("end")
}

func (w *WaitPlan) text() string {
	var s string
	switch {
	case w.Event != nil && w.Event.Type != "":
		s = "event " + w.Event.Type
	case w.Event != nil:
		s = "any event on " + w.Event.Topic
	case w.Signal != "":
		s = "signal " + w.Signal
	default:
		s = short(w.Sleep)
	}
	if w.Within != 0 {
		s += ", within " + short(w.Within)
	}
	return s
}

// short prints a duration without the parts that are nothing: 48h, not 48h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// text escapes everything that could mean something to Mermaid, or to the page the chart is shown on.
func text(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" -_.,:/()?", r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
