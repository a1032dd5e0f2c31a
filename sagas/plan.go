package sagas

import "time"

// Kind is the kind of a plan's node.
type Kind uint8

const (
	KindStep Kind = 1
	KindSeq  Kind = 2
	KindAll  Kind = 3
	KindWait Kind = 4 // for time, an event, or a signal
	KindDo   Kind = 5

	KindEmit    Kind = 6  // an event, without a reply
	KindChoose  Kind = 7  // the first child whose condition holds
	KindRequire Kind = 8  // fails unless its condition holds
	KindForEach Kind = 9  // its child once for each element of a list made when it begins
	KindWhile   Kind = 10 // its child again and again, as long as its condition holds
	KindTry     Kind = 11 // a save-point: children[0]; when that fails it is undone, and children[1] goes on
)

// Role says what may become of a step once it was tried.
type Role uint8

const (
	Compensatable Role = 0 // it can be undone
	Pivot         Role = 1 // the point of no return: before it a failure compensates, after it the saga only goes forward
	Retriable     Role = 2 // it succeeds if it is tried often enough; only after the pivot
)

// OnFailure says what an All does with the other branches when one fails.
type OnFailure uint8

const (
	CancelRest  OnFailure = 0 // compensate at once; open steps are undone without waiting for their outcome
	LetItFinish OnFailure = 1 // wait until every other branch ended, then compensate
)

// Join says when a fork is done.
type Join uint8

const (
	JoinAll   Join = 0 // when every child is; it fails when one fails
	JoinSome  Join = 1 // when Node.Quorum children are; it fails when fewer can be
	JoinFirst Join = 2 // it ends as the first child that ends: done, or failed
)

// During says what becomes of a start while an instance of the same definition and business key lives, and
// After what becomes of one once it has ended and is still kept (Retention).
type During uint8

const (
	DuringQuarantine During = 0 // the event goes to quarantine, from where it may be redriven
	DuringIgnore     During = 1 // it is journaled as ignored, counted and logged
)

// After: see During.
type After uint8

const (
	AfterStart      After = 0 // a new instance starts
	AfterFailure    After = 1 // one starts if the last did not complete; else as During says
	AfterQuarantine After = 2 // none starts: the event goes to quarantine
	AfterIgnore     After = 3
)

// Plan is a definition as the engine reads it. It is immutable and safe for concurrent use.
type Plan struct {
	Name      string
	Version   string
	Hash      [8]byte // of the exported tree: names, kinds, topics, types, roles, policies; not of functions
	Start     Start
	Root      *Node
	Nodes     []*Node // by ID
	During    During
	After     After
	Deadline  time.Duration // from start; 0: none
	Retention time.Duration // rows are kept that long after the end
	// NewData gives a pointer to a fresh zero value of the saga's data; Decode fills it from a data row,
	// Encode prints it for one.
	NewData func() any
	Decode  func(row []byte, data any) error
	Encode  func(data any) ([]byte, error)
}

// Start says which events start the saga.
type Start struct {
	EventPlan
	// Data makes the saga's first data from the event. It is called in deciding.
	Data func(value []byte) (data any, err error)
}

// EventView is a domain event as the functions of Start see it. They must not keep or change its bytes.
type EventView struct {
	Topic   string
	Key     []byte
	Value   []byte
	Headers map[string]string
	Time    int64 // ms since 1970
}

// Node is one node of the plan.
type Node struct {
	ID       uint32 // its number in preorder, the root is 0
	Parent   *Node  // nil at the root
	Index    int    // among the parent's children
	Kind     Kind
	Name     string // unique in the definition; generated for what has none
	Source   string // file:line where it was written
	Children []*Node

	Step *StepPlan            // of KindStep
	Do   func(data any) error // of KindDo: changes *data
	Wait *WaitPlan            // of KindWait
	Emit *EmitPlan            // of KindEmit

	// Of KindAll and KindForEach. When Join ends them early, what is open of the other children is undone; so is
	// what failed under a join that goes on without it.
	OnFailure OnFailure
	Join      Join
	Quorum    int // of JoinSome: at least 1
	Width     int // children open at a time; 0: all

	// Conds are the conditions of a Choose's children, nil for one that is always taken; of a Require and a
	// While it is the only one. Cases names a Choose's children. A Choose without a match is done.
	Conds []func(data any) (bool, error)
	Cases []string

	Each *EachPlan // of KindForEach
	// Most bounds the iterations of a While and the elements of a ForEach; beyond it the node fails. Never 0.
	Most int

	// OnFail, of KindTry, is told why its body failed, once that is undone, before the rest goes on. May be nil.
	OnFail func(data any, f Failure) error
}

