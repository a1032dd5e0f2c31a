package events

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/skald-io/skald/internal/mutant"
)

// Header names of the CloudEvents 1.0 Kafka binding, binary mode, and of Skald's extensions to it.
const (
	HeaderSpecVersion    = "ce_specversion"
	HeaderID             = "ce_id"
	HeaderSource         = "ce_source"
	HeaderType           = "ce_type"
	HeaderTime           = "ce_time"
	HeaderContentType    = "content-type"
	HeaderCausationID    = "ce_causationid"    // command: the input that led here; reply: the command's ce_id
	HeaderCorrelationID  = "ce_correlationid"  // the instance
	HeaderIdempotencyKey = "ce_idempotencykey" // deduplicate on this
	HeaderReplyTo        = "ce_replyto"
	HeaderExpiryTime     = "ce_expirytime"
	HeaderSagaPhase      = "ce_sagaphase"
	HeaderSagaAttempt    = "ce_sagaattempt"
	HeaderUndoes         = "ce_undoes" // on an undo: the forward command's idempotency key
	HeaderOutcome        = "ce_outcome"
	HeaderErrorCode      = "ce_errorcode"
	HeaderErrorMessage   = "ce_errormessage"

	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
	HeaderBaggage     = "baggage"

	// HeaderForward is internal: it wraps a message that one shard sends to another's inbox.
	HeaderForward = "skald-forward"
	// HeaderReason and HeaderPlace stand on quarantined messages: why, and the place it was read at.
	HeaderReason = "skald-reason"
	HeaderPlace  = "skald-place"
)

// Bounds of what is taken from outside, in bytes. A message beyond them is quarantined.
const (
	MaxHeaders     = 64
	MaxHeaderBytes = 16 << 10 // all names and values together
	MaxKeyBytes    = 1 << 10
	MaxIDBytes     = 512
)

// Header is a Kafka record header.
type Header struct {
	Key   string
	Value []byte
}

func (h *Header) encode(b *buffer) {
	b.string(1, h.Key)
	b.bytes(2, h.Value)
}

// decode reports whether nothing but a key and a value was found. A header has no place for what it does
// not know: who holds it keeps one of a newer shape unread.
func (h *Header) decode(p []byte) (whole bool, err error) {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 1:
			h.Key = traceName(f.bytes())
		case 2:
			h.Value = f.bytes()
		default:
			f.keep()
		}
	}
	return len(f.unknown) == 0, f.err
}

// Message is a Kafka record as read, or to be written.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte // nil: a null value
	Headers   []Header
	Time      int64 // the record's timestamp, ms since 1970
}

// Place prints where the message stands: topic/partition/offset.
func (m *Message) Place() string {
	return m.Topic + "/" + strconv.Itoa(int(m.Partition)) + "/" + strconv.FormatInt(m.Offset, 10)
}

// Header gives the value of the first header of that name.
func (m *Message) Header(name string) (value string, ok bool) {
	v, ok := m.header(name)
	return string(v), ok
}

// HasHeader reports whether a header of that name stands on the message.
func (m *Message) HasHeader(name string) bool {
	_, ok := m.header(name)
	return ok
}

// header is Header without a copy: the value aliases the message.
func (m *Message) header(name string) (value []byte, ok bool) {
	for i := range m.Headers {
		if m.Headers[i].Key == name {
			return m.Headers[i].Value, true
		}
	}
	return nil, false
}

// Topics names an application's topics.
type Topics struct{ App string }

func (t Topics) Journal() string    { return t.App + ".journal" }
func (t Topics) Inbox() string      { return t.App + ".inbox" }
func (t Topics) Replies() string    { return t.App + ".replies" }
func (t Topics) Quarantine() string { return t.App + ".quarantine" }
func (t Topics) Lifecycle() string  { return t.App + ".lifecycle" }
func (t Topics) Meta() string       { return t.App + ".meta" }

// PoisonError says why a message can never be taken. Code is stable; it has a page in docs/errors.md.
type PoisonError struct{ Code, Detail string }

func (e *PoisonError) Error() string { return e.Code + ": " + e.Detail }

