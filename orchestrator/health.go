package orchestrator

import (
	"slices"
	"strings"
)

// States of an assigned shard, as Health shows them.
const (
	ShardRestoring = "restoring" // it is read from the journal, or claimed
	ShardOwned     = "owned"     // this node decides for it
	ShardFailing   = "failing"   // its last try ended in an error, and the next is to come
)

// Health is how a node is.
type Health struct {
	Node      string
	Member    bool // of the consumer group, which has told it what it is assigned, maybe nothing
	Stopping  bool
	Shards    []Shown  // assigned, in order
	WaitingOn []string // names of definitions that inputs of this node's shards wait for, since its start
}

// Shown is a shard in Health.
type Shown struct {
	Shard int32  `json:"shard"`
	State string `json:"state"`
	Code  string `json:"code,omitempty"`  // of the error, when failing
	Error string `json:"error,omitempty"` // when failing
}

// Health may be called at any time.
func (e *Engine) Health() Health {
	e.mu.Lock()
	h := Health{Node: e.cfg.Node, Member: e.joined, Stopping: e.stopping}
	members := e.members
	for p, r := range e.runners {
		h.Shards = append(h.Shards, r.shown(p))
	}
	e.mu.Unlock()
	h.Member = h.Member && e.cfg.Kafka.MemberID(e.cfg.App) != ""
	slices.SortFunc(h.Shards, func(a, b Shown) int { return int(a.Shard - b.Shard) })
	if members != nil {
		members.mu.Lock()
		for _, d := range members.wants {
			h.WaitingOn = append(h.WaitingOn, strings.TrimSpace(d.Name+" "+d.Version))
		}
		members.mu.Unlock()
		slices.Sort(h.WaitingOn)
		h.WaitingOn = slices.Compact(h.WaitingOn)
	}
	return h
}

func (r *runner) shown(p int32) Shown {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := Shown{Shard: p, State: ShardRestoring}
	switch {
	case r.owns:
		s.State = ShardOwned
	case r.err != nil:
		s.State, s.Code, s.Error = ShardFailing, ErrorCode(r.err), r.err.Error()
	}
	return s
}

// failed notes why the shard is opened again; nil forgets it.
func (r *runner) failed(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
}
