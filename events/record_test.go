package events

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestARecordOfANewerFormatIsRefusedAsSuch(t *testing.T) {
	for _, sample := range samples() {
		r, ok := sample.(*Record)
		if !ok {
			continue
		}
		b := r.Encode(nil)
		if b[0] != r.Format {
			t.Fatalf("the first byte is %d", b[0])
		}
		for _, format := range []byte{Format + 1, 255} {
			b[0] = format
			if _, err := DecodeRecord(b); !errors.Is(err, ErrNewerFormat) || errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), fmt.Sprint(format)) {
				t.Errorf("format %d: %v", format, err)
			} else if r.Claim != nil && !strings.Contains(err.Error(), r.Claim.Build) || r.Checkpoint != nil && !strings.Contains(err.Error(), r.Checkpoint.Claim.Build) {
				t.Errorf("format %d: the build that wrote it is not named: %v", format, err)
			}
		}
		b[0] = 0
		if _, err := DecodeRecord(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("format 0: %v", err)
		}
	}
	if _, err := DecodeRecord([]byte{Format + 1}); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("nothing but a newer format: %v", err)
	}
}

func TestDamagedRecordsAreMalformed(t *testing.T) {
	uintField := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	bytesField := func(num protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), v)
	}
	record := func(parts ...[]byte) []byte { return append([]byte{Format}, bytes.Join(parts, nil)...) }
	claim, decision := uintField(1, uint64(KindClaim)), uintField(1, uint64(KindDecision))
	position := func(parts ...[]byte) []byte {
		return record(decision, bytesField(8, bytesField(10, bytesField(1, bytes.Join(parts, nil)))))
	}
	for why, b := range map[string][]byte{
		"empty":                         nil,
		"format alone":                  record(),
		"no kind":                       record(bytesField(7, nil)),
		"an unknown kind":               record(uintField(1, 5), bytesField(7, nil)),
		"no body":                       record(claim),
		"another kind's body":           record(claim, bytesField(8, nil)),
		"two bodies":                    record(claim, bytesField(7, nil), bytesField(8, nil)),
		"a kind beyond a byte":          record(uintField(1, 257), bytesField(7, nil)),
		"a kind as bytes":               record(bytesField(1, []byte{1}), bytesField(7, nil)),
		"a body as a number":            record(claim, uintField(7, 1)),
		"a short nonce":                 record(claim, bytesField(2, make([]byte, 15)), bytesField(7, nil)),
		"a long nonce":                  record(claim, bytesField(2, make([]byte, 17)), bytesField(7, nil)),
		"an empty hash":                 record(claim, bytesField(5, nil), bytesField(7, nil)),
		"a field 0":                     record(claim, []byte{0, 0}, bytesField(7, nil)),
		"half a tag":                    record(claim, bytesField(7, nil), []byte{0x80}),
		"a length beyond the end":       record(claim, []byte{7<<3 | 2, 2, 0}),
		"a length beyond 2^63":          record(claim, []byte{7<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}),
		"an endless number":             record(claim, bytesField(7, nil), append([]byte{3 << 3}, bytes.Repeat([]byte{0xff}, 11)...)),
		"an open group":                 record(claim, bytesField(7, nil), []byte{100<<3&0x7f | 0x80 | 3, 6}),
		"many open groups":              record(claim, bytesField(7, nil), bytes.Repeat([]byte{0xa3, 6}, 1<<16)),
		"an end of no group":            record(claim, bytesField(7, nil), []byte{0xa4, 6}),
		"a wire type 7":                 record(claim, bytesField(7, nil), []byte{0xa7, 6}),
		"shards beyond 32 bits":         record(claim, bytesField(7, uintField(3, 1<<32))),
		"a generation beyond 32 bits":   record(claim, bytesField(7, uintField(2, 1<<31))),
		"an instance of 15 bytes":       record(decision, bytesField(8, bytesField(4, make([]byte, 15)))),
		"an entry that is none":         record(decision, bytesField(8, bytesField(5, []byte{0xff}))),
		"a row that is none":            record(decision, bytesField(8, bytesField(7, []byte{0xff}))),
		"a range that ends nowhere":     position(bytesField(5, []byte{1})),
		"an empty range":                position(bytesField(5, []byte{1, 0})),
		"a range beyond all offsets":    position(uintField(4, 1<<63-1), bytesField(5, []byte{1, 1})),
		"a range backwards":             position(bytesField(5, append(protowire.AppendVarint(nil, 1<<63), 1))),
		"a range longer than it can be": position(bytesField(5, protowire.AppendVarint([]byte{1}, 1<<63))),
	} {
		if r, err := DecodeRecord(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("a record with %s is taken: %+v (%v)", why, r, err)
		}
	}
}

