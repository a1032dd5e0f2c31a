package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skald-io/skald/internal/mutant"
)

// page is docs/reliability.md.
type page struct {
	when, commit, machine string
	findings              []finding
}

// found are the bugs of Skald that the harness has found so far, each mended and kept as a test.
var found = []string{
	"A trimmed journal that was copied to a topic whose offsets begin at 0 was taken for one that had only begun: all sagas in it were ignored (simulation).",
	"A record that a retry left in the journal twice was emitted again, although a transaction had committed it (simulation).",
	"A step whose attempts had all expired was sent an undo (oracle).",
	"A branch whose undo was done while its instance was stopped was counted twice when its fork was turned round before that went on: the fork ended with an undo open, and the instance was quarantined as corrupt (oracle).",
	"A store with a flipped bit in Pebble's options file was neither opened nor rebuilt, and its shard stood still (real processes).",
	"With a slow broker the walk of a compaction round held all rows in memory (a million waiting sagas).",
}

// beyond is what the harness cannot show.
var beyond = []string{
	"The simulation ends at the engine's ports: the Kafka client, the brokers, the group's protocol and real concurrency are tried on real processes only, in far fewer schedules.",
	"The model checker's bounds are small: three owners, a few records, two rounds. What needs more is not found there.",
	"Brokers that lose what they acknowledged: no log can keep an owner from emitting what was acknowledged to it and lost afterwards. [What Skald asks of Kafka](architecture.md) is minimum in-sync replicas of 2 and no unclean elections.",
	"Machines that lose power, several machines, real networks between them: all processes run on one.",
	"On real processes no clock jumps, no disk is full under load, and no topic of commands refuses for a while; the simulation has those.",
	"Participants that break the protocol on purpose. What Skald promises assumes that they answer truthfully, if late, twice or never.",
	"The checker and the oracle were written by the people who wrote the engine. They share no code with it, and may share a misunderstanding.",
}

func (p *page) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Reliability

<!-- Written by "go run ./test/report -o docs/reliability.md". -->

What Skald promises, what was done to break it, and what came of that. Every line can be repeated with its command, on a
machine with Go, Java 17 and Maven. The figures are of %s, commit %s, on %s.

## What is promised

| | |
|---|---|
`, p.when, p.commit, p.machine)
	for _, r := range mutant.Rules {
		if strings.HasPrefix(r.ID, "G") {
			fmt.Fprintf(&b, "| %s | %s |\n", r.ID, r.Text)
		}
	}
	b.WriteString(`
[Guarantees, and what tries to break them](guarantees.md) has these and the rules of the log, each with the breaks that were planted
in the code for it and the tests that notice.

## What was tried

| | how much | what came of it | repeat with |
|---|---|---|---|
`)
	for _, f := range p.findings {
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` |\n", f.what, f.much, f.came, f.repeat)
	}
	b.WriteString("\nBeside these, in every run of the tests: each method of each port is a point at which an owner dies, before and after, with its store\n" +
		"kept and lost (`go test ./test/sim -run Point`); random plans under faults are held against a naive interpreter, and every journaled\n" +
		"decision is made once more (`go test ./test/sim/naive`); every format that is read has a fuzz target (`.ci/run`).\n")
	for _, f := range p.findings {
		if len(f.faults) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### Faults that landed: %s\n\n| fault | times |\n|---|---|\n", f.what)
		for _, name := range slices.Sorted(maps.Keys(f.faults)) {
			fmt.Fprintf(&b, "| %s | %s |\n", name, thousands(f.faults[name]))
		}
	}
	b.WriteString("\n## What it has found\n\n")
	for _, line := range found {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\n## What it cannot show\n\n")
	for _, line := range beyond {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	return b.String()
}
