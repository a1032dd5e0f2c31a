package machine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// TestRandomCorrelations lets sagas wait for the events of two keys, on two shards whose clocks differ: messages
// between instances and correlations are late and overtake each other, Waits time out, instances are suspended,
// parked, cancelled and terminated meanwhile, and events come twice. No event may be lost or given twice, and once
// everything has arrived both sides agree on who waits. A failure names its seed.
func TestRandomCorrelations(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs = 100
	}
	seen := map[string]int{}
	for seed := range runs {
		if !t.Run("seed="+strconv.Itoa(seed), func(t *testing.T) { newPost(t, uint64(seed), seen).run() }) {
			return
		}
	}
	t.Logf("seen: %v", seen)
	for _, what := range []string{"taken", "refused", "expired", "duplicate", "ended first", "held", "again"} {
		if seen[what] < runs/20 {
			t.Errorf("%q only %d times in %d runs: the test looks away", what, seen[what], runs)
		}
	}
}

// post is one run.
type post struct {
	t         *testing.T
	rnd       *rand.Rand
	w         *world
	broken    map[string]bool
	seen      map[string]int
	instances []events.InstanceID
	events    map[string]*fate
	trace     strings.Builder
}

// fate is what became of an event that a correlation accepted.
type fate struct {
	until   int64
	taken   int
	expired bool
}

func newPost(t *testing.T, seed uint64, seen map[string]int) *post {
	p := &post{t: t, rnd: rand.New(rand.NewPCG(seed, 20)), broken: map[string]bool{}, seen: seen, events: map[string]*fate{}}
	plans := []string{
		"finish(w1:on=paid:by=K:within=40s:keep=2m,w2:on=paid:by=K:keep=2m)",
		"finish(seq(w1:on=paid:by=K:within=20s:keep=2m,w2:on=paid:by=L:within=50s),w3:on=paid:by=L)",
		"seq(all(w1:on=paid:by=K:within=30s:keep=2m,w2:on=paid:by=K:within=1m,w3:on=paid:by=L))",
	}
	plan := planOf(t, plans[p.rnd.IntN(len(plans))], p.broken)
	p.w = newWorld(t, Config{Plans: []*sagas.Plan{plan}})
	return p
}

func (p *post) run() {
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Log(p.trace.String())
		}
	})
	for range 150 {
		p.move()
	}
	// Calm: everything arrives, whoever was stopped goes on or ends.
	clear(p.broken)
	for range 20 {
		p.w.now += 3000 // so that what is due at once is due by every clock
		for len(p.w.sent) > 0 {
			p.deliver(p.rnd.IntN(len(p.w.sent)))
		}
		for _, id := range p.instances {
			switch p.head(id).State {
			case events.Parked:
				p.act(id, events.ActionRetry)
			case events.Suspended:
				p.act(id, events.ActionResume)
			}
			p.fire(id, func(ref events.RowRef) bool { return ref == headRef && !p.head(id).State.Final() })
		}
	}
	p.audit()
}

