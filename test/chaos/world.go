package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// order is the event that starts a saga, and the saga's data. Mode says what will go wrong.
type order struct {
	ID   string `json:"id"`
	Mode string `json:"mode"`
	Note string `json:"note,omitempty"`

	Customer string `json:"customer,omitempty"` // who pays: events of payments carry it, and not the order's id
	Approved bool   `json:"approved,omitempty"`
	Polls    int    `json:"polls,omitempty"`
}

// payment and parcel are events that sagas wait for; the sagas tell of parcels themselves.
type payment struct {
	Customer string `json:"customer"`
}

type parcel struct {
	Order string `json:"order"`
}

// work is every command's payload; result every reply's.
type work struct {
	Order string `json:"order"`
	Mode  string `json:"mode"`
	Note  string `json:"note,omitempty"`
	Part  string `json:"part,omitempty"` // of the order: an item
}

type result struct {
	By string `json:"by"`
}

// The modes, and which sagas they are for. Those that compensate are marked.
const (
	modeOK      = "ok"
	modeDecline = "decline" // compensates: a late step is rejected
	modeBranch  = "branch"  // compensates: a step in a fork is rejected
	modeSilent  = "silent"  // compensates: a step does not answer in time, and has its effect all the same
	modePivot   = "pivot"   // compensates: the pivot is rejected
	modeFlaky   = "flaky"   // completes: several steps and undos ask to be tried again
	modeLate    = "late"    // completes: the first attempt answers after its time-out

	modeItem   = "item"   // compensates: one of the items is rejected
	modeBare   = "bare"   // compensates: a condition does not hold
	modeExact  = "exact"  // completes: the way that a Choose takes only for it
	modeRush   = "rush"   // completes: the body of a save-point is rejected, and undone
	modeMute   = "mute"   // completes: the body of a save-point is not heard of, and undone
	modeSlow   = "slow"   // compensates: so is what is done instead
	modeLoss   = "loss"   // completes: one of three branches is rejected, and two are enough
	modeLosses = "losses" // compensates: two are
	modeUnpaid = "unpaid" // completes: no event comes, and a pause ends first
	modePolls  = "polls"  // compensates: the third turn of a loop is rejected

	modeApprove = "approve" // completes: somebody says yes
	modeRefuse  = "refuse"  // compensates: somebody says no
	modeNobody  = "nobody"  // compensates: nobody says anything in time
	modeCancel  = "cancel"  // compensates: an operator cancels it
	modeSuspend = "suspend" // completes: an operator suspends it, and resumes it
	modeStuck   = "stuck"   // completes: it is parked past its pivot, and an operator has the step tried again with another payload
)

const (
	stepTimeout = 1500 * time.Millisecond
	undoTimeout = 2500 * time.Millisecond
	// A pivot whose attempt expires while its participant is down may have happened, so its instance is parked for an
	// operator, as it should be. Here everything is to end by itself.
	pivotTimeout = 20 * time.Second
	retention    = 20 * time.Second
	// An approval comes soon, unless whoever sends it is killed.
	approvalTime = 10 * time.Second
	patience     = 1500 * time.Millisecond
)

// cast is one application's topics, commands and sagas.
type cast struct {
	app    string
	events string
	topics []string // of commands

	payments, parcels string // topics of events that sagas wait for
	kinds             []kind
}

// kind is a definition, with its event's type and the modes that its sagas are given in turn.
type kind struct {
	def   *sagas.Definition
	typ   string
	modes []string
}

type pair struct {
	do, undo sagas.Command[work, result]
}

func (c *cast) pair(service, verb string) pair {
	topic := c.app + "-" + service
	return pair{sagas.NewCommand[work, result](topic, service+"."+verb), sagas.NewCommand[work, result](topic, service+".undo-"+verb)}
}

var services = map[string][]string{
	"stock":    {"reserve", "pack", "poll"},
	"payments": {"authorize", "capture", "check", "hold"},
	"courier":  {"pick", "book", "rush", "slow"},
	"notices":  {"send"},
}

