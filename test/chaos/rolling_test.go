package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	connector "github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/test/kafka"
)

// L12, with two builds of one program: nodes are rolled forward, back and forward again under load. Every saga is
// decided by its own version, what nobody can run waits, in sight, and nothing is parked.
func TestTwoBuildsAreRolledBackAndForthAndEverySagaKeepsItsVersion(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		broker, err := connector.StartDev(connector.DevOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer broker.Close()
		rolledBackAndForth(t, []string{broker.Addr()})
	})
	t.Run("real", func(t *testing.T) { rolledBackAndForth(t, kafka.Require(t).Addrs()) })
}

func rolledBackAndForth(t *testing.T, brokers []string) {
	dir, err := os.MkdirTemp("", "skald-rolling-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("logs of the nodes are in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	}()
	out, err := rolls(t.Context(), options{brokers: brokers, app: fmt.Sprintf("rolling-%d", time.Now().UnixMilli()), dir: dir, out: lines{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out)
	if err := out.verdict(); err != nil {
		t.Error(err)
	}
}
