package checker

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Options say what is known about the run beside the evidence.
type Options struct {
	// Quiescent says that the load has stopped and everything had its time: every input has to be answered, every
	// command sent and every instance final. Otherwise only what the journal itself says is finished is held
	// against it.
	Quiescent bool
	// Starts are the domain topics and, for each, which ce_types start a saga ("" is any event). Without it, every
	// event of a type that started a saga once has to be answered.
	Starts map[string][]string
	// Plans are what is known of definitions, by PlanName. With them forward and undo order, and what goes back on
	// its own, are checked in full, and every event has to be answered by all who start on it or wait for it;
	// without, only steps that one decision ties together are.
	Plans map[string]*sagas.Plan
	// Committed is, for each topic on which the application emits in transactions, how often somebody who reads
	// committed records only has seen each ce_id. It was read to its end after the journal was.
	Committed map[string]map[string]int
	// PartialLedgers says that not all participants keep a ledger, so that a missing effect proves nothing.
	PartialLedgers bool
}

// Check judges the evidence. It does not change it.
func Check(e *Evidence, o Options) *Report {
	c := &check{
		e: e, o: o, topics: events.Topics{App: e.App},
		report:    &Report{Instances: map[string]int{}},
		instances: map[events.InstanceID]*instance{},
		answers:   map[place][]answer{},
		commands:  map[string]*command{},
		positions: map[Part][]mark{},
		emitted:   map[int32]uint64{},
		trimmed:   map[int32]bool{},
		starts:    map[string]map[string]bool{},
		settledAt: map[int32]uint64{},
		shapes:    map[string]*shape{},
		accepted:  map[int32][]accepted{},
		ent:       newEntities(),
	}
	for name, p := range o.Plans {
		c.shapes[name] = shapeOf(p)
	}
	parts := e.parts(c.topics.Journal())
	c.shards = len(parts)
	c.readReplies()
	whole := map[int32]bool{}
	for _, p := range parts { // all of them first: one shard answers what another says
		whole[p.Partition], c.accepted[p.Partition] = c.fold(p.Partition, c.e.Logs[p])
	}
	for _, p := range parts {
		c.shard(p, whole[p.Partition], c.accepted[p.Partition])
	}
	c.report.Shards = len(parts)
	c.inputs()
	c.sent()
	c.messages()
	c.emittedEvents()
	c.committed()
	c.effects()
	c.endings()
	slices.SortFunc(c.report.Violations, func(a, b Violation) int {
		return cmp.Or(strings.Compare(string(a.Rule), string(b.Rule)), strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	slices.Sort(c.report.Limits)
	return c.report
}

type check struct {
	e      *Evidence
	o      Options
	topics events.Topics
	report *Report
	shards int

	instances map[events.InstanceID]*instance
	answers   map[place][]answer
	commands  map[string]*command // by ce_id
	positions map[Part][]mark     // in the order of each shard's journal
	emitted   map[int32]uint64    // by shard: progress of emission claimed
	trimmed   map[int32]bool      // shards whose journal is not known from its beginning
	starts    map[string]map[string]bool
	settledAt map[int32]uint64 // by shard: sequence up to which consequences can be expected
	replies   map[events.CommandID][]events.ReplyOutcome
	complete  bool // every reply is known

	shapes   map[string]*shape
	accepted map[int32][]accepted // by shard, in order
	ent      entities
}

// answer is a decision that names an input.
type answer struct {
	accepted
	via place // where this shard read it
}

func (a answer) duplicate() bool {
	return a.rec.Decision.Outcome == events.Ignored && strings.HasPrefix(a.rec.Decision.Reason, "duplicate")
}

// mark is a position as a record states it.
type mark struct {
	accepted
	low int64
}

// command is a command as it was decided.
type command struct {
	accepted
	id      events.CommandID
	emit    *events.Emit
	key     string
	payload []byte
	obliged bool // of a forward command: its record holds the undo
	sent    int
	first   *events.Message
}

// shard reads one journal and takes in all it says.
func (c *check) shard(p Part, whole bool, records []accepted) {
	log := c.e.Logs[p]
	if !whole {
		c.trimmed[p.Partition] = true
		c.report.limit("shard %d: its journal is known from offset %d on; what was decided before is not judged, nor are inputs, commands and effects that may belong to it", p.Partition, log.First)
	}
	settled, bounded := c.e.Settled[p.Partition]
	rs := rows{}
	for i := range records {
		a := &records[i]
		if !bounded || a.offset < settled {
			c.settledAt[p.Partition] = a.rec.Seq
		}
		if a.rec.Kind == events.KindDecision {
			c.decision(a, rs, whole)
		}
		c.apply(a, rs, whole)
	}
}

func (c *check) decision(a *accepted, rs rows, whole bool) {
	c.report.Decisions++
	d := a.rec.Decision
	in := &d.Input
	if in.Topic != "" {
		via := place{in.Topic, in.Partition, in.Offset}
		at := via
		if in.Origin != nil {
			at = place{in.Origin.Topic, in.Origin.Partition, in.Origin.Offset}
		}
		c.answers[at] = append(c.answers[at], answer{*a, via})
		c.mark(a, Part{in.Topic, in.Partition}, in.Low)
		if in.Kind == events.InputEvent && d.Outcome == events.Applied {
			if m, _ := c.e.at(Part{at.topic, at.partition}, at.offset); m != nil {
				if c.starts[at.topic] == nil {
					c.starts[at.topic] = map[string]bool{}
				}
				c.starts[at.topic][eventType(m)] = true
			}
		}
	}
	if d.Progress != nil {
		for _, p := range d.Progress.Positions {
			c.mark(a, Part{p.Topic, p.Partition}, p.Low)
		}
		c.emitted[a.shard] = max(c.emitted[a.shard], d.Progress.EmittedSeq)
		if d.Progress.EmittedSeq >= a.rec.Seq {
			a.at(c, RuleEmissionClaimed, "", "it says that everything up to sequence %d is sent: itself or what is not yet decided", d.Progress.EmittedSeq)
		}
	}
	if !d.Instance.IsZero() {
		c.onInstance(a, rs, whole)
		c.entity(a, whole)
	}
}

func (c *check) mark(a *accepted, p Part, low int64) {
	ms := c.positions[p]
	if n := len(ms); n > 0 && ms[n-1].low > low {
		if ms[n-1].shard == a.shard && low != 0 {
			a.at(c, RulePosition, "", "the position of %s/%d falls from %d to %d", p.Topic, p.Partition, ms[n-1].low, low)
		}
		return
	}
	if n := len(ms); n > 0 && ms[n-1].low == low {
		return
	}
	c.positions[p] = append(ms, mark{*a, low})
}

// checkpoint compares a checkpoint's positions with those the records before it made.
func (c *check) checkpoint(a *accepted, whole bool) {
	for _, p := range a.rec.Checkpoint.Positions {
		part := Part{p.Topic, p.Partition}
		ms := c.positions[part]
		if len(ms) > 0 && ms[len(ms)-1].low != p.Low || len(ms) == 0 && whole && p.Low != 0 {
			was := int64(0)
			if len(ms) > 0 {
				was = ms[len(ms)-1].low
			}
			a.at(c, RuleCheckpoint, "", "it says %d for %s/%d, the records before it %d", p.Low, p.Topic, p.Partition, was)
		}
		c.mark(a, part, p.Low)
	}
	c.emitted[a.shard] = max(c.emitted[a.shard], a.rec.Checkpoint.Progress.EmittedSeq)
}

func eventType(m *events.Message) string {
	t, _ := m.Header(events.HeaderType)
	return t
}

// readReplies notes what participants really answered.
func (c *check) readReplies() {
	c.replies, c.complete = map[events.CommandID][]events.ReplyOutcome{}, true
	for _, p := range c.e.parts(c.topics.Replies()) {
		l := c.e.Logs[p]
		if l.First > 0 {
			c.complete = false
		}
		for i := range l.Records {
			if r, err := events.ParseReply(c.e.App, &l.Records[i]); err == nil {
				c.replies[r.Command] = append(c.replies[r.Command], r.Outcome)
			}
		}
	}
	if len(c.e.parts(c.topics.Replies())) == 0 {
		c.complete = false
	}
	if !c.complete {
		c.report.limit("replies: not all are there any more; that done was decided on a reply is not judged")
	}
}

// sent holds the command topics against what was decided.
func (c *check) sent() {
	topics := map[string]bool{}
	for _, d := range c.commands {
		topics[d.emit.Topic] = true
	}
	for _, t := range c.ent.told {
		topics[t.emit.Topic] = true
	}
	short := map[string]bool{} // topics of which not everything is known
	for _, t := range slices.Sorted(keys(topics)) {
		parts := c.e.parts(t)
		if len(parts) == 0 {
			short[t] = true
			c.report.limit("topic %s was not read: its commands are not judged", t)
		}
		for _, p := range parts {
			l := c.e.Logs[p]
			if l.First > 0 {
				short[t] = true
				c.report.limit("%s/%d begins at offset %d: commands below it are not judged", t, p.Partition, l.First)
			}
			for i := range l.Records {
				c.sentCommand(&l.Records[i])
			}
		}
	}
	for _, id := range slices.Sorted(keys(c.commands)) {
		d := c.commands[id]
		c.report.Commands++
		if d.sent > 0 || short[d.emit.Topic] || d.rec.Seq > c.settledAt[d.shard] && !c.o.Quiescent {
			continue
		}
		switch {
		case d.rec.Seq <= c.emitted[d.shard]:
			d.at(c, RuleEmissionClaimed, d.emit.Step, "command %s is not on topic %s, though progress says that everything up to sequence %d is sent", id, d.emit.Topic, c.emitted[d.shard])
		case c.o.Quiescent && !c.refused(d):
			d.at(c, RuleLostCommand, d.emit.Step, "command %s was decided and is not on topic %s", id, d.emit.Topic)
		}
	}
}

// refused reports whether the journal says that Kafka would not take the command.
func (c *check) refused(d *command) bool {
	inst := c.instances[d.id.Instance]
	return inst != nil && inst.refusals[events.RowRef{Part: events.PartNode, N: uint64(d.id.Node)}]
}

func (c *check) sentCommand(m *events.Message) {
	source, _ := m.Header(events.HeaderSource)
	text, _ := m.Header(events.HeaderID)
	bad := func(rule Rule, inst, step, format string, args ...any) {
		c.report.add(Violation{Rule: rule, Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Instance: inst, Step: step, Detail: fmt.Sprintf(format, args...)})
	}
	if c.sentEvent(m) {
		return
	}
	id, err := events.ParseCommandID(c.e.App, text)
	if err != nil {
		if source == "/skald/"+c.e.App {
			bad(RuleUndecided, "", "", "a message of this application with the id %.80q: %v", text, err)
		}
		return // somebody else's
	}
	c.report.Sent++
	d := c.commands[text]
	if d == nil {
		if c.trimmed[id.Instance.Shard(max(c.shards, 1))] {
			c.report.limit("shard %d: commands on topics without a decision in what is left of the journal are not judged", id.Instance.Shard(c.shards))
			return
		}
		bad(RuleUndecided, id.Instance.String(), "", "command %s (node %d, %s, attempt %d) was never decided", text, id.Node, id.Phase, id.Attempt)
		return
	}
	inst, step := id.Instance.String(), d.emit.Step
	d.sent++
	if m.Topic != d.emit.Topic {
		bad(RuleCommandBytes, inst, step, "command %s was decided for topic %s", text, d.emit.Topic)
	}
	if string(m.Key) != d.key {
		bad(RuleCommandBytes, inst, step, "command %s has key %.80q, decided was %.80q", text, m.Key, d.key)
	}
	if !bytes.Equal(m.Value, d.payload) {
		bad(RuleCommandBytes, inst, step, "command %s has a payload of %d bytes that is not the one decided (%d bytes)", text, len(m.Value), len(d.payload))
	}
	want := map[string]string{
		events.HeaderType:           d.emit.Type,
		events.HeaderCorrelationID:  inst,
		events.HeaderIdempotencyKey: effectKey(id.Instance, step, id.Execution, id.Phase),
		events.HeaderSagaPhase:      id.Phase.String(),
		events.HeaderSagaAttempt:    fmt.Sprint(id.Attempt),
		events.HeaderReplyTo:        c.topics.Replies(),
	}
	if id.Phase == events.Compensate {
		want[events.HeaderUndoes] = effectKey(id.Instance, step, id.Execution, events.Forward)
		if v, ok := m.Header(events.HeaderExpiryTime); ok {
			bad(RuleExpiry, inst, step, "undo %s expires at %s", text, v)
		}
	} else {
		want[events.HeaderExpiryTime] = events.Timestamp(d.emit.Expiry)
	}
	for _, name := range slices.Sorted(keys(want)) {
		if got, _ := m.Header(name); got != want[name] {
			bad(RuleCommandBytes, inst, step, "command %s has %s %.80q, decided was %.80q", text, name, got, want[name])
		}
	}
	if d.first == nil {
		d.first = m
		return
	}
	if f := d.first; !bytes.Equal(f.Key, m.Key) || !bytes.Equal(f.Value, m.Value) || f.Partition != m.Partition || !slices.EqualFunc(f.Headers, m.Headers, func(a, b events.Header) bool {
		return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
	}) {
		bad(RuleCommandBytes, inst, step, "command %s differs from its first copy at %s", text, f.Place())
	}
}

// committed holds what a reader of committed records saw against what was decided (L16).
func (c *check) committed() {
	judge := func(a *accepted, emit *events.Emit, id string) {
		seen, known := c.o.Committed[emit.Topic]
		if n := seen[id]; known && (n > 1 || n == 0 && c.o.Quiescent) {
			a.at(c, RuleCommittedOnce, emit.Step, "%s was decided once, and who reads committed records of topic %s sees it %d times", id, emit.Topic, n)
		}
	}
	for _, id := range slices.Sorted(keys(c.commands)) {
		if d := c.commands[id]; d.sent > 0 || !c.refused(d) {
			judge(&d.accepted, d.emit, id)
		}
	}
	for _, id := range slices.Sorted(keys(c.ent.told)) {
		judge(&c.ent.told[id].accepted, c.ent.told[id].emit, id)
	}
}

// effectKey is the idempotency key as docs/protocol.md gives it.
func effectKey(id events.InstanceID, step string, execution uint32, phase events.Phase) string {
	k := fmt.Sprintf("%s/%s/%d", id, step, execution)
	if phase == events.Compensate {
		k += "/undo"
	}
	return k
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