func newCast(app string) *cast {
	c := &cast{app: app, events: app + "-orders", payments: app + "-paid", parcels: app + "-parcels"}
	for _, s := range []string{"stock", "payments", "courier", "notices"} {
		c.topics = append(c.topics, app+"-"+s)
	}
	build := func(o order) work { return work{Order: o.ID, Mode: o.Mode, Note: o.Note} }
	step := func(name string, p pair) sagas.StepOf[order] {
		return sagas.Step(name, p.do, build, func(o *order, r result) {}).Timeout(stepTimeout).Retry(sagas.Attempts(3), sagas.Backoff(100*time.Millisecond, time.Second))
	}
	both := func(name string, p pair) sagas.StepOf[order] {
		return step(name, p).Undo(sagas.With(p.undo, build).Timeout(undoTimeout).Retry(sagas.ForEver(), sagas.Backoff(100*time.Millisecond, 2*time.Second)))
	}
	reserve, authorize, capture := c.pair("stock", "reserve"), c.pair("payments", "authorize"), c.pair("payments", "capture")
	pick, book, send := c.pair("courier", "pick"), c.pair("courier", "book"), c.pair("notices", "send")
	start := func(typ string) sagas.StartOf[order] {
		return sagas.StartOn(sagas.NewEvent[order](c.events, typ).KeyBy(func(o order) string { return o.ID }), func(o order) order { return o })
	}
	line := sagas.Define("line", "1", start("line.placed"), sagas.Seq(
		both("reserve", reserve), both("authorize", authorize), both("pick", pick), both("book", book)))
	fork := sagas.Define("fork", "1", start("fork.placed"), sagas.Seq(
		both("reserve", reserve),
		sagas.All(sagas.CancelRest, both("authorize", authorize), sagas.Seq(both("pick", pick), both("book", book))),
		sagas.Sleep[order]("rest", 200*time.Millisecond),
		step("capture", capture).Pivot().Timeout(pivotTimeout),
		step("send", send).Retriable().Retry(sagas.ForEver())))
	patient := sagas.Define("patient", "1", start("patient.placed"), sagas.Seq(
		both("reserve", reserve),
		sagas.Do("count", func(o *order) { o.Note += "." }),
		sagas.All(sagas.LetItFinish, both("authorize", authorize), both("pick", pick), both("book", book)),
		both("capture", capture)))
	for _, k := range append(c.newKinds(step, both, start), []kind{
		{line, "line.placed", []string{modeOK, modeDecline, modeOK, modeSilent, modeLate, modeOK, modeDecline, modeFlaky}},
		{fork, "fork.placed", []string{modeOK, modeBranch, modePivot, modeOK, modeSilent, modeFlaky, modePivot, modeOK}},
		{patient, "patient.placed", []string{modeOK, modeBranch, modeOK, modeDecline, modeSilent, modeOK}},
	}...) {
		k.def = k.def.Retention(retention)
		c.kinds = append(c.kinds, k)
	}
	return c
}

// newKinds have between them every kind of node that a plan may have.
func (c *cast) newKinds(step, both func(string, pair) sagas.StepOf[order], start func(string) sagas.StartOf[order]) []kind {
	reserve, authorize, capture := c.pair("stock", "reserve"), c.pair("payments", "authorize"), c.pair("payments", "capture")
	pick, book, send := c.pair("courier", "pick"), c.pair("courier", "book"), c.pair("notices", "send")
	rush, slow, pack := c.pair("courier", "rush"), c.pair("courier", "slow"), c.pair("stock", "pack")
	check, hold, poll := c.pair("payments", "check"), c.pair("payments", "hold"), c.pair("stock", "poll")
	pivot := step("capture", capture).Pivot().Timeout(pivotTimeout)
	last := step("send", send).Retriable().Retry(sagas.ForEver())
	paid := sagas.NewEvent[payment](c.payments, "paid").KeyBy(func(p payment) string { return p.Customer })
	sent := sagas.NewEvent[parcel](c.parcels, "parcel.sent").KeyBy(func(p parcel) string { return p.Order })

	type item = sagas.Each[order, string]
	of := func(i item) work { return work{Order: i.Saga.ID, Mode: i.Saga.Mode, Part: i.Item} }
	packed := sagas.Step("pack", pack.do, of, func(i *item, _ result) { i.Item += "+" }).Timeout(stepTimeout).
		Retry(sagas.Attempts(3), sagas.Backoff(100*time.Millisecond, time.Second)).
		Undo(sagas.With(pack.undo, of).Timeout(undoTimeout).Retry(sagas.ForEver(), sagas.Backoff(100*time.Millisecond, 2*time.Second)))
	basket := sagas.Define("basket", "1", start("basket.placed"), sagas.Seq[order](
		both("reserve", reserve),
		sagas.Choose(
			sagas.When("exact", func(o order) bool { return o.Mode == modeExact }, both("book", book)),
			sagas.Otherwise(sagas.Sleep[order]("rest", 100*time.Millisecond))),
		sagas.ForEach("items", func(o order) []string { return []string{"a", "b", "c", "d"} }, packed).Width(2),
		sagas.Require("not-bare", func(o order) bool { return o.Mode != modeBare }),
		pivot,
		sagas.Emit("tell", sent, func(o order) parcel { return parcel{o.ID} }),
		// Its own event, on a partition that has nothing to do with its shard.
		sagas.Wait("echo", sent, func(o *order, p parcel) { o.Note = p.Order }).Keep(retention),
		last)).During(sagas.DuringIgnore).After(sagas.AfterIgnore)

	courier := sagas.Define("courier", "1", start("courier.placed"), sagas.Seq[order](
		both("reserve", reserve),
		sagas.Try("fast", sagas.Seq(both("pick", pick), both("rush", rush))).
			OnFailure(func(o *order, f sagas.Failure) { o.Note = f.Code }).
			Else(both("slow", slow)),
		sagas.All(sagas.LetItFinish, both("check-a", check), both("check-b", check), both("check-c", check)).AtLeast(2),
		sagas.FirstOf(
			sagas.Wait("paid", paid, func(o *order, p payment) { o.Approved = p.Customer == o.Customer }).By(func(o order) string { return o.Customer }).Keep(retention),
			sagas.Seq(both("hold", hold), sagas.Sleep[order]("patience", patience))),
		sagas.While("polling", func(o order) bool { return o.Polls < 3 }, sagas.Seq(
			sagas.Step("poll", poll.do, func(o order) work { return work{Order: o.ID, Mode: o.Mode, Part: fmt.Sprint(o.Polls)} }, nil).Timeout(stepTimeout).
				Undo(sagas.With(poll.undo, func(o order) work { return work{Order: o.ID, Mode: o.Mode} }).Timeout(undoTimeout).Retry(sagas.ForEver(), sagas.Backoff(100*time.Millisecond, 2*time.Second))),
			sagas.Do("count", func(o *order) { o.Polls++ }))),
		pivot))

	approved := sagas.Approval("approval")
	approval := sagas.Define("approval", "1", start("approval.placed"), sagas.Seq[order](
		both("reserve", reserve),
		both("authorize", authorize),
		sagas.Wait("approval", approved, func(o *order, d sagas.Decision) { o.Approved = d.Approved }).Within(approvalTime),
		sagas.Require("approved", func(o order) bool { return o.Approved }),
		pivot, last))
	return []kind{
		{basket, "basket.placed", []string{modeOK, modeItem, modeExact, modeBare, modeFlaky, modeItem, modeOK, modeLate}},
		{courier, "courier.placed", []string{modeOK, modeRush, modeSlow, modeLoss, modePolls, modeUnpaid, modeLosses, modeMute, modeFlaky, modeSlow}},
		{approval, "approval.placed", []string{modeApprove, modeRefuse, modeSuspend, modeCancel, modeStuck, modeNobody, modeApprove, modeRefuse}},
	}
}

