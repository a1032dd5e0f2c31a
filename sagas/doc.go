// Package sagas is what users write: the definition of a saga as a plan, a tree of steps that Skald can
// run, check and version.
//
// The typed constructors (Define in define.go; Seq, Do and Emit in node.go; Step, Wait, and the branches and loops in
// files of their own) build a
// Definition, which compile.go checks and turns into the untyped tree of plan.go that the engine reads.
// A definition is data and pure functions: this package imports only events, and its functions must be
// pure as well, because the engine calls them in deciding and never again.
//
// Types are inferred from the functions a step is given, and hold the plan together: the steps of a saga
// over Order, their undos and the function that starts it must all be about Order, or the program does
// not compile. (Only Sleep has nothing to infer from: sagas.Sleep[Order]("cool-off", time.Hour).)
package sagas
