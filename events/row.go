package events

import (
	"encoding/binary"
	"fmt"
)

// A shard's state is a set of rows. An instance is a head and numbered parts (L17): a decision writes the
// few it changed, each whole, so that its cost does not grow with the size of the instance.

// Part tells the parts of an instance.
type Part uint8

const (
	PartHead    Part = 1 // Head; N is 0
	PartData    Part = 2 // the saga's data, as the definition encodes it; N is 0
	PartNode    Part = 3 // NodeState; N is the node's number in the plan
	PartHistory Part = 4 // Entry; N counts from 0
)

func (p Part) String() string {
	switch p {
	case PartHead:
		return "head"
	case PartData:
		return "data"
	case PartNode:
		return "node"
	case PartHistory:
		return "history"
	}
	return fmt.Sprintf("part-%d", uint8(p))
}

// RowRef names a row within its instance.
type RowRef struct {
	Part Part
	N    uint64
}

// RowChange sets one row of the decision's instance.
type RowChange struct {
	Ref     RowRef
	Due     int64 // when a timer fires for this row, ms since 1970; 0: none
	WasDue  int64 // the row's due time before, so that a reader can drop its timer without reading the row
	Value   []byte
	Unknown []byte
}

func (r *RowChange) encode(b *buffer) {
	b.uint(1, uint64(r.Ref.Part))
	b.uint(2, r.Ref.N)
	b.int(3, r.Due)
	b.int(4, r.WasDue)
	b.bytes(5, r.Value)
	*b = append(*b, r.Unknown...)
}

func (r *RowChange) decode(p []byte) error {
	f := reader{rest: p}
	for f.next() {
		switch f.num {
		case 1:
			r.Ref.Part = Part(f.uint8())
		case 2:
			r.Ref.N = f.uint()
		case 3:
			r.Due = f.int()
		case 4:
			r.WasDue = f.int()
		case 5:
			r.Value = f.bytes()
		default:
			f.keep()
		}
	}
	r.Unknown = f.unknown
	return f.err
}

// The first byte of a store key tells its family. Only the families of logical rows are compared, carried
// and rebuilt; timers are derived from the rows they belong to.
const (
	FamilyInstance = 'i' // instance rows: id, part, number
	FamilyTimer    = 't' // derived: due time, then the row's key
	FamilyState    = 's' // the shard's own state
)

// RowKey is the store key of an instance's row.
func RowKey(id InstanceID, ref RowRef) []byte {
	k := make([]byte, 0, 26)
	k = append(k, FamilyInstance)
	k = append(k, id[:]...)
	k = append(k, byte(ref.Part))
	return binary.BigEndian.AppendUint64(k, ref.N)
}

// ParseRowKey undoes RowKey; ok is false for a key of another family.
func ParseRowKey(k []byte) (id InstanceID, ref RowRef, ok bool) {
	if len(k) != 26 || k[0] != FamilyInstance {
		return id, ref, false
	}
	copy(id[:], k[1:17])
	return id, RowRef{Part(k[17]), binary.BigEndian.Uint64(k[18:])}, true
}

// InstanceRange is the half-open range of keys of an instance's rows.
func InstanceRange(id InstanceID) (from, to []byte) {
	from = append([]byte{FamilyInstance}, id[:]...)
	return from, successor(from)
}

// successor is the first key after every key that begins with prefix; prefix is not all 0xff.
func successor(prefix []byte) []byte {
	to := append([]byte(nil), prefix...)
	for i := len(to) - 1; i >= 0; i-- {
		to[i]++
		if to[i] != 0 {
			return to[:i+1]
		}
	}
	return nil
}

// State is the state of an instance.
type State uint8

const (
	Running      State = 1
	Suspended    State = 2
	Compensating State = 3
	Parked       State = 4
	Completed    State = 5
	Compensated  State = 6
	Terminated   State = 7
)

// Final reports whether the state is never left.
func (s State) Final() bool { return s >= Completed && s <= Terminated }

