package sagas

import "time"

// Kind is the kind of a plan's node.
type Kind uint8

const (
	KindStep Kind = 1
	KindSeq  Kind = 2
	KindAll  Kind = 3
	KindWait Kind = 4
	KindDo   Kind = 5
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

// Plan is a definition as the engine reads it. It is immutable and safe for concurrent use.
type Plan struct {
	Name      string
	Version   string
	Hash      [8]byte // of the exported tree: names, kinds, topics, types, roles, policies; not of functions
	Start     Start
	Root      *Node
	Nodes     []*Node       // by ID
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
	Topic string
	Type  string // ce_type to match; "": every event of the topic
	// TypeOf, Key and ID read a plain event; nil: ce_type, the record's key, and ce_id or else
	// topic-partition-offset.
	TypeOf func(EventView) (string, error)
	Key    func(EventView) (string, error)
	ID     func(EventView) (string, error)
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
	Name     string // unique in the definition; generated for Seq and All that have none
	Source   string // file:line where it was written
	Children []*Node

	Step      *StepPlan            // of KindStep
	OnFailure OnFailure            // of KindAll
	Wait      time.Duration        // of KindWait
	Do        func(data any) error // of KindDo: changes *data
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
