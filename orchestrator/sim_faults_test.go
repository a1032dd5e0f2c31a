package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// fault is a kind of what goes wrong. A run counts each time that one had its effect.
type fault string

const (
	// Owners.
	diesLosing   fault = "an owner dies, and what it sent off is lost"
	diesLanding  fault = "an owner dies, and a part of what it sent off lands unacknowledged"
	diesLate     fault = "an owner dies, and what it sent off lands later"
	handsOver    fault = "an owner hands over"
	paused       fault = "an owner is paused, and its shard is taken"
	wakes        fault = "a paused owner wakes and goes on"
	disordered   fault = "what a dead owner sent off lands in another order"
	claimAgain   fault = "a claim is there again, some time later"
	claimLate    fault = "a claim is not acknowledged, and lands later"
	clockOff     fault = "an owner's clock is far off"
	clockStands  fault = "an owner's clock stands still for a while"
	storeLost    fault = "a store is lost"
	storeOld     fault = "a shard comes to a node with an old store"
	storeForeign fault = "a shard comes to a node with the store of a truncated journal"

	// Kafka.
	truncated      fault = "a journal loses a tail that was read and not acknowledged"
	appendTwice    fault = "a journal record is there twice"
	appendRetried  fault = "a journal record is there twice, and the second is acknowledged"
	appendUnknown  fault = "the outcome of an append is unknown"
	messageTwice   fault = "a message is there twice"
	messageUnknown fault = "the outcome of a produce is unknown"
	topicStuck     fault = "a command topic is stuck"
	topicRefuses   fault = "a command topic refuses"
	trimmed        fault = "a journal is compacted and trimmed"

	// The world.
	poisoned       fault = "a record that nobody can take"
	orderTwice     fault = "an order comes twice"
	eventEarly     fault = "an event comes before anybody waits for it"
	eventTwice     fault = "an event that is waited for comes twice"
	actionTwice    fault = "an operator's action comes twice"
	commandAgain   fault = "a participant reads a command again"
	commandExpired fault = "a participant reads a command after its expiry"
	undoFirst      fault = "a participant reads an undo before what it undoes"
	replyLost      fault = "a reply is lost"
	replyTwice     fault = "a reply comes twice"
)

var faults = []fault{
	diesLosing, diesLanding, diesLate, disordered, handsOver, paused, wakes, claimLate, claimAgain, clockOff, clockStands, storeLost, storeOld, storeForeign,
	truncated, appendTwice, appendRetried, appendUnknown, messageTwice, messageUnknown, topicStuck, topicRefuses, trimmed,
	poisoned, orderTwice, eventEarly, eventTwice, actionTwice, commandAgain, commandExpired, undoFirst, replyLost, replyTwice,
}

// lands counts a fault that had its effect.
func (s *simulation) lands(f fault) {
	s.landed[f]++
	s.note("! %s", f)
}

// fault lets something go wrong that happens by itself. Others happen to a write as it lands, or to a reply.
func (s *simulation) fault() {
	switch s.rng.IntN(8) {
	case 0, 1, 2:
		s.replace(s.owners[s.shard()])
	case 3:
		if len(s.zombies) > 0 {
			s.wake(s.rng.IntN(len(s.zombies)))
		}
	case 4:
		s.poisonComes()
	case 5:
		s.toggle(s.stuck)
	case 6:
		s.toggle(s.refuses)
	case 7:
		o := s.owners[s.shard()]
		if o.stands {
			o.goOn()
			return
		}
		o.stands, o.stood = true, o.clock()
		s.lands(clockStands)
	}
}

// toggle sets a command topic's trouble, or ends it. The ledger's is spared: a pivot that was never sent cannot be
// refused by its participant, and its instance would wait for an operator.
func (s *simulation) toggle(trouble map[string]bool) {
	topic := [...]string{"payments", "shipping"}[s.rng.IntN(2)]
	trouble[topic] = !trouble[topic]
}

