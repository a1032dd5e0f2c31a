package main

import "testing"

// L12, with two builds of one program: nodes are rolled forward, back and forward again under load. Every saga is
// decided by its own version, what nobody can run waits, in sight, and nothing is parked.
func TestTwoBuildsAreRolledBackAndForthAndEverySagaKeepsItsVersion(t *testing.T) {
	onBothBrokers(t, rolledBackAndForth)
}

func rolledBackAndForth(t *testing.T, brokers []string) {
	out, err := rolls(t.Context(), options{brokers: brokers, app: appName("rolling"), dir: folder(t), out: lines{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out)
	if err := out.verdict(); err != nil {
		t.Error(err)
	}
}