// only leaves the named kinds of sagas; all when none is named.
func (c *cast) only(names []string) *cast {
	if len(names) > 0 {
		c.kinds = slices.DeleteFunc(c.kinds, func(k kind) bool { return !slices.Contains(names, k.def.Name()) })
	}
	return c
}

// transactional are the topics on which nodes emit in transactions.
func (c *cast) transactional(on bool) []string {
	if !on {
		return nil
	}
	return append([]string{c.parcels}, c.topics...)
}

func (c *cast) definitions() []orchestrator.Definition {
	var out []orchestrator.Definition
	for _, k := range c.kinds {
		out = append(out, k.def)
	}
	return out
}

// handlers makes one participant take the commands of the named services.
func (c *cast) handlers(p *participant.Participant, names ...string) {
	for _, service := range names {
		for _, verb := range services[service] {
			pr := c.pair(service, verb)
			participant.Handle(p, pr.do, func(ctx context.Context, call participant.Call, w work) (result, error) {
				return forward(ctx, call, w, verb)
			})
			participant.Handle(p, pr.undo, func(_ context.Context, call participant.Call, w work) (result, error) {
				if w.Mode == modeFlaky && call.Attempt < 3 {
					return result{}, participant.Retry("busy", "attempt %d", call.Attempt)
				}
				return result{service}, nil
			})
		}
	}
}

// forward behaves as the order's mode says.
func forward(ctx context.Context, call participant.Call, w work, verb string) (result, error) {
	refuses := func() error { return participant.Reject("declined", "order %s", w.Order) }
	sleep := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	switch {
	case w.Mode == modeItem && verb == "pack" && w.Part == "c", (w.Mode == modeRush || w.Mode == modeSlow) && verb == "rush", w.Mode == modeSlow && verb == "slow",
		(w.Mode == modeLoss || w.Mode == modeLosses) && call.Step == "check-b", w.Mode == modeLosses && call.Step == "check-c",
		w.Mode == modePolls && verb == "poll" && w.Part == "2", w.Mode == modeStuck && verb == "send":
		return result{}, refuses()
	case w.Mode == modeMute && verb == "rush":
		sleep(3*stepTimeout + 2*time.Second)
	case w.Mode == modeDecline && (verb == "book" && call.Step == "book" || verb == "capture"):
		return result{}, refuses()
	case w.Mode == modeBranch && verb == "book":
		return result{}, refuses()
	case w.Mode == modePivot && verb == "capture":
		return result{}, refuses()
	case w.Mode == modeSilent && verb == "pick":
		sleep(3*stepTimeout + 2*time.Second)
	case w.Mode == modeLate && verb == "authorize" && call.Attempt == 1:
		sleep(stepTimeout + 300*time.Millisecond)
	case w.Mode == modeFlaky && (verb == "reserve" || verb == "send") && call.Attempt < 3:
		return result{}, participant.Retry("busy", "attempt %d", call.Attempt)
	}
	return result{fmt.Sprintf("%s %d", verb, call.Attempt)}, nil
}