func TestARecordCutAnywhereIsMalformed(t *testing.T) {
	for name, sample := range samples() {
		if _, ok := sample.(*Record); !ok {
			continue
		}
		b := sample.Encode(nil)
		for n := range b {
			if _, err := DecodeRecord(b[:n:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %d of %d bytes are taken (%v)", name, n, len(b), err)
			}
		}
	}
}

func TestAFieldThatStandsTwiceCountsAsItsLast(t *testing.T) {
	head := append(sampleHead().Encode(nil), (&Head{Key: "order-8"}).Encode(nil)...)
	if h, err := DecodeHead(head); err != nil || h.Key != "order-8" || h.Definition != "place-order" {
		t.Errorf("%+v (%v)", h, err)
	}
	var d buffer
	for _, in := range []Input{{Kind: InputTimer, Due: 5}, {Kind: InputEvent, Topic: "orders"}} {
		at := d.begin(3)
		in.encode(&d)
		d.end(at)
	}
	var got Decision
	if err := got.decode(reader{in: d}); err != nil || got.Input.Due != 0 || got.Input.Topic != "orders" {
		t.Errorf("inputs are mixed: %+v (%v)", got.Input, err)
	}
}

func TestAnInputOfNoKindKeepsWhatItHas(t *testing.T) {
	for _, in := range []Input{{Topic: "orders"}, {Offset: 1}, {Origin: &Origin{}}, {Row: RowRef{PartNode, 0}}, {Unknown: []byte{0xa0, 6, 1}}} {
		r := &Record{Kind: KindDecision, Decision: &Decision{Outcome: Progressed, Input: in}}
		got, err := DecodeRecord(r.Encode(nil))
		if err != nil || !reflect.DeepEqual(got.Decision.Input, in) {
			t.Errorf("%+v came back as %+v (%v)", in, got, err)
		}
	}
}

func TestAHeaderOfANewerShapeIsKeptUnread(t *testing.T) {
	h := sampleHead()
	b := buffer(h.Encode(nil))
	at := b.begin(14)
	b.string(1, HeaderBaggage)
	b.string(3, "of a newer build")
	b.end(at)
	got, err := DecodeHead(b)
	if err != nil || len(got.Trace) != 1 || len(got.Unknown) == 0 || !bytes.Equal(got.Encode(nil), b) {
		t.Errorf("%+v (%v)", got, err)
	}
}

func TestEncodingAppends(t *testing.T) {
	for name, sample := range samples() {
		plain := sample.Encode(nil)
		if got := sample.Encode([]byte("before")); string(got) != "before"+string(plain) {
			t.Errorf("%s: written after other bytes it is %x", name, got)
		}
	}
}

func TestMessagesOfEveryLengthAreFramed(t *testing.T) {
	// The length of a nested message is patched in: 127 and 128 bytes, 16,383 and 16,384 are the edges.
	for n := range 20000 {
		if n > 300 && n < 16200 {
			continue
		}
		r := &Record{Kind: KindDecision, Decision: &Decision{Reason: strings.Repeat("r", n)}}
		got, err := DecodeRecord(r.Encode(nil))
		if err != nil || got.Decision.Reason != r.Decision.Reason {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestAHashIsTheFirstHalfOfSHA256(t *testing.T) {
	if got := HashOf([]byte("abc")).String(); got != "ba7816bf8f01cfea414140de5dae2223" {
		t.Error(got)
	}
	if got := Nonce(repeat16(0)).String(); got != "000102030405060708090a0b0c0d0e0f" {
		t.Error(got)
	}
}

// allocated is how many bytes fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// allocFactor bounds what decoding may allocate per byte of input: an empty entry of a list takes two bytes
// and becomes a struct of up to 128.
const allocFactor = 96

func TestDecodingAllocatesAtMostAMultipleOfItsInput(t *testing.T) {
	const n = 1 << 17
	list := func(path ...protowire.Number) []byte {
		last := len(path) - 1
		elem := protowire.AppendBytes(protowire.AppendTag(nil, path[last], protowire.BytesType), nil)
		b := bytes.Repeat(elem, n)
		for _, num := range slices.Backward(path[:last]) {
			b = protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
		}
		return b
	}
	record := func(kind Kind, path ...protowire.Number) []byte {
		return append([]byte{Format, 1 << 3, byte(kind)}, list(path...)...)
	}
	mixed := append([]byte{Format, 1 << 3, byte(KindDecision)}, protowire.AppendBytes(protowire.AppendTag(nil, 8, protowire.BytesType),
		bytes.Repeat([]byte{5<<3 | 2, 0, 7<<3 | 2, 0, 9<<3 | 2, 0, 100<<3&0x7f | 0x80, 6, 1}, n))...)
	for why, b := range map[string][]byte{
		"entries":        record(KindDecision, 8, 5),
		"rows":           record(KindDecision, 8, 7),
		"emits":          record(KindDecision, 8, 9),
		"positions":      record(KindDecision, 8, 10, 1),
		"emitted topics": record(KindDecision, 8, 10, 3),
		"carried rows":   record(KindCarry, 9, 1),
		"origins":        record(KindCheckpoint, 10, 2),
		"decisions":      append([]byte{Format, 1 << 3, byte(KindDecision)}, bytes.Repeat([]byte{8<<3 | 2, 0}, n)...),
		"all together":   mixed,
		"unknown fields": append(typicalDecision().Encode(nil), bytes.Repeat([]byte{0xa0, 6, 1}, n)...),
		"ranges":         record(KindDecision, 8, 10, 1, 5),
	} {
		if got := allocated(func() { _, _ = DecodeRecord(b) }); got > allocFactor*uint64(len(b))+4096 {
			t.Errorf("%d bytes of %s allocate %d, %d times as much", len(b), why, got, got/uint64(len(b)))
		}
	}
	for why, x := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"waiters":            {list(5), func(b []byte) error { _, err := DecodeCorrelation(b); return err }},
		"buffered events":    {list(6), func(b []byte) error { _, err := DecodeCorrelation(b); return err }},
		"remembered ids":     {list(7), func(b []byte) error { _, err := DecodeCorrelation(b); return err }},
		"ended waits":        {list(8), func(b []byte) error { _, err := DecodeCorrelation(b); return err }},
		"offers":             {list(6, 4), func(b []byte) error { _, err := DecodeCorrelation(b); return err }},
		"headers of events":  {list(2), func(b []byte) error { _, err := DecodeKeptEvent(b); return err }},
		"headers of offers":  {list(11), func(b []byte) error { _, err := DecodeInboxMessage(b); return err }},
		"actions":            {list(13), func(b []byte) error { _, err := DecodeInboxMessage(b); return err }},
		"who sends them":     {list(3), func(b []byte) error { _, err := DecodeInboxMessage(b); return err }},
		"unknown to a queue": {list(99), func(b []byte) error { _, err := DecodeQueued(b); return err }},
		"unknown to answers": {list(99), func(b []byte) error { _, err := DecodeAnswer(b); return err }},
		"unknown to keys":    {list(99), func(b []byte) error { _, err := DecodeKeyState(b); return err }},
	} {
		if got := allocated(func() { _ = x.decode(x.b) }); got > allocFactor*uint64(len(x.b))+4096 {
			t.Errorf("%d bytes of %s allocate %d, %d times as much", len(x.b), why, got, got/uint64(len(x.b)))
		}
	}
	headers, undos := list(14), list(9)
	if got := allocated(func() { _, _ = DecodeHead(headers) }); got > allocFactor*uint64(len(headers))+4096 {
		t.Errorf("%d bytes of headers allocate %d", len(headers), got)
	}
	if got := allocated(func() { _, _ = DecodeNode(undos) }); got > allocFactor*uint64(len(undos))+4096 {
		t.Errorf("%d bytes of obligations allocate %d", len(undos), got)
	}
}

func TestATypicalDecisionIsWrittenWithoutAllocating(t *testing.T) {
	r := typicalDecision()
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = r.Encode(buf[:0]) }); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = DecodeRecord(buf) }); n > 16 {
		t.Errorf("decoding allocates %v times", n)
	}
}
