package engine_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/skald-io/skald/orchestrator"
)

const envFullDisk = "SKALD_TEST_FULL_DISK"

// The disk is full from some size of files on. A limit on it counts for the whole process, so that the story
// has one of its own.
func TestAFullDiskStopsTheShardWhichSaysWhyAndComesBack(t *testing.T) {
	if addr := os.Getenv(envFullDisk); addr != "" {
		fullDisk(t, broker{addr})
		return
	}
	onEach(t, func(t *testing.T, b broker) {
		c := exec.Command(os.Args[0], "-test.run", "^TestAFullDiskStopsTheShardWhichSaysWhyAndComesBack$", "-test.count=1", "-test.timeout=90s")
		c.Env = append(os.Environ(), envFullDisk+"="+b.addr)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}

func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = min(bytes, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}

func fullDisk(t *testing.T, b broker) {
	w := newWorld(t, b, 1)
	w.participant(t)
	n := w.start(t, inDir(t.TempDir()), small)
	w.place(t, 0, "first")
	w.completed(t, n, "first")

	limitFiles(t, 256<<10)
	var keys []string
	for i := range 40 {
		keys = append(keys, fmt.Sprintf("order-%d", i))
		w.heavy(t, 0, keys[i])
	}
	until(t, "the shard says why it stopped", func() bool {
		for _, l := range n.log.find("the shard stopped", "code", orchestrator.CodeStoreFailed) {
			if strings.Contains(l.attrs["err"], "file too large") {
				return true
			}
		}
		return false
	})
	if got := n.log.find("discarding the store", "code", orchestrator.CodeStoreFailed); len(got) == 0 {
		t.Error("nobody says that the store is discarded")
	}
	limitFiles(t, 1<<62)
	w.place(t, 0, "last")
	w.completed(t, n, append(keys, "first", "last")...)
	if c, err := n.Verify(bounded(t), 0); err != nil || !c.Equal {
		t.Errorf("the store against a rebuilt one: %+v, %v", c, err)
	}
	n.stop(t)
}
