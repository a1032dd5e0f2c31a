package main

import (
	"testing"
	"time"

	connector "github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/test/kafka"
)

// L5, on real processes: a killed node's shards are decided by others in a fraction of its session in the group.
// The limit is that of the median, since other work on the same processors may delay a few.
func TestAKilledNodeIsReplacedLongBeforeItsSessionEnds(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		broker, err := connector.StartDev(connector.DevOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer broker.Close()
		replaced(t, []string{broker.Addr()}, 3)
	})
	t.Run("real", func(t *testing.T) { replaced(t, kafka.Require(t).Addrs(), 10) })
}

func replaced(t *testing.T, brokers []string, kills int) {
	gaps, err := takeOvers(t.Context(), options{brokers: brokers, app: appName("takeover"), dir: folder(t), out: lines{t}}, kills)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d shards moved: p50 %v, p99 %v", len(gaps), quantile(gaps, 0.5), quantile(gaps, 0.99))
	if p50 := quantile(gaps, 0.5); p50 > 2*time.Second {
		t.Errorf("half of the shards were without a decision for more than %v", p50)
	}
}
