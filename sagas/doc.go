// Package sagas is what users write: the definition of a saga as a plan, a tree of steps that Skald can
// run, check and version.
//
// The typed constructors (Define, Step, Seq, All, Wait, Do) build a Definition; the engine reads the
// untyped tree of plan.go. A definition is data and pure functions: this package imports only events, and
// its functions must be pure as well, because the engine calls them in deciding and never again.
package sagas
