package orchestrator

import "testing"

// With cgo the stores' memory lies outside of Go's heap: the two together stay within what was asked for, with an eighth
// left over. Without it, Go's limit is nearly all there is.
func TestTheMemoryLimitIsSharedWithTheStores(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		bytes, cache int64
		cgo          bool
		want         int64
	}{
		{512 * mib, 128 * mib, false, 448 * mib},
		{512 * mib, 128 * mib, true, 256 * mib},
		{128 * mib, 128 * mib, true, 32 * mib}, // too little for both: the limit is soft, and never nothing
	} {
		if got := goLimit(c.bytes, c.cache, c.cgo); got != c.want {
			t.Errorf("of %d MiB, with %d MiB for stores and cgo %v, Go gets %d MiB, not %d", c.bytes/mib, c.cache/mib, c.cgo, got/mib, c.want/mib)
		}
	}
}
