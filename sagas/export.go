package sagas

import (
	"fmt"
	"strconv"
	"strings"
)

// Export prints the plan as text: everything that tells it from another plan, and nothing else. The plan's
// hash is the first eight bytes of the SHA-256 of this text, and comparing two exports line by line shows
// how two plans of one version differ.
//
// The format, version 1, is lines that end with a newline. Names, versions, topics, types and error codes
// are quoted as in Go, durations are printed as in Go, numbers in the shortest way that reads back the same.
//
//	skald-plan 1
//	definition NAME version VERSION
//	start topic TOPIC type TYPE
//	deadline DURATION
//	retention DURATION
//
// Then one line for each node in preorder, indented by a space for each node above it:
//
//	seq NAME
//	all NAME cancel-rest|let-it-finish
//	wait NAME DURATION
//	do NAME
//	step NAME compensatable|pivot|retriable [effect-free] topic TOPIC type TYPE POLICY
//
// and below a step that has one, indented once more:
//
//	undo topic TOPIC type TYPE POLICY
//
// POLICY is
//
//	timeout DURATION attempts N backoff DURATION cap DURATION jitter NUMBER [not CODE,CODE...]
//
// with the codes in order. Functions, Go types and places in the source are not part of it: they may
// change without a new version.
func (p *Plan) Export() string {
	var b strings.Builder
	fmt.Fprintf(&b, "skald-plan 1\ndefinition %q version %q\nstart topic %q type %q\ndeadline %v\nretention %v\n",
		p.Name, p.Version, p.Start.Topic, p.Start.Type, p.Deadline, p.Retention)
	depth := make([]int, len(p.Nodes))
	for i, n := range p.Nodes {
		if n.Parent != nil {
			depth[i] = depth[n.Parent.ID] + 1
		}
		indent := strings.Repeat(" ", depth[i])
		fmt.Fprintf(&b, "%s%s %q", indent, n.Kind, n.Name)
		switch n.Kind {
		case KindAll:
			fmt.Fprintf(&b, " %s", n.OnFailure)
		case KindWait:
			fmt.Fprintf(&b, " %v", n.Wait.Sleep)
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
		b.WriteByte('\n')
	}
	return b.String()
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
