package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/skald-io/skald/events"
)

// Changes gathers what many journal records change, each row once, for one Load: a saga rewrites its rows many
// times, and only their last images matter. It copies what it is given. It implements journal.Rows. The zero value
// is ready. It is not safe for concurrent use.
//
// Rows are kept by their instance, so that a record's rows are found together and only instances need sorting.
// Nothing in it that grows with the rows has a pointer, apart from the memory of the values themselves.
type Changes struct {
	at     map[events.InstanceID]uint32 // where in groups
	last   uint32                       // the group asked for last, plus one: a record's rows are of one instance
	groups []group
	rows   [][]change // pages of rowPage
	n      int        // rows used, those dropped included
	values arena
	ranges []keyRange // deleted, before what is in groups
	other  []Op       // of keys that are no instance's
	err    error      // the first change that no journal record can stand for
}

// group is what changes of one instance: its history, which grows at its end, and its other rows.
type group struct {
	id      events.InstanceID
	rows    uint32 // the last one, plus one; its next is the one before
	history uint32 // likewise, the highest first
}

// change is the last image of a row.
type change struct {
	n      uint64
	due    int64
	wasDue int64 // the timer that the store has, if any: as the first change of the row says
	base   uint64
	value  place
	next   uint32 // in its group's list, plus one
	part   events.Part
	gone   bool
}

type keyRange struct{ from, to []byte }

const (
	rowPage   = 1 << 10
	changeLen = 64  // bytes of memory, about
	groupLen  = 112 // with its place in the map
)

func (c *change) ref() events.RowRef { return events.RowRef{Part: c.part, N: c.n} }

// Size is about how much memory the changes take up, in bytes.
func (c *Changes) Size() int {
	return c.values.used + c.n*changeLen + len(c.groups)*groupLen + len(c.ranges)*2*changeLen + len(c.other)*2*changeLen
}

// Reset empties it and keeps its memory.
func (c *Changes) Reset() {
	clear(c.at)
	clear(c.ranges)
	clear(c.other)
	c.groups, c.ranges, c.other = c.groups[:0], c.ranges[:0], c.other[:0]
	c.last, c.n, c.err = 0, 0, nil
	c.values.reset()
}

func (c *Changes) row(i uint32) *change { return &c.rows[i/rowPage][i%rowPage] }

// Set implements journal.Rows.
func (c *Changes) Set(key []byte, due, wasDue int64, value []byte, base uint64) {
	r := c.change(key, due, wasDue)
	if r == nil {
		c.aside(Op{Key: key, Due: due, WasDue: wasDue, Value: value, Base: base})
		return
	}
	r.gone, r.due, r.base = false, due, base
	c.values.put(&r.value, value)
}

// Delete implements journal.Rows.
func (c *Changes) Delete(key []byte, wasDue int64, _ uint64) {
	r := c.change(key, 0, wasDue)
	if r == nil {
		c.aside(Op{Key: key, WasDue: wasDue, Gone: true})
		return
	}
	r.gone, r.due, r.base, r.value.len = true, 0, 0, 0
}

// change gives the row's place, or nil when it is no row of an instance, or due as no row may be.
func (c *Changes) change(key []byte, due, wasDue int64) *change {
	id, ref, ok := events.ParseRowKey(key)
	if !ok || due < 0 {
		return nil
	}
	r, found := c.find(id, ref)
	if !found {
		*r = change{n: ref.N, part: ref.Part, wasDue: wasDue, next: r.next}
	}
	return r
}

// aside keeps an op that is no change of an instance's row.
func (c *Changes) aside(op Op) {
	if err := op.check(); err != nil {
		if c.err == nil {
			c.err = err
		}
		return
	}
	op.Key, op.Value = bytes.Clone(op.Key), bytes.Clone(op.Value)
	c.other = append(c.other, op)
}

// find gives the row's place in its group, a new one if it has none.
func (c *Changes) find(id events.InstanceID, ref events.RowRef) (r *change, found bool) {
	g := c.group(id)
	list := &g.rows
	if ref.Part == events.PartHistory {
		list = &g.history
	}
	for ; *list != 0; list = &r.next {
		r = c.row(*list - 1)
		if r.n == ref.N && r.part == ref.Part {
			return r, true
		}
		if ref.Part == events.PartHistory && r.n < ref.N {
			break
		}
	}
	if c.n/rowPage == len(c.rows) {
		c.rows = append(c.rows, make([]change, rowPage))
	}
	r = c.row(uint32(c.n))
	if ref.Part == events.PartHistory {
		r.next = *list
	} else {
		r.next, list = g.rows, &g.rows // the last ones are asked for again
	}
	c.n++
	*list = uint32(c.n)
	return r, false
}

func (c *Changes) group(id events.InstanceID) *group {
	if c.last != 0 {
		if g := &c.groups[c.last-1]; g.id == id {
			return g
		}
	}
	i, ok := c.at[id]
	if !ok {
		if c.at == nil {
			c.at = map[events.InstanceID]uint32{}
		}
		i = uint32(len(c.groups))
		c.at[id] = i
		c.groups = append(c.groups, group{id: id})
	}
	c.last = i + 1
	return &c.groups[i]
}

