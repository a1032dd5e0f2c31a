package events

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The journal's encoding is that of Protocol Buffers, so that journal.proto describes it to any language;
// it is written by hand over protowire because the journal is the hot path and must keep what it does not
// know, byte for byte.

// ErrMalformed says that bytes are not what they claim to be.
var ErrMalformed = errors.New("malformed")

type buffer []byte

func (b *buffer) uint(num protowire.Number, v uint64) {
	if v != 0 {
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
	*b = protowire.AppendBytes(protowire.AppendTag(*b, num, protowire.BytesType), v)
}

func (b *buffer) string(num protowire.Number, v string) {
	if v != "" {
		*b = protowire.AppendString(protowire.AppendTag(*b, num, protowire.BytesType), v)
	}
}

// nested writes a message in place: its length is patched in once it is known.
func (b *buffer) nested(num protowire.Number, fn func(*buffer)) {
	*b = protowire.AppendTag(*b, num, protowire.BytesType)
	at := len(*b)
	*b = append(*b, 0)
	fn(b)
	n := len(*b) - at - 1
	if extra := protowire.SizeVarint(uint64(n)) - 1; extra > 0 {
		*b = append(*b, make([]byte, extra)...)
		copy((*b)[at+1+extra:], (*b)[at+1:at+1+n])
	}
	protowire.AppendVarint((*b)[:at], uint64(n))
}

// field is one field of a message: a number or bytes, by its wire type.
type field struct {
	num protowire.Number
	typ protowire.Type
	u   uint64
	b   []byte
	bad *error
}

func (f field) want(t protowire.Type) bool {
	if f.typ != t {
		*f.bad = fmt.Errorf("%w: field %d has wire type %d", ErrMalformed, f.num, f.typ)
	}
	return f.typ == t
}

func (f field) uint() uint64 {
	if !f.want(protowire.VarintType) {
		return 0
	}
	return f.u
}

func (f field) uint32() uint32 {
	v := f.uint()
	if v > 1<<32-1 {
		*f.bad = fmt.Errorf("%w: field %d is out of range", ErrMalformed, f.num)
	}
	return uint32(v)
}

func (f field) uint8() uint8 {
	v := f.uint()
	if v > 255 {
		*f.bad = fmt.Errorf("%w: field %d is out of range", ErrMalformed, f.num)
	}
	return uint8(v)
}

func (f field) int() int64     { return int64(f.uint()) }
func (f field) bool() bool     { return f.uint() != 0 }
func (f field) string() string { return string(f.bytes()) }

func (f field) int32() int32 {
	v := f.int()
	if v != int64(int32(v)) {
		*f.bad = fmt.Errorf("%w: field %d is out of range", ErrMalformed, f.num)
	}
	return int32(v)
}

// bytes aliases the input; empty bytes are nil.
func (f field) bytes() []byte {
	if !f.want(protowire.BytesType) || len(f.b) == 0 {
		return nil
	}
	return f.b
}

func (f field) fixed(dst []byte) {
	if b := f.bytes(); len(b) == len(dst) {
		copy(dst, b)
	} else if *f.bad == nil {
		*f.bad = fmt.Errorf("%w: field %d has %d bytes, not %d", ErrMalformed, f.num, len(b), len(dst))
	}
}

func (f field) fail(err error) {
	if err != nil && *f.bad == nil {
		*f.bad = err
	}
}

// fields walks the fields of a message. Those fn does not know (it returns false) come back as they
// stood, to be written again after the known ones.
func fields(b []byte, fn func(field) bool) (unknown []byte, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		f := field{num: num, typ: typ, bad: &err}
		var m int
		switch typ {
		case protowire.VarintType:
			f.u, m = protowire.ConsumeVarint(b[n:])
		case protowire.BytesType:
			f.b, m = protowire.ConsumeBytes(b[n:])
		default:
			m = protowire.ConsumeFieldValue(num, typ, b[n:])
		}
		if m < 0 {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(m))
		}
		if !fn(f) {
			unknown = append(unknown, b[:n+m]...)
		}
		if err != nil {
			return nil, err
		}
		b = b[n+m:]
	}
	return unknown, nil
}
