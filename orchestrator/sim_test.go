package orchestrator

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

// The simulator runs two shards of one application in one goroutine. A seed decides all of it: what comes in,
// which write lands when, who dies in the middle of what (sim_faults_test.go), and what participants answer
// (sim_world_test.go). Then everything heals, and what happened must look like a run without faults (G8).
//
//	go test ./orchestrator -run TestSimulation -args -seeds 1000 -first 5000
//
// A seed that fails prints its run; -seeds 1 -first SEED repeats it.
var (
	simSeeds = flag.Int("seeds", 300, "how many runs TestSimulation makes")
	simFirst = flag.Uint64("first", 0, "the seed of the first")
)

const (
	simShards = 2
	simSteps  = 220
	simFew    = 100 // fewer runs than this need not have met every fault
)

func TestSimulation(t *testing.T) {
	landed, ends := map[fault]int{}, map[string]int{}
	for n := range *simSeeds {
		s := simulate(t, *simFirst+uint64(n))
		for _, h := range s.instances {
			ends[fmt.Sprintf("%s %s", h.Definition, h.State)]++
		}
		for f, times := range s.landed {
			landed[f] += times
		}
	}
	for _, f := range faults {
		if landed[f] == 0 && *simSeeds >= simFew {
			t.Errorf("in no run did this fault land: %s", f)
		}
		t.Logf("%7d × %s", landed[f], f)
	}
	for _, end := range []string{"two completed", "two compensated", "parcel completed", "parcel compensated", "errand completed", "errand compensated", "receipt completed"} {
		if ends[end] == 0 && *simSeeds >= simFew {
			t.Errorf("in no run an instance of %s", end)
		}
		t.Logf("%7d sagas %s", ends[end], end)
	}
}

func TestASeedDecidesItsWholeSimulation(t *testing.T) {
	for seed := range uint64(3) {
		if a, b := simulate(t, seed).digest(), simulate(t, seed).digest(); a != b {
			t.Errorf("seed %d runs in two ways", seed)
		}
	}
	if simulate(t, 1).digest() == simulate(t, 2).digest() {
		t.Error("two seeds run in the same way: the digest says nothing")
	}
}

// simulate makes the run of a seed, from its beginning to its checks.
func simulate(t *testing.T, seed uint64) *simulation {
	t.Helper()
	s := newSimulation(t, seed)
	defer s.explain()
	s.begin()
	for range simSteps {
		s.step()
	}
	s.heal()
	s.check()
	return s
}

// parcel is a saga with forks, a pivot, a deadline and a short retention, beside the plain twoSteps.
var parcel = func() *sagas.Definition {
	step := func(name, topic string) sagas.StepOf[order] {
		return sagas.Step(name, sagas.NewCommand[charge, charged](topic, name), toCharge, nil)
	}
	undoable := func(name, topic string) sagas.StepOf[order] {
		return step(name, topic).Undo(sagas.With(sagas.NewCommand[charge, charged](topic, "un-"+name), toCharge))
	}
	return sagas.Define("parcel", "1", sagas.StartOn(sagas.NewEvent[orderPlaced]("parcels", ""), func(e orderPlaced) order { return order(e) }),
		sagas.Seq(
			undoable("reserve", "shipping"),
			sagas.All(sagas.LetItFinish, undoable("weigh", "shipping"), undoable("authorize", "payments")),
			sagas.All(sagas.CancelRest, undoable("book", "shipping"), sagas.Seq(undoable("print", "shipping"), undoable("stick", "payments"))),
			step("capture", "ledger").Pivot().Retry(sagas.ForEver()),
			step("notify", "ledger").Retriable().Retry(sagas.ForEver()),
		)).Deadline(90 * time.Second).Retention(20 * time.Second)
}()

