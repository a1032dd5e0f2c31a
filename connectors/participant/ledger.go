package participant

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/skald-io/skald/events"
)

// Ledger is a participant's memory of what it answered. NewMemory and OpenLedger are for one process;
// several processes of one participant need a ledger that they share, because a partition, and with it the
// commands that were read but not committed, moves between them.
//
// The hook for exactly one effect: implement Ledger over the database that holds the effects. Begin opens
// a database transaction, the handler finds it in Call.Tx and writes through it, and Commit makes effect
// and answer one. Such a ledger implements Atomic as well.
//
// Methods are safe for concurrent use.
type Ledger interface {
	// Begin opens a transaction on the memory behind lock: the idempotency key of a forward command,
	// also for its undo. It waits until no other transaction of the same lock is open, in any process that
	// shares the ledger (in PostgreSQL: pg_advisory_xact_lock).
	Begin(ctx context.Context, lock string) (Tx, error)
	// Prune forgets memories whose Until lies before now, and effects as old. It may leave some for the
	// next call.
	Prune(ctx context.Context, now time.Time) error
}

// Atomic is implemented by a Ledger whose transactions hold the handlers' effects as well. Then a call
// that was interrupted left no effect, and the kit saves the write that notes a call's beginning.
type Atomic interface{ Atomic() bool }

// Tx is one transaction. It is used by one goroutine; Commit or Rollback ends it and releases the lock,
// also when it returns an error. Rollback after either does nothing.
type Tx interface {
	// Lookup gives what is remembered of an idempotency key; the zero value if nothing is.
	Lookup(key string) (Memory, error)
	// Remember replaces the memory of a key.
	Remember(key string, m Memory) error
	// Applied appends to the log of effects; the ledger sets the order number. A ledger without such a log
	// ignores it.
	Applied(e Effect) error
	// Commit returns when everything is durable. After an error it may or may not be.
	Commit() error
	Rollback()
}

// Memory is what is remembered of one idempotency key.
type Memory struct {
	Started bool    `json:"started,omitempty"` // a handler was called: there may be an effect even without an answer
	Undone  bool    `json:"undone,omitempty"`  // its undo was seen (L15): it must not begin any more
	Answer  *Answer `json:"answer,omitempty"`  // done, or, of a forward command, rejected: given again to every later attempt
	Until   int64   `json:"until"`             // may be forgotten then; ms since 1970
}

// Answer is a reply without what belongs to one attempt.
type Answer struct {
	Outcome events.ReplyOutcome `json:"outcome"`
	Code    string              `json:"code,omitempty"`
	Message string              `json:"message,omitempty"`
	Value   []byte              `json:"value,omitempty"`
	Time    int64               `json:"time"` // when it was first given, ms since 1970
}

// Effect is an effect that was applied: a handler that returned done. It is for external checkers.
type Effect struct {
	Instance       string `json:"instance"`
	Step           string `json:"step"`
	Direction      string `json:"direction"` // forward or compensate
	IdempotencyKey string `json:"idempotencykey"`
	Undoes         string `json:"undoes,omitempty"` // of a compensation: the idempotency key it undoes
	Order          uint64 `json:"order"`            // from 1, in the order of application, without gaps
	Time           int64  `json:"time"`             // ms since 1970
}

// EffectLog is a ledger that keeps a log of applied effects, each recorded atomically with its answer.
type EffectLog interface {
	// Effects calls fn for every effect in their order, until fn fails.
	Effects(fn func(Effect) error) error
}

// WriteEffects exports the log, one JSON object on a line.
func WriteEffects(w io.Writer, l EffectLog) error {
	enc := json.NewEncoder(w)
	if err := l.Effects(func(e Effect) error { return enc.Encode(e) }); err != nil {
		return fmt.Errorf("export of applied effects: %w", err)
	}
	return nil
}
