// Command mechanical changes the deciding code in small ways, one at a time, and asks its tests whether they notice:
// a condition is negated, a bound is moved by one, a statement is left out. Nobody chose these changes, unlike the
// planted breaks of internal/mutant, so they show what the tests leave free.
//
//	go run ./test/mutants/mechanical [-packages DIRS] [-sample N -seed S] [-only SUBSTRING] [-json]
//
// All changes of a package are compiled in at once, each behind a number, into a copy of its sources that exists for the
// compiler alone (go test -overlay); a run of the tests switches one on by the environment. First the tests have to pass
// with none. A change that no test notices has survived. survivors.txt says of each survivor that was looked at why
// nothing is wrong with it; one that is not there is a gap in the tests, and so is a line there that a test notices by now.
//
// Exit status: 0 when all but the explained survivors were noticed, 1 when not, 2 when that could not be found out.
//
// It belongs to the tests: it imports nothing of this module, and nothing imports it. The rule that must not break: a
// change counts as noticed only if the same tests pass without it.
package main
