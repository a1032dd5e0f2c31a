package participant

import (
	"context"
	"fmt"
	"time"

	"github.com/skald-io/skald/internal/mutant"
)

// SemanticLocks mark what a saga has changed and may still undo, so that other sagas keep their hands off it
// until the saga has ended: the countermeasure to dirty reads and lost updates among sagas, which are not
// isolated from each other (see H. Garcia-Molina and K. Salem, Sagas, 1987, and C. Richardson's pattern of
// that name). A lock belongs to an instance, not to a call: a forward step takes it, the undo of that step or a
// later step of the same instance gives it back.
//
// Locks live in a Ledger, under names of their own. They are safe for concurrent use, and shared by all processes
// that share the ledger.
type SemanticLocks struct {
	ledger Ledger
	now    func() time.Time
}

// NewSemanticLocks keeps locks in ledger. It is not the transaction of a command that is being executed: Hold
// and Release commit at once. A handler therefore holds first and then acts; it may be called again in between,
// and finds its own lock.
func NewSemanticLocks(ledger Ledger) *SemanticLocks {
	return &SemanticLocks{ledger: ledger, now: time.Now}
}

// CodeLocked is the code of a Retry because another instance holds the lock.
const CodeLocked = "locked"

// Hold takes the lock on resource for the call's instance, or finds that it has it. While another instance holds
// it the error is Retry with CodeLocked, to be returned from the handler: the saga asks again after its backoff.
// lease bounds how long the lock stays if it is never given back, because the saga was terminated; it is longer
// than a saga may take, its undos included, and at least a second.
func (l *SemanticLocks) Hold(ctx context.Context, c Call, resource string, lease time.Duration) error {
	if lease < time.Second {
		return fmt.Errorf("a lease of %v on %q is too short: at least 1s", lease, resource)
	}
	return l.change(ctx, c, resource, func(holder string) (Memory, error) {
		if holder != "" && holder != c.Instance && !mutant.On("participant-semantic-lock-shared") {
			return Memory{}, Retry(CodeLocked, "%s is locked by saga instance %s", resource, holder)
		}
		return Memory{Answer: &Answer{Value: []byte(c.Instance)}, Until: l.now().Add(lease).UnixMilli()}, nil
	})
}

// Release gives the lock on resource back. A lock that the call's instance does not hold stays as it is: an undo
// may come twice, or without its forward command.
func (l *SemanticLocks) Release(ctx context.Context, c Call, resource string) error {
	return l.change(ctx, c, resource, func(holder string) (Memory, error) {
		if holder != c.Instance {
			return Memory{}, errUnchanged
		}
		return Memory{Until: l.now().UnixMilli()}, nil
	})
}

// Holder is the instance that holds the lock on resource; empty when none does.
func (l *SemanticLocks) Holder(ctx context.Context, resource string) (instance string, err error) {
	err = l.change(ctx, Call{}, resource, func(holder string) (Memory, error) {
		instance = holder
		return Memory{}, errUnchanged
	})
	return instance, err
}

var errUnchanged = fmt.Errorf("unchanged")

func (l *SemanticLocks) change(ctx context.Context, c Call, resource string, next func(holder string) (Memory, error)) error {
	name := "semantic-lock/" + resource
	tx, err := l.ledger.Begin(ctx, name)
	if err != nil {
		return fmt.Errorf("semantic lock on %q: %w", resource, err)
	}
	defer tx.Rollback()
	m, err := tx.Lookup(name)
	if err != nil {
		return fmt.Errorf("semantic lock on %q: %w", resource, err)
	}
	holder := ""
	if m.Answer != nil && m.Until > l.now().UnixMilli() {
		holder = string(m.Answer.Value)
	}
	m, err = next(holder)
	switch {
	case err == errUnchanged:
		return nil
	case err != nil:
		return err
	}
	if err := tx.Remember(name, m); err != nil {
		return fmt.Errorf("semantic lock on %q: %w", resource, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("semantic lock on %q: %w", resource, err)
	}
	return nil
}
