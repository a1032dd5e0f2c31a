package plans

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/skald-io/skald/sagas"
)

// Options are what a definition has besides its seed. The zero value is complete.
type Options struct {
	Name    string // of the definition; "": random
	Version string // "": 1
	// Topics begin with this, so that several definitions of one application do not share them; "": none does.
	Prefix string
	// Nodes is about how many nodes a plan has at most; 0: 40.
	Nodes int
	// NoPivot leaves pivots out, NoLoops loops; NoWaits leaves out what waits for events and signals.
	NoPivot, NoLoops, NoWaits bool
}

// Words of the definitions' vocabulary, each with Options.Prefix before it.
const (
	StartTopic  = "orders" // Order, of the type StartType; the business key is Order.ID
	WaitTopic   = "notes"  // Note, of the types of WaitTypes; the correlation key is Note.Key
	EmitTopic   = "news"   // what Emits tell
	Services    = 3        // the topics of commands are svc-0 to svc-2
	StartType   = "order.placed"
	Signal      = "go"            // a signal that carries a Note
	ApprovalBy  = "approve"       // an approval
	KeySuffix   = "-b"            // a Wait with a By asks for the business key with this, and the elements around it
	DeclinedFor = "declined-for"  // a code that no policy names
	NotAgain    = "not-this-time" // a code that some policies name as final
)

// WaitTypes are the types of the events that sagas wait for.
var WaitTypes = []string{"note.paid", "note.sent"}

// New makes the definition of a seed. Every definition it gives is valid.
func New(seed uint64, o Options) *sagas.Definition {
	if o.Nodes == 0 {
		o.Nodes = 40
	}
	if o.Name == "" {
		o.Name = "random"
	}
	if o.Version == "" {
		o.Version = "1"
	}
	g := &generator{rnd: rand.New(rand.NewPCG(seed, 0x5a6a5)), o: o, left: o.Nodes}
	for _, typ := range WaitTypes {
		g.events = append(g.events, sagas.NewEvent[Note](o.Prefix+WaitTopic, typ).KeyBy(func(n Note) string { return n.Key }))
	}
	order := sagas.NewEvent[Order](o.Prefix+StartTopic, StartType).KeyBy(func(e Order) string { return e.ID })
	root := g.saga()
	d := sagas.Define(o.Name, o.Version,
		sagas.StartOn(order, func(e Order) Data { return Data{ID: e.ID, Draw: e.Draw} }), root)
	return g.policies(d)
}

// generator draws one definition.
type generator struct {
	rnd    *rand.Rand
	o      Options
	left   int // nodes
	names  []string
	noted  []string // names under which something may have been noted
	events []sagas.Event[Note]
	sleeps time.Duration // of all Sleeps together
	within time.Duration // the longest Within
}

// where a node stands.
type where struct {
	past   bool // behind the pivot: nothing is undone, nothing may fail
	free   bool // whatever stands here may be undone without an undo
	caught bool // a failure ends at a Try
}

func (g *generator) one(of int) bool { return g.rnd.IntN(of) == 0 }

func (g *generator) name(kind string) string {
	n := kind + "-" + strconv.Itoa(len(g.names))
	g.names = append(g.names, n)
	g.left--
	return n
}

func (g *generator) seconds(most int) time.Duration {
	return time.Duration(1+g.rnd.IntN(most)) * time.Second
}

func (g *generator) policies(d *sagas.Definition) *sagas.Definition {
	if g.one(3) {
		d = d.Deadline(max(g.sleeps, g.within) + g.seconds(180))
	}
	if g.one(2) {
		d = d.Retention(time.Duration(1+g.rnd.IntN(48)) * time.Hour)
	}
	if g.one(3) {
		d = d.During(sagas.DuringIgnore)
	}
	return d.After([]sagas.After{sagas.AfterStart, sagas.AfterStart, sagas.AfterFailure, sagas.AfterQuarantine, sagas.AfterIgnore}[g.rnd.IntN(5)])
}

