package events

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// InboxKind is the kind of a message that one entity of a shard sends to another, or the API to an instance,
// through an inbox.
type InboxKind uint8

const (
	InboxSubscribe   InboxKind = 1 // an instance to a correlation: a Wait begins
	InboxUnsubscribe InboxKind = 2 // an instance to a correlation: it ended, or was cancelled
	InboxOffer       InboxKind = 3 // a correlation to an instance: an event for a Wait
	InboxTaken       InboxKind = 4 // an instance to a correlation: the offered event is taken
	InboxRefused     InboxKind = 5 // an instance to a correlation: it is not
	InboxAction      InboxKind = 6 // the API to an instance, or to a key: an operator's action, or a signal
	InboxDenied      InboxKind = 7 // a correlation to an instance: as many wait for the key as may, and its Wait does not
)

func (k InboxKind) String() string {
	names := [...]string{1: "subscribe", "unsubscribe", "offer", "taken", "refused", "action", "denied"}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("message-%d", uint8(k))
}

// InboxMessage is what travels through an inbox besides forwarded records.
type InboxMessage struct {
	Kind InboxKind
	To   InstanceID // the entity it is for; it names the shard
	From Waiter     // the instance's Wait: who subscribes, takes, refuses, or is offered to

	// Of subscribe: the correlation's names, so that its row can be read by people.
	Definition, Topic, Type, Key string

	// Of offer, taken and refused.
	Correlation InstanceID // who offers
	EventID     string
	Payload     []byte // of offer: the event's value
	Trace       []Header
	Time        int64 // of offer: the event's time, ms since 1970

	Action  *Action // of InboxAction
	Unknown []byte
}

// ActionKind is what an operator does to an instance. The names are stable: they stand in the journal, the
// API and the command line.
type ActionKind string

const (
	ActionSignal     ActionKind = "signal"     // Name, Payload
	ActionRetry      ActionKind = "retry"      // of a step or an undo that is parked; with Payload: retry edited, a new execution
	ActionResolve    ActionKind = "resolve"    // of a step or an undo: Outcome says what happened
	ActionSkip       ActionKind = "skip"       // a step that is parked counts as done without its effect
	ActionCompensate ActionKind = "compensate" // now, or back to the save-point Name
	ActionCancel     ActionKind = "cancel"     // compensate, unless the pivot is decided
	ActionSuspend    ActionKind = "suspend"
	ActionResume     ActionKind = "resume"
	ActionTerminate  ActionKind = "terminate"  // final at once; what is owed stays owed, and is listed
	ActionPatchData  ActionKind = "patch-data" // Payload: a JSON merge patch (RFC 7396) of the saga's data
)

// Action is an operator's action, or a signal. Who and Why are kept in the instance's history (G10).
type Action struct {
	ID   string // the client's message id: the same one again gets the first answer (L22)
	Kind ActionKind
	Who  string
	Why  string
	Time int64 // when it was sent, ms since 1970
	// Definition and Key address the live instance of a business key; empty where To is an instance.
	Definition, Key string
	Step            string // the step it is about, as its history names it; empty: the parked one
	Name            string // of a signal, or a save-point
	Undo            bool   // it is about the step's undo
	Outcome         string // of resolve: done, rejected or compensated
	Payload         []byte
	PastPivot       bool // compensate although the pivot is decided
	Unknown         []byte
}

// Bounds of an action, in bytes. An API refuses what is beyond them.
const (
	MaxWhoBytes = 256
	MaxWhyBytes = 1024
)

// Encode appends the message's bytes to dst.
func (m *InboxMessage) Encode(dst []byte) []byte {
	b := buffer(dst)
	b.uint(1, uint64(m.Kind))
	b.id(2, m.To)
	at := b.begin(3)
	m.From.encode(&b)
	b.end(at)
	b.string(4, m.Definition)
	b.string(5, m.Topic)
	b.string(6, m.Type)
	b.string(7, m.Key)
	b.id(8, m.Correlation)
	b.string(9, m.EventID)
	b.bytes(10, m.Payload)
	for i := range m.Trace {
		at := b.begin(11)
		m.Trace[i].encode(&b)
		b.end(at)
	}
	b.int(12, m.Time)
	if a := m.Action; a != nil {
		at := b.begin(13)
		a.encode(&b)
		b.end(at)
	}
	return append(b, m.Unknown...)
}

func (a *Action) encode(b *buffer) {
	b.string(1, a.ID)
	b.string(2, string(a.Kind))
	b.string(3, a.Who)
	b.string(4, a.Why)
	b.int(5, a.Time)
	b.string(6, a.Definition)
	b.string(7, a.Key)
	b.string(8, a.Step)
	b.string(9, a.Name)
	b.bool(10, a.Undo)
	b.string(11, a.Outcome)
	b.bytes(12, a.Payload)
	b.bool(13, a.PastPivot)
	*b = append(*b, a.Unknown...)
}

