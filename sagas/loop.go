package sagas

import (
	"fmt"
	"reflect"

	"github.com/skald-io/skald/internal/jsonv1"
)

// Bounds of loops. DefaultMost is that of a loop without Most, MaxMost the largest that Most may say.
const (
	DefaultMost = 10_000
	MaxMost     = 1_000_000
)

// Each is what the body of a ForEach works on: its element of the list, and the saga's data around it. A body
// within a body has the outer Each as its Saga.
type Each[T, E any] struct {
	Saga *T  // shared with the other turns; what a turn changes, the others and the rest of the saga see
	Item E   // this turn's own; changes of it are kept for the nodes and undos of this turn
	Turn int // from 0, in the order of the list
}

// ForEachOf is a loop over a list, in a saga over data T. Its methods give a changed one.
type ForEachOf[T any] struct{ s *spec }

func (n ForEachOf[T]) spec(*T) *spec { return n.s }

type eachSpec struct {
	EachPlan
	item reflect.Type
}

// ForEach runs body once for each element of a list, which items makes when the loop begins: side by side,
// unless Width says otherwise. A list that is empty makes it done. Elements are kept as JSON. items is pure
// and runs once.
//
// In the instance's history, and to participants, a step of turn 2 is called NAME[2].
func ForEach[T, E any](name string, items func(T) []E, body NodeOf[Each[T, E]]) ForEachOf[T] {
	s := &spec{kind: KindForEach, name: name, source: caller(1), children: []*spec{specOf(body)}}
	if items == nil {
		s.missing = append(s.missing, "a function for its list")
	}
	s.each = &eachSpec{item: reflect.TypeFor[E](), EachPlan: EachPlan{
		Items: func(data any) ([][]byte, error) {
			d, err := over[T](data)
			if err != nil {
				return nil, err
			}
			list := items(*d)
			rows := make([][]byte, len(list))
			for i := range list {
				if rows[i], err = encodeJSON(list[i]); err != nil {
					return nil, fmt.Errorf("element %d: %w", i, err)
				}
			}
			return rows, nil
		},
		Enter: func(outer any, item []byte, turn int) (any, error) {
			d, err := over[T](outer)
			if err != nil {
				return nil, err
			}
			e := &Each[T, E]{Saga: d, Turn: turn}
			if err := jsonv1.Unmarshal(item, &e.Item); err != nil {
				return nil, fmt.Errorf("element %d: decoding a %s: %w", turn, reflect.TypeFor[E](), err)
			}
			return e, nil
		},
		Leave: func(inner any) ([]byte, error) {
			e, err := over[Each[T, E]](inner)
			if err != nil {
				return nil, err
			}
			return encodeJSON(e.Item)
		},
	}}
	return ForEachOf[T]{s}
}

// Width bounds how many turns are open at a time, at least 1: the next begins when one ends. With 1 they run,
// and are undone, one after the other.
func (n ForEachOf[T]) Width(open int) ForEachOf[T] {
	return ForEachOf[T]{n.s.with(func(s *spec) { s.fork.width = &open })}
}

// Most bounds the length of the list, from 1 to MaxMost: a longer one makes the loop fail with the code
// too-many. Without it, it is DefaultMost.
func (n ForEachOf[T]) Most(elements int) ForEachOf[T] {
	return ForEachOf[T]{n.s.with(func(s *spec) { s.most = &elements })}
}

// OnFailure says what becomes of the other turns when the loop fails; without it, CancelRest.
func (n ForEachOf[T]) OnFailure(f OnFailure) ForEachOf[T] {
	return ForEachOf[T]{n.s.with(func(s *spec) { s.fork.onFailure = f })}
}

// Any makes the loop done as soon as one turn is, see AllOf.Any.
func (n ForEachOf[T]) Any() ForEachOf[T] { return n.AtLeast(1) }

// AtLeast makes the loop done as soon as that many turns are, see AllOf.AtLeast. A list with fewer elements
// makes it fail.
func (n ForEachOf[T]) AtLeast(turns int) ForEachOf[T] {
	return ForEachOf[T]{n.s.with(func(s *spec) { s.fork.atLeast(turns) })}
}

// First makes the loop end as the first turn that ends, see AllOf.First.
func (n ForEachOf[T]) First() ForEachOf[T] {
	return ForEachOf[T]{n.s.with(func(s *spec) { s.fork.first() })}
}

// WhileOf is a loop with a condition, in a saga over data T. Its methods give a changed one.
type WhileOf[T any] struct{ s *spec }

func (n WhileOf[T]) spec(*T) *spec { return n.s }

// While runs body as long as cond holds; it is asked before each turn, and is pure. The turns are undone one
// after the other, the last first. A step of turn 2 is called NAME[2], as in a ForEach.
func While[T any](name string, cond func(T) bool, body NodeOf[T]) WhileOf[T] {
	s := &spec{kind: KindWhile, name: name, source: caller(1), cond: conditionOf(cond), children: []*spec{specOf(body)}}
	if cond == nil {
		s.missing = append(s.missing, "a condition")
	}
	return WhileOf[T]{s}
}

// Most bounds the turns, from 1 to MaxMost: when the condition holds once more, the loop fails with the code
// too-many. Without it, it is DefaultMost.
func (n WhileOf[T]) Most(turns int) WhileOf[T] {
	return WhileOf[T]{n.s.with(func(s *spec) { s.most = &turns })}
}
