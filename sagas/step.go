package sagas

import (
	"reflect"
	"slices"
	"time"
)

// Defaults of the policies. Attempts are counted as Retry says.
const (
	DefaultTimeout     = 30 * time.Second // of an attempt of a step, or of an undo
	DefaultBackoff     = 500 * time.Millisecond
	DefaultCap         = time.Minute
	DefaultUndoBackoff = time.Second
	DefaultUndoCap     = 5 * time.Minute
	DefaultJitter      = 0.2
)

type undoSpec struct {
	source, cmdSource string
	topic, typ        string
	build             func(any) ([]byte, error)
	timeout           time.Duration
	retry             []RetryOption
	command, reply    reflect.Type
	missing           []string
}

// StepOf is a step of a saga over data T. Its methods give a changed step; they leave the old one alone.
type StepOf[T any] struct{ s *spec }

func (n StepOf[T]) spec(*T) *spec { return n.s }

// Step sends a command and waits for its reply. build makes the command's payload from the data; onReply
// takes the reply into the data, and may be nil when it is not needed. Both are pure: they run once, when
// the command or the reply is decided. What they return is journaled; if one panics, its instance is
// parked.
//
// A step is compensatable unless Pivot or Retriable says otherwise, and must then have an Undo or be
// EffectFree. An attempt may take DefaultTimeout and is retried as Retry says.
func Step[T, C, R any](name string, command Command[C, R], build func(T) C, onReply func(*T, R)) StepOf[T] {
	s := &spec{
		kind:      KindStep,
		name:      name,
		source:    caller(1),
		timeout:   DefaultTimeout,
		cmdSource: command.source,
		types:     StepTypes{Command: reflect.TypeFor[C](), Reply: reflect.TypeFor[R]()},
		step:      StepPlan{Topic: command.topic, Type: command.typ, Build: builds(build)},
	}
	if build == nil {
		s.missing = append(s.missing, "a function for its command's payload")
	}
	if onReply != nil {
		s.step.OnReply = func(data any, reply []byte) error {
			d, err := over[T](data)
			if err != nil {
				return err
			}
			var r R
			if err := decodeReply(reply, &r); err != nil {
				return err
			}
			onReply(d, r)
			return nil
		}
	}
	return StepOf[T]{s}
}

func builds[T, C any](build func(T) C) func(any) ([]byte, error) {
	return func(data any) ([]byte, error) {
		d, err := over[T](data)
		if err != nil {
			return nil, err
		}
		return encodeJSON(build(*d))
	}
}

func (n StepOf[T]) with(change func(*spec)) StepOf[T] {
	var c spec
	if n.s != nil {
		c = *n.s
	} else { // the zero StepOf: it has no name, and Plan says so
		c = spec{kind: KindStep, source: caller(2), timeout: DefaultTimeout}
	}
	change(&c)
	return StepOf[T]{&c}
}

// Undo says how the step is compensated. The undo goes to the topic of the step's command, so that the two
// stay in order, and the data it is built from may lack the step's reply: choose ids beforehand.
func (n StepOf[T]) Undo(undo UndoOf[T]) StepOf[T] {
	return n.with(func(s *spec) {
		s.undo, s.undos = undo.u, s.undos+1
		if undo.u != nil {
			s.types.UndoCommand, s.types.UndoReply = undo.u.command, undo.u.reply
		}
	})
}

// Timeout is how long one attempt may take before its outcome counts as unknown; at least a millisecond.
func (n StepOf[T]) Timeout(d time.Duration) StepOf[T] {
	return n.with(func(s *spec) { s.timeout = d })
}

// Retry sets the policy of the step's attempts. What is left out keeps its default: the attempts of the
// role (see Retry.Attempts), DefaultBackoff, DefaultCap, DefaultJitter.
func (n StepOf[T]) Retry(options ...RetryOption) StepOf[T] {
	return n.with(func(s *spec) { s.retry = slices.Concat(s.retry, options) })
}

// EffectFree says that the step changes nothing in the world: it needs no undo, and none is ever owed.
func (n StepOf[T]) EffectFree() StepOf[T] {
	return n.with(func(s *spec) { s.step.EffectFree = true })
}

// Pivot makes the step the point of no return: if it fails the saga compensates, once it is done the saga
// only goes forward. A plan has at most one, with nothing but Seqs around it.
func (n StepOf[T]) Pivot() StepOf[T] { return n.with(func(s *spec) { s.pivot = true }) }

// Retriable says that the step succeeds if it is tried often enough. Every step after the pivot is
// retriable, and none before it.
func (n StepOf[T]) Retriable() StepOf[T] { return n.with(func(s *spec) { s.retriable = true }) }

// UndoOf is the compensation of a step of a saga over data T. Its methods give a changed one.
type UndoOf[T any] struct{ u *undoSpec }

// With compensates by a command; build makes its payload from the data. It is built together with the
// command it undoes, and again when that one's reply arrives; it is pure. Only a step of a saga over the
// same T takes it.
func With[T, C, R any](command Command[C, R], build func(T) C) UndoOf[T] {
	u := &undoSpec{
		source:    caller(1),
		cmdSource: command.source,
		topic:     command.topic,
		typ:       command.typ,
		build:     builds(build),
		timeout:   DefaultTimeout,
		command:   reflect.TypeFor[C](),
		reply:     reflect.TypeFor[R](),
	}
	if build == nil {
		u.missing = append(u.missing, "a function for its undo's payload")
	}
	return UndoOf[T]{u}
}

func (n UndoOf[T]) with(change func(*undoSpec)) UndoOf[T] {
	if n.u == nil { // Undo(UndoOf[T]{}): Plan says so
		return n
	}
	c := *n.u
	change(&c)
	return UndoOf[T]{&c}
}

// Timeout is how long one attempt of the undo may take; at least a millisecond.
func (n UndoOf[T]) Timeout(d time.Duration) UndoOf[T] {
	return n.with(func(u *undoSpec) { u.timeout = d })
}

// Retry sets the policy of the undo's attempts. What is left out keeps its default: 20 attempts,
// DefaultUndoBackoff, DefaultUndoCap, DefaultJitter. After the last attempt the instance is parked.
func (n UndoOf[T]) Retry(options ...RetryOption) UndoOf[T] {
	return n.with(func(u *undoSpec) { u.retry = slices.Concat(u.retry, options) })
}

// RetryOption is one setting of a retry policy.
type RetryOption func(*retrySpec)

type retrySpec struct {
	Retry
	attemptsSet, forEver bool
}

// Attempts is how often a step is tried in all, from 1 to 1,000,000.
func Attempts(n int) RetryOption {
	return func(r *retrySpec) { r.Attempts, r.attemptsSet, r.forEver = n, true, false }
}

// ForEver tries until there is a definite answer.
func ForEver() RetryOption {
	return func(r *retrySpec) { r.Attempts, r.attemptsSet, r.forEver = -1, true, true }
}

// Backoff is the delay before the second attempt, and the most that it grows to by doubling. first is at
// least a millisecond and at most limit.
func Backoff(first, limit time.Duration) RetryOption {
	return func(r *retrySpec) { r.Backoff, r.Cap = first, limit }
}

// Jitter spreads each delay evenly over ± this part of itself; 0 to 1.
func Jitter(part float64) RetryOption { return func(r *retrySpec) { r.Jitter = part } }

// NotCodes names error codes that are not tried again: a reply `retry` with one of them counts as the last
// attempt.
func NotCodes(codes ...string) RetryOption {
	return func(r *retrySpec) { r.NotCodes = slices.Concat(r.NotCodes, codes) }
}
