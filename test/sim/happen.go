package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
)

// How faults happen that happen by themselves. Others happen to a write as it lands (kafka.go), to a command or its reply
// (participants.go), or to a call (points.go).

// fault lets something go wrong.
func (s *simulation) fault() {
	switch s.rng.IntN(16) {
	case 0, 1, 2, 3, 4, 5:
		if o := s.owners[s.anyShard()]; !o.dead {
			s.replace(o)
		}
	case 6, 7:
		s.ghostly()
	case 8:
		s.poisonComes()
	case 9, 10:
		s.toggle(s.stuck, topicStuck, append([]string{inboxTopic, quarantineTopic, journalTopic}, s.topics.fickle...))
	case 11:
		s.toggle(s.refuses, topicRefuses, s.topics.fickle)
	case 12, 13:
		s.clocksGoWrong()
	case 14:
		s.topicGrows()
	case 15:
		s.signalsOverflow()
	}
}

// toggle sets a topic's trouble, or ends it.
func (s *simulation) toggle(trouble map[string]bool, f fault, of []string) {
	topic := of[s.rng.IntN(len(of))]
	if s.may(f) {
		trouble[topic] = !trouble[topic]
		s.note("%s: %s: %v", f, topic, trouble[topic])
	}
}

func (s *simulation) clocksGoWrong() {
	o := s.owners[s.anyShard()]
	back := s.rng.Int64N((5 * time.Minute).Milliseconds())
	switch r := s.rng.IntN(20); {
	case r < 1 && s.may(leapAhead):
		s.lands(leapAhead)
		s.pass(time.Hour)
	case r < 4 && s.may(brokersBack):
		s.back = back
		s.lands(brokersBack)
	case o.stands:
		o.goOn()
	case s.may(clockStands):
		o.stands, o.stood = true, o.clock()
		s.lands(clockStands)
	}
}

func (s *simulation) poisonComes() {
	m := events.Message{Topic: s.topics.domain[s.rng.IntN(len(s.topics.domain))], Key: fmt.Appendf(nil, "poison-%d", len(s.poison)), Value: []byte("{no")}
	f := poisoned
	switch s.rng.IntN(8) {
	case 0, 1:
		m.Topic = repliesTopic // without a command's id
	case 2:
		f, m.Value = oversized, make([]byte, maxRecord+1)
	}
	if !s.may(f) {
		return
	}
	m.Partition = s.anyShard()
	m.Headers = []events.Header{{Key: events.HeaderType, Value: []byte("Placed")}, {Key: events.HeaderID, Value: m.Key}}
	s.poison[(&events.Message{Topic: m.Topic, Partition: m.Partition, Offset: s.part(place{Topic: m.Topic, Partition: m.Partition}).end()}).Place()] = true
	s.keyed(m)
	s.lands(f)
}

// topicGrows adds a partition to a topic. Owners that are opened later read it; those that live do not know it.
func (s *simulation) topicGrows() {
	topic := s.topics.domain[s.rng.IntN(len(s.topics.domain))]
	if s.domain[topic] < shards+2 && s.may(partitionAdded) {
		s.domain[topic]++
		s.lands(partitionAdded)
	}
}

// signalsOverflow sends an instance more signals than its queue holds. What overflows is put back in the end.
func (s *simulation) signalsOverflow() {
	w := s.anyWaiter()
	if !s.chance(10) || w.part == nil || len(w.part.signals) == 0 || !s.may(queueFull) {
		return
	}
	for range 110 {
		s.act(w, events.Action{Kind: events.ActionSignal, Name: w.part.signals[0]})
	}
}

// replace ends a healthy owner in some way, and makes another one.
func (s *simulation) replace(o *owner) {
	ways := [...]fault{diesLosing, diesLanding, diesLate, diesLosing, handsOver, paused, paused, falseDeath, truncated, claimLost, outage, recreated, rebalance, noFault}
	switch way := ways[s.rng.IntN(len(ways))]; {
	case way == noFault:
		s.end(o, noFault)
	case !s.may(way):
	case way == rebalance:
		s.lands(rebalance)
		for _, o := range s.owners {
			if !o.dead {
				s.end(o, [...]fault{handsOver, diesLate, noFault}[s.rng.IntN(3)])
			}
		}
	default:
		s.end(o, way)
	}
}

