package orchestrator

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/store"
)

// overlay is the store as it will be once every record in flight is acknowledged: decisions run on it,
// ahead of the journal. Losing the claim throws it away. Beside what records in flight set it keeps rows of
// instances that were decided on lately as the store has them, so that the next decision need not ask Pebble.
//
// It holds instances, not rows, because a purge forgets one whole and a decision touches several rows of one. What
// it keeps beside the store is bounded by giving up, at once, what was not used since the last time it was half full.
//
// It implements machine.View and journal.Rows. A store that fails in a View makes err sticky; whoever
// decided on the view then drops the decision.
type overlay struct {
	store store.Store
	err   error

	limit int // bytes, as held.cost counts them; 0: nothing is kept that the store has
	size  int // of young
	young map[events.InstanceID]*held
	old   map[events.InstanceID]*held
	last  *held // the one used last: the next use is mostly of the same

	touched []rowID // rows set or removed since takeTouched
	purges  []events.InstanceID
}

// held are rows of one instance, or of another entity of the shard.
type held struct {
	id     events.InstanceID
	rows   []heldRow
	index  map[events.RowRef]int // over rows, once they are many
	open   int                   // rows of records that are not applied yet: these are held whatever the limit
	purged uint64                // sequence of a purge that is not applied yet: what is not held is not there
	whole  bool                  // it began while it was held: of its nodes and data, what is not held is not there
	cost   int
}

type heldRow struct {
	ref   events.RowRef
	value []byte
	due   int64
	gone  bool   // the record removes it, or, of a head, the store does not have it
	seq   uint64 // of the record that sets it; 0: the store has it like that
}

// rowID is a row's key without a pointer and without padding, so that a map hashes it in one go.
type rowID struct {
	id      events.InstanceID
	part, n uint64
}

func (k rowID) ref() events.RowRef { return events.RowRef{Part: events.Part(k.part), N: k.n} }

func rowIDOf(id events.InstanceID, ref events.RowRef) rowID {
	return rowID{id, uint64(ref.Part), ref.N}
}

const (
	// maxKeptRows bounds how many rows of an instance are kept that the store has; what is in flight is held beside them.
	maxKeptRows = 32
	// rowOverhead is what a row costs beside its value: the value is a part of its decision's buffer, which
	// it keeps alive.
	rowOverhead = 512
	// purging is the sequence of a purge whose record is being made.
	purging = ^uint64(0)
)

func newOverlay(s store.Store, keepBytes int) *overlay {
	return &overlay{store: s, limit: keepBytes, young: map[events.InstanceID]*held{}}
}

// Row implements machine.View.
func (o *overlay) Row(id events.InstanceID, ref events.RowRef) (value []byte, due int64, ok bool) {
	h := o.find(id)
	if h != nil {
		if r := h.row(ref); r != nil {
			return r.value, r.due, !r.gone
		}
		if h.purged != 0 || h.whole && (ref.Part == events.PartNode || ref.Part == events.PartData) {
			return nil, 0, false
		}
	}
	if o.err != nil {
		return nil, 0, false
	}
	row, ok, err := o.store.Get(events.RowKey(id, ref))
	if err != nil {
		o.err = err
		return nil, 0, false
	}
	if (ok || ref.Part == events.PartHead) && o.limit > 0 {
		if h == nil {
			h = o.hold(id)
		}
		if len(h.rows) < maxKeptRows {
			o.add(h, heldRow{ref: ref, value: row.Value, due: row.Due, gone: !ok})
		}
	}
	return row.Value, row.Due, ok
}

// changed is the row as records leave it that are not applied yet, gone when they remove it or purge its instance; nil
// when none of them touches it.
func (o *overlay) changed(id events.InstanceID, ref events.RowRef) *heldRow {
	h := o.young[id]
	if h == nil {
		h = o.old[id]
	}
	switch {
	case h == nil:
		return nil
	case h.purged != 0:
		return &heldRow{ref: ref, gone: true, seq: h.purged}
	}
	if r := h.row(ref); r != nil && r.seq != 0 {
		return r
	}
	return nil
}

// Set implements journal.Rows. What is no row of an instance decides nothing, and neither does history, which is
// written once and for people.
func (o *overlay) Set(key []byte, due, _ int64, value []byte, base uint64) {
	if id, ref, ok := events.ParseRowKey(key); ok && ref.Part != events.PartHistory {
		o.set(id, heldRow{ref: ref, value: value, due: due, seq: base})
	}
}

// Delete implements journal.Rows.
func (o *overlay) Delete(key []byte, _ int64, seq uint64) {
	if id, ref, ok := events.ParseRowKey(key); ok && ref.Part != events.PartHistory {
		o.set(id, heldRow{ref: ref, gone: true, seq: seq})
	}
}

