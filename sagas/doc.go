// Package sagas is what users write: the definition of a saga as a plan, a tree of steps, waits, branches and loops
// that Skald can run, draw, check and version.
//
// The typed constructors (Define in define.go; Step in step.go; Wait, Signal, Approval and Sleep in wait.go; All,
// FirstOf, Choose, Require and Try in branch.go; ForEach and While in loop.go; Seq, Do and Emit in node.go) build a
// Definition, which compile.go and rules.go check and turn into the untyped tree of plan.go that the engine reads.
// A definition is data and pure functions: this package imports nothing of Skald that does anything, and its
// functions must be pure as well, because the engine calls them in deciding and never again.
//
// Types are inferred from the functions a node is given, and hold the plan together: the steps of a saga
// over Order, their undos and the function that starts it must all be about Order, or the program does
// not compile. (Only Sleep has nothing to infer from: sagas.Sleep[Order]("cool-off", time.Hour).)
package sagas