// DecodeInboxMessage reads what Encode wrote. The result aliases p. Damaged bytes give ErrMalformed.
func DecodeInboxMessage(p []byte) (*InboxMessage, error) {
	m := &InboxMessage{}
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			m.Kind = InboxKind(f.uint8())
		case 2:
			f.fixed(m.To[:])
		case 3:
			m.From = Waiter{}
			f.fail(m.From.decode(f.bytes()))
		case 4:
			m.Definition = f.string()
		case 5:
			m.Topic = f.string()
		case 6:
			m.Type = f.string()
		case 7:
			m.Key = f.string()
		case 8:
			f.fixed(m.Correlation[:])
		case 9:
			m.EventID = f.string()
		case 10:
			m.Payload = f.bytes()
		case 11:
			if h, whole := f.header(); whole {
				*grow(&m.Trace, &f) = h
			}
		case 12:
			m.Time = f.int()
		case 13:
			f.fail(fresh(&m.Action).decode(f.bytes()))
		default:
			f.keep()
		}
	}
	m.Unknown = f.unknown
	if f.err != nil {
		return nil, fmt.Errorf("inbox message: %w", f.err)
	}
	return m, nil
}

func (a *Action) decode(p []byte) error {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			a.ID = f.string()
		case 2:
			a.Kind = ActionKind(f.string())
		case 3:
			a.Who = f.string()
		case 4:
			a.Why = f.string()
		case 5:
			a.Time = f.int()
		case 6:
			a.Definition = f.string()
		case 7:
			a.Key = f.string()
		case 8:
			a.Step = f.string()
		case 9:
			a.Name = f.string()
		case 10:
			a.Undo = f.bool()
		case 11:
			a.Outcome = f.string()
		case 12:
			a.Payload = f.bytes()
		case 13:
			a.PastPivot = f.bool()
		default:
			f.keep()
		}
	}
	a.Unknown = f.unknown
	return f.err
}

// HeaderMessage is internal: it marks a record of an inbox whose value is an InboxMessage. Its value is the
// message's Origin; it is empty on what the API sends, which is recognised by the action's id.
const HeaderMessage = "skald-message"

// WrapMessage makes the inbox record of a message. origin is that of an emitted one: the sender's journal
// partition, and as offset MessageOffset of the record and the emission; nil: the API's.
func WrapMessage(payload []byte, to InstanceID, origin *Origin) Message {
	var b buffer
	if origin != nil {
		origin.encode(&b)
	}
	return Message{Key: to[:], Value: payload, Headers: []Header{{HeaderMessage, b}}}
}

// MessageOffset orders what a shard sends to inboxes: by the sequence of the record that emits it, and its place
// among that record's emissions, below 65,536.
func MessageOffset(seq uint64, ordinal int) int64 { return int64(seq<<16 | uint64(ordinal)&0xffff) }

// UnwrapMessage undoes WrapMessage on a record read from an inbox. ok is false when it is no InboxMessage; what
// is one and cannot be read is a *PoisonError.
func UnwrapMessage(m *Message) (msg *InboxMessage, origin *Origin, ok bool, err error) {
	var raw []byte
	for i := range m.Headers {
		if m.Headers[i].Key == HeaderMessage {
			if ok {
				return nil, nil, true, &PoisonError{PoisonForward, "two origins"}
			}
			ok, raw = true, m.Headers[i].Value
		}
	}
	if !ok {
		return nil, nil, false, nil
	}
	if len(raw) > 0 {
		origin = &Origin{}
		if err := origin.decode(raw); err != nil {
			return nil, nil, true, &PoisonError{PoisonForward, err.Error()}
		}
		if !isTopic(origin.Topic) || origin.Offset < 0 || origin.Partition < 0 || origin.Low < 0 {
			return nil, nil, true, &PoisonError{PoisonForward, "an origin needs topic, partition, offset and low mark"}
		}
	}
	msg, err = DecodeInboxMessage(m.Value)
	switch {
	case err != nil:
		return nil, nil, true, &PoisonError{PoisonUndecodable, err.Error()}
	case msg.To.IsZero():
		return nil, nil, true, &PoisonError{PoisonForward, "a message names whom it is for"}
	case msg.Kind == InboxAction && (msg.Action == nil || msg.Action.ID == ""):
		return nil, nil, true, &PoisonError{PoisonForward, "an action has an id"}
	case msg.Kind != InboxAction && origin == nil:
		return nil, nil, true, &PoisonError{PoisonForward, "a " + msg.Kind.String() + " names its origin"}
	}
	return msg, origin, true, nil
}

// ID is the id of an emitted message, for history: where it was decided.
func (o *Origin) ID() string {
	return o.Topic + "-" + strconv.Itoa(int(o.Partition)) + "-" + strconv.FormatInt(o.Offset>>16, 10) + "-" + strconv.FormatInt(o.Offset&0xffff, 10)
}

func (b *buffer) id(num protowire.Number, id InstanceID) {
	if !id.IsZero() {
		b.message(num, id[:])
	}
}

// header reads a Header. One of a newer shape is kept as unknown: whole is false.
func (f *reader) header() (h Header, whole bool) {
	whole, err := h.decode(f.bytes())
	f.fail(err)
	if !whole {
		f.keep()
	}
	return h, whole
}
