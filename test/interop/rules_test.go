package interop

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/test/kafka"
)

// rules tells a payments service what the demo hardly ever does: duplicates, an undo before its forward
// command, an expired command, a type it does not know.
func rules(t *testing.T, service []string, brokers string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics("rules.replies"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopics(ctx, 1, 1, nil, "payments.commands", "rules.replies"); err != nil {
		t.Fatal(err)
	}
	var effects, said output
	foreign := exec.CommandContext(ctx, service[0], append(service[1:], brokers)...)
	foreign.Stdout, foreign.Stderr = &effects, &said
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = foreign.Process.Kill()
		_ = foreign.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()

	later, past := time.Now().Add(time.Hour).UnixMilli(), time.Now().Add(-time.Second).UnixMilli()
	for i, c := range []struct {
		typ, key, undoes string
		expiry           int64
		outcome, code    string // "" for no reply
	}{
		{"payments.authorize", "a", "", later, "done", ""},
		{"payments.authorize", "a", "", later, "done", ""},
		{"payments.authorize", "a", "", past, "done", ""}, // answered before: again, though it expired
		{"payments.void", "a/undo", "a", 0, "done", ""},
		{"payments.void", "a/undo", "a", 0, "done", ""},
		{"payments.authorize", "a", "", later, "done", ""}, // an effect that was there is not denied
		{"payments.refund", "b", "", later, "", ""},
		{"payments.void", "c/undo", "c", 0, "done", ""},
		{"payments.authorize", "c", "", later, "rejected", events.CodeUndone},
		{"payments.authorize", "d", "", past, "rejected", events.CodeExpired},
		{"payments.authorize", "d", "", later, "done", ""},
	} {
		id := string(rune('A' + i))
		r := &kgo.Record{Topic: "payments.commands", Key: []byte("order-1"), Value: []byte(`{"order":"order-1"}`)}
		for _, h := range [][2]string{{events.HeaderID, id}, {events.HeaderType, c.typ}, {events.HeaderIdempotencyKey, c.key},
			{events.HeaderUndoes, c.undoes}, {events.HeaderReplyTo, "rules.replies"}, {events.HeaderCorrelationID, "i"}} {
			if h[1] != "" {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
			}
		}
		if c.expiry != 0 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: events.HeaderExpiryTime, Value: []byte(events.Timestamp(c.expiry))})
		}
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if c.outcome == "" {
			continue // a reply to it would come before the next one's
		}
		var replies []*kgo.Record
		for len(replies) == 0 {
			replies = client.PollFetches(ctx).Records()
			if ctx.Err() != nil {
				t.Fatalf("no reply to %s %s", c.typ, c.key)
			}
		}
		got := map[string]string{}
		for _, h := range replies[0].Headers {
			got[h.Key] = string(h.Value)
		}
		if len(replies) != 1 || got[events.HeaderCausationID] != id || got[events.HeaderOutcome] != c.outcome || got[events.HeaderErrorCode] != c.code {
			t.Errorf("%s %s: %d replies, the first %v, not %s %s", c.typ, c.key, len(replies), got, c.outcome, c.code)
		}
	}
	if got, want := effects.String(), "payments.authorize order-1\npayments.void order-1\npayments.void order-1\npayments.authorize order-1\n"; got != want {
		t.Errorf("effects:\n%snot\n%s", got, want)
	}
}

func TestPythonKeepsTheRules(t *testing.T) {
	service := python(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	rules(t, service, cluster.ListenAddrs()[0])
}

func TestJavaKeepsTheRules(t *testing.T) {
	cluster := kafka.Require(t, kafka.Options{Brokers: 1})
	rules(t, java(t, cluster.Libs()), cluster.Addr())
}