func (o *overlay) set(id events.InstanceID, row heldRow) {
	o.touched = append(o.touched, rowIDOf(id, row.ref))
	h := o.find(id)
	if h == nil {
		h = o.hold(id)
	}
	r := h.row(row.ref)
	if r == nil {
		h.open++
		o.add(h, row)
		return
	}
	if r.seq == 0 {
		h.open++
		if r.gone { // nothing but what records of now on set can be a part of it
			h.whole = true
		}
	}
	grown := len(row.value) - len(r.value)
	*r = row
	o.charge(h, grown)
}

// DeleteRange implements journal.Rows: the only ranges a record deletes are whole instances.
func (o *overlay) DeleteRange(from, _ []byte) {
	var id events.InstanceID
	copy(id[:], from[1:])
	o.purges = append(o.purges, id)
	h := o.find(id)
	if h == nil {
		h = o.hold(id)
	}
	o.charge(h, -h.cost)
	h.rows, h.index, h.open, h.purged, h.whole = nil, nil, 0, purging, false
}

// takeTouched gives what was set and purged since the last call, so that it can be settled when the record
// that did it, of sequence seq, is applied to the store.
func (o *overlay) takeTouched(seq uint64) (keys []rowID, purges []events.InstanceID) {
	keys, purges = o.touched, o.purges
	o.touched, o.purges = make([]rowID, 0, len(keys)), nil
	for _, id := range purges {
		o.find(id).purged = seq
	}
	return keys, purges
}

// settle notes that the store has what the record of sequence seq set. keep says that its rows will probably be asked
// for soon.
func (o *overlay) settle(seq uint64, keys []rowID, purges []events.InstanceID, keep bool) {
	for _, id := range purges {
		if h := o.find(id); h != nil && h.purged == seq {
			h.purged = 0
			o.release(h)
		}
	}
	for _, k := range keys {
		h := o.find(k.id)
		if h == nil {
			continue
		}
		ref := k.ref()
		r := h.row(ref)
		if r == nil || r.seq != seq {
			continue // purged, or set again by a later record
		}
		r.seq = 0
		h.open--
		if r.gone || !keep || o.limit == 0 || len(h.rows) > maxKeptRows {
			h.whole = h.whole && (r.gone || mutant.On("shard-rows-given-up-are-gone"))
			o.remove(h, ref)
			o.release(h)
		}
	}
}

// find gives what is held of an instance, which counts as used by that; nil when nothing is.
func (o *overlay) find(id events.InstanceID) *held {
	if o.last != nil && o.last.id == id {
		return o.last
	}
	h := o.young[id]
	if h == nil {
		if h = o.old[id]; h == nil {
			return nil
		}
		delete(o.old, id)
		o.young[id] = h
		o.size += h.cost
	}
	o.last = h
	return h
}

func (o *overlay) hold(id events.InstanceID) *held {
	h := &held{id: id}
	o.young[id], o.last = h, h
	return h
}

// release forgets an instance of which nothing is held any more.
func (o *overlay) release(h *held) {
	if len(h.rows) > 0 || h.purged != 0 {
		return
	}
	delete(o.young, h.id)
	if o.last == h {
		o.last = nil
	}
}

func (o *overlay) add(h *held, row heldRow) {
	h.rows = append(h.rows, row)
	if h.index != nil {
		h.index[row.ref] = len(h.rows) - 1
	} else if len(h.rows) > maxKeptRows {
		h.index = make(map[events.RowRef]int, 2*len(h.rows))
		for i := range h.rows {
			h.index[h.rows[i].ref] = i
		}
	}
	o.charge(h, rowOverhead+len(row.value))
}

func (o *overlay) remove(h *held, ref events.RowRef) {
	i := h.place(ref)
	cost, last := rowOverhead+len(h.rows[i].value), len(h.rows)-1
	h.rows[i] = h.rows[last]
	h.rows[last] = heldRow{}
	h.rows = h.rows[:last]
	if h.index != nil {
		delete(h.index, ref)
		if i < last {
			h.index[h.rows[i].ref] = i
		}
	}
	o.charge(h, -cost)
}

// charge counts what an instance in use costs more now, and gives up what was not used for long when that is too much.
func (o *overlay) charge(h *held, cost int) {
	h.cost += cost
	if o.size += cost; o.limit == 0 || cost <= 0 || o.size <= o.limit/2 {
		return
	}
	unused := o.old
	o.old, o.young, o.size, o.last = o.young, make(map[events.InstanceID]*held, len(o.young)), 0, nil
	for id, h := range unused { // order: they are moved, each to its own place
		if h.open > 0 || h.purged != 0 {
			o.old[id] = h
		}
	}
}

func (h *held) row(ref events.RowRef) *heldRow {
	if i := h.place(ref); i >= 0 {
		return &h.rows[i]
	}
	return nil
}

func (h *held) place(ref events.RowRef) int {
	if h.index != nil {
		if i, ok := h.index[ref]; ok {
			return i
		}
		return -1
	}
	for i := range h.rows {
		if h.rows[i].ref == ref {
			return i
		}
	}
	return -1
}
