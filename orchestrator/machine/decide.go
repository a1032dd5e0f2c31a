package machine

import (
	"errors"
	"fmt"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// Start decides on an event that starts a saga. nil: the store is corrupt.
func (m *Machine) Start(v View, now int64, in Start) *events.Decision {
	w := m.open(v, now, in.Instance)
	switch {
	case w.corrupt:
		return nil
	case w.head != nil:
		return w.ignored(ReasonDuplicateStart)
	}
	k := w.key(m.keyID(in.Plan.Name, in.Key))
	if w.corrupt {
		return nil
	}
	if d := keyAllows(k, &in); d != nil {
		return d
	}
	w.create(in)
	data, why := firstData(in)
	if why != "" {
		return untaken(in, &trouble{code: CodeUserFunction, message: why})
	}
	w.keyStarts(k, &in)
	w.setData(data)
	w.push(begin, own(in.Plan.Root))
	w.run()
	if d := w.finish(); w.trouble == nil {
		return d
	}
	if t := w.trouble; t.node.Node == nil || t.code == CodeTooLarge {
		return untaken(in, t)
	}
	return m.startParked(v, now, in, w.trouble)
}

// untaken refuses an event whose saga cannot even be kept.
func untaken(in Start, t *trouble) *events.Decision {
	code := ReasonUndecodable
	if t.code == CodeTooLarge {
		code = ReasonOversize
	}
	return &events.Decision{Outcome: events.Quarantined, Instance: in.Instance, Reason: code + ": " + t.message}
}

// startParked creates an instance that cannot take its first step: its head, its data, and the root, held.
func (m *Machine) startParked(v View, now int64, in Start, t *trouble) *events.Decision {
	w := m.open(v, now, in.Instance)
	w.create(in)
	data, again := firstData(in)
	if again != "" {
		return untaken(in, &trouble{code: CodeUserFunction, message: again})
	}
	w.keyStarts(w.key(m.keyID(in.Plan.Name, in.Key)), &in)
	w.setData(data)
	w.park(t)
	w.hold(w.fresh(own(in.Plan.Root)))
	if d := w.finish(); w.trouble == nil {
		return d
	}
	return untaken(in, w.trouble)
}

func firstData(in Start) (data any, why string) {
	why = try(func() (err error) {
		if data, err = in.Plan.Start.Data(in.Value); err == nil && data == nil {
			err = errors.New("the definition made no data of the event")
		}
		return err
	})
	return data, why
}

// Reply decides on a participant's reply. nil: the store is corrupt.
func (m *Machine) Reply(v View, now int64, in events.Reply) *events.Decision {
	return m.decide(v, now, in.Command.Instance, input{answer: answerOf(&in)})
}

// Refused decides on a command that Kafka refuses for good: an attempt that is as unknown as one that was
// not answered in time. nil: the store is corrupt.
func (m *Machine) Refused(v View, now int64, in Refusal) *events.Decision {
	return m.decide(v, now, in.Command.Instance, input{answer: refusalOf(&in)})
}

// Undelivered decides on an event that Kafka refuses for good. Its saga went on when the event was decided, and may have
// ended since: nothing follows from it but that the history says what the world was not told. nil: the store is corrupt.
func (m *Machine) Undelivered(v View, now int64, in Undelivered) *events.Decision {
	w := m.open(v, now, in.Instance)
	switch {
	case w.corrupt:
		return nil
	case w.head == nil:
		return w.ignored(ReasonUnknownInstance)
	}
	w.holding = true
	w.entry(events.Entry{Kind: events.EntryUndelivered, Step: in.Step, Node: in.Node, Phase: events.Forward, Code: CodeRefused, Message: events.Cut(clean(in.Message), events.MaxMessage)})
	return w.finish()
}

// Timer decides on a due time that came. nil: the store is corrupt.
func (m *Machine) Timer(v View, now int64, in Timer) *events.Decision {
	switch in.Row.Part {
	case events.PartCorrelation:
		return m.correlationTimer(v, now, in)
	case events.PartAnswer:
		return m.answerTimer(v, in)
	}
	return m.decide(v, now, in.Instance, input{timer: &in})
}

// Message decides on what came through an inbox: what an entity says to another, or an operator to an instance.
// nil: the store is corrupt.
func (m *Machine) Message(v View, now int64, in *events.InboxMessage) *events.Decision {
	switch in.Kind {
	case events.InboxSubscribe, events.InboxUnsubscribe, events.InboxTaken, events.InboxRefused:
		return m.correlate(v, now, in)
	case events.InboxOffer, events.InboxDenied:
		if why := m.badOffer(in); why != "" {
			return badMessage(in, why)
		}
		return m.decide(v, now, in.To, input{message: in})
	case events.InboxAction:
		return m.act(v, now, in)
	}
	return badMessage(in, "this build does not know it")
}

// input is one of the ways to come to an instance that exists.
type input struct {
	answer  *answer
	timer   *Timer
	message *events.InboxMessage // an offer or denial of a correlation, or an action
}

// action is the operator's action, nil when the input is none.
func (in *input) action() *events.Action {
	if in.message == nil {
		return nil
	}
	return in.message.Action
}

func (m *Machine) decide(v View, now int64, id events.InstanceID, in input) *events.Decision {
	w := m.open(v, now, id)
	if w.head != nil && (!w.head.State.Final() || mutant.On("machine-ended-takes-answers") && in.timer == nil) {
		if w.plan == nil {
			return w.waits()
		}
		if w.head.State == events.Parked && w.head.Code == CodeDefinitionUnknown {
			w.unpark() // an earlier build parked it
		}
		w.take(in)
	} else if !w.corrupt {
		return w.outside(in)
	}
	if !w.stopped() {
		if d := w.finish(); w.trouble == nil {
			return d
		}
	}
	switch {
	case w.corrupt:
		return nil
	case w.instead != nil:
		return w.instead
	case w.refusal != nil:
		return m.refuse(v, now, id, in.message, w.refusal)
	case w.trouble != nil:
		return m.parked(v, now, id, in, w.trouble)
	}
	return w.ignored(w.reason)
}

// parked is the decision in place of one that cannot be made: the instance is parked, the input held.
func (m *Machine) parked(v View, now int64, id events.InstanceID, in input, t *trouble) *events.Decision {
	if a := in.action(); a != nil && a.Kind != events.ActionSignal {
		return m.refuse(v, now, id, in.message, &refusal{t.code, t.message})
	}
	w := m.open(v, now, id)
	w.holding = true
	w.take(in)
	switch {
	case w.corrupt:
		return nil
	case w.instead != nil:
		return w.instead
	case w.refusal != nil:
		return m.refuse(v, now, id, in.message, w.refusal)
	case w.reason != "":
		return w.ignored(w.reason)
	}
	w.park(t)
	return w.finish()
}

// waits is the answer to an input whose instance is of a definition that is not here: it changes nothing, and nobody
// may take the input for answered.
func (w *work) waits() *events.Decision {
	return &events.Decision{Outcome: Waits, Instance: w.id, Reason: fmt.Sprintf("%s: %q version %q with hash %x is not here", CodeDefinitionUnknown, w.head.Definition, w.head.Version, w.head.DefHash)}
}

// outside answers an input to an instance that is not there or has ended.
func (w *work) outside(in input) *events.Decision {
	switch {
	case in.message != nil:
		return w.messageOutside(in.message)
	case w.head == nil:
		return w.ignored(ReasonUnknownInstance)
	case in.timer == nil:
		return w.ignored(ReasonInstanceEnded)
	case in.timer.Due != 0 && in.timer.Row.Part == events.PartNode:
		return w.leftBehind(in.timer)
	case in.timer.Row != headRef || in.timer.Due != w.headDue || in.timer.Due == 0:
		return w.ignored(ReasonStaleTimer)
	}
	w.keyForgets()
	if w.corrupt {
		return nil
	}
	return &events.Decision{Outcome: events.Applied, Instance: w.id, Purge: true, Rows: w.otherRows(nil)}
}

// otherRows appends the rows of entities that were changed.
func (w *work) otherRows(rows []events.RowChange) []events.RowChange {
	for i := range w.others {
		if c := &w.others[i]; c.changed {
			rows = append(rows, c.RowChange)
		}
	}
	return rows
}

var (
	headRef = events.RowRef{Part: events.PartHead}
	dataRef = events.RowRef{Part: events.PartData}
)

func nodeRef(id uint32) events.RowRef { return events.RowRef{Part: events.PartNode, N: uint64(id)} }

// work is the working set of one decision: each row is read at most once, changed in memory, and printed
// at the end if it changed. It lives for one decision.
type work struct {
	m    *Machine
	v    View
	now  int64
	id   events.InstanceID
	plan *sagas.Plan // nil: not known here

	head    *events.Head
	headDue int64
	headWas int64

	rows   []*row          // of nodes, as they were first touched
	index  map[uint32]*row // over rows, once they are many
	others []otherRow      // see entity
	tasks  []task
	few    few

	data      any     // decoded; nil until a user function needs it
	inner     []frame // what loops made of it for the last user function, outermost first
	dataRaw   []byte
	dataDirty bool

	entries []events.Entry
	emits   []events.Emit
	first   uint64 // history rows before

	spent int // of the decision's budget, see full
	bytes int // estimate of what was added

	// holding: the decision only parks and holds its input. Its size is not checked: the rows that it changes
	// were taken with room for that (see buildUndo).
	holding bool
	leaving bool             // a terminated instance leaves registrations to the next decision
	reason  string           // the input is ignored
	refusal *refusal         // the input is an action that cannot be carried out
	instead *events.Decision // in place of what the working set would give
	trouble *trouble         // the decision cannot be made
	failure failure          // the last that went up in this decision
	corrupt bool
}

// few is room for what most decisions need, so that their working set is one allocation. Nothing in it outlives the
// decision: what is printed is a copy.
type few struct {
	rows  [4]row
	index [4]*row
	tasks [4]task
}

// row is a node's row in the working set.
type row struct {
	*events.NodeState
	id       uint32
	due, was int64
	dirty    bool
	stored   bool // it stood there before
}

// trouble is why a decision cannot be made; node is the one at which it fails, without a node when none is.
type trouble struct {
	code    string
	node    place
	message string
}

func (m *Machine) open(v View, now int64, id events.InstanceID) *work {
	w := &work{m: m, v: v, now: now, id: id}
	raw, due, ok := v.Row(id, headRef)
	if !ok {
		return w
	}
	h, err := events.DecodeHead(raw)
	if err != nil || h.State < events.Running || h.State > events.Terminated {
		w.corrupt = true
		return w
	}
	w.head, w.headDue, w.headWas, w.first = h, due, due, h.Entries
	w.plan = m.plans[planID{h.Definition, h.Version, h.DefHash}]
	if mutant.On("machine-another-version-decides") && w.plan == nil && len(m.cfg.Plans) > 0 {
		w.plan = m.cfg.Plans[0]
	}
	return w
}

// create begins an instance.
func (w *work) create(in Start) {
	p := in.Plan
	w.plan = p
	w.head = &events.Head{
		Definition: p.Name, Version: p.Version, DefHash: p.Hash, Key: in.Key,
		State: events.Running, Started: w.now, Trace: in.Trace,
	}
	w.headDue = w.deadline()
	w.entry(events.Entry{Kind: events.EntryStarted, Message: in.MessageID})
}

// deadline is when the saga's deadline passes, 0 when there is none (any more).
func (w *work) deadline() int64 {
	if w.plan == nil || w.plan.Deadline <= 0 || w.head.State != events.Running {
		return 0
	}
	at := w.head.Started + millis(w.plan.Deadline)
	if w.head.Pivot != events.PivotAhead && at <= w.now {
		return 0
	}
	return at
}

// millis rounds d up to whole milliseconds, so that nothing is due before its time.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// row gives a node's row; one that does not exist has status 0. A row that cannot be read gives the same,
// and the decision is dropped in the end.
func (w *work) row(id uint32) *row {
	if r := w.touched(id); r != nil {
		return r
	}
	raw, due, ok := w.v.Row(w.id, nodeRef(id))
	if !ok {
		return w.add(id, &events.NodeState{}, 0)
	}
	st, err := events.DecodeNode(raw)
	if err != nil {
		w.corrupt = true
		return w.add(id, &events.NodeState{}, 0)
	}
	r := w.add(id, st, due)
	r.stored = true
	return r
}

const manyRows = 24

func (w *work) touched(id uint32) *row {
	if w.index != nil {
		return w.index[id]
	}
	for _, r := range w.rows {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (w *work) add(id uint32, st *events.NodeState, due int64) *row {
	if w.rows == nil {
		w.rows = w.few.index[:0]
	}
	var r *row
	if n := len(w.rows); n < len(w.few.rows) {
		r = &w.few.rows[n]
	} else {
		r = new(row)
	}
	*r = row{NodeState: st, id: id, due: due, was: due}
	w.rows = append(w.rows, r)
	if w.index != nil {
		w.index[id] = r
	} else if len(w.rows) > manyRows {
		w.index = make(map[uint32]*row, 4*manyRows)
		for _, r := range w.rows {
			w.index[r.id] = r
		}
	}
	return r
}

func (w *work) entry(e events.Entry) {
	e.Time = w.now
	if w.entries == nil {
		w.entries = make([]events.Entry, 0, 2)
	}
	w.entries = append(w.entries, e)
	w.bytes += len(e.Step) + len(e.Code) + len(e.Message) + 48
}

func (w *work) ignore(reason string) { w.reason = reason }

// fail gives the decision up: the instance will be parked in its place.
func (w *work) fail(code string, n place, message string) {
	if w.trouble == nil {
		w.trouble = &trouble{code, w.standing(n), message}
	}
}

func (w *work) ignored(reason string) *events.Decision {
	return &events.Decision{Outcome: events.Ignored, Reason: reason, Instance: w.id}
}

// stopped reports whether nothing more may be done in this decision.
func (w *work) stopped() bool {
	return w.trouble != nil || w.corrupt || w.reason != "" || w.refusal != nil || w.instead != nil
}

// finish prints the decision. When it is too large it gives up: w.trouble says so, and the result means nothing.
func (w *work) finish() *events.Decision {
	if w.stopped() {
		return nil
	}
	w.wakeHeld()
	rows := make([]events.RowChange, 1, len(w.rows)+len(w.others)+2)
	if !w.printData(&rows) {
		return nil
	}
	w.head.Entries = w.first + uint64(len(w.entries))
	buf := make([]byte, 0, w.estimate())
	print := func(encode func([]byte) []byte) (value []byte) {
		at := len(buf)
		buf = encode(buf)
		return buf[at:len(buf):len(buf)]
	}
	rows[0] = events.RowChange{Ref: headRef, Due: w.headDue, WasDue: w.headWas, Value: print(w.head.Encode)}
	for _, r := range w.rows {
		if r.dirty {
			rows = append(rows, events.RowChange{Ref: nodeRef(r.id), Due: r.due, WasDue: r.was, Value: print(r.Encode)})
		}
	}
	rows = w.otherRows(rows)
	d := &events.Decision{
		Outcome: events.Applied, Instance: w.id, FirstRow: w.first,
		Entries: w.entries, Rows: rows, Emits: w.emits,
	}
	if size := sizeOf(d); size > w.m.cfg.MaxRecord && !w.holding && !mutant.On("machine-too-large-goes-out") {
		w.tooLarge(d, size)
		return nil
	}
	return d
}

func (w *work) estimate() int {
	n := 160 + len(w.head.Message) + len(w.head.CauseMessage) + len(w.head.Key)
	for i := range w.head.Trace {
		n += len(w.head.Trace[i].Key) + len(w.head.Trace[i].Value) + 8
	}
	for _, r := range w.rows {
		if r.dirty {
			n += nodeSize(r.NodeState)
		}
	}
	return n
}

func nodeSize(n *events.NodeState) int {
	size := 64 + len(n.Payload) + len(n.Answer) + len(n.Unknown) + len(n.Item) + len(n.Key) + len(n.Code) + len(n.Message) + len(n.Step)
	if n.Undo != nil {
		size += 32 + len(n.Undo.Payload) + len(n.Undo.Topic) + len(n.Undo.Type) + len(n.Undo.Unknown)
	}
	return size
}

// sizeOf bounds the encoded size of a decision from above, without encoding it.
func sizeOf(d *events.Decision) int {
	size := 64
	for i := range d.Rows {
		r := &d.Rows[i]
		size += len(r.Value) + 24
		if r.Due != 0 || r.WasDue != 0 {
			size += 16
		}
		if !r.Of.IsZero() {
			size += 24
		}
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		size += len(e.Step) + len(e.Code) + len(e.Message) + 56
	}
	for i := range d.Emits {
		e := &d.Emits[i]
		size += len(e.Topic) + len(e.Type) + len(e.Step) + len(e.Payload) + len(e.Key) + 76
	}
	return size
}

// tooLarge names the largest of what does not fit.
func (w *work) tooLarge(d *events.Decision, size int) {
	what, most := "the head", 0
	var node place
	for i := range d.Rows {
		r := &d.Rows[i]
		if len(r.Value) <= most {
			continue
		}
		most, node = len(r.Value), place{}
		switch r.Ref.Part {
		default:
			what = "the row " + r.Ref.Part.String()
		case events.PartHead:
			what = "the head"
		case events.PartData:
			what = "the saga's data"
		case events.PartNode:
			node, _ = w.placeOf(w.row(uint32(r.Ref.N)))
			what = fmt.Sprintf("node %d", r.Ref.N)
			if node.Node != nil {
				what = fmt.Sprintf("step %q", w.label(node))
			}
		}
	}
	w.fail(CodeTooLarge, node, fmt.Sprintf("the decision takes %d bytes, at most %d; the largest part is %s with %d", size, w.m.cfg.MaxRecord, what, most))
}
