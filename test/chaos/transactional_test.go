package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	connector "github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/test/kafka"
)

// G5, L16: owners that emit in transactions are killed between append and acknowledgement, between acknowledgement
// and transaction, and before and after the end of one is sent. Who reads committed records sees each decided
// command, and each event, once.
func TestWhoReadsCommittedRecordsSeesEachCommandOnceWhateverIsKilled(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		broker, err := connector.StartDev(connector.DevOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer broker.Close()
		killedInTransactions(t, []string{broker.Addr()})
	})
	t.Run("real", func(t *testing.T) { killedInTransactions(t, kafka.Require(t).Addrs()) })
}

func killedInTransactions(t *testing.T, brokers []string) {
	dir, err := os.MkdirTemp("", "skald-transactional-")
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
	out, err := run(t.Context(), options{brokers: brokers, app: fmt.Sprintf("transactional-%d", time.Now().UnixMilli()), dir: dir, out: lines{t},
		rate: 40, seed: uint64(time.Now().UnixNano() % 1_000_000), kinds: []string{"line", "fork", "basket"}, transactional: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out.transactionalString())
	if err := out.transactionalVerdict(); err != nil {
		t.Error(err)
	}
}