// saga draws a whole plan: one of three has a pivot.
func (g *generator) saga() sagas.NodeOf[Data] {
	l := top()
	if g.o.NoPivot || !g.one(3) {
		return tree(g, l, 5, where{})
	}
	whole := g.left
	g.left = whole / 2
	before := []sagas.NodeOf[Data]{}
	for range 1 + g.rnd.IntN(2) {
		before = append(before, tree(g, l, 3, where{}))
	}
	name := g.name("pivot")
	pivot := bare(g, l, name).Pivot().Timeout(g.seconds(40)).Retry(g.retry(1 + g.rnd.IntN(3))...)
	spine := []sagas.NodeOf[Data]{pivot}
	g.left += whole / 2
	past := where{past: true}
	after := []sagas.NodeOf[Data]{}
	for range g.rnd.IntN(3) {
		after = append(after, tree(g, l, 3, past))
	}
	if g.one(2) { // a Seq around it
		return sagas.Seq(append([]sagas.NodeOf[Data]{sagas.Seq(append(before, spine...)...)}, after...)...)
	}
	return sagas.Seq(append(append(before, spine...), after...)...)
}

// tree draws a node.
func tree[T any](g *generator, l *level[T], depth int, at where) sagas.NodeOf[T] {
	if depth > 0 && g.left > 3 && !g.one(4) {
		return branch(g, l, depth-1, at)
	}
	return leaf(g, l, at)
}

func trees[T any](g *generator, l *level[T], most, depth int, at where) (all []sagas.NodeOf[T]) {
	for range 1 + g.rnd.IntN(most) {
		if all == nil || g.left > 1 {
			all = append(all, tree(g, l, depth, at))
		}
	}
	return all
}

func leaf[T any](g *generator, l *level[T], at where) sagas.NodeOf[T] {
	switch k := g.rnd.IntN(18); {
	case k == 0:
		return sleep(g, l)
	case k == 1 || k == 2:
		return do(g, l)
	case k == 3:
		return emit(g, l)
	case k == 4 && !g.o.NoWaits:
		return wait(g, l, at, waitEvent(g, l))
	case k == 5 && !g.o.NoWaits:
		name := g.name("signal")
		g.noted = append(g.noted, name)
		return wait(g, l, at, sagas.Wait(name, sagas.NewSignal[Note](Signal), func(t *T, n Note) { l.note(t, name, n.V) }))
	case k == 6 && !g.o.NoWaits:
		name := g.name("approval")
		g.noted = append(g.noted, name)
		return wait(g, l, at, sagas.Wait(name, sagas.Approval(ApprovalBy), func(t *T, d sagas.Decision) {
			if d.Approved {
				l.note(t, name, 1)
			}
		}))
	case k == 7 && (!at.past || at.caught):
		return sagas.Require(g.name("require"), l.holds(g.cond()))
	}
	return step(g, l, at)
}

func sleep[T any](g *generator, _ *level[T]) sagas.NodeOf[T] {
	d := g.seconds(50)
	g.sleeps += d
	return sagas.Sleep[T](g.name("sleep"), d)
}

func do[T any](g *generator, l *level[T]) sagas.NodeOf[T] {
	name := g.name("do")
	g.noted = append(g.noted, name)
	if g.one(3) { // it changes the data around the element
		return sagas.Do(name, func(t *T) { l.saga(t).note(name, 0) })
	}
	return sagas.Do(name, func(t *T) { l.note(t, name, 0) })
}

func emit[T any](g *generator, l *level[T]) sagas.NodeOf[T] {
	name := g.name("emit")
	e := sagas.Emit(name, sagas.NewEvent[Ask](g.o.Prefix+EmitTopic, "told."+name), func(t T) Ask { return l.ask(t, name) })
	if g.one(2) {
		e = e.Key(l.key("-told"))
	}
	return e
}

func waitEvent[T any](g *generator, l *level[T]) sagas.WaitOf[T] {
	name := g.name("wait")
	g.noted = append(g.noted, name)
	w := sagas.Wait(name, g.events[g.rnd.IntN(len(g.events))], func(t *T, n Note) { l.note(t, name, n.V) })
	if g.one(3) {
		w = w.By(l.key(KeySuffix))
	}
	if g.one(3) {
		w = w.Keep(g.seconds(600))
	}
	return w
}

