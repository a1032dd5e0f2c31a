package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
)

// heal ends all faults, and lets everybody finish what there is.
func (s *simulation) heal() {
	s.note("everything heals")
	s.healed = true
	clear(s.stuck)
	clear(s.refuses)
	s.back = 0
	for len(s.ghosts) > 0 {
		s.haunts(s.ghosts[0])
	}
	total := 0
	for _, topic := range s.topics.domain {
		total += s.domain[topic]
	}
	for _, o := range s.owners {
		o.goOn()
		o.breaks = 0
		if o.domain != total && !o.dead { // it does not know of a partition
			s.end(o, handsOver)
		}
	}
	const rounds = 200
	for round := 0; ; round++ {
		s.settle()
		if round > 3 && len(s.unfinished()) == 0 {
			if s.redriven {
				break
			}
			s.redriven = true
			s.redrive()
			continue
		}
		if round == rounds {
			s.wrong("not final after %d rounds: %v", rounds, s.unfinished())
		}
		s.world.executeAll()
		if round%5 == 4 {
			s.world.executeOpenAgain()
		}
		for _, w := range s.errands {
			for _, id := range s.instanceIDs() {
				if h := s.instances[id]; h.Key == w.key && h.Definition == w.part.plan.Name && h.State == events.Suspended {
					s.act(w, events.Action{Kind: events.ActionResume})
				}
			}
		}
		s.pass(5 * time.Second)
	}
	s.world.executeEverythingAgain()
	s.settle()
	for range 4 { // progress is journaled, and reaches the stores
		s.pass(2 * time.Second)
		s.settle()
	}
}

// settle turns all shards until nothing is left to do at this moment.
func (s *simulation) settle() {
	for range 1000 {
		for s.landNext() {
		}
		busy := false
		for i := range s.owners {
			s.turn(s.owners[i])
			o := s.owners[i]
			busy = busy || o.mail || o.behind() || o.more
		}
		if !busy && len(s.queue) == 0 {
			return
		}
	}
	s.wrong("the shards do not come to rest")
}

// unfinished are the instances that have not ended.
func (s *simulation) unfinished() (out []string) {
	for _, id := range s.instanceIDs() {
		if h := s.instances[id]; !h.State.Final() {
			out = append(out, fmt.Sprintf("%s is %v %s", h.Key, h.State, h.Code))
		}
	}
	return out
}

func (s *simulation) final(id events.InstanceID) bool {
	h := s.instances[id]
	return h != nil && h.State.Final()
}

func (s *simulation) instanceIDs() []events.InstanceID {
	return slices.SortedFunc(maps.Keys(s.instances), func(a, b events.InstanceID) int { return bytes.Compare(a[:], b[:]) })
}

// journaled reads a record that has just landed.
func (s *simulation) journaled(w *write, offset int64) {
	s.mixPlace(w.at, offset)
	s.mixBytes(w.value)
	if w.owner.unseen {
		s.note("%s: journal/%d/%d, soon to be truncated", w.owner, w.at.Partition, offset)
		return
	}
	rec := w.record
	accepted := s.twins[w.at.Partition].take(s, rec, w.value)
	if s.tell {
		said := rec.Kind.String()
		if d := rec.Decision; d != nil {
			said = fmt.Sprintf("%s %s %s", d.Outcome, d.Input.Kind, d.Reason)
		}
		if !accepted {
			said += ", not accepted"
		}
		s.note("%s: journal/%d/%d seq %d %s", w.owner, w.at.Partition, offset, rec.Seq, said)
	}
	if accepted && rec.Decision != nil {
		s.accepted(w.at.Partition, rec)
	}
}

