package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// part is a saga of a simulation: its definition, what the world sends it, how participants answer it, and what has to
// be there in the end.
type part struct {
	plan *sagas.Plan
	// start makes the event that starts the instance of a key, with its id; nil: another part's event starts this one as
	// well. The simulation picks the partition.
	start func(key string) events.Message
	also  func(key string) []string // keys of the instances of other parts that the event starts too; nil: none
	twice bool                      // its end is remembered so long that the event may come again at any time
	again bool                      // its key may come again under another id
	// event makes the nth event that an instance of the key waits for; nil: it waits for none.
	event func(key string, n int) events.Message
	// signals are the names of those that it waits for; operators act on the sagas that have some.
	signals []string
	// answer is a participant's will, while faults last: an outcome, as in ce_outcome. It is asked once for each attempt
	// that may begin, with chances of its own; undo says that the command undoes. Afterwards everything is done at once.
	answer func(rng *rand.Rand, typ string, undo bool) (outcome string)
	// want gives the types of the commands whose effects an instance must have left at its end, sorted.
	want func(h *events.Head) []string
}

// cast picks the sagas of a simulation. A seed decides it.
func cast(*rand.Rand) []*part { return fixed }

// fixed are four sagas: a plain one, one with forks, a pivot, a deadline and a short retention, one that waits, and one
// that another one's event starts.
var fixed = func() []*part {
	type order struct{ ID string }
	type none struct{}
	same := func(o order) order { return o }
	step := func(topic, name string) sagas.StepOf[order] {
		return sagas.Step(name, sagas.NewCommand[order, none](topic, name), same, nil)
	}
	undoable := func(topic, name string) sagas.StepOf[order] {
		return step(topic, name).Undo(sagas.With(sagas.NewCommand[order, none](topic, "un-"+name), same))
	}
	type paid struct{ Invoice string }
	errandPlaced := sagas.NewEvent[order]("errands", "Placed")
	errandPaid := sagas.NewEvent[paid]("errands", "Paid").KeyBy(func(p paid) string { return p.Invoice })

	two := sagas.Define("two", "1", sagas.StartOn(sagas.NewEvent[order]("orders", ""), same),
		sagas.Seq(undoable("payments", "pay"), undoable("shipping", "ship")))
	parcel := sagas.Define("parcel", "1", sagas.StartOn(sagas.NewEvent[order]("parcels", ""), same),
		sagas.Seq(
			undoable("shipping", "reserve"),
			sagas.All(sagas.LetItFinish, undoable("shipping", "weigh"), undoable("payments", "authorize")),
			sagas.All(sagas.CancelRest, undoable("shipping", "book"), sagas.Seq(undoable("shipping", "print"), undoable("payments", "stick"))),
			step("ledger", "capture").Pivot().Retry(sagas.ForEver()),
			step("ledger", "notify").Retriable().Retry(sagas.ForEver()),
		)).Deadline(90 * time.Second).Retention(20 * time.Second)
	errand := sagas.Define("errand", "1", sagas.StartOn(errandPlaced, same),
		sagas.Seq(
			undoable("shipping", "fetch"),
			sagas.Wait[order]("paid", errandPaid, nil).By(func(o order) string { return "bill-" + o.ID }).Within(40*time.Second).Keep(2*time.Minute),
			sagas.Wait[order]("approved", sagas.NewSignal[none]("approve"), nil).Within(40*time.Second),
			undoable("payments", "deliver"),
		))
	receipt := sagas.Define("receipt", "1", sagas.StartOn(errandPlaced.KeyBy(func(o order) string { return "receipt-" + o.ID }), same),
		undoable("shipping", "print-receipt"))

	placed := func(topic, typ string) func(key string) events.Message {
		return func(key string) events.Message {
			m := events.Message{Topic: topic, Key: []byte(key), Value: []byte(`{"ID":"` + key + `"}`), Headers: []events.Header{{Key: events.HeaderID, Value: []byte(key)}}}
			if typ != "" {
				m.Headers = append(m.Headers, events.Header{Key: events.HeaderType, Value: []byte(typ)})
			}
			return m
		}
	}
	return []*part{
		{plan: planOf(two), start: placed("orders", ""), twice: true, again: true},
		{plan: planOf(parcel), start: placed("parcels", "")},
		{plan: planOf(errand), start: placed("errands", "Placed"), also: func(key string) []string { return []string{"receipt-" + key} },
			event: func(key string, n int) events.Message {
				return events.Message{Topic: "errands", Key: []byte("bank"), Value: []byte(`{"Invoice":"bill-` + key + `"}`),
					Headers: []events.Header{{Key: events.HeaderID, Value: fmt.Appendf(nil, "paid-%s-%d", key, n)}, {Key: events.HeaderType, Value: []byte("Paid")}}}
			},
			signals: []string{"approve"}},
		{plan: planOf(receipt)},
	}
}()

