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
	line    struct{ SKU string }
)

var (
	happened = sagas.NewEvent[event]("events", "happened")
	act      = sagas.NewCommand[command, string]("commands", "act")
	undo     = sagas.NewCommand[command, string]("commands", "undo")
	step     = sagas.Step("a", act, func(order) command { return command{} }, func(*order, string) {})
	approved = sagas.Approval("approved")
	eachLine = sagas.Step("l", act, func(sagas.Each[order, line]) command { return command{} }, nil)
	lines    = func(order) []line { return nil }
	other    = sagas.Step("b", act, func(ticket) command { return command{} }, nil)
)

var (
	_ = step.Undo(sagas.With(undo, func(ticket) command { return command{} }))                                   // refused
	_ = sagas.Step("c", act, func(order) command { return command{} }, func(*ticket, string) {})                 // refused
	_ = sagas.Step("d", act, func(order) command { return command{} }, func(*order, int) {})                     // refused
	_ = sagas.Step("e", act, func(order) event { return event{} }, nil)                                          // refused
	_ = sagas.Seq(step, other)                                                                                   // refused
	_ = sagas.All(sagas.CancelRest, step, sagas.Sleep[ticket]("w", time.Second))                                 // refused
	_ = sagas.Define("s", "1", sagas.StartOn(happened, func(event) ticket { return ticket{} }), sagas.Seq(step)) // refused
	_ = sagas.Wait("w", happened, func(*order, command) {})                                                      // refused
	_ = sagas.Wait("w", approved, func(*order, string) {})                                                       // refused
	_ = sagas.Wait("w", act, func(*order, string) {})                                                            // refused
	_ = sagas.Wait("w", happened, func(*order, event) {}).By(func(ticket) string { return "" })                  // refused
	_ = sagas.Seq(step, sagas.Wait("w", happened, func(*ticket, event) {}))                                      // refused
	_ = sagas.FirstOf(step, other)                                                                               // refused
	_ = sagas.Choose(sagas.When("a", func(order) bool { return true }, step), sagas.Otherwise(other))            // refused
	_ = sagas.When("a", func(ticket) bool { return true }, step)                                                 // refused
	_ = sagas.Seq(step, sagas.Require("r", func(ticket) bool { return true }))                                   // refused
	_ = sagas.While("w", func(ticket) bool { return true }, step)                                                // refused
	_ = sagas.Try("t", step).Else(other)                                                                         // refused
	_ = sagas.Try("t", step).OnFailure(func(*ticket, sagas.Failure) {})                                          // refused
	_ = sagas.Seq(step, sagas.Emit("e", happened, func(ticket) event { return event{} }))                        // refused
	_ = sagas.Emit("e", happened, func(order) command { return command{} })                                      // refused
	_ = sagas.ForEach("f", lines, step)                                                                          // refused
	_ = sagas.ForEach("f", func(ticket) []line { return nil }, eachLine)                                         // refused
	_ = sagas.Seq(step, eachLine)                                                                                // refused

	_ = sagas.Define("s", "1", sagas.StartOn(happened, func(event) order { return order{} }), sagas.Seq(step,
		sagas.Wait("w", happened, func(*order, event) {}).By(func(order) string { return "" }).Within(1).Keep(1),
		sagas.Wait("v", approved, func(*order, sagas.Decision) {}), sagas.Wait[order]("u", happened, nil),
		sagas.FirstOf(step, sagas.Sleep[order]("n", time.Second)).Width(1), sagas.All(sagas.LetItFinish, step).AtLeast(1),
		sagas.Choose(sagas.When("a", func(order) bool { return true }, step), sagas.Otherwise(step)),
		sagas.Require("r", func(order) bool { return true }), sagas.While("x", func(order) bool { return true }, step).Most(1),
		sagas.Try("t", step).Else(step).OnFailure(func(*order, sagas.Failure) {}),
		sagas.Emit("e", happened, func(order) event { return event{} }).Key(func(order) string { return "" }),
		sagas.ForEach("f", lines, sagas.Seq(eachLine, sagas.ForEach("g", func(sagas.Each[order, line]) []int { return nil },
			sagas.Do("d", func(*sagas.Each[sagas.Each[order, line], int]) {})))).Width(1).Most(1).OnFailure(sagas.CancelRest).AtLeast(1)))
	_ = sagas.Define("s", "1", sagas.StartOn(happened, func(event) ticket { return ticket{} }), other)
)

func main() {}
