package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// cannedKafka has journals that nobody writes to.
type cannedKafka struct {
	orchestrator.Kafka
	logs map[int32][][]byte
}

func (k cannedKafka) Log(_ string, partition int32) orchestrator.Log {
	return cannedLog{records: k.logs[partition]}
}

type cannedLog struct {
	orchestrator.Log
	records [][]byte
}

func (l cannedLog) Read(_ context.Context, from int64, fn func(orchestrator.LogRecord) error) (int64, error) {
	for i := from; i < int64(len(l.records)); i++ {
		if err := fn(orchestrator.LogRecord{Offset: i, Time: 1_000_000 + i, Value: l.records[i]}); err != nil {
			return i, err
		}
	}
	return int64(len(l.records)), nil
}

func (cannedLog) Close() {}

func claim(nonce byte, term uint64) []byte {
	r := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{nonce}, Term: term, Claim: &events.Claim{Node: "a\x1b[31m", Shards: 1, Slots: 64, Build: "b"}}
	return r.Encode(nil)
}

func chained(nonce byte, seq uint64, prev events.Hash, d *events.Decision) []byte {
	r := events.Record{Kind: events.KindDecision, Nonce: events.Nonce{nonce}, Seq: seq, Prev: prev, Time: 1_000_000, Decision: d}
	return r.Encode(nil)
}

func TestJournalCatJudgesAsEveryReaderDoes(t *testing.T) {
	start := decided("order-1", 0, events.Running, events.Entry{Kind: events.EntryCommand, Step: "reserve-stock", Phase: events.Forward, Execution: 1, Attempt: 1}).Decision
	start.Input = events.Input{Kind: events.InputEvent, Topic: "orders", Partition: 2, Offset: 7}
	start.Emits = []events.Emit{{Kind: events.EmitCommand, Topic: "inventory.commands", Type: "inventory.reserve-stock"}}
	nothing := &events.Decision{Outcome: events.Progressed}
	first := chained(1, 1, events.Hash{}, start)
	second := chained(1, 2, events.HashOf(first), nothing)
	third := chained(2, 3, events.HashOf(second), nothing)
	k := cannedKafka{logs: map[int32][][]byte{0: {
		claim(1, 1), first, second,
		first, // a retried batch
		claim(2, 2),
		chained(1, 3, events.HashOf(second), nothing), // a zombie
		third,
		chained(2, 9, events.HashOf(third), nothing),
		chained(2, 4, events.HashOf(third), nothing), // too late, the epoch is over
		[]byte("\x01garbage"),
	}}}
	want := "accepted claim, accepted decision, accepted decision, duplicate decision, accepted claim, foreign decision, accepted decision, gap decision, ended decision, unreadable "

	e, stdout, _ := testEnv()
	err := catJournal(t.Context(), newScreen(e), k, "shop.journal", []int32{0}, 0, true)
	if err == nil || !strings.Contains(err.Error(), "1 records of shop.journal could not be read") {
		t.Errorf("got %v", err)
	}
	var got []string
	for line := range strings.Lines(stdout.String()) {
		var v recordView
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		got = append(got, v.Verdict+" "+v.Kind)
	}
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}

	e, stdout, _ = testEnv()
	catJournal(t.Context(), newScreen(e), k, "shop.journal", []int32{0}, 0, false)
	lines := strings.Split(stdout.String(), "\n")
	if strings.Contains(stdout.String(), "\x1b") || !strings.Contains(lines[0], `accepted claim term 1 by a\x1b[31m`) {
		t.Errorf("the claim: %q", lines[0])
	}
	wantLine := "0/1 1970-01-01T00:16:40.001Z accepted decision seq 1 applied event orders/2/7 · " + start.Instance.String() +
		" order-1 running · command reserve-stock → inventory.commands inventory.reserve-stock"
	if lines[1] != wantLine {
		t.Errorf("got  %s\nwant %s", lines[1], wantLine)
	}
}

func TestJournalCatFromTheMiddleKnowsWhatWentBefore(t *testing.T) {
	nothing := &events.Decision{Outcome: events.Progressed}
	first := chained(1, 1, events.Hash{}, nothing)
	k := cannedKafka{logs: map[int32][][]byte{3: {claim(1, 1), first, chained(1, 2, events.HashOf(first), nothing)}}}
	e, stdout, _ := testEnv()
	if err := catJournal(t.Context(), newScreen(e), k, "shop.journal", []int32{3}, 2, false); err != nil {
		t.Fatal(err)
	}
	if got, want := stdout.String(), "3/2 1970-01-01T00:16:40.002Z accepted decision seq 2 progress\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
