package machine

import (
	"bytes"

	"github.com/skald-io/skald/events"
)

// user runs a user function of node n that may read the saga's data, or, in a loop, what the loop made of them;
// changes says that it may change them. It is false when the decision cannot go on.
func (w *work) user(n place, what string, changes bool, fn func(data any) error) bool {
	if w.data == nil && !w.loadData(n) {
		return false
	}
	data := w.data
	if n.Node != nil && n.looped() {
		var ok bool
		if data, ok = w.enter(n); !ok {
			return false
		}
	}
	if t := try(func() error { return fn(data) }); t != "" {
		w.fail(CodeUserFunction, n, what+" of "+w.label(n)+": "+t)
		return false
	}
	if !changes {
		return true
	}
	w.dataDirty = true
	if n.looped() {
		return w.leave(n)
	}
	w.inner = nil
	return true
}

// loadData decodes the saga's data, which only user functions need.
func (w *work) loadData(n place) bool {
	raw, _, ok := w.v.Row(w.id, dataRef)
	if !ok {
		w.corrupt = true
		return false
	}
	var data any
	if t := try(func() error { data = w.plan.NewData(); return w.plan.Decode(raw, data) }); t != "" {
		w.fail(CodeUserFunction, n, "decoding the saga's data: "+t)
		return false
	}
	w.data, w.dataRaw = data, raw
	return true
}

// setData gives a new instance its data.
func (w *work) setData(data any) { w.data, w.dataDirty = data, true }

// printData appends the data's row if its bytes changed.
func (w *work) printData(rows *[]events.RowChange) bool {
	if !w.dataDirty {
		return true
	}
	var raw []byte
	if t := try(func() (err error) { raw, err = w.plan.Encode(w.data); return err }); t != "" {
		w.fail(CodeUserFunction, place{}, "encoding the saga's data: "+t)
		return false
	}
	if w.dataRaw == nil || !bytes.Equal(raw, w.dataRaw) {
		*rows = append(*rows, events.RowChange{Ref: dataRef, Value: raw})
	}
	return true
}
