package events

import "testing"

var sink any

func BenchmarkEncodeDecision(b *testing.B) {
	r := typicalDecision()
	buf := r.Encode(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Encode(buf[:0])
	}
}

func BenchmarkDecodeDecision(b *testing.B) {
	buf := typicalDecision().Encode(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := DecodeRecord(buf)
		if err != nil {
			b.Fatal(err)
		}
		sink = r
	}
}

func BenchmarkOutgoing(b *testing.B) {
	r := typicalDecision()
	p := NewPrinter("shop")
	var m []Message
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if m, err = p.Outgoing(m[:0], r); err != nil {
			b.Fatal(err)
		}
	}
	sink = m
}

func BenchmarkDecodeNode(b *testing.B) {
	buf := sampleNode().Encode(nil)
	b.ReportAllocs()
	for b.Loop() {
		n, err := DecodeNode(buf)
		if err != nil {
			b.Fatal(err)
		}
		sink = n
	}
}

func BenchmarkDecodeHead(b *testing.B) {
	buf := sampleHead().Encode(nil)
	b.ReportAllocs()
	for b.Loop() {
		h, err := DecodeHead(buf)
		if err != nil {
			b.Fatal(err)
		}
		sink = h
	}
}

func BenchmarkParseReply(b *testing.B) {
	id := CommandID{Instance: sampleID, Node: 2, Execution: 1, Attempt: 1, Phase: Forward}
	m := &Message{Topic: "shop.replies", Value: []byte(`{"ok":true}`), Headers: []Header{
		{HeaderCausationID, []byte(id.Text("shop"))}, {HeaderOutcome, []byte("done")}, {HeaderTraceParent, []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}}
	b.ReportAllocs()
	for b.Loop() {
		r, err := ParseReply("shop", m)
		if err != nil {
			b.Fatal(err)
		}
		sink = r
	}
}
