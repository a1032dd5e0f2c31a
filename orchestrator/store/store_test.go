package store_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/orchestrator/store/storetest"
)

func TestMemoryConforms(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

func TestPebbleConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, "shard", store.Options{FS: vfs.NewMem()}) })
	storetest.RunDurable(t, func(t *testing.T, dir string) store.Store { return open(t, dir, store.Options{}) })
}

func open(t testing.TB, dir string, o store.Options) *store.Pebble {
	t.Helper()
	s, err := store.OpenPebble(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
