package sagas

import (
	"reflect"
	"time"
)

// NodeOf is a node of the plan of a saga over data T: what Step, Seq, All, Choose and the other constructors
// give. It is immutable, so that one may stand in the plans of several definitions.
type NodeOf[T any] interface {
	// spec takes a *T only to name T, so that Seq, All and Define can infer it from their arguments.
	spec(*T) *spec
}

// spec is a node as it was written, without its type parameter. It is never changed once it is built.
type spec struct {
	kind     Kind
	name     string
	source   string
	children []*spec
	missing  []string // what it needs and does not have

	step             StepPlan
	retry            []RetryOption
	timeout          time.Duration
	undo             *undoSpec
	undos            int // how often Undo was called
	pivot, retriable bool
	types            StepTypes
	cmdSource        string

	do   func(any) error
	wait *waitSpec
	emit *emitSpec
	each *eachSpec
	fork forkSpec    // of All and ForEach
	most *int        // of loops
	cond condition   // of Require and While
	ways []*caseSpec // of Choose

	onFail   func(any, Failure) error
	elses    int // how often Else was called
	elseNode *spec
}

// condition is of a Choose, a Require or a While.
type condition = func(any) (bool, error)

// forkSpec is how an All or a ForEach goes about its branches.
type forkSpec struct {
	onFailure OnFailure
	join      Join
	joins     int // how often Any, AtLeast or First was called
	quorum    int
	width     *int
}

func specOf[T any](n NodeOf[T]) *spec {
	if n == nil {
		return nil
	}
	return n.spec(nil)
}

func specsOf[T any](nodes []NodeOf[T]) []*spec {
	specs := make([]*spec, len(nodes))
	for i, n := range nodes {
		specs[i] = specOf(n)
	}
	return specs
}

// with gives a changed copy. The zero node stays what it is: Plan says that there is none.
func (s *spec) with(change func(*spec)) *spec {
	if s == nil {
		return nil
	}
	c := *s
	change(&c)
	return &c
}

// below are the nodes in it, nil for one that is missing.
func (s *spec) below() []*spec {
	nodes := s.children
	for _, way := range s.ways {
		if way != nil {
			nodes = append(nodes, way.node)
		} else {
			nodes = append(nodes, nil)
		}
	}
	if s.elses > 0 {
		nodes = append(nodes[:len(nodes):len(nodes)], s.elseNode)
	}
	return nodes
}

// conditionOf makes a user's condition one that the engine can call; nil stays nil.
func conditionOf[T any](cond func(T) bool) condition {
	if cond == nil {
		return nil
	}
	return func(data any) (bool, error) {
		d, err := over[T](data)
		if err != nil {
			return false, err
		}
		return cond(*d), nil
	}
}

// keyOf makes a function that gives a key one that the engine can call; nil stays nil.
func keyOf[T any](key func(T) string) func(any) (string, error) {
	if key == nil {
		return nil
	}
	return func(data any) (string, error) {
		d, err := over[T](data)
		if err != nil {
			return "", err
		}
		return key(*d), nil
	}
}

// SeqOf is a sequence in a saga over data T.
type SeqOf[T any] struct{ s *spec }

func (n SeqOf[T]) spec(*T) *spec { return n.s }

// Seq runs nodes one after the other, and compensates them in the reverse order.
func Seq[T any](nodes ...NodeOf[T]) SeqOf[T] {
	return SeqOf[T]{&spec{kind: KindSeq, source: caller(1), children: specsOf(nodes)}}
}

// DoOf is a local function in a saga over data T.
type DoOf[T any] struct{ s *spec }

func (n DoOf[T]) spec(*T) *spec { return n.s }

// Do changes the data by a pure function; it runs once. If it panics, its instance is parked.
func Do[T any](name string, fn func(*T)) DoOf[T] {
	s := &spec{kind: KindDo, name: name, source: caller(1)}
	if fn == nil {
		s.missing = append(s.missing, "a function")
	}
	s.do = func(data any) error {
		d, err := over[T](data)
		if err != nil {
			return err
		}
		fn(d)
		return nil
	}
	return DoOf[T]{s}
}

// EmitOf is an event that a saga over data T tells the world. Its methods give a changed one.
type EmitOf[T any] struct{ s *spec }

func (n EmitOf[T]) spec(*T) *spec { return n.s }

type emitSpec struct {
	EmitPlan
	declared string // where the event was
	typ      reflect.Type
}

// Emit sends an event to its topic and goes on; there is no reply. build makes it of the data; it is pure and
// runs once. An event that was emitted cannot be taken back: what others must not see of a saga that
// compensates belongs behind the pivot.
func Emit[T, E any](name string, event Event[E], build func(T) E) EmitOf[T] {
	s := &spec{kind: KindEmit, name: name, source: caller(1), emit: &emitSpec{
		EmitPlan: EmitPlan{Topic: event.topic, Type: event.typ, Build: builds(build)},
		declared: event.source,
		typ:      reflect.TypeFor[E](),
	}}
	if build == nil {
		s.missing = append(s.missing, "a function for its event")
	}
	return EmitOf[T]{s}
}

// Key says what the key of the event's record is; without it, it is the saga's business key. key is pure.
func (n EmitOf[T]) Key(key func(T) string) EmitOf[T] {
	return EmitOf[T]{n.s.with(func(s *spec) {
		e := *s.emit
		e.EmitPlan.Key = keyOf(key)
		s.emit = &e
	})}
}
