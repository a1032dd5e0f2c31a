package machine

import (
	"bytes"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// user runs a user function of node n that may read the saga's data; changes says that it may change it.
// It is false when the decision cannot go on.
func (w *work) user(n *sagas.Node, what string, changes bool, fn func(data any) error) bool {
	if w.data == nil && !w.loadData(n) {
		return false
	}
	if t := try(func() error { return fn(w.data) }); t != "" {
		w.fail(CodeUserFunction, n, what+" of "+n.Name+": "+t)
		return false
	}
	if changes {
		w.dataDirty = true
	}
	return true
}

// loadData decodes the saga's data, which only user functions need.
func (w *work) loadData(n *sagas.Node) bool {
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
		w.fail(CodeUserFunction, nil, "encoding the saga's data: "+t)
		return false
	}
	if w.dataRaw == nil || !bytes.Equal(raw, w.dataRaw) {
		*rows = append(*rows, events.RowChange{Ref: dataRef, Value: raw})
	}
	return true
}
