package orchestrator

import "slices"

// page is a buffer that many small things are printed into, one after the other: one allocation for all of them,
// without a gap between them. Each is kept as long as the last of its page is.
type page struct{ free []byte }

const pageSize = 16 << 10

// print gives what print appends, about size bytes of it. What is large has a buffer of its own.
func (p *page) print(size int, print func(dst []byte) []byte) []byte {
	if size > pageSize/4 {
		return slices.Clip(print(make([]byte, 0, size)))
	}
	if cap(p.free) < size {
		p.free = make([]byte, 0, pageSize)
	}
	b := print(p.free)
	if len(b) <= cap(p.free) {
		p.free = p.free[len(b):len(b)]
	}
	return b[:len(b):len(b)]
}