// Codes of PoisonError.
const (
	PoisonUndecodable     = "undecodable"
	PoisonMissingKey      = "missing-key"
	PoisonOversize        = "oversize"
	PoisonDuplicateHeader = "duplicate-header"
	PoisonInvalidUTF8     = "invalid-utf8"
	PoisonNullValue       = "null-value"
	PoisonForgedID        = "forged-command-id"
	PoisonMissingHeader   = "missing-header"
	PoisonUnknownOutcome  = "unknown-outcome"
	PoisonForward         = "bad-forward"
)

// IsPoison reports whether err says that a message can never be taken.
func IsPoison(err error) bool {
	var p *PoisonError
	return errors.As(err, &p)
}

// CheckHeaders refuses what no reader of headers should have to think about: too many or too long, one of
// the CloudEvents or trace headers twice, or one that is not UTF-8. The error is a *PoisonError.
func CheckHeaders(headers []Header) error {
	if len(headers) > MaxHeaders {
		return &PoisonError{PoisonOversize, fmt.Sprintf("%d headers, at most %d", len(headers), MaxHeaders)}
	}
	size := 0
	for i := range headers {
		h := &headers[i]
		size += len(h.Key) + len(h.Value)
		if !known(h.Key) {
			continue
		}
		if !utf8.Valid(h.Value) {
			return &PoisonError{PoisonInvalidUTF8, fmt.Sprintf("header %q", h.Key)}
		}
		for j := range i {
			if headers[j].Key == h.Key {
				return &PoisonError{PoisonDuplicateHeader, fmt.Sprintf("header %q stands twice", h.Key)}
			}
		}
	}
	if size > MaxHeaderBytes {
		return &PoisonError{PoisonOversize, fmt.Sprintf("%d bytes of headers, at most %d", size, MaxHeaderBytes)}
	}
	return nil
}

func known(name string) bool {
	switch name {
	case HeaderTraceParent, HeaderTraceState, HeaderBaggage, HeaderContentType:
		return true
	}
	return len(name) > 3 && name[:3] == "ce_"
}

// TraceHeaders picks the trace context out of headers; it is handed on with every command.
func TraceHeaders(headers []Header) []Header {
	var out []Header
	for _, h := range headers {
		switch h.Key {
		case HeaderTraceParent, HeaderTraceState, HeaderBaggage:
			if len(h.Value) <= 1024 {
				out = append(out, h)
			}
		}
	}
	return out
}

// ReplyOutcome is what a participant says of an attempt.
type ReplyOutcome uint8

const (
	ReplyDone     ReplyOutcome = 1 // the effect is there
	ReplyRejected ReplyOutcome = 2 // definitely no effect, of this attempt
	ReplyRetry    ReplyOutcome = 3 // not now: ask again; says nothing definite about an effect
	ReplyProgress ReplyOutcome = 4 // still at it: the time-out starts anew
)

func (o ReplyOutcome) String() string {
	switch o {
	case ReplyDone:
		return "done"
	case ReplyRejected:
		return "rejected"
	case ReplyRetry:
		return "retry"
	case ReplyProgress:
		return "progress"
	}
	return fmt.Sprintf("outcome-%d", uint8(o))
}

// CodeExpired is the errorcode of a participant that refuses a command after its ce_expirytime, and
// CodeUndone of one that refuses a forward command whose undo it has seen (L15).
const (
	CodeExpired = "expired"
	CodeUndone  = "undone"
)

// Reply is a participant's answer to one attempt.
type Reply struct {
	Command CommandID
	Outcome ReplyOutcome
	Code    string
	Message string // cut to MaxMessage
	Payload []byte // nil: none
}

// ParseReply reads a reply of application app. Whatever is wrong with it is a *PoisonError.
func ParseReply(app string, m *Message) (Reply, error) {
	if err := CheckHeaders(m.Headers); err != nil {
		return Reply{}, err
	}
	return ReadReply(app, m)
}

// ReadReply is ParseReply of a message whose headers CheckHeaders has passed.
func ReadReply(app string, m *Message) (Reply, error) {
	cause, ok := m.header(HeaderCausationID)
	if !ok {
		return Reply{}, &PoisonError{PoisonMissingHeader, "a reply needs the header " + HeaderCausationID + ": the ce_id of the command it answers"}
	}
	id, err := parseCommandID(app, cause)
	if err != nil {
		return Reply{}, &PoisonError{PoisonForgedID, err.Error()}
	}
	r := Reply{Command: id, Outcome: ReplyDone, Payload: m.Value}
	switch o, _ := m.header(HeaderOutcome); string(o) {
	case "", "done":
	case "rejected":
		r.Outcome = ReplyRejected
	case "retry":
		r.Outcome = ReplyRetry
	case "progress":
		r.Outcome = ReplyProgress
	default:
		return Reply{}, &PoisonError{PoisonUnknownOutcome, fmt.Sprintf("%s is done, rejected, retry or progress, not %.40q", HeaderOutcome, o)}
	}
	r.Code, _ = m.Header(HeaderErrorCode)
	r.Message, _ = m.Header(HeaderErrorMessage)
	r.Message = Cut(r.Message, MaxMessage)
	r.Code = Cut(r.Code, 128)
	return r, nil
}

