// Package store keeps a shard's rows on this machine: in Pebble, or in memory for tests.
//
// A store is a cache of the journal: it may lag behind it, and is thrown away whenever it is in doubt. It
// may import events, and internal/mutant. The rule that must not break: the state row, which says up to where the journal
// was applied, changes in the same atomic batch as the rows it speaks of.
package store

import "errors"

// ErrCorrupt says that a store's content cannot be trusted; the shard discards it and rebuilds from Kafka.
var ErrCorrupt = errors.New("corrupt store")

// Row is a logical row as stored.
type Row struct {
	Key   []byte
	Value []byte
	Due   int64  // ms since 1970; 0: no timer
	Base  uint64 // sequence of the journal record that holds its last full image
}

// Timer is an entry of the index of due times.
type Timer struct {
	Due int64
	Key []byte // of the row
}

// Store is one shard's rows. Apply and Load are called by one goroutine at a time; reads may run beside it. Slices
// handed to a callback are valid during the call alone; those returned by Get and State are the caller's.
type Store interface {
	// State gives the shard's state row (events.FamilyState), nil when there is none.
	State() ([]byte, error)
	// Get gives the row under key; ok is false when there is none.
	Get(key []byte) (row Row, ok bool, err error)
	// Scan calls fn for the logical rows (not state, not timers) with from <= key < to in order of key
	// until fn returns false; a nil to is the end. It reads one consistent snapshot.
	Scan(from, to []byte, fn func(Row) bool) error
	// Due calls fn for timers with due <= until in order of (due, key) until fn returns false.
	Due(until int64, fn func(Timer) bool) error
	// NextDue is the earliest due time, or 0 when there is no timer.
	NextDue() (int64, error)
	// Apply makes the batch's changes together, or none of them. It need not be synced to disk.
	Apply(b *Batch) error
	// Load is Apply for many changes, gathered: each row once. A nil state is unchanged. It uses c up: what is left to do
	// with it is Reset.
	Load(c *Changes, state []byte) error
	// Snapshot is a consistent read-only view as of now; it has to be closed.
	Snapshot() (Snapshot, error)
	Close() error
}

// Snapshot is a frozen view of a store.
type Snapshot interface {
	State() ([]byte, error)
	Scan(from, to []byte, fn func(Row) bool) error
	Close() error
}

// Batch is a list of changes, in order. Keys and values are kept, not copied, until Apply returns.
type Batch struct {
	Ops   []Op
	State []byte // the new state row; nil: unchanged
}

// Op sets one row, removes it when Gone is set, or deletes the half-open range [Key, To) when To is not nil. Timers
// go with their rows.
type Op struct {
	Key    []byte
	To     []byte
	Gone   bool // Value, Due and Base mean nothing
	Value  []byte
	Due    int64
	WasDue int64 // the due time it had before: that timer is dropped
	Base   uint64
}

// Set adds a row's new image.
func (b *Batch) Set(key []byte, due, wasDue int64, value []byte, base uint64) {
	b.Ops = append(b.Ops, Op{Key: key, Value: value, Due: due, WasDue: wasDue, Base: base})
}

// Delete removes a row, which was due at wasDue; one that is not there is no error. The sequence of the
// record that removes it is for journal.Rows.
func (b *Batch) Delete(key []byte, wasDue int64, _ uint64) {
	b.Ops = append(b.Ops, Op{Key: key, Gone: true, WasDue: wasDue})
}

// DeleteRange removes the rows with from <= key < to.
func (b *Batch) DeleteRange(from, to []byte) { b.Ops = append(b.Ops, Op{Key: from, To: to}) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.Ops, b.State = b.Ops[:0], nil }
