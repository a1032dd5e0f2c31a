package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/store"
)

// ports are what a shard reaches the world through.
var ports = map[string]reflect.Type{
	"Kafka":      reflect.TypeFor[orchestrator.Kafka](),
	"Committer":  reflect.TypeFor[orchestrator.Committer](),
	"Transactor": reflect.TypeFor[orchestrator.Transactor](),
	"Emitter":    reflect.TypeFor[orchestrator.Emitter](),
	"Log":        reflect.TypeFor[orchestrator.Log](),
	"Store":      reflect.TypeFor[store.Store](),
	"Snapshot":   reflect.TypeFor[store.Snapshot](),
}

// notOfAShard are methods that no shard calls, and who does. Crashes around them are those of test/chaos.
var notOfAShard = map[string]string{
	"Kafka.Check":    "the engine, at its start",
	"Kafka.Topics":   "the engine, which watches the topics",
	"Kafka.Join":     "the engine, at its start",
	"Kafka.MemberID": "the engine, which tells other nodes",
	"Kafka.Members":  "the engine, which looks for the dead",
	"Kafka.Evict":    "the engine, which found one",
	"Kafka.Rejoin":   "the engine, which wants its shards shared out anew",
	"Kafka.Close":    "whoever made the connection",
	"Kafka.Pause":    "a shard with 4,096 records of an input queued: more than these stories hold",
	"Kafka.Resume":   "the same",
	"Store.Snapshot": "whoever verifies or lists",
	"Store.Close":    "the engine, when a shard ended",
	"Snapshot.State": "whoever verifies",
	"Snapshot.Scan":  "whoever verifies or lists",
	"Snapshot.Close": "whoever verifies or lists",
}

// points are the methods of all ports, and what some of them are called for.
func points(t *testing.T) (out []string) {
	t.Helper()
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		for i := range ports[port].NumMethod() {
			name := port + "." + ports[port].Method(i).Name
			if notOfAShard[name] == "" {
				out = append(out, name)
			}
		}
	}
	return out
}

// reached are the points that an owner comes by in stories without faults, each by its whole name.
func reached(t *testing.T) map[visited]int {
	t.Helper()
	seen := map[visited]int{}
	for seed := range uint64(6) {
		if out := simulate(choice{seed: seed, steps: 400, seen: seen, without: noDeaths()}); out.violation != "" {
			t.Fatalf("seed %d: %s", seed, out.violation)
		}
	}
	return seen
}

// noDeaths are all faults that end an owner by themselves.
func noDeaths() (set faults) {
	for _, f := range []fault{diesWithin, opensInVain, claimLost, recreated, storeFails, storeFlipped, journalUnreadable, inputRecreated} {
		set = set.with(f)
	}
	return set
}

func TestEveryMethodOfEveryPortIsAPoint(t *testing.T) {
	seen := reached(t)
	for _, name := range points(t) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(v visited) bool { return v.point == name || strings.HasPrefix(v.point, name+"/") }) {
			t.Errorf("no owner comes by %s", name)
		}
	}
	for v := range seen {
		method, _, _ := strings.Cut(v.point, "/")
		port, name, _ := strings.Cut(method, ".")
		if _, ok := ports[port].MethodByName(name); !ok || notOfAShard[method] != "" {
			t.Errorf("%s is no method that a shard calls", v.point)
		}
	}
	for _, what := range append(slices.Clone(appends), produces...) {
		if seen[visited{what.call, false}] == 0 && what.call != "Kafka.Produce/event" {
			t.Errorf("no owner comes by %s", what.call)
		}
	}
}

// An owner dies right before, and right after, each of its calls of a port, and after each acknowledgement; its store is
// kept or lost. What follows must look as if nothing had been.
func TestAnOwnerMayDieAtEveryPoint(t *testing.T) {
	seen := reached(t)
	names := map[string]bool{}
	for v := range seen {
		names[v.point] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, after := range []bool{false, true} {
			for _, cold := range []bool{false, true} {
				when, kept := "before", "warm"
				if after {
					when = "after"
				}
				if cold {
					kept = "cold"
				}
				t.Run(fmt.Sprintf("%s/%s/%s", name, when, kept), func(t *testing.T) {
					died := 0
					for seed := uint64(0); seed < 12 && died < 2; seed++ {
						out := simulate(choice{seed: seed, steps: 150, trap: &trap{point: name, after: after, count: 1 + int(seed%3)}, cold: cold, without: noDeaths()})
						if out.violation != "" {
							t.Fatalf("seed %d: %s", seed, out.violation)
						}
						if out.trapped {
							died++
						}
					}
					if died == 0 {
						t.Error("nobody died there")
					}
				})
			}
		}
	}
}