// Cut shortens s to at most n bytes, at a rune's border.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// MessageIDOf is the id of a message from outside: its ce_id, or, without one, its place.
func MessageIDOf(m *Message) string {
	if id, ok := m.Header(HeaderID); ok && id != "" {
		return id
	}
	return m.Topic + "-" + strconv.Itoa(int(m.Partition)) + "-" + strconv.FormatInt(m.Offset, 10)
}

// Outgoing are the messages that an accepted decision emits, one for each of its Emits, complete; one of a
// kind this build does not know has no topic. It is a pure function of
// the record, so that an owner that takes over sends the same bytes again (L14). To an inbox message the sender adds
// its origin, which is not in the record: see WrapMessage. A record whose emits do not fit its rows gives
// ErrMalformed.
func Outgoing(app string, r *Record) ([]Message, error) {
	if r.Decision == nil || len(r.Decision.Emits) == 0 {
		return nil, nil
	}
	return NewPrinter(app).Outgoing(make([]Message, 0, len(r.Decision.Emits)), r)
}

// Printer prints the messages of many records of one application, and keeps what they have in common: texts that are
// the same in all of them, and the last times, for decisions of one millisecond follow each other. It must not
// be copied, and is not safe for concurrent use.
type Printer struct {
	topics          Topics
	source, replies []byte
	inbox           string
	now, expiry     printedTime
}

// NewPrinter gives a Printer for an application.
func NewPrinter(app string) *Printer {
	t := Topics{app}
	return &Printer{topics: t, source: []byte("/skald/" + app), replies: []byte(t.Replies()), inbox: t.Inbox()}
}

// printedTime is a time with its text, which is never written again: headers hold it.
type printedTime struct {
	ms   int64
	text []byte
}

func (t *printedTime) print(ms int64) []byte {
	if t.text == nil || t.ms != ms {
		t.ms, t.text = ms, slices.Clip(appendTimestamp(make([]byte, 0, 24), ms))
	}
	return t.text
}

// Header values that are the same in every message. Nobody writes to a header's value.
var (
	valueSpecVersion = []byte("1.0")
	valueJSON        = []byte("application/json")
	valueForward     = []byte(Forward.String())
	valueCompensate  = []byte(Compensate.String())
	valueFirst       = []byte("1")
	valueEmpty       = []byte{}
)

