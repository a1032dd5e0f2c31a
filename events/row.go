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
	PartQueue   Part = 5 // Queued; N counts from 0: what came for an instance that could not take it yet
	PartAnswer  Part = 6 // Answer; N is AnswerNumber of the action's message id

	// Rows of the other entities of a shard, each under an id of its own (CorrelationID, KeyID).
	PartCorrelation Part = 7 // Correlation; N is 0
	PartEvent       Part = 8 // KeptEvent; N is BufferedEvent.N
	PartKey         Part = 9 // KeyState; N is 0
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
	case PartQueue:
		return "queue"
	case PartAnswer:
		return "answer"
	case PartCorrelation:
		return "correlation"
	case PartEvent:
		return "event"
	case PartKey:
		return "key"
	}
	return fmt.Sprintf("part-%d", uint8(p))
}

// RowRef names a row within its instance.
type RowRef struct {
	Part Part
	N    uint64
}

// RowChange sets one row, or removes it.
type RowChange struct {
	Of      InstanceID // whose row it is; zero: that of the decision's instance
	Gone    bool       // the row is removed; Value and Due are empty
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
	if !r.Of.IsZero() {
		b.message(6, r.Of[:])
	}
	b.bool(7, r.Gone)
	*b = append(*b, r.Unknown...)
}

func (r *RowChange) decode(f reader) error {
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
		case 6:
			f.fixed(r.Of[:])
		case 7:
			r.Gone = f.bool()
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
	return AppendRowKey(make([]byte, 0, RowKeySize), id, ref)
}

// RowKeySize is the length of a RowKey in bytes.
const RowKeySize = 26

// AppendRowKey appends RowKey(id, ref) to dst.
func AppendRowKey(dst []byte, id InstanceID, ref RowRef) []byte {
	dst = append(dst, FamilyInstance)
	dst = append(dst, id[:]...)
	dst = append(dst, byte(ref.Part))
	return binary.BigEndian.AppendUint64(dst, ref.N)
}

