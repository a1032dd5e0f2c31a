package orchestrator

import (
	"context"
	"fmt"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
)

// script is a journal that a test writes; scripted the Kafka that has it.
type script struct {
	Log
	values [][]byte
	seq    uint64
	prev   events.Hash
}

type scripted struct {
	Kafka
	log *script
}

func (k scripted) Log(string, int32) Log { return k.log }

func (s *script) Close() {}

func (s *script) Bounds(context.Context) (Bounds, error) {
	return Bounds{End: int64(len(s.values))}, nil
}

func (s *script) Read(_ context.Context, from int64, fn func(LogRecord) error) (int64, error) {
	for i := from; i < int64(len(s.values)); i++ {
		if err := fn(LogRecord{Offset: i, Value: s.values[i]}); err != nil {
			return i, err
		}
	}
	return int64(len(s.values)), nil
}

func (s *script) append(rec events.Record) {
	rec.Nonce = events.Nonce{1}
	if rec.Kind == events.KindDecision {
		s.seq++
		rec.Seq, rec.Prev = s.seq, s.prev
	}
	value := rec.Encode(nil)
	if rec.Kind == events.KindDecision {
		s.prev = events.HashOf(value)
	}
	s.values = append(s.values, value)
}

func (s *script) acted(id string, first bool) {
	d := &events.Decision{Outcome: events.Ignored, Reason: machine.ReasonRepeatedAction, Instance: events.InstanceID{7}, Input: events.Input{Kind: events.InputAction, MessageID: id}}
	if first {
		row := events.Answer{MessageID: id, Done: true, Code: "queued"}
		d.Outcome, d.Reason = events.Applied, ""
		d.Rows = []events.RowChange{{Ref: events.RowRef{Part: events.PartAnswer, N: events.AnswerNumber(id)}, Value: row.Encode(nil)}}
	}
	s.append(events.Record{Kind: events.KindDecision, Decision: d})
}

// L22: two who ask for the same on one node read one journal, and what one of them reads is kept for the other.
func TestWhoAsksAgainGetsTheFirstAnswerThoughAnotherReadItForHim(t *testing.T) {
	for name, late := range map[string]bool{"both decided after he asked": false, "the first decided before he asked": true} {
		t.Run(name, func(t *testing.T) {
			log := &script{}
			log.append(events.Record{Kind: events.KindClaim, Term: 1, Claim: &events.Claim{Node: "n1", Shards: 1, Slots: 64}})
			e := &Engine{cfg: Config{Kafka: scripted{log: log}}}
			if late {
				log.acted("mine", true)
			}
			reader := &tail{}
			defer e.asked.forget("mine", e.asked.expect("mine"))
			find := func(id string) Answer {
				t.Helper()
				a, ok, err := reader.find(t.Context(), e, 0, id)
				if err != nil || ok != (id != "") {
					t.Fatalf("%q: %v, %v", id, ok, err)
				}
				return a
			}
			find("")
			if late {
				reader.first = nil // what was decided before he asked was nobody's
			} else {
				log.acted("mine", true)
			}
			log.acted("mine", false)
			log.acted("another's", true)
			find("another's")
			if a := find("mine"); !a.Done || a.Code != "queued" {
				t.Fatalf("the answer is %+v", a)
			}
		})
	}
}

// A shard of another node has a history of actions that nobody here asked for.
func TestAnswersThatNobodyHereWaitsForDoNotKeepOutThoseThatSomebodyDoes(t *testing.T) {
	log := &script{}
	log.append(events.Record{Kind: events.KindClaim, Term: 1, Claim: &events.Claim{Node: "n1", Shards: 1, Slots: 64}})
	for n := range maxTailAnswers + 1 {
		log.acted(fmt.Sprintf("old-%d", n), true)
	}
	e, reader := &Engine{cfg: Config{Kafka: scripted{log: log}}}, &tail{}
	if _, _, err := reader.find(t.Context(), e, 0, ""); err != nil {
		t.Fatal(err)
	}
	defer e.asked.forget("mine", e.asked.expect("mine"))
	log.acted("mine", true)
	log.acted("another's", true)
	for _, id := range []string{"another's", "mine"} {
		if a, ok, err := reader.find(t.Context(), e, 0, id); err != nil || !ok || !a.Done {
			t.Errorf("%s: %+v, %v, %v", id, a, ok, err)
		}
	}
}
