// Package mutant holds the planted breaks: for each guarantee at least one switch that breaks it on
// purpose, so that the tests can show that they would notice.
//
// Code asks mutant.On("name") at the place to break. Without the build tag `mutants` the answer is the
// constant false and the compiler removes the branch; with it, the one mutant named by the environment
// variable SKALD_MUTANT is on. The list All says what each breaks and which test catches it; test/mutants
// runs them. Any package may import this one, and it imports nothing. The rule that must not break: a
// binary built without the tag has no mutant in it.
package mutant

import "slices"

// Mutant is one planted break.
type Mutant struct {
	Name        string // what On is asked for: lower case, words joined by hyphens, the package's name first
	Breaks      string // the guarantee or rule: G1 to G12 of the architecture, L1 to L23 and §6 of the log, §7 of the design (security and operation); several with commas
	Description string // what goes wrong
	CaughtBy    Test
}

// Test names the test that has to fail while the mutant is on, and to pass while none is.
type Test struct {
	Package string // import path below the module, such as "orchestrator/store"
	Run     string // as for go test -run: an anchored expression, such as "^TestCrash$"
}

// All lists the mutants, in the order of their packages. Each package's are in a file of their own here.
var All = slices.Concat(
	kafkaMutants,
	participantMutants,
	eventsMutants,
	shardMutants,
	engineMutants,
	journalMutants,
	machineMutants,
	sagasMutants,
	storeMutants,
	telemetryMutants,
)
