package checker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// said is a message that one entity was decided to send to another.
type said struct {
	accepted
	to  events.InstanceID
	msg *events.InboxMessage
}

// correlation is what the journal says of the events of one key.
type correlation struct {
	now  *events.Correlation
	seen map[string]bool // ids that ever arrived
}

// entities is what is known of everything that is no instance.
type entities struct {
	said         map[place]*said
	correlations map[events.InstanceID]*correlation
	taken        map[string]accepted // definition, topic, type and id of events that were taken
	told         map[string]*told    // events that sagas emit, by ce_id
	answered     map[string]accepted // entity and id of actions
	live         map[string]events.InstanceID
	keys         map[events.InstanceID]*events.KeyState
}

// told is an event that a saga emits.
type told struct {
	accepted
	emit *events.Emit
	sent int
}

func newEntities() entities {
	return entities{said: map[place]*said{}, correlations: map[events.InstanceID]*correlation{}, taken: map[string]accepted{}, told: map[string]*told{},
		answered: map[string]accepted{}, live: map[string]events.InstanceID{}, keys: map[events.InstanceID]*events.KeyState{}}
}

// entity takes in what a decision says besides its instance's own steps.
func (c *check) entity(a *accepted, whole bool) {
	d := a.rec.Decision
	var in *events.InboxMessage
	if o := d.Input.Origin; d.Input.Kind == events.InputMessage && o != nil {
		s := c.ent.said[place{o.Topic, o.Partition, o.Offset}]
		if s == nil {
			// Of a shard that is read later: it is looked up in its own journal.
			s = c.lookUp(place{o.Topic, o.Partition, o.Offset})
		}
		switch {
		case s == nil && len(c.trimmed) == 0:
			a.at(c, RuleMessage, "", "it answers message %s/%d of sequence %d, which was not decided", o.Topic, o.Partition, o.Offset>>16)
		case s != nil && d.Outcome != events.Quarantined && !d.Instance.IsZero() && s.to != d.Instance:
			a.at(c, RuleMessage, "", "it answers a message to %s", s.to)
		case s != nil:
			in = s.msg
		}
	}
	c.correlate(a, in, whole)
	c.action(a, whole)
	for i := range d.Emits {
		e := &d.Emits[i]
		switch e.Kind {
		case events.EmitMessage:
			m, err := events.DecodeInboxMessage(e.Payload)
			if err != nil || m.To != e.To {
				a.at(c, RuleMessage, "", "emission %d is to %s, and says it is to another, or nothing: %v", i, e.To, err)
				continue
			}
			c.ent.said[place{c.topics.Journal(), a.shard, events.MessageOffset(a.rec.Seq, i)}] = &said{*a, e.To, m}
			if m.Kind == events.InboxTaken {
				c.takes(a, m)
			}
		case events.EmitEvent:
			c.ent.told[fmt.Sprintf("%s-%d-%d", d.Instance, a.rec.Seq, i)] = &told{accepted: *a, emit: e}
		}
	}
	if in != nil && in.Kind == events.InboxOffer {
		if inst := c.instances[d.Instance]; inst != nil {
			inst.offers[in.EventID] = true
		}
	}
}

// lookUp finds a message in the journal of its shard, by its sequence.
func (c *check) lookUp(at place) *said {
	for _, a := range c.accepted[at.partition] {
		if a.rec.Seq != uint64(at.offset)>>16 {
			continue
		}
		if d, n := a.rec.Decision, int(at.offset&0xffff); d != nil && n < len(d.Emits) && d.Emits[n].Kind == events.EmitMessage && at.topic == c.topics.Journal() {
			if m, err := events.DecodeInboxMessage(d.Emits[n].Payload); err == nil {
				return &said{a, d.Emits[n].To, m}
			}
		}
	}
	return nil
}

// takes: an event that an instance says it took was offered to it, and given to nobody else of its definition.
func (c *check) takes(a *accepted, m *events.InboxMessage) {
	id := a.rec.Decision.Instance
	inst := c.instances[id]
	offered := inst != nil && inst.offers[m.EventID]
	if in := a.rec.Decision.Input; !offered && in.Origin != nil {
		s := c.lookUp(place{in.Origin.Topic, in.Origin.Partition, in.Origin.Offset})
		offered = s != nil && s.msg.Kind == events.InboxOffer && s.msg.EventID == m.EventID
	}
	if !offered && inst != nil && !inst.partial {
		a.at(c, RuleEvent, "", "it takes event %.80q, which was not offered", m.EventID)
	}
	key := m.To.String() + " " + m.EventID
	if was, twice := c.ent.taken[key]; twice {
		a.at(c, RuleEvent, "", "it takes event %.80q, which instance %s took at sequence %d of shard %d", m.EventID, text(was.rec.Decision.Instance), was.rec.Seq, was.shard)
	}
	c.ent.taken[key] = *a
}

