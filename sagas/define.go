package sagas

import (
	"fmt"
	"reflect"
	"time"
)

// DefaultRetention is how long the rows of a final instance are kept unless Definition.Retention says
// otherwise.
const DefaultRetention = 7 * 24 * time.Hour

// Definition is a saga as it was written, mistakes included: Plan says what is wrong with it. It is
// immutable and safe for concurrent use.
type Definition struct {
	name, version string
	source        string
	start         *startSpec
	root          *spec
	data          dataSpec
	deadline      *time.Duration
	retention     *time.Duration
	during        During
	after         After
}

// StartOf says what starts a saga over data T.
type StartOf[T any] struct{ spec *startSpec }

type startSpec struct {
	source, eventSource string
	event               reflect.Type
	plan                Start
	missing             bool // no function for the data
}

type dataSpec struct {
	typ    reflect.Type
	fresh  func() any
	decode func([]byte, any) error
	encode func(any) ([]byte, error)
}

// StartOn starts a saga for every event of a kind; fn makes the saga's first data from it. fn is pure: it
// runs once, when the start is decided, and never again for that instance.
func StartOn[E, T any](event Event[E], fn func(E) T) StartOf[T] {
	s := &startSpec{
		source:      caller(1),
		eventSource: event.source,
		event:       reflect.TypeFor[E](),
		missing:     fn == nil,
		plan: Start{
			EventPlan: event.plan(),
			Data: func(value []byte) (any, error) {
				e, err := event.Decode(value)
				if err != nil {
					return nil, err
				}
				data := fn(e)
				return &data, nil
			},
		},
	}
	return StartOf[T]{s}
}

// Define makes a definition of its name, its version, what starts it and its plan. Names of definitions
// and nodes are lower-case letters, digits and '-', begin with a letter and have at most 64 of them. T is
// the saga's data; it is kept as JSON between decisions.
//
// Define does not fail: package-level variables can hold definitions, and everything that is wrong with
// one is reported, with file and line, by Definition.Plan, which the engine calls when it is built.
//
// Once instances run, a changed plan needs a new version: an instance ends with the one it began with.
func Define[T any](name, version string, start StartOf[T], root NodeOf[T]) *Definition {
	return &Definition{
		name:    name,
		version: version,
		source:  caller(1),
		start:   start.spec,
		root:    specOf(root),
		data: dataSpec{
			typ:   reflect.TypeFor[T](),
			fresh: func() any { return new(T) },
			decode: func(row []byte, data any) error {
				d, err := over[T](data)
				if err != nil {
					return err
				}
				return decodeJSON(row, d)
			},
			encode: func(data any) ([]byte, error) {
				d, err := over[T](data)
				if err != nil {
					return nil, err
				}
				return encodeJSON(*d)
			},
		},
	}
}

// Deadline gives a definition whose instances have that long, from their start to their end; at least a
// millisecond. Without it they have for ever.
func (d *Definition) Deadline(limit time.Duration) *Definition {
	c := *d
	c.deadline = &limit
	return &c
}

// Retention gives a definition whose instances are kept that long after their end; at least a millisecond.
// Without it, it is DefaultRetention.
func (d *Definition) Retention(keep time.Duration) *Definition {
	c := *d
	c.retention = &keep
	return &c
}

// During gives a definition with that policy for events that would start it again while an instance with the
// same business key lives. Without it, they go to quarantine.
func (d *Definition) During(policy During) *Definition {
	c := *d
	c.during = policy
	return &c
}

// After gives a definition with that policy for events that would start it again once an instance with the same
// business key has ended and is still kept, see Retention. Without it, a new instance starts.
func (d *Definition) After(policy After) *Definition {
	c := *d
	c.after = policy
	return &c
}

// Name is the definition's name.
func (d *Definition) Name() string { return d.name }

// Version is the definition's declared version.
func (d *Definition) Version() string { return d.version }

// StepTypes are the Go types of the payloads of a step. The types of the undo are nil when it has none.
type StepTypes struct{ Command, Reply, UndoCommand, UndoReply reflect.Type }

// EventType is the Go type of the event that starts the saga.
func (d *Definition) EventType() reflect.Type {
	if d.start == nil {
		return nil
	}
	return d.start.event
}

// DataType is the Go type of the saga's data.
func (d *Definition) DataType() reflect.Type { return d.data.typ }

// StepTypes gives the types of the step of that name, for tests and tools. ok is false when there is none.
func (d *Definition) StepTypes(step string) (types StepTypes, ok bool) {
	if s := d.find(func(s *spec) bool { return s.kind == KindStep && s.name == step }); s != nil {
		return s.types, true
	}
	return types, false
}

// WaitType is the Go type of the event or signal that the Wait of that name takes. ok is false when there is
// none.
func (d *Definition) WaitType(wait string) (t reflect.Type, ok bool) {
	if s := d.find(func(s *spec) bool { return s.kind == KindWait && !s.wait.sleep && s.name == wait }); s != nil {
		return s.wait.typ, true
	}
	return nil, false
}

// SignalType is the Go type of the signal of that name. ok is false when no Wait waits for it.
func (d *Definition) SignalType(signal string) (t reflect.Type, ok bool) {
	if s := d.find(func(s *spec) bool {
		return s.kind == KindWait && !s.wait.sleep && s.wait.plan.Event == nil && s.wait.plan.Signal == signal
	}); s != nil {
		return s.wait.typ, true
	}
	return nil, false
}

// EmitType is the Go type of the event that the Emit of that name makes. ok is false when there is none.
func (d *Definition) EmitType(emit string) (t reflect.Type, ok bool) {
	if s := d.find(func(s *spec) bool { return s.kind == KindEmit && s.name == emit }); s != nil {
		return s.emit.typ, true
	}
	return nil, false
}

// find gives the first node, in the order of writing, that is what is asked for.
func (d *Definition) find(is func(*spec) bool) *spec {
	budget := MaxNodes // a tree that shares a part with itself can be larger than any plan
	var find func(s *spec) *spec
	find = func(s *spec) *spec {
		if budget--; s == nil || budget < 0 {
			return nil
		}
		if is(s) {
			return s
		}
		for _, c := range s.below() {
			if found := find(c); found != nil {
				return found
			}
		}
		return nil
	}
	return find(d.root)
}

// over is a guard against rows of one definition being given to another: a mistake of the engine, not of
// the user.
func over[T any](data any) (*T, error) {
	d, ok := data.(*T)
	if !ok || d == nil {
		return nil, fmt.Errorf("the saga's data is a *%s, not a %T", reflect.TypeFor[T](), data)
	}
	return d, nil
}
