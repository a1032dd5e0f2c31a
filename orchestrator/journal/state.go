package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"google.golang.org/protobuf/encoding/protowire"
)

// State is what a reader of a shard's journal knows besides its rows. The zero value is that of a reader
// before the first record. It is not safe for concurrent use.
type State struct {
	// The chain (L1, L2). A record is accepted iff it continues Nonce, Seq and Hash; Broken says that the
	// current claim's chain has a gap, so that nothing is accepted before the next claim.
	Term    uint64
	Nonce   events.Nonce
	Seq     uint64      // of the last accepted record; it never restarts
	Hash    events.Hash // of the last accepted record
	Claimed bool
	Broken  bool
	Claim   events.Claim // the current one

	Time int64 // of the last accepted record, ms since 1970: no later decision is timed before it (L11)

	Positions marks // inputs: what is finished here (L6)
	Origins   marks // foreign input partitions: what was taken through forwards, above the highest low mark (L7)

	EmittedSeq uint64            // every emission of records up to this one is acknowledged
	Emitted    map[string]uint64 // topics that are further (L14)

	// Where things stand in this copy of the journal. Offsets locate; no rule but L4 uses them.
	TopicID [16]byte // of the journal this was read from; zero if unknown
	Next    int64    // the offset to read next
	At      int64    // of the last accepted record
	// EmitFrom is an offset at or below that of the first record whose emissions may be open.
	EmitFrom int64
	// Checkpoint is the last accepted checkpoint's sequence; Bytes counts the encoded size of the decisions
	// accepted since.
	Checkpoint uint64
	Bytes      int64
}

// Verdict says what a reader does with a record.
type Verdict uint8

const (
	Accepted  Verdict = 1 // it continues the current claim's chain, or is a claim
	Duplicate Verdict = 2 // of the current claim, a lower sequence: it was accepted before
	Foreign   Verdict = 3 // of another claim than the current one
	Gap       Verdict = 4 // of the current claim, but it does not continue the chain: this ends the epoch
	Ended     Verdict = 5 // of the current claim, after a gap
)

func (v Verdict) String() string {
	names := [...]string{1: "accepted", "duplicate", "foreign", "gap", "ended"}
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("verdict-%d", uint8(v))
}

// Rows takes the changes that an accepted record makes to rows, in order. Keys and values may alias the
// record. base is the record's sequence: the row's last full image stands there.
type Rows interface {
	Set(key []byte, due, wasDue int64, value []byte, base uint64)
	// Delete removes one row, which was due at wasDue; it may not be there. seq is the record's sequence.
	Delete(key []byte, wasDue int64, seq uint64)
	DeleteRange(from, to []byte)
}

// ErrTrimmed says that the journal's first record is neither a checkpoint nor a beginning: something else
// than Skald deleted its head, and the state cannot be restored from it.
var ErrTrimmed = errors.New("the journal does not begin at a checkpoint: its head was deleted by something else than a compaction")

// NewState is the state of a reader before the journal's first record.
func NewState() *State {
	return &State{Positions: marks{}, Origins: marks{}, Emitted: map[string]uint64{}}
}

// Fold takes the next record as it stands at offset, and makes what it changes, if it is accepted. start
// says that offset is the log's start: there, and only there, a checkpoint is trusted without its past.
// An error means that this reader cannot go on: the bytes are damaged (events.ErrMalformed), of a newer
// format (events.ErrNewerFormat), or ErrTrimmed.
func (s *State) Fold(offset int64, start bool, value []byte, rows Rows) (Verdict, *events.Record, error) {
	rec, err := events.DecodeRecord(value)
	if err != nil {
		return 0, nil, s.unread(err)
	}
	return s.fold(offset, start, value, rec, nil, rows)
}

// Folder folds many records, with memory that it uses again. The zero value is ready.
type Folder struct {
	decoder events.Decoder
	keys    []byte
}

// Fold is State.Fold. The record is valid until the next call; the keys that rows is told, during that call alone.
func (f *Folder) Fold(s *State, offset int64, start bool, value []byte, rows Rows) (Verdict, *events.Record, error) {
	rec, err := f.decoder.Decode(value)
	if err != nil {
		return 0, nil, s.unread(err)
	}
	return s.fold(offset, start, value, rec, f, rows)
}