func (s State) String() string {
	switch s {
	case Running:
		return "running"
	case Suspended:
		return "suspended"
	case Compensating:
		return "compensating"
	case Parked:
		return "parked"
	case Completed:
		return "completed"
	case Compensated:
		return "compensated"
	case Terminated:
		return "terminated"
	}
	return fmt.Sprintf("state-%d", uint8(s))
}

// MarshalText makes states readable in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// PivotState is how far the point of no return is.
type PivotState uint8

const (
	PivotAhead   PivotState = 0 // no pivot was decided: failures compensate
	PivotDecided PivotState = 1 // its command was decided and its outcome is open: nothing compensates
	PivotDone    PivotState = 2 // only forward from here
)

// Head is the part of an instance that nearly every decision changes; it stays small. Its due time is the
// saga's deadline while it runs, and its purge when it is final.
type Head struct {
	Definition string
	Version    string
	DefHash    [8]byte
	Key        string // business key
	State      State
	ParkedIn   State // of Parked: the state it was parked in, Running or Compensating
	Pivot      PivotState
	Started    int64  // ms since 1970
	Ended      int64  // 0 until final
	Entries    uint64 // history rows so far
	Code       string // why it compensates, or is parked: a stable code
	Message    string // and for people; at most MaxMessage bytes
	ParkedNode uint32 // of Parked: the node that cannot go on
	Trace      []Header

	// Cause and CauseMessage keep why it failed while Code says why it is parked, or while other branches
	// still run.
	Cause        string
	CauseMessage string
	// Held is the first of the nodes whose input came while the instance was parked: 0 for none, else the
	// node's number plus one. NodeState.NextHeld names the one after it.
	Held uint32

	Unknown []byte
}

// MaxMessage bounds what a row or an entry keeps of an error's text, a stack included, in bytes.
const MaxMessage = 4096

// Encode appends the head's bytes to dst.
func (h *Head) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.string(1, h.Definition)
	b.string(2, h.Version)
	b.message(3, h.DefHash[:])
	b.string(4, h.Key)
	b.uint(5, uint64(h.State))
	b.uint(6, uint64(h.ParkedIn))
	b.uint(7, uint64(h.Pivot))
	b.int(8, h.Started)
	b.int(9, h.Ended)
	b.uint(10, h.Entries)
	b.string(11, h.Code)
	b.string(12, h.Message)
	b.uint(13, uint64(h.ParkedNode))
	for i := range h.Trace {
		at := b.begin(14)
		h.Trace[i].encode(&b)
		b.end(at)
	}
	b.string(15, h.Cause)
	b.string(16, h.CauseMessage)
	b.uint(17, uint64(h.Held))
	return append(b, h.Unknown...)
}

// DecodeHead reads what Encode wrote. The result aliases p.
func DecodeHead(p []byte) (*Head, error) {
	h := &Head{}
	f := reader{rest: p}
	for f.next() {
		switch f.num {
		case 1:
			h.Definition = f.string()
		case 2:
			h.Version = f.string()
		case 3:
			f.fixed(h.DefHash[:])
		case 4:
			h.Key = f.string()
		case 5:
			h.State = State(f.uint8())
		case 6:
			h.ParkedIn = State(f.uint8())
		case 7:
			h.Pivot = PivotState(f.uint8())
		case 8:
			h.Started = f.int()
		case 9:
			h.Ended = f.int()
		case 10:
			h.Entries = f.uint()
		case 11:
			h.Code = f.string()
		case 12:
			h.Message = f.string()
		case 13:
			h.ParkedNode = f.uint32()
		case 14:
			var x Header
			whole, err := x.decode(f.bytes())
			f.fail(err)
			if whole {
				*grow(&h.Trace, &f) = x
			} else {
				f.keep()
			}
		case 15:
			h.Cause = f.string()
		case 16:
			h.CauseMessage = f.string()
		case 17:
			h.Held = f.uint32()
		default:
			f.keep()
		}
	}
	h.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("instance head: %w", f.err)
	}
	return h, nil
}

// NodeStatus is how far a node of the plan is, in one instance.
type NodeStatus uint8

