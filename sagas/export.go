package sagas

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/skald-io/skald/internal/mutant"
)

// Export prints the plan as text: everything that tells it from another plan, and nothing else. The plan's
// hash is the first eight bytes of the SHA-256 of this text, and comparing two exports line by line shows
// how two plans of one version differ.
//
// The format is lines that end with a newline. Names, versions, topics, types and error codes are quoted as in
// Go, durations are printed as in Go, numbers in the shortest way that reads back the same. What is marked 2
// belongs to version 2 of the format, and a plan without any of it is printed as version 1: its hash stays what
// it was when there was no other.
//
//	skald-plan 1|2
//	definition NAME version VERSION
//	start topic TOPIC type TYPE
//	during ignore                                   2, unless it is quarantine
//	after failure|quarantine|ignore                 2, unless it is start
//	deadline DURATION
//	retention DURATION
//
// Then one line for each node in preorder, indented by a space for each node above it:
//
//	seq NAME
//	all NAME cancel-rest|let-it-finish JOIN
//	wait NAME DURATION
//	do NAME
//	step NAME compensatable|pivot|retriable [effect-free] topic TOPIC type TYPE POLICY
//	wait NAME event topic TOPIC type TYPE keep DURATION [within DURATION]      2
//	wait NAME signal SIGNAL [within DURATION]                                  2
//	emit NAME topic TOPIC type TYPE                                            2
//	choose NAME CASE...                                                        2
//	require NAME                                                               2
//	for-each NAME cancel-rest|let-it-finish JOIN most N                        2
//	while NAME most N                                                          2
//	try NAME                                                                   2
//
// and below a step that has one, indented once more:
//
//	undo topic TOPIC type TYPE POLICY
//
// A CASE is when NAME or otherwise NAME, of which each has a node below; the second node below a try is its else. POLICY is
//
//	timeout DURATION attempts N backoff DURATION cap DURATION jitter NUMBER [not CODE,CODE...]
//
// with the codes in order, and JOIN is nothing, or of version 2:
//
//	[some N|first] [width N]
//
// Functions, Go types and places in the source are not part of it: they may change without a new version.
func (p *Plan) Export() string {
	var b strings.Builder
	format := 1
	if mutant.On("sagas-hash-of-old-plans-changes") || p.During != DuringQuarantine || p.After != AfterStart || slices.ContainsFunc(p.Nodes, (*Node).isOf2) {
		format = 2
	}
	fmt.Fprintf(&b, "skald-plan %d\ndefinition %q version %q\nstart topic %q type %q\n", format, p.Name, p.Version, p.Start.Topic, p.Start.Type)
	if p.During != DuringQuarantine {
		fmt.Fprintf(&b, "during %v\n", p.During)
	}
	if p.After != AfterStart {
		fmt.Fprintf(&b, "after %v\n", p.After)
	}
	fmt.Fprintf(&b, "deadline %v\nretention %v\n", p.Deadline, p.Retention)
	depth := make([]int, len(p.Nodes))
	for i, n := range p.Nodes {
		if n.Parent != nil {
			depth[i] = depth[n.Parent.ID] + 1
		}
		indent := strings.Repeat(" ", depth[i])
		fmt.Fprintf(&b, "%s%s %q", indent, n.Kind, n.Name)
		switch n.Kind {
		case KindAll, KindForEach:
			fmt.Fprintf(&b, " %s", n.OnFailure)
			n.exportJoin(&b)
		case KindWait:
			n.Wait.export(&b)
		case KindEmit:
			fmt.Fprintf(&b, " topic %q type %q", n.Emit.Topic, n.Emit.Type)
		case KindChoose:
			for i, name := range n.Cases {
				word := "when"
				if n.Conds[i] == nil {
					word = "otherwise"
				}
				fmt.Fprintf(&b, " %s %q", word, name)
			}
		case KindStep:
			s := n.Step
			fmt.Fprintf(&b, " %s", s.Role)
			if s.EffectFree {
				b.WriteString(" effect-free")
			}
			fmt.Fprintf(&b, " topic %q type %q timeout %v", s.Topic, s.Type, s.Timeout)
			s.Retry.export(&b)
			if u := s.Undo; u != nil {
				fmt.Fprintf(&b, "\n%s undo topic %q type %q timeout %v", indent, u.Topic, u.Type, u.Timeout)
				u.Retry.export(&b)
			}
		}
		if n.Kind == KindForEach || n.Kind == KindWhile {
			fmt.Fprintf(&b, " most %d", n.Most)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// isOf2 reports whether the first version of the format cannot say what the node is.
func (n *Node) isOf2() bool {
	switch n.Kind {
	case KindStep, KindSeq, KindDo:
		return false
	case KindAll:
		return n.Join != JoinAll || n.Width != 0
	case KindWait:
		return n.Wait.Sleep == 0
	}
	return true
}

func (n *Node) exportJoin(b *strings.Builder) {
	if mutant.On("sagas-join-not-hashed") {
		return
	}
	switch n.Join {
	case JoinSome:
		fmt.Fprintf(b, " some %d", n.Quorum)
	case JoinFirst:
		b.WriteString(" first")
	}
	if n.Width != 0 {
		fmt.Fprintf(b, " width %d", n.Width)
	}
}

func (w *WaitPlan) export(b *strings.Builder) {
	switch {
	case w.Event != nil:
		fmt.Fprintf(b, " event topic %q type %q keep %v", w.Event.Topic, w.Event.Type, w.Keep)
	case w.Signal != "":
		fmt.Fprintf(b, " signal %q", w.Signal)
	default:
		fmt.Fprintf(b, " %v", w.Sleep)
	}
	if w.Within != 0 {
		fmt.Fprintf(b, " within %v", w.Within)
	}
}

func (r *Retry) export(b *strings.Builder) {
	fmt.Fprintf(b, " attempts %d backoff %v cap %v jitter %s", max(r.Attempts, -1), r.Backoff, r.Cap, strconv.FormatFloat(r.Jitter, 'g', -1, 64))
	for i, code := range r.NotCodes {
		if i == 0 {
			b.WriteString(" not ")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(code))
	}
}
