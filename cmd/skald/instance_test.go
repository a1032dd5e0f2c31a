package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
)

// story builds a history: each entry a millisecond after the one before.
type story struct{ entries []events.Entry }

var nodes = map[string]uint32{"reserve-stock": 1, "authorize": 3, "book-courier": 4}

func (s *story) add(kind events.EntryKind, step string, phase events.Phase, attempt uint32, code string) *story {
	s.entries = append(s.entries, events.Entry{Kind: kind, Time: 1_000_000 + int64(len(s.entries)), Step: step, Node: nodes[step],
		Phase: phase, Execution: 1, Attempt: attempt, Code: code})
	return s
}

func (s *story) state(to events.State) *story {
	s.entries = append(s.entries, events.Entry{Kind: events.EntryTransition, Time: 1_000_000 + int64(len(s.entries)), To: to})
	return s
}

func compensatedStory() []events.Entry {
	const f, c = events.Forward, events.Compensate
	s := &story{}
	s.state(events.Running)
	s.add(events.EntryCommand, "reserve-stock", f, 1, "")
	s.add(events.EntryDone, "reserve-stock", f, 1, "")
	s.add(events.EntryCommand, "authorize", f, 1, "")
	s.add(events.EntryCommand, "book-courier", f, 1, "")
	s.add(events.EntryUnknown, "book-courier", f, 1, "timeout")
	s.add(events.EntryCommand, "book-courier", f, 2, "")
	s.add(events.EntryRejected, "authorize", f, 1, "card-declined")
	s.add(events.EntryFailed, "authorize", f, 0, "card-declined")
	s.state(events.Compensating)
	s.add(events.EntryCommand, "book-courier", c, 1, "")
	s.add(events.EntryDone, "book-courier", c, 1, "")
	s.add(events.EntryCommand, "reserve-stock", c, 1, "")
	s.add(events.EntryDone, "reserve-stock", c, 1, "")
	s.state(events.Compensated)
	return s.entries
}

func short(steps []stepView) string {
	var out []string
	for _, s := range steps {
		x := fmt.Sprintf("%s/%s %s×%d", s.Name, s.Direction, s.Outcome, s.Attempts)
		if s.Code != "" {
			x += " " + s.Code
		}
		if s.Ended == nil {
			x += " …"
		}
		out = append(out, x)
	}
	return strings.Join(out, "; ")
}

func TestStepsStandInTheOrderTheyHappenedIn(t *testing.T) {
	got := short(stepsOf(compensatedStory()))
	want := "reserve-stock/forward done×1; authorize/forward rejected×1 card-declined; book-courier/forward unknown×2 cancelled; " +
		"book-courier/compensate done×1; reserve-stock/compensate done×1"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOutcomesOfSteps(t *testing.T) {
	const f, c = events.Forward, events.Compensate
	for _, x := range []struct {
		name string
		s    *story
		want string
	}{
		{"open", (&story{}).add(events.EntryCommand, "a", f, 1, ""), "a/forward open×1 …"},
		{"retried after a time-out", (&story{}).add(events.EntryCommand, "a", f, 1, "").add(events.EntryUnknown, "a", f, 1, "timeout").
			add(events.EntryCommand, "a", f, 2, ""), "a/forward open×2 …"},
		{"attempts used up", (&story{}).add(events.EntryCommand, "a", f, 1, "").add(events.EntryUnknown, "a", f, 1, "timeout").
			add(events.EntryFailed, "a", f, 0, "attempts"), "a/forward unknown×1 timeout"},
		{"failed without a reply", (&story{}).add(events.EntryCommand, "a", f, 1, "").add(events.EntryFailed, "a", f, 0, "deadline"), "a/forward failed×1 deadline"},
		{"a late done is a done", (&story{}).add(events.EntryCommand, "a", f, 1, "").add(events.EntryUnknown, "a", f, 1, "timeout").
			add(events.EntryCommand, "a", c, 1, "").add(events.EntryLate, "a", f, 1, "done"), "a/forward done×1 late; a/compensate open×1 …"},
		{"every attempt rejected late", (&story{}).add(events.EntryCommand, "a", f, 1, "").add(events.EntryUnknown, "a", f, 1, "timeout").
			add(events.EntryLate, "a", f, 1, "rejected").add(events.EntryDischarged, "a", f, 0, ""), "a/forward rejected×1 timeout"},
		{"an undo that was retried", (&story{}).add(events.EntryCommand, "a", c, 1, "").add(events.EntryUnknown, "a", c, 1, "timeout").
			add(events.EntryCommand, "a", c, 2, "").add(events.EntryDone, "a", c, 1, "").add(events.EntryDischarged, "a", c, 0, ""), "a/compensate done×2"},
	} {
		if got := short(stepsOf(x.s.entries)); got != x.want {
			t.Errorf("%s: got %q, want %q", x.name, got, x.want)
		}
	}
}

// The shape is a promise: scripts read it.
func TestAnInstanceAsJSON(t *testing.T) {
	id := events.NewInstanceID("shop", "place-order", "order-17", "m", 256)
	head := &events.Head{Definition: "place-order", Key: "order-17", State: events.Compensated, Started: 1_000_000, Ended: 1_000_014}
	b, err := json.Marshal(viewOf(id, head, compensatedStory()[:4]))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + id.String() + `","key":"order-17","definition":"place-order","state":"compensated",` +
		`"started":"1970-01-01T00:16:40.000Z","ended":"1970-01-01T00:16:40.014Z","steps":[` +
		`{"name":"reserve-stock","direction":"forward","outcome":"done","attempts":1,"started":"1970-01-01T00:16:40.001Z","ended":"1970-01-01T00:16:40.002Z"},` +
		`{"name":"authorize","direction":"forward","outcome":"open","attempts":1,"started":"1970-01-01T00:16:40.003Z","ended":null}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	b, _ = json.Marshal(viewOf(id, &events.Head{State: events.Running}, nil))
	if !strings.Contains(string(b), `"ended":null,"steps":[]`) {
		t.Errorf("an instance that just started: %s", b)
	}
}