const (
	NodeActive  NodeStatus = 1 // going forward: a step whose command was decided, a Seq or All with an open child, a Wait
	NodeBackoff NodeStatus = 2 // a step between two attempts, forward
	NodeDone    NodeStatus = 3
	NodeFailed  NodeStatus = 4 // it failed; a step may still owe its undo: see Undo
	NodeUndoing NodeStatus = 5 // going backward
	NodeUndoGap NodeStatus = 6 // a step between two attempts of its undo
	NodeUndone  NodeStatus = 7 // nothing of it is owed any more
)

func (s NodeStatus) String() string {
	names := [...]string{1: "active", "backoff", "done", "failed", "undoing", "undo-backoff", "undone"}
	if int(s) < len(names) && names[s] != "" {
		return names[s]
	}
	return fmt.Sprintf("status-%d", uint8(s))
}

// NodeState is the row of one node of the plan. Its due time is the attempt's time-out, the end of a
// backoff, the end of a Wait, or now for a fan-out that continues in a further decision.
type NodeState struct {
	Status NodeStatus

	// Seq: the child that is open. All: forward, the next child to start; backward, how many children are
	// left to look at, from the first: a walk back begins with the last that was started.
	Index uint32
	// All: children started and not finished, in the current direction.
	Active uint32
	// All: a child failed (let-it-finish waits for the others). Step: an answer that ends it was taken while
	// its instance was parked.
	Failed bool

	// Step.
	Execution uint32 // from 1
	Attempts  uint32 // forward attempts of this execution, the open one included
	Rejected  uint64 // bit i: attempt i+1 was rejected; later attempts are never counted as discharged (L19)
	Payload   []byte // of the forward command, kept while it may be sent again
	Undo      *Obligation
	Answer    []byte // taken while parked: the payload of a done, or, with Failed, the code of what ended the step
	HasAnswer bool   // a done was taken
	Expiry    int64  // of the last forward attempt, ms since 1970

	// Held: its input waits until the instance is no longer parked. NextHeld links the list that begins at
	// Head.Held: 0 for not in it, 1 for its last, else the next node's number plus two.
	Held     bool
	NextHeld uint32

	Unknown []byte
}

// Obligation is what an execution owes: it stands in the record of the command it undoes (G3).
type Obligation struct {
	Topic    string
	Type     string
	Payload  []byte
	Attempts uint32 // attempts of the undo, the open one included
	Unknown  []byte
}

// Encode appends the node's bytes to dst.
func (n *NodeState) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.uint(1, uint64(n.Status))
	b.uint(2, uint64(n.Index))
	b.uint(3, uint64(n.Active))
	b.bool(4, n.Failed)
	b.uint(5, uint64(n.Execution))
	b.uint(6, uint64(n.Attempts))
	b.uint(7, n.Rejected)
	b.bytes(8, n.Payload)
	if n.Undo != nil {
		at := b.begin(9)
		n.Undo.encode(&b)
		b.end(at)
	}
	b.bytes(10, n.Answer)
	b.bool(11, n.HasAnswer)
	b.int(12, n.Expiry)
	b.bool(13, n.Held)
	b.uint(14, uint64(n.NextHeld))
	return append(b, n.Unknown...)
}

// DecodeNode reads what Encode wrote. The result aliases p.
func DecodeNode(p []byte) (*NodeState, error) {
	n := &NodeState{}
	f := reader{rest: p}
	for f.next() {
		switch f.num {
		case 1:
			n.Status = NodeStatus(f.uint8())
		case 2:
			n.Index = f.uint32()
		case 3:
			n.Active = f.uint32()
		case 4:
			n.Failed = f.bool()
		case 5:
			n.Execution = f.uint32()
		case 6:
			n.Attempts = f.uint32()
		case 7:
			n.Rejected = f.uint()
		case 8:
			n.Payload = f.bytes()
		case 9:
			f.fail(fresh(&n.Undo).decode(f.bytes()))
		case 10:
			n.Answer = f.bytes()
		case 11:
			n.HasAnswer = f.bool()
		case 12:
			n.Expiry = f.int()
		case 13:
			n.Held = f.bool()
		case 14:
			n.NextHeld = f.uint32()
		default:
			f.keep()
		}
	}
	n.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("node row: %w", f.err)
	}
	return n, nil
}

