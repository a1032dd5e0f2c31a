package sagatest

import (
	"fmt"
	"strings"
	"time"

	"github.com/skald-io/skald/events"
)

// line is one fact of a scenario: an entry of the instance's history, or a remark.
type line struct {
	time  int64
	entry *events.Entry
	text  string
}

// History prints what happened so far, one fact a line, with the time since the scenario's start.
func (s *Scenario) History() string {
	var b strings.Builder
	for _, l := range s.log {
		text := l.text
		if l.entry != nil {
			text = describe(l.entry)
		}
		fmt.Fprintf(&b, "%-10s %s\n", "+"+s.since(l.time), text)
	}
	return b.String()
}

func (s *Scenario) since(ms int64) string {
	return (time.Duration(ms-Start.UnixMilli()) * time.Millisecond).String()
}

func describe(e *events.Entry) string {
	parts := []string{e.Kind.String()}
	if e.Kind == events.EntryTransition {
		parts = []string{e.To.String()}
	}
	if e.Step != "" {
		what := e.Step
		if e.Phase == events.Compensate {
			what = "undo of " + what
		}
		parts = append(parts, what)
	}
	if e.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("(attempt %d)", e.Attempt))
	}
	if e.Code != "" {
		parts = append(parts, e.Code)
	}
	if e.Who != "" {
		parts = append(parts, "by "+e.Who)
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	return strings.Join(parts, " ")
}

// fail ends the test, with all that helps to see why.
func (s *Scenario) fail(format string, args ...any) {
	s.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, format, args...)
	fmt.Fprintf(&b, "\n%s %q at +%s", s.plan.Name, s.key, s.since(s.now))
	if len(s.log) == 0 {
		b.WriteString(": nothing happened yet")
	} else {
		b.WriteString(":\n" + strings.TrimRight(s.History(), "\n"))
	}
	var open []string
	for _, c := range s.commands {
		if !c.answered {
			open = append(open, c.String())
		}
	}
	if len(open) > 0 {
		fmt.Fprintf(&b, "\ncommands without an answer: %s", strings.Join(open, ", "))
	}
	if at, due, ok := s.rows.nextTimer(); ok {
		what := "the instance"
		switch at.ref.Part {
		case events.PartNode:
			what = s.nodeName(uint32(at.ref.N))
		case events.PartCorrelation:
			what = "an event that is kept, or an id that is remembered"
		}
		fmt.Fprintf(&b, "\ndue next: %s, at +%s", what, s.since(due))
	}
	s.t.Fatalf("%s", b.String())
}

// difference shows where two prints of one decision part.
func difference(first, second []byte) string {
	i := 0
	for i < len(first) && i < len(second) && first[i] == second[i] {
		i++
	}
	show := func(b []byte) string { return fmt.Sprintf("%q", b[max(0, min(i, len(b))-40):min(len(b), i+40)]) }
	return "\tfirst  " + show(first) + "\n\tsecond " + show(second)
}
