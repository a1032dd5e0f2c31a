package kafka

import (
	"context"
	"os"
	"reflect"
	"sync"
	"testing"
)

// EnvReal, set to 1, asks for the tests on real Kafka.
const EnvReal = "SKALD_REAL_KAFKA"

var shared struct {
	sync.Mutex
	cluster *Cluster
	err     error
	users   int
}

// Require gives a test real Kafka. Without SKALD_REAL_KAFKA=1 the test is skipped; with it, whatever keeps
// Kafka from starting fails the test. Without options, or with their zero value, all tests of the process
// share one cluster: use names of your own for topics and groups. Otherwise the cluster is the test's own
// and stopped at its end.
func Require(t testing.TB, opts ...Options) *Cluster {
	t.Helper()
	if os.Getenv(EnvReal) != "1" {
		t.Skipf("real Kafka not asked for: set %s=1 (it needs Java 17 or newer, and Maven the first time)", EnvReal)
	}
	if len(opts) > 1 {
		t.Fatal("more than one kafka.Options")
	}
	if len(opts) == 1 && !reflect.ValueOf(opts[0]).IsZero() {
		c, err := Start(context.Background(), opts[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Stop)
		return c
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = Start(context.Background(), Options{})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if !diesWithParent {
		// Nothing else would end it: there is no hook at the end of a test process.
		shared.users++
		t.Cleanup(func() {
			shared.Lock()
			defer shared.Unlock()
			if shared.users--; shared.users == 0 {
				shared.cluster.Stop()
				shared.cluster = nil
			}
		})
	}
	return shared.cluster
}
