package main

import (
	"bytes"

	"github.com/skald-io/skald/events"
)

// twin reads a journal from its first record on, by the rules of the log written down once more (L1, L2), and keeps
// every row for ever. It shares no code with the engine but the format of records.
type twin struct {
	nonce   events.Nonce
	seq     uint64
	hash    events.Hash
	claimed bool
	broken  bool
	rows    map[events.InstanceID]map[events.RowRef]twinRow
	others  map[string]twinRow // of keys that are none of an entity's
}

type twinRow struct {
	value []byte
	due   int64
}

func (r twinRow) is(o twinRow) bool { return r.due == o.due && bytes.Equal(r.value, o.value) }

func newTwin() *twin {
	return &twin{rows: map[events.InstanceID]map[events.RowRef]twinRow{}, others: map[string]twinRow{}}
}

// take reports whether a record counts, and takes its rows if it does.
func (t *twin) take(s *simulation, rec *events.Record, value []byte) bool {
	switch {
	case rec.Kind == events.KindClaim:
		t.nonce, t.claimed, t.broken = rec.Nonce, true, false
		return true
	case !t.claimed || rec.Nonce != t.nonce || t.broken || rec.Seq <= t.seq:
		return false
	case rec.Seq != t.seq+1 || rec.Prev != t.hash:
		t.broken = true
		return false
	}
	t.seq, t.hash = rec.Seq, events.HashOf(value)
	if c := rec.Carry; c != nil {
		for _, r := range c.Rows {
			was, ok := t.row(r.Key)
			if !ok || !was.is(twinRow{r.Value, r.Due}) {
				s.wrong("row %x is carried as %x, due %d, and is %x, due %d", r.Key, r.Value, r.Due, was.value, was.due)
			}
		}
	}
	if d := rec.Decision; d != nil {
		if d.Purge {
			delete(t.rows, d.Instance)
		}
		for i := range d.Entries {
			t.set(d.Instance, events.RowRef{Part: events.PartHistory, N: d.FirstRow + uint64(i)}, twinRow{d.Entries[i].Encode(nil), 0})
		}
		for i := range d.Rows {
			r := &d.Rows[i]
			if r.Gone {
				delete(t.rows[d.Whose(r)], r.Ref)
				continue
			}
			t.set(d.Whose(r), r.Ref, twinRow{r.Value, r.Due})
		}
	}
	return true
}

func (t *twin) set(id events.InstanceID, ref events.RowRef, row twinRow) {
	if t.rows[id] == nil {
		t.rows[id] = map[events.RowRef]twinRow{}
	}
	t.rows[id][ref] = row
}

func (t *twin) row(key []byte) (row twinRow, ok bool) {
	id, ref, isRow := events.ParseRowKey(key)
	if !isRow {
		row, ok = t.others[string(key)]
		return row, ok
	}
	row, ok = t.rows[id][ref]
	return row, ok
}

func (t *twin) size() (n int) {
	for _, rows := range t.rows {
		n += len(rows)
	}
	return n + len(t.others)
}
