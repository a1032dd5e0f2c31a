package orchestrator

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What is printed on a page is kept by others: by Kafka until it is acknowledged, by the overlay until it is applied.
func TestWhatIsPrintedOnAPageIsNeverWrittenOver(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var p page
	var got, want [][]byte
	for i := range 2000 {
		size := rng.IntN(900)
		if i%50 == 0 {
			size = rng.IntN(3 * pageSize)
		}
		text := bytes.Repeat([]byte{byte(i)}, size)
		hint := size + rng.IntN(200) - 100 // it may be too low
		b := p.print(max(hint, 0), func(dst []byte) []byte {
			if len(dst) != 0 {
				t.Fatalf("print %d begins behind %d bytes", i, len(dst))
			}
			return append(dst, text...)
		})
		if cap(b) != len(b) {
			t.Fatalf("print %d may be appended to in place", i)
		}
		got, want = append(got, b), append(want, text)
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("print %d was written over", i)
		}
	}
}

func TestAPageIsOneAllocationForAllThatIsPrintedOnIt(t *testing.T) {
	text := make([]byte, pageSize/16)
	if n := testing.AllocsPerRun(50, func() {
		var p page
		for range 16 {
			p.print(len(text), func(dst []byte) []byte { return append(dst, text...) })
		}
	}); n > 1 {
		t.Errorf("%v allocations for 16 prints of a page", n)
	}
}
