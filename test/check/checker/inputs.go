package checker

import (
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
)

// inputs holds what came in against the decisions that name it.
func (c *check) inputs() {
	inboxes := c.forwards()
	topics := map[string]bool{c.topics.Replies(): true, c.topics.Inbox(): true}
	for t := range c.o.Starts {
		topics[t] = true
	}
	for p := range c.positions {
		topics[p.Topic] = true
	}
	for at := range c.answers {
		topics[at.topic] = true
	}
	for _, plan := range c.o.Plans {
		for _, n := range plan.Nodes {
			if n.Wait != nil && n.Wait.Event != nil {
				topics[n.Wait.Event.Topic] = true
			}
		}
	}
	for _, t := range slices.Sorted(keys(topics)) {
		for _, p := range c.e.parts(t) {
			c.input(p, inboxes)
		}
	}
	c.foundInputs()
	c.quarantine()
}

// forward is a message that one shard sent to another's inbox.
type forward struct {
	place
	pending bool // at or above what the inbox's owner says it finished
}

// forwards reads the inboxes: what was first read where, and stands there now.
func (c *check) forwards() map[place]forward {
	out := map[place]forward{}
	for _, p := range c.e.parts(c.topics.Inbox()) {
		l := c.e.Logs[p]
		for i := range l.Records {
			m := &l.Records[i]
			o := originOf(m)
			if o == nil {
				continue
			}
			at := place{o.Topic, o.Partition, o.Offset}
			f := forward{place{m.Topic, m.Partition, m.Offset}, m.Offset >= c.finished(p)}
			if old, twice := out[at]; !twice || f.pending && !old.pending {
				out[at] = f
			}
		}
	}
	return out
}

// originOf is where a record of an inbox was first read, or decided; nil when it does not say.
func originOf(m *events.Message) *events.Origin {
	if _, o, ok, err := events.UnwrapMessage(m); ok {
		if err != nil {
			return nil
		}
		return o
	}
	_, o, err := events.UnwrapForward(m)
	if err != nil {
		return nil
	}
	return o
}

// finished is the position up to which the journal says that a partition is finished.
func (c *check) finished(p Part) int64 {
	var low int64
	for _, m := range c.positions[p] {
		if m.rec.Seq <= c.settledAt[m.shard] {
			low = max(low, m.low)
		}
	}
	return low
}

// input judges one input partition.
func (c *check) input(p Part, inboxes map[place]forward) {
	l := c.e.Logs[p]
	marks := c.positions[p]
	begin := int64(0)
	if len(marks) > 0 {
		begin = marks[0].low
		if a := marks[0]; c.trimmed[a.shard] {
			c.report.limit("%s/%d: inputs below %d are not judged", p.Topic, p.Partition, begin)
		} else if in := a.rec.Decision; in != nil && in.Input.Topic == p.Topic && in.Input.Partition == p.Partition {
			begin = 0 // no start position: the first thing journaled is an answer
		}
	}
	if l.First > begin {
		c.report.limit("%s/%d: its records below %d are gone; inputs there are not judged", p.Topic, p.Partition, l.First)
	}
	end := c.finished(p)
	if c.o.Quiescent {
		end = l.End
	}
	inbox := p.Topic == c.topics.Inbox()
	next := 0 // of marks
	for i := range l.Records {
		m := &l.Records[i]
		if m.Offset < begin || m.Offset >= end {
			continue
		}
		var to []events.InstanceID // correlations
		if !inbox && p.Topic != c.topics.Replies() {
			to = c.interested(m)
		}
		if len(to) == 0 && !c.wanted(m) {
			continue
		}
		c.report.Inputs++
		at := place{m.Topic, m.Partition, m.Offset}
		if inbox {
			if o := originOf(m); o != nil {
				at = place{o.Topic, o.Partition, o.Offset}
			}
		}
		given := c.answers[at]
		bad := func(rule Rule, format string, args ...any) {
			c.report.add(Violation{Rule: rule, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Instance: instanceOf(c.e.App, m), Detail: fmt.Sprintf(format, args...)})
		}
		if len(given) == 0 {
			if f, ok := inboxes[at]; ok && f.pending && !c.o.Quiescent {
				continue
			}
			if !c.anyTrimmed() {
				bad(RuleUnanswered, "no accepted decision answers it")
			}
			continue
		}
		aside := slices.ContainsFunc(given, func(a answer) bool { return a.rec.Decision.Outcome == events.Quarantined })
		for _, id := range to {
			if !slices.ContainsFunc(given, func(a answer) bool { return a.rec.Decision.Instance == id }) && !aside && c.o.Quiescent && !c.anyTrimmed() {
				bad(RuleUnanswered, "no accepted decision gives it to correlation %s, which it is for", id)
			}
		}
		// Each entity that it is for answers once; dropped repetitions of a forward may be answered as such.
		var real []answer
		by := map[events.InstanceID]int{}
		of := func(a *answer) (id events.InstanceID) {
			if a.rec.Decision.Input.Kind == events.InputEvent { // the rest is for one entity alone
				id = a.rec.Decision.Instance
			}
			return id
		}
		for i := range given {
			if !given[i].duplicate() {
				by[of(&given[i])]++
			}
		}
		for _, a := range given {
			if !a.duplicate() && by[of(&a)] > 1 {
				real = append(real, a)
			}
		}
		if len(real) > 1 && !inbox {
			bad(RuleAnsweredTwice, "%d accepted decisions answer it: %s", len(real), where(real))
		}
		// L6: whichever record first says that the position is past this input comes after its answer, unless the
		// input was forwarded: then what counts is that it reached the inbox.
		for next < len(marks) && marks[next].low <= m.Offset {
			next++
		}
		if next < len(marks) && !inbox {
			mk := marks[next]
			if mk.low > m.Offset && given[0].shard == mk.shard && given[0].rec.Seq > mk.rec.Seq {
				mk.at(c, RulePosition, "", "it says that %s/%d is finished below %d, but %d was answered at sequence %d", p.Topic, p.Partition, mk.low, m.Offset, given[0].rec.Seq)
			}
		}
	}
}