// correlate holds a correlation's row against the one before: an event comes by itself, is offered in a message, goes
// back when that is refused, and leaves when it is taken or too old.
func (c *check) correlate(a *accepted, in *events.InboxMessage, whole bool) {
	d := a.rec.Decision
	k := c.ent.correlations[d.Instance]
	var next *events.Correlation
	for i := range d.Rows {
		r := &d.Rows[i]
		if r.Ref.Part != events.PartCorrelation || r.Gone || d.Whose(r) != d.Instance {
			continue
		}
		var err error
		if next, err = events.DecodeCorrelation(r.Value); err != nil {
			a.at(c, RuleCommandRecord, "", "row %s: %v", r.Ref.Part, err)
			return
		}
	}
	event := d.Input.Kind == events.InputEvent
	switch {
	case next == nil && k != nil && event && d.Outcome == events.Ignored && !k.seen[d.Input.MessageID] && whole:
		a.at(c, RuleEvent, "", "event %.80q is dropped (%s), and never came before", d.Input.MessageID, d.Reason)
		return
	case next == nil && (k == nil || !d.Purge):
		return
	case next == nil:
		next = &events.Correlation{}
	}
	if k == nil {
		k = &correlation{&events.Correlation{}, map[string]bool{}}
		c.ent.correlations[d.Instance] = k
		if !whole {
			k.now = next
			return
		}
	}
	was := k.now
	k.now = next
	bad := func(id, format string, args ...any) {
		a.at(c, RuleEvent, "", "event %.80q %s", id, fmt.Sprintf(format, args...))
	}
	find := func(list []events.BufferedEvent, id string) *events.BufferedEvent {
		if i := slices.IndexFunc(list, func(e events.BufferedEvent) bool { return e.ID == id }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	from := func(kind events.InboxKind, e *events.BufferedEvent) bool {
		return in != nil && in.Kind == kind && in.EventID == e.ID && e.Offered != nil && one(in.From, *e.Offered)
	}
	for i := range was.Events {
		e := &was.Events[i]
		if find(next.Events, e.ID) == nil && !from(events.InboxTaken, e) && (e.Until > a.rec.Time || e.Offered != nil && !from(events.InboxRefused, e)) {
			bad(e.ID, "is gone, and was neither taken nor too old")
		}
	}
	for i := range next.Events {
		e := &next.Events[i]
		old := find(was.Events, e.ID)
		if old == nil && (!event || e.ID != d.Input.MessageID) {
			bad(e.ID, "is there, and did not come")
		}
		if old != nil && old.Offered != nil && (e.Offered == nil || !one(*e.Offered, *old.Offered)) && !from(events.InboxRefused, old) {
			bad(e.ID, "was offered to instance %s, which did not refuse it", old.Offered.Instance)
		}
		if e.Offered == nil || old != nil && old.Offered != nil && one(*e.Offered, *old.Offered) {
			continue
		}
		if !slices.ContainsFunc(d.Emits, func(x events.Emit) bool {
			m, err := events.DecodeInboxMessage(x.Payload)
			return x.Kind == events.EmitMessage && err == nil && m.Kind == events.InboxOffer && m.EventID == e.ID && x.To == e.Offered.Instance && one(m.From, *e.Offered)
		}) {
			bad(e.ID, "is said to be offered to instance %s, and nothing says so to it", e.Offered.Instance)
		}
	}
	if event && d.Outcome == events.Applied {
		if find(next.Events, d.Input.MessageID) == nil {
			bad(d.Input.MessageID, "came, and is not kept")
		}
		k.seen[d.Input.MessageID] = true
	}
	free := slices.IndexFunc(next.Events, func(e events.BufferedEvent) bool { return e.Offered == nil })
	for _, w := range next.Waiting {
		offers := 0
		for _, e := range next.Events {
			offers += b2n(e.Offered != nil && one(*e.Offered, w))
		}
		switch {
		case offers > 1:
			a.at(c, RuleEvent, "", "%d events are offered to one Wait of instance %s", offers, w.Instance)
		case offers == 0 && free >= 0:
			bad(next.Events[free].ID, "is offered to nobody, though instance %s waits", w.Instance)
		}
	}
}

func one(a, b events.Waiter) bool {
	return a.Instance == b.Instance && a.Node == b.Node && a.Execution == b.Execution
}

// action: whoever acts is answered, once, and what is done again under the same id is not.
func (c *check) action(a *accepted, whole bool) {
	d := a.rec.Decision
	if d.Input.Kind != events.InputAction {
		return
	}
	id := d.Input.MessageID
	to := d.Instance
	answer := false
	for i := range d.Rows {
		if r := &d.Rows[i]; r.Ref.Part == events.PartAnswer && !r.Gone && r.Ref.N == events.AnswerNumber(id) {
			x, err := events.DecodeAnswer(r.Value)
			answer = err == nil && x.MessageID == id
			to = d.Whose(r)
		}
	}
	key := to.String() + " " + id
	was, before := c.ent.answered[key]
	switch {
	case d.Outcome == events.Applied && !answer:
		a.at(c, RuleAction, "", "action %.80q is decided, and not answered", id)
	case d.Outcome == events.Applied && before && !c.forgotten(&was, a):
		a.at(c, RuleAction, "", "action %.80q is decided again, after sequence %d", id, was.rec.Seq)
	case d.Outcome == events.Ignored && strings.HasPrefix(d.Reason, "repeated-action") && !before && whole:
		if !slices.ContainsFunc(slices.Collect(keys(c.ent.answered)), func(k string) bool { return strings.HasSuffix(k, " "+id) }) {
			a.at(c, RuleAction, "", "action %.80q is dropped as a repetition, and was never answered", id)
		}
	}
	if answer {
		c.ent.answered[key] = *a
	}
}

// forgotten reports whether the rows that kept an answer are gone by rule: its instance was purged, or a week went by.
func (c *check) forgotten(was, now *accepted) bool {
	inst := c.instances[now.rec.Decision.Instance]
	return inst != nil && inst.purged || now.rec.Time-was.rec.Time > 24*60*60*1000
}

// businessKey: one instance of a definition lives for a business key, and its key's row says which.
func (c *check) businessKey(a *accepted, inst *instance, head *events.Head, whole bool) {
	d := a.rec.Decision
	touched := []events.InstanceID{}
	for i := range d.Rows {
		r := &d.Rows[i]
		if r.Ref.Part != events.PartKey {
			continue
		}
		id := d.Whose(r)
		touched = append(touched, id)
		c.ent.keys[id] = &events.KeyState{}
		if r.Gone {
			continue
		}
		if k, err := events.DecodeKeyState(r.Value); err != nil {
			a.at(c, RuleCommandRecord, "", "row %s: %v", r.Ref.Part, err)
		} else {
			c.ent.keys[id] = k
		}
	}
	if head != nil {
		name := head.Definition + " " + head.Key
		other := c.instances[c.ent.live[name]]
		switch {
		case head.State.Final():
			if c.ent.live[name] == inst.id {
				delete(c.ent.live, name)
			}
		case other != nil && other != inst && other.final == 0 && len(touched) > 0:
			a.at(c, RuleKey, "", "it starts while instance %s of its business key lives", other.id)
		default:
			c.ent.live[name] = inst.id
		}
		if id := events.KeyID(c.e.App, head.Definition, head.Key, c.shards*events.SlotsPerShard); c.ent.keys[id] != nil {
			switch live := c.ent.keys[id].Live; {
			case head.State.Final() && live == inst.id:
				a.at(c, RuleKey, "", "it ends, and its business key says that it lives")
			case !head.State.Final() && live != inst.id && whole:
				a.at(c, RuleKey, "", "it lives, and its business key says that %s does", text(live))
			}
		}
	}
}

// messages: what was decided to be said was heard, once.
func (c *check) messages() {
	c.report.Messages, c.report.Taken, c.report.Told, c.report.Actions = len(c.ent.said), len(c.ent.taken), len(c.ent.told), len(c.ent.answered)
	for at, s := range c.ent.said {
		var heard []answer
		for _, a := range c.answers[at] {
			if !a.duplicate() {
				heard = append(heard, a)
			}
		}
		switch {
		case len(heard) > 1:
			s.at(c, RuleMessage, "", "the %s to %s is decided %d times: %s", s.msg.Kind, s.to, len(heard), where(heard))
		case len(heard) == 0 && c.o.Quiescent && len(c.trimmed) == 0:
			s.at(c, RuleMessage, "", "the %s to %s is answered by nobody", s.msg.Kind, s.to)
		case len(heard) == 1 && c.shards > 0 && heard[0].shard != s.to.Shard(c.shards) && heard[0].rec.Decision.Outcome != events.Quarantined:
			s.at(c, RuleMessage, "", "the %s to %s is decided by shard %d", s.msg.Kind, s.to, heard[0].shard)
		}
	}
	if !c.o.Quiescent {
		return
	}
	for id, k := range c.ent.correlations {
		for _, w := range k.now.Waiting {
			if inst := c.instances[w.Instance]; inst != nil && inst.final != 0 {
				inst.last.at(c, RuleEvent, "", "it has ended, and row %d still waits at correlation %s", w.Node, id)
			}
		}
	}
}

// events holds the topics of emitted events against what was decided.
func (c *check) emittedEvents() {
	for _, id := range slices.Sorted(keys(c.ent.told)) {
		t := c.ent.told[id]
		parts := c.e.parts(t.emit.Topic)
		short := len(parts) == 0
		for _, p := range parts {
			short = short || c.e.Logs[p].First > 0
		}
		refused := false
		if inst := c.instances[t.rec.Decision.Instance]; inst != nil {
			refused = inst.refusals[events.RowRef{Part: events.PartNode, N: uint64(t.emit.Node)}]
		}
		if !short && t.sent == 0 && !refused && (c.o.Quiescent || t.rec.Seq <= c.settledAt[t.shard] && t.rec.Seq <= c.emitted[t.shard]) {
			t.at(c, RuleLostCommand, t.emit.Step, "event %s was decided and is not on topic %s", id, t.emit.Topic)
		}
	}
}

// sentEvent judges a message that is said to be an event of this application's; ours is false when it is another.
func (c *check) sentEvent(m *events.Message) (ours bool) {
	id, _ := m.Header(events.HeaderID)
	t := c.ent.told[id]
	if t == nil {
		return false
	}
	t.sent++
	if m.Topic != t.emit.Topic || string(m.Key) != t.emit.Key || string(m.Value) != string(t.emit.Payload) || eventType(m) != t.emit.Type {
		c.report.add(Violation{Rule: RuleCommandBytes, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Instance: text(t.rec.Decision.Instance), Step: t.emit.Step,
			Detail: fmt.Sprintf("event %s has topic, key, type or payload that were not decided", id)})
	}
	return true
}

// interested are the correlations that an event is for, by what the plans say. An event that a plan cannot read is
// for none; it is put aside.
func (c *check) interested(m *events.Message) (to []events.InstanceID) {
	view := events2view(m)
	match := func(e *sagas.EventPlan) bool {
		if e.Topic != m.Topic {
			return false
		}
		typ := view.Headers[events.HeaderType]
		if e.TypeOf != nil {
			typ, _ = e.TypeOf(view)
		}
		return e.Type == "" || e.Type == typ
	}
	for _, name := range slices.Sorted(keys(c.o.Plans)) {
		p := c.o.Plans[name]
		for _, n := range p.Nodes {
			if n.Wait == nil || n.Wait.Event == nil || !match(n.Wait.Event) {
				continue
			}
			key, err := string(m.Key), error(nil)
			if n.Wait.Event.Key != nil {
				key, err = n.Wait.Event.Key(view)
			}
			id := events.CorrelationID(c.e.App, p.Name, m.Topic, n.Wait.Event.Type, key, max(c.shards, 1)*events.SlotsPerShard)
			if err == nil && !slices.Contains(to, id) {
				to = append(to, id)
			}
		}
	}
	return to
}

func events2view(m *events.Message) sagas.EventView {
	v := sagas.EventView{Topic: m.Topic, Key: m.Key, Value: m.Value, Time: m.Time, Headers: map[string]string{}}
	for _, h := range m.Headers {
		v.Headers[h.Key] = string(h.Value)
	}
	return v
}
