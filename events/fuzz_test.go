package events

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

// Each target takes any bytes without a panic, and what it takes once it writes and takes again unchanged.
// Seeds beyond those added here are in testdata/fuzz.

func fuzzCodec(f *testing.F, kind string, decode func([]byte) (interface{ Encode([]byte) []byte }, error)) {
	for name, sample := range samples() {
		if _, record := sample.(*Record); kind == "" && record || kind == kindOf(name) {
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
		switch v := v.(type) {
		case *Record:
			_, _ = Outgoing("shop", v)
		case *InboxMessage:
			sent := WrapMessage(b, v.To, &Origin{Topic: "shop.journal", Offset: 1})
			_, _, ok, err := UnwrapMessage(&sent)
			if !ok || err != nil && !IsPoison(err) {
				t.Fatalf("it is unwrapped as a message: %v (%v)", ok, err)
			}
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	var d Decoder
	fuzzCodec(f, "", func(b []byte) (interface{ Encode([]byte) []byte }, error) {
		r, err := DecodeRecord(b)
		again, errAgain := d.Decode(b)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) {
			return r, fmt.Errorf("DecodeRecord says %v, and a Decoder %v", err, errAgain)
		}
		if err == nil && !bytes.Equal(r.Encode(nil), again.Encode(nil)) {
			return r, errors.New("a Decoder reads something else than DecodeRecord")
		}
		return r, err
	})
}

func FuzzDecodeHead(f *testing.F) {
	fuzzCodec(f, "head", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeHead(b) })
}

func FuzzDecodeNode(f *testing.F) {
	fuzzCodec(f, "node", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeNode(b) })
}

func FuzzDecodeEntry(f *testing.F) {
	fuzzCodec(f, "entry", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeEntry(b) })
}

func FuzzDecodeQueued(f *testing.F) {
	fuzzCodec(f, "queued", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeQueued(b) })
}

func FuzzDecodeAnswer(f *testing.F) {
	fuzzCodec(f, "answer", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeAnswer(b) })
}

func FuzzDecodeKeyState(f *testing.F) {
	fuzzCodec(f, "key", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeKeyState(b) })
}

func FuzzDecodeCorrelation(f *testing.F) {
	fuzzCodec(f, "correlation", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeCorrelation(b) })
}

func FuzzDecodeKeptEvent(f *testing.F) {
	fuzzCodec(f, "event", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeKeptEvent(b) })
}

func FuzzDecodeInboxMessage(f *testing.F) {
	fuzzCodec(f, "message", func(b []byte) (interface{ Encode([]byte) []byte }, error) { return DecodeInboxMessage(b) })
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

func FuzzUnwrapMessage(f *testing.F) {
	origin := &Origin{Topic: "shop.journal", Partition: 1, Offset: MessageOffset(4711, 2), Low: 5}
	f.Add(samples()["format-2/message-offer"].Encode(nil), WrapMessage(nil, sampleID, origin).Headers[0].Value)
	f.Add(samples()["format-2/message-action"].Encode(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, value, origin []byte) {
		in := Message{Topic: "shop.inbox", Value: value, Headers: []Header{{"x", nil}, {HeaderMessage, origin}}}
		m, o, ok, err := UnwrapMessage(&in)
		if !ok {
			t.Fatal("its header does not mark it")
		}
		if err != nil {
			if !IsPoison(err) {
				t.Fatal(err)
			}
			return
		}
		if m.To.IsZero() || o == nil && m.Kind != InboxAction {
			t.Fatalf("%+v %+v", m, o)
		}
		sent := WrapMessage(value, m.To, o)
		if _, again, ok, err := UnwrapMessage(&sent); !ok || err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%+v\nand then\n%+v (%v)", o, again, err)
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