// gaveUp replaces an owner that ended by itself.
func (s *simulation) gaveUp(o *owner) {
	s.end(o, [...]fault{diesLosing, diesLanding, diesLate}[s.rng.IntN(3)])
}

// died is the end of an owner that died at a point.
func (s *simulation) died(o *owner) {
	s.lands(diesWithin)
	s.trapSprung(o)
	if k := slices.Index(s.ghosts, o); k >= 0 {
		s.ghosts = slices.Delete(s.ghosts, k, k+1)
		o.die()
		o.close()
		return
	}
	s.gaveUp(o)
}

// trapSprung notes that an owner died where it was to die.
func (s *simulation) trapSprung(o *owner) {
	if s.choice.trap == nil || s.out.trapped {
		return
	}
	s.out.trapped = true
	if s.cold {
		s.lose(o)
	}
}

// end ends an owner and opens its shard anew.
func (s *simulation) end(o *owner, way fault) {
	shard := o.shard
	switch mine := s.of(o); {
	case way == diesLosing && len(mine) > 0:
		s.forget(o)
		s.lands(diesLosing)
	case way == diesLanding && len(mine) > 0:
		s.forget(o)
		for _, w := range mine[:1+s.rng.IntN(len(mine))] {
			if w.batch == nil {
				s.land(w)
			}
		}
		s.lands(diesLanding)
	case way == diesLate && len(mine) > 0:
		s.lands(diesLate)
	case way == handsOver:
		if !s.handOver(o) {
			return
		}
	case (way == paused || way == falseDeath) && len(s.ghosts) < 3:
		s.haunt(o, way == paused)
		s.lands(way)
		s.change(shard)
		return
	case way == truncated:
		s.truncate(o)
	case way == claimLost:
		s.quit(o)
		s.loseClaim(shard)
	case way == recreated:
		s.quit(o)
		s.recreate(shard)
	case way == outage:
		s.quit(o)
		s.away[shard] = s.now + s.rng.Int64N(90_000)
		s.lands(outage)
		return
	default:
		s.forget(o)
		s.note("%s dies", o)
	}
	s.quit(o)
	s.change(shard)
}

// haunt makes an owner one whose shard is given to another node, with a copy of the store.
func (s *simulation) haunt(o *owner, standing bool) {
	o.standing = standing
	s.ghosts = append(s.ghosts, o)
	s.disks[o.shard] = o.disk.copy()
}

// quit ends a process, and with it, now and then, the machine.
func (s *simulation) quit(o *owner) {
	if o.store == nil {
		o.die()
		return
	}
	o.die()
	o.store = nil
	lose := 0
	if s.chance(30) && s.may(storePrefix) {
		lose = 1 + s.rng.IntN(pastBatches-1)
		s.lands(storePrefix)
	}
	o.disk.crash(lose)
	if s.chance(4) && s.may(storeFlipped) {
		s.lands(storeFlipped)
		if err := o.disk.flip(); errors.Is(err, store.ErrCorrupt) {
			s.lose(o)
		} else if err != nil {
			s.wrong("bits of the store of %s flip, and it says %v, and not that it is corrupt", o, err)
		}
	}
}

// oldStore is on the disk of a node that does not have the shard now.
type oldStore struct {
	disk
	kind fault // storeOld or storeForeign
}

// change opens the shard anew, on a node with some store.
func (s *simulation) change(shard int32) {
	if s.chance(8) && len(s.shelf[shard]) < 4 {
		s.shelf[shard] = append(s.shelf[shard], oldStore{s.disks[shard].copy(), storeOld})
	}
	switch old := s.shelf[shard]; {
	case s.chance(20) && s.may(storeLost):
		s.disks[shard] = s.disks[shard].empty()
		s.lands(storeLost)
	case len(old) > 0 && s.chance(30):
		k := s.rng.IntN(len(old))
		if s.may(old[k].kind) {
			s.disks[shard] = old[k].disk
			s.lands(old[k].kind)
			s.shelf[shard] = slices.Delete(old, k, k+1)
		}
	}
	if s.chance(10) && s.may(claimLate) {
		s.claimInVain(shard, true)
	}
	if s.chance(3) && s.may(inputRecreated) {
		s.inputIsAnother(shard)
	}
	s.reopen(shard)
}

