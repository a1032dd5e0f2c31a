package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	connector "github.com/skald-io/skald/connectors/kafka"
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

// folder is for the stores and logs of a test's nodes. It stays when the test fails.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "skald-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of the nodes are in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	return dir
}

func appName(what string) string { return fmt.Sprintf("%s-%d", what, time.Now().UnixMilli()) }

// onBothBrokers runs a test on the embedded broker, and on a real Kafka where there is one.
func onBothBrokers(t *testing.T, fn func(t *testing.T, brokers []string)) {
	t.Run("embedded", func(t *testing.T) {
		broker, err := connector.StartDev(connector.DevOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer broker.Close()
		fn(t, []string{broker.Addr()})
	})
	t.Run("real", func(t *testing.T) { fn(t, kafka.Require(t).Addrs()) })
}

func TestASagaSurvivesTwentyKillsAndAnOwnerThatWakesTooLate(t *testing.T) {
	cluster := kafka.Require(t)
	out, err := run(t.Context(), options{brokers: cluster.Addrs(), app: appName("chaos"), dir: folder(t), out: lines{t},
		rate: 40, seed: uint64(time.Now().UnixNano() % 1_000_000)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out)
	if err := out.verdict(); err != nil {
		t.Error(err)
	}
}
