package events

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Every record is read after every other one, so that what one leaves behind would be seen in the next.
func TestADecoderReadsWhatDecodeRecordReads(t *testing.T) {
	records := map[string][]byte{"a typical decision": typicalDecision().Encode(nil)}
	for name, b := range readGolden(t) {
		if _, err := DecodeRecord(b); err == nil {
			records[name] = b
		}
	}
	var d Decoder
	for first, a := range records {
		for second, b := range records {
			if _, err := d.Decode(a); err != nil {
				t.Fatalf("%s: %v", first, err)
			}
			got, err := d.Decode(b)
			if err != nil {
				t.Fatalf("%s: %v", second, err)
			}
			want, _ := DecodeRecord(b)
			if g, w := plain(got), plain(want); g != w {
				t.Fatalf("%s after %s: %s, want %s", second, first, g, w)
			}
		}
	}
}

// plain prints a record, with lists that are empty like those that are not there.
func plain(r *Record) string {
	var out strings.Builder
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				fmt.Fprintf(&out, "%s{", v.Type().Field(i).Name)
				walk(v.Field(i))
				out.WriteString("}")
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
				out.WriteString(",")
			}
		default:
			fmt.Fprint(&out, v)
		}
	}
	walk(reflect.ValueOf(r))
	return out.String()
}

func TestADecoderRefusesWhatDecodeRecordRefuses(t *testing.T) {
	var d Decoder
	b := typicalDecision().Encode(nil)
	for n := range b {
		_, want := DecodeRecord(b[:n:n])
		if _, err := d.Decode(b[:n:n]); fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("cut to %d bytes: %v, want %v", n, err, want)
		}
	}
	if _, err := d.Decode(b); err != nil {
		t.Errorf("and then a whole one: %v", err)
	}
}

// A history row is the same bytes for the owner, who encodes the entry, and for a reader, who takes them from the record.
func TestAnEntryOfARecordIsTheHistoryRow(t *testing.T) {
	var d Decoder
	entries := 0
	for name, b := range readGolden(t) {
		want, err := DecodeRecord(b)
		if err != nil || want.Decision == nil {
			continue
		}
		if _, err := d.Decode(b); err != nil || len(d.Entries()) != len(want.Decision.Entries) {
			t.Fatalf("%s: %d entries (%v)", name, len(d.Entries()), err)
		}
		for i := range want.Decision.Entries {
			entries++
			if g, w := d.Entries()[i], want.Decision.Entries[i].Encode(nil); !bytes.Equal(g, w) {
				t.Errorf("%s: entry %d is %x in the record and %x when it is encoded", name, i, g, w)
			}
		}
	}
	if entries == 0 {
		t.Error("no record has entries")
	}
}

func TestADecoderHardlyAllocates(t *testing.T) {
	var d Decoder
	b := typicalDecision().Encode(nil)
	if n := testing.AllocsPerRun(100, func() { _, _ = d.Decode(b) }); n > 2 { // an id, and what shares its slot
		t.Errorf("decoding allocates %v times", n)
	}
}

func TestADecoderDoesNotKeepAHugeRecordsMemory(t *testing.T) {
	var d Decoder
	huge := &Record{Kind: KindDecision, Decision: &Decision{Outcome: Applied, Entries: make([]Entry, 100_000)}}
	for _, r := range []*Record{huge, typicalDecision()} {
		if _, err := d.Decode(r.Encode(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if n := cap(d.decision.Entries); n > maxKept {
		t.Errorf("it holds %d entries", n)
	}
}

func BenchmarkDecoder(b *testing.B) {
	var d Decoder
	buf := typicalDecision().Encode(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := d.Decode(buf)
		if err != nil {
			b.Fatal(err)
		}
		sink = r
	}
}
