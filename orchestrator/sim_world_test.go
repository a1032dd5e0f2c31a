package orchestrator

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// What surrounds the shards of a simulation: Kafka as each owner has it, a reader of the journals that shares no
// code with them, and participants.

// owner is one owner of a shard, and its connection to Kafka: what it writes waits in the simulation's queue, and
// it reads when it polls.
type owner struct {
	*model
	s     *simulation
	name  string
	shard int32
	sh    *Shard // nil while it opens

	direct     bool // what it writes lands at once
	deaf       bool // it does not hear of its claim
	claimLands bool // which lands nevertheless, later
	dead       bool

	offset int64 // of its clock to the brokers', ms
	stands bool
	stood  int64

	sinks []*simSink
	ends  map[TopicPartition]int64 // of its inputs at its claim
}

type simSink struct {
	tp     TopicPartition
	next   int64
	sink   Sink
	paused bool
}

func (s *simulation) newOwner(shard int32) *owner {
	s.nodes++
	o := &owner{model: s.kafka, s: s, name: fmt.Sprint("node-", s.nodes), shard: shard, direct: true, ends: map[TopicPartition]int64{}}
	if s.chance(40) {
		o.offset = s.rng.Int64N(2*time.Hour.Milliseconds()) - time.Hour.Milliseconds()
		s.lands(clockOff)
	}
	return o
}

func (o *owner) String() string { return o.name }

// die ends what it has under way on its own side.
func (o *owner) die() {
	o.dead, o.sinks = true, nil
	if o.sh != nil {
		o.sh.stopBackground()
		o.sh.background.Wait()
	}
}

// clock is the owner's own, monotonic: it may be off, or stand still as on a machine that is suspended, but it
// does not jump ahead.
func (o *owner) clock() int64 {
	if o.stands {
		return o.stood
	}
	return o.s.kafka.now + o.offset
}

// goOn lets a clock that stands go on from where it stands.
func (o *owner) goOn() {
	if o.stands {
		o.stands, o.offset = false, o.stood-o.s.kafka.now
	}
}

// behind reports whether there is something to read.
func (o *owner) behind() bool {
	for _, in := range o.sinks {
		if !in.paused && in.next < o.s.end(in.tp) {
			return true
		}
	}
	return false
}

// poll reads a few records of each input.
func (o *owner) poll() {
	for i := 0; i < len(o.sinks); i++ {
		in := o.sinks[i]
		n := int64(o.s.rng.IntN(8))
		if o.s.healed {
			n = 1 << 10
		}
		start, end := o.s.bounds(in.tp)
		if in.next < start { // trimmed by the one who has the shard now
			if o == o.s.owners[o.shard] {
				o.s.wrong("%s: %s/%d is trimmed to %d, and is read at %d", o, in.tp.Topic, in.tp.Partition, start, in.next)
			}
			in.sink.Failed(in.tp, ErrPositionLost)
			o.Stop(in.tp)
			i--
			continue
		}
		if n = min(n, end-in.next); in.paused || n == 0 {
			continue
		}
		batch := o.s.kafka.messages(in.tp.Topic, in.tp.Partition)[in.next-start:][:n]
		in.next += n
		in.sink.Records(in.tp, batch)
	}
}

func (o *owner) at(tp TopicPartition) int {
	return slices.IndexFunc(o.sinks, func(in *simSink) bool { return in.tp == tp })
}

func (o *owner) Consume(tp TopicPartition, from int64, sink Sink) {
	o.sinks = append(o.sinks, &simSink{tp: tp, next: from, sink: sink})
}

func (o *owner) Stop(tp TopicPartition) {
	if i := o.at(tp); i >= 0 {
		o.sinks = slices.Delete(o.sinks, i, i+1)
	}
}

func (o *owner) Pause(tp TopicPartition) { o.hold(tp, true) }

func (o *owner) Resume(tp TopicPartition) { o.hold(tp, false) }

func (o *owner) hold(tp TopicPartition, paused bool) {
	if i := o.at(tp); i >= 0 {
		o.sinks[i].paused = paused
	}
}

func (o *owner) Bounds(ctx context.Context, tps []TopicPartition) (map[TopicPartition]Bounds, error) {
	found, err := o.model.Bounds(ctx, tps)
	for tp, b := range found {
		o.ends[tp] = b.End
	}
	return found, err
}