// errand waits for an event that carries another key than its own, and for a signal. Its order starts a receipt as
// well, which lives wherever its own key does.
var (
	errandPlaced = sagas.NewEvent[orderPlaced]("errands", "Placed")
	errandPaid   = sagas.NewEvent[paid]("errands", "Paid").KeyBy(func(p paid) string { return p.Invoice })
	approve      = sagas.NewSignal[struct{}]("approve")

	errand = sagas.Define("errand", "1", sagas.StartOn(errandPlaced, func(e orderPlaced) order { return order(e) }),
		sagas.Seq(
			sagas.Step("fetch", sagas.NewCommand[charge, charged]("shipping", "fetch"), toCharge, nil).Undo(sagas.With(sagas.NewCommand[charge, charged]("shipping", "un-fetch"), toCharge)),
			sagas.Wait[order]("paid", errandPaid, nil).By(func(o order) string { return "bill-" + o.ID }).Within(40*time.Second).Keep(2*time.Minute),
			sagas.Wait[order]("approved", approve, nil).Within(40*time.Second),
			sagas.Step("deliver", sagas.NewCommand[charge, charged]("payments", "deliver"), toCharge, nil).Undo(sagas.With(sagas.NewCommand[charge, charged]("payments", "un-deliver"), toCharge)),
		))
	receipt = sagas.Define("receipt", "1", sagas.StartOn(errandPlaced.KeyBy(func(e orderPlaced) string { return "receipt-" + e.ID }), func(e orderPlaced) order { return order(e) }),
		sagas.Step("print-receipt", sagas.NewCommand[charge, charged]("shipping", "print-receipt"), toCharge, nil).Undo(sagas.With(sagas.NewCommand[charge, charged]("shipping", "un-print-receipt"), toCharge)))
)

// simulation is one run.
type simulation struct {
	*story
	seed  uint64
	rng   *rand.Rand
	plans map[string]*sagas.Plan

	owners  [simShards]*owner // who is alive and thinks that it owns the shard, the last opened
	zombies []*owner          // paused owners whose shards were taken
	nodes   int
	queue   []*write // what owners sent off and is not in its log
	shelf   [simShards][]oldStore
	landed  map[fault]int
	stuck   map[string]bool // command topics whose leader is away
	refuses map[string]bool // command topics that are gone
	healed  bool

	twins     [simShards]*twin
	decided   map[string]*decided // commands of accepted decisions, by ce_id
	answers   map[string]int      // accepted decisions, by the place of the input they answer
	instances map[events.InstanceID]*events.Head
	orders    map[string]bool // business keys that came in
	poison    map[string]bool // places of what nobody can take
	errands   []string        // business keys
	paid      map[string]int  // events that say so, by errand
	actions   int             // sent
	said      map[saying]*said
	acted     map[string]int // decisions, by the action's id
	world     *participants
	trace     []string // what happened, for people
}

// decided is a command of an accepted decision.
type decided struct {
	bytes   string
	landed  bool
	refused bool // a decision says that Kafka refuses it
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	t.Helper()
	s := &simulation{story: newStory(t, simShards, twoSteps), seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), plans: map[string]*sagas.Plan{},
		landed: map[fault]int{}, stuck: map[string]bool{}, refuses: map[string]bool{}, decided: map[string]*decided{}, answers: map[string]int{},
		instances: map[events.InstanceID]*events.Head{}, orders: map[string]bool{}, poison: map[string]bool{},
		paid: map[string]int{}, said: map[saying]*said{}, acted: map[string]int{}}
	for _, def := range []Definition{twoSteps, parcel, errand, receipt} {
		plan, err := def.Plan()
		must(t, err)
		s.plans[plan.Name] = plan
	}
	for i := range s.twins {
		s.twins[i] = newTwin()
	}
	s.world = newParticipants(s)
	compactAfter, applyAfter, maxInFlight := int64(1<<10<<s.rng.IntN(4)), time.Duration(s.rng.IntN(3))*200*time.Millisecond, 3+s.rng.IntN(100)
	s.tune = func(c *ShardConfig) {
		c.CompactAfter, c.ApplyAfter, c.MaxInFlight, c.RowCache = compactAfter, applyAfter, maxInFlight, 1<<16
		c.From = FromLatest // so that a start position that is lost loses an order
		c.Domain = map[string]int{"orders": simShards, "parcels": simShards, "errands": simShards}
		c.Inputs = []TopicPartition{{"orders", c.ID}, {"parcels", c.ID}, {"errands", c.ID}}
		c.Machine = machine.New(machine.Config{App: app, Slots: simShards * events.SlotsPerShard, Plans: []*sagas.Plan{s.plans["two"], s.plans["parcel"], s.plans["errand"], s.plans["receipt"]}})
		o := s.owners[c.ID]
		c.Kafka, c.Clock, c.Node = o, o.clock, o.name
	}
	return s
}

// note adds a line to the story of the run.
func (s *simulation) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf("%8.3fs  ", float64(s.kafka.now-1_000_000)/1000)+fmt.Sprintf(format, args...))
}

// wrong ends the run: something is not as it must be.
func (s *simulation) wrong(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d: %s", s.seed, fmt.Sprintf(format, args...))
}

func (s *simulation) explain() {
	if s.t.Failed() {
		s.t.Logf("what happened in the run of seed %d:\n%s", s.seed, strings.Join(s.trace, "\n"))
	}
}