func (s *State) unread(err error) error {
	if newer := (*events.NewerFormatError)(nil); errors.As(err, &newer) && newer.Build == "" {
		// Only who holds the claim writes anything but claims.
		return fmt.Errorf("journal record: %w", &events.NewerFormatError{Format: newer.Format, Build: s.Claim.Build})
	}
	return err
}

// fold takes the record of value, which by has decoded, if it is not nil.
func (s *State) fold(offset int64, start bool, value []byte, rec *events.Record, by *Folder, rows Rows) (Verdict, *events.Record, error) {
	// Offsets identify nothing (L1): a trimmed journal may have been copied to where they begin at 0.
	if start && s.Seq == 0 && !s.Claimed {
		switch {
		case rec.Kind == events.KindCheckpoint:
			s.trust(rec)
		case rec.Kind == events.KindClaim && rec.Term == 1:
			// A whole journal, wherever its offsets begin.
		default:
			return 0, rec, ErrTrimmed
		}
	}
	return s.take(offset, rec, nil, by, events.HashOf(value), len(value), rows), rec, nil
}

// Take is Fold for a reader that has decoded the record, of size bytes, already. image is as for Apply.
//
// docs/spec: Append.Apply
func (s *State) Take(offset int64, rec *events.Record, image Image, hash events.Hash, size int, rows Rows) Verdict {
	return s.take(offset, rec, image, nil, hash, size, rows)
}

func (s *State) take(offset int64, rec *events.Record, image Image, by *Folder, hash events.Hash, size int, rows Rows) Verdict {
	v := s.Accept(rec)
	s.Next = offset + 1
	if v == Accepted && rec.Kind != events.KindClaim {
		s.apply(rec, image, by, hash, rows)
		s.At = offset
		if rec.Kind == events.KindDecision { // carries must not bring the next round about
			s.Bytes += int64(size)
		}
	}
	return v
}

// Position is the mark of one of the shard's inputs, made when there is none.
func (s *State) Position(tp TP) *Mark { return s.Positions.of(tp) }

// Known reports whether the input has a position (L8).
func (s *State) Known(tp TP) bool { return s.Positions[tp] != nil }

// Origin is the mark of a foreign input partition, made when there is none.
func (s *State) Origin(tp TP) *Mark { return s.Origins.of(tp) }

// Own says that the caller's claim is the current one and its chain whole.
func (s *State) Own(n events.Nonce) bool { return s.Claimed && !s.Broken && s.Nonce == n }

// trust takes a checkpoint at the log's start for all that went before it.
func (s *State) trust(rec *events.Record) {
	c := rec.Checkpoint
	s.Term, s.Nonce, s.Claim, s.Claimed = rec.Term, rec.Nonce, c.Claim, true
	s.Seq, s.Hash, s.Time = rec.Seq-1, rec.Prev, rec.Time
	s.Positions, s.Origins = marksOf(c.Positions), marksOf(c.Origins)
	s.progress(&c.Progress)
}

// Accept applies the rule of who may append (L1, L2) to the next record of the log. The rule needs no
// offset, so a copied journal is read alike.
func (s *State) Accept(rec *events.Record) Verdict {
	if rec.Kind == events.KindClaim {
		// The last claim in the log wins, whatever its term. The same claim again, from a retried batch,
		// changes nothing: the chain goes on where it was.
		if mutant.On("journal-first-claim-of-a-term-wins") && rec.Term <= s.Term && s.Claimed {
			return Foreign
		}
		s.Term = max(s.Term, rec.Term)
		s.Nonce, s.Claim, s.Claimed, s.Broken = rec.Nonce, *rec.Claim, true, false
		return Accepted
	}
	switch {
	case !s.Claimed || rec.Nonce != s.Nonce && !mutant.On("journal-nonce-unchecked"):
		return Foreign
	case s.Broken && !mutant.On("journal-gap-not-final"):
		return Ended
	case rec.Seq <= s.Seq:
		return Duplicate
	case rec.Seq != s.Seq+1 && !mutant.On("journal-seq-unchecked") || rec.Prev != s.Hash && !mutant.On("journal-hash-unchecked"):
		s.Broken = true
		return Gap
	}
	return Accepted
}

// Apply makes what an accepted record changes: an owner calls it for the record it is about to append, a
// reader through Fold. image is that of the record's decision, for who has it already; nil: it is made.
func (s *State) Apply(rec *events.Record, image Image, hash events.Hash, rows Rows) {
	s.apply(rec, image, nil, hash, rows)
}