// Outgoing appends the messages to dst. Their bytes alias the record and what the Printer keeps: nobody may change
// them.
func (p *Printer) Outgoing(dst []Message, r *Record) ([]Message, error) {
	d := r.Decision
	if d == nil || len(d.Emits) == 0 {
		return dst, nil
	}
	var head []byte
	for i := range d.Rows {
		if x := &d.Rows[i]; x.Ref.Part == PartHead && d.own(x) {
			head = x.Value
		}
	}
	key, trace, err := emittedOfHead(head)
	if err != nil {
		return nil, err
	}
	trace, traced := emittedTrace(d.Instance, trace)
	rows := nodeRows{d: d}
	for i := range d.Emits {
		e := &d.Emits[i]
		m := Message{Topic: e.Topic, Key: key, Time: r.Time}
		if head == nil && e.Kind != EmitMessage { // correlations have none
			return nil, fmt.Errorf("decision %d: %w: it emits without a head", r.Seq, ErrMalformed)
		}
		switch e.Kind {
		case EmitMessage:
			if e.To.IsZero() {
				return nil, fmt.Errorf("decision %d: %w: it emits a message to nobody", r.Seq, ErrMalformed)
			}
			m.Topic, m.Key, m.Value = p.inbox, e.To[:], e.Payload
		case EmitEvent:
			m.Key, m.Value = []byte(e.Key), e.Payload
			v := values{to: make([]byte, 0, 32+1+20+1+20+len(e.Type)+len(d.Input.MessageID))}
			m.Headers = make([]Header, 0, 9+len(trace))
			v.to = hex.AppendEncode(v.to, d.Instance[:])
			instance := v.to[:len(v.to):len(v.to)]
			v.to = strconv.AppendUint(append(v.to, '-'), r.Seq, 10)
			v.to = strconv.AppendUint(append(v.to, '-'), uint64(i), 10)
			m.Headers = append(m.Headers,
				Header{HeaderSpecVersion, valueSpecVersion},
				Header{HeaderID, v.cut()},
				Header{HeaderSource, p.source},
				Header{HeaderType, v.text(e.Type)},
				Header{HeaderTime, p.now.print(r.Time)},
				Header{HeaderContentType, valueJSON},
				Header{HeaderCausationID, v.text(d.Input.MessageID)},
				Header{HeaderCorrelationID, instance})
			m.Headers = traced.about(m.Headers, trace)
		case EmitCommand:
			raw, ok := rows.node(uint64(e.Node))
			if !ok {
				return nil, fmt.Errorf("decision %d: %w: it emits a command without its row", r.Seq, ErrMalformed)
			}
			var owed bool
			if m.Value, owed, err = emittedOfNode(raw, e.Phase); err != nil {
				return nil, err
			}
			if e.Phase == Compensate && !owed {
				return nil, fmt.Errorf("decision %d: %w: it undoes what is not owed", r.Seq, ErrMalformed)
			}
			m.Headers = p.command(r, trace, traced, e)
		case EmitLifecycle:
			h, err := DecodeHead(head)
			if err != nil {
				return nil, err
			}
			m.Value = lifecycleValue(d.Instance, h)
			v := values{to: make([]byte, 0, 32+1+20+len(e.Type))}
			m.Headers = make([]Header, 0, 8+len(trace))
			v.to = hex.AppendEncode(v.to, d.Instance[:])
			instance := v.to[:len(v.to):len(v.to)]
			v.to = strconv.AppendUint(append(v.to, '-'), r.Seq, 10)
			m.Headers = append(m.Headers,
				Header{HeaderSpecVersion, valueSpecVersion},
				Header{HeaderID, v.cut()},
				Header{HeaderSource, p.source},
				Header{HeaderType, v.text(e.Type)},
				Header{HeaderTime, p.now.print(r.Time)},
				Header{HeaderContentType, valueJSON},
				Header{HeaderCorrelationID, instance})
			m.Headers = traced.about(m.Headers, trace)
		default:
			m.Topic = "" // of a newer build: one will emit it
		}
		if m.Value == nil {
			m.Value = valueEmpty
		}
		dst = append(dst, m)
	}
	return dst, nil
}

// values are header values in one buffer. What no longer fits is in a new one; the old one is kept by the
// headers that were cut from it.
type values struct {
	to []byte
	at int
}

// cut is what was appended since the last one.
func (v *values) cut() []byte {
	at := v.at
	v.at = len(v.to)
	return v.to[at:v.at:v.at]
}

func (v *values) text(s string) []byte {
	v.to = append(v.to, s...)
	return v.cut()
}

// own reports whether a row is of the decision's own instance.
func (d *Decision) own(r *RowChange) bool { return r.Of.IsZero() || r.Of == d.Instance }

// Whose is the entity whose row r is.
func (d *Decision) Whose(r *RowChange) InstanceID {
	if r.Of.IsZero() {
		return d.Instance
	}
	return r.Of
}

// emittedOfHead reads of a head what commands need: decoding all of it would cost more than the command.
func emittedOfHead(p []byte) (key []byte, trace []Header, err error) {
	f := reader{in: p}
	for f.next() {
		switch f.num {
		case 4:
			key = f.bytes()
		case 14:
			var x Header
			whole, err := x.decode(f.bytes())
			f.fail(err)
			if whole {
				*grow(&trace, &f) = x
			}
		}
	}
	if f.err != nil {
		return nil, nil, fmt.Errorf("instance head: %w", f.err)
	}
	if key == nil {
		key = []byte{}
	}
	return key, trace, nil
}

