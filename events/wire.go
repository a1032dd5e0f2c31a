package events

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/skald-io/skald/internal/mutant"
)

// The journal's encoding is that of Protocol Buffers, so that journal.proto describes it to any language;
// it is written by hand over protowire because the journal is the hot path and must keep what it does not
// know, byte for byte.

// ErrMalformed says that bytes are not what they claim to be.
var ErrMalformed = errors.New("malformed")

type buffer []byte

// short is the number of a field whose tag takes one byte, and what a length or a value is below that does: of
// nearly every field both do, and they are written in one go.
const short, shortValue = 1 << 4, 1 << 7

func (b *buffer) uint(num protowire.Number, v uint64) {
	switch {
	case v == 0:
	case num < short && v < shortValue:
		*b = append(*b, byte(num)<<3|byte(protowire.VarintType), byte(v))
	default:
		*b = protowire.AppendVarint(protowire.AppendTag(*b, num, protowire.VarintType), v)
	}
}

func (b *buffer) int(num protowire.Number, v int64) { b.uint(num, uint64(v)) }

func (b *buffer) bool(num protowire.Number, v bool) {
	if v {
		b.uint(num, 1)
	}
}

func (b *buffer) bytes(num protowire.Number, v []byte) {
	if len(v) != 0 {
		b.message(num, v)
	}
}

// message writes v even when it is empty: an element of a list, or a presence.
func (b *buffer) message(num protowire.Number, v []byte) {
	*b = append(b.sized(num, len(v)), v...)
}

func (b *buffer) string(num protowire.Number, v string) {
	if v != "" {
		*b = append(b.sized(num, len(v)), v...)
	}
}

// sized appends the tag and the length of a field of n bytes.
func (b *buffer) sized(num protowire.Number, n int) []byte {
	if num < short && n < shortValue {
		return append(*b, byte(num)<<3|byte(protowire.BytesType), byte(n))
	}
	return protowire.AppendVarint(protowire.AppendTag(*b, num, protowire.BytesType), uint64(n))
}

// begin opens a message in place and end closes it: its length is patched in once it is known. What begin
// returns is given to end; in between only that message is written.
func (b *buffer) begin(num protowire.Number) int {
	if num < short {
		*b = append(*b, byte(num)<<3|byte(protowire.BytesType), 0)
	} else {
		*b = append(protowire.AppendTag(*b, num, protowire.BytesType), 0)
	}
	return len(*b)
}

func (b *buffer) end(at int) {
	n := len(*b) - at
	if n < 1<<7 {
		(*b)[at-1] = byte(n)
		return
	}
	extra := protowire.SizeVarint(uint64(n)) - 1
	*b = append(*b, make([]byte, extra)...)
	copy((*b)[at+extra:], (*b)[at:at+n])
	protowire.AppendVarint((*b)[:at-1], uint64(n))
}

// reader walks the fields of a message. After next returns true, num tells the field, and exactly one of
// its other methods takes its value: one of a known type, or keep. The first thing that is wrong ends the
// walk and stands in err. Every value aliases the input, except strings.
type reader struct {
	in      []byte
	from    int // where the field begins, with its tag
	at      int // where the next one does
	num     protowire.Number
	typ     protowire.Type
	u       uint64 // of a varint
	b       []byte // of a length-delimited field
	unknown []byte // what keep kept
	err     error
	kept    *Decoder // whose memory is used again; nil: every list and string is allocated
}

// inner is a reader of the message that the current field holds.
func (f *reader) inner() reader { return reader{in: f.bytes(), kept: f.kept} }

func (f *reader) next() bool {
	if f.err != nil || f.at >= len(f.in) {
		return false
	}
	in := f.in[f.at:]
	if len(in) >= 2 && in[0] >= 1<<3 && in[0] < 0x80 && in[1] < 0x80 { // a tag of one byte, then a value or a length of one
		n := 2
		switch f.num, f.typ = protowire.Number(in[0]>>3), protowire.Type(in[0]&7); f.typ {
		case protowire.VarintType:
			f.u = uint64(in[1])
			f.from, f.at = f.at, f.at+n
			return true
		case protowire.BytesType:
			if n += int(in[1]); n <= len(in) {
				f.b = in[2:n:n]
				f.from, f.at = f.at, f.at+n
				return true
			}
		}
	}
	return f.long(in)
}

