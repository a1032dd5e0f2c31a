package participant

import (
	"errors"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
)

// Two sagas over the same account: without the lock the second would spend what the first may give back.
func TestASemanticLockKeepsOtherSagasOffUntilItsOwnHasEnded(t *testing.T) {
	disk, err := OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for name, ledger := range map[string]Ledger{"memory": NewMemory(), "disk": disk} {
		t.Run(name, func(t *testing.T) {
			clock := time.UnixMilli(1_790_000_000_000)
			locks := NewSemanticLocks(ledger)
			locks.now = func() time.Time { return clock }
			first, second := Call{Instance: "saga-1"}, Call{Instance: "saga-2"}

			hold := func(c Call) error { return locks.Hold(t.Context(), c, "account-7", time.Hour) }
			release := func(c Call) {
				t.Helper()
				if err := locks.Release(t.Context(), c, "account-7"); err != nil {
					t.Fatal(err)
				}
			}
			held := func(want string) {
				t.Helper()
				if got, err := locks.Holder(t.Context(), "account-7"); err != nil || got != want {
					t.Fatalf("held by %q (%v), want %q", got, err, want)
				}
			}

			release(first) // an undo without its forward command
			held("")
			for range 2 { // the same command may be executed twice
				if err := hold(first); err != nil {
					t.Fatal(err)
				}
			}
			var r *Refusal
			if err := hold(second); !errors.As(err, &r) || r.Outcome != events.ReplyRetry || r.Code != CodeLocked {
				t.Fatalf("another saga gets %v, not a retry", err)
			}
			if err := locks.Hold(t.Context(), second, "account-8", time.Hour); err != nil {
				t.Fatalf("another resource: %v", err)
			}
			release(second) // not its own
			held("saga-1")
			release(first)
			if err := hold(second); err != nil {
				t.Fatalf("after the first has ended: %v", err)
			}
			clock = clock.Add(time.Hour)
			held("") // saga-2 was terminated: its lease is over
			if err := locks.Hold(t.Context(), first, "account-7", time.Millisecond); err == nil {
				t.Error("a lease of a millisecond is taken")
			}
		})
	}
}