// handOver lets an owner finish what it has under way, if Kafka is willing. It reports false when it died of that, and
// its shard has another owner.
func (s *simulation) handOver(o *owner) bool {
	mine := s.of(o)
	if slices.ContainsFunc(mine, s.waits) {
		s.lands(diesLate)
		return true
	}
	s.forget(o)
	for _, w := range mine {
		if s.landAcked(w); o.dead {
			return false
		}
	}
	o.direct = true
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var err error
	if !s.guard(o, func() { err = o.sh.Run(ended) }) {
		s.died(o)
		return false
	}
	if err != nil && !mayEnd(err) {
		s.wrong("%s hands over with %v", o, err)
	}
	if err != nil {
		s.discard(o, err)
	}
	s.lands(handsOver)
	return true
}

// truncate ends an owner whose last records were not acknowledged. A node reads them into its store and dies before
// it has the shard; then the journal loses them. Nobody acted on them, but there is a store that knows them.
//
// docs/spec: Append.Truncate
func (s *simulation) truncate(o *owner) {
	var tail []*write
	for _, w := range s.of(o) {
		if w.journal() {
			tail = append(tail, w)
		}
	}
	s.forget(o)
	s.quit(o)
	if len(tail) == 0 {
		return
	}
	part := s.part(place{Topic: journalTopic, Partition: o.shard})
	acknowledged := len(part.records)
	for _, w := range tail {
		part.records = append(part.records, orchestrator.LogRecord{Offset: part.end(), Time: s.brokerTime(), Value: w.value})
	}
	good := s.disks[o.shard]
	s.disks[o.shard] = good.copy()
	s.claimInVain(o.shard, false)
	s.shelf[o.shard] = append(s.shelf[o.shard], oldStore{s.disks[o.shard], storeForeign})
	s.disks[o.shard] = good
	part.records = part.records[:acknowledged:acknowledged]
	s.lands(truncated)
}

// claimInVain opens the shard on a node whose claim is not acknowledged: it is lost, or lands later.
func (s *simulation) claimInVain(shard int32, late bool) {
	o := s.newOwner(shard)
	o.deaf, o.claimLands = true, late
	if err := s.open(o); !errors.Is(err, orchestrator.ErrUnknownAppend) {
		s.wrong("%s claims in vain, with %v", o, err)
	}
	o.die()
	o.close()
}

// inputIsAnother opens the shard while a topic that it reads is not the one that it read before: it has to refuse.
func (s *simulation) inputIsAnother(shard int32) {
	topic := s.topics.domain[s.rng.IntN(len(s.topics.domain))]
	right := s.ids[topic]
	s.ids[topic] = [16]byte{99}
	o := s.newOwner(shard)
	if err := s.open(o); !errors.Is(err, orchestrator.ErrTopicRecreated) {
		s.wrong("topic %s was created anew, and %s opens its shard: %v", topic, o, err)
	}
	s.ids[topic] = right
	o.die()
	o.close()
	s.lands(inputRecreated)
}

// loseClaim opens the shard on a node that decides a little and dies before it hears of that. Then its claim, though
// acknowledged, is truncated. The next claim lands at its offset, and what it decided lands behind that.
func (s *simulation) loseClaim(shard int32) {
	part := s.part(place{Topic: journalTopic, Partition: shard})
	before := len(part.records)
	o := s.newOwner(shard)
	o.unseen = true
	if err := s.open(o); err != nil {
		s.wrong("%s does not open its shard: %v", o, err)
	}
	for range 2 {
		if lives, err := o.turn(); err != nil || !lives {
			s.wrong("%s ends: %v", o, err)
		}
	}
	if slices.ContainsFunc(s.of(o), (*write).journal) {
		s.lands(claimLost)
	}
	o.die()
	o.close()
	o.unseen = false // what it decided will be seen, behind another claim
	part.records = part.records[:before:before]
	s.disks[shard] = s.disks[shard].empty() // it may have read its claim
}

