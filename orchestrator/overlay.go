package orchestrator

import (
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/store"
)

// overlay is the store as it will be once every record in flight is acknowledged: decisions run on it,
// ahead of the journal. Losing the claim throws it away.
//
// It implements machine.View and journal.Rows. A store that fails in a View makes err sticky; whoever
// decided on the view then drops the decision.
type overlay struct {
	store  store.Store
	rows   map[rowID]overlayRow
	purged map[events.InstanceID]uint64 // sequence of the purge
	cache  rowCache
	err    error

	touched []rowID // rows set or removed since takeTouched
	purges  []events.InstanceID
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

type overlayRow struct {
	value []byte
	due   int64
	gone  bool   // the record removes it
	seq   uint64 // of the record that sets it
}

func newOverlay(s store.Store, cacheBytes int) *overlay {
	return &overlay{store: s, rows: map[rowID]overlayRow{}, purged: map[events.InstanceID]uint64{}, cache: newRowCache(cacheBytes)}
}

// Row implements machine.View.
func (o *overlay) Row(id events.InstanceID, ref events.RowRef) ([]byte, int64, bool) {
	r, found := o.rows[rowIDOf(id, ref)]
	if purge, gone := o.purged[id]; gone && (!found || r.seq < purge) {
		return nil, 0, false
	}
	if found {
		return r.value, r.due, !r.gone
	}
	if o.err != nil {
		return nil, 0, false
	}
	if value, due, ok := o.cache.get(id, ref); ok {
		return value, due, true
	}
	row, ok, err := o.store.Get(events.RowKey(id, ref))
	if err != nil {
		o.err = err
		return nil, 0, false
	}
	if ok {
		o.cache.put(id, ref, row.Value, row.Due, true)
	}
	return row.Value, row.Due, ok
}

// Set implements journal.Rows. What is no row of an instance decides nothing.
func (o *overlay) Set(key []byte, due, _ int64, value []byte, base uint64) {
	id, ref, ok := events.ParseRowKey(key)
	if !ok {
		return
	}
	k := rowIDOf(id, ref)
	o.rows[k] = overlayRow{value: value, due: due, seq: base}
	o.touched = append(o.touched, k)
}

// Delete implements journal.Rows.
func (o *overlay) Delete(key []byte, _ int64, seq uint64) {
	id, ref, ok := events.ParseRowKey(key)
	if !ok {
		return
	}
	k := rowIDOf(id, ref)
	o.rows[k] = overlayRow{gone: true, seq: seq}
	o.touched = append(o.touched, k)
}

// DeleteRange implements journal.Rows: the only ranges a record deletes are whole instances.
func (o *overlay) DeleteRange(from, _ []byte) {
	var id events.InstanceID
	copy(id[:], from[1:])
	o.purges = append(o.purges, id)
}

// takeTouched gives what was set and purged since the last call, so that it can be settled when the record
// that did it, of sequence seq, is applied to the store.
func (o *overlay) takeTouched(seq uint64) (keys []rowID, purges []events.InstanceID) {
	keys, purges = o.touched, o.purges
	o.touched, o.purges = make([]rowID, 0, len(keys)), nil
	for _, id := range purges {
		o.purged[id] = seq
	}
	return keys, purges
}

// settle drops what the record of sequence seq set: the store has it now. keep says that its rows will
// probably be asked for soon; otherwise only what the cache holds of them already is kept up to date.
func (o *overlay) settle(seq uint64, keys []rowID, purges []events.InstanceID, keep bool) {
	for _, id := range purges {
		o.cache.drop(id)
		if o.purged[id] <= seq {
			delete(o.purged, id)
		}
	}
	for _, k := range keys {
		r, found := o.rows[k]
		if !found || r.seq > seq {
			continue // set twice by one record, or again by a later one
		}
		delete(o.rows, k)
		if r.gone {
			o.cache.remove(k.id, k.ref())
			continue
		}
		o.cache.put(k.id, k.ref(), r.value, r.due, keep)
	}
}