// digest is a hash of everything that happened.
func (s *simulation) digest() [32]byte { return sha256.Sum256([]byte(strings.Join(s.trace, "\n"))) }

func (s *simulation) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *simulation) shard() int32 { return int32(s.rng.IntN(simShards)) }

// commandTopics are where commands go.
func commandTopics() []string { return []string{"ledger", "payments", "shipping"} }

func (s *simulation) begin() {
	for i := range int32(simShards) {
		s.reopen(i)
	}
}

// step is one thing that happens.
func (s *simulation) step() {
	switch r := s.rng.IntN(100); {
	case r < 40:
		s.turn(s.owners[s.shard()])
	case r < 62:
		s.landSome(s.rng.IntN(12))
	case r < 69:
		s.orderComes()
	case r < 72:
		s.somebodyActs()
	case r < 74:
		s.payingComes(s.anyErrand())
	case r < 84:
		s.world.act()
	case r < 89:
		s.pass(time.Duration(s.rng.IntN(4000)) * time.Millisecond)
	case r < 90:
		s.pass(time.Duration(s.rng.IntN(40)) * time.Second)
	default:
		s.fault()
	}
}

// pass lets broker time go on.
func (s *simulation) pass(d time.Duration) {
	s.advance(d)
	s.note("%s pass", d)
}

// orderComes puts a new order, now and then twice, on any partition of its topic.
func (s *simulation) orderComes() {
	topic := [...]string{"orders", "parcels", "errands"}[s.rng.IntN(3)]
	key := fmt.Sprintf("%s-%d", topic, len(s.orders))
	s.orders[key] = true
	if topic == "errands" {
		if s.chance(20) {
			s.payingComes(key) // before anybody waits for it
			s.lands(eventEarly)
		}
		s.orders["receipt-"+key] = true
		s.errands = append(s.errands, key)
		s.put(events.Message{Topic: topic, Partition: s.shard(), Key: []byte(key), Value: []byte(`{"id":"` + key + `"}`),
			Headers: []events.Header{{Key: events.HeaderID, Value: []byte(key)}, {Key: events.HeaderType, Value: []byte("Placed")}}})
		return
	}
	m := events.Message{Topic: topic, Partition: s.shard(), Key: []byte(key), Value: []byte(`{"id":"` + key + `"}`),
		Headers: []events.Header{{Key: events.HeaderID, Value: []byte(key)}}}
	s.put(m)
	if topic == "orders" && s.chance(10) { // those of parcels are forgotten soon after their end
		m.Partition = s.shard()
		s.put(m)
		s.lands(orderTwice)
	}
}

func (s *simulation) anyErrand() string {
	if len(s.errands) == 0 {
		return ""
	}
	return s.errands[s.rng.IntN(len(s.errands))]
}

// payingComes puts the event that an errand waits for on any partition, now and then twice.
func (s *simulation) payingComes(key string) {
	if key == "" {
		return
	}
	s.paid[key]++
	m := events.Message{Topic: "errands", Partition: s.shard(), Key: []byte("bank"), Value: []byte(`{"Invoice":"bill-` + key + `"}`),
		Headers: []events.Header{{Key: events.HeaderID, Value: fmt.Appendf(nil, "paid-%s-%d", key, s.paid[key])}, {Key: events.HeaderType, Value: []byte("Paid")}}}
	s.put(m)
	if s.chance(20) {
		m.Partition = s.shard()
		s.put(m)
		s.lands(eventTwice)
	}
}

// somebodyActs on an errand, by its key or by its id, now and then twice.
func (s *simulation) somebodyActs() {
	key := s.anyErrand()
	if key == "" {
		return
	}
	a := events.Action{Kind: events.ActionSignal, Name: "approve"}
	switch r := s.rng.IntN(20); {
	case r < 2:
		a = events.Action{Kind: events.ActionSuspend}
	case r < 6:
		a = events.Action{Kind: events.ActionResume}
	case r < 7:
		a = events.Action{Kind: events.ActionCancel, Why: "a test"}
	case r < 8:
		a = events.Action{Kind: events.ActionRetry}
	case r < 9:
		a = events.Action{Kind: events.ActionCompensate, Why: "a test"}
	}
	s.act(key, a)
}

