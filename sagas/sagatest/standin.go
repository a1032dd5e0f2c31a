package sagatest

import "github.com/skald-io/skald/events"

// StandIn answers a step's commands, or its undos, by itself: those that are open and those to come. Each
// of its methods adds the answer to one more attempt, and the last one is repeated, so that
//
//	s.On("authorize").Retry("busy").Silent().Done(Authorized{ID: "a-1"})
//
// is busy, then not heard of, then done with it for ever.
type StandIn struct {
	s       *Scenario
	role    role
	answers []func(*Command)
	given   map[string]int // by step: each turn of a loop begins with the first
}

// On gives the stand-in for a step's commands. For a step of a loop, NAME stands in for the turns that have none
// of their own, as NAME[2].
func (s *Scenario) On(step string) *StandIn { s.t.Helper(); return s.on(role{step, events.Forward}) }

// OnUndo gives the stand-in for a step's undos.
func (s *Scenario) OnUndo(step string) *StandIn {
	s.t.Helper()
	return s.on(role{step, events.Compensate})
}

// AllDone gives every step and undo that has none a stand-in that is done with it at once, without a
// payload. Replies that the saga needs are better given by On.
func (s *Scenario) AllDone() {
	s.t.Helper()
	for _, n := range s.plan.Nodes {
		if n.Step == nil {
			continue
		}
		for _, r := range []role{{n.Name, events.Forward}, {n.Name, events.Compensate}} {
			if s.standIns[r] == nil {
				in := &StandIn{s: s, role: r, given: map[string]int{}}
				s.standIns[r] = in
				in.answers = append(in.answers, func(c *Command) { c.deliver(events.ReplyDone, "", nil) })
			}
		}
	}
	s.settle()
}

func (s *Scenario) on(r role) *StandIn {
	s.t.Helper()
	s.check(r)
	in := s.standIns[r]
	if in == nil {
		in = &StandIn{s: s, role: r, given: map[string]int{}}
		s.standIns[r] = in
	}
	return in
}

// Done answers that the effect is there; see Command.Done.
func (in *StandIn) Done(reply any) *StandIn {
	in.s.t.Helper()
	types, _ := in.s.def.StepTypes(base(in.role.step))
	typ := types.Reply
	if in.role.phase == events.Compensate {
		typ = types.UndoReply
	}
	payload := in.s.encode("the reply of "+in.role.String(), reply, typ)
	return in.add(func(c *Command) { c.deliver(events.ReplyDone, "", payload) })
}

// Reject answers that there is definitely no effect.
func (in *StandIn) Reject(code string) *StandIn {
	in.s.t.Helper()
	return in.add(func(c *Command) { c.deliver(events.ReplyRejected, code, nil) })
}

// Retry answers: not now.
func (in *StandIn) Retry(code string) *StandIn {
	in.s.t.Helper()
	return in.add(func(c *Command) { c.deliver(events.ReplyRetry, code, nil) })
}

// Silent does not answer: the attempt times out.
func (in *StandIn) Silent() *StandIn { in.s.t.Helper(); return in.add(func(*Command) {}) }

func (in *StandIn) add(answer func(*Command)) *StandIn {
	in.s.t.Helper()
	in.answers = append(in.answers, answer)
	in.s.settle()
	return in
}

// answerOne lets one stand-in answer the oldest command that waits for it.
func (s *Scenario) answerOne() bool {
	s.t.Helper()
	for _, c := range s.commands {
		in := s.standIns[c.role()]
		if in == nil {
			in = s.standIns[role{base(c.Step), c.Phase}]
		}
		if c.asked || c.answered || in == nil || len(in.answers) == 0 {
			continue
		}
		c.asked = true
		answer := in.answers[min(in.given[c.Step], len(in.answers)-1)]
		in.given[c.Step]++
		answer(c)
		return true
	}
	return false
}
