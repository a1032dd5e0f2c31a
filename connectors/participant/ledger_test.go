package participant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/events"
)

type fullLedger interface {
	Ledger
	EffectLog
}

// eachLedger runs a test on every implementation.
func eachLedger(t *testing.T, fn func(t *testing.T, l fullLedger)) {
	t.Run("memory", func(t *testing.T) { fn(t, NewMemory()) })
	t.Run("pebble", func(t *testing.T) {
		l, err := OpenLedger(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}()
		fn(t, l)
	})
}

func begin(t *testing.T, l Ledger, lock string) Tx {
	t.Helper()
	tx, err := l.Begin(context.Background(), lock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Rollback)
	return tx
}

func lookup(t *testing.T, l Ledger, key string) Memory {
	t.Helper()
	tx := begin(t, l, key)
	defer tx.Rollback()
	m, err := tx.Lookup(key)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func effectsOf(t *testing.T, l EffectLog) (out []Effect) {
	t.Helper()
	must(t, l.Effects(func(e Effect) error { out = append(out, e); return nil }))
	return out
}

var someAnswer = &Answer{Outcome: events.ReplyRejected, Code: "declined", Message: "no, \x00 never", Value: []byte{0, 255, '"'}, Time: 1234}

func TestLedgerRemembersWhatWasCommitted(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		want := Memory{Started: true, Undone: true, Answer: someAnswer, Until: 99}
		tx := begin(t, l, "a")
		must(t, tx.Remember("a", want), tx.Remember("b", Memory{Undone: true, Until: 5}))
		if m, err := tx.Lookup("a"); err != nil || !reflect.DeepEqual(m, want) {
			t.Errorf("its own transaction reads %+v, %v", m, err)
		}
		must(t, tx.Commit())
		if m := lookup(t, l, "a"); !reflect.DeepEqual(m, want) {
			t.Errorf("a is %+v", m)
		}
		if m := lookup(t, l, "b"); !m.Undone {
			t.Errorf("b is %+v", m)
		}
		if m := lookup(t, l, "never"); !reflect.DeepEqual(m, Memory{}) {
			t.Errorf("an unknown key is %+v", m)
		}
	})
}

func TestLedgerForgetsWhatWasRolledBack(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		tx := begin(t, l, "a")
		must(t, tx.Remember("a", Memory{Started: true, Until: 1}), tx.Applied(Effect{IdempotencyKey: "a"}))
		tx.Rollback()
		tx.Rollback()
		if m := lookup(t, l, "a"); m.Started {
			t.Error("the memory is there")
		}
		if got := effectsOf(t, l); len(got) != 0 {
			t.Errorf("effects %v", got)
		}
		if err := tx.Commit(); err == nil {
			t.Error("a transaction that was rolled back commits")
		}
	})
}

func TestLedgerNumbersEffectsInTheirOrderWithoutGaps(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				key := fmt.Sprint("k", i)
				tx, err := l.Begin(context.Background(), key)
				if err != nil {
					t.Error(err)
					return
				}
				defer tx.Rollback()
				if err := errors.Join(tx.Remember(key, Memory{Until: 1}), tx.Applied(Effect{Step: "s", IdempotencyKey: key}), tx.Commit()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := effectsOf(t, l)
		if len(got) != 20 {
			t.Fatalf("%d effects", len(got))
		}
		for i, e := range got {
			if e.Order != uint64(i+1) {
				t.Errorf("effect %d has order %d", i, e.Order)
			}
		}
		var out bytes.Buffer
		must(t, WriteEffects(&out, l))
		if n := strings.Count(out.String(), "\n"); n != 20 || !strings.HasPrefix(out.String(), `{"instance":"","step":"s","direction":"","idempotencykey":"k`) {
			t.Errorf("export:\n%s", out.String())
		}
	})
}

func TestLedgerLetsOneTransactionPerLockAtATime(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		tx := begin(t, l, "a")
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := l.Begin(gone, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("the second Begin of a lock: %v", err)
		}
		begin(t, l, "b").Rollback()
		got := make(chan Memory)
		go func() { got <- lookup(t, l, "a") }()
		must(t, tx.Remember("a", Memory{Started: true, Until: 1}), tx.Commit())
		if m := <-got; !m.Started {
			t.Error("who waited does not see what was committed")
		}
	})
}

