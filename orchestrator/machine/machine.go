package machine

import (
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Config is what a machine knows of its application.
type Config struct {
	App       string
	Slots     int  // of the application; required
	Lifecycle bool // announce final and parked instances on <app>.lifecycle
	// MaxRecord bounds a decision's encoded size in bytes (L17); 0: DefaultMaxRecord. FanOut says how many
	// commands one decision issues, and how many branches it looks at for undoing, before it goes on in the
	// next; 0: DefaultFanOut.
	MaxRecord int
	FanOut    int
	// Plans are the definitions it can decide for. Of the versions of a definition, an event starts the first
	// that matches it, so the one that is to start new sagas stands before the older ones.
	Plans []*sagas.Plan
	// Aliases are the header names of services that use others than ours.
	Aliases events.Aliases
}

// Defaults of Config.
const (
	DefaultMaxRecord = 768 << 10
	DefaultFanOut    = 64
)

// Machine decides for the instances of an application. It is immutable; its methods are safe for
// concurrent use as far as the plans' functions are.
type Machine struct {
	cfg    Config
	topics events.Topics
	kinds  kinds
	plans  map[planID]*sagas.Plan
}

type planID struct {
	name, version string
	hash          [8]byte
}

// New makes a machine. Slots must be that of the application.
func New(cfg Config) *Machine {
	if cfg.MaxRecord <= 0 {
		cfg.MaxRecord = DefaultMaxRecord
	}
	if cfg.FanOut <= 0 {
		cfg.FanOut = DefaultFanOut
	}
	m := &Machine{
		cfg:    cfg,
		topics: events.Topics{App: cfg.App},
		kinds:  kindsOf(cfg.Plans),
		plans:  map[planID]*sagas.Plan{},
	}
	for _, p := range cfg.Plans {
		m.plans[planID{p.Name, p.Version, p.Hash}] = p
	}
	return m
}

// Waits is the outcome of an input to an instance whose definition this machine does not have (rule L12). Such a
// decision is never journaled: the input stays as it is, for a node that has the definition.
const Waits events.Outcome = 255

// Knows reports whether the machine has the definition.
func (m *Machine) Knows(name, version string, hash [8]byte) bool {
	return m.plans[planID{name, version, hash}] != nil
}

// View gives the rows of the instance as every earlier decision left them, those not yet acknowledged
// included. A missing row is ok == false. The bytes are not to be changed.
type View interface {
	Row(id events.InstanceID, ref events.RowRef) (value []byte, due int64, ok bool)
}

// Start is the input of a domain event that starts a saga.
type Start struct {
	Plan      *sagas.Plan
	Instance  events.InstanceID
	Key       string
	MessageID string
	Value     []byte
	Trace     []events.Header
	// Keyless: the journal is still written for builds that know nothing of keys. The instance starts whatever
	// others its key has, and of its key nothing is noted.
	Keyless bool
}

// Event is the input of a domain event that arrives at its correlation: the entity that keeps, for one
// definition, the events of a topic and type with one correlation key (rule L20).
type Event struct {
	Correlation events.InstanceID
	Definition  string
	Topic, Type string // as the definition's waits name them
	Key         string
	MessageID   string
	Value       []byte
	Trace       []events.Header
	Time        int64         // of the event, ms since 1970
	Keep        time.Duration // see sagas.WaitPlan
}

// Timer is the input of a row whose due time has come.
type Timer struct {
	Instance events.InstanceID
	Row      events.RowRef
	Due      int64 // as the row has it, ms since 1970
}

// Refusal is the input of a command that Kafka refuses for good: topic gone, not allowed, too large.
type Refusal struct {
	Command events.CommandID
	Code    string // of the broker's error, for people
	Message string
}

// Undelivered is the input of an event of an Emit that Kafka refuses for good.
type Undelivered struct {
	Instance events.InstanceID
	Step     string // as the history names the Emit
	Node     uint32 // the number of its row, whether it has one or not
	Message  string // of the broker's error, for people
}

// Codes with which the Reason of an ignored or quarantined decision begins.
const (
	ReasonDuplicateStart      = "duplicate-start"
	ReasonUndecodable         = events.PoisonUndecodable
	ReasonOversize            = events.PoisonOversize
	ReasonUnknownType         = "unknown-type"
	ReasonUnknownTopic        = "unknown-topic"
	ReasonUnknownInstance     = "unknown-instance"
	ReasonInstanceEnded       = "instance-ended"
	ReasonUnknownStep         = "unknown-step"
	ReasonSupersededExecution = "superseded-execution"
	ReasonUnknownAttempt      = "unknown-attempt"
	ReasonSupersededAttempt   = "superseded-attempt" // it says nothing definite, and a later attempt is open, or none
	ReasonDuplicateReply      = "duplicate-reply"
	ReasonSettledStep         = "settled-step" // the step has its outcome, and this reply takes nothing from it
	ReasonStaleTimer          = "stale-timer"
)

// Codes of parked instances, and of failures that no participant reported.
const (
	CodeTimeout           = "timeout"  // an attempt was not answered in time
	CodeRetry             = "retry"    // a participant asked for another attempt and gave no code of its own
	CodeRefused           = "refused"  // Kafka refused the command
	CodeRejected          = "rejected" // a participant refused and gave no code of its own
	CodeDeadline          = "deadline" // the saga's deadline passed
	CodeUndoExhausted     = "undo-exhausted"
	CodePivotUnknown      = "pivot-unknown"
	CodePastPivot         = "failed-past-pivot"
	CodeRetriableRejected = "retriable-rejected"
	CodeRetriableGaveUp   = "retriable-exhausted"
	CodeUserFunction      = "user-function"
	CodeDefinitionUnknown = "definition-unknown"
	CodeTooLarge          = "too-large"

	CodeRequired = "required" // the condition of a Require did not hold
	CodeTooMany  = "too-many" // a loop would have more iterations than its limit
	CodeTooFew   = "too-few"  // a ForEach has fewer elements than its join needs
	CodeJoined   = "joined"   // of an entry: a fork's join was decided without the rest
)