// ParseRowKey undoes RowKey; ok is false for a key of another family.
func ParseRowKey(k []byte) (id InstanceID, ref RowRef, ok bool) {
	if len(k) != RowKeySize || k[0] != FamilyInstance {
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
	ParkedIn   State // of Parked and Suspended: the state it was stopped in, Running or Compensating
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

	// NextNode is the number of the next node row that a loop takes; 0: none was taken, it is the number of
	// the plan's nodes. The rows of a plan's own nodes have the nodes' numbers; each iteration of a loop has rows of its own.
	NextNode uint32
	// Partial: a scope of the running instance was, or is being, undone: a node's direction is that of the
	// nodes above it, not the instance's alone.
	Partial bool
	// QueueFirst and QueueNext are the numbers of the oldest queued row and of the next one; equal: none.
	QueueFirst, QueueNext uint64
	Answers               uint32 // PartAnswer rows
	Waits                 uint32 // the first Wait for a signal that is open: 0 for none, else the row's number plus one
	Savepoint             string // of Compensating back to a save-point that an operator named: the Try's name

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
	b.uint(18, uint64(h.NextNode))
	b.bool(19, h.Partial)
	b.uint(20, h.QueueFirst)
	b.uint(21, h.QueueNext)
	b.uint(22, uint64(h.Answers))
	b.string(23, h.Savepoint)
	b.uint(24, uint64(h.Waits))
	return append(b, h.Unknown...)
}

// DecodeHead reads what Encode wrote. The result aliases p.
func DecodeHead(p []byte) (*Head, error) {
	h := &Head{}
	f := reader{in: p}
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
		case 18:
			h.NextNode = f.uint32()
		case 19:
			h.Partial = f.bool()
		case 20:
			h.QueueFirst = f.uint()
		case 21:
			h.QueueNext = f.uint()
		case 22:
			h.Answers = f.uint32()
		case 23:
			h.Savepoint = f.string()
		case 24:
			h.Waits = f.uint32()
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
	NodeClosing NodeStatus = 8 // a fork whose join is decided: what of its children is not done is undone, then it is done, or, with Failed, failed
)

func (s NodeStatus) String() string {
	names := [...]string{1: "active", "backoff", "done", "failed", "undoing", "undo-backoff", "undone", "closing"}
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

	// Rows of a loop's iterations have numbers beyond the plan's nodes (see Head.NextNode). Plan is the plan's
	// node plus one, 0 where it is the row's own number; Up is the parent's row, of rows with a Plan.
	Plan, Up uint32
	// The first node of an iteration: Turn is the iteration's number from 0, Item the element it is for as the
	// definition encodes it (ForEach), Prev the first node of the iteration before, 0 for none (While).
	Turn uint32
	Item []byte
	Prev uint32
	// ForEach: Base is the row of the first iteration's first node; iteration i begins that many rows of a body
	// later. While: Base is the row of the latest iteration's first node. Count is the number of iterations
	// there are to be (ForEach), or were begun (While, and any fork from NodeClosing on). Step: Count are the
	// attempts before an operator had it tried again, Base those of its undo: the policy counts from there. Seq: while
	// it goes back to a save-point, Count is the number of that child plus one.
	Base, Count uint32
	// All, ForEach: children that are done, and those that failed.
	Done, Lost uint32
	// Wait: the key it is subscribed under, or the signal's name, while it waits. Its Expiry is when it gives up, and
	// its Answer, held, a Queued.
	Key string
	// Wait for a signal: NextWait links the list that begins at Head.Waits, as NextHeld does.
	NextWait uint32
	// A node other than a step that failed: why. Step is the step that did.
	Code, Message, Step string

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
	b.uint(15, uint64(n.Plan))
	b.uint(16, uint64(n.Up))
	b.uint(17, uint64(n.Turn))
	b.bytes(18, n.Item)
	b.uint(19, uint64(n.Prev))
	b.uint(20, uint64(n.Base))
	b.uint(21, uint64(n.Count))
	b.uint(22, uint64(n.Done))
	b.string(23, n.Key)
	b.uint(24, uint64(n.NextWait))
	b.string(25, n.Code)
	b.string(26, n.Message)
	b.string(27, n.Step)
	b.uint(28, uint64(n.Lost))
	return append(b, n.Unknown...)
}

// DecodeNode reads what Encode wrote. The result aliases p.
func DecodeNode(p []byte) (*NodeState, error) {
	both := &struct { // nearly every row has both
		node NodeState
		undo Obligation
	}{}
	n := &both.node
	f := reader{in: p}
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
			n.Undo, both.undo = &both.undo, Obligation{} // of a field that stands twice the last counts
			f.fail(both.undo.decode(f.bytes()))
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
		case 15:
			n.Plan = f.uint32()
		case 16:
			n.Up = f.uint32()
		case 17:
			n.Turn = f.uint32()
		case 18:
			n.Item = f.bytes()
		case 19:
			n.Prev = f.uint32()
		case 20:
			n.Base = f.uint32()
		case 21:
			n.Count = f.uint32()
		case 22:
			n.Done = f.uint32()
		case 23:
			n.Key = f.string()
		case 24:
			n.NextWait = f.uint32()
		case 25:
			n.Code = f.string()
		case 26:
			n.Message = f.string()
		case 27:
			n.Step = f.string()
		case 28:
			n.Lost = f.uint32()
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
	f := reader{in: p}
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
	EntryChosen     EntryKind = 11 // a Choose took the branch that Message names, a Require or While said yes or no
	EntryScope      EntryKind = 12 // a scope of a running instance is undone: Step; Code and Message say why
	EntryEvent      EntryKind = 13 // an event or signal was taken: Step; Message is its id
	EntryEmitted    EntryKind = 14 // an event was emitted: Step
	EntryAction     EntryKind = 15 // an operator acted: Code is the action, Step what it was about, Who and Message (why)
	EntryRefused    EntryKind = 16 // an operator's action was refused: the same, and Message says why not
	EntryQueued     EntryKind = 17 // what came waits in the instance's queue: Message is its id

	EntryUndelivered EntryKind = 18 // Kafka refused an event that was emitted, for good: Step; Message says why
)

func (k EntryKind) String() string {
	names := [...]string{1: "started", "command", "done", "rejected", "unknown", "failed", "transition", "late", "progress", "discharged",
		"chosen", "scope", "event", "emitted", "action", "refused", "queued", "undelivered"}
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
	Who       string // of an operator's action
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
	b.string(11, e.Who)
	return append(b, e.Unknown...)
}

// DecodeEntry reads what Encode wrote. The result aliases p.
func DecodeEntry(p []byte) (*Entry, error) {
	e := &Entry{}
	if err := e.decode(reader{in: p}); err != nil {
		return nil, fmt.Errorf("history row: %w", err)
	}
	return e, nil
}

func (e *Entry) decode(f reader) error {
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
		case 11:
			e.Who = f.string()
		default:
			f.keep()
		}
	}
	e.Unknown = f.unknown
	return f.err
}
