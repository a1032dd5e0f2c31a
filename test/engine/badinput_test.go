package engine_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
)

// bad is an input that nobody can take, or that a rule drops.
type bad struct {
	name   string
	topic  string
	record *kgo.Record
	rule   string // the code with which its reason begins
	how    events.Outcome
}

const foreign = "somewhere-else" // a key of shard 1, while all of this is written to partition 0

const skipped events.Outcome = 0 // no decision: the position passes it

// Each class of bad input gets what its rule says, in every place where an operator
// looks, and the orders around it are completed.
func TestBadInputGetsWhatItsRuleSaysAndNeighboursGoOn(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		n := w.start(t)
		w.hold("live")
		w.place(t, 0, "live", "ended")
		w.completed(t, n, "ended")
		live, ended := w.command(t, "live", "reserve"), w.command(t, "ended", "reserve")
		of := func(c command, change func(*events.CommandID)) string {
			id, err := events.ParseCommandID(w.app, c.id)
			if err != nil {
				t.Fatal(err)
			}
			change(&id)
			return id.Text(w.app)
		}
		placed := func(key, value string, more ...string) *kgo.Record {
			return &kgo.Record{Key: []byte(key), Value: []byte(value), Headers: headers(append([]string{events.HeaderType, "OrderPlaced"}, more...)...)}
		}
		reply := func(cause string, more ...string) *kgo.Record {
			return &kgo.Record{Key: []byte("k"), Value: []byte(`{}`), Headers: headers(append([]string{events.HeaderCausationID, cause}, more...)...)}
		}
		null, keyless := placed("null", ""), placed("", `{"id":"x"}`)
		null.Value, keyless.Key = nil, nil
		deformed := placed("utf8", `{"id":"x"}`)
		deformed.Headers = append(deformed.Headers, kgo.RecordHeader{Key: events.HeaderID, Value: []byte{0xff, 0xfe}})
		forged := []byte(live.id)
		forged[len(forged)-3] ^= 1
		all := []bad{
			{"undecodable", w.orders(), placed("a", `{"id":`), machine.ReasonUndecodable, events.Quarantined},
			{"undecodable for another shard", w.orders(), placed(foreign, `[]`), machine.ReasonUndecodable, events.Quarantined},
			{"not JSON", w.orders(), placed("b", "\x00\xff\x17"), machine.ReasonUndecodable, events.Quarantined},
			{"unknown type", w.orders(), &kgo.Record{Key: []byte("c"), Value: []byte(`{}`), Headers: headers(events.HeaderType, "Other")}, machine.ReasonUnknownType, skipped},
			{"no type", w.orders(), &kgo.Record{Key: []byte("c"), Value: []byte(`{}`)}, machine.ReasonUnknownType, skipped},
			{"missing key", w.orders(), keyless, events.PoisonMissingKey, events.Quarantined},
			{"oversize value", w.orders(), placed("d", `{"id":"`+strings.Repeat("x", 500<<10)+`"}`), events.PoisonOversize, events.Quarantined},
			{"oversize key", w.orders(), placed(strings.Repeat("k", 2000), `{}`), events.PoisonOversize, events.Quarantined},
			{"oversize headers", w.orders(), placed("e", `{}`, "x", strings.Repeat("h", 20<<10)), events.PoisonOversize, events.Quarantined},
			{"duplicate header", w.orders(), placed("f", `{"id":"x"}`, events.HeaderType, "OrderPlaced"), events.PoisonDuplicateHeader, events.Quarantined},
			{"invalid UTF-8 in a header", w.orders(), deformed, events.PoisonInvalidUTF8, events.Quarantined},
			{"invalid UTF-8 in the key", w.orders(), placed("\xff\xfe", `{"id":"x"}`), events.PoisonInvalidUTF8, events.Quarantined},
			{"null value", w.orders(), null, events.PoisonNullValue, events.Quarantined},
			{"compression bomb", w.orders(), placed("bomb", strings.Repeat("\x00", 8<<20)), events.PoisonOversize, events.Quarantined},
			{"the same order again", w.orders(), order("ended", ""), machine.ReasonDuplicateStart, events.Ignored},

			{"reply to a finished instance", w.own().Replies(), reply(ended.id), machine.ReasonInstanceEnded, events.Ignored},
			{"reply to an unknown instance", w.own().Replies(), reply(of(live, func(c *events.CommandID) { c.Instance[9] ^= 1 })), machine.ReasonUnknownInstance, events.Ignored},
			{"reply to a superseded execution", w.own().Replies(), reply(of(live, func(c *events.CommandID) { c.Execution = 7 })), machine.ReasonSupersededExecution, events.Ignored},
			{"reply to an unknown attempt", w.own().Replies(), reply(of(live, func(c *events.CommandID) { c.Attempt = 9 })), machine.ReasonUnknownAttempt, events.Ignored},
			{"reply to an unknown step", w.own().Replies(), reply(of(live, func(c *events.CommandID) { c.Node = 99 })), machine.ReasonUnknownStep, events.Ignored},
			{"forged command id", w.own().Replies(), reply(string(forged)), events.PoisonForgedID, events.Quarantined},
			{"reply without its cause", w.own().Replies(), &kgo.Record{Key: []byte("k"), Value: []byte(`{}`)}, events.PoisonMissingHeader, events.Quarantined},
			{"reply of an unknown outcome", w.own().Replies(), reply(live.id, events.HeaderOutcome, "maybe"), events.PoisonUnknownOutcome, events.Quarantined},
			{"duplicate header in a reply", w.own().Replies(), reply(live.id, events.HeaderCausationID, live.id), events.PoisonDuplicateHeader, events.Quarantined},
			{"oversize reply", w.own().Replies(), &kgo.Record{Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 500<<10), Headers: headers(events.HeaderCausationID, live.id)}, events.PoisonOversize, events.Quarantined},
			{"compression bomb of replies", w.own().Replies(), reply(live.id, "x", strings.Repeat("\x00", 8<<20)), events.PoisonOversize, events.Quarantined},

			{"stranger in the inbox", w.own().Inbox(), reply(live.id), events.PoisonForward, events.Quarantined},
		}
		if w.id(foreign).Shard(2) != 1 {
			t.Fatal("the key does not belong to the other shard")
		}
		before := n.Stats()
		var keys []string
		at := map[string]string{} // place by name
		for i, x := range all {
			key := fmt.Sprintf("neighbour-%d", i)
			keys = append(keys, key)
			w.place(t, 0, key)
			at[x.name] = w.put(t, x.topic, 0, x.record)
		}
		w.place(t, 0, "last")
		w.completed(t, n, append(keys, "last")...)

		var quarantined, ignored, passed uint64
		for _, x := range all {
			switch x.how {
			case events.Quarantined:
				quarantined++
			case events.Ignored:
				ignored++
			default:
				passed++
			}
		}
		counted := func() string {
			now := n.Stats()
			return fmt.Sprint(now.Quarantined-before.Quarantined, now.Ignored-before.Ignored, now.Skipped-before.Skipped)
		}
		until(t, "all of it is counted", func() bool { return counted() == fmt.Sprint(quarantined, ignored, passed) })
		for _, x := range all {
			t.Run(x.name, func(t *testing.T) {
				message := map[events.Outcome]string{events.Quarantined: "quarantined", events.Ignored: "ignored", skipped: "skipped"}[x.how]
				if got := n.log.find(message, "reason", x.rule, "at", at[x.name]); len(got) != 1 {
					t.Errorf("%s is logged %d times as %s for %s", at[x.name], len(got), message, x.rule)
				}
			})
		}
		if i, ok, err := n.Get(w.id("live")); err != nil || !ok || i.State != events.Running || len(i.History) > 2 {
			t.Errorf("the instance that the bad replies named: %+v, %v, %v", i, ok, err)
		}
		w.release(t, "live")
		w.completed(t, n, "live")
		n.stop(t)

		decided, kept := w.decisions(t), map[string][]*kgo.Record{}
		for _, r := range w.everything(t, w.own().Quarantine()) {
			kept[header(r, events.HeaderPlace)] = append(kept[header(r, events.HeaderPlace)], r)
		}
		for _, x := range all {
			t.Run(x.name, func(t *testing.T) {
				ds, want := decided[at[x.name]], 1
				if x.how == skipped {
					want = 0
				}
				if len(ds) != want {
					t.Fatalf("%d decisions about %s: %+v", len(ds), at[x.name], ds)
				}
				if want == 1 && (ds[0].Outcome != x.how || !strings.HasPrefix(ds[0].Reason, x.rule)) {
					t.Errorf("it was decided %s: %s", ds[0].Outcome, ds[0].Reason)
				}
				rs := kept[at[x.name]]
				if x.how != events.Quarantined {
					if len(rs) != 0 {
						t.Errorf("it stands in quarantine: %+v", rs)
					}
					return
				}
				if len(rs) != 1 {
					t.Fatalf("it stands %d times in quarantine", len(rs))
				}
				untouched(t, x, rs[0])
			})
		}
		if len(kept) != int(quarantined) {
			t.Errorf("%d places in quarantine, want %d", len(kept), quarantined)
		}
	})
}