// Failure is why something failed.
type Failure struct {
	Step    string // the step, or other leaf, whose failure it was
	Code    string // stable: the participant's, or one of the engine's (timeout, required, ...)
	Message string // for people
}

// WaitPlan is what a Wait waits for: exactly one of a time (Sleep), an event, and a signal.
type WaitPlan struct {
	Sleep  time.Duration // it is done after that long
	Event  *EventPlan    // or with an event of this kind that carries the key that Key makes
	Signal string        // or with a signal of this name
	// Key makes the correlation key, when the Wait begins; nil: the instance's business key. Of Event alone.
	Key func(data any) (string, error)
	// Take puts the event's or signal's payload into the data; nil: it is not needed. Its error says that the
	// payload is not what it should be: a signal is refused with it; an event parks the instance.
	Take func(data any, in Taken) error
	// Within is how long it may take before the Wait fails with the code timeout; 0: for ever.
	Within time.Duration
	// Keep is how long an event that comes before anybody waits for it is kept, and an id is remembered. Of
	// Event alone; never 0 there.
	Keep time.Duration
}

// Taken is an event or a signal as a Wait takes it.
type Taken struct {
	ID      string
	Payload []byte
	Who     string // who sent the signal; empty for events
	Time    int64  // of the event, or when the signal was sent, ms since 1970
}

// EventPlan is a kind of domain event, as Start and WaitPlan read it.
type EventPlan struct {
	Topic string
	Type  string // ce_type to match; "": every event of the topic
	// TypeOf, Key and ID read a plain event; nil: ce_type, the record's key, and ce_id or else
	// topic-partition-offset.
	TypeOf func(EventView) (string, error)
	Key    func(EventView) (string, error)
	ID     func(EventView) (string, error)
}

// EmitPlan is an event that a saga tells the world.
type EmitPlan struct {
	Topic string
	Type  string
	Key   func(data any) (string, error) // of the record; nil: the instance's business key
	Build func(data any) (payload []byte, err error)
}

// EachPlan is what a ForEach needs of its types. Nodes of its body work on data that Enter makes of the data
// around it and the element; Leave prints the element as the body left it. The outer data may be changed
// through the inner ones.
type EachPlan struct {
	Items func(data any) (items [][]byte, err error)
	Enter func(outer any, item []byte, turn int) (inner any, err error)
	Leave func(inner any) (item []byte, err error)
}

// StepPlan is a step's command, its undo and its policies.
type StepPlan struct {
	Role       Role
	EffectFree bool // it changes nothing and owes no undo
	Topic      string
	Type       string
	Build      func(data any) (payload []byte, err error)
	OnReply    func(data any, reply []byte) error // changes *data; nil: the reply is not needed
	Undo       *UndoPlan                          // nil: none
	Timeout    time.Duration                      // of one attempt; never 0
	Retry      Retry
}

// UndoPlan is the compensation of a step.
type UndoPlan struct {
	Topic   string
	Type    string
	Build   func(data any) (payload []byte, err error) // the reply may be missing from the data
	Timeout time.Duration                              // of one attempt; never 0
	Retry   Retry
}

// Retry is a policy of attempts. The delay before attempt n+1 is Backoff × 2^(n-1), at most Cap, spread
// evenly over ±Jitter of itself by a hash of instance, node and attempt.
type Retry struct {
	Attempts int // in all; 0: the default of the role (steps 3, retriable steps and pivots 20, undos 20); negative: for ever
	Backoff  time.Duration
	Cap      time.Duration
	Jitter   float64  // 0 to 1
	NotCodes []string // a `retry` with one of these error codes is final: it counts as the last attempt
}