func (s *State) apply(rec *events.Record, image Image, by *Folder, hash events.Hash, rows Rows) {
	s.Seq, s.Hash, s.Time = rec.Seq, hash, max(s.Time, rec.Time)
	switch rec.Kind {
	case events.KindDecision:
		if image == nil && by == nil {
			image = AppendImage(make([]byte, 0, ImageSize(rec.Decision)), rec.Decision)
		}
		s.decision(rec.Decision, image, by, rec.Seq, rows)
	case events.KindCarry:
		for i := range rec.Carry.Rows {
			r := &rec.Carry.Rows[i]
			rows.Set(r.Key, r.Due, r.Due, r.Value, rec.Seq)
		}
	case events.KindCheckpoint:
		s.Checkpoint, s.Bytes = rec.Seq, 0
	}
}

// Image is what a decision's rows are made of beside the values that it holds itself: the keys of its entries and rows,
// in their order, and then each entry, its length before it. An owner applies a record twice, and prints it once.
type Image []byte

// ImageSize is what AppendImage appends, in bytes, rather more than less.
func ImageSize(d *events.Decision) int {
	size := events.RowKeySize * (len(d.Entries) + len(d.Rows))
	for i := range d.Entries {
		e := &d.Entries[i]
		size += len(e.Step) + len(e.Code) + len(e.Message) + len(e.Who) + len(e.Unknown) + 48
	}
	return size
}

// AppendImage appends a decision's image to dst.
func AppendImage(dst []byte, d *events.Decision) Image {
	dst = appendKeys(dst, d)
	for i := range d.Entries {
		dst = append(dst, 0, 0, 0, 0)
		at := len(dst)
		dst = d.Entries[i].Encode(dst)
		binary.BigEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
	}
	return dst
}

// appendKeys appends the keys of a decision's entries and rows.
func appendKeys(dst []byte, d *events.Decision) []byte {
	for i := range d.Entries {
		dst = events.AppendRowKey(dst, d.Instance, events.RowRef{Part: events.PartHistory, N: d.FirstRow + uint64(i)})
	}
	for i := range d.Rows {
		dst = events.AppendRowKey(dst, d.Whose(&d.Rows[i]), d.Rows[i].Ref)
	}
	return dst
}

// cut takes the first n bytes off.
func (m *Image) cut(n int) []byte {
	b := (*m)[:n:n]
	*m = (*m)[n:]
	return b
}

func (s *State) decision(d *events.Decision, image Image, by *Folder, seq uint64, rows Rows) {
	if d.Purge && !mutant.On("journal-purge-ignored") {
		rows.DeleteRange(events.InstanceRange(d.Instance))
	}
	var keys, entries Image
	if by != nil {
		by.keys = appendKeys(by.keys[:0], d)
		keys = by.keys
	} else {
		keys, entries = image, image[events.RowKeySize*(len(d.Entries)+len(d.Rows)):]
	}
	for i := range d.Entries {
		var value []byte
		if by != nil {
			value = by.decoder.Entries()[i]
		} else {
			value = entries.cut(int(binary.BigEndian.Uint32(entries.cut(4))))
		}
		rows.Set(keys.cut(events.RowKeySize), 0, 0, value, seq)
	}
	for i := range d.Rows {
		r := &d.Rows[i]
		key := keys.cut(events.RowKeySize)
		if r.Gone && !mutant.On("journal-row-stays") {
			rows.Delete(key, r.WasDue, seq)
		} else {
			rows.Set(key, r.Due, r.WasDue, r.Value, seq)
		}
	}
	// Of several records that answer one input the last finishes it: who continues after an earlier one takes it again,
	// and each of its entities knows what it has had (L6).
	if in := &d.Input; in.Topic != "" && (!in.More || mutant.On("journal-first-record-finishes")) {
		m := s.Positions.of(TP{in.Topic, in.Partition})
		m.Raise(in.Low)
		m.Add(in.Offset)
		if o := in.Origin; o != nil {
			m := s.Origins.of(TP{o.Topic, o.Partition})
			m.Raise(o.Low)
			m.Add(o.Offset)
		}
	}
	if d.Progress != nil {
		s.progress(d.Progress)
	}
}

