package orchestrator

import (
	"os"
	"runtime/debug"
)

// DefaultMemory is what a process that runs an engine with the default Config.CacheBytes and a handful of
// shards fits into: 512 MiB.
const DefaultMemory = 512 << 20

// gcPercent lets the heap grow to five times what is live before it is collected: the engine's live heap is
// small and its garbage plentiful, and collecting at twice costs a sixth of its processor time.
const gcPercent = 400

// LimitMemory sets how Go's garbage collector of this process trades memory for time: seldom collections
// while the process is small, more of them as it approaches bytes. The limit is soft: a process that needs
// more gets more, and pays with processor time. cacheBytes is Config.CacheBytes, 0 for its default: a binary built
// with cgo keeps those outside of Go's heap, so they are taken off.
//
// It is for the program's main, before the engine starts: an engine does not set what belongs to the whole
// process. The variables GOGC and GOMEMLIMIT, where they are set, win. A binary built with cgo ought to run with
// MALLOC_ARENA_MAX=1 and MALLOC_MMAP_THRESHOLD_=16384: left to itself, glibc keeps a multiple of what Pebble gave back.
func LimitMemory(bytes, cacheBytes int64) {
	if cacheBytes == 0 {
		cacheBytes = defaultCache
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(goLimit(bytes, cacheBytes, cgo))
	}
}

// goLimit leaves an eighth to what Go's limit does not count: code, stacks of threads, and, with cgo, what the C
// allocator cannot give back.
func goLimit(bytes, cacheBytes int64, cgo bool) int64 {
	n := bytes - bytes/8
	if cgo {
		n -= cacheBytes + cacheBytes/2
	}
	return max(n, bytes/4)
}