func planOf(d interface{ Plan() (*sagas.Plan, error) }) *sagas.Plan {
	p, err := d.Plan()
	if err != nil {
		panic(err)
	}
	return p
}

// outcome is what the part's participants make of an attempt.
func (p *part) outcome(rng *rand.Rand, typ string, undo bool) string {
	if p.answer != nil {
		return p.answer(rng, typ, undo)
	}
	switch r := rng.IntN(100); {
	case r < 70:
		return "done"
	case r < 80:
		return "retry"
	case r < 88:
		return "progress"
	case undo || p.mustSucceed(typ):
		return "done"
	}
	return "rejected"
}

// mustSucceed says that a command is of a retriable step.
func (p *part) mustSucceed(typ string) bool {
	return slices.ContainsFunc(p.plan.Nodes, func(n *sagas.Node) bool {
		return n.Step != nil && n.Step.Type == typ && n.Step.Role == sagas.Retriable
	})
}

// undoable says that a command is of a step whose rejection is undone.
func (p *part) undoable(typ string) bool {
	return slices.ContainsFunc(p.plan.Nodes, func(n *sagas.Node) bool {
		return n.Step != nil && n.Step.Type == typ && n.Step.Undo != nil
	})
}

// effects are those that an instance must have left.
func (p *part) effects(h *events.Head) (types []string) {
	if p.want != nil {
		return p.want(h)
	}
	if h.State != events.Completed {
		return nil
	}
	for _, n := range p.plan.Nodes {
		if n.Step != nil {
			types = append(types, n.Step.Type)
		}
	}
	slices.Sort(types)
	return types
}

// topics are those of a cast.
type topics struct {
	commands map[string]bool // that are written
	fickle   []string        // commands' topics that may refuse: none of theirs is of a pivot or of a retriable step
	domain   []string        // that are read, sorted
}

func topicsOf(parts []*part) (t topics) {
	t.commands = map[string]bool{}
	firm := map[string]bool{}
	domain := map[string]bool{}
	for _, p := range parts {
		domain[p.plan.Start.Topic] = true
		for _, n := range p.plan.Nodes {
			if st := n.Step; st != nil {
				t.commands[st.Topic] = true
				// A pivot that was never sent cannot be refused by its participant, and its instance would wait for an operator.
				firm[st.Topic] = firm[st.Topic] || st.Role != sagas.Compensatable
				if st.Undo != nil {
					t.commands[st.Undo.Topic] = true
				}
			}
			if n.Wait != nil && n.Wait.Event != nil {
				domain[n.Wait.Event.Topic] = true
			}
		}
	}
	for topic := range t.commands {
		if !firm[topic] {
			t.fickle = append(t.fickle, topic)
		}
	}
	for topic := range domain {
		t.domain = append(t.domain, topic)
	}
	slices.Sort(t.fickle)
	slices.Sort(t.domain)
	return t
}
