// Command report writes docs/reliability.md: what Skald promises, what was done to break it, and what came of that.
//
//	go run ./test/report -o docs/reliability.md             runs everything: about half an hour, and real Kafka
//	go run ./test/report -results DIR -o docs/reliability.md    takes what DIR has from earlier runs, and runs the rest
//
// Each source is one of the test programs with -json; what it prints is kept in DIR, a file each. Exit status: 0 when the page
// is written and nothing is wrong in it, 1 when a source found something, and then nothing is written, 2 when a source could
// not be run or read. It has to be started within the module.
//
// It belongs to the tests: it may import internal/mutant alone, and nothing imports it. The rule that must not break: each figure
// on the page stands in what a source has printed.
package main