// long is next for a field of any shape, which in begins with.
func (f *reader) long(in []byte) bool {
	tag, n := varint(in)
	if n > 0 {
		f.num, f.typ = protowire.DecodeTag(tag)
		if f.num < protowire.MinValidNumber {
			n = -1
		}
	}
	if n <= 0 {
		_, _, n = protowire.ConsumeTag(in)
		f.fail(fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n)))
		return false
	}
	m := 0
	switch f.typ {
	case protowire.VarintType:
		f.u, m = varint(in[n:])
	case protowire.BytesType:
		size, k := varint(in[n:])
		if k > 0 && size <= uint64(len(in)-n-k) {
			m = k + int(size)
			f.b = in[n+k : n+m : n+m]
		}
	default:
		m = protowire.ConsumeFieldValue(f.num, f.typ, in[n:])
	}
	if m <= 0 {
		m = protowire.ConsumeFieldValue(f.num, f.typ, in[n:])
		f.fail(fmt.Errorf("%w: field %d: %w", ErrMalformed, f.num, protowire.ParseError(m)))
		return false
	}
	f.from, f.at = f.at, f.at+n+m
	return true
}

// raw is the whole current field, its tag included.
func (f *reader) raw() []byte { return f.in[f.from:f.at] }

// varint is protowire.ConsumeVarint with the common case of one byte in place.
func varint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return protowire.ConsumeVarint(b)
}

// keep puts a field this build does not know aside, to be written again as it stands, after the known ones.
func (f *reader) keep() {
	if mutant.On("events-unknown-fields-dropped") {
		return
	}
	f.unknown = append(f.unknown, f.raw()...)
}

// count is how many fields of the current number are left, this one included: so that a list is allocated
// once, and never beyond a fixed multiple of its bytes.
func (f *reader) count() int {
	c := 1
	rest := reader{in: f.in[f.at:]}
	for rest.next() {
		if rest.num == f.num {
			c++
		}
	}
	return c
}

// grow appends a zero element to the list of the reader's current field.
func grow[T any](list *[]T, f *reader) *T {
	if *list == nil && f.kept == nil {
		*list = make([]T, 0, f.count())
	}
	var zero T
	*list = append(*list, zero)
	return &(*list)[len(*list)-1]
}

// fresh empties a message to be read into: of a field that stands twice the last counts, and only one costs memory.
func fresh[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	} else {
		var zero T
		**p = zero
	}
	return *p
}

func (f *reader) fail(err error) {
	if err != nil && f.err == nil {
		f.err = err
	}
}

func (f *reader) want(t protowire.Type) bool {
	if f.typ != t {
		f.fail(fmt.Errorf("%w: field %d has wire type %d", ErrMalformed, f.num, f.typ))
	}
	return f.typ == t
}

// number gives a varint of at most max.
func (f *reader) number(max uint64) uint64 {
	if f.typ == protowire.VarintType && f.u <= max {
		return f.u
	}
	if f.want(protowire.VarintType) {
		f.fail(fmt.Errorf("%w: field %d is out of range", ErrMalformed, f.num))
	}
	return 0
}

func (f *reader) uint() uint64   { return f.number(math.MaxUint64) }
func (f *reader) uint32() uint32 { return uint32(f.number(math.MaxUint32)) }
func (f *reader) uint8() uint8   { return uint8(f.number(math.MaxUint8)) }
func (f *reader) int() int64     { return int64(f.uint()) }
func (f *reader) bool() bool     { return f.uint() != 0 }

func (f *reader) string() string {
	if b := f.bytes(); f.kept == nil {
		return string(b)
	} else {
		return f.kept.string(b)
	}
}

func (f *reader) int32() int32 {
	v := f.int()
	if v != int64(int32(v)) {
		f.fail(fmt.Errorf("%w: field %d is out of range", ErrMalformed, f.num))
	}
	return int32(v)
}

// bytes aliases the input; empty bytes are nil.
func (f *reader) bytes() []byte {
	if !f.want(protowire.BytesType) || len(f.b) == 0 {
		return nil
	}
	return f.b
}

func (f *reader) fixed(dst []byte) {
	if b := f.bytes(); len(b) == len(dst) {
		copy(dst, b)
	} else {
		f.fail(fmt.Errorf("%w: field %d has %d bytes, not %d", ErrMalformed, f.num, len(b), len(dst)))
	}
}
