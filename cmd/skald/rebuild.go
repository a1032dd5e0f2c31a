package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
)

var rebuildCommand = command{
	name:    "rebuild",
	args:    "--check --dir DIR [--app NAME] [--brokers ADDR] [-o json]",
	summary: "hold a node's stores against ones rebuilt from Kafka",
	about: `Takes a copy of each store in a node's folder, which may be at work, rebuilds the same shard from its journal
up to the position that the copy has reached, and compares every logical row. It changes nothing. Stores that
really must be rebuilt need no command: delete them, and the node rebuilds them when it starts.

Needs space for a copy and a rebuilt store of one shard at a time, in $TMPDIR. Exit code 1 when a row differs, or a shard could not be compared.`,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		c := connectionFlags(f)
		check := f.Bool("check", false, "compare; there is nothing else to do yet")
		dir := f.String("dir", "", "the node's folder: Config.Dir, or --dir of dev `DIR`")
		out := outputFlag(f)
		return func(ctx context.Context, e *env) error {
			if !*check || *dir == "" {
				return usagef("--check and --dir are needed")
			}
			client, err := c.dial(e)
			if err != nil {
				return err
			}
			defer client.Close()
			parts, err := journalPartitions(ctx, client, c.app, -1)
			if err != nil {
				return err
			}
			return checkStores(ctx, newScreen(e), client, events.Topics{App: c.app}.Journal(), parts, *dir, *out == "json")
		}
	},
}

// checkView is the outcome for one shard as `-o json` prints it.
type checkView struct {
	Shard      int32            `json:"shard"`
	Equal      bool             `json:"equal"`
	Rows       int              `json:"rows"`           // of the live store
	Seq        uint64           `json:"seq"`            // of the journal record that both stores end with
	Offset     int64            `json:"offset"`         // its place
	Hash       string           `json:"hash,omitempty"` // of the record
	Different  int              `json:"different"`      // rows
	First      []differenceView `json:"first,omitempty"`
	NotChecked string           `json:"not_checked,omitempty"` // why
}

type differenceView struct {
	Row     string `json:"row"`
	Live    string `json:"live"` // missing, or its due time and value as hexadecimal digits
	Rebuilt string `json:"rebuilt"`
}

const maxDifferences = 10

func checkStores(ctx context.Context, s *screen, k orchestrator.Kafka, topic string, parts []int32, dir string, asJSON bool) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	var wrong, checked int
	for _, p := range parts {
		live := filepath.Join(dir, fmt.Sprintf("shard-%04d", p))
		if _, err := os.Stat(live); errors.Is(err, fs.ErrNotExist) {
			continue // another node's
		}
		v, err := checkStore(ctx, k.Log(topic, p), live)
		v.Shard = p
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.NotChecked = err.Error()
		}
		checked++
		if !v.Equal {
			wrong++
		}
		if asJSON {
			s.Object(v)
			continue
		}
		s.Result(v.line())
		for _, d := range v.First {
			s.Result(sanitize(fmt.Sprintf("  %s: live %s, rebuilt %s", d.Row, d.Live, d.Rebuilt), 400))
		}
	}
	switch {
	case checked == 0:
		return fmt.Errorf("%s has no store of any of the %d shards of %s", dir, len(parts), topic)
	case wrong > 0:
		return fmt.Errorf("%d of %d stores are not what Kafka holds, or could not be compared", wrong, checked)
	}
	return nil
}

func (v *checkView) line() string {
	switch {
	case v.NotChecked != "":
		return fmt.Sprintf("shard %d: not compared: %s", v.Shard, lines(v.NotChecked))
	case v.Equal:
		return fmt.Sprintf("shard %d: %d rows are equal at seq %d, offset %d, record %s", v.Shard, v.Rows, v.Seq, v.Offset, v.Hash)
	}
	return fmt.Sprintf("shard %d: %d of %d rows differ at seq %d, offset %d, record %s", v.Shard, v.Different, v.Rows, v.Seq, v.Offset, v.Hash)
}