// Produce checks at once that a command is what an accepted decision says, byte by byte: nobody may see one that was
// not decided (G5).
func (o *owner) Produce(m *events.Message, done func(error)) {
	if slices.Contains(commandTopics(), m.Topic) {
		id, _ := m.Header(events.HeaderID)
		switch d := o.s.decided[id]; {
		case d == nil:
			o.s.wrong("%s emits a command that no accepted record decides:\n%s", o, onTheWire(m))
		case d.bytes != onTheWire(m):
			o.s.wrong("%s emits\n%s\nand what was decided is\n%s", o, onTheWire(m), d.bytes)
		}
	}
	o.s.checkSaid(o, m)
	if o.s.refuses[m.Topic] {
		o.s.lands(topicRefuses)
		done(fmt.Errorf("%w: no such topic", ErrRefused))
		return
	}
	copied := *m
	w := &write{owner: o, tp: TopicPartition{m.Topic, max(m.Partition, 0)}, message: &copied, acked: func(_ int64, err error) { done(err) }}
	if o.direct && o.sh != nil {
		o.s.landAcked(w)
		return
	}
	o.s.queue = append(o.s.queue, w)
}

func (o *owner) Log(topic string, p int32) Log {
	return &ownerLog{modelLog: o.model.Log(topic, p).(*modelLog), o: o}
}

type ownerLog struct {
	*modelLog
	o *owner
}

func (l *ownerLog) Append(v []byte, done func(int64, error)) {
	o := l.o
	rec, err := events.DecodeRecord(v)
	must(o.s.t, err)
	o.checkTime(rec)
	w := &write{owner: o, tp: l.tp, journal: true, value: v, acked: done}
	switch {
	case o.deaf:
		if o.claimLands {
			w.acked = func(int64, error) {}
			o.s.queue = append(o.s.queue, w)
		}
		done(0, errTimedOut)
	case o.direct:
		o.s.landAcked(w)
		if rec.Kind == events.KindClaim && o.s.chance(20) {
			again := *w
			again.again, again.acked = true, func(int64, error) {}
			o.s.queue = append(o.s.queue, &again)
		}
	default:
		o.s.queue = append(o.s.queue, w)
	}
}

// checkTime holds what is being decided against the clock of the brokers: nobody decides in the future (L11), no timer
// fires early, and none before the inputs that were there at the claim are finished (L10).
func (o *owner) checkTime(rec *events.Record) {
	if rec.Time > o.s.kafka.now {
		o.s.wrong("%s decides %d ms ahead of time", o, rec.Time-o.s.kafka.now)
	}
	if rec.Decision == nil || rec.Decision.Input.Kind != events.InputTimer {
		return
	}
	if due := rec.Decision.Input.Due; rec.Time < due || o.s.kafka.now < due {
		o.s.wrong("%s fires a timer of %d at %d, when it is %d", o, due, rec.Time, o.s.kafka.now)
	}
	for _, in := range o.sh.inputs {
		if in.own && !in.failed && in.low() < o.ends[in.tp] {
			o.s.wrong("%s fires a timer with %s/%d finished up to %d, and at its claim there were %d", o, in.tp.Topic, in.tp.Partition, in.low(), o.ends[in.tp])
		}
	}
}

// land puts a write into its log, and tells all but its writer.
func (s *simulation) land(w *write) (offset int64) {
	m := &modelWrite{tp: w.tp, v: w.value, ack: func(at int64, _ error) { offset = at }}
	if w.journal {
		s.kafka.write(m, true)
		s.journaled(w, offset)
		return offset
	}
	m.m, m.done = *w.message, func(error) {}
	offset = s.end(w.tp)
	s.kafka.write(m, true)
	id, _ := w.message.Header(events.HeaderID)
	s.note("%s: %s/%d/%d %s %s", w.owner, w.tp.Topic, w.tp.Partition, offset, id, mark(w.message.Value))
	if d := s.decided[id]; d != nil {
		d.landed = true
		s.world.takes(w.message)
	}
	return offset
}

func (s *simulation) landAcked(w *write) { w.acked(s.land(w), nil) }

