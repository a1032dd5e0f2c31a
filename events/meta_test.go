package events

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

var sampleRef = DefinitionRef{Name: "place-order", Version: "2", Hash: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}

// metaSamples set every field of every message.
func metaSamples() map[string]*MetaRecord {
	return map[string]*MetaRecord{
		"node": {Node: &NodeInfo{Name: "a/b", Address: "10.0.0.1:7500", Member: "skald-1", Generation: 4, Build: "v1.2", Format: 2, Started: 1_790_000_000_000,
			Definitions: []DefinitionRef{sampleRef, {Name: "refund", Version: "1", Hash: [8]byte{9}}}, Shards: []int32{0, 3, 300},
			Waiting: []WaitingShard{{Shard: 3, Definition: DefinitionRef{Name: "refund"}}, {Shard: 0, Definition: sampleRef}}}},
		"definition": {Definition: &DefinitionInfo{Name: "place-order", Version: "2", Hash: sampleRef.Hash, Export: "skald-plan 1\n",
			Events:    []EventRef{{Topic: "orders", Type: "OrderPlaced"}, {Topic: "carts", Type: "x", Reads: true}},
			Positions: []Position{{Topic: "orders", TopicID: [16]byte{7}, Partition: 2, Low: 99}}, Node: "a", Build: "v1.2"}},
		"level": {Level: &FormatLevel{Level: 2, Node: "a"}},
	}
}

func TestMetaProtoDescribesWhatTheCodecWrites(t *testing.T) {
	md := readProtoFile(t, "meta.proto")
	wantEveryField(t, md, "sample", func(walk func(protoreflect.Message)) {
		for name, r := range metaSamples() {
			b := r.Encode(nil)
			again, err := DecodeMeta(b)
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("%s: %+v, %v", name, again, err)
			}
			walk(parseDynamic(t, md.Messages().ByName("MetaRecord"), b[1:]))
		}
	})
}

func TestUnknownFieldsOfMetaRecordsSurviveAtEveryLevel(t *testing.T) {
	md := readProtoFile(t, "meta.proto").Messages().ByName("MetaRecord")
	for name, r := range metaSamples() {
		for at := 0; ; at++ {
			n := at
			newer := append([]byte{MetaFormat}, addUnknown(md, r.Encode(nil)[1:], &n)...)
			if n >= 0 {
				break
			}
			got, err := DecodeMeta(newer)
			if err != nil {
				t.Errorf("%s, message %d: %v", name, at, err)
				continue
			}
			// A position keeps what it does not know as well: the journal's test says so.
			if again := got.Encode(nil); !bytes.Equal(again, newer) {
				t.Errorf("%s, message %d: written again as\n%x\nnot as\n%x", name, at, again, newer)
			}
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	for _, r := range metaSamples() {
		f.Add(r.Encode(nil))
	}
	f.Add([]byte{MetaFormat + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeMeta(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		written := r.Encode(nil)
		again, err := DecodeMeta(written)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%x\nis read as\n%+v\nand, written again, as\n%+v (%v)", b, r, again, err)
		}
	})
}

// metaLog appends to a meta topic, and folds it as a reader who comes now does.
type metaLog []Message

func (l *metaLog) put(key string, r *MetaRecord) {
	m := Message{Topic: "shop.meta", Offset: int64(len(*l)), Key: []byte(key)}
	if r != nil {
		m.Value = r.Encode(nil)
	}
	*l = append(*l, m)
}

func (l metaLog) fold(t *testing.T) *MetaState {
	t.Helper()
	s := NewMetaState()
	for i := range l {
		if err := s.Fold(&l[i]); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// compacted keeps the last record of each key, as Kafka does.
func (l metaLog) compacted() metaLog {
	last := map[string]int64{}
	for _, m := range l {
		last[string(m.Key)] = m.Offset
	}
	var out metaLog
	for _, m := range l {
		if last[string(m.Key)] == m.Offset && m.Value != nil {
			out = append(out, m)
		}
	}
	return out
}

func (l *metaLog) node(name string, format uint32) {
	l.put(NodeKey(name), &MetaRecord{Node: &NodeInfo{Name: name, Format: format}})
}

func (l *metaLog) level(n uint32) {
	l.put(LevelKey, &MetaRecord{Level: &FormatLevel{Level: n}})
}

func TestTheLevelCountsOnlyIfEveryNodeKnownThereReadsIt(t *testing.T) {
	var l metaLog
	l.node("old", 1)
	l.node("new", 2)
	l.level(2) // by a node that had not read of the old one
	if got := l.fold(t).Level; got != 1 {
		t.Errorf("with an old node there: level %d", got)
	}
	l.put(NodeKey("old"), nil)
	if got := l.fold(t).Level; got != 1 {
		t.Errorf("the old node left, and nobody raised it again: level %d", got)
	}
	l.level(2)
	l.node("old", 1)
	l.level(1)
	if got := l.fold(t); got.Level != 2 || got.Common() != 1 {
		t.Errorf("an old node came back: level %d, common %d; it is for the node to see that it is too late", got.Level, got.Common())
	}
}

func TestOfSeveralTreesOfAVersionTheFirstCounts(t *testing.T) {
	publish := func(l *metaLog, hash byte) DefinitionRef {
		d := &DefinitionInfo{Name: "order/x", Version: "1", Hash: [8]byte{hash}, Export: fmt.Sprint(hash)}
		l.put(DefinitionKey(d.Ref()), &MetaRecord{Definition: d})
		return d.Ref()
	}
	var l metaLog
	first := publish(&l, 1)
	second := publish(&l, 2)
	for name, log := range map[string]metaLog{"whole": l, "compacted": l.compacted()} {
		if s := log.fold(t); s.First("order/x", "1").Hash != first.Hash || len(s.Definitions) != 1 {
			t.Errorf("%s: %+v", name, s.Definitions)
		}
	}
	l.put(DefinitionKey(first), nil)
	if s := l.fold(t); s.First("order/x", "1").Hash != second.Hash {
		t.Errorf("after the first was removed: %+v", s.Definitions)
	}
	l.put(DefinitionKey(second), nil)
	if s := l.fold(t); s.First("order/x", "1") != nil || len(s.Definitions) != 0 {
		t.Errorf("after all were removed: %+v", s.Definitions)
	}
}

func TestARecordUnderTheKeyOfAnotherIsRefused(t *testing.T) {
	s := NewMetaState()
	for i, key := range []string{"format", "node/b", "definition/a/1/00", ""} {
		m := Message{Offset: int64(i), Key: []byte(key), Value: metaSamples()["node"].Encode(nil)}
		if err := s.Fold(&m); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if len(s.Nodes) != 0 || s.Next != 4 {
		t.Errorf("%+v", s)
	}
}
