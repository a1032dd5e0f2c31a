package orchestrator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
)

// What operators, and programs through the API, do to instances is an input like any other: it goes through the inbox
// of the shard it is for, is decided there, and is answered when that decision is durable (G10, L22).

// Action is what somebody does to an instance: to Instance, or, where that is zero, to the live instance of Definition
// with the business key Key. Of the embedded fields ID may be empty: then one is drawn, and returned. Time is set here.
type Action struct {
	Instance events.InstanceID
	events.Action
}

// Answer is what an action was answered.
type Answer struct {
	ID       string // the action's message id: the same action with the same id gets the same answer
	Instance events.InstanceID
	Done     bool   // it was carried out, or waits in the instance's queue
	Code     string // stable: why not, or how
	Message  string
	Time     int64 // of the decision, ms since 1970
}

// ActionError says that an action cannot be sent as it is. Nothing was done.
type ActionError struct{ Code, Detail string }

func (e *ActionError) Error() string { return e.Code + ": " + e.Detail }

// Codes of ActionError, and of answers that no instance gave.
const (
	CodeBadAction  = "bad-action"
	CodeNotStarted = "not-started"
	CodeUnanswered = "unanswered"
)

// ErrUnanswered says that an action was sent, and that it is not known what became of it. The same action with the
// same id asks again, and does nothing twice.
var ErrUnanswered = errors.New(CodeUnanswered)

// kinds are the actions there are, and whether they need a reason.
var kinds = map[events.ActionKind]bool{
	events.ActionSignal: false, events.ActionRetry: false, events.ActionResolve: true, events.ActionSkip: true, events.ActionCompensate: true,
	events.ActionCancel: true, events.ActionSuspend: false, events.ActionResume: false, events.ActionTerminate: true, events.ActionPatchData: true,
}

// NeedsReason reports whether an action of that kind must say why: it changes for good what a saga does, or what is
// believed of the world.
func NeedsReason(k events.ActionKind) bool { return kinds[k] }

// Act sends an action to the shard that its instance lives on, which may be another node's, and returns what was
// decided once that is durable. An action that is refused is an Answer with Done false, and no error. Errors are an
// *ActionError when nothing was sent; else they wrap ErrUnanswered. It may be called by any number of goroutines.
func (e *Engine) Act(ctx context.Context, a Action) (Answer, error) {
	shards := e.shards()
	if shards == 0 {
		return Answer{}, &ActionError{CodeNotStarted, "the engine does not run yet"}
	}
	if a.ID == "" {
		a.ID = newMessageID()
	}
	if err := a.check(e.cfg.MaxRecord); err != nil {
		return Answer{ID: a.ID}, err
	}
	a.Time = time.Now().UnixMilli()
	to := a.Instance
	if to.IsZero() {
		to = events.KeyID(e.cfg.App, a.Definition, a.Key, shards*events.SlotsPerShard)
	}
	msg := events.InboxMessage{Kind: events.InboxAction, To: to, Action: &a.Action}
	m := events.WrapMessage(msg.Encode(nil), to, nil)
	shard := to.Shard(shards)
	m.Topic, m.Partition = e.topics.Inbox(), shard

	answered := e.asked.expect(a.ID)
	defer e.asked.forget(a.ID, answered)
	// The answer to a key without a live instance names nobody.
	named := func(answer Answer) Answer {
		if a.Instance.IsZero() && answer.Instance == to {
			answer.Instance = events.InstanceID{}
		}
		return answer
	}
	elsewhere, err := e.tail(ctx, shard)
	if err != nil {
		return Answer{ID: a.ID}, fmt.Errorf("nothing was sent: %w", err)
	}
	if err := e.produce(ctx, &m); err != nil {
		return Answer{ID: a.ID}, fmt.Errorf("%w: action %s to %s/%d: %w", ErrUnanswered, a.ID, m.Topic, m.Partition, err)
	}
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		t := time.NewTimer(wait)
		select {
		case answer := <-answered:
			t.Stop()
			return named(answer), nil
		case <-ctx.Done():
			t.Stop()
			return Answer{ID: a.ID}, fmt.Errorf("%w: action %s was sent to shard %d and is not decided: does a node own it? Ask again with the same id: %w", ErrUnanswered, a.ID, shard, ctx.Err())
		case <-t.C:
		}
		// This node does not own the shard, or not any more: the journal knows.
		if elsewhere == nil && !slices.Contains(e.Shards(), shard) {
			elsewhere = &tail{}
		}
		if elsewhere == nil {
			continue
		}
		answer, ok, err := elsewhere.find(ctx, e, shard, a.ID)
		if err != nil && ctx.Err() == nil {
			return Answer{ID: a.ID}, fmt.Errorf("%w: action %s: reading the journal of shard %d: %w", ErrUnanswered, a.ID, shard, err)
		}
		if ok {
			return named(answer), nil
		}
	}
}

