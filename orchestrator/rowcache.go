package orchestrator

import (
	"slices"

	"github.com/skald-io/skald/events"
)

// rowCache keeps rows of instances that were decided on lately as the store has them, so that the next
// decision on one need not ask Pebble. It holds instances, not rows, because a purge forgets one whole. It
// is bounded by giving up, at once, what was not used since the last time it was half full.
type rowCache struct {
	limit int // bytes, as cost counts them
	size  int // of young
	young map[events.InstanceID]*cachedInstance
	old   map[events.InstanceID]*cachedInstance
}

type cachedInstance struct {
	rows []cachedRow
	cost int
}

type cachedRow struct {
	ref   events.RowRef
	value []byte
	due   int64
}

const (
	// maxCachedRows bounds the search within an instance; wider ones are read from the store.
	maxCachedRows = 32
	// rowOverhead is what a row costs beside its value: the value is a part of its decision's buffer, which
	// it keeps alive.
	rowOverhead = 512
)

func newRowCache(limit int) rowCache {
	return rowCache{limit: limit, young: map[events.InstanceID]*cachedInstance{}}
}

func (c *rowCache) get(id events.InstanceID, ref events.RowRef) (value []byte, due int64, ok bool) {
	inst := c.use(id)
	if inst == nil {
		return nil, 0, false
	}
	for i := range inst.rows {
		if r := &inst.rows[i]; r.ref == ref {
			return r.value, r.due, true
		}
	}
	return nil, 0, false
}

// put takes a row as the store has it now; a row that is not held yet only if it is to be kept. History is
// for people: nothing decides by it.
func (c *rowCache) put(id events.InstanceID, ref events.RowRef, value []byte, due int64, keep bool) {
	if ref.Part == events.PartHistory || c.limit == 0 {
		return
	}
	inst := c.use(id)
	if inst == nil {
		if !keep {
			return
		}
		inst = &cachedInstance{}
		c.young[id] = inst
	}
	for i := range inst.rows {
		if r := &inst.rows[i]; r.ref == ref {
			c.charge(inst, len(value)-len(r.value))
			r.value, r.due = value, due
			return
		}
	}
	if keep && len(inst.rows) < maxCachedRows {
		inst.rows = append(inst.rows, cachedRow{ref, value, due})
		c.charge(inst, rowOverhead+len(value))
	}
}

// use finds an instance, which counts as used by that.
func (c *rowCache) use(id events.InstanceID) *cachedInstance {
	inst := c.young[id]
	if inst == nil {
		if inst = c.old[id]; inst != nil {
			delete(c.old, id)
			c.young[id] = inst
			c.size += inst.cost
		}
	}
	return inst
}

func (c *rowCache) charge(inst *cachedInstance, cost int) {
	inst.cost += cost
	if c.size += cost; c.size > c.limit/2 {
		c.old, c.young, c.size = c.young, make(map[events.InstanceID]*cachedInstance, len(c.young)), 0
	}
}

// remove forgets one row.
func (c *rowCache) remove(id events.InstanceID, ref events.RowRef) {
	inst := c.use(id)
	if inst == nil {
		return
	}
	for i := range inst.rows {
		if r := &inst.rows[i]; r.ref == ref {
			cost := rowOverhead + len(r.value)
			inst.rows = slices.Delete(inst.rows, i, i+1)
			inst.cost -= cost
			c.size -= cost
			return
		}
	}
}

func (c *rowCache) drop(id events.InstanceID) {
	if inst := c.young[id]; inst != nil {
		c.size -= inst.cost
		delete(c.young, id)
	}
	delete(c.old, id)
}