// emittedOfNode reads the command's payload of a node's row, or that of the undo it owes.
func emittedOfNode(p []byte, phase Phase) (payload []byte, owed bool, err error) {
	var undo Obligation
	f := reader{in: p}
	for f.next() {
		switch {
		case f.num == 8 && phase != Compensate:
			payload = f.bytes()
		case f.num == 9 && phase == Compensate:
			undo, owed = Obligation{}, true
			f.fail(undo.decode(f.bytes()))
			payload = undo.Payload
		}
	}
	if f.err != nil {
		return nil, false, fmt.Errorf("node row: %w", f.err)
	}
	return payload, owed, nil
}

// nodeRows finds the rows of nodes by number: by looking, or, when there are many, by an index.
type nodeRows struct {
	d     *Decision
	index map[uint64][]byte
}

func (n *nodeRows) node(number uint64) (value []byte, ok bool) {
	rows := n.d.Rows
	if len(rows) <= 16 {
		for i := len(rows) - 1; i >= 0; i-- {
			if (rows[i].Ref == RowRef{PartNode, number}) && n.d.own(&rows[i]) {
				return rows[i].Value, !rows[i].Gone
			}
		}
		return nil, false
	}
	if n.index == nil {
		n.index = make(map[uint64][]byte, len(rows))
		for i := range rows {
			if rows[i].Ref.Part == PartNode && n.d.own(&rows[i]) && !rows[i].Gone {
				n.index[rows[i].Ref.N] = rows[i].Value
			}
		}
	}
	value, ok = n.index[number]
	return value, ok
}

func (p *Printer) command(r *Record, trace []Header, traced *SagaTrace, e *Emit) []Header {
	id := CommandID{r.Decision.Instance, e.Node, e.Execution, e.Attempt, e.Phase}
	headers := make([]Header, 0, p.headersOf(e, traced)+len(trace))
	// One allocation for all that is not the same in many messages.
	size := maxCommandID + len(e.Type) + len(r.Decision.Input.MessageID) + maxIdempotencyKey + len(e.Step)
	if e.Phase == Compensate {
		size += maxIdempotencyKey + len(e.Step)
	}
	if traced != nil {
		size += traceParentSize
	}
	v := values{to: make([]byte, 0, size)}
	add := func(key string, value []byte) { headers = append(headers, Header{key, value}) }
	add(HeaderSpecVersion, valueSpecVersion)
	v.to = id.appendText(v.to, p.topics.App)
	add(HeaderID, v.cut())
	add(HeaderSource, p.source)
	add(HeaderType, v.text(e.Type))
	add(HeaderTime, p.now.print(r.Time))
	add(HeaderContentType, valueJSON)
	add(HeaderCausationID, v.text(r.Decision.Input.MessageID))
	v.to = id.appendIdempotencyKey(v.to, e.Step)
	key := v.cut()
	add(HeaderCorrelationID, key[:2*len(id.Instance):2*len(id.Instance)]) // which it begins with
	add(HeaderIdempotencyKey, key)
	add(HeaderReplyTo, p.replies)
	switch e.Phase {
	case Forward:
		add(HeaderSagaPhase, valueForward)
	case Compensate:
		add(HeaderSagaPhase, valueCompensate)
	default:
		add(HeaderSagaPhase, []byte(e.Phase.String()))
	}
	if e.Attempt == 1 {
		add(HeaderSagaAttempt, valueFirst)
	} else {
		add(HeaderSagaAttempt, strconv.AppendUint(nil, uint64(e.Attempt), 10))
	}
	if e.Expiry != 0 {
		add(HeaderExpiryTime, p.expiry.print(e.Expiry))
	}
	if e.Phase == Compensate && !mutant.On("events-undo-names-nothing") {
		forward := id
		forward.Phase = Forward
		v.to = forward.appendIdempotencyKey(v.to, e.Step)
		add(HeaderUndoes, v.cut())
	}
	if traced != nil {
		v.to = traced.Command(id).AppendTraceParent(v.to)
		add(HeaderTraceParent, v.cut())
	}
	return append(headers, trace...)
}

// headersOf is how many headers a command has beside those it hands on.
func (p *Printer) headersOf(e *Emit, traced *SagaTrace) int {
	n := 12
	if e.Expiry != 0 {
		n++
	}
	if e.Phase == Compensate {
		n++
	}
	if traced != nil {
		n++
	}
	return n
}