// journaled reads a record that has just landed.
func (s *simulation) journaled(w *write, offset int64) {
	rec, err := events.DecodeRecord(w.value)
	must(s.t, err)
	accepted := s.twins[w.tp.Partition].take(s, rec, w.value)
	said := rec.Kind.String()
	if d := rec.Decision; d != nil {
		said = fmt.Sprintf("%s %s %s", d.Outcome, d.Input.Kind, d.Reason)
	}
	verdict := ""
	if !accepted {
		verdict = ", not accepted"
	}
	s.note("%s: journal/%d/%d seq %d %s %s%s", w.owner, w.tp.Partition, offset, rec.Seq, said, mark(w.value), verdict)
	if accepted && rec.Decision != nil {
		s.accepted(w.tp.Partition, rec)
	}
}

// accepted takes what a decision says, now that it counts.
func (s *simulation) accepted(shard int32, rec *events.Record) {
	d := rec.Decision
	s.checkAnsweredOnce(d)
	if d.Input.Kind == events.InputRefused {
		s.decided[d.Input.MessageID].refused = true
	}
	messages, err := events.Outgoing(app, rec)
	must(s.t, err)
	for i := range messages {
		if e := &d.Emits[i]; e.Kind == events.EmitMessage {
			s.said[saying{shard, events.MessageOffset(rec.Seq, i)}] = &said{to: e.To, bytes: string(e.Payload)}
			continue
		}
		id, _ := messages[i].Header(events.HeaderID)
		if s.decided[id] != nil {
			s.wrong("command %s is decided twice", id)
		}
		s.decided[id] = &decided{bytes: onTheWire(&messages[i])}
	}
	for i := range d.Rows {
		if d.Rows[i].Ref.Part != events.PartHead || d.Whose(&d.Rows[i]) != d.Instance {
			continue
		}
		h, err := events.DecodeHead(d.Rows[i].Value)
		must(s.t, err)
		if was := s.instances[d.Instance]; was != nil && was.State.Final() && h.State != was.State {
			s.wrong("%s was %v, and is %v", h.Key, was.State, h.State)
		}
		s.instances[d.Instance] = h
	}
	if d.Purge && s.instances[d.Instance] != nil && !s.instances[d.Instance].State.Final() {
		s.wrong("%s is purged, and is %v", s.instances[d.Instance].Key, s.instances[d.Instance].State)
	}
}

// checkAnsweredOnce: each input has at most one accepted decision for each entity that it is for, wherever it was
// forwarded to; and one that finishes it, for each shard it was sent to. What is dropped because it was taken
// before, by its id, answers nothing.
func (s *simulation) checkAnsweredOnce(d *events.Decision) {
	in := &d.Input
	if in.Topic == "" {
		return
	}
	places := []string{placeOf(in.Topic, in.Partition, in.Offset)}
	if o := in.Origin; o != nil && o.Topic == "shop.journal" {
		said := s.said[saying{o.Partition, o.Offset}]
		if said == nil {
			s.wrong("it answers what shard %d never said, at %d", o.Partition, o.Offset)
		}
		if said.taken++; said.taken > 1 {
			s.wrong("what shard %d says at %d is taken again", o.Partition, o.Offset)
		}
	} else if o != nil {
		places = append(places, placeOf(o.Topic, o.Partition, o.Offset))
	}
	if in.Kind == events.InputAction && d.Outcome != events.Ignored {
		if s.acted[in.MessageID]++; s.acted[in.MessageID] > 1 {
			s.wrong("action %s is carried out or refused again", in.MessageID)
		}
	}
	for _, at := range places {
		s.answers[at]++
		if d.Outcome == events.Ignored && (strings.HasPrefix(d.Reason, "duplicate") || strings.HasPrefix(d.Reason, "repeated")) {
			continue
		}
		if by := at + " " + d.Instance.String(); s.answers[by] > 0 {
			s.wrong("%s is answered again", by)
		} else {
			s.answers[by]++
		}
	}
}

// saying is where an entity's message was decided, and said what it says.
type saying struct {
	shard  int32
	offset int64
}

type said struct {
	to    events.InstanceID
	bytes string
	taken int
}

// checkSaid: nobody hears what was not decided, and everybody hears it as it was.
func (s *simulation) checkSaid(o *owner, m *events.Message) {
	msg, origin, ok, err := events.UnwrapMessage(m)
	if !ok {
		return
	}
	must(s.t, err)
	x := s.said[saying{origin.Partition, origin.Offset}]
	if x == nil || x.bytes != string(m.Value) || x.to != msg.To || m.Partition != msg.To.Shard(simShards) {
		s.wrong("%s says to %s, at %s/%d/%d, what no accepted record decides", o, msg.To, origin.Topic, origin.Partition, origin.Offset)
	}
	if origin.Low > origin.Offset {
		s.wrong("%s says at %d that all below %d has arrived", o, origin.Offset, origin.Low)
	}
}

