package participant

import (
	"context"
	"sync"
	"time"
)

// locks gives out one lock per name; names nobody holds take no memory.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the holder is done
}

func (l *locks) lock(ctx context.Context, name string) error {
	for {
		if l.try(name) {
			return nil
		}
		l.mu.Lock()
		wait, taken := l.held[name]
		l.mu.Unlock()
		if !taken {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try is lock without waiting.
func (l *locks) try(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.held[name]; taken {
		return false
	}
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	l.held[name] = make(chan struct{})
	return true
}

func (l *locks) unlock(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[name])
	delete(l.held, name)
}

// InMemory is a Ledger that lives as long as its process: for tests and demonstrations. After a restart,
// commands that are read again are executed again.
type InMemory struct {
	locks   locks
	mu      sync.Mutex
	entries map[string]Memory
	effects []Effect
	order   uint64
}

// NewMemory makes an empty ledger.
func NewMemory() *InMemory { return &InMemory{entries: map[string]Memory{}} }

// Begin implements Ledger.
func (l *InMemory) Begin(ctx context.Context, lock string) (Tx, error) {
	if err := l.locks.lock(ctx, lock); err != nil {
		return nil, err
	}
	return &memoryTx{ledger: l, lock: lock, writes: map[string]Memory{}}, nil
}

// Prune implements Ledger.
func (l *InMemory) Prune(_ context.Context, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := map[string]bool{}
	for k, m := range l.entries {
		if m.Until < now.UnixMilli() {
			delete(l.entries, k)
			gone[k] = true
		}
	}
	keep := l.effects[:0]
	for _, e := range l.effects {
		if !gone[e.IdempotencyKey] {
			keep = append(keep, e)
		}
	}
	l.effects = keep
	return nil
}

// Effects implements EffectLog.
func (l *InMemory) Effects(fn func(Effect) error) error {
	l.mu.Lock()
	all := append([]Effect(nil), l.effects...)
	l.mu.Unlock()
	for _, e := range all {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

type memoryTx struct {
	ledger  *InMemory
	lock    string
	writes  map[string]Memory
	effects []Effect
	ended   bool
}

func (t *memoryTx) Lookup(key string) (Memory, error) {
	if m, ok := t.writes[key]; ok {
		return m, nil
	}
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	return t.ledger.entries[key], nil
}

func (t *memoryTx) Remember(key string, m Memory) error {
	t.writes[key] = m
	return nil
}

func (t *memoryTx) Applied(e Effect) error {
	t.effects = append(t.effects, e)
	return nil
}

func (t *memoryTx) Commit() error {
	if t.ended {
		return errEnded
	}
	t.ledger.mu.Lock()
	for k, m := range t.writes {
		t.ledger.entries[k] = m
	}
	for _, e := range t.effects {
		t.ledger.order++
		e.Order = t.ledger.order
		t.ledger.effects = append(t.ledger.effects, e)
	}
	t.ledger.mu.Unlock()
	t.Rollback()
	return nil
}

func (t *memoryTx) Rollback() {
	if !t.ended {
		t.ended = true
		t.ledger.locks.unlock(t.lock)
	}
}