func TestLedgerPrunesWhatIsOverAndNothingElse(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		tx := begin(t, l, "old")
		must(t, tx.Remember("old", Memory{Answer: someAnswer, Until: 100}), tx.Applied(Effect{IdempotencyKey: "old"}),
			tx.Remember("old/undo", Memory{Answer: someAnswer, Until: 100}), tx.Commit())
		tx = begin(t, l, "kept")
		must(t, tx.Remember("kept", Memory{Until: 100}), tx.Commit())
		tx = begin(t, l, "kept")
		must(t, tx.Remember("kept", Memory{Undone: true, Until: 200}), tx.Applied(Effect{IdempotencyKey: "kept"}), tx.Commit())
		must(t, l.Prune(context.Background(), time.UnixMilli(100)))
		if m := lookup(t, l, "old"); m.Answer == nil {
			t.Error("pruned on its last millisecond")
		}
		must(t, l.Prune(context.Background(), time.UnixMilli(101)))
		for _, k := range []string{"old", "old/undo"} {
			if m := lookup(t, l, k); m.Answer != nil {
				t.Errorf("%s is remembered", k)
			}
		}
		if m := lookup(t, l, "kept"); !m.Undone {
			t.Error("a key that was remembered longer is forgotten")
		}
		if got := effectsOf(t, l); len(got) != 1 || got[0].Order != 2 {
			t.Errorf("effects %v", got)
		}
		tx = begin(t, l, "new")
		must(t, tx.Remember("new", Memory{Until: 300}), tx.Applied(Effect{IdempotencyKey: "new"}), tx.Commit())
		must(t, l.Prune(context.Background(), time.UnixMilli(1000)))
		tx = begin(t, l, "next")
		must(t, tx.Remember("next", Memory{Until: 3000}), tx.Applied(Effect{IdempotencyKey: "next"}), tx.Commit())
		if got := effectsOf(t, l); len(got) != 1 || got[0].Order != 4 {
			t.Errorf("after all before were pruned: %v", got)
		}
	})
}

func TestPebbleLedgerHasWhatWasCommittedAfterAPowerLossAndNumbersOn(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, err := openLedger("ledger", fs)
	must(t, err)
	for _, k := range []string{"a", "b"} {
		tx := begin(t, l, k)
		must(t, tx.Remember(k, Memory{Answer: someAnswer, Until: 9}), tx.Applied(Effect{IdempotencyKey: k}), tx.Commit())
	}
	tx := begin(t, l, "c")
	must(t, tx.Remember("c", Memory{Answer: someAnswer, Until: 9}), tx.Applied(Effect{IdempotencyKey: "c"}))
	crashed := fs.CrashClone(vfs.CrashCloneCfg{}) // what was synced, and nothing else
	tx.Rollback()
	must(t, l.Close())

	l, err = openLedger("ledger", crashed)
	must(t, err)
	defer l.Close()
	if lookup(t, l, "a").Answer == nil || lookup(t, l, "b").Answer == nil {
		t.Error("a committed answer is lost")
	}
	if lookup(t, l, "c").Answer != nil {
		t.Error("an answer is there that was not committed")
	}
	tx = begin(t, l, "d")
	must(t, tx.Remember("d", Memory{Until: 9}), tx.Applied(Effect{IdempotencyKey: "d"}), tx.Commit())
	if got := effectsOf(t, l); len(got) != 3 || got[2].Order != 3 || got[2].IdempotencyKey != "d" {
		t.Errorf("effects %v", got)
	}
}

func TestPebbleLedgerFailsInsteadOfPanickingWhenItIsClosedOrDamaged(t *testing.T) {
	l, err := OpenLedger(t.TempDir())
	must(t, err)
	must(t, l.db.Set(memoryKey("bad"), []byte("{"), pebble.Sync))
	tx := begin(t, l, "bad")
	if _, err := tx.Lookup("bad"); err == nil {
		t.Error("a damaged memory is read")
	}
	must(t, l.Close(), l.Close())
	if _, err := tx.Lookup("a"); !errors.Is(err, pebble.ErrClosed) {
		t.Errorf("lookup: %v", err)
	}
	if err := tx.Commit(); !errors.Is(err, pebble.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if _, err := l.Begin(context.Background(), "a"); !errors.Is(err, pebble.ErrClosed) {
		t.Errorf("begin: %v", err)
	}
	if err := l.Prune(context.Background(), time.Now()); !errors.Is(err, pebble.ErrClosed) {
		t.Errorf("prune: %v", err)
	}
}
