package machine

import "github.com/skald-io/skald/events"

// entity is a set of rows that a decision reads and changes besides its instance's head, data and nodes:
// another entity's (a key's, a correlation's), or the instance's own queue and answers, with w.entity(w.id).
// Each row is read at most once; what was changed is printed by finish, after the nodes.
type entity struct {
	w  *work
	id events.InstanceID
}

// otherRow is such a row: as it was read, or, changed, as it is to be.
type otherRow struct {
	events.RowChange
	changed bool
}

func (w *work) entity(id events.InstanceID) entity { return entity{w, id} }

// row gives a row as this decision leaves it so far; ok is false where there is none. The bytes are not to be changed.
func (e entity) row(ref events.RowRef) (value []byte, due int64, ok bool) {
	c := e.touch(ref)
	return c.Value, c.Due, !c.Gone
}

// set changes a row, whole; value is kept, not copied.
func (e entity) set(ref events.RowRef, due int64, value []byte) {
	c := e.touch(ref)
	c.Due, c.Value, c.Gone, c.changed = due, value, false, true
	e.w.bytes += len(value) + 40
}

// remove removes a row; one that is missing is no error.
func (e entity) remove(ref events.RowRef) {
	c := e.touch(ref)
	c.Due, c.Value, c.Gone, c.changed = 0, nil, true, true
	e.w.bytes += 40
}

// touch is valid until the next call of it.
func (e entity) touch(ref events.RowRef) *otherRow {
	w := e.w
	of := e.id
	if of == w.id {
		of = events.InstanceID{}
	}
	for i := range w.others {
		if c := &w.others[i]; c.Of == of && c.Ref == ref {
			return c
		}
	}
	value, due, ok := w.v.Row(e.id, ref)
	w.others = append(w.others, otherRow{RowChange: events.RowChange{Of: of, Ref: ref, Due: due, WasDue: due, Value: value, Gone: !ok}})
	return &w.others[len(w.others)-1]
}

// send emits a message to another entity, through the inbox of its shard. It sets m.To.
func (w *work) send(to events.InstanceID, m *events.InboxMessage) {
	m.To = to
	payload := m.Encode(nil)
	w.emits = append(w.emits, events.Emit{Kind: events.EmitMessage, To: to, Payload: payload})
	w.bytes += len(payload) + 64
}
