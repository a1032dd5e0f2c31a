package sagatest

import (
	"strconv"
	"strings"

	"github.com/skald-io/skald/events"
)

// Command is one attempt of a step or of its undo, as a participant gets it. A step of a loop's turn 2 is called
// NAME[2], here and wherever a test names it. Its methods answer it, at any
// time and as often as the test likes: a late or second answer is one that participants send as well.
type Command struct {
	Step    string
	Phase   events.Phase
	Attempt int // from 1
	Topic   string
	Type    string
	Key     string
	Payload []byte
	Headers []events.Header

	s        *Scenario
	seen     bool // the test expected it or answered it
	asked    bool // its stand-in had its turn
	answered bool // definitely: done, rejected or retry
}

func (s *Scenario) command(e *events.Emit, m events.Message) *Command {
	s.t.Helper()
	c := &Command{Step: e.Step, Topic: m.Topic, Key: string(m.Key), Payload: m.Value, Headers: m.Headers, s: s}
	c.Type = c.header(events.HeaderType)
	id, err := events.ParseCommandID(app, c.header(events.HeaderID))
	if err != nil {
		s.fail("a command was decided that no reply can name: %v", err)
	}
	c.Phase, c.Attempt = id.Phase, int(id.Attempt)
	return c
}

func (c *Command) header(name string) string {
	m := events.Message{Headers: c.Headers}
	v, _ := m.Header(name)
	return v
}

func (c *Command) String() string {
	s := c.Step
	if c.Phase == events.Compensate {
		s = "undo of " + s
	}
	if c.Attempt > 1 {
		s += " (attempt " + strconv.Itoa(c.Attempt) + ")"
	}
	return s
}

// With fails the test unless the command's payload, decoded, equals want, which is of the command's type.
func (c *Command) With(want any) *Command {
	c.s.t.Helper()
	types, _ := c.s.def.StepTypes(base(c.Step))
	typ := types.Command
	if c.Phase == events.Compensate {
		typ = types.UndoCommand
	}
	c.s.equal("the payload of "+c.String(), c.Payload, typ, want)
	return c
}

// Done answers that the effect is there. reply is of the command's reply type, or nil, or []byte: a payload
// as it stands on the topic.
func (c *Command) Done(reply any) {
	c.s.t.Helper()
	types, _ := c.s.def.StepTypes(base(c.Step))
	typ := types.Reply
	if c.Phase == events.Compensate {
		typ = types.UndoReply
	}
	c.answer(events.ReplyDone, "", c.s.encode("the reply of "+c.String(), reply, typ))
}

// Reject answers that there is definitely no effect of this attempt.
func (c *Command) Reject(code string) { c.s.t.Helper(); c.answer(events.ReplyRejected, code, nil) }

// Retry answers: not now, ask again.
func (c *Command) Retry(code string) { c.s.t.Helper(); c.answer(events.ReplyRetry, code, nil) }

// Progress answers: still at it. The attempt's time-out starts anew.
func (c *Command) Progress() { c.s.t.Helper(); c.answer(events.ReplyProgress, "", nil) }

func (c *Command) answer(outcome events.ReplyOutcome, code string, payload []byte) {
	c.s.t.Helper()
	c.seen = true
	c.deliver(outcome, code, payload)
	c.s.settle()
}

func (c *Command) deliver(outcome events.ReplyOutcome, code string, payload []byte) {
	s := c.s
	s.t.Helper()
	c.answered = c.answered || outcome != events.ReplyProgress
	m := events.Message{
		Topic: events.Topics{App: app}.Replies(),
		Key:   []byte(c.Key),
		Value: payload,
		Time:  s.now,
		Headers: []events.Header{
			{Key: events.HeaderCausationID, Value: []byte(c.header(events.HeaderID))},
			{Key: events.HeaderOutcome, Value: []byte(outcome.String())},
		},
	}
	if code != "" {
		m.Headers = append(m.Headers, events.Header{Key: events.HeaderErrorCode, Value: []byte(code)})
	}
	routes, err := s.machine.Routes(&m)
	if err != nil {
		s.fail("the reply to %s is refused: %v", c, err)
	}
	s.decide(events.Input{Kind: events.InputReply, Topic: m.Topic, MessageID: "reply-" + strconv.FormatUint(s.seq+1, 10)},
		func() *events.Decision { return s.machine.Reply(s.rows, s.now, *routes[0].Reply) })
}