// Signal sends a signal to the live instance of a definition and business key. payload is what the signal's own
// Encode prints, nil for a signal that says nothing.
func (e *Engine) Signal(ctx context.Context, definition, key, name string, payload []byte) (Answer, error) {
	return e.Act(ctx, Action{Action: events.Action{Kind: events.ActionSignal, Definition: definition, Key: key, Name: name, Payload: payload}})
}

// check refuses what no instance could take, before anything is sent.
func (a *Action) check(maxRecord int) error {
	bad := func(format string, args ...any) error {
		return &ActionError{CodeBadAction, fmt.Sprintf(format, args...)}
	}
	why, known := kinds[a.Kind]
	switch {
	case !known:
		return bad("there is no action %.40q", a.Kind)
	case a.Instance.IsZero() && (a.Definition == "" || a.Key == ""):
		return bad("it names an instance, or a definition and a business key")
	case !a.Instance.IsZero() && (a.Definition != "" || a.Key != ""):
		return bad("it names an instance, or a definition and a business key: not both")
	case why && strings.TrimSpace(a.Why) == "":
		return bad("%s needs a reason", a.Kind)
	case a.Kind == events.ActionSignal && a.Name == "":
		return bad("a signal has a name")
	case a.Kind == events.ActionResolve && a.Outcome != "done" && a.Outcome != "rejected" && a.Outcome != "compensated":
		return bad("resolve says done, rejected or compensated, not %.40q", a.Outcome)
	case a.Kind == events.ActionPatchData && len(a.Payload) == 0:
		return bad("patch-data has a JSON merge patch")
	case len(a.Payload) > maxRecord/4:
		return bad("a payload of %d bytes, at most %d", len(a.Payload), maxRecord/4)
	}
	for _, x := range []struct {
		what, text string
		most       int
	}{
		{"an id", a.ID, events.MaxIDBytes}, {"who", a.Who, events.MaxWhoBytes}, {"why", a.Why, events.MaxWhyBytes}, {"a business key", a.Key, events.MaxKeyBytes},
		{"a definition's name", a.Definition, 128}, {"a step", a.Step, 512}, {"a name", a.Name, 128},
	} {
		if len(x.text) > x.most {
			return bad("%s of %d bytes, at most %d", x.what, len(x.text), x.most)
		}
		if !utf8.ValidString(x.text) {
			return bad("%s is not UTF-8", x.what)
		}
	}
	return nil
}

// newMessageID is a random id, unlike any other.
func newMessageID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// shards is the number of shards, 0 before it is known.
func (e *Engine) shards() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.layout.shards
}

// produce sends a message and waits until Kafka has it. An error leaves it open whether it does.
func (e *Engine) produce(ctx context.Context, m *events.Message) error {
	done := make(chan error, 1)
	e.cfg.Kafka.Produce(m, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asked are the actions that callers on this node wait for, by id. Its zero value has none.
type asked struct {
	mu      sync.Mutex
	waiting map[string][]chan Answer
}

func (w *asked) expect(id string) chan Answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = map[string][]chan Answer{}
	}
	c := make(chan Answer, 1)
	w.waiting[id] = append(w.waiting[id], c)
	return c
}

func (w *asked) forget(id string, c chan Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := slices.DeleteFunc(w.waiting[id], func(x chan Answer) bool { return x == c })
	if w.waiting[id] = rest; len(rest) == 0 {
		delete(w.waiting, id)
	}
}

// expects reports whether somebody on this node waits for the answer to that action.
func (w *asked) expects(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting[id]) > 0
}

// tell gives an answer to whoever waits for it. It does not block.
func (w *asked) tell(a Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.waiting[a.ID] {
		select {
		case c <- a:
		default: // it has one
		}
	}
}

// answerIn is the answer to an action that a decision gives. again says that it was answered before: the first answer
// stands in a row.
func answerIn(rec *events.Record) (a Answer, again bool) {
	d := rec.Decision
	a = Answer{ID: d.Input.MessageID, Instance: d.Instance, Time: rec.Time}
	for i := range d.Rows {
		r := &d.Rows[i]
		if r.Ref.Part != events.PartAnswer || r.Gone {
			continue
		}
		if row, err := events.DecodeAnswer(r.Value); err == nil && row.MessageID == a.ID {
			return answerOf(d.Instance, row), false // one sent to a key stands there, and is about that instance
		}
	}
	a.Code, a.Message, _ = strings.Cut(d.Reason, ": ")
	return a, a.Code == machine.ReasonRepeatedAction
}

// answerOf is what a row says that stands under id: an instance, or the key that an action was sent to.
func answerOf(id events.InstanceID, row *events.Answer) Answer {
	if !row.Instance.IsZero() {
		id = row.Instance
	}
	return Answer{ID: row.MessageID, Instance: id, Done: row.Done, Code: row.Code, Message: row.Message, Time: row.Time}
}