func (s *simulation) poisonComes() {
	m := events.Message{Topic: "orders", Partition: s.shard(), Key: fmt.Appendf(nil, "poison-%d", len(s.poison)), Value: []byte("{no")}
	switch s.rng.IntN(3) {
	case 0:
		m.Topic = "shop.replies" // without a command's id
	case 1:
		m.Topic = "parcels"
	}
	s.poison[placeOf(m.Topic, m.Partition, s.end(TopicPartition{m.Topic, m.Partition}))] = true
	s.put(m)
	s.lands(poisoned)
}

// replace ends a healthy owner in some way, and makes another one.
func (s *simulation) replace(o *owner) {
	s.dismiss(o, s.rng.IntN(7))
}

// gaveUp replaces an owner that ended by itself.
func (s *simulation) gaveUp(o *owner) {
	s.dismiss(o, s.rng.IntN(3))
}

// dismiss ends an owner and opens its shard anew. how picks the way; the first three are possible for every owner.
func (s *simulation) dismiss(o *owner, how int) {
	shard := o.shard
	switch mine := s.of(o); {
	case how == 0 && len(mine) > 0:
		s.forget(o)
		s.lands(diesLosing)
	case how == 1 && len(mine) > 0:
		s.forget(o)
		for _, w := range mine[:1+s.rng.IntN(len(mine))] {
			s.land(w)
		}
		s.lands(diesLanding)
	case how == 2 && len(mine) > 0:
		s.lands(diesLate)
	case how == 3:
		s.handOver(o)
	case how == 4 && len(s.zombies) < 3:
		s.zombies = append(s.zombies, o)
		s.stores[shard] = copyOf(s.t, s.stores[shard])
		s.lands(paused)
		s.change(shard)
		return
	case how == 5:
		s.truncate(o)
	default:
		s.forget(o)
		s.note("%s dies", o)
	}
	o.die()
	s.change(shard)
}

// oldStore is on the disk of a node that does not have the shard now.
type oldStore struct {
	*store.Memory
	kind fault // storeOld or storeForeign
}

// change opens the shard anew, on a node with some store.
func (s *simulation) change(shard int32) {
	if s.chance(10) {
		s.shelf[shard] = append(s.shelf[shard], oldStore{copyOf(s.t, s.stores[shard]), storeOld})
	}
	switch old := s.shelf[shard]; {
	case s.chance(20):
		s.lose(shard)
		s.lands(storeLost)
	case len(old) > 0 && s.chance(30):
		k := s.rng.IntN(len(old))
		s.stores[shard] = old[k].Memory
		s.lands(old[k].kind)
		s.shelf[shard] = slices.Delete(old, k, k+1)
	}
	if s.chance(10) {
		s.claimInVain(shard, true)
	}
	s.reopen(shard)
}

// handOver lets an owner finish what it has under way, if Kafka is willing.
func (s *simulation) handOver(o *owner) {
	mine := s.of(o)
	if slices.ContainsFunc(mine, func(w *write) bool { return s.stuck[w.tp.Topic] }) {
		s.lands(diesLate)
		return
	}
	s.forget(o)
	for _, w := range mine {
		s.landAcked(w)
	}
	o.direct = true
	err := o.sh.drain()
	o.sh.background.Wait()
	if err != nil && !errors.Is(err, ErrClaimLost) && !errors.Is(err, ErrUnknownAppend) {
		s.wrong("%s hands over with %v", o, err)
	}
	s.lands(handsOver)
}

// truncate ends an owner whose last records were not acknowledged. A node reads them into its store and dies before
// it has the shard; then the journal loses them. Nobody acted on them, but there is a store that knows them.
func (s *simulation) truncate(o *owner) {
	var tail []*write
	for _, w := range s.of(o) {
		if w.journal {
			tail = append(tail, w)
		}
	}
	s.forget(o)
	o.die()
	if len(tail) == 0 {
		return
	}
	part := s.kafka.part(TopicPartition{"shop.journal", o.shard})
	acknowledged := len(part.records)
	for _, w := range tail {
		s.kafka.write(&modelWrite{tp: w.tp, v: w.value, ack: func(int64, error) {}}, false)
	}
	good := s.stores[o.shard]
	s.stores[o.shard] = copyOf(s.t, good)
	s.claimInVain(o.shard, false)
	if s.stores[o.shard] == nil {
		s.wrong("the store of %s is no prefix of its journal", o)
	}
	s.shelf[o.shard] = append(s.shelf[o.shard], oldStore{s.stores[o.shard], storeForeign})
	s.stores[o.shard] = good
	part.records = part.records[:acknowledged:acknowledged]
	s.lands(truncated)
}

