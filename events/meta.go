package events

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/skald-io/skald/internal/mutant"
)

// MetaFormat is the version of the meta topic's encoding that this build writes, and the newest it reads. It is
// the first byte of every value there.
const MetaFormat = 1

// MaxMeta bounds the value of a meta record, in bytes.
const MaxMeta = 512 << 10

// MetaRecord is the value of a record of <app>.meta, which holds what all nodes have to know of each other. The
// topic is compacted: of each key the last record counts, and one without a value removes it. One of the
// fields is set; none is, if a newer build wrote a kind that this one does not know. meta.proto describes it to
// any language.
type MetaRecord struct {
	Node       *NodeInfo
	Definition *DefinitionInfo
	Level      *FormatLevel

	Unknown []byte // fields of a newer build, kept as they stood
}

// NodeInfo is what a node says of itself, under NodeKey.
type NodeInfo struct {
	Name        string
	Address     string // host:port at which other nodes reach it
	Member      string // its id in the consumer group; "" before it joined
	Generation  int32  // of the group, the latest it took part in
	Build       string
	Format      uint32 // the newest journal format it reads and writes
	Started     int64  // ms since 1970, by its own clock; tells one process of the name from the next
	Definitions []DefinitionRef
	Shards      []int32        // assigned to it
	Waiting     []WaitingShard // of Shards, those with inputs that wait for a definition it does not have
	Unknown     []byte
}

// DefinitionRef names a definition (L12).
type DefinitionRef struct {
	Name    string
	Version string
	Hash    [8]byte // of its exported tree
	Unknown []byte
}

// WaitingShard says that a shard has inputs that its owner cannot decide.
type WaitingShard struct {
	Shard      int32
	Definition DefinitionRef // one that is missing; of an event that starts a saga, without version and hash
	Unknown    []byte
}

// DefinitionInfo is a definition as it was first published, under its DefinitionKey.
type DefinitionInfo struct {
	Name    string
	Version string
	Hash    [8]byte
	Export  string     // the tree, as sagas.Plan.Export prints it
	Events  []EventRef // that it takes: they start it, or it waits for them
	// Positions are where topics begin for this application that no definition published before reads: the end,
	// or the start, of each partition as it was when the definition was published.
	Positions []Position
	Node      string // that published it
	Build     string // of that node
	Unknown   []byte
}

// Ref names the definition.
func (d *DefinitionInfo) Ref() DefinitionRef {
	return DefinitionRef{Name: d.Name, Version: d.Version, Hash: d.Hash}
}

// EventRef says which events a definition takes, as far as one can say it without its functions.
type EventRef struct {
	Topic   string
	Type    string // "": every event of the topic
	Reads   bool   // a function reads the type from the event; ce_type says nothing
	Unknown []byte
}

// FormatLevel is the journal format that owners write, under LevelKey. It counts from where it stands if every
// node known there reads it, and never goes back (L13).
type FormatLevel struct {
	Level   uint32
	Node    string // that raised it
	Unknown []byte
}

// LevelKey is the key of the FormatLevel.
const LevelKey = "format"

// NodeKey is the key of a node's NodeInfo.
func NodeKey(name string) string { return "node/" + escapeMeta(name) }

// DefinitionKey is the key of a DefinitionInfo. The hash is part of it, so that one that comes too late does not
// replace the first.
func DefinitionKey(d DefinitionRef) string {
	return fmt.Sprintf("definition/%s/%s/%x", escapeMeta(d.Name), escapeMeta(d.Version), d.Hash)
}

// escapeMeta keeps the parts of a key apart.
func escapeMeta(s string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(s)
}

// Encode appends the record's bytes to dst.
func (r *MetaRecord) Encode(dst []byte) []byte {
	b := buffer(append(dst, MetaFormat))
	if r.Node != nil {
		at := b.begin(1)
		r.Node.encode(&b)
		b.end(at)
	}
	if r.Definition != nil {
		at := b.begin(2)
		r.Definition.encode(&b)
		b.end(at)
	}
	if r.Level != nil {
		at := b.begin(3)
		r.Level.encode(&b)
		b.end(at)
	}
	return append(b, r.Unknown...)
}

