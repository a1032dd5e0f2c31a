package main

import (
	"github.com/skald-io/skald/events"
)

// instanceView is an instance as `-o json` prints it. Fields are only ever added.
type instanceView struct {
	ID         string     `json:"id"`
	Key        string     `json:"key"`
	Definition string     `json:"definition"`
	State      string     `json:"state"`
	Started    string     `json:"started"` // RFC 3339, UTC, milliseconds
	Ended      *string    `json:"ended"`   // null until it is final
	Code       string     `json:"code,omitempty"`
	Message    string     `json:"message,omitempty"`
	Steps      []stepView `json:"steps"` // in order of happening
}

// stepView is one execution of a step, or of its undo.
type stepView struct {
	Name      string  `json:"name"`      // of the step; its undo has the same one
	Direction string  `json:"direction"` // forward or compensate
	Outcome   string  `json:"outcome"`   // done, rejected, unknown, failed; open while it is none of them
	Code      string  `json:"code,omitempty"`
	Attempts  int     `json:"attempts"`
	Started   string  `json:"started"`
	Ended     *string `json:"ended"` // null while it is open
	Node      uint32  `json:"-"`
}

const (
	outcomeOpen     = "open"
	outcomeDone     = "done"
	outcomeRejected = "rejected"
	outcomeUnknown  = "unknown"
	outcomeFailed   = "failed"
)

func viewOf(id events.InstanceID, h *events.Head, history []events.Entry) instanceView {
	v := instanceView{ID: id.String(), Key: h.Key, Definition: h.Definition, State: h.State.String(),
		Started: events.Timestamp(h.Started), Ended: timeOrNull(h.Ended), Code: h.Code, Message: h.Message,
		Steps: stepsOf(history)}
	if v.Steps == nil {
		v.Steps = []stepView{}
	}
	return v
}

func timeOrNull(ms int64) *string {
	if ms == 0 {
		return nil
	}
	s := events.Timestamp(ms)
	return &s
}

// stepsOf folds a history into its steps. One entry more never changes their order: a step stands where its
// first command does.
func stepsOf(history []events.Entry) []stepView {
	type key struct {
		node, execution uint32
		phase           events.Phase
	}
	var steps []stepView
	at := map[key]int{}
	find := func(e *events.Entry) *stepView {
		k := key{e.Node, e.Execution, e.Phase}
		if k.phase == 0 {
			k.phase = events.Forward
		}
		i, ok := at[k]
		if !ok {
			i = len(steps)
			at[k] = i
			steps = append(steps, stepView{Name: e.Step, Direction: k.phase.String(), Outcome: outcomeOpen, Started: events.Timestamp(e.Time), Node: e.Node})
		}
		return &steps[i]
	}
	end := func(s *stepView, outcome, code string, ms int64) {
		s.Outcome, s.Code, s.Ended = outcome, code, timeOrNull(ms)
	}
	for i := range history {
		e := &history[i]
		if e.Step == "" {
			continue
		}
		switch e.Kind {
		case events.EntryCommand:
			s := find(e)
			s.Attempts = max(s.Attempts, int(e.Attempt))
			s.Outcome, s.Code, s.Ended = outcomeOpen, "", nil
			if e.Phase == events.Compensate {
				// Nobody waits any longer for the step that is undone.
				if i, ok := at[key{e.Node, e.Execution, events.Forward}]; ok && steps[i].Outcome == outcomeOpen {
					end(&steps[i], outcomeUnknown, "cancelled", e.Time)
				}
			}
		case events.EntryDone:
			end(find(e), outcomeDone, "", e.Time)
		case events.EntryRejected:
			end(find(e), outcomeRejected, e.Code, e.Time)
		case events.EntryUnknown:
			end(find(e), outcomeUnknown, e.Code, e.Time)
		case events.EntryFailed:
			s := find(e)
			if s.Outcome == outcomeOpen || s.Outcome == outcomeDone {
				s.Outcome = outcomeFailed
			}
			if s.Code == "" {
				s.Code = e.Code
			}
			s.Ended = timeOrNull(e.Time)
		case events.EntryLate:
			if s := find(e); e.Code == outcomeDone && s.Outcome != outcomeDone {
				end(s, outcomeDone, "late", e.Time)
			}
		case events.EntryDischarged:
			if i, ok := at[key{e.Node, e.Execution, events.Forward}]; ok && steps[i].Outcome == outcomeUnknown {
				if _, undone := at[key{e.Node, e.Execution, events.Compensate}]; !undone {
					steps[i].Outcome = outcomeRejected
				}
			}
		}
	}
	return steps
}
