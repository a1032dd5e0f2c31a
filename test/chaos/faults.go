package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// The points at which a node can be held still, to be killed there or to go on later.
const (
	pointAppended = "appended" // the broker has acknowledged a decision; the engine has not been told
	pointDecided  = "decided"  // the engine was told that a decision is durable, and is about to send its first command
	pointAppend   = "append"   // the engine has handed a decision over; it is not sent

	pointCommit    = "commit"    // a transaction's messages and progress are with the brokers; its end is not sent
	pointCommitted = "committed" // its end is sent, and nobody has read the answer
)

// faults wraps a node's connection to Kafka. Only decisions that emit commands count: those have something to lose.
type faults struct {
	orchestrator.Kafka
	app string
	say func(format string, args ...any) // to the parent
	wire

	mu      sync.Mutex
	point   string // armed; "" for none
	count   int    // how many times to let pass
	held    chan struct{}
	durable map[string]string // command id → where its decision stands, once the engine was told
	trims   map[orchestrator.TopicPartition]int64
	copied  string                     // the file that says how far the recorder is
	queued  map[string]map[string]bool // by transactional id: the messages, by ce_id, whose commit it was not told
}

// Begin and End make it an orchestrator.Gatherer, as what it wraps is.
func (f *faults) Begin() { f.Kafka.(orchestrator.Gatherer).Begin() }
func (f *faults) End()   { f.Kafka.(orchestrator.Gatherer).End() }

// DeleteRecords is put off until the recorder has a copy of what is to be deleted. The engine is told at once that it
// is done: a broker, too, may take its time.
func (f *faults) DeleteRecords(_ context.Context, p orchestrator.TopicPartition, before int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trims[p] = max(f.trims[p], before)
	return nil
}

// trim deletes what was put off, once it is copied, until ctx ends.
func (f *faults) trim(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		waiting := maps.Clone(f.trims)
		f.mu.Unlock()
		if len(waiting) == 0 {
			continue
		}
		copied, err := readCopied(f.copied)
		if err != nil {
			continue // not written yet
		}
		for p, before := range waiting {
			if copied[p.Topic+"/"+strconv.Itoa(int(p.Partition))] < before {
				continue
			}
			if err := f.Kafka.DeleteRecords(ctx, p, before); err != nil {
				continue
			}
			f.mu.Lock()
			if f.trims[p] == before {
				delete(f.trims, p)
			}
			f.mu.Unlock()
		}
	}
}

// The file of a recorder's progress: the offset up to which each topic/partition is copied.
func readCopied(file string) (map[string]int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var m map[string]int64
	return m, json.Unmarshal(b, &m)
}

func writeCopied(file string, m map[string]int64) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file) // so that nobody reads half of it
}

func (f *faults) arm(point string, count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.point, f.count = point, count
}

// goOn lets go what is held.
func (f *faults) goOn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held != nil {
		close(f.held)
		f.held = nil
	}
}

// at holds the caller when the point is armed and its count is over.
func (f *faults) at(point, evidence string) {
	f.mu.Lock()
	if f.point != point {
		f.mu.Unlock()
		return
	}
	if f.count > 0 {
		f.count--
		f.mu.Unlock()
		return
	}
	f.point = ""
	held := make(chan struct{})
	f.held = held
	f.mu.Unlock()
	f.say("at %s %s", point, evidence)
	<-held
}

func (f *faults) Log(topic string, partition int32) orchestrator.Log {
	return &faultyLog{f.Kafka.Log(topic, partition), f, topic, partition}
}

type faultyLog struct {
	orchestrator.Log
	f         *faults
	topic     string
	partition int32
}

func (l *faultyLog) Trim(ctx context.Context, before int64) error {
	return l.f.DeleteRecords(ctx, orchestrator.TopicPartition{Topic: l.topic, Partition: l.partition}, before)
}

func (l *faultyLog) Append(value []byte, done func(int64, error)) {
	ids := l.f.commands(value)
	if len(ids) == 0 {
		l.Log.Append(value, done)
		return
	}
	l.f.at(pointAppend, fmt.Sprintf("%s/%d hash=%s commands=%s", l.topic, l.partition, events.HashOf(value), strings.Join(ids, ",")))
	l.Log.Append(value, func(offset int64, err error) {
		if err == nil {
			where := fmt.Sprintf("%s/%d/%d hash=%s", l.topic, l.partition, offset, events.HashOf(value))
			l.f.at(pointAppended, where+" commands="+strings.Join(ids, ","))
			l.f.mu.Lock()
			for _, id := range ids {
				l.f.durable[id] = where
			}
			l.f.mu.Unlock()
		}
		done(offset, err)
	})
}

// commands are the ids of the commands that an encoded record emits.
func (f *faults) commands(value []byte) []string {
	rec, err := events.DecodeRecord(value)
	if err != nil || rec.Decision == nil || len(rec.Decision.Emits) == 0 {
		return nil
	}
	var ids []string
	for _, e := range rec.Decision.Emits {
		if e.Kind == events.EmitCommand {
			ids = append(ids, events.CommandID{Instance: rec.Decision.Instance, Node: e.Node, Execution: e.Execution, Attempt: e.Attempt, Phase: e.Phase}.Text(f.app))
		}
	}
	return ids
}

// produced says that one is about to be sent.
func (f *faults) produced(m *events.Message) {
	if _, command := m.Header(events.HeaderSagaPhase); !command {
		return
	}
	id, _ := m.Header(events.HeaderID)
	f.mu.Lock()
	where, told := f.durable[id]
	delete(f.durable, id)
	f.mu.Unlock()
	if told { // not of a tail that is sent again
		f.at(pointDecided, where+" commands="+id)
	}
}

func (f *faults) Produce(m *events.Message, done func(error)) {
	f.produced(m)
	f.Kafka.Produce(m, done)
}
