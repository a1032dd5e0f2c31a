package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Memory is a store in memory, sorted slices and nothing else: for tests, and the dumb twin that Pebble is
// compared with. It keeps its timers by what the rows say, not by Op.WasDue, and Apply refuses a WasDue that
// would leave a timer behind in Pebble. It is safe for concurrent use as Store says.
type Memory struct {
	mu     sync.Mutex
	view   memoryView
	shared bool // view's slices are read outside of mu: copy them before a change
	closed bool
}

// memoryView is immutable while it is shared.
type memoryView struct {
	state  []byte
	rows   []Row
	timers []Timer
}

var errClosed = errors.New("the store is closed")

// NewMemory gives an empty store.
func NewMemory() *Memory { return &Memory{} }

func byKey(r Row, key []byte) int { return bytes.Compare(r.Key, key) }

func byDue(a, b Timer) int {
	return cmp.Or(cmp.Compare(a.Due, b.Due), bytes.Compare(a.Key, b.Key))
}

func (m *Memory) read() (memoryView, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return memoryView{}, errClosed
	}
	m.shared = true
	return m.view, nil
}

// State is Store's.
func (m *Memory) State() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	return bytes.Clone(m.view.state), nil
}

// Get is Store's.
func (m *Memory) Get(key []byte) (Row, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Row{}, false, errClosed
	}
	i, ok := slices.BinarySearchFunc(m.view.rows, key, byKey)
	if !ok {
		return Row{}, false, nil
	}
	r := m.view.rows[i]
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	return r, true, nil
}

// Scan is Store's.
func (m *Memory) Scan(from, to []byte, fn func(Row) bool) error {
	v, err := m.read()
	if err == nil {
		v.scan(from, to, fn)
	}
	return err
}

func (v memoryView) scan(from, to []byte, fn func(Row) bool) {
	i, _ := slices.BinarySearchFunc(v.rows, from, byKey)
	for _, r := range v.rows[i:] {
		if to != nil && bytes.Compare(r.Key, to) >= 0 {
			return
		}
		r.Key, r.Value = slices.Clip(r.Key), slices.Clip(r.Value)
		if !fn(r) {
			return
		}
	}
}

// Due is Store's.
func (m *Memory) Due(until int64, fn func(Timer) bool) error {
	v, err := m.read()
	if err != nil {
		return err
	}
	for _, t := range v.timers {
		if t.Due > until || !fn(t) {
			break
		}
	}
	return nil
}

// NextDue is Store's.
func (m *Memory) NextDue() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errClosed
	}
	if len(m.view.timers) == 0 {
		return 0, nil
	}
	return m.view.timers[0].Due, nil
}

// Apply is Store's. An op whose row has a due time that is neither its Due nor its WasDue is an error, and changes nothing:
// Pebble, which does not look, would keep the old timer for ever.
func (m *Memory) Apply(b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	if err := m.view.checkDues(b.Ops); err != nil {
		return err
	}
	if m.shared {
		m.view.rows, m.view.timers = slices.Clone(m.view.rows), slices.Clone(m.view.timers)
		m.shared = false
	}
	for i := range b.Ops {
		switch op := &b.Ops[i]; {
		case op.To != nil:
			m.view.deleteRange(op.Key, op.To)
		case op.Gone:
			m.view.remove(op.Key)
		default:
			m.view.set(op)
		}
	}
	if b.State != nil {
		m.view.state = append([]byte{}, b.State...)
	}
	return nil
}

// Load is Store's.
func (m *Memory) Load(c *Changes, state []byte) error {
	b, err := c.Batch()
	if err != nil {
		return err
	}
	b.State = state
	return m.Apply(b)
}

// checkDues follows the ops' due times, so that a refused batch has changed nothing.
func (v *memoryView) checkDues(ops []Op) error {
	type image struct {
		at  int // the op, or -1
		due int64
	}
	images := make(map[string]image, len(ops))
	var ranges []int
	for i := range ops {
		op := &ops[i]
		if op.To != nil {
			ranges = append(ranges, i)
			continue
		}
		was, ok := images[string(op.Key)]
		if !ok {
			was.at = -1
			if j, ok := slices.BinarySearchFunc(v.rows, op.Key, byKey); ok {
				was.due = v.rows[j].Due
			}
		}
		for _, r := range ranges {
			if r > was.at && inRange(op.Key, ops[r].Key, ops[r].To) {
				was.due = 0
			}
		}
		due := op.Due
		if op.Gone {
			due = 0
		}
		if was.due != 0 && was.due != due && was.due != op.WasDue {
			return fmt.Errorf("store: row %x is due at %d, not at %d as the change says: its timer would stay", op.Key, was.due, op.WasDue)
		}
		images[string(op.Key)] = image{i, due}
	}
	return nil
}

func (v *memoryView) set(op *Op) {
	key := bytes.Clone(op.Key)
	row := Row{Key: key, Value: append([]byte{}, op.Value...), Due: op.Due, Base: op.Base}
	if i, ok := slices.BinarySearchFunc(v.rows, key, byKey); ok {
		v.drop(v.rows[i].Due, key)
		v.rows[i] = row
	} else {
		v.rows = slices.Insert(v.rows, i, row)
	}
	if op.Due != 0 {
		t := Timer{op.Due, key}
		i, _ := slices.BinarySearchFunc(v.timers, t, byDue)
		v.timers = slices.Insert(v.timers, i, t)
	}
}

func (v *memoryView) remove(key []byte) {
	if i, ok := slices.BinarySearchFunc(v.rows, key, byKey); ok {
		v.drop(v.rows[i].Due, key)
		v.rows = slices.Delete(v.rows, i, i+1)
	}
}

func (v *memoryView) drop(due int64, key []byte) {
	if i, ok := slices.BinarySearchFunc(v.timers, Timer{due, key}, byDue); ok {
		v.timers = slices.Delete(v.timers, i, i+1)
	}
}

func (v *memoryView) deleteRange(from, to []byte) {
	i, _ := slices.BinarySearchFunc(v.rows, from, byKey)
	j, _ := slices.BinarySearchFunc(v.rows, to, byKey)
	if i >= j {
		return
	}
	for _, r := range v.rows[i:j] {
		v.drop(r.Due, r.Key)
	}
	v.rows = slices.Delete(v.rows, i, j)
}

// Snapshot is Store's.
func (m *Memory) Snapshot() (Snapshot, error) {
	v, err := m.read()
	if err != nil {
		return nil, err
	}
	return &memorySnapshot{v}, nil
}

// Close is Store's. Snapshots outlive it.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.view = true, memoryView{}
	return nil
}

type memorySnapshot struct{ v memoryView }

func (s *memorySnapshot) State() ([]byte, error) { return bytes.Clone(s.v.state), nil }

func (s *memorySnapshot) Scan(from, to []byte, fn func(Row) bool) error {
	s.v.scan(from, to, fn)
	return nil
}

func (s *memorySnapshot) Close() error { return nil }