func (s *State) progress(p *events.Progress) {
	for _, x := range p.Positions {
		m := s.Positions.of(TP{x.Topic, x.Partition})
		if x.TopicID != [16]byte{} {
			m.TopicID = x.TopicID
		}
		m.Raise(x.Low)
	}
	if p.EmittedSeq > s.EmittedSeq {
		s.EmittedSeq = p.EmittedSeq
	}
	for _, t := range p.Emitted {
		s.Emitted[t.Topic] = max(s.Emitted[t.Topic], t.Seq)
	}
	maps.DeleteFunc(s.Emitted, func(_ string, seq uint64) bool { return seq <= s.EmittedSeq })
}

// EmittedOn reports whether what the record seq emits to topic is known to be acknowledged.
func (s *State) EmittedOn(topic string, seq uint64) bool {
	return seq <= s.EmittedSeq || seq <= s.Emitted[topic]
}

// NewCheckpoint is the body of a checkpoint appended now.
func (s *State) NewCheckpoint() *events.Checkpoint {
	return &events.Checkpoint{
		Positions: s.Positions.list(),
		Origins:   s.Origins.list(),
		Progress:  events.Progress{EmittedSeq: s.EmittedSeq, Emitted: s.emitted()},
		Claim:     s.Claim,
	}
}

func (s *State) emitted() []events.TopicProgress {
	var out []events.TopicProgress
	for _, t := range slices.Sorted(maps.Keys(s.Emitted)) {
		out = append(out, events.TopicProgress{Topic: t, Seq: s.Emitted[t]})
	}
	return out
}

// Clone is a deep copy: the owner decides on one that runs ahead of what is acknowledged.
func (s *State) Clone() *State {
	c := *s
	c.Positions, c.Origins = s.Positions.clone(), s.Origins.clone()
	c.Emitted = maps.Clone(s.Emitted)
	return &c
}

// Encode prints the state as a store keeps it. The bytes are those of a checkpoint record, with the fields
// of the chain that a checkpoint has in its place in the log.
func (s *State) Encode() []byte {
	r := events.Record{Kind: events.KindCheckpoint, Nonce: s.Nonce, Term: s.Term, Seq: s.Seq, Prev: s.Hash, Time: s.Time, Checkpoint: s.NewCheckpoint()}
	var b []byte
	num := func(n protowire.Number, v uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	num(1, protowire.EncodeBool(s.Claimed))
	num(2, protowire.EncodeBool(s.Broken))
	num(3, uint64(s.Next))
	num(4, uint64(s.At))
	num(5, uint64(s.EmitFrom))
	num(6, s.Checkpoint)
	num(7, uint64(s.Bytes))
	b = protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), s.TopicID[:])
	return r.Encode(protowire.AppendTag(b, 15, protowire.BytesType))
}

// DecodeState reads what Encode printed.
func DecodeState(b []byte) (*State, error) {
	bad := func(n int) error {
		return fmt.Errorf("state row: %w: %w", events.ErrMalformed, protowire.ParseError(n))
	}
	s := NewState()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, bad(n)
		}
		b = b[n:]
		if num == 15 {
			r, err := events.DecodeRecord(b)
			if err != nil {
				return nil, fmt.Errorf("state row: %w", err)
			}
			if r.Checkpoint == nil {
				return nil, fmt.Errorf("state row: %w: not a checkpoint", events.ErrMalformed)
			}
			claimed := s.Claimed
			s.trust(r)
			s.Claimed, s.Seq, s.Hash = claimed, r.Seq, r.Prev
			return s, nil
		}
		if num == 8 && typ == protowire.BytesType {
			id, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, bad(n)
			}
			copy(s.TopicID[:], id)
			b = b[n:]
			continue
		}
		if typ != protowire.VarintType {
			return nil, fmt.Errorf("state row: %w: field %d", events.ErrMalformed, num)
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, bad(n)
		}
		b = b[n:]
		switch num {
		case 1:
			s.Claimed = v != 0
		case 2:
			s.Broken = v != 0
		case 3:
			s.Next = int64(v)
		case 4:
			s.At = int64(v)
		case 5:
			s.EmitFrom = int64(v)
		case 6:
			s.Checkpoint = v
		case 7:
			s.Bytes = int64(v)
		}
	}
	return nil, fmt.Errorf("state row: %w: cut short", events.ErrMalformed)
}