// DeleteRange implements journal.Rows.
func (c *Changes) DeleteRange(from, to []byte) {
	c.other = slices.DeleteFunc(c.other, func(op Op) bool { return inRange(op.Key, from, to) })
	c.ranges = append(c.ranges, keyRange{bytes.Clone(from), bytes.Clone(to)})
	if len(from) == 1+len(events.InstanceID{}) {
		id := events.InstanceID(from[1:])
		if f, t := events.InstanceRange(id); bytes.Equal(f, from) && bytes.Equal(t, to) {
			if i, ok := c.at[id]; ok {
				c.groups[i] = group{id: id}
			}
			return
		}
	}
	// No record deletes any other range.
	var key []byte
	for i := range c.groups {
		g := &c.groups[i]
		for _, list := range []*uint32{&g.rows, &g.history} {
			for *list != 0 {
				r := c.row(*list - 1)
				if key = events.AppendRowKey(key[:0], g.id, r.ref()); inRange(key, from, to) {
					*list = r.next
				} else {
					list = &r.next
				}
			}
		}
	}
}

// Batch is the same changes for Apply, with values that alias c.
func (c *Changes) Batch() (*Batch, error) {
	b := &Batch{Ops: make([]Op, 0, len(c.ranges)+c.n+len(c.other))}
	for _, r := range c.ranges {
		b.DeleteRange(r.from, r.to)
	}
	for i := range c.groups {
		g := &c.groups[i]
		for _, list := range [2]uint32{g.rows, g.history} {
			for at := list; at != 0; {
				r := c.row(at - 1)
				b.Ops = append(b.Ops, Op{Key: events.RowKey(g.id, r.ref()), Gone: r.gone, Value: c.values.get(r.value), Due: r.due, WasDue: r.wasDue, Base: r.base})
				at = r.next
			}
		}
	}
	b.Ops = append(b.Ops, c.other...)
	return b, c.err
}

// sorted calls fn for each row in order of its key, and stops at the first error. The key is valid during the call.
func (c *Changes) sorted(fn func(key []byte, r *change) error) error {
	slices.SortFunc(c.groups, func(a, b group) int { return bytes.Compare(a.id[:], b.id[:]) })
	c.last = 0
	clear(c.at) // it names other groups now
	var rows []*change
	key := make([]byte, 0, events.RowKeySize)
	for i := range c.groups {
		g := &c.groups[i]
		rows = rows[:0]
		for _, list := range [2]uint32{g.history, g.rows} {
			for at := list; at != 0; {
				r := c.row(at - 1)
				rows = append(rows, r)
				at = r.next
			}
		}
		slices.Reverse(rows) // as they came, which is nearly their order
		slices.SortFunc(rows, func(a, b *change) int { return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.n, b.n)) })
		for _, r := range rows {
			key = events.AppendRowKey(key[:0], g.id, r.ref())
			if err := fn(key, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// arena is memory for values, in pieces, so that none of it moves.
type arena struct {
	pieces [][]byte
	piece  int // the one that is being filled
	fill   int // bytes of it
	used   int // of all
}

// place is where a value lies.
type place struct{ piece, at, len, cap uint32 }

const pieceLen = 1 << 20

func (a *arena) get(p place) []byte {
	if p.len == 0 {
		return nil
	}
	return a.pieces[p.piece][p.at : p.at+p.len : p.at+p.len]
}

// put replaces the value at p, in place if it fits.
func (a *arena) put(p *place, v []byte) {
	if len(v) > int(p.cap) {
		*p = a.take(len(v))
	}
	p.len = uint32(len(v))
	if p.len > 0 {
		copy(a.pieces[p.piece][p.at:p.at+p.cap], v)
	}
}

func (a *arena) take(n int) place {
	for a.piece < len(a.pieces) && a.fill+n > len(a.pieces[a.piece]) {
		a.piece, a.fill = a.piece+1, 0
	}
	if a.piece == len(a.pieces) {
		a.pieces = append(a.pieces, make([]byte, max(pieceLen, n)))
	}
	p := place{piece: uint32(a.piece), at: uint32(a.fill), cap: uint32(n)}
	a.fill += n
	a.used += n
	return p
}

func (a *arena) reset() {
	// Pieces of their own size are not kept: they were for single huge values.
	a.pieces = slices.DeleteFunc(a.pieces, func(b []byte) bool { return len(b) > pieceLen })
	a.piece, a.fill, a.used = 0, 0, 0
}

// deleted takes what the store has of a deleted range, and gives the timer that goes with it. False: it is a row of
// no instance.
func (c *Changes) deleted(row Row) (timerOf, bool) {
	id, ref, ok := events.ParseRowKey(row.Key)
	if !ok {
		return timerOf{}, false
	}
	if r, found := c.find(id, ref); !found {
		*r = change{n: ref.N, part: ref.Part, gone: true, next: r.next}
	}
	return timerOf{due: row.Due, key: [events.RowKeySize]byte(row.Key)}, true
}

// timerOf is a timer that is set or dropped by a load.
type timerOf struct {
	due int64
	key [events.RowKeySize]byte
	set bool
}

// sortTimers brings timers into the order of their keys. One that is both dropped and set is set.
func sortTimers(timers []timerOf) []timerOf {
	slices.SortFunc(timers, func(a, b timerOf) int {
		c := cmp.Or(cmp.Compare(a.due, b.due), bytes.Compare(a.key[:], b.key[:]))
		if c == 0 && a.set != b.set {
			c = 1
			if a.set {
				c = -1
			}
		}
		return c
	})
	return slices.CompactFunc(timers, func(a, b timerOf) bool { return a.due == b.due && a.key == b.key })
}

func appendImage(dst []byte, r *change, value []byte) []byte {
	dst = binary.AppendUvarint(dst, r.base)
	dst = binary.AppendVarint(dst, r.due)
	return append(dst, value...)
}
