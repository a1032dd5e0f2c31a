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
	rows   map[string]overlayRow
	purged map[events.InstanceID]uint64 // sequence of the purge
	err    error

	touched []string // keys set since takeTouched
	purges  []events.InstanceID
}

type overlayRow struct {
	value []byte
	due   int64
	seq   uint64 // of the record that sets it
}

func newOverlay(s store.Store) *overlay {
	return &overlay{store: s, rows: map[string]overlayRow{}, purged: map[events.InstanceID]uint64{}}
}

// Row implements machine.View.
func (o *overlay) Row(id events.InstanceID, ref events.RowRef) ([]byte, int64, bool) {
	return o.row(id, events.RowKey(id, ref))
}

func (o *overlay) row(id events.InstanceID, key []byte) ([]byte, int64, bool) {
	r, found := o.rows[string(key)]
	if purge, gone := o.purged[id]; gone && (!found || r.seq < purge) {
		return nil, 0, false
	}
	if found {
		return r.value, r.due, true
	}
	if o.err != nil {
		return nil, 0, false
	}
	row, ok, err := o.store.Get(key)
	if err != nil {
		o.err = err
		return nil, 0, false
	}
	return row.Value, row.Due, ok
}

// Set implements journal.Rows.
func (o *overlay) Set(key []byte, due, _ int64, value []byte, base uint64) {
	k := string(key)
	o.rows[k] = overlayRow{value, due, base}
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
func (o *overlay) takeTouched(seq uint64) (keys []string, purges []events.InstanceID) {
	keys, purges = o.touched, o.purges
	o.touched, o.purges = nil, nil
	for _, id := range purges {
		o.purged[id] = seq
	}
	return keys, purges
}

// settle drops what the record of sequence seq set: the store has it now.
func (o *overlay) settle(seq uint64, keys []string, purges []events.InstanceID) {
	for _, k := range keys {
		if o.rows[k].seq <= seq {
			delete(o.rows, k)
		}
	}
	for _, id := range purges {
		if o.purged[id] <= seq {
			delete(o.purged, id)
		}
	}
}