// recreate deletes a journal and creates an empty one. Who has a store of it has to refuse that. Then it is put back, as
// from a mirror: the same records, from offset 0 on, in a topic with another id.
func (s *simulation) recreate(shard int32) {
	s.ghosts = slices.DeleteFunc(s.ghosts, func(o *owner) bool {
		if o.shard != shard {
			return false
		}
		s.forget(o) // its topic is gone
		o.die()
		o.close()
		return true
	})
	at := place{Topic: journalTopic, Partition: shard}
	was := s.part(at)
	s.created++
	anew := &partition{id: [16]byte{2, s.created}}
	if last := len(was.records) - 1; last >= 0 && s.chance(50) { // of an owner that does not know yet
		r := was.records[last]
		r.Offset = 0
		if rec, err := events.DecodeRecord(r.Value); err == nil && rec.Kind != events.KindClaim {
			anew.records = append(anew.records, r)
		}
	}
	s.cluster.parts[at] = anew
	o := s.newOwner(shard)
	if knows(o) {
		err := s.open(o)
		if !errors.Is(err, orchestrator.ErrTopicRecreated) && !errors.Is(err, journal.ErrTrimmed) {
			s.wrong("the journal of shard %d was created anew, with %d records, and %s opens its shard: %v", shard, len(anew.records), o, err)
		}
	}
	o.die()
	o.close()
	s.created++
	back := &partition{id: [16]byte{2, s.created}}
	for _, r := range was.records {
		r.Offset = back.end()
		back.records = append(back.records, r)
	}
	s.cluster.parts[at] = back
	s.shelf[shard] = nil
	s.lands(recreated)
}

// knows says whether an owner's store has read more of the journal than claims.
func knows(o *owner) bool {
	st, err := o.disk.open()
	if err != nil {
		return false
	}
	o.store = st
	row, err := st.State()
	if err != nil || row == nil {
		return false
	}
	state, err := journal.DecodeState(row)
	return err == nil && state.Seq > 0
}

// ghostly lets an owner whose shard was taken go on for a turn, with what it can read by now. What it does must change
// nothing; it is forgotten when it notices, or claims back.
func (s *simulation) ghostly() {
	if len(s.ghosts) == 0 {
		return
	}
	o := s.ghosts[s.rng.IntN(len(s.ghosts))]
	if o.standing {
		if !s.chance(50) || !s.may(wakes) {
			return
		}
		s.lands(wakes)
		o.standing = s.chance(50)
	}
	s.haunts(o)
}

// haunts is a turn of a ghost.
func (s *simulation) haunts(o *owner) {
	s.happens()
	lives, err := o.turn()
	if !lives {
		s.died(o)
		return
	}
	if err != nil && !mayEnd(err) {
		s.wrong("%s, whose shard was taken, ends: %v", o, err)
	}
	if s.healed && err == nil {
		err = errors.New("the run comes to its end")
	}
	if err == nil {
		return
	}
	s.note("%s, whose shard was taken, ends: %v", o, err)
	k := slices.Index(s.ghosts, o)
	s.ghosts = slices.Delete(s.ghosts, k, k+1)
	back := s.chance(25)
	o.die()
	o.close()
	if now := s.owners[o.shard]; errors.Is(err, orchestrator.ErrClaimLost) && back && !s.healed && !now.dead && s.may(claimsBack) {
		s.ghosts = append(s.ghosts, now)
		now.standing = false
		s.disks[o.shard] = o.disk
		s.lands(claimsBack)
		s.reopen(o.shard)
	}
}

// openPoints are those that an owner comes by while it opens its shard, whatever its store holds.
var openPoints = []string{"Kafka.Log", "Log.Bounds", "Log.Read", "Log.TopicID", "Log.Append/claim", "Log.Append/claim/ack", "Store.Load", "Store.NextDue", "Kafka.Bounds", "Kafka.Consume", "Kafka.Produce/command"}

// springs lays in wait for an owner that opens its shard.
func (s *simulation) springs(o *owner) {
	point, after, vain, away := openPoints[s.rng.IntN(len(openPoints))], s.chance(50), s.chance(8), s.chance(4)
	switch {
	case s.choice.trap != nil:
		if !s.out.trapped {
			t := *s.choice.trap
			o.trap = &t
		}
	case s.healed:
	case vain && s.may(opensInVain):
		o.trap = &trap{point: point, after: after, count: 1}
	case away && s.may(journalUnreadable):
		o.unreadable = true
	}
}

// strikes lays in wait for an owner in its next turn.
func (s *simulation) strikes(o *owner) {
	dies, breaks, at := s.chance(3), s.chance(2), 1+s.rng.IntN(12)
	switch {
	case s.healed || s.choice.trap != nil || o.unseen:
	case dies && s.may(diesWithin):
		o.trap = &trap{count: at}
	case breaks && s.may(storeFails):
		o.breaks = at
	}
}