// onTheWire prints all that a message is but its partition.
func onTheWire(m *events.Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q", m.Topic, m.Key)
	for _, h := range m.Headers {
		fmt.Fprintf(&b, " %s=%q", h.Key, h.Value)
	}
	fmt.Fprintf(&b, " %q", m.Value)
	return b.String()
}

// twin reads a journal from its first record on, by the rules of the log written down once more (L1, L2), and keeps
// every row for ever.
type twin struct {
	nonce   events.Nonce
	seq     uint64
	hash    events.Hash
	claimed bool
	broken  bool
	rows    map[string]twinRow
}

type twinRow struct {
	value string
	due   int64
}

func newTwin() *twin { return &twin{rows: map[string]twinRow{}} }

// take reports whether a record counts, and takes its rows if it does.
func (t *twin) take(s *simulation, rec *events.Record, value []byte) bool {
	switch {
	case rec.Kind == events.KindClaim:
		t.nonce, t.claimed, t.broken = rec.Nonce, true, false
		return true
	case !t.claimed || rec.Nonce != t.nonce || t.broken || rec.Seq <= t.seq:
		return false
	case rec.Seq != t.seq+1 || rec.Prev != t.hash:
		t.broken = true
		return false
	}
	t.seq, t.hash = rec.Seq, events.HashOf(value)
	if c := rec.Carry; c != nil {
		for _, r := range c.Rows {
			if was, ok := t.rows[string(r.Key)]; !ok || was != (twinRow{string(r.Value), r.Due}) {
				s.wrong("row %x is carried as %x, due %d, and is %x, due %d", r.Key, r.Value, r.Due, was.value, was.due)
			}
		}
	}
	if d := rec.Decision; d != nil {
		if d.Purge {
			from, _ := events.InstanceRange(d.Instance)
			maps.DeleteFunc(t.rows, func(key string, _ twinRow) bool { return strings.HasPrefix(key, string(from)) })
		}
		for i := range d.Entries {
			t.set(d.Instance, events.RowRef{Part: events.PartHistory, N: d.FirstRow + uint64(i)}, d.Entries[i].Encode(nil), 0)
		}
		for i := range d.Rows {
			r := &d.Rows[i]
			if r.Gone {
				delete(t.rows, string(events.RowKey(d.Whose(r), r.Ref)))
				continue
			}
			t.set(d.Whose(r), r.Ref, r.Value, r.Due)
		}
	}
	return true
}

func (t *twin) set(id events.InstanceID, ref events.RowRef, value []byte, due int64) {
	t.rows[string(events.RowKey(id, ref))] = twinRow{string(value), due}
}

// participants do what they are told, by the rules of docs/protocol.md.
type participants struct {
	s        *simulation
	commands []*events.Message // as they landed
	next     int               // of commands, to be read
	answers  map[string]string // by idempotency key: the outcome that is given again
	undone   map[string]bool   // forward keys that must not begin any more
	applied  map[string]effect // by forward key
}

type effect struct{ instance, typ string }

func newParticipants(s *simulation) *participants {
	return &participants{s: s, answers: map[string]string{}, undone: map[string]bool{}, applied: map[string]effect{}}
}

func (p *participants) takes(m *events.Message) { p.commands = append(p.commands, m) }

// act lets one participant take one command: most times one that none took yet.
func (p *participants) act() {
	if len(p.commands) == 0 {
		return
	}
	k := p.s.rng.IntN(len(p.commands))
	if p.next < len(p.commands) && p.s.chance(75) {
		// The next few, in any order: topics are read apart.
		k = p.next + p.s.rng.IntN(min(6, len(p.commands)-p.next))
		p.commands[p.next], p.commands[k] = p.commands[k], p.commands[p.next]
		k = p.next
		p.next++
	} else if k < p.next {
		p.s.lands(commandAgain)
	}
	p.execute(p.commands[k])
}

// executeAll takes what nobody took.
func (p *participants) executeAll() {
	for ; p.next < len(p.commands); p.next++ {
		p.execute(p.commands[p.next])
	}
}