// DecodeMeta reads an encoded record. The result aliases b. Damaged bytes give ErrMalformed, a format above
// MetaFormat a *NewerFormatError.
func DecodeMeta(b []byte) (*MetaRecord, error) {
	switch {
	case len(b) == 0 || b[0] == 0 || len(b) > MaxMeta:
		return nil, fmt.Errorf("meta record: %w: %d bytes", ErrMalformed, len(b))
	case b[0] > MetaFormat:
		return nil, fmt.Errorf("meta record: %w", &NewerFormatError{Format: b[0]})
	}
	r := &MetaRecord{}
	f := reader{in: b[1:]}
	for f.next() {
		switch f.num {
		case 1:
			f.fail(fresh(&r.Node).decode(f.bytes()))
		case 2:
			f.fail(fresh(&r.Definition).decode(f.bytes()))
		case 3:
			f.fail(fresh(&r.Level).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	r.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("meta record: %w", f.err)
	}
	return r, nil
}

func (n *NodeInfo) encode(b *buffer) {
	b.string(1, n.Name)
	b.string(2, n.Address)
	b.string(3, n.Member)
	b.int(4, int64(n.Generation))
	b.string(5, n.Build)
	b.uint(6, uint64(n.Format))
	b.int(7, n.Started)
	for i := range n.Definitions {
		at := b.begin(8)
		n.Definitions[i].encode(b)
		b.end(at)
	}
	if len(n.Shards) > 0 {
		at := b.begin(9)
		for _, s := range n.Shards {
			*b = protowire.AppendVarint(*b, uint64(s))
		}
		b.end(at)
	}
	for i := range n.Waiting {
		at := b.begin(10)
		n.Waiting[i].encode(b)
		b.end(at)
	}
	*b = append(*b, n.Unknown...)
}

func (n *NodeInfo) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			n.Name = f.string()
		case 2:
			n.Address = f.string()
		case 3:
			n.Member = f.string()
		case 4:
			n.Generation = f.int32()
		case 5:
			n.Build = f.string()
		case 6:
			n.Format = f.uint32()
		case 7:
			n.Started = f.int()
		case 8:
			f.fail(grow(&n.Definitions, &f).decode(f.bytes()))
		case 9:
			n.Shards = f.int32s()
		case 10:
			f.fail(grow(&n.Waiting, &f).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	n.Unknown = f.unknown
	return f.err
}

// int32s reads a packed list of numbers that are not negative.
func (f *reader) int32s() []int32 {
	var out []int32
	for b := f.bytes(); len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 || v > 1<<31-1 {
			f.fail(fmt.Errorf("%w: field %d is no list of numbers", ErrMalformed, f.num))
			return nil
		}
		out, b = append(out, int32(v)), b[n:]
	}
	return out
}

func (d *DefinitionRef) encode(b *buffer) {
	b.string(1, d.Name)
	b.string(2, d.Version)
	if d.Hash != [8]byte{} {
		b.message(3, d.Hash[:])
	}
	*b = append(*b, d.Unknown...)
}

func (d *DefinitionRef) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			d.Name = f.string()
		case 2:
			d.Version = f.string()
		case 3:
			f.fixed(d.Hash[:])
		default:
			f.keep()
		}
	}
	d.Unknown = f.unknown
	return f.err
}

func (w *WaitingShard) encode(b *buffer) {
	b.int(1, int64(w.Shard))
	at := b.begin(2)
	w.Definition.encode(b)
	b.end(at)
	*b = append(*b, w.Unknown...)
}

func (w *WaitingShard) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			w.Shard = f.int32()
		case 2:
			w.Definition = DefinitionRef{}
			f.fail(w.Definition.decode(f.bytes()))
		default:
			f.keep()
		}
	}
	w.Unknown = f.unknown
	return f.err
}

func (d *DefinitionInfo) encode(b *buffer) {
	b.string(1, d.Name)
	b.string(2, d.Version)
	if d.Hash != [8]byte{} {
		b.message(3, d.Hash[:])
	}
	b.string(4, d.Export)
	for i := range d.Events {
		at := b.begin(5)
		d.Events[i].encode(b)
		b.end(at)
	}
	for i := range d.Positions {
		at := b.begin(6)
		d.Positions[i].encode(b)
		b.end(at)
	}
	b.string(7, d.Node)
	b.string(8, d.Build)
	*b = append(*b, d.Unknown...)
}

func (d *DefinitionInfo) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			d.Name = f.string()
		case 2:
			d.Version = f.string()
		case 3:
			f.fixed(d.Hash[:])
		case 4:
			d.Export = f.string()
		case 5:
			f.fail(grow(&d.Events, &f).decode(f.bytes()))
		case 6:
			f.fail(grow(&d.Positions, &f).decode(f.bytes()))
		case 7:
			d.Node = f.string()
		case 8:
			d.Build = f.string()
		default:
			f.keep()
		}
	}
	d.Unknown = f.unknown
	return f.err
}