func (s *simulation) act(key string, a events.Action) {
	s.actions++
	a.ID, a.Who, a.Time = fmt.Sprint("action-", s.actions), "somebody", s.kafka.now
	to := events.NewInstanceID(app, "errand", key, key, simShards*events.SlotsPerShard)
	if s.chance(50) {
		a.Definition, a.Key = "errand", key
		to = events.KeyID(app, "errand", key, simShards*events.SlotsPerShard)
	}
	msg := events.InboxMessage{Kind: events.InboxAction, To: to, Action: &a}
	m := events.WrapMessage(msg.Encode(nil), to, nil)
	m.Topic, m.Partition = "shop.inbox", to.Shard(simShards)
	s.note("%s: %s of %s", a.ID, a.Kind, key)
	s.put(m)
	if s.chance(15) {
		s.put(m)
		s.lands(actionTwice)
	}
}

// put adds a record from outside.
func (s *simulation) put(m events.Message) {
	s.note("%s comes to %s/%d/%d", m.Key, m.Topic, m.Partition, s.end(TopicPartition{m.Topic, m.Partition}))
	s.kafka.put(m)
}

// end is the offset of a partition's next message.
func (s *simulation) end(tp TopicPartition) int64 {
	_, end := s.bounds(tp)
	return end
}

func (s *simulation) bounds(tp TopicPartition) (start, end int64) {
	b, err := s.kafka.Bounds(context.Background(), []TopicPartition{tp})
	must(s.t, err)
	return b[tp].Start, b[tp].End
}

// turn lets a living owner read a little and take its turn. One that ends is replaced.
func (s *simulation) turn(o *owner) {
	o.poll()
	start := s.journalStart(o.shard)
	_, err := o.sh.Turn(context.Background())
	o.sh.background.Wait()
	if s.journalStart(o.shard) > start {
		s.lands(trimmed)
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrClaimLost), errors.Is(err, ErrUnknownAppend):
		s.note("%s ends: %v", o, err)
		s.gaveUp(o)
	default:
		s.wrong("%s ends: %v", o, err)
	}
}

func (s *simulation) journalStart(shard int32) int64 {
	b, err := s.kafka.Log("shop.journal", shard).Bounds(context.Background())
	must(s.t, err)
	return b.Start
}

// reopen makes a new owner of the shard, with the store that is there.
func (s *simulation) reopen(shard int32) {
	for tries := 0; ; tries++ {
		o := s.newOwner(shard)
		s.owners[shard] = o
		sh, err := OpenShard(context.Background(), s.config(shard, ""))
		if err == nil {
			o.sh, o.direct = sh, false
			sh.background.Wait()
			s.note("%s owns shard %d, having read up to offset %d", o, shard, sh.applied.Next)
			return
		}
		s.note("%s does not get shard %d: %v", o, shard, err)
		switch {
		case tries > 8:
			s.wrong("shard %d does not open: %v", shard, err)
		case errors.Is(err, ErrUntrusted):
			s.lose(shard)
		case !errors.Is(err, ErrUnknownAppend) && !errors.Is(err, ErrClaimLost):
			s.wrong("shard %d does not open: %v", shard, err)
		}
	}
}

// heal ends all faults, and lets everybody finish what there is.
func (s *simulation) heal() {
	s.note("everything heals")
	s.healed = true
	clear(s.stuck)
	clear(s.refuses)
	for len(s.zombies) > 0 {
		s.wake(0)
	}
	for _, o := range s.owners {
		o.goOn()
	}
	const rounds = 200
	for round := 0; ; round++ {
		s.settle()
		if round > 3 && len(s.open()) == 0 {
			break
		}
		if round == rounds {
			s.wrong("not final after %d rounds: %v", rounds, s.open())
		}
		s.world.executeAll()
		if round%5 == 4 {
			s.world.executeOpenAgain()
		}
		for _, id := range s.instanceIDs() {
			if s.instances[id].State == events.Suspended && s.instances[id].Definition == "errand" {
				s.act(s.instances[id].Key, events.Action{Kind: events.ActionResume})
			}
		}
		s.pass(5 * time.Second)
	}
	s.world.executeEverythingAgain()
	s.settle()
	s.pass(2 * time.Second) // progress is journaled
	s.settle()
}

// settle turns both shards until nothing is left to do at this moment.
func (s *simulation) settle() {
	for range 1000 {
		for s.landNext() {
		}
		busy := false
		for i := range s.owners {
			s.turn(s.owners[i])
			busy = busy || s.owners[i].sh.hasMail() || s.owners[i].behind() || len(s.queue) > 0
		}
		if !busy {
			return
		}
	}
	s.wrong("the shards do not come to rest")
}

// open are the instances that have not ended.
func (s *simulation) open() (out []string) {
	for _, id := range s.instanceIDs() {
		if h := s.instances[id]; !h.State.Final() {
			out = append(out, fmt.Sprintf("%s is %v %s", h.Key, h.State, h.Code))
		}
	}
	return out
}

