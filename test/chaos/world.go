package main

import (
	"context"
	"fmt"
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
}

// work is every command's payload; result every reply's.
type work struct {
	Order string `json:"order"`
	Mode  string `json:"mode"`
	Note  string `json:"note,omitempty"`
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
)

const (
	stepTimeout = 1500 * time.Millisecond
	undoTimeout = 2500 * time.Millisecond
	// A pivot whose attempt expires while its participant is down may have happened, so its instance is parked for an
	// operator, as it should be. Here everything is to end by itself.
	pivotTimeout = 20 * time.Second
	retention    = 20 * time.Second
)

// cast is one application's topics, commands and sagas.
type cast struct {
	app    string
	events string
	topics []string // of commands
	kinds  []kind
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
	"stock":    {"reserve"},
	"payments": {"authorize", "capture"},
	"courier":  {"pick", "book"},
	"notices":  {"send"},
}

func newCast(app string) *cast {
	c := &cast{app: app, events: app + "-orders"}
	for _, s := range []string{"stock", "payments", "courier", "notices"} {
		c.topics = append(c.topics, app+"-"+s)
	}
	build := func(o order) work { return work{o.ID, o.Mode, o.Note} }
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
	for _, k := range []kind{
		{line, "line.placed", []string{modeOK, modeDecline, modeOK, modeSilent, modeLate, modeOK, modeDecline, modeFlaky}},
		{fork, "fork.placed", []string{modeOK, modeBranch, modePivot, modeOK, modeSilent, modeFlaky, modePivot, modeOK}},
		{patient, "patient.placed", []string{modeOK, modeBranch, modeOK, modeDecline, modeSilent, modeOK}},
	} {
		k.def = k.def.Retention(retention)
		c.kinds = append(c.kinds, k)
	}
	return c
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
