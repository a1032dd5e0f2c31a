package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
)

func compensatedView() instanceView {
	head := &events.Head{Definition: "place-order", Key: "order-17", State: events.Compensated}
	return viewOf(events.InstanceID{1}, head, compensatedStory())
}

func TestASagaInOneLine(t *testing.T) {
	e, _, _ := testEnv()
	names := map[string]string{"book-courier": "cancel-courier", "reserve-stock": "release-stock"}
	got := newScreen(e).Saga(compensatedView(), func(_ uint32, step string) string { return names[step] })
	want := "order-17 compensated: reserve-stock ✓ authorize ✗ card-declined book-courier ?×2 cancelled ↩ cancel-courier ✓ release-stock ✓"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhatParticipantsSayIsSanitisedInLinesAndObjects(t *testing.T) {
	e, stdout, _ := testEnv()
	v := compensatedView()
	v.Key = "order\x1b[2J"
	v.Steps[1].Code = "no\u009b\u202e😀\u007f"
	s := newScreen(e)
	s.Result(s.Saga(v, undoNames))
	s.Object(v)
	out := stdout.String()
	for _, bad := range []string{"\x1b", "\u009b", "\u202e", "\u007f"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q reached the terminal: %q", bad, out)
		}
	}
	var back instanceView
	if err := json.Unmarshal([]byte(strings.Split(out, "\n")[1]), &back); err != nil {
		t.Fatal(err)
	}
	if back.Key != v.Key || back.Steps[1].Code != v.Steps[1].Code {
		t.Errorf("the object reads back as %q, %q", back.Key, back.Steps[1].Code)
	}
}

func TestColoursAreForTerminalsThatWantThem(t *testing.T) {
	for _, x := range []struct {
		tty  bool
		vars map[string]string
		want bool
	}{
		{true, nil, true},
		{false, nil, false},
		{true, map[string]string{"NO_COLOR": "1"}, false},
		{true, map[string]string{"TERM": "dumb"}, false},
	} {
		e, _, _ := testEnv()
		e.stdoutTTY = x.tty
		e.getenv = func(k string) string { return x.vars[k] }
		if got := strings.Contains(newScreen(e).Saga(compensatedView(), undoNames), "\x1b["); got != x.want {
			t.Errorf("terminal %t, %v: coloured %t", x.tty, x.vars, got)
		}
	}
}

func TestTheStatusLineStaysBelowTheResults(t *testing.T) {
	e, stdout, stderr := testEnv()
	e.stderrTTY, e.width = true, func() int { return 10 }
	e.stdout = stderr // one terminal shows both
	_ = stdout
	s := newScreen(e)
	s.Status("a long status line")
	s.Result("result")
	s.Status("")
	if got, want := stderr.String(), "a long s…"+"\r\x1b[K"+"result\n"+"a long s…"+"\r\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithoutATerminalThereIsNoStatusLine(t *testing.T) {
	e, stdout, stderr := testEnv()
	s := newScreen(e)
	s.Status("running 3")
	s.Result("result")
	if stderr.Len() != 0 || stdout.String() != "result\n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}