func where(as []answer) string {
	s := ""
	for i, a := range as {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("shard %d offset %d (%s, sequence %d)", a.shard, a.offset, a.rec.Decision.Outcome, a.rec.Seq)
	}
	return s
}

func (c *check) anyTrimmed() bool { return len(c.trimmed) > 0 }

// wanted reports whether a message has to be answered: a reply, a message in an inbox, or an event that starts a
// saga.
func (c *check) wanted(m *events.Message) bool {
	switch m.Topic {
	case c.topics.Replies(), c.topics.Inbox():
		return true
	}
	t := eventType(m)
	if c.o.Starts != nil {
		for _, s := range c.o.Starts[m.Topic] {
			if s == "" || s == t {
				return true
			}
		}
		return false
	}
	return c.starts[m.Topic][t]
}

func instanceOf(app string, m *events.Message) string {
	if r, err := events.ParseReply(app, m); err == nil {
		return r.Command.Instance.String()
	}
	return ""
}

// foundInputs asks that what decisions answer is there, and is what they say.
func (c *check) foundInputs() {
	for at, given := range c.answers {
		for i := range given {
			a := &given[i]
			at := at
			if k := a.rec.Decision.Input.Kind; k == events.InputMessage || k == events.InputAction {
				at = a.via // it was decided, not read, where it comes from
			}
			m, known := c.e.at(Part{at.topic, at.partition}, at.offset)
			if a.rec.Seq > c.settledAt[a.shard] {
				continue
			}
			if m == nil {
				if known {
					a.at(c, RuleWrongInput, "", "it answers %s, where there is nothing", at)
				} else if l := c.e.Logs[Part{at.topic, at.partition}]; l != nil && at.offset >= l.End {
					a.at(c, RuleWrongInput, "", "it answers %s, beyond the end %d", at, l.End)
				} else {
					c.report.limit("%s/%d: inputs that are gone cannot be held against their decisions", at.topic, at.partition)
				}
				continue
			}
			d := a.rec.Decision
			if d.Outcome == events.Quarantined {
				continue
			}
			switch d.Input.Kind {
			case events.InputReply:
				r, err := events.ParseReply(c.e.App, m)
				if err != nil {
					a.at(c, RuleWrongInput, "", "it takes %s for a reply: %v", at, err)
				} else if r.Command.Instance != d.Instance && !d.Instance.IsZero() {
					a.at(c, RuleWrongInput, "", "it answers %s, a reply to instance %s", at, r.Command.Instance)
				}
			case events.InputEvent:
				if d.Instance.IsZero() || c.instances[d.Instance] == nil || d.Outcome != events.Applied {
					continue
				}
				if n := len(d.Entries); n > 0 && d.Entries[0].Kind == events.EntryStarted && d.Entries[0].Message != "" && d.Input.MessageID != "" && d.Entries[0].Message != d.Input.MessageID {
					a.at(c, RuleWrongInput, "", "it starts an instance for message %.80q in answer to message %.80q", d.Entries[0].Message, d.Input.MessageID)
				}
			}
		}
	}
}

// quarantine asks that what was put aside is there.
func (c *check) quarantine() {
	there := map[string]bool{}
	parts := c.e.parts(c.topics.Quarantine())
	whole := len(parts) > 0
	for _, p := range parts {
		l := c.e.Logs[p]
		whole = whole && l.First == 0
		for i := range l.Records {
			if at, ok := l.Records[i].Header(events.HeaderPlace); ok {
				there[at] = true
			}
		}
	}
	for at, given := range c.answers {
		for i := range given {
			a := &given[i]
			if a.rec.Decision.Outcome != events.Quarantined || a.rec.Seq > c.settledAt[a.shard] && !c.o.Quiescent {
				continue
			}
			switch {
			case there[at.String()] || there[a.via.String()]:
			case !whole:
				c.report.limit("the quarantine topic is not known from its beginning: what was put aside is not judged")
			default:
				a.at(c, RuleQuarantine, "", "%s was quarantined (%.80s) and is not in the quarantine topic", at, a.rec.Decision.Reason)
			}
		}
	}
}