// claimInVain opens the shard on a node whose claim is not acknowledged: it is lost, or lands later.
func (s *simulation) claimInVain(shard int32, late bool) {
	o := s.newOwner(shard)
	o.deaf, o.claimLands = true, late
	s.owners[shard] = o
	_, err := OpenShard(context.Background(), s.config(shard, ""))
	o.die()
	switch {
	case errors.Is(err, ErrUntrusted):
		s.lose(shard)
	case !errors.Is(err, ErrUnknownAppend):
		s.wrong("%s claims in vain, with %v", o, err)
	case late:
		s.lands(claimLate)
	}
}

// wake lets a paused owner go on for a turn, with what it can read by now. What it does must change nothing; it is
// forgotten when it notices.
func (s *simulation) wake(k int) {
	o := s.zombies[k]
	s.lands(wakes)
	o.poll()
	_, err := o.sh.Turn(context.Background())
	o.sh.background.Wait()
	if s.healed && err == nil {
		err = errors.New("the run comes to its end")
	}
	if err != nil {
		s.note("%s ends: %v", o, err)
		s.zombies = slices.Delete(s.zombies, k, k+1)
		o.die()
	}
}

// write is what an owner sent off.
type write struct {
	owner   *owner
	tp      TopicPartition
	journal bool
	value   []byte          // of the journal
	message *events.Message // of other topics
	acked   func(int64, error)
	again   bool // it landed before
}

// of are the writes of an owner that did not land yet.
func (s *simulation) of(o *owner) (mine []*write) {
	for _, w := range s.queue {
		if w.owner == o && !w.again {
			mine = append(mine, w)
		}
	}
	return mine
}

// forget drops an owner's writes.
func (s *simulation) forget(o *owner) {
	s.queue = slices.DeleteFunc(s.queue, func(w *write) bool { return w.owner == o && !w.again })
}

func (s *simulation) landSome(n int) {
	for range n {
		s.landNext()
	}
}

// landNext lets any write through: in order for each living owner and partition, and in no order else. It
// reports whether there was one.
func (s *simulation) landNext() bool {
	if len(s.queue) == 0 {
		return false
	}
	picked := s.queue[s.rng.IntN(len(s.queue))]
	if s.stuck[picked.tp.Topic] {
		s.lands(topicStuck)
		return true
	}
	if picked.again && !s.healed && !s.chance(5) {
		return true
	}
	k := slices.IndexFunc(s.queue, func(w *write) bool { return w.owner == picked.owner && w.tp == picked.tp && w.again == picked.again })
	w := s.queue[k]
	if w != picked && picked.owner.dead && s.chance(30) {
		w, k = picked, slices.Index(s.queue, picked)
		s.lands(disordered)
	}
	s.queue = slices.Delete(s.queue, k, k+1)
	r := s.rng.IntN(100)
	switch {
	case s.healed || w.again || r >= 8:
		s.landAcked(w)
		if w.again {
			s.lands(claimAgain)
		}
	case r < 2: // the client gives up waiting; the record may be there
		if s.chance(50) {
			s.land(w)
		}
		s.lands(w.either(appendUnknown, messageUnknown))
		w.acked(0, errTimedOut)
	case r < 5:
		s.landAcked(w)
		s.land(w)
		s.lands(w.either(appendTwice, messageTwice))
	default: // the client does not hear of it and sends it again
		s.land(w)
		s.landAcked(w)
		s.lands(w.either(appendRetried, messageTwice))
	}
	return true
}

func (w *write) either(journal, message fault) fault {
	if w.journal {
		return journal
	}
	return message
}

var errTimedOut = errors.New("timed out")