// errMoved says that the store or the journal changed in a way that a comparison cannot bridge; a new copy may.
var errMoved = errors.New("moved meanwhile")

// checkStore compares a store with the journal. It closes log.
func checkStore(ctx context.Context, log orchestrator.Log, live string) (v checkView, err error) {
	defer log.Close()
	for range 10 {
		v, err = checkOnce(ctx, log, live)
		if !errors.Is(err, errMoved) {
			break
		}
	}
	return v, err
}

func checkOnce(ctx context.Context, log orchestrator.Log, live string) (v checkView, err error) {
	before, err := log.Bounds(ctx)
	if err != nil {
		return v, err
	}
	tmp, err := os.MkdirTemp("", "skald-check-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(tmp)
	if err := copyStore(live, filepath.Join(tmp, "copy")); err != nil {
		return v, err
	}
	is, err := store.OpenPebble(filepath.Join(tmp, "copy"), store.Options{})
	if err != nil {
		return v, fmt.Errorf("the copy of %s: %w", live, err)
	}
	defer is.Close()
	row, err := is.State()
	if err != nil {
		return v, err
	}
	if row == nil {
		return v, errors.New("the store is empty: its shard was never opened to the end")
	}
	at, err := journal.DecodeState(row)
	if err != nil {
		return v, err
	}
	v.Seq, v.Offset, v.Hash = at.Seq, at.At, at.Hash.String()
	if id, err := log.TopicID(ctx); err != nil {
		return v, err
	} else if id != at.TopicID {
		return v, errors.New("the store was written from another topic of that name; the node discards it when it starts")
	}

	should, err := store.OpenPebble(filepath.Join(tmp, "rebuilt"), store.Options{})
	if err != nil {
		return v, err
	}
	defer should.Close()
	state, err := rebuild(ctx, log, should, at.Next)
	if err != nil {
		return v, err
	}
	// A round of compaction that ended in between has dropped what a reader needs to stop this early.
	if after, err := log.Bounds(ctx); err != nil {
		return v, err
	} else if after.Start != before.Start {
		return v, fmt.Errorf("the journal was trimmed: %w", errMoved)
	}
	if state.Seq != at.Seq || state.Hash != at.Hash {
		return v, fmt.Errorf("the journal has another record there: seq %d, %s; the node discards the store when it starts", state.Seq, state.Hash)
	}
	if err := compareRows(is, should, &v); err != nil {
		return v, err
	}
	v.Equal = v.Different == 0
	return v, nil
}

// rebuild folds the journal below the offset end into an empty store.
func rebuild(ctx context.Context, log orchestrator.Log, into store.Store, end int64) (*journal.State, error) {
	state := journal.NewState()
	var batch store.Batch
	size := 0
	apply := func() error {
		batch.State = state.Encode()
		err := into.Apply(&batch)
		batch.Reset()
		size = 0
		return err
	}
	enough := errors.New("enough")
	first := true
	_, err := log.Read(ctx, 0, func(r orchestrator.LogRecord) error {
		if r.Offset >= end {
			return enough
		}
		_, _, err := state.Fold(r.Offset, first, r.Value, &batch)
		first = false
		if err != nil {
			return fmt.Errorf("journal offset %d: %w", r.Offset, err)
		}
		if size += len(r.Value); size < 1<<20 {
			return nil
		}
		return apply()
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, err
	}
	if state.Next != end {
		return nil, fmt.Errorf("the journal ends at %d, and the store is at %d: %w", state.Next, end, errMoved)
	}
	return state, apply()
}

// compareRows walks both stores side by side.
func compareRows(is, should store.Store, v *checkView) error {
	next := rowsOf(should)
	rebuilt, more, err := next()
	if err != nil {
		return err
	}
	differ := func(key []byte, live, rebuilt *store.Row) {
		if v.Different++; len(v.First) < maxDifferences {
			v.First = append(v.First, differenceView{keyName(key), rowText(live), rowText(rebuilt)})
		}
	}
	var failed error
	err = is.Scan(nil, nil, func(live store.Row) bool {
		v.Rows++
		for more && bytes.Compare(rebuilt.Key, live.Key) < 0 {
			differ(rebuilt.Key, nil, &rebuilt)
			if rebuilt, more, failed = next(); failed != nil {
				return false
			}
		}
		if !more || !bytes.Equal(rebuilt.Key, live.Key) {
			differ(live.Key, &live, nil)
			return true
		}
		if rebuilt.Due != live.Due || !bytes.Equal(rebuilt.Value, live.Value) {
			differ(live.Key, &live, &rebuilt)
		}
		rebuilt, more, failed = next()
		return failed == nil
	})
	for ; err == nil && failed == nil && more; rebuilt, more, failed = next() {
		differ(rebuilt.Key, nil, &rebuilt)
	}
	return errors.Join(err, failed)
}

// rowsOf reads a store's rows in chunks, so that two stores can be walked in step.
func rowsOf(s store.Store) (next func() (row store.Row, ok bool, err error)) {
	const chunk = 1024
	var rows []store.Row
	var from []byte
	end := false
	return func() (store.Row, bool, error) {
		if len(rows) == 0 && !end {
			err := s.Scan(from, nil, func(r store.Row) bool {
				r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
				rows = append(rows, r)
				return len(rows) < chunk
			})
			if err != nil {
				return store.Row{}, false, err
			}
			if end = len(rows) < chunk; !end {
				from = append(bytes.Clone(rows[len(rows)-1].Key), 0)
			}
		}
		if len(rows) == 0 {
			return store.Row{}, false, nil
		}
		r := rows[0]
		rows = rows[1:]
		return r, true, nil
	}
}

func keyName(key []byte) string {
	if id, ref, ok := events.ParseRowKey(key); ok {
		return id.String() + " " + rowName(ref)
	}
	return hex.EncodeToString(key)
}

func rowText(r *store.Row) string {
	if r == nil {
		return "missing"
	}
	text := hex.EncodeToString(r.Value[:min(len(r.Value), 64)])
	if len(r.Value) > 64 {
		text += "…"
	}
	if r.Due != 0 {
		text = "due " + events.Timestamp(r.Due) + " " + text
	}
	return text
}

// copyStore copies the files of a Pebble store that may be at work, so that the copy is the store as a crash
// would have left it at some moment. Pebble's tables never change; its manifest and its logs only grow.
//
//   - The manifest comes first, and must be as long when all is copied: then no table was added or dropped, and
//     no log became obsolete, on the way.
//   - Logs are copied from the newest back: a log that has a successor is complete.
func copyStore(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	manifests, err := sizes(from)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	var tables, logs, others []string
	for _, n := range names {
		switch name := n.Name(); {
		case n.IsDir(), name == "LOCK":
		case strings.HasSuffix(name, ".sst"), strings.HasSuffix(name, ".blob"):
			tables = append(tables, name)
		case strings.HasSuffix(name, ".log"):
			logs = append(logs, name)
		default:
			others = append(others, name)
		}
	}
	slices.Sort(logs) // they begin with their number, padded
	slices.Reverse(logs)
	for _, name := range slices.Concat(others, tables, logs) {
		table := slices.Contains(tables, name)
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name), table); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", name, errMoved)
		} else if err != nil {
			return err
		}
	}
	after, err := sizes(from)
	if err != nil {
		return err
	}
	if !slices.Equal(manifests, after) {
		return fmt.Errorf("the store's manifest: %w", errMoved)
	}
	return nil
}

// sizes lists the manifests, and what points to the current one, with their lengths.
func sizes(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.") {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, fmt.Sprintf("%s %d", name, info.Size()))
		}
	}
	return out, nil
}

// copyFile copies a file, or links it when it never changes and the file system allows it.
func copyFile(from, to string, link bool) error {
	if link && os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