// wait bounds a Wait, where it may fail; elsewhere, and now and then, it waits for ever.
func wait[T any](g *generator, _ *level[T], at where, w sagas.WaitOf[T]) sagas.NodeOf[T] {
	if at.past && !at.caught || g.one(8) {
		return w
	}
	d := g.seconds(60)
	g.within = max(g.within, d)
	return w.Within(d)
}

func (g *generator) retry(most int) (options []sagas.RetryOption) {
	if g.one(3) {
		return nil
	}
	options = append(options, sagas.Attempts(1+g.rnd.IntN(most)))
	if g.one(2) {
		options = append(options, sagas.Backoff(g.seconds(3), g.seconds(20)+3*time.Second))
	}
	if g.one(3) {
		options = append(options, sagas.Jitter(float64(g.rnd.IntN(4))/4))
	}
	if g.one(4) {
		options = append(options, sagas.NotCodes(NotAgain))
	}
	return options
}

// step draws a step of a role that may stand there.
func step[T any](g *generator, l *level[T], at where) sagas.NodeOf[T] {
	name := g.name("step")
	s := bare(g, l, name).Timeout(g.seconds(40))
	switch {
	case at.past:
		retry := g.retry(20)
		if g.one(3) {
			retry = append(retry, sagas.ForEver())
		}
		if s = s.Retriable().Retry(retry...); at.free || g.one(3) {
			s = s.EffectFree()
		}
	case at.free || g.one(5):
		s = s.EffectFree().Retry(g.retry(4)...)
	default:
		undo := sagas.With(sagas.NewCommand[Ask, Reply](g.topic(name), "undo."+name), func(t T) Ask { return l.ask(t, name) }).
			Timeout(g.seconds(20))
		retry := g.retry(25)
		if g.one(2) {
			retry = append(retry, sagas.ForEver())
		}
		s = s.Retry(g.retry(4)...).Undo(undo.Retry(retry...))
	}
	return s
}

func (g *generator) topic(name string) string {
	return g.o.Prefix + "svc-" + strconv.Itoa(len(name)*7%Services)
}

// bare is a step without a role.
func bare[T any](g *generator, l *level[T], name string) sagas.StepOf[T] {
	g.noted = append(g.noted, name)
	var take func(*T, Reply)
	if !g.one(5) {
		take = func(t *T, r Reply) { l.note(t, name, r.V) }
	}
	return sagas.Step(name, sagas.NewCommand[Ask, Reply](g.topic(name), "do."+name), func(t T) Ask { return l.ask(t, name) }, take)
}

func (g *generator) cond() cond {
	c := cond{kind: []int{always, always, never, drawn, drawn, happens, ordered}[g.rnd.IntN(7)], n: g.rnd.IntN(64)}
	if c.kind == happens {
		if len(g.noted) == 0 {
			return cond{kind: always}
		}
		c.what = g.noted[g.rnd.IntN(len(g.noted))]
	}
	return c
}

// branch draws a node that has others in it.
func branch[T any](g *generator, l *level[T], depth int, at where) sagas.NodeOf[T] {
	g.left--
	k := g.rnd.IntN(12)
	if g.o.NoLoops && (k == 4 || k == 5) {
		k = 0
	}
	switch {
	case k < 3:
		return sagas.Seq(trees(g, l, 4, depth, at)...)
	case k == 3:
		return choose(g, l, depth, at)
	case k == 4 && l.each != nil:
		return l.each(g, depth, at)
	case k == 4 || k == 5:
		return while(g, l, depth, at)
	case k == 6 || k == 7:
		return try(g, l, depth, at)
	case k == 8 && !g.o.NoWaits: // the earlier of an event and a time decides
		in := at
		in.free = in.free || at.past
		return sagas.FirstOf(
			sagas.Seq[T](wait(g, l, where{past: true}, waitEvent(g, l)), tree(g, l, min(depth, 1), in)),
			sagas.Seq[T](sleep(g, l), tree(g, l, min(depth, 1), in)))
	}
	return all(g, l, depth, at)
}