// header is the last of that name: what the record brought along stands before what Skald added.
func header(r *kgo.Record, name string) (value string) {
	for _, h := range r.Headers {
		if h.Key == name {
			value = string(h.Value)
		}
	}
	return value
}

// untouched holds the quarantine's record to the bytes of the bad one. A batch that must not be decompressed
// has nothing to show but its place.
func untouched(t *testing.T, x bad, got *kgo.Record) {
	t.Helper()
	if reason := header(got, events.HeaderReason); !strings.HasPrefix(reason, x.rule) {
		t.Errorf("the reason in its headers is %q", reason)
	}
	if strings.HasPrefix(x.name, "compression bomb") {
		if got.Key != nil || got.Value != nil {
			t.Errorf("something of the batch was kept: %.40q, %.40q", got.Key, got.Value)
		}
		return
	}
	if !bytes.Equal(got.Key, x.record.Key) || !bytes.Equal(got.Value, x.record.Value) || (got.Value == nil) != (x.record.Value == nil) {
		t.Errorf("its bytes changed: key %.40q, value %.40q", got.Key, got.Value)
	}
	n := len(x.record.Headers)
	if len(got.Headers) != n+2 {
		t.Fatalf("its headers are %+v", got.Headers)
	}
	for i, h := range x.record.Headers {
		if got.Headers[i].Key != h.Key || !bytes.Equal(got.Headers[i].Value, h.Value) {
			t.Errorf("header %d is %+v", i, got.Headers[i])
		}
	}
}
