package sagas

// AllOf is a fork in a saga over data T. Its methods give a changed one.
type AllOf[T any] struct{ s *spec }

func (n AllOf[T]) spec(*T) *spec { return n.s }

// All runs nodes side by side, and is done when all of them are, unless Any, AtLeast or First says otherwise.
// When it fails, onFailure says what becomes of the other branches. They are compensated side by side as well.
//
// Branches share the saga's data: a branch sees what the replies of others wrote so far.
func All[T any](onFailure OnFailure, nodes ...NodeOf[T]) AllOf[T] {
	return AllOf[T]{&spec{kind: KindAll, source: caller(1), children: specsOf(nodes), fork: forkSpec{onFailure: onFailure}}}
}

// FirstOf runs nodes side by side and ends as the first of them that ends: done, or failed. The others are
// undone, as far as they got. It is All(CancelRest, nodes...).First(), for an event and a time-out, say, of
// which the earlier decides how the saga goes on.
func FirstOf[T any](nodes ...NodeOf[T]) AllOf[T] {
	return AllOf[T]{&spec{kind: KindAll, source: caller(1), children: specsOf(nodes), fork: forkSpec{join: JoinFirst, joins: 1}}}
}

// Any makes the fork done as soon as one branch is. A branch that fails is undone by itself; the fork fails
// when all have.
func (n AllOf[T]) Any() AllOf[T] { return n.AtLeast(1) }

// AtLeast makes the fork done as soon as that many branches are, from 1 to all of them. A branch that fails is
// undone by itself; the fork fails when fewer than that can still be done. Once it is done, CancelRest undoes
// the branches that are open, and LetItFinish lets them end first.
func (n AllOf[T]) AtLeast(branches int) AllOf[T] {
	return AllOf[T]{n.s.with(func(s *spec) { s.fork.atLeast(branches) })}
}

// First makes the fork end as the first branch that ends, done or failed; the others are undone.
func (n AllOf[T]) First() AllOf[T] { return AllOf[T]{n.s.with(func(s *spec) { s.fork.first() })} }

// Width bounds how many branches are open at a time, at least 1: the next begins when one ends.
func (n AllOf[T]) Width(open int) AllOf[T] {
	return AllOf[T]{n.s.with(func(s *spec) { s.fork.width = &open })}
}

func (f *forkSpec) atLeast(n int) { f.join, f.quorum, f.joins = JoinSome, n, f.joins+1 }
func (f *forkSpec) first()        { f.join, f.quorum, f.joins = JoinFirst, 0, f.joins+1 }

// ChooseOf is a branch by condition in a saga over data T.
type ChooseOf[T any] struct{ s *spec }

func (n ChooseOf[T]) spec(*T) *spec { return n.s }

// CaseOf is one way that a Choose may go.
type CaseOf[T any] struct{ c *caseSpec }

type caseSpec struct {
	name      string
	source    string
	cond      condition
	otherwise bool
	node      *spec
}

// Choose goes the first way whose condition holds; when none does, it is done. The conditions are asked once,
// in order, when it begins.
func Choose[T any](cases ...CaseOf[T]) ChooseOf[T] {
	s := &spec{kind: KindChoose, source: caller(1), ways: make([]*caseSpec, len(cases))}
	for i, c := range cases {
		s.ways[i] = c.c
	}
	return ChooseOf[T]{s}
}

// When is a way that is taken if cond holds. The name is for people: it stands in the history of instances. It
// is unique in its Choose and like a node's name. cond is pure.
func When[T any](name string, cond func(T) bool, node NodeOf[T]) CaseOf[T] {
	return CaseOf[T]{&caseSpec{name: name, source: caller(1), cond: conditionOf(cond), node: specOf(node)}}
}

// Otherwise is the way that is taken if no condition holds; it stands last, and is called "otherwise".
func Otherwise[T any](node NodeOf[T]) CaseOf[T] {
	return CaseOf[T]{&caseSpec{name: "otherwise", source: caller(1), otherwise: true, node: specOf(node)}}
}

// RequireOf is a condition that has to hold, in a saga over data T.
type RequireOf[T any] struct{ s *spec }

func (n RequireOf[T]) spec(*T) *spec { return n.s }

// Require fails, with the code required, unless cond holds: what was done before is compensated. cond is pure
// and asked once.
func Require[T any](name string, cond func(T) bool) RequireOf[T] {
	s := &spec{kind: KindRequire, name: name, source: caller(1), cond: conditionOf(cond)}
	if cond == nil {
		s.missing = append(s.missing, "a condition")
	}
	return RequireOf[T]{s}
}

// TryOf is a save-point in a saga over data T. Its methods give a changed one.
type TryOf[T any] struct{ s *spec }

func (n TryOf[T]) spec(*T) *spec { return n.s }

// Try sets a save-point: when body fails, it is undone, and nothing before it. Then the saga goes on, with Else
// if there is one. The data stay as the body left them. Operators name the save-point to have a saga go back
// to it.
func Try[T any](name string, body NodeOf[T]) TryOf[T] {
	return TryOf[T]{&spec{kind: KindTry, name: name, source: caller(1), children: []*spec{specOf(body)}}}
}

// Else is what is done instead, once the body is undone. When that fails, the Try fails.
func (n TryOf[T]) Else(node NodeOf[T]) TryOf[T] {
	return TryOf[T]{n.s.with(func(s *spec) { s.elseNode, s.elses = specOf(node), s.elses+1 })}
}

// OnFailure lets fn put into the data why the body failed, once it is undone and before Else begins. fn is
// pure.
func (n TryOf[T]) OnFailure(fn func(*T, Failure)) TryOf[T] {
	return TryOf[T]{n.s.with(func(s *spec) {
		s.onFail = func(data any, f Failure) error {
			d, err := over[T](data)
			if err != nil {
				return err
			}
			fn(d, f)
			return nil
		}
		if fn == nil {
			s.missing = append(s.missing[:len(s.missing):len(s.missing)], "a function to tell the failure")
		}
	})}
}
