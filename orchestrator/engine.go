package orchestrator

import (
	"context"

	"github.com/skald-io/skald/events"
)

// Engine runs the shards that the group assigns to this node. It is safe for concurrent use.
type Engine struct {
	cfg Config
}

// New checks the configuration; it does not touch the network. Errors of definitions name file and line.
func New(cfg Config) (*Engine, error) {
	c, _, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Engine{cfg: c}, nil
}

// Instance is an instance as operators see it.
type Instance struct {
	ID events.InstanceID
	events.Head
	History []events.Entry // in order of happening
}

// Run takes part until ctx ends, then hands its shards over and leaves the group. It returns nil after such
// a shutdown, or the error that makes going on pointless.
func (e *Engine) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Shards are the shards that this node owns and decides for, in order.
func (e *Engine) Shards() []int32 { return nil }

// Get gives an instance of a shard that this node owns.
func (e *Engine) Get(id events.InstanceID) (inst Instance, ok bool, err error) { return inst, false, nil }

// List calls fn for the instances of this node's shards, without histories, until it returns false.
func (e *Engine) List(fn func(Instance) bool) error { return nil }

// Stats are this node's counters since its start.
type Stats struct {
	Shards      int
	Decisions   uint64
	Commands    uint64
	Forwards    uint64
	Quarantined uint64
	Ignored     uint64
	InFlight    int
}

// Stats may be called at any time.
func (e *Engine) Stats() Stats { return Stats{} }