// accepted takes what a decision says, now that it counts.
func (s *simulation) accepted(shard int32, rec *events.Record) {
	d := rec.Decision
	s.checkAnsweredOnce(shard, d)
	if d.Input.Kind == events.InputRefused {
		s.decided[d.Input.MessageID].refused = true
	}
	for i := range d.Rows {
		if d.Rows[i].Ref.Part != events.PartHead || d.Whose(&d.Rows[i]) != d.Instance {
			continue
		}
		h, err := events.DecodeHead(d.Rows[i].Value)
		if err != nil {
			s.wrong("the head of %s: %v", d.Instance, err)
		}
		if was := s.instances[d.Instance]; was != nil && was.State.Final() && h.State != was.State {
			s.wrong("%s was %v, and is %v", h.Key, was.State, h.State)
		}
		s.instances[d.Instance] = h
	}
	if h := s.instances[d.Instance]; d.Purge && h != nil && !h.State.Final() {
		s.wrong("%s is purged, and is %v", h.Key, h.State)
	}
	if len(d.Emits) == 0 {
		return
	}
	messages, err := events.Outgoing(app, rec)
	if err != nil {
		s.wrong("record %d of shard %d says what cannot be sent: %v", rec.Seq, shard, err)
	}
	for i := range messages {
		if e := &d.Emits[i]; e.Kind == events.EmitMessage {
			s.said[saying{shard, events.MessageOffset(rec.Seq, i)}] = &said{to: e.To, bytes: e.Payload}
			continue
		}
		if messages[i].Topic == "" {
			continue
		}
		id, _ := messages[i].Header(events.HeaderID)
		if s.decided[id] != nil {
			s.wrong("command %s is decided twice", id)
		}
		s.decided[id] = &decided{message: messages[i], instance: d.Instance, part: s.partOf(d.Instance)}
	}
}

func (s *simulation) partOf(id events.InstanceID) int {
	return slices.IndexFunc(s.parts, func(p *part) bool { return p.plan.Name == s.instances[id].Definition })
}

// beyondHelp says that an owner emits what it decided, and was acknowledged, behind a claim that will be lost although it
// was acknowledged as well: a log that forgets cannot keep it from that. Here it never leaves; its owner dies soon.
func (s *simulation) beyondHelp(o *owner, m *events.Message) bool {
	id, _ := m.Header(events.HeaderID)
	return o.unseen && s.topics.commands[m.Topic] && s.decided[id] == nil
}

// checkDecided: nobody may see a command that was not decided, or another one than was (G5).
func (s *simulation) checkDecided(o *owner, m *events.Message) {
	if !s.topics.commands[m.Topic] {
		return
	}
	id, _ := m.Header(events.HeaderID)
	switch d := s.decided[id]; {
	case d == nil:
		s.wrong("%s emits a command that no accepted record decides:\n%s", o, onTheWire(m))
	case !equalMessages(&d.message, m):
		s.wrong("%s emits\n%s\nand what was decided is\n%s", o, onTheWire(m), onTheWire(&d.message))
	}
}

// checkAnsweredOnce: each input has at most one accepted decision for each entity that it is for, wherever it was
// forwarded to; and one that finishes it, for each shard it was sent to. What is dropped because it was taken
// before, by its id, answers nothing.
func (s *simulation) checkAnsweredOnce(shard int32, d *events.Decision) {
	in := &d.Input
	if in.Topic == "" {
		return
	}
	places := [2]where{{place{Topic: in.Topic, Partition: in.Partition}, in.Offset}}
	n := 1
	if o := in.Origin; o != nil && o.Topic == journalTopic {
		said := s.said[saying{o.Partition, o.Offset}]
		if said == nil {
			s.wrong("it answers what shard %d never said, at %d", o.Partition, o.Offset)
		}
		if said.taken++; said.taken > 1 {
			s.wrong("what shard %d says at %d is taken again", o.Partition, o.Offset)
		}
		if msg, err := events.DecodeInboxMessage(said.bytes); err == nil && msg.Kind == events.InboxRefused {
			s.lands(eventTooLate)
		}
	} else if o != nil {
		places[1], n = where{place{Topic: o.Topic, Partition: o.Partition}, o.Offset}, 2
	}
	if in.Kind == events.InputAction && d.Outcome != events.Ignored && d.Outcome != events.Quarantined {
		if s.acted[in.MessageID]++; s.acted[in.MessageID] > 1 {
			s.wrong("action %s is carried out or refused again", in.MessageID)
		}
	}
	for _, at := range places[:n] {
		s.answers[at]++
		if d.Outcome == events.Ignored && (strings.HasPrefix(d.Reason, "duplicate") || strings.HasPrefix(d.Reason, "repeated")) {
			continue
		}
		by := whose{at, d.Instance, -1}
		if d.Instance.IsZero() { // each shard puts aside what nobody there can take
			by.shard = shard
		}
		if s.answered[by] {
			s.wrong("%s/%d/%d is answered again for %s", at.Topic, at.Partition, at.offset, d.Instance)
		}
		// Who continues after a crash, with a part of it open, puts it aside once more.
		s.answered[by] = !d.Instance.IsZero() || !in.More
	}
}