// executeOpenAgain takes again what belongs to instances that have not ended: their replies may be lost.
func (p *participants) executeOpenAgain() {
	for _, m := range p.commands {
		if id, _ := m.Header(events.HeaderCorrelationID); !p.final(id) {
			p.execute(m)
		}
	}
}

// executeEverythingAgain is the worst that redelivery can do.
func (p *participants) executeEverythingAgain() {
	for _, k := range p.s.rng.Perm(len(p.commands)) {
		p.execute(p.commands[k])
	}
}

func (p *participants) final(instance string) bool {
	id, err := events.ParseInstanceID(instance)
	must(p.s.t, err)
	return p.s.instances[id].State.Final()
}

// execute takes a command and answers it.
func (p *participants) execute(m *events.Message) {
	header := func(name string) string { v, _ := m.Header(name); return v }
	id, key, undoes := header(events.HeaderID), header(events.HeaderIdempotencyKey), header(events.HeaderUndoes)
	outcome, known := p.answers[key]
	code := ""
	late := false
	if expiry := header(events.HeaderExpiryTime); expiry != "" {
		at, err := events.ParseTimestamp(expiry)
		must(p.s.t, err)
		late = at < p.s.kafka.now
	}
	if undoes != "" {
		if _, seen := p.applied[undoes]; !seen && !p.undone[undoes] {
			p.s.lands(undoFirst)
		}
		p.undone[undoes] = true
	}
	switch {
	case known:
	case undoes == "" && p.undone[key]:
		outcome, code = "rejected", events.CodeUndone
	case late:
		outcome, code = "rejected", events.CodeExpired
		p.s.lands(commandExpired)
	default:
		outcome = p.outcome(header(events.HeaderType), undoes != "")
		switch {
		case outcome == "done" && undoes != "":
			delete(p.applied, undoes)
			p.answers[key] = outcome
		case outcome == "done":
			p.applied[key] = effect{header(events.HeaderCorrelationID), header(events.HeaderType)}
			p.answers[key] = outcome
		case outcome == "rejected":
			p.answers[key] = outcome
		}
	}
	p.reply(id, outcome, code)
	if outcome == "progress" { // it is still at it, and comes to an end
		p.commands = append(p.commands, m)
	}
}

// outcome is a participant's will. Undos are never refused, nor what comes after a pivot.
func (p *participants) outcome(typ string, undo bool) string {
	r := p.s.rng.IntN(100)
	switch {
	case p.s.healed || r < 70:
		return "done"
	case r < 80:
		return "retry"
	case r < 88:
		return "progress"
	case undo || typ == "notify":
		return "done"
	}
	return "rejected"
}

func (p *participants) reply(command, outcome, code string) {
	s := p.s
	if !s.healed && s.chance(10) {
		s.lands(replyLost)
		return
	}
	headers := []events.Header{{Key: events.HeaderCausationID, Value: []byte(command)}, {Key: events.HeaderOutcome, Value: []byte(outcome)}}
	if code != "" {
		headers = append(headers, events.Header{Key: events.HeaderErrorCode, Value: []byte(code)})
	}
	m := events.Message{Topic: "shop.replies", Partition: s.shard(), Key: fmt.Appendf(nil, "%s %s %s", outcome, code, command), Value: []byte(`{}`), Headers: headers}
	s.put(m)
	if !s.healed && s.chance(5) {
		m.Partition = s.shard()
		s.put(m)
		s.lands(replyTwice)
	}
}

// effects are the types of an instance's commands whose effect is there, sorted.
func (p *participants) effects(id events.InstanceID) (types []string) {
	for _, e := range p.applied {
		if e.instance == id.String() {
			types = append(types, e.typ)
		}
	}
	slices.Sort(types)
	return types
}

// copyOf gives a store's content to another one, as on another node.
func copyOf(t *testing.T, from *store.Memory) *store.Memory {
	t.Helper()
	to := store.NewMemory()
	state, err := from.State()
	must(t, err)
	b := store.Batch{State: state}
	must(t, from.Scan(nil, nil, func(r store.Row) bool {
		b.Set(bytes.Clone(r.Key), r.Due, 0, bytes.Clone(r.Value), r.Base)
		return true
	}))
	must(t, to.Apply(&b))
	return to
}
