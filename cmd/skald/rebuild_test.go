package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skald-io/skald/orchestrator/store"
)

func TestStoresAreHeldAgainstKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	addr, dir := startDev(t), t.TempDir()
	e, _, stderr := testEnv()
	if code := run(t.Context(), e, []string{"dev", "--demo", "--brokers", addr, "--dir", dir, "--shards", "2", "--orders", "12", "--once", "--rate", "200", "--calm"}); code != exitOK {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	check := func() (code int, views []checkView, stderr string) {
		e, stdout, errs := testEnv()
		code = run(t.Context(), e, []string{"rebuild", "--check", "--brokers", addr, "--dir", dir, "-o", "json"})
		for line := range strings.Lines(stdout.String()) {
			var v checkView
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatal(err)
			}
			views = append(views, v)
		}
		return code, views, errs.String()
	}
	code, views, text := check()
	if code != exitOK || len(views) != 2 {
		t.Fatalf("exit %d, %+v\n%s", code, views, text)
	}
	for _, v := range views {
		if !v.Equal || v.Rows == 0 || v.Seq == 0 || v.Hash == "" {
			t.Errorf("%+v", v)
		}
	}

	// One row is changed, one removed, one added.
	live, err := store.OpenPebble(filepath.Join(dir, "shard-0001"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var rows []store.Row
	live.Scan(nil, nil, func(r store.Row) bool {
		rows = append(rows, store.Row{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Due: r.Due})
		return len(rows) < 8
	})
	var b store.Batch
	b.Set(rows[2].Key, rows[2].Due, rows[2].Due, append(rows[2].Value, 1), 1)
	b.DeleteRange(rows[4].Key, append(bytes.Clone(rows[4].Key), 0))
	b.Set(append(bytes.Clone(rows[6].Key), 'x'), 0, 0, []byte("new"), 1)
	if err := live.Apply(&b); err != nil {
		t.Fatal(err)
	}
	if err := live.Close(); err != nil {
		t.Fatal(err)
	}
	code, views, text = check()
	if code != exitFailed || !views[0].Equal || views[1].Equal || views[1].Different != 3 || len(views[1].First) != 3 {
		t.Errorf("exit %d, %+v\n%s", code, views, text)
	}
	for i, want := range []string{"", "missing", ""} {
		if d := views[1].First[i]; (want != "") != (d.Live == want) || (i == 2) != (d.Rebuilt == "missing") {
			t.Errorf("difference %d: %+v", i, d)
		}
	}
}

func TestAStoreIsCopiedWhileItWorks(t *testing.T) {
	dir := t.TempDir()
	live, err := store.OpenPebble(filepath.Join(dir, "live"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	var b store.Batch
	for i := range 100 {
		b.Set([]byte{'i', byte(i)}, 0, 0, []byte("v"), uint64(i))
		b.State = []byte{byte(i + 1)}
		if err := live.Apply(&b); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if i%25 != 24 {
			continue
		}
		to := filepath.Join(dir, "copy", string(rune('a'+i)))
		if err := copyStore(filepath.Join(dir, "live"), to); err != nil {
			t.Fatal(err)
		}
		c, err := store.OpenPebble(to, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		// A prefix: as many rows as the state says, and no more.
		state, err := c.State()
		rows, _, herr := store.Hash(c)
		if err != nil || herr != nil || (len(state) == 1 && int(state[0]) != rows) || (len(state) == 0 && rows != 0) {
			t.Errorf("after %d batches the copy has state %v and %d rows (%v, %v)", i+1, state, rows, err, herr)
		}
		c.Close()
	}
}

func TestWhatCannotBeCheckedIsSaid(t *testing.T) {
	addr := startDev(t)
	for args, want := range map[string]string{
		"rebuild":         "--check and --dir are needed",
		"rebuild --check": "--check and --dir are needed",
		"rebuild --check --dir " + t.TempDir() + " --brokers " + addr: "topic skald-demo.journal does not exist",
	} {
		e, _, stderr := testEnv()
		if code := run(t.Context(), e, strings.Fields(args)); code == exitOK || !strings.Contains(stderr.String(), want) {
			t.Errorf("skald %s: exit %d, %s", args, code, stderr)
		}
	}
	e, _, stderr := testEnv()
	if code := run(t.Context(), e, []string{"topics", "apply", "--brokers", addr, "--partitions", "1", "--replication", "1"}); code != exitOK {
		t.Fatal(stderr)
	}
	e, _, stderr = testEnv()
	if code := run(t.Context(), e, []string{"rebuild", "--check", "--brokers", addr, "--dir", t.TempDir()}); code != exitFailed || !strings.Contains(stderr.String(), "has no store of any of the 1 shards") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if _, err := os.Stat("shard-0000"); err == nil {
		t.Error("a store was made in the working folder")
	}
}