// checkSaid: nobody hears what was not decided, and everybody hears it as it was.
func (s *simulation) checkSaid(o *owner, m *events.Message) {
	if m.Topic != inboxTopic {
		return
	}
	msg, origin, ok, err := events.UnwrapMessage(m)
	if !ok || origin == nil {
		return
	}
	if err != nil {
		s.wrong("%s says what cannot be read: %v", o, err)
	}
	x := s.said[saying{origin.Partition, origin.Offset}]
	if x == nil || !bytes.Equal(x.bytes, m.Value) || x.to != msg.To || m.Partition != msg.To.Shard(shards) {
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

// redrive puts back what a queue had no room for.
func (s *simulation) redrive() {
	part := s.part(place{Topic: quarantineTopic})
	for i := range part.messages {
		original, reason, ok := events.UnwrapQuarantined(&part.messages[i])
		if !ok || !strings.HasPrefix(reason, machine.ReasonQueueFull) {
			continue
		}
		msg, _, _, err := events.UnwrapMessage(&original)
		if err != nil {
			s.wrong("in quarantine is what cannot be put back: %v", err)
		}
		again := events.WrapQuarantined(app, &original, reason)
		m := events.WrapForward(&again, events.Origin{Topic: quarantineTopic, Offset: part.start + int64(i), Low: part.start})
		m.Topic, m.Partition = inboxTopic, msg.To.Shard(shards)
		s.comes(m, func() string { return "put back from quarantine" })
		s.lands(queueFull)
	}
}

// check is what must hold in the end. What must hold at every moment is checked when it happens: see connection,
// journalLog.append and accepted.
func (s *simulation) check() {
	s.checkOneInstancePerOrder()
	s.checkWhatIsDecidedIsEmitted()
	s.checkWhatIsSaidIsHeard()
	s.checkEveryInputIsAnswered()
	s.checkPoisonIsInQuarantine()
	s.checkEffects()
	for i := range int32(shards) {
		s.checkRebuilt(i)
	}
}

func (s *simulation) checkOneInstancePerOrder() {
	found := map[string]int{}
	for _, h := range s.instances {
		found[h.Key]++
	}
	for _, key := range slices.Sorted(maps.Keys(s.started)) {
		if n := found[key]; n < 1 || n > s.started[key] {
			s.wrong("%d instances of %s, which was ordered under %d ids", n, key, s.started[key])
		}
	}
	if len(found) != len(s.started) {
		s.wrong("%d orders came, and %d have an instance", len(s.started), len(found))
	}
}

// That nothing else was emitted, and no other bytes, was checked when it was sent.
func (s *simulation) checkWhatIsDecidedIsEmitted() {
	for _, id := range slices.Sorted(maps.Keys(s.decided)) {
		if d := s.decided[id]; d.landed == 0 && !d.refused {
			s.wrong("command %s was decided and never emitted:\n%s", id, onTheWire(&d.message))
		}
	}
}

// L7: what one entity says to another arrives once.
func (s *simulation) checkWhatIsSaidIsHeard() {
	for at, x := range s.said {
		if x.taken != 1 {
			s.wrong("what shard %d says to %s at %d is taken %d times, want once", at.shard, x.to, at.offset, x.taken)
		}
	}
	for n := range s.actions {
		if id := fmt.Sprint("action-", n+1); s.acted[id] != 1 {
			s.wrong("%s is carried out or refused %d times, want once", id, s.acted[id])
		}
	}
}

// That none was answered twice was checked when it was answered.
func (s *simulation) checkEveryInputIsAnswered() {
	for _, topic := range append([]string{repliesTopic}, s.topics.domain...) {
		for p := range int32(max(s.domain[topic], shards)) {
			at := place{Topic: topic, Partition: p}
			for offset := range s.part(at).end() {
				if s.answers[where{at, offset}] == 0 {
					s.wrong("no decision answers %s/%d/%d", topic, p, offset)
				}
			}
		}
	}
}

func (s *simulation) checkPoisonIsInQuarantine() {
	found := map[string]bool{}
	part := s.part(place{Topic: quarantineTopic})
	for i := range part.messages {
		at, _ := part.messages[i].Header(events.HeaderPlace)
		_, reason, _ := events.UnwrapQuarantined(&part.messages[i])
		if !strings.HasPrefix(reason, machine.ReasonQueueFull) && !strings.HasPrefix(reason, machine.ReasonKeyLive) && !strings.HasPrefix(reason, machine.ReasonKeyEnded) {
			found[at] = true
		}
	}
	if !maps.Equal(found, s.poison) {
		s.wrong("in quarantine are %v, want %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(s.poison)))
	}
}

// checkEffects is what sagas are for (G2).
func (s *simulation) checkEffects() {
	for _, id := range s.instanceIDs() {
		h := s.instances[id]
		want := s.parts[s.partOf(id)].effects(h)
		if got := s.world.effectsOf(id); !slices.Equal(got, want) {
			s.wrong("%s is %v, and its effects are %v, want %v", h.Key, h.State, got, want)
		}
	}
}

// checkRebuilt compares the live store with what the compacted journal gives, and with what all that was ever in
// it gives (G7).
func (s *simulation) checkRebuilt(shard int32) {
	live := s.owners[shard].store
	row, err := live.State()
	if err != nil {
		s.wrong("the state of shard %d: %v", shard, err)
	}
	state, err := journal.DecodeState(row)
	if err != nil {
		s.wrong("the state of shard %d: %v", shard, err)
	}
	reader := &journalLog{&owner{s: s, shard: shard}, place{Topic: journalTopic, Partition: shard}}
	c, err := orchestrator.Compare(context.Background(), portLog{reader, reader.o}, state, live, store.NewMemory(), silent)
	if err != nil || !c.Equal {
		s.wrong("shard %d: %d live rows, %d rebuilt, equal %v, %v", shard, c.Rows, c.Rebuilt, c.Equal, err)
	}
	if end := s.part(reader.at).end(); state.Next != end {
		s.wrong("shard %d: the store stands at %d, and the journal ends at %d", shard, state.Next, end)
	}
	twin, rows := s.twins[shard], 0
	err = live.Scan(nil, nil, func(r store.Row) bool {
		rows++
		if want, ok := twin.row(r.Key); !ok || !want.is(twinRow{r.Value, r.Due}) {
			s.wrong("shard %d: row %x is %x, due %d; the journal says %x, due %d", shard, r.Key, r.Value, r.Due, want.value, want.due)
		}
		return true
	})
	if want := twin.size(); err != nil || rows != want {
		s.wrong("shard %d: %d rows in the store, want %d: %v", shard, rows, want, err)
	}
	s.mixBytes(c.LiveHash[:])
}
