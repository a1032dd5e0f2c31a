package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// screen writes results to stdout and the rest to stderr, and on a terminal keeps one status line below
// them. It is safe for concurrent use.
type screen struct {
	mu     sync.Mutex
	e      *env
	color  bool
	live   bool // there is a status line
	status string
}

func newScreen(e *env) *screen {
	dumb := e.getenv("TERM") == "dumb"
	return &screen{e: e,
		color: e.stdoutTTY && !dumb && e.getenv("NO_COLOR") == "",
		live:  e.stderrTTY && !dumb}
}

// Result prints a line of results.
func (s *screen) Result(line string) { s.print(s.e.stdout, line) }

// Object prints a result as JSON, one line. What JSON would let through and a terminal would obey is
// escaped as JSON escapes; it can only stand in strings.
func (s *screen) Object(v any) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // views hold strings and numbers alone
		panic(err)
	}
	var line strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if strconv.IsPrint(r) {
			line.WriteRune(r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&line, `\u%04x`, u)
		}
	}
	s.Result(line.String())
}

// Note prints a line for people. Text from outside must have been sanitised.
func (s *screen) Note(format string, args ...any) { s.print(s.e.stderr, fmt.Sprintf(format, args...)) }

func (s *screen) print(w io.Writer, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintln(w, line)
	s.draw()
}

// Write takes the lines of a logger.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	n, err := s.e.stderr.Write(p)
	s.draw()
	return n, err
}

// Status replaces the status line; "" removes it. Without a terminal it does nothing.
func (s *screen) Status(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == s.status {
		return
	}
	s.clear()
	s.status = line
	s.draw()
}

func (s *screen) clear() {
	if s.live && s.status != "" {
		io.WriteString(s.e.stderr, "\r\x1b[K")
	}
}

func (s *screen) draw() {
	if !s.live || s.status == "" {
		return
	}
	line := s.status
	if w := s.e.width(); w > 0 && utf8.RuneCountInString(line) >= w {
		line = string([]rune(line)[:max(w-2, 0)]) + "…"
	}
	io.WriteString(s.e.stderr, line)
}

const (
	green  = "32"
	red    = "31"
	yellow = "33"
	dim    = "2"
)

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Saga is an instance in one line: its steps in order, and after ↩ its undos.
//
//	order-17 compensated: reserve-stock ✓ authorize ✗ card-declined ↩ release-stock ✓
//
// undoName gives the name to show for the undo of a node.
func (s *screen) Saga(v instanceView, undoName func(node uint32, step string) string) string {
	var b strings.Builder
	b.WriteString(sanitize(v.Key, 80))
	b.WriteByte(' ')
	switch v.State {
	case "completed":
		b.WriteString(s.paint(green, v.State))
	case "parked", "terminated":
		b.WriteString(s.paint(red, v.State))
	default:
		b.WriteString(s.paint(yellow, v.State))
	}
	b.WriteByte(':')
	back := false
	for _, x := range v.Steps {
		name := x.Name
		if x.Direction == "compensate" {
			if !back {
				b.WriteString(" ↩")
				back = true
			}
			name = undoName(x.Node, x.Name)
		}
		b.WriteByte(' ')
		b.WriteString(sanitize(name, 80))
		b.WriteByte(' ')
		switch x.Outcome {
		case outcomeDone:
			b.WriteString(s.paint(green, "✓"))
		case outcomeRejected, outcomeFailed:
			b.WriteString(s.paint(red, "✗"))
		case outcomeUnknown:
			b.WriteString(s.paint(yellow, "?"))
		default:
			b.WriteString("…")
		}
		if x.Attempts > 1 {
			fmt.Fprintf(&b, "×%d", x.Attempts)
		}
		if x.Outcome != outcomeDone && x.Code != "" {
			b.WriteByte(' ')
			b.WriteString(s.paint(dim, sanitize(x.Code, 40)))
		}
	}
	if v.State == "parked" {
		b.WriteString(" — ")
		b.WriteString(sanitize(strings.TrimSpace(v.Code+" "+v.Message), 200))
	}
	return b.String()
}

func statusLine(t tally) string {
	s := fmt.Sprintf("placed %d · waiting %d · running %d · compensating %d · completed %d · compensated %d",
		t.Placed, t.Waiting, t.Running, t.Compensating, t.Completed, t.Compensated)
	if t.Parked > 0 {
		s += fmt.Sprintf(" · parked %d", t.Parked)
	}
	return s
}