// Expect finds the step's command that was decided and that the test neither expected nor answered before; of
// several attempts, the first. What a stand-in answered can still be expected. Without one it fails the test.
func (s *Scenario) Expect(step string) *Command {
	s.t.Helper()
	return s.expect(role{step, events.Forward})
}

// ExpectUndo is Expect for the undo of a step.
func (s *Scenario) ExpectUndo(step string) *Command {
	s.t.Helper()
	return s.expect(role{step, events.Compensate})
}

func (s *Scenario) expect(r role) *Command {
	s.t.Helper()
	s.check(r)
	for _, c := range s.commands {
		if c.role() == r && !c.seen {
			c.seen = true
			return c
		}
	}
	s.fail("there is no new command: %s", r)
	return nil
}

// ExpectNothing fails the test if there are commands that were neither expected nor answered, by the test or by a
// stand-in.
func (s *Scenario) ExpectNothing() {
	s.t.Helper()
	for _, c := range s.commands {
		if !c.seen && !c.asked {
			s.fail("there is a command that nobody expects: %s", c)
		}
	}
}

// Commands are all that were decided so far, in order.
func (s *Scenario) Commands() []*Command { return append([]*Command(nil), s.commands...) }

// Reply answers the step's open command with Done; Reject, Retry and Progress likewise. A step without an
// open command fails the test; to answer one that is not open any more, keep what Expect gave.
func (s *Scenario) Reply(step string, reply any) {
	s.t.Helper()
	s.open(step, events.Forward).Done(reply)
}

// Reject answers the step's open command: definitely no effect.
func (s *Scenario) Reject(step, code string) { s.t.Helper(); s.open(step, events.Forward).Reject(code) }

// Retry answers the step's open command: not now.
func (s *Scenario) Retry(step, code string) { s.t.Helper(); s.open(step, events.Forward).Retry(code) }

// Progress answers the step's open command: still at it.
func (s *Scenario) Progress(step string) { s.t.Helper(); s.open(step, events.Forward).Progress() }

// ReplyUndo answers the open undo of the step: it is undone.
func (s *Scenario) ReplyUndo(step string) { s.t.Helper(); s.open(step, events.Compensate).Done(nil) }

// RejectUndo answers the open undo of the step: it has no effect.
func (s *Scenario) RejectUndo(step, code string) {
	s.t.Helper()
	s.open(step, events.Compensate).Reject(code)
}

// RetryUndo answers the open undo of the step: not now.
func (s *Scenario) RetryUndo(step, code string) {
	s.t.Helper()
	s.open(step, events.Compensate).Retry(code)
}

// open is the last attempt, if it has no answer yet.
func (s *Scenario) open(step string, phase events.Phase) *Command {
	s.t.Helper()
	r := role{step, phase}
	s.check(r)
	for i := len(s.commands) - 1; i >= 0; i-- {
		if c := s.commands[i]; c.role() == r {
			if c.answered {
				s.fail("the command is answered already: %s", c)
			}
			return c
		}
	}
	s.fail("there is no open command: %s", r)
	return nil
}

// check finds misspelled steps.
func (s *Scenario) check(r role) {
	s.t.Helper()
	types, ok := s.def.StepTypes(base(r.step))
	switch {
	case !ok:
		s.fail("the definition has no step %q", r.step)
	case r.phase == events.Compensate && types.UndoCommand == nil:
		s.fail("step %q has no undo", r.step)
	}
}

// base is the step's name in the definition: without its turns.
func base(step string) string {
	name, _, _ := strings.Cut(step, "[")
	return name
}

func (c *Command) role() role { return role{c.Step, c.Phase} }

func (r role) String() string {
	if r.phase == events.Compensate {
		return "undo of " + r.step
	}
	return r.step
}
