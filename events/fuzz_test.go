package events

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

// Each target takes any bytes without a panic, and what it takes once it writes and takes again unchanged.
// Seeds beyond those added here are in testdata/fuzz.

func fuzzCodec(f *testing.F, kinds map[string]bool, decode func([]byte) (interface{ Encode([]byte) []byte }, error)) {
	for name, sample := range samples() {
		if _, row := sample.(*Record); kinds == nil && row || kinds[name] {
			f.Add(sample.Encode(nil))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		v, err := decode(b)
		if !bytes.Equal(b, in) {
			t.Fatal("decoding changed its input")
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		written := v.Encode(nil)
		again, err := decode(written)
		if err != nil {
			t.Fatalf("what was written from\n%x\nis not read: %v\n%x", b, err, written)
		}
		if !reflect.DeepEqual(again, v) {
			t.Fatalf("%x\nis read as\n%+v\nand, written again, as\n%+v", b, v, again)
		}
		if twice := again.Encode(nil); !bytes.Equal(twice, written) {
			t.Fatalf("written\n%x\nand then\n%x", written, twice)
		}
		if r, ok := v.(*Record); ok {
			_, _ = Outgoing("shop", r)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	fuzzCodec(f, nil, func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeRecord(b) })
}

func FuzzDecodeHead(f *testing.F) {
	fuzzCodec(f, map[string]bool{"head": true, "head-parked": true}, func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeHead(b) })
}

func FuzzDecodeNode(f *testing.F) {
	fuzzCodec(f, map[string]bool{"node-step": true, "node-full": true}, func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeNode(b) })
}

func FuzzDecodeEntry(f *testing.F) {
	fuzzCodec(f, map[string]bool{"entry": true}, func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeEntry(b) })
}

func FuzzParseCommandID(f *testing.F) {
	f.Add("shop", sampleCommand.Text("shop"))
	f.Add("bank", sampleCommand.Text("shop"))
	f.Add("", CommandID{Phase: Forward}.Text(""))
	f.Fuzz(func(t *testing.T, app, s string) {
		c, err := ParseCommandID(app, s)
		if err != nil {
			if !errors.Is(err, ErrCommandID) {
				t.Fatal(err)
			}
			return
		}
		if got := c.Text(app); got != s {
			t.Fatalf("%q is taken and printed as %q", s, got)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add(HeaderCausationID, []byte(sampleCommand.Text("shop")), HeaderOutcome, []byte("rejected"), []byte("{}"))
	f.Add(HeaderCausationID, []byte(sampleCommand.Text("shop")), HeaderErrorMessage, []byte("\xff"), []byte(nil))
	f.Add(HeaderID, []byte("x"), HeaderID, []byte("x"), []byte(nil))
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, k2 string, v2 []byte, value []byte) {
		m := &Message{Topic: "shop.replies", Value: value, Headers: []Header{{k1, v1}, {k2, v2}}}
		r, err := ParseReply("shop", m)
		if err != nil {
			if !IsPoison(err) {
				t.Fatal(err)
			}
			return
		}
		if r.Outcome < ReplyDone || r.Outcome > ReplyProgress || len(r.Message) > MaxMessage {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzUnwrapForward(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), WrapForward(&Message{Time: 5}, Origin{Topic: "orders", Partition: 1, Offset: 2, Low: 1}).Headers[0].Value)
	f.Fuzz(func(t *testing.T, key, value, origin []byte) {
		in := Message{Topic: "shop.inbox", Partition: 1, Offset: 2, Key: key, Value: value, Headers: []Header{{"x", nil}, {HeaderForward, origin}}}
		m, o, err := UnwrapForward(&in)
		if err != nil {
			if !IsPoison(err) {
				t.Fatal(err)
			}
			return
		}
		sent := WrapForward(&m, *o)
		again, o2, err := UnwrapForward(&sent)
		if err != nil || !reflect.DeepEqual(again, m) || !reflect.DeepEqual(o2, o) {
			t.Fatalf("%+v %+v\nand then\n%+v %+v (%v)", m, o, again, o2, err)
		}
	})
}

func FuzzParseRowKey(f *testing.F) {
	f.Add(RowKey(sampleID, RowRef{PartNode, 2}))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, k []byte) {
		id, ref, ok := ParseRowKey(k)
		if ok && !bytes.Equal(RowKey(id, ref), k) {
			t.Fatalf("%x is taken and written as %x", k, RowKey(id, ref))
		}
	})
}

func FuzzParseInstanceID(f *testing.F) {
	f.Add(sampleID.String())
	f.Add(hex.EncodeToString([]byte("too short")))
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseInstanceID(s)
		if err == nil {
			if again, err := ParseInstanceID(id.String()); err != nil || again != id {
				t.Fatalf("%q: %s and %s (%v)", s, id, again, err)
			}
		} else if !errors.Is(err, ErrInstanceID) || !id.IsZero() {
			t.Fatalf("%s %v", id, err)
		}
	})
}

func FuzzParseTimestamp(f *testing.F) {
	f.Add("2026-09-21T14:13:20.007Z")
	f.Add("0000-01-01T00:00:00+23:59")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseTimestamp(s); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
}
