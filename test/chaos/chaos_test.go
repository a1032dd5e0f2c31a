package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/skald-io/skald/test/kafka"
)

func TestMain(m *testing.M) {
	if runRole() {
		return
	}
	os.Exit(m.Run())
}

// lines writes to a test's log, a line at a time.
type lines struct{ t *testing.T }

func (l lines) Write(p []byte) (int, error) {
	l.t.Helper()
	l.t.Logf("%s", p[:len(p)-1])
	return len(p), nil
}

func TestASagaSurvivesTwentyKillsAndAnOwnerThatWakesTooLate(t *testing.T) {
	cluster := kafka.Require(t)
	dir, err := os.MkdirTemp("", "skald-chaos-")
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
	out, err := run(t.Context(), options{brokers: cluster.Addrs(), app: fmt.Sprintf("chaos-%d", time.Now().UnixMilli()), dir: dir,
		rate: 40, seed: uint64(time.Now().UnixNano() % 1_000_000), out: lines{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out)
	if err := out.verdict(); err != nil {
		t.Error(err)
	}
}
