package orchestrator

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

// Description is all there is to know of an instance.
type Description struct {
	Instance
	Deadline int64  // of the running saga, ms since 1970; 0: none
	Data     []byte // as the definition encodes it
	Nodes    []Node // that have begun, in order of their rows
	Queue    []events.Queued
	Owed     []Owed        // what would have to be undone, were it to go back now
	Waits    []WaitingNode // that are open
	Parked   string        // the step at which it cannot go on; "": it can, or none is to blame
	Answers  []events.Answer
}

// Node is a node of the plan as an instance has it.
type Node struct {
	Row  uint32
	Name string // as history names it; "" where neither history nor a plan of this node knows
	Due  int64  // of its time-out, backoff or end; ms since 1970; 0: none
	events.NodeState
}

// Owed is an effect that is there, or may be, and its undo.
type Owed struct {
	Step      string
	Execution uint32
	Topic     string // of the undo
	Type      string
	Payload   []byte
	Attempts  uint32 // of the undo, so far
}

// WaitingNode is a Wait that is open.
type WaitingNode struct {
	Name   string
	Signal string // it waits for, or else
	Topic  string // an event of this topic, type and key; "" for a time
	Type   string
	Key    string
	Until  int64 // ms since 1970; 0: for ever
}

// Describe gives an instance of a shard that this node owns, with all that belongs to it; ok is false when there is
// none of that id.
func (e *Engine) Describe(id events.InstanceID) (d Description, ok bool, err error) {
	err = e.scan(id, func(row store.Row, ref events.RowRef) error {
		value := bytes.Clone(row.Value)
		switch ref.Part {
		case events.PartHead:
			h, err := events.DecodeHead(value)
			if err != nil {
				return err
			}
			d.ID, d.Head, ok = id, *h, true
			if h.State == events.Running {
				d.Deadline = row.Due
			}
		case events.PartData:
			d.Data = value
		case events.PartNode:
			n, err := events.DecodeNode(value)
			if err != nil {
				return err
			}
			d.Nodes = append(d.Nodes, Node{Row: uint32(ref.N), Due: row.Due, NodeState: *n})
		case events.PartHistory:
			x, err := events.DecodeEntry(value)
			if err != nil {
				return err
			}
			d.History = append(d.History, *x)
		case events.PartQueue:
			q, err := events.DecodeQueued(value)
			if err != nil {
				return err
			}
			d.Queue = append(d.Queue, *q)
		case events.PartAnswer:
			a, err := events.DecodeAnswer(value)
			if err != nil {
				return err
			}
			d.Answers = append(d.Answers, *a)
		}
		return nil
	})
	if err != nil || !ok {
		return Description{}, false, err
	}
	d.explain(e.planOf(&d.Head))
	return d, true, nil
}

// planOf is the plan of an instance, nil when this node does not have it.
func (e *Engine) planOf(h *events.Head) *sagas.Plan {
	for _, p := range e.plans {
		if p.Name == h.Definition && p.Version == h.Version && p.Hash == h.DefHash {
			return p
		}
	}
	return nil
}

// explain names the nodes, and says what they wait for and owe.
func (d *Description) explain(p *sagas.Plan) {
	names := map[uint32]string{}
	for i := range d.History {
		if e := &d.History[i]; e.Step != "" && e.Kind != events.EntryAction && e.Kind != events.EntryRefused {
			names[e.Node] = e.Step
		}
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		plan := planNode(p, n)
		if n.Name = names[n.Row]; n.Name == "" && plan != nil {
			n.Name = plan.Name
		}
		if n.owes() && d.State != events.Completed { // of what is completed nothing is undone any more
			d.Owed = append(d.Owed, Owed{n.Name, n.Execution, n.Undo.Topic, n.Undo.Type, n.Undo.Payload, n.Undo.Attempts})
		}
		if d.State == events.Parked && d.ParkedNode == n.Row {
			d.Parked = n.Name
		}
		if n.Status != events.NodeActive || plan == nil || plan.Wait == nil {
			continue
		}
		w := WaitingNode{Name: n.Name, Signal: plan.Wait.Signal, Until: n.Due}
		if e := plan.Wait.Event; e != nil {
			w.Topic, w.Type, w.Key = e.Topic, e.Type, n.Key
		}
		d.Waits = append(d.Waits, w)
	}
}

func planNode(p *sagas.Plan, n *Node) *sagas.Node {
	id := n.Row
	if n.Plan > 0 {
		id = n.Plan - 1
	}
	if p == nil || int(id) >= len(p.Nodes) {
		return nil
	}
	return p.Nodes[id]
}

// owes reports whether an effect of the node's execution is possible, and not undone (L19).
func (n *Node) owes() bool {
	if n.Undo == nil || n.Status == events.NodeUndone || n.Attempts == 0 {
		return false
	}
	return n.HasAnswer || n.Status == events.NodeDone || n.Attempts > 64 || bits.OnesCount64(n.Rejected) < int(n.Attempts)
}

// Find gives the id of the instance that lives under a business key, or of the last that ended and is still kept. ok
// is false when there is none. The key's shard has to be this node's.
func (e *Engine) Find(definition, key string) (id events.InstanceID, ok bool, err error) {
	shards := e.shards()
	if shards == 0 {
		return id, false, ErrNotHere
	}
	of := events.KeyID(e.cfg.App, definition, key, shards*events.SlotsPerShard)
	err = e.scan(of, func(row store.Row, ref events.RowRef) error {
		if ref.Part != events.PartKey {
			return nil
		}
		k, err := events.DecodeKeyState(bytes.Clone(row.Value))
		if err != nil {
			return err
		}
		if id = k.Live; id.IsZero() {
			id = k.Last
		}
		ok = !id.IsZero()
		return nil
	})
	return id, ok, err
}

// ShardOf is the shard that a business key's instances live on, and ShardOfInstance that of an instance; -1 before the
// engine runs.
func (e *Engine) ShardOf(key string) int32 {
	n := e.shards()
	if n == 0 {
		return -1
	}
	return int32(int(events.Slot([]byte(key), n*events.SlotsPerShard)) % n)
}

// ShardOfInstance is described at ShardOf.
func (e *Engine) ShardOfInstance(id events.InstanceID) int32 {
	if n := e.shards(); n > 0 {
		return id.Shard(n)
	}
	return -1
}

// scan calls fn for the rows of an entity, in order of part and number.
func (e *Engine) scan(id events.InstanceID, fn func(store.Row, events.RowRef) error) error {
	var r *runner
	e.mu.Lock()
	if n := e.layout.shards; n > 0 {
		r = e.runners[id.Shard(n)]
	}
	e.mu.Unlock()
	if r == nil {
		return ErrNotHere
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.store == nil || !r.owns {
		return ErrNotHere
	}
	from, to := events.InstanceRange(id)
	var failed error
	err := r.store.Scan(from, to, func(row store.Row) bool {
		_, ref, _ := events.ParseRowKey(row.Key)
		if failed = fn(row, ref); failed != nil {
			failed = fmt.Errorf("entity %s: row %s %d: %w", id, ref.Part, ref.N, failed)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}