func (o *Obligation) encode(b *buffer) {
	b.string(1, o.Topic)
	b.string(2, o.Type)
	b.bytes(3, o.Payload)
	b.uint(4, uint64(o.Attempts))
	*b = append(*b, o.Unknown...)
}

func (o *Obligation) decode(p []byte) error {
	f := reader{rest: p}
	for f.next() {
		switch f.num {
		case 1:
			o.Topic = f.string()
		case 2:
			o.Type = f.string()
		case 3:
			o.Payload = f.bytes()
		case 4:
			o.Attempts = f.uint32()
		default:
			f.keep()
		}
	}
	o.Unknown = f.unknown
	return f.err
}

// EntryKind is the kind of a fact in an instance's history. The names are for people and tools; nothing
// decides by an entry.
type EntryKind uint8

const (
	EntryStarted    EntryKind = 1  // the instance; Message is the starting message's id
	EntryCommand    EntryKind = 2  // a command was decided: Step, Phase, Execution, Attempt
	EntryDone       EntryKind = 3  // a step, Do or Wait, or an undo, is done
	EntryRejected   EntryKind = 4  // an attempt was rejected: Code, Message
	EntryUnknown    EntryKind = 5  // an attempt's outcome is unknown: Code is timeout, retry or refused
	EntryFailed     EntryKind = 6  // a step failed for good
	EntryTransition EntryKind = 7  // the instance's state: To, with Code and Message
	EntryLate       EntryKind = 8  // a reply that changed only what is owed, or nothing: Outcome in Code
	EntryProgress   EntryKind = 9  // a participant is still at it
	EntryDischarged EntryKind = 10 // nothing is owed for a step: every attempt was rejected, or its undo is done
)

func (k EntryKind) String() string {
	names := [...]string{1: "started", "command", "done", "rejected", "unknown", "failed", "transition", "late", "progress", "discharged"}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("entry-%d", uint8(k))
}

// Entry is one fact. Its time is the time of the decision that found it.
type Entry struct {
	Kind      EntryKind
	Time      int64  // ms since 1970
	Step      string // the node's name; empty for facts about the instance
	Node      uint32
	Phase     Phase
	Execution uint32
	Attempt   uint32
	Code      string
	Message   string
	To        State
	Unknown   []byte
}

func (e *Entry) encode(b *buffer) { *b = e.Encode(*b) }

// Encode appends the entry's bytes to dst.
func (e *Entry) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.uint(1, uint64(e.Kind))
	b.int(2, e.Time)
	b.string(3, e.Step)
	b.uint(4, uint64(e.Node))
	b.uint(5, uint64(e.Phase))
	b.uint(6, uint64(e.Execution))
	b.uint(7, uint64(e.Attempt))
	b.string(8, e.Code)
	b.string(9, e.Message)
	b.uint(10, uint64(e.To))
	return append(b, e.Unknown...)
}

// DecodeEntry reads what Encode wrote. The result aliases p.
func DecodeEntry(p []byte) (*Entry, error) {
	e := &Entry{}
	if err := e.decode(p); err != nil {
		return nil, fmt.Errorf("history row: %w", err)
	}
	return e, nil
}

func (e *Entry) decode(p []byte) error {
	f := reader{rest: p}
	for f.next() {
		switch f.num {
		case 1:
			e.Kind = EntryKind(f.uint8())
		case 2:
			e.Time = f.int()
		case 3:
			e.Step = f.string()
		case 4:
			e.Node = f.uint32()
		case 5:
			e.Phase = Phase(f.uint8())
		case 6:
			e.Execution = f.uint32()
		case 7:
			e.Attempt = f.uint32()
		case 8:
			e.Code = f.string()
		case 9:
			e.Message = f.string()
		case 10:
			e.To = State(f.uint8())
		default:
			f.keep()
		}
	}
	e.Unknown = f.unknown
	return f.err
}