// tellActed answers the callers of actions that were accepted, once the store shows what they did.
func (s *Shard) tellActed(accepted []pending) error {
	if s.cfg.Acted == nil {
		return nil
	}
	acted := false
	for i := range accepted {
		d := accepted[i].rec.Decision
		acted = acted || d != nil && d.Input.Kind == events.InputAction
	}
	if !acted {
		return nil
	}
	if err := s.apply(); err != nil {
		return err
	}
	for i := range accepted {
		rec := accepted[i].rec
		if rec.Decision == nil || rec.Decision.Input.Kind != events.InputAction {
			continue
		}
		a, again := answerIn(rec)
		if again {
			ref := events.RowRef{Part: events.PartAnswer, N: events.AnswerNumber(a.ID)}
			if value, _, ok := s.overlay.Row(a.Instance, ref); ok {
				if row, err := events.DecodeAnswer(value); err == nil && row.MessageID == a.ID {
					a = answerOf(a.Instance, row)
				}
			}
		}
		s.cfg.Acted(a)
	}
	return nil
}

// tail reads the end of a journal that another node writes, by the rules of the log.
type tail struct {
	mu    sync.Mutex
	state *journal.State
	first map[string]Answer // of the ids that were asked for
}

// tail is a reader of the shard's journal at its end, nil when this node owns the shard.
func (e *Engine) tail(ctx context.Context, shard int32) (*tail, error) {
	if slices.Contains(e.Shards(), shard) {
		return nil, nil
	}
	e.mu.Lock()
	if e.tails == nil {
		e.tails = map[int32]*tail{}
	}
	t := e.tails[shard]
	if t == nil {
		t = &tail{}
		e.tails[shard] = t
	}
	e.mu.Unlock()
	_, _, err := t.find(ctx, e, shard, "")
	return t, err
}

// find reads on, and gives the answer to the action of that id if it was decided since the tail was made, or, for an
// action that is repeated, ever.
func (t *tail) find(ctx context.Context, e *Engine, shard int32, id string) (a Answer, ok bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	log := e.cfg.Kafka.Log(e.topics.Journal(), shard)
	defer log.Close()
	again := false
	if a, ok = t.first[id]; ok {
		delete(t.first, id)
		if again = a.Code == machine.ReasonRepeatedAction; !again || mutant.On("engine-repetition-answered-as-such") {
			return a, true, nil
		}
	}
	err = t.read(ctx, log, func(rec *events.Record) {
		if d := rec.Decision; d != nil && d.Input.Kind == events.InputAction {
			found, repeated := answerIn(rec)
			if found.ID == id {
				a, ok, again = found, true, repeated
			} else if e.asked.expects(found.ID) || mutant.On("engine-keeps-answers-of-nobody") {
				t.keep(e, found, repeated)
			}
		}
	})
	if err != nil || !again {
		return a, ok, err
	}
	whole := &tail{}
	err = whole.read(ctx, log, func(rec *events.Record) {
		if rec.Carry != nil {
			for i := range rec.Carry.Rows {
				if of, ref, isRow := events.ParseRowKey(rec.Carry.Rows[i].Key); isRow && ref.Part == events.PartAnswer {
					if row, err := events.DecodeAnswer(rec.Carry.Rows[i].Value); err == nil && row.MessageID == id {
						a = answerOf(of, row)
					}
				}
			}
		}
		if d := rec.Decision; d != nil && d.Input.Kind == events.InputAction {
			if found, repeated := answerIn(rec); found.ID == id && !repeated {
				a = found
			}
		}
	})
	return a, true, err
}

// keep keeps an answer for another caller on this node, who has yet to look: the first that was given.
func (t *tail) keep(e *Engine, found Answer, repeated bool) {
	if _, known := t.first[found.ID]; known && repeated {
		return
	}
	if len(t.first) >= maxTailAnswers {
		maps.DeleteFunc(t.first, func(id string, _ Answer) bool {
			return !e.asked.expects(id) && !mutant.On("engine-keeps-answers-of-nobody")
		}) // who asked has gone
		if len(t.first) >= maxTailAnswers {
			return
		}
	}
	if t.first == nil {
		t.first = map[string]Answer{}
	}
	t.first[found.ID] = found
}

// maxTailAnswers bounds the answers that are kept for callers of the same moment.
const maxTailAnswers = 10_000

// read takes what the journal has got since the last time. A journal that was trimmed past it is read from its start.
func (t *tail) read(ctx context.Context, log Log, accepted func(*events.Record)) error {
	bounds, err := log.Bounds(ctx)
	if err != nil {
		return err
	}
	if t.state == nil || t.state.Next < bounds.Start {
		t.state = journal.NewState()
		t.state.Next = bounds.Start
	}
	if t.state.Next >= bounds.End {
		return nil
	}
	_, err = log.Read(ctx, t.state.Next, func(r LogRecord) error {
		if r.Offset != t.state.Next {
			return fmt.Errorf("%w: it reads offset %d where %d was expected", ErrUntrusted, r.Offset, t.state.Next)
		}
		v, rec, err := t.state.Fold(r.Offset, r.Offset == bounds.Start, r.Value, discard{})
		if err == nil && v == journal.Accepted {
			accepted(rec)
		}
		return err
	})
	if err != nil {
		t.state = nil
	}
	return err
}