func (s *EventRef) encode(b *buffer) {
	b.string(1, s.Topic)
	b.string(2, s.Type)
	b.bool(3, s.Reads)
	*b = append(*b, s.Unknown...)
}

func (s *EventRef) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			s.Topic = f.string()
		case 2:
			s.Type = f.string()
		case 3:
			s.Reads = f.bool()
		default:
			f.keep()
		}
	}
	s.Unknown = f.unknown
	return f.err
}

func (l *FormatLevel) encode(b *buffer) {
	b.uint(1, uint64(l.Level))
	b.string(2, l.Node)
	*b = append(*b, l.Unknown...)
}

func (l *FormatLevel) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			l.Level = f.uint32()
		case 2:
			l.Node = f.string()
		default:
			f.keep()
		}
	}
	l.Unknown = f.unknown
	return f.err
}

// MetaState is what the records of <app>.meta say up to Next. It is the same for whoever reads them from the
// start, compacted or not, but for a level that an older reader still doubts: that one stays lower, which is
// always safe. It is not safe for concurrent use.
type MetaState struct {
	Next        int64                 // everything below it was folded
	Nodes       map[string]KnownNode  // by key
	Definitions map[string][]FirstDef // by name and version as in DefinitionKey, without the hash; the first counts
	Level       uint8                 // at least 1
}

// KnownNode is a node's last record, and where it stands.
type KnownNode struct {
	NodeInfo
	Offset int64
	Time   int64 // of the record, ms since 1970
}

// FirstDef is a published definition, and where it stands.
type FirstDef struct {
	DefinitionInfo
	Offset int64
	key    string
}

// NewMetaState is the state before the first record.
func NewMetaState() *MetaState {
	return &MetaState{Nodes: map[string]KnownNode{}, Definitions: map[string][]FirstDef{}, Level: 1}
}

// Fold takes the next record. After an error it is as if the record were not there.
func (s *MetaState) Fold(m *Message) error {
	if m.Offset < s.Next {
		return nil
	}
	s.Next = m.Offset + 1
	key := string(m.Key)
	if m.Value == nil {
		delete(s.Nodes, key)
		s.forget(key)
		return nil
	}
	r, err := DecodeMeta(m.Value)
	if err != nil {
		return fmt.Errorf("%s, key %.200q: %w", m.Place(), key, err)
	}
	switch {
	case r.Node != nil && key == NodeKey(r.Node.Name):
		s.Nodes[key] = KnownNode{*r.Node, m.Offset, m.Time}
	case r.Definition != nil && key == DefinitionKey(r.Definition.Ref()):
		id := definitionID(r.Definition.Name, r.Definition.Version)
		for _, d := range s.Definitions[id] {
			if d.key == key {
				return nil
			}
		}
		s.Definitions[id] = append(s.Definitions[id], FirstDef{*r.Definition, m.Offset, key})
	case r.Level != nil && key == LevelKey:
		if s.readable(r.Level.Level) {
			s.Level = max(s.Level, uint8(r.Level.Level))
		}
	case r.Node != nil || r.Definition != nil || r.Level != nil:
		return fmt.Errorf("%s, key %.200q: %w: it is not the key of what it holds", m.Place(), key, ErrMalformed)
	}
	return nil
}

// readable reports whether every node that is known at this place reads the format.
func (s *MetaState) readable(level uint32) bool {
	for _, n := range s.Nodes { // order: any will do
		if n.Format < level && !mutant.On("events-level-raised-too-early") {
			return false
		}
	}
	return level <= 255
}

// Common is the newest format that every known node reads; 0 when none is known.
func (s *MetaState) Common() uint8 {
	low := uint32(0)
	for _, n := range s.Nodes { // order: a minimum has none
		if low == 0 || n.Format < low {
			low = n.Format
		}
	}
	return uint8(min(low, 255))
}

func (s *MetaState) forget(key string) {
	for id, list := range s.Definitions { // order: one of them has the key
		for i := range list {
			if list[i].key == key {
				s.Definitions[id] = append(append([]FirstDef(nil), list[:i]...), list[i+1:]...)
				if len(list) == 1 {
					delete(s.Definitions, id)
				}
				return
			}
		}
	}
}

// First is the definition that was published under the name and version; nil when none was. Another tree under
// them does not count, whoever publishes it later.
func (s *MetaState) First(name, version string) *FirstDef {
	if list := s.Definitions[definitionID(name, version)]; len(list) > 0 {
		return &list[0]
	}
	return nil
}

func definitionID(name, version string) string { return escapeMeta(name) + "/" + escapeMeta(version) }