func (p *post) head(id events.InstanceID) *events.Head {
	h, err := events.DecodeHead(p.w.of(id)[headRef].value)
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

// at decides on a shard whose clock may be behind.
func (p *post) at(what string, id events.InstanceID, fn func() *events.Decision) *events.Decision {
	now := p.w.now
	if id.Slot()%2 == 1 {
		p.w.now -= 3000
	}
	d := p.w.at(id, fn)
	p.trace.WriteString(what + " -> " + p.w.print(d))
	p.w.now = now
	p.note(d)
	return d
}

func (p *post) note(d *events.Decision) {
	for _, e := range d.Entries {
		if e.Kind == events.EntryEvent {
			p.seen["taken"]++
			if p.events[e.Message].taken++; p.events[e.Message].taken > 1 {
				p.t.Fatalf("%s is given twice", e.Message)
			}
			if p.events[e.Message].expired {
				p.t.Fatalf("%s is given, and was dropped", e.Message)
			}
		}
	}
	if ids, ok := strings.CutPrefix(d.Reason, ReasonExpiredEvent); ok {
		_, ids, _ = strings.Cut(ids, "took: ")
		for _, id := range strings.Split(ids, ", ") {
			p.seen["expired"]++
			if f := p.events[id]; f.taken > 0 || f.expired || f.until > p.w.now {
				p.t.Fatalf("%s is dropped too soon, or was taken: %+v", id, *f)
			}
			p.events[id].expired = true
		}
	}
}

func (p *post) move() {
	p.w.now += int64(p.rnd.IntN(3000))
	switch k := p.rnd.IntN(24); {
	case k < 3 && len(p.instances) < 8:
		key := "order-" + strconv.Itoa(len(p.instances))
		routes, err := p.w.m.Routes(&events.Message{Topic: "orders", Key: []byte(key), Value: []byte(key)})
		if err != nil {
			p.t.Fatal(err)
		}
		s := routes[0].Start
		p.w.names[s.Instance] = key
		p.at("start", s.Instance, func() *events.Decision { return p.w.m.Start(p.w, p.w.now, *s) })
		p.instances = append(p.instances, s.Instance)
	case k < 7:
		p.event()
	case k < 16 && len(p.w.sent) > 0:
		p.deliver(p.rnd.IntN(len(p.w.sent)))
	case k < 18 && len(p.instances) > 0:
		id := p.instances[p.rnd.IntN(len(p.instances))]
		if !p.head(id).State.Final() {
			kinds := []events.ActionKind{events.ActionSuspend, events.ActionResume, events.ActionResume, events.ActionRetry, events.ActionCancel, events.ActionTerminate}
			p.act(id, kinds[p.rnd.IntN(len(kinds))])
		}
	case k == 18:
		p.broken["w1.take"] = p.rnd.IntN(2) == 0
	default:
		p.due()
	}
}

func (p *post) event() {
	n := len(p.events)
	if n > 0 && p.rnd.IntN(3) == 0 {
		n = p.rnd.IntN(n) // once more
	}
	id, key := "e"+strconv.Itoa(n), []string{"K", "L"}[n%2]
	routes, err := p.w.m.Routes(&events.Message{Topic: "payments", Key: []byte(key), Value: []byte(id),
		Headers: []events.Header{{Key: events.HeaderType, Value: []byte("paid")}, {Key: events.HeaderID, Value: []byte(id)}}})
	if err != nil || len(routes) != 1 {
		p.t.Fatalf("%v %v", routes, err)
	}
	e := routes[0].Event
	f := p.events[id]
	known := f != nil && (f.until > p.w.now && !f.expired)
	if f != nil && f.until > p.w.now-6000 && !known {
		return // the clocks disagree on whether it is known
	}
	d := p.at("event "+id, e.Correlation, func() *events.Decision { return p.w.m.Event(p.w, p.w.now, *e) })
	switch {
	case known:
		if p.seen["duplicate"]++; d.Outcome != events.Ignored {
			p.t.Fatalf("%s is taken up twice", id)
		}
	case d.Outcome == events.Applied:
		if f != nil {
			p.seen["again"]++ // it is remembered no more
		}
		p.events[id] = &fate{until: p.w.now + e.Keep.Milliseconds() - 3000}
	}
}

func (p *post) deliver(i int) {
	m := p.w.sent[i]
	p.w.sent = append(p.w.sent[:i:i], p.w.sent[i+1:]...)
	if m.Kind == events.InboxRefused {
		p.seen["refused"]++
	}
	d := p.at("deliver "+p.w.printMessage(m.Encode(nil)), m.To, func() *events.Decision { return p.w.m.Message(p.w, p.w.now, m) })
	switch {
	case d.Outcome != events.Applied:
		p.t.Fatalf("what arrives once is not taken: %s", d.Reason)
	case m.Kind == events.InboxUnsubscribe && strings.Contains(p.w.print(d), "ended "+p.w.waiter(&m.From)):
		p.seen["ended first"]++
	case m.Kind == events.InboxOffer && strings.Contains(p.w.print(d), " held"):
		p.seen["held"]++
	}
}

func (p *post) act(id events.InstanceID, kind events.ActionKind) {
	a := &events.Action{ID: fmt.Sprintf("a%d", p.w.seq), Kind: kind}
	p.at("act "+string(kind), id, func() *events.Decision {
		return p.w.m.Message(p.w, p.w.now, &events.InboxMessage{Kind: events.InboxAction, To: id, Action: a})
	})
}

// due fires what is due, anywhere.
func (p *post) due() {
	var others []events.InstanceID
	for id := range p.w.all {
		if p.w.names[id] == "" {
			others = append(others, id)
		}
	}
	slices.SortFunc(others, func(a, b events.InstanceID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range others {
		p.fire(id, func(events.RowRef) bool { return true })
	}
	for _, id := range p.instances {
		p.fire(id, func(ref events.RowRef) bool { return ref != headRef || !p.head(id).State.Final() })
	}
}

func (p *post) fire(id events.InstanceID, which func(events.RowRef) bool) {
	before := p.w.id
	p.w.turnTo(id)
	due := p.w.due()
	if !before.IsZero() {
		p.w.turnTo(before)
	}
	for _, ref := range due {
		at := p.w.of(id)[ref].due
		if at == 0 || at > p.w.now-3000 || !which(ref) {
			continue
		}
		p.at("timer "+ref.Part.String(), id, func() *events.Decision { return p.w.m.Timer(p.w, p.w.now, Timer{id, ref, at}) })
	}
}

// audit: everything has arrived.
func (p *post) audit() {
	waiting := map[string]bool{}
	for _, id := range p.instances {
		if p.head(id).State.Final() {
			continue
		}
		for ref, c := range p.w.of(id) {
			if ref.Part != events.PartNode {
				continue
			}
			n, err := events.DecodeNode(c.value)
			if err != nil {
				p.t.Fatal(err)
			}
			if n.Key != "" && n.Status == events.NodeActive {
				waiting[p.w.waiter(&events.Waiter{Instance: id, Node: uint32(ref.N), Execution: n.Execution})] = true
			}
		}
	}
	kept := map[string]bool{}
	for id, rows := range p.w.all {
		c, err := events.DecodeCorrelation(rows[correlationRef].value)
		if err != nil {
			p.t.Fatal(err)
		}
		for i := range c.Waiting {
			name := p.w.waiter(&c.Waiting[i])
			if !waiting[name] {
				p.t.Errorf("%s is registered, and waits for nothing", name)
			}
			delete(waiting, name)
		}
		for _, e := range c.Events {
			if e.Offered != nil {
				p.t.Errorf("the offer of %s is not answered", e.ID)
			} else if len(c.Waiting) > 0 {
				p.t.Errorf("%s is kept, and somebody waits for it", e.ID)
			}
			kept[e.ID] = true
			if k, err := events.DecodeKeptEvent(rows[keptRef(e.N)].value); err != nil || !bytes.Equal(k.Value, []byte(e.ID)) {
				p.t.Errorf("the row of %s holds %q: %v", e.ID, k.Value, err)
			}
		}
		if len(c.Ended) > 0 {
			p.t.Errorf("%s remembers ends whose other half has come: %v", id, c.Ended)
		}
		for ref := range rows {
			if ref.Part == events.PartEvent && len(c.Events) == 0 {
				p.t.Errorf("a row of an event that is gone")
			}
		}
	}
	for name := range waiting {
		p.t.Errorf("%s waits, and is not registered", name)
	}
	for id, f := range p.events {
		if ends := f.taken; !(ends == 1 && !f.expired && !kept[id] || ends == 0 && f.expired != kept[id]) {
			p.t.Errorf("%s: %+v, kept %v", id, *f, kept[id])
		}
	}
}
