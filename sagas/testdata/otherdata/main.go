// Command otherdata must not compile: each marked line mixes two sagas' data. The test reads the marks.
package main

import (
	"time"

	"github.com/skald-io/skald/sagas"
)

type (
	event   struct{}
	command struct{}
	order   struct{ ID string }
	ticket  struct{ ID string }
)

var (
	happened = sagas.NewEvent[event]("events", "happened")
	act      = sagas.NewCommand[command, string]("commands", "act")
	undo     = sagas.NewCommand[command, string]("commands", "undo")
	step     = sagas.Step("a", act, func(order) command { return command{} }, func(*order, string) {})
	other    = sagas.Step("b", act, func(ticket) command { return command{} }, nil)
)

var (
	_ = step.Undo(sagas.With(undo, func(ticket) command { return command{} }))                                   // refused
	_ = sagas.Step("c", act, func(order) command { return command{} }, func(*ticket, string) {})                 // refused
	_ = sagas.Step("d", act, func(order) command { return command{} }, func(*order, int) {})                     // refused
	_ = sagas.Step("e", act, func(order) event { return event{} }, nil)                                          // refused
	_ = sagas.Seq(step, other)                                                                                   // refused
	_ = sagas.All(sagas.CancelRest, step, sagas.Wait[ticket]("w", time.Second))                                  // refused
	_ = sagas.Define("s", "1", sagas.StartOn(happened, func(event) ticket { return ticket{} }), sagas.Seq(step)) // refused

	_ = sagas.Define("s", "1", sagas.StartOn(happened, func(event) order { return order{} }), sagas.Seq(step))
	_ = sagas.Define("s", "1", sagas.StartOn(happened, func(event) ticket { return ticket{} }), other)
)

func main() {}
