package engine_test

import (
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
)

func TestAUserFunctionThatFailsParksItsInstanceAndNothingElse(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		n := w.start(t)
		for _, x := range []struct{ key, trouble, step, says string }{
			{"a", "build", "reserve", "buildReserve"},
			{"b", "encode", "reserve", "unsupported value: +Inf"},
			{"c", "reply", "reserve", "takeReserved"},
			{"d", "do", "weigh", "engine_test.weigh"},
			{"garbled", "", "reserve", "unexpected end of JSON"},
		} {
			w.place(t, 0, x.key+"-before")
			w.put(t, w.orders(), 0, order(x.key, x.trouble))
			w.place(t, 0, x.key+"-after")
			inst := w.state(t, x.key, events.Parked, n)
			if inst.Code != machine.CodeUserFunction || !strings.Contains(inst.Message, x.says) || !strings.Contains(inst.Message, x.step) {
				t.Errorf("%s: it is parked for %s: %s", x.key, inst.Code, inst.Message)
			}
			if panics := x.trouble != "encode" && x.trouble != ""; panics && !strings.Contains(inst.Message, "world_test.go:") {
				t.Errorf("%s: no stack: %s", x.key, inst.Message)
			}
			last := inst.History[len(inst.History)-1]
			if last.Code != machine.CodeUserFunction {
				t.Errorf("%s: its history does not say so: %+v", x.key, last)
			}
			w.completed(t, n, x.key+"-before", x.key+"-after")
		}
		at := w.put(t, w.orders(), 0, order("e", "start"))
		w.place(t, 0, "e-after")
		w.completed(t, n, "e-after")
		until(t, "an order of which not even a saga can be made is in quarantine", func() bool {
			got := n.log.find("quarantined", "at", at, "reason", machine.ReasonUndecodable)
			return len(got) == 1 && strings.Contains(got[0].attrs["reason"], "startOrder")
		})
		if got := n.log.find("the shard stopped"); len(got) > 0 {
			t.Errorf("a shard stopped for it: %v", got)
		}
		n.stop(t)
	})
}