func choose[T any](g *generator, l *level[T], depth int, at where) sagas.NodeOf[T] {
	var cases []sagas.CaseOf[T]
	for i, node := range trees(g, l, 4, depth, at) {
		cases = append(cases, sagas.When("case-"+strconv.Itoa(i), l.holds(g.cond()), node))
	}
	if g.one(3) {
		cases = append(cases, sagas.Otherwise(tree(g, l, depth, at)))
	}
	return sagas.Choose(cases...)
}

// joined says what may stand in a fork that does without some of its branches.
func joined(at where, needsAll bool) where {
	at.free = at.free || at.past && !needsAll
	return at
}

func (g *generator) onFailure() sagas.OnFailure {
	if g.one(3) {
		return sagas.LetItFinish
	}
	return sagas.CancelRest
}

func all[T any](g *generator, l *level[T], depth int, at where) sagas.NodeOf[T] {
	join := g.rnd.IntN(6)
	nodes := trees(g, l, 5, depth, joined(at, join < 3))
	a := sagas.All(g.onFailure(), nodes...)
	switch join {
	case 3:
		a = a.Any()
	case 4:
		a = a.AtLeast(1 + g.rnd.IntN(len(nodes)))
	case 5:
		a = a.First()
	}
	if g.one(3) {
		a = a.Width(1 + g.rnd.IntN(3))
	}
	return a
}

// forEach draws a loop over a list of up to five elements, whose number is drawn, or is that of what was noted.
func forEach[T any](g *generator, outer *level[T], inner *level[sagas.Each[T, Item]], depth int, at where) sagas.NodeOf[T] {
	name, join, shift, fixed := g.name("each"), g.rnd.IntN(6), g.rnd.IntN(28), g.rnd.IntN(4)
	items := func(t T) []Item {
		d := outer.saga(&t)
		n := int(d.Draw >> shift % 4)
		if fixed == 0 {
			n = int(d.Sum % 4)
		}
		list := make([]Item, n)
		for i := range list {
			list[i].N = i
		}
		return list
	}
	e := sagas.ForEach(name, items, tree(g, inner, depth, joined(at, join < 3))).OnFailure(g.onFailure())
	switch join {
	case 3:
		e = e.Any()
	case 4:
		e = e.AtLeast(1 + g.rnd.IntN(2))
	case 5:
		e = e.First()
	}
	if g.one(2) {
		e = e.Width(1 + g.rnd.IntN(3))
	}
	if g.one(4) {
		e = e.Most(2 + g.rnd.IntN(2))
	}
	return e
}

// while draws a loop whose turns are counted where it stands, from the beginning each time it begins.
func while[T any](g *generator, l *level[T], depth int, at where) sagas.NodeOf[T] {
	name, turns, extra := g.name("while"), 1+g.rnd.IntN(3), l.holds(g.cond())
	if g.one(2) {
		extra = l.holds(cond{kind: always})
	}
	w := sagas.While(name, func(t T) bool { return l.count(&t, name) < turns && extra(t) },
		sagas.Seq[T](sagas.Do(g.name("turn"), func(t *T) { l.note(t, name, 0) }), tree(g, l, depth, at)))
	if g.one(4) {
		w = w.Most(1 + g.rnd.IntN(2))
	}
	return sagas.Seq[T](sagas.Do(g.name("reset"), func(t *T) { l.reset(t, name) }), w)
}

func try[T any](g *generator, l *level[T], depth int, at where) sagas.NodeOf[T] {
	body := where{past: at.past, free: at.free || at.past, caught: true}
	t := sagas.Try(g.name("try"), tree(g, l, depth, body))
	if g.one(2) {
		name := fmt.Sprintf("failed-%d", len(g.names))
		g.noted = append(g.noted, name)
		t = t.OnFailure(func(t *T, f sagas.Failure) { l.note(t, name, len(f.Step)*1000+len(f.Code)) })
	}
	if !g.one(3) {
		t = t.Else(tree(g, l, depth, at))
	}
	return t
}
