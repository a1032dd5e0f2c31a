package main

import (
	"testing"
	"time"
)

// G5, L16: owners that emit in transactions are killed between append and acknowledgement, between acknowledgement
// and transaction, and before and after the end of one is sent. Who reads committed records sees each decided
// command, and each event, once.
func TestWhoReadsCommittedRecordsSeesEachCommandOnceWhateverIsKilled(t *testing.T) {
	onBothBrokers(t, killedInTransactions)
}

func killedInTransactions(t *testing.T, brokers []string) {
	out, err := run(t.Context(), options{brokers: brokers, app: appName("transactional"), dir: folder(t), out: lines{t},
		rate: 40, seed: uint64(time.Now().UnixNano() % 1_000_000), kinds: []string{"line", "fork", "basket"}, transactional: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out.transactionalString())
	if err := out.transactionalVerdict(); err != nil {
		t.Error(err)
	}
}
