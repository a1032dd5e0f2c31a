package events

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/skald-io/skald/internal/mutant"
)

// Format is the newest version of the journal's encoding that this build reads and writes. It is the first
// byte of every journal record. Fields may be added without a new format, because readers keep what they do
// not know; a record that an older reader would misunderstand needs one. Which format is written is the
// application's level (rule L13).
//
// Format 2 has rows of other entities in a decision (RowChange.Of), rows that are removed one by one, and
// inputs that are answered by several records (Input.More).
const Format = 2

// Kind is the kind of a journal record.
type Kind uint8

const (
	KindClaim      Kind = 1 // a node takes the shard
	KindDecision   Kind = 2 // one input, and all that follows from it
	KindCarry      Kind = 3 // rows as they are now, so that the journal before them can be dropped
	KindCheckpoint Kind = 4 // all that a reader who starts here must know besides rows
)

func (k Kind) String() string {
	switch k {
	case KindClaim:
		return "claim"
	case KindDecision:
		return "decision"
	case KindCarry:
		return "carry"
	case KindCheckpoint:
		return "checkpoint"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Nonce is the epoch of an owner: 128 random bits, drawn for its claim and written in each of its records.
type Nonce [16]byte

func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// Hash is the first half of the SHA-256 of a record's bytes as they stand in the journal.
type Hash [16]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// HashOf hashes an encoded record.
func HashOf(value []byte) Hash {
	sum := sha256.Sum256(value)
	return Hash(sum[:16])
}

// Record is one record of a shard's journal. Exactly the one body that Kind names is set.
type Record struct {
	// Format is that of the encoding; 0: Format, the newest. DecodeRecord sets it.
	Format uint8
	Kind   Kind
	Nonce  Nonce
	Term   uint64 // claims: the last term the claimer read, plus one; checkpoints: the current one; else 0
	Seq    uint64 // 0 on a claim; on others the last accepted record's plus one, over all epochs
	Prev   Hash   // zero on a claim; on others the hash of the last accepted record
	Time   int64  // the owner's estimate of broker time, ms since 1970; 0 on a claim; never decreases

	Claim      *Claim
	Decision   *Decision
	Carry      *Carry
	Checkpoint *Checkpoint

	Unknown []byte // fields of a newer build, kept as they stood
}

// Claim says who takes the shard, and by what it was written.
type Claim struct {
	Node       string
	Generation int32  // of the consumer group, when it assigned the shard to Node
	Shards     uint32 // of the application; fixed at its creation
	Slots      uint32
	Build      string // of the program, for people: which version wrote this
	Unknown    []byte
}

// Outcome says what became of an input.
type Outcome uint8

const (
	Applied     Outcome = 1 // it changed an instance
	Ignored     Outcome = 2 // a stated rule drops it: Reason names the rule
	Quarantined Outcome = 3 // it stands in the quarantine topic: Reason says why
	Progressed  Outcome = 4 // no input: positions and emission progress alone
)

func (o Outcome) String() string {
	switch o {
	case Applied:
		return "applied"
	case Ignored:
		return "ignored"
	case Quarantined:
		return "quarantined"
	case Progressed:
		return "progress"
	}
	return fmt.Sprintf("outcome-%d", uint8(o))
}

// Decision is the answer to one input. Rows are full images: a reader needs no earlier record to apply one.
type Decision struct {
	Outcome  Outcome
	Reason   string // of Ignored and Quarantined: a stable code, then detail
	Input    Input
	Instance InstanceID // zero when the decision concerns none
	Entries  []Entry    // facts; entry i becomes history row Head.Entries-before + i
	FirstRow uint64     // number of the first entry in the instance's history
	Rows     []RowChange
	Purge    bool // every row of the instance is removed, before Rows are set
	Emits    []Emit
	Progress *Progress
	Unknown  []byte
}

// NeedsFormat is the oldest journal format that can say this decision.
func (d *Decision) NeedsFormat() uint8 {
	if d.Input.More {
		return 2
	}
	for i := range d.Emits {
		if k := d.Emits[i].Kind; k == EmitMessage || k == EmitEvent {
			return 2
		}
	}
	for i := range d.Rows {
		if r := &d.Rows[i]; r.Gone || !r.Of.IsZero() {
			return 2
		}
	}
	return 1
}

// InputKind tells where an input came from.
type InputKind uint8

const (
	InputNone    InputKind = 0
	InputEvent   InputKind = 1 // a domain event
	InputReply   InputKind = 2 // a participant's reply
	InputTimer   InputKind = 3 // a row's due time
	InputRefused InputKind = 4 // a command that Kafka refuses for good
	InputMessage InputKind = 5 // what another shard, or this one, says through an inbox: see InboxMessage
	InputAction  InputKind = 6 // an operator's action, or a signal
)

func (k InputKind) String() string {
	switch k {
	case InputNone:
		return "none"
	case InputEvent:
		return "event"
	case InputReply:
		return "reply"
	case InputTimer:
		return "timer"
	case InputRefused:
		return "refused"
	case InputMessage:
		return "message"
	case InputAction:
		return "action"
	}
	return fmt.Sprintf("input-%d", uint8(k))
}

// Input is what a decision answers. Topic, Partition and Offset locate the record as this shard read it;
// they are empty for timers and refusals.
type Input struct {
	Kind      InputKind
	Topic     string
	Partition int32
	Offset    int64
	Low       int64  // of (Topic, Partition): every input below it is finished once this record is accepted (L6)
	MessageID string // becomes ce_causationid of what is emitted
	Origin    *Origin
	Row       RowRef // of InputTimer: the row whose due time came; of InputRefused: the step's row
	Due       int64  // of InputTimer: that due time, ms since 1970
	// More: further records answer the same input. Its position and its origin are finished with the last one,
	// which has it not.
	More    bool
	Unknown []byte
}

// Origin is where a forwarded message was first read (L7): the sender's input partition and offset, and
// the sender's low mark, below which everything it sent to this inbox is acknowledged.
type Origin struct {
	Topic     string
	Partition int32
	Offset    int64
	Low       int64
	Unknown   []byte
}

// EmitKind tells what is emitted.
type EmitKind uint8

const (
	EmitCommand   EmitKind = 1 // a command: its payload is the Payload (forward) or Undo.Payload of the node's row in the same record
	EmitLifecycle EmitKind = 2 // a public event about the instance, to <app>.lifecycle
	EmitMessage   EmitKind = 3 // an InboxMessage, to the inbox of the shard of To; Payload is its encoding
	EmitEvent     EmitKind = 4 // a domain event of an Emit node: Key, Payload
)

func (k EmitKind) String() string {
	switch k {
	case EmitCommand:
		return "command"
	case EmitLifecycle:
		return "lifecycle"
	case EmitMessage:
		return "message"
	case EmitEvent:
		return "event"
	}
	return fmt.Sprintf("emit-%d", uint8(k))
}

// Emit is a message that leaves once its record is accepted. A command is complete only with the rows of
// its record (see Outgoing), so that its payload stands in the journal once.
type Emit struct {
	Kind      EmitKind
	Topic     string
	Type      string // ce_type
	Step      string // the step's name
	Node      uint32
	Execution uint32
	Attempt   uint32
	Phase     Phase
	Expiry    int64 // ms since 1970; 0: never (compensations)

	Payload []byte     // of EmitMessage and EmitEvent
	Key     string     // of EmitEvent: the record's key
	To      InstanceID // of EmitMessage: the entity it is for
	Unknown []byte
}

// Progress is what the owner has done besides deciding.
type Progress struct {
	Positions []Position // full replacements, partition by partition
	// EmittedSeq: everything emitted by records up to this sequence is acknowledged, for every topic;
	// Emitted names the topics that are further (L14).
	EmittedSeq uint64
	Emitted    []TopicProgress
	Unknown    []byte
}

// Position is how far one input partition is finished: everything below Low is.
type Position struct {
	Topic     string
	TopicID   [16]byte // zero where the broker has none
	Partition int32
	Low       int64
	Ahead     []Span // finished at or above Low, ascending, apart; in checkpoints alone
	Unknown   []byte
}

// Span is a half-open range of offsets.
type Span struct{ From, To int64 }

// TopicProgress is the emission progress of one topic.
type TopicProgress struct {
	Topic   string
	Seq     uint64
	Unknown []byte
}

// Carry holds rows as they are after every earlier record. The last carry of a round has End set to the
// sequence of the round's checkpoint.
type Carry struct {
	Rows    []CarriedRow
	End     uint64
	Unknown []byte
}

// CarriedRow is one row under its full store key.
type CarriedRow struct {
	Key     []byte
	Due     int64
	Value   []byte
	Unknown []byte
}

// Checkpoint is the shard's state besides its rows, before this record.
type Checkpoint struct {
	Positions []Position
	Origins   []Position // for each foreign input partition, the highest low mark received (TopicID unused)
	Progress  Progress   // emission only
	Claim     Claim      // the current one
	Unknown   []byte
}

// Encode appends the record's bytes to dst.
func (r *Record) Encode(dst []byte) []byte {
	format := r.Format
	if format == 0 {
		format = Format
	}
	b := buffer(append(dst, format))
	b.uint(1, uint64(r.Kind))
	b.message(2, r.Nonce[:])
	b.uint(3, r.Term)
	b.uint(4, r.Seq)
	if r.Kind != KindClaim {
		b.message(5, r.Prev[:])
	}
	b.int(6, r.Time)
	if r.Claim != nil {
		at := b.begin(7)
		r.Claim.encode(&b)
		b.end(at)
	}
	if r.Decision != nil {
		at := b.begin(8)
		r.Decision.encode(&b)
		b.end(at)
	}
	if r.Carry != nil {
		at := b.begin(9)
		r.Carry.encode(&b)
		b.end(at)
	}
	if r.Checkpoint != nil {
		at := b.begin(10)
		r.Checkpoint.encode(&b)
		b.end(at)
	}
	return append(b, r.Unknown...)
}

// SizeHint is about how many bytes Encode appends, rather more than less: for a buffer that need not grow.
func (r *Record) SizeHint() int {
	n := 192
	if d := r.Decision; d != nil {
		n += len(d.Reason) + len(d.Input.Topic) + len(d.Input.MessageID)
		for i := range d.Entries {
			e := &d.Entries[i]
			n += 40 + len(e.Step) + len(e.Code) + len(e.Message)
		}
		for i := range d.Rows {
			n += 52 + len(d.Rows[i].Value)
		}
		for i := range d.Emits {
			e := &d.Emits[i]
			n += 64 + len(e.Topic) + len(e.Type) + len(e.Step) + len(e.Payload) + len(e.Key)
		}
	}
	if r.Carry != nil {
		for i := range r.Carry.Rows {
			n += 24 + len(r.Carry.Rows[i].Key) + len(r.Carry.Rows[i].Value)
		}
	}
	return n
}

func (r *Record) decode(b []byte, kept *Decoder) error {
	if len(b) == 0 {
		return fmt.Errorf("journal record: %w: empty", ErrMalformed)
	}
	if b[0] > Format && !mutant.On("events-newer-format-read") {
		return fmt.Errorf("journal record: %w", &NewerFormatError{b[0], claimedBy(b[1:])})
	}
	if b[0] == 0 {
		return fmt.Errorf("journal record: %w: format 0", ErrMalformed)
	}
	r.Format = b[0]
	f := reader{in: b[1:], kept: kept}
	for f.next() {
		switch f.num {
		case 1:
			r.Kind = Kind(f.uint8())
		case 2:
			f.fixed(r.Nonce[:])
		case 3:
			r.Term = f.uint()
		case 4:
			r.Seq = f.uint()
		case 5:
			f.fixed(r.Prev[:])
		case 6:
			r.Time = f.int()
		case 7:
			f.fail(fresh(&r.Claim).decode(f.bytes()))
		case 8:
			f.fail(f.decision(r).decode(f.inner()))
		case 9:
			f.fail(fresh(&r.Carry).decode(f.bytes()))
		case 10:
			f.fail(fresh(&r.Checkpoint).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	r.Unknown = f.unknown
	if f.err != nil {
		return fmt.Errorf("journal record: %w", f.err)
	}
	if why := r.shape(); why != "" {
		return fmt.Errorf("journal record: %w: a %s %s", ErrMalformed, r.Kind, why)
	}
	return nil
}

// shape says what is wrong with a record whose bodies are not the one that its kind names.
func (r *Record) shape() string {
	for _, x := range [...]struct {
		kind Kind
		has  bool
	}{{KindClaim, r.Claim != nil}, {KindDecision, r.Decision != nil}, {KindCarry, r.Carry != nil}, {KindCheckpoint, r.Checkpoint != nil}} {
		switch {
		case x.has && x.kind != r.Kind:
			return "with the body of a " + x.kind.String()
		case !x.has && x.kind == r.Kind:
			return "without its body"
		}
	}
	if r.Kind < KindClaim || r.Kind > KindCheckpoint {
		return "is of no kind this format has"
	}
	return ""
}

func (c *Claim) encode(b *buffer) {
	b.string(1, c.Node)
	b.int(2, int64(c.Generation))
	b.uint(3, uint64(c.Shards))
	b.uint(4, uint64(c.Slots))
	b.string(5, c.Build)
	*b = append(*b, c.Unknown...)
}

func (c *Claim) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			c.Node = f.string()
		case 2:
			c.Generation = f.int32()
		case 3:
			c.Shards = f.uint32()
		case 4:
			c.Slots = f.uint32()
		case 5:
			c.Build = f.string()
		default:
			f.keep()
		}
	}
	c.Unknown = f.unknown
	return f.err
}

func (d *Decision) encode(b *buffer) {
	b.uint(1, uint64(d.Outcome))
	b.string(2, d.Reason)
	if !d.Input.empty() {
		at := b.begin(3)
		d.Input.encode(b)
		b.end(at)
	}
	if !d.Instance.IsZero() {
		b.message(4, d.Instance[:])
	}
	for i := range d.Entries {
		at := b.begin(5)
		d.Entries[i].encode(b)
		b.end(at)
	}
	b.uint(6, d.FirstRow)
	for i := range d.Rows {
		at := b.begin(7)
		d.Rows[i].encode(b)
		b.end(at)
	}
	b.bool(8, d.Purge)
	for i := range d.Emits {
		at := b.begin(9)
		d.Emits[i].encode(b)
		b.end(at)
	}
	if d.Progress != nil {
		at := b.begin(10)
		d.Progress.encode(b)
		b.end(at)
	}
	*b = append(*b, d.Unknown...)
}

func (d *Decision) decode(f reader) error {
	for f.next() {
		switch f.num {
		case 1:
			d.Outcome = Outcome(f.uint8())
		case 2:
			d.Reason = f.string()
		case 3:
			d.Input = Input{}
			f.fail(d.Input.decode(f.inner()))
		case 4:
			f.fixed(d.Instance[:])
		case 5:
			if f.kept != nil {
				f.kept.entries = append(f.kept.entries, f.bytes())
			}
			f.fail(grow(&d.Entries, &f).decode(f.inner()))
		case 6:
			d.FirstRow = f.uint()
		case 7:
			f.fail(grow(&d.Rows, &f).decode(f.inner()))
		case 8:
			d.Purge = f.bool()
		case 9:
			f.fail(grow(&d.Emits, &f).decode(f.inner()))
		case 10:
			f.fail(fresh(&d.Progress).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	d.Unknown = f.unknown
	return f.err
}

func (i *Input) empty() bool {
	return i.Kind == InputNone && i.Topic == "" && i.Partition == 0 && i.Offset == 0 && i.Low == 0 && i.MessageID == "" &&
		i.Origin == nil && i.Row == RowRef{} && i.Due == 0 && !i.More && len(i.Unknown) == 0
}

func (i *Input) encode(b *buffer) {
	b.uint(1, uint64(i.Kind))
	b.string(2, i.Topic)
	b.int(3, int64(i.Partition))
	b.int(4, i.Offset)
	b.int(5, i.Low)
	b.string(6, i.MessageID)
	if i.Origin != nil {
		at := b.begin(7)
		i.Origin.encode(b)
		b.end(at)
	}
	b.uint(8, uint64(i.Row.Part))
	b.uint(9, i.Row.N)
	b.int(10, i.Due)
	b.bool(11, i.More)
	*b = append(*b, i.Unknown...)
}

func (i *Input) decode(f reader) error {
	for f.next() {
		switch f.num {
		case 1:
			i.Kind = InputKind(f.uint8())
		case 2:
			i.Topic = f.string()
		case 3:
			i.Partition = f.int32()
		case 4:
			i.Offset = f.int()
		case 5:
			i.Low = f.int()
		case 6:
			i.MessageID = f.string()
		case 7:
			f.fail(fresh(&i.Origin).decode(f.bytes()))
		case 8:
			i.Row.Part = Part(f.uint8())
		case 9:
			i.Row.N = f.uint()
		case 10:
			i.Due = f.int()
		case 11:
			i.More = f.bool()
		default:
			f.keep()
		}
	}
	i.Unknown = f.unknown
	return f.err
}

func (o *Origin) encode(b *buffer) {
	b.string(1, o.Topic)
	b.int(2, int64(o.Partition))
	b.int(3, o.Offset)
	b.int(4, o.Low)
	*b = append(*b, o.Unknown...)
}

func (o *Origin) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			o.Topic = f.string()
		case 2:
			o.Partition = f.int32()
		case 3:
			o.Offset = f.int()
		case 4:
			o.Low = f.int()
		default:
			f.keep()
		}
	}
	o.Unknown = f.unknown
	return f.err
}

func (e *Emit) encode(b *buffer) {
	b.uint(1, uint64(e.Kind))
	b.string(2, e.Topic)
	b.string(3, e.Type)
	b.string(4, e.Step)
	b.uint(5, uint64(e.Node))
	b.uint(6, uint64(e.Execution))
	b.uint(7, uint64(e.Attempt))
	b.uint(8, uint64(e.Phase))
	b.int(9, e.Expiry)
	b.bytes(10, e.Payload)
	b.string(11, e.Key)
	if !e.To.IsZero() {
		b.message(12, e.To[:])
	}
	*b = append(*b, e.Unknown...)
}

func (e *Emit) decode(f reader) error {
	for f.next() {
		switch f.num {
		case 1:
			e.Kind = EmitKind(f.uint8())
		case 2:
			e.Topic = f.string()
		case 3:
			e.Type = f.string()
		case 4:
			e.Step = f.string()
		case 5:
			e.Node = f.uint32()
		case 6:
			e.Execution = f.uint32()
		case 7:
			e.Attempt = f.uint32()
		case 8:
			e.Phase = Phase(f.uint8())
		case 9:
			e.Expiry = f.int()
		case 10:
			e.Payload = f.bytes()
		case 11:
			e.Key = f.string()
		case 12:
			f.fixed(e.To[:])
		default:
			f.keep()
		}
	}
	e.Unknown = f.unknown
	return f.err
}

func (p *Progress) encode(b *buffer) {
	for i := range p.Positions {
		at := b.begin(1)
		p.Positions[i].encode(b)
		b.end(at)
	}
	b.uint(2, p.EmittedSeq)
	for i := range p.Emitted {
		at := b.begin(3)
		p.Emitted[i].encode(b)
		b.end(at)
	}
	*b = append(*b, p.Unknown...)
}

func (p *Progress) decode(buf []byte) error {
	f := reader{in: buf}
	for f.next() {
		switch f.num {
		case 1:
			f.fail(grow(&p.Positions, &f).decode(f.bytes()))
		case 2:
			p.EmittedSeq = f.uint()
		case 3:
			f.fail(grow(&p.Emitted, &f).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	p.Unknown = f.unknown
	return f.err
}

func (p *Position) encode(b *buffer) {
	b.string(1, p.Topic)
	if p.TopicID != [16]byte{} {
		b.message(2, p.TopicID[:])
	}
	b.int(3, int64(p.Partition))
	b.int(4, p.Low)
	if len(p.Ahead) > 0 {
		open := b.begin(5) // packed: each bound as its distance from the one before
		at := p.Low
		for _, s := range p.Ahead {
			*b = protowire.AppendVarint(protowire.AppendVarint(*b, uint64(s.From-at)), uint64(s.To-s.From))
			at = s.To
		}
		b.end(open)
	}
	*b = append(*b, p.Unknown...)
}

func (p *Position) decode(buf []byte) error {
	var ahead []byte
	f := reader{in: buf}
	for f.next() {
		switch f.num {
		case 1:
			p.Topic = f.string()
		case 2:
			f.fixed(p.TopicID[:])
		case 3:
			p.Partition = f.int32()
		case 4:
			p.Low = f.int()
		case 5:
			ahead = f.bytes()
		default:
			f.keep()
		}
	}
	p.Unknown = f.unknown
	f.fail(p.decodeAhead(ahead))
	return f.err
}

func (p *Position) decodeAhead(b []byte) error {
	bounds := 0
	for _, c := range b {
		if c < 0x80 {
			bounds++
		}
	}
	if len(b) == 0 {
		return nil
	}
	p.Ahead = make([]Span, 0, bounds/2)
	at := p.Low
	for len(b) > 0 {
		gap, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return fmt.Errorf("%w: what is finished ahead of a position", ErrMalformed)
		}
		size, m := protowire.ConsumeVarint(b[n:])
		from := at + int64(gap)
		to := from + int64(size)
		if m < 0 || from < at || to <= from {
			return fmt.Errorf("%w: what is finished ahead of a position", ErrMalformed)
		}
		p.Ahead = append(p.Ahead, Span{from, to})
		at, b = to, b[n+m:]
	}
	return nil
}

func (t *TopicProgress) encode(b *buffer) {
	b.string(1, t.Topic)
	b.uint(2, t.Seq)
	*b = append(*b, t.Unknown...)
}

func (t *TopicProgress) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			t.Topic = f.string()
		case 2:
			t.Seq = f.uint()
		default:
			f.keep()
		}
	}
	t.Unknown = f.unknown
	return f.err
}

func (c *Carry) encode(b *buffer) {
	for i := range c.Rows {
		at := b.begin(1)
		c.Rows[i].encode(b)
		b.end(at)
	}
	b.uint(2, c.End)
	*b = append(*b, c.Unknown...)
}

func (c *Carry) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			f.fail(grow(&c.Rows, &f).decode(f.bytes()))
		case 2:
			c.End = f.uint()
		default:
			f.keep()
		}
	}
	c.Unknown = f.unknown
	return f.err
}

