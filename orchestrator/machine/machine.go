// Package machine decides: given an instance's rows and one input, it says everything that must happen,
// as one value, and does nothing itself.
//
// It may import events and sagas alone. The rule that must not break: no goroutine, lock, clock,
// randomness, context or IO, and no dependence on map order; the same rows and input give the same
// decision, byte for byte. User functions run here and nowhere else.
package machine

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Config is what a machine knows of its application.
type Config struct {
	App       string
	Slots     int
	Lifecycle bool // announce final and parked instances on <app>.lifecycle
	// MaxRecord bounds a decision's encoded size in bytes (L17); FanOut how many branches one decision
	// starts, or looks at for undoing, before it goes on in the next.
	MaxRecord int
	FanOut    int
	Plans     []*sagas.Plan
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
}

// Timer is the input of a row whose due time has come.
type Timer struct {
	Instance events.InstanceID
	Row      events.RowRef
	Due      int64
}

// Refusal is the input of a command that Kafka refuses for good: topic gone, not allowed, too large.
type Refusal struct {
	Command events.CommandID
	Code    string
	Message string
}
