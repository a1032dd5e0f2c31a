package store

import (
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// SetRaw puts a value under any key.
func SetRaw(p *Pebble, key, value []byte) error { return p.db.Set(key, value, pebble.NoSync) }

// SetFormat replaces the marker of a store that is not open; nil removes it.
func SetFormat(t *testing.T, on vfs.FS, dir string, format []byte) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{FS: on, Logger: pebbleLogger{&Pebble{}}})
	if err != nil {
		t.Fatal(err)
	}
	if format == nil {
		err = db.Delete(formatKey, pebble.Sync)
	} else {
		err = db.Set(formatKey, format, pebble.Sync)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// WithoutCompactions keeps tables as they were flushed.
func WithoutCompactions(o Options) Options {
	o.tune = func(p *pebble.Options) { p.DisableAutomaticCompactions = true }
	return o
}

// Flush writes what is in memory to a table.
func Flush(p *Pebble) error { return p.db.Flush() }

// Panic has Pebble panic within Apply.
func Panic(p *Pebble) error {
	return p.do("apply", func() error { return p.db.Apply(nil, pebble.NoSync) })
}

// Fatal is Pebble giving up.
func Fatal(p *Pebble, format string, args ...any) { pebbleLogger{p}.Fatalf(format, args...) }

// WithSmallLoads makes a table of any load.
func WithSmallLoads(o Options) Options {
	o.minLoad = 1
	return o
}

// Compactions is how many there were, or are.
func Compactions(p *Pebble) int64 {
	m := p.db.Metrics()
	return m.Compact.Count + m.Compact.NumInProgress
}

// AwaitCompaction returns when there was one.
func AwaitCompaction(p *Pebble) {
	for Compactions(p) == 0 {
		runtime.Gosched()
	}
}
