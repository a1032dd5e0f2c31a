package store

import (
	"context"
	"errors"
	"io/fs"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// Many changes are written as a table of their own, sorted, which Pebble takes in whole: neither its log nor its
// memtable sees them, and nothing is to be flushed. The state row is in that table, so that it changes with the rows;
// and the table is synced, and taken in by one edit of the manifest.

// minLoad is how many bytes of changes are worth a table of their own.
const minLoad = 1 << 20

const loadName = "load" // within the store's directory; Pebble knows no such file

// Load is Store's. After an error the store is as after one of Apply.
func (p *Pebble) Load(c *Changes, state []byte) error {
	if c.err != nil {
		return c.err
	}
	if c.Size() < p.minLoad || len(c.other) > 0 {
		return p.applyChanges(c, state)
	}
	whole := true
	err := p.do("load", func() error {
		timers, ok, err := p.deletedRows(c)
		if err != nil || !ok {
			whole = ok
			return err
		}
		// What is in memory is older, and may not be on disk when the table is.
		if p.unflushed && !mutant.On("store-load-before-flush") {
			if err := p.db.Flush(); err != nil {
				return err
			}
			p.unflushed = false
		}
		name := p.fs.PathJoin(p.dir, loadName)
		earliest, err := p.writeTable(name, c, timers, state)
		if err != nil {
			return errors.Join(err, p.fs.Remove(name))
		}
		p.lowerHint(earliest)
		defer p.lowerHint(earliest)
		p.loading.Store(true)
		return p.db.Ingest(context.Background(), []string{name})
	})
	if !whole {
		return p.applyChanges(c, state)
	}
	return err
}

func (p *Pebble) applyChanges(c *Changes, state []byte) error {
	b, err := c.Batch()
	if err != nil {
		return err
	}
	b.State = state
	return p.Apply(b)
}

// deletedRows makes changes of the rows that the store has in the ranges that c deletes, and gives their timers. False: some
// are no rows of instances.
func (p *Pebble) deletedRows(c *Changes) (timers []timerOf, ok bool, err error) {
	ok = true
	for _, r := range c.ranges {
		if mutant.On("store-load-keeps-purged") {
			break
		}
		err := scan(p.db, r.from, r.to, func(row Row) bool {
			var t timerOf
			if t, ok = c.deleted(row); ok && t.due != 0 {
				timers = append(timers, t)
			}
			return ok
		})
		if err != nil || !ok {
			return nil, ok, err
		}
	}
	return timers, true, nil
}

// writeTable writes changes, timers that are dropped, and the state, and gives the earliest timer that is set.
func (p *Pebble) writeTable(name string, c *Changes, timers []timerOf, state []byte) (earliest int64, err error) {
	file, err := p.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(file), p.tableOptions)
	defer func() { err = errors.Join(err, w.Close()) }()

	// Of what an empty store has not, nothing need be deleted.
	empty, err := p.hasNoRows()
	if err != nil {
		return 0, err
	}
	earliest = math.MaxInt64
	var value []byte
	err = c.sorted(func(key []byte, r *change) error {
		if r.wasDue > 0 && (r.gone || r.wasDue != r.due) && !empty && !mutant.On("store-load-timer-kept") {
			timers = append(timers, timerOf{due: r.wasDue, key: [events.RowKeySize]byte(key)})
		}
		if r.gone {
			if empty {
				return nil
			}
			return w.Delete(key)
		}
		if r.due != 0 {
			timers = append(timers, timerOf{due: r.due, key: [events.RowKeySize]byte(key), set: true})
			earliest = min(earliest, r.due)
		}
		value = appendImage(value[:0], r, c.values.get(r.value))
		return w.Set(key, value)
	})
	if err != nil {
		return 0, err
	}
	if state != nil && !mutant.On("store-load-without-state") {
		if err := w.Set(stateKey, state); err != nil {
			return 0, err
		}
	}
	var key []byte
	for _, t := range sortTimers(timers) {
		key = appendTimerKey(key[:0], t.due, t.key[:])
		if t.set {
			err = w.Set(key, nil)
		} else {
			err = w.Delete(key)
		}
		if err != nil {
			return 0, err
		}
	}
	return earliest, nil
}

// hasNoRows reports whether there is neither row nor timer.
func (p *Pebble) hasNoRows() (bool, error) {
	it, err := p.db.NewIter(nil)
	if err != nil {
		return false, err
	}
	ok := it.First()
	for ok && it.Key()[0] == events.FamilyState {
		ok = it.Next()
	}
	return !ok, errors.Join(it.Error(), it.Close())
}

// removeLoad removes a table that was not taken in, because the process died.
func (p *Pebble) removeLoad(on vfs.FS) error {
	if err := on.Remove(on.PathJoin(p.dir, loadName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func tableOptions(o *pebble.Options, db *pebble.DB) sstable.WriterOptions {
	o = o.Clone()
	o.EnsureDefaults()
	return o.MakeWriterOptions(0, db.TableFormat())
}