func (s *simulation) instanceIDs() []events.InstanceID {
	return slices.SortedFunc(maps.Keys(s.instances), func(a, b events.InstanceID) int { return strings.Compare(string(a[:]), string(b[:])) })
}

// check is what must hold in the end. What must hold at every moment is checked when it happens: see owner.Produce,
// ownerLog.Append and simulation.accepted.
func (s *simulation) check() {
	s.checkOneInstancePerOrder()
	s.checkWhatIsDecidedIsEmitted()
	s.checkWhatIsSaidIsHeard()
	s.checkEveryInputIsAnsweredOnce()
	s.checkPoisonIsInQuarantine()
	s.checkEffects()
	for i := range int32(simShards) {
		s.checkRebuilt(i)
	}
}

func (s *simulation) checkOneInstancePerOrder() {
	found := map[string]int{}
	for _, h := range s.instances {
		found[h.Key]++
	}
	for _, key := range slices.Sorted(maps.Keys(s.orders)) {
		if found[key] != 1 {
			s.wrong("%d instances of %s, want 1", found[key], key)
		}
	}
	if len(found) != len(s.orders) {
		s.wrong("%d orders came, and %d have an instance", len(s.orders), len(found))
	}
}

// That nothing else was emitted, and no other bytes, was checked when it was sent.
func (s *simulation) checkWhatIsDecidedIsEmitted() {
	for _, id := range slices.Sorted(maps.Keys(s.decided)) {
		if d := s.decided[id]; !d.landed && !d.refused {
			s.wrong("command %s was decided and never emitted:\n%s", id, d.bytes)
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
func (s *simulation) checkEveryInputIsAnsweredOnce() {
	for _, topic := range []string{"orders", "parcels", "errands", "shop.replies"} {
		for p := range int32(simShards) {
			for offset := range s.end(TopicPartition{topic, p}) {
				if at := placeOf(topic, p, offset); s.answers[at] == 0 {
					s.wrong("no decision answers %s", at)
				}
			}
		}
	}
}

func (s *simulation) checkPoisonIsInQuarantine() {
	found := map[string]bool{}
	for _, m := range s.kafka.messages("shop.quarantine", 0) {
		at, _ := m.Header(events.HeaderPlace)
		found[at] = true
	}
	if !maps.Equal(found, s.poison) {
		s.wrong("in quarantine are %v, want %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(s.poison)))
	}
}

// checkEffects is what sagas are for (G2).
func (s *simulation) checkEffects() {
	for _, id := range s.instanceIDs() {
		h := s.instances[id]
		var want []string
		if h.State == events.Completed {
			for _, n := range s.plans[h.Definition].Nodes {
				if n.Step != nil {
					want = append(want, n.Step.Type)
				}
			}
		}
		slices.Sort(want)
		if got := s.world.effects(id); !slices.Equal(got, want) {
			s.wrong("%s is %v, and its effects are %v, want %v", h.Key, h.State, got, want)
		}
	}
}

// checkRebuilt compares the live store with what the compacted journal gives, and with what all that was ever in
// it gives (G7).
func (s *simulation) checkRebuilt(shard int32) {
	s.owners[shard].sh.background.Wait()
	must(s.t, s.owners[shard].sh.apply())
	s.wantRebuilt(shard)
	c, err := s.compare(shard, s.state(shard), s.stores[shard])
	if err != nil || !c.Equal {
		s.wrong("shard %d: %d live rows, %d rebuilt, equal %v, %v", shard, c.Rows, c.Rebuilt, c.Equal, err)
	}
	left := maps.Clone(s.twins[shard].rows)
	must(s.t, s.stores[shard].Scan(nil, nil, func(r store.Row) bool {
		if want, ok := left[string(r.Key)]; !ok || want != (twinRow{string(r.Value), r.Due}) {
			s.wrong("shard %d: row %x is %x, due %d; the journal says %x, due %d", shard, r.Key, r.Value, r.Due, want.value, want.due)
		}
		delete(left, string(r.Key))
		return true
	}))
	if len(left) > 0 {
		s.wrong("shard %d: %d rows are missing in the store", shard, len(left))
	}
}

func placeOf(topic string, partition int32, offset int64) string {
	return (&events.Message{Topic: topic, Partition: partition, Offset: offset}).Place()
}

// mark is a short sum of bytes, for the trace.
func mark(b []byte) string {
	h := fnv.New32a()
	_, _ = h.Write(b)
	return fmt.Sprintf("#%08x", h.Sum32())
}
