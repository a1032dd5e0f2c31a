package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
)

// exactly is the model with transactions: what an emitter commits stands on its topic, and its progress with it.
type exactly struct {
	*model
	committed map[string]Emitted
	owner     map[string]*modelEmitter
	refuse    error
	held      bool // transactions do not end
}

type modelEmitter struct {
	k      *exactly
	id     string
	open   []func(commit bool)
	closed bool
}

func newExactly(m *model) *exactly {
	return &exactly{model: m, committed: map[string]Emitted{}, owner: map[string]*modelEmitter{}}
}

func (k *exactly) Transactions(id, _ string, _ TopicPartition, _ []string) Emitter {
	return &modelEmitter{k: k, id: id}
}

func (e *modelEmitter) Open(context.Context) (Emitted, error) {
	if old := e.k.owner[e.id]; old != nil {
		old.end(false)
	}
	e.k.owner[e.id] = e
	return e.k.committed[e.id], nil
}

func (e *modelEmitter) Emit(at Emitted, msgs []*events.Message, done func(int, error)) {
	if e.k.owner[e.id] != e {
		done(0, fmt.Errorf("%w: in the model", ErrFenced))
		return
	}
	e.open = append(e.open, func(commit bool) {
		for i, m := range msgs {
			switch {
			case !commit:
			case e.k.refuse != nil:
				done(i, e.k.refuse)
			default:
				e.k.model.put(events.Message{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers})
				done(i, nil)
			}
		}
		if commit {
			e.k.committed[e.id] = at
		}
	})
	if !e.k.held {
		e.end(true)
	}
}

func (e *modelEmitter) end(commit bool) {
	for _, fn := range e.open {
		fn(commit)
	}
	e.open = nil
}

func (e *modelEmitter) Close() { e.closed = true }

func transactionalStory(t *testing.T) (*story, *exactly) {
	st := newStory(t, 1, oneStep)
	k := newExactly(st.kafka)
	st.tune = func(c *ShardConfig) { c.Kafka, c.Transactional = k, []string{"payments"} }
	return st, k
}

// L16: a crash between the commit and the journal's word of it repeats nothing.
func TestWhatATransactionCommittedIsNotEmittedAgain(t *testing.T) {
	st, k := transactionalStory(t)
	a := st.open(0, "a")
	st.order(0, "x")
	must(t, st.turn(a))
	if ids, _ := st.commands("payments"); len(ids) != 1 || k.committed[EmitID(app, 0)].Seq == 0 {
		t.Fatalf("%d commands, progress %v", len(ids), k.committed)
	}
	st.lose(0) // with the store goes what it knew of emission; the journal does not say it yet
	b := st.open(0, "b")
	must(t, st.turn(b))
	if ids, repeats := st.commands("payments"); len(ids) != 1 || repeats != 0 {
		t.Fatalf("%d commands and %d repeats, want 1 and none", len(ids), repeats)
	}
	st.order(0, "y")
	must(t, st.turn(b))
	if ids, repeats := st.commands("payments"); len(ids) != 2 || repeats != 0 {
		t.Errorf("%d commands and %d repeats of the next order", len(ids), repeats)
	}
}

// L16: a retried append leaves its record in the journal twice, and the transaction names the first. An owner with a store
// must not go by the second.
func TestWhatWasCommittedOfARecordThatIsThereTwiceIsNotEmittedAgain(t *testing.T) {
	st, _ := transactionalStory(t)
	st.tune = func(tune func(*ShardConfig)) func(*ShardConfig) {
		return func(c *ShardConfig) { tune(c); c.ApplyAfter = 0 }
	}(st.tune)
	a := st.open(0, "a")
	turn := func() {
		_, err := a.Turn(context.Background())
		must(t, err)
	}
	st.kafka.manual = true
	st.order(0, "x")
	turn()
	w := *st.kafka.queue[0]
	st.kafka.step()
	st.kafka.write(&modelWrite{tp: w.tp, v: w.v}, false) // the retry
	turn()                                               // x's command is committed
	ids, _ := st.commands("payments")
	st.reply(0, ids[0], "progress")
	turn()
	st.kafka.flush()
	turn() // reads back what slipped in; the store ends behind the retry
	st.kafka.manual = false
	b := st.open(0, "b")
	must(t, st.turn(b))
	if ids, repeats := st.commands("payments"); len(ids) != 1 || repeats != 0 {
		t.Errorf("%d commands and %d repeats, want 1 and none", len(ids), repeats)
	}
}

// L16: what was in a transaction that never ended is emitted by the next owner.
func TestWhatATransactionDidNotCommitIsEmittedByTheNextOwner(t *testing.T) {
	st, k := transactionalStory(t)
	a := st.open(0, "a")
	k.held = true
	st.order(0, "x")
	must(t, st.turn(a))
	st.advance(2 * time.Second)
	must(t, st.turn(a))
	if a.emits.emitted() >= a.emits.lastEmitting {
		t.Fatal("progress passed an open transaction")
	}
	k.held = false
	b := st.open(0, "b")
	must(t, st.turn(b))
	if ids, repeats := st.commands("payments"); len(ids) != 1 || repeats != 0 {
		t.Errorf("%d commands and %d repeats, want 1 and none", len(ids), repeats)
	}
}

func TestAFencedEmitterEndsTheShard(t *testing.T) {
	st, k := transactionalStory(t)
	a := st.open(0, "a")
	if _, err := k.Transactions(EmitID(app, 0), "", TopicPartition{}, nil).Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	st.order(0, "x")
	if err := st.turn(a); !errors.Is(err, ErrFenced) || ErrorCode(err) != CodeFenced {
		t.Errorf("it ends with %v", err)
	}
}

func TestARefusalInATransactionBecomesAnInput(t *testing.T) {
	st, k := transactionalStory(t)
	a := st.open(0, "a")
	k.refuse = fmt.Errorf("%w: too large", ErrRefused)
	st.order(0, "x")
	must(t, st.turn(a))
	if a.ahead.Seq < 2 || !a.emits.idle() || a.emits.refusal == 0 {
		t.Errorf("sequence %d, %d open, refusal %d", a.ahead.Seq, a.emits.open, a.emits.refusal)
	}
}

func TestAKafkaWithoutTransactionsIsRefusedWhereTheyAreAskedFor(t *testing.T) {
	st := newStory(t, 1, oneStep)
	st.tune = func(c *ShardConfig) { c.Transactional = []string{"payments"} }
	if _, err := OpenShard(context.Background(), st.config(0, "a")); err == nil {
		t.Error("it was opened")
	}
}