// LifecycleEvent is the JSON value of a message on <app>.lifecycle.
type LifecycleEvent struct {
	ID         InstanceID `json:"id"`
	Key        string     `json:"key"`
	Definition string     `json:"definition"`
	Version    string     `json:"version"`
	State      State      `json:"state"`
	Started    string     `json:"started"`
	Ended      string     `json:"ended,omitempty"`
	Code       string     `json:"code,omitempty"`
	Message    string     `json:"message,omitempty"`
}

// lifecycleValue prints a LifecycleEvent as encoding/json does.
func lifecycleValue(id InstanceID, h *Head) []byte {
	b := make([]byte, 0, 192+len(h.Key)+len(h.Definition)+len(h.Version)+len(h.Code)+len(h.Message))
	b = append(hex.AppendEncode(append(b, `{"id":"`...), id[:]), '"')
	b = appendJSON(append(b, `,"key":`...), h.Key)
	b = appendJSON(append(b, `,"definition":`...), h.Definition)
	b = appendJSON(append(b, `,"version":`...), h.Version)
	b = appendJSON(append(b, `,"state":`...), h.State.String())
	b = append(appendTimestamp(append(b, `,"started":"`...), h.Started), '"')
	if h.Ended != 0 {
		b = append(appendTimestamp(append(b, `,"ended":"`...), h.Ended), '"')
	}
	if h.Code != "" {
		b = appendJSON(append(b, `,"code":`...), h.Code)
	}
	if h.Message != "" {
		b = appendJSON(append(b, `,"message":`...), h.Message)
	}
	return append(b, '}')
}

// appendJSON appends s as a JSON string, as encoding/json prints it.
func appendJSON(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			b, err := json.Marshal(s)
			if err != nil { // a string: cannot happen
				panic(err)
			}
			return append(dst, b...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// Timestamp prints ms since 1970 as RFC 3339 with milliseconds, in UTC.
func Timestamp(ms int64) string { return string(appendTimestamp(nil, ms)) }

func appendTimestamp(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
}

// ParseTimestamp reads an RFC 3339 time to ms since 1970.
func ParseTimestamp(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q is not an RFC 3339 time", ErrMalformed, s)
	}
	return t.UnixMilli(), nil
}

// WrapForward wraps a message that belongs to another shard for that shard's inbox: key, value and headers
// stay, and one header tells its origin. A header of that name from outside is dropped.
func WrapForward(m *Message, origin Origin) Message {
	var b buffer
	origin.encode(&b)
	b = protowire.AppendVarint(protowire.AppendTag(b, 15, protowire.VarintType), uint64(m.Time))
	headers := make([]Header, 0, len(m.Headers)+1)
	for _, h := range m.Headers {
		if h.Key != HeaderForward || mutant.On("events-forged-origin-kept") {
			headers = append(headers, h)
		}
	}
	return Message{Key: m.Key, Value: m.Value, Headers: append(headers, Header{HeaderForward, b})}
}

// UnwrapForward undoes WrapForward on a message read from an inbox: the message as it was first read, topic,
// partition and offset included. What does not carry exactly one origin is a *PoisonError.
func UnwrapForward(m *Message) (Message, *Origin, error) {
	at := -1
	for i := range m.Headers {
		if m.Headers[i].Key == HeaderForward {
			if at >= 0 {
				return Message{}, nil, &PoisonError{PoisonForward, "two origins"}
			}
			at = i
		}
	}
	if at < 0 {
		return Message{}, nil, &PoisonError{PoisonForward, "a message in an inbox names its origin; participants write to the replies topic"}
	}
	o := &Origin{}
	var ms int64
	if err := o.decode(m.Headers[at].Value); err != nil {
		return Message{}, nil, &PoisonError{PoisonForward, err.Error()}
	}
	f := reader{in: o.Unknown}
	for f.next() {
		if f.num == 15 {
			ms = f.int()
		} else {
			f.keep()
		}
	}
	if f.err != nil || !isTopic(o.Topic) || o.Offset < 0 || o.Partition < 0 || o.Low < 0 {
		return Message{}, nil, &PoisonError{PoisonForward, "an origin needs topic, partition, offset and low mark"}
	}
	o.Unknown = f.unknown
	headers := append(append(make([]Header, 0, len(m.Headers)-1), m.Headers[:at]...), m.Headers[at+1:]...)
	return Message{Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, Key: m.Key, Value: m.Value, Headers: headers, Time: ms}, o, nil
}

// isTopic reports whether Kafka takes name as a topic's.
func isTopic(name string) bool {
	if len(name) == 0 || len(name) > 249 || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