func (r *CarriedRow) encode(b *buffer) {
	b.bytes(1, r.Key)
	b.int(2, r.Due)
	b.bytes(3, r.Value)
	*b = append(*b, r.Unknown...)
}

func (r *CarriedRow) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			r.Key = f.bytes()
		case 2:
			r.Due = f.int()
		case 3:
			r.Value = f.bytes()
		default:
			f.keep()
		}
	}
	r.Unknown = f.unknown
	return f.err
}

func (c *Checkpoint) encode(b *buffer) {
	for i := range c.Positions {
		at := b.begin(1)
		c.Positions[i].encode(b)
		b.end(at)
	}
	for i := range c.Origins {
		at := b.begin(2)
		c.Origins[i].encode(b)
		b.end(at)
	}
	at := b.begin(3)
	c.Progress.encode(b)
	b.end(at)
	at = b.begin(4)
	c.Claim.encode(b)
	b.end(at)
	*b = append(*b, c.Unknown...)
}

func (c *Checkpoint) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			f.fail(grow(&c.Positions, &f).decode(f.bytes()))
		case 2:
			f.fail(grow(&c.Origins, &f).decode(f.bytes()))
		case 3:
			c.Progress = Progress{}
			f.fail(c.Progress.decode(f.bytes()))
		case 4:
			c.Claim = Claim{}
			f.fail(c.Claim.decode(f.bytes()))
		default:
			f.keep()
		}
	}
	c.Unknown = f.unknown
	return f.err
}
