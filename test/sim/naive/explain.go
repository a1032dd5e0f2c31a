package naive

import (
	"bytes"
	"fmt"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Observed is what was seen of one instance that ran under whatever faults: the event that started it, and its accepted
// decisions in the order of the journal, each with the input it answers.
type Observed struct {
	App   string
	Plan  *sagas.Plan
	Key   string // the business key
	Event []byte // the value of the event
	Facts []Fact
}

// Fact is one accepted decision about the instance, ignored ones included. Of Reply and Message the one is set that
// the decision answers: what a participant said, or what came through the inbox for the instance. Timers, and the event
// that starts it, have neither.
type Fact struct {
	Record  *events.Record
	Reply   *events.Reply
	Message *events.InboxMessage
}

// Outcome is how a saga ended, as seen from outside.
type Outcome struct {
	State   events.State // Completed, Compensated, or Parked and so on where it has not ended
	Code    string       // of Parked
	Effects map[string]Effect
	// Loose says that the rest of what was seen, from some point on, was not held against the plan: an operator decided
	// what became of a step, or the instance was parked while it ran forward and a scope of it was undone meanwhile,
	// so that what follows came in another order than without the stop; or a decision was too large and went on in
	// another (machine.Config.FanOut), so that branches changed the data in turns.
	Loose bool
}

// Effect is what may be left of a step in the world.
type Effect uint8

const (
	None   Effect = iota // it never was, or is undone
	Stands               // exactly one
	Either               // it is open
)

func (e Effect) String() string { return [...]string{"no effect", "an effect", "perhaps an effect"}[e] }

// Explains finds the run without faults that looks like what was seen: what participants said, once and in the order
// in which it counted, is told to the interpreter, and every command, undo and event that left, every choice and the end
// have to be what the interpreter is waiting to see, payloads included. What counted is taken from the
// instance's own history, but not believed: a step that is done needs a participant that said so before, a time-out its
// time, an event its message. The error says at which decision there is no such run.
func (o *Observed) Explains() (*Outcome, error) {
	x := &explainer{o: o, by: map[attempted]*Act{}, of: map[*Act]*told{}, taken: map[string]sagas.Taken{}, dealt: map[string]bool{}, held: map[string]*events.InboxMessage{}, signals: map[string]bool{}, given: map[string]int64{}}
	for i := range o.Facts {
		if x.loose {
			break
		}
		f := &o.Facts[i]
		if err := x.fact(f); err != nil {
			return nil, fmt.Errorf("decision %d: %w", f.Record.Seq, err)
		}
	}
	return x.outcome()
}

// leaves are the steps whose commands left.
func (o *Observed) leaves() func(string) bool {
	labels := map[string]bool{}
	for i := range o.Facts {
		for _, e := range o.Facts[i].Record.Decision.Emits {
			if e.Kind == events.EmitCommand && e.Phase == events.Forward {
				labels[e.Step] = true
			}
		}
	}
	return func(label string) bool { return labels[label] }
}

// explainer leads an interpreter through what was seen.
type explainer struct {
	o       *Observed
	s       *Saga
	by      map[attempted]*Act
	of      map[*Act]*told
	taken   map[string]sagas.Taken          // by label: what a Wait took
	dealt   map[string]bool                 // by label: it took that from the queue, and the interpreter knows
	held    map[string]*events.InboxMessage // by label: the offer that waits until the instance goes on
	signals map[string]bool                 // by id: those that came before their Wait
	given   map[string]int64                // until when an event that was taken is not to be taken again, by correlation and id

	rec    *events.Record
	out    []events.Message
	state  events.State
	code   string
	parked bool
	loose  bool
}

// attempted is how a reply names a step.
type attempted struct{ node, execution uint32 }

// told is what participants said of a step.
type told struct {
	payload []byte // of its command
	sent    int64  // when the last attempt was
	extends int64  // when somebody said that it was still at it
	later   bool   // the last attempt was put off, refused by Kafka, or had expired
	final   bool   // with a code that is not tried again
	done    bool
	reply   []byte
	refused map[string]bool // codes
	undos   uint32
	undone  bool // somebody said so
}

func (x *explainer) fact(f *Fact) error {
	d := f.Record.Decision
	x.rec = f.Record
	if x.s != nil {
		x.s.Now = f.Record.Time
	}
	if f.Reply != nil {
		x.hear(f.Reply, d.Outcome == events.Applied)
	}
	if d.Outcome != events.Applied || d.Purge {
		return nil
	}
	var err error
	if x.out, err = events.Outgoing(x.o.App, f.Record); err != nil {
		return err
	}
	x.loose = x.loose || x.goesOn(d)
	for i := range d.Entries {
		if x.loose {
			return nil
		}
		if err := x.entry(&d.Entries[i], f); err != nil {
			return fmt.Errorf("%s %s: %w", d.Entries[i].Kind, d.Entries[i].Step, err)
		}
		if x.s.Err != nil {
			return x.s.Err
		}
	}
	return nil
}

// goesOn reports whether a decision goes on with one that was cut: the timer of a node that has others in it.
func (x *explainer) goesOn(d *events.Decision) bool {
	if d.Input.Kind != events.InputTimer || d.Input.Row.Part != events.PartNode {
		return false
	}
	at := d.Input.Row.N
	for i := range d.Rows {
		if r := &d.Rows[i]; r.Of.IsZero() && r.Ref == d.Input.Row {
			if n, err := events.DecodeNode(r.Value); err == nil && n.Plan > 0 {
				at = uint64(n.Plan) - 1
			}
		}
	}
	return at < uint64(len(x.o.Plan.Nodes)) && len(x.o.Plan.Nodes[at].Children) > 0
}

// hear notes what a participant says, whether it counts or not.
func (x *explainer) hear(r *events.Reply, applied bool) {
	a := x.by[attempted{r.Command.Node, r.Command.Execution}]
	if a == nil {
		return
	}
	t := x.of[a]
	if r.Command.Phase == events.Compensate {
		t.undone = t.undone || r.Outcome == events.ReplyDone && r.Command.Attempt <= t.undos
		return
	}
	last := r.Command.Attempt == a.Sent
	switch r.Outcome {
	case events.ReplyDone:
		if !t.done {
			t.done, t.reply = true, r.Payload
		}
		x.s.Says(a, r.Command.Attempt, true)
	case events.ReplyRejected:
		code := r.Code
		if code == "" {
			code = "rejected"
		}
		if code == events.CodeExpired {
			t.later = t.later || last
		} else {
			t.refused[code] = true
		}
		x.s.Says(a, r.Command.Attempt, false)
	case events.ReplyRetry:
		t.later = t.later || last
		for _, code := range a.Step.Retry.NotCodes {
			t.final = t.final || last && code == r.Code
		}
	case events.ReplyProgress:
		if last && applied { // one that comes after the time-out, of an instance that is parked, extends nothing
			t.extends = x.s.Now
		}
	}
}

// entry holds one fact of the instance's history against the interpreter.
func (x *explainer) entry(e *events.Entry, f *Fact) (err error) {
	s := x.s
	if s == nil {
		if e.Kind != events.EntryStarted {
			return fmt.Errorf("it comes before the start")
		}
		x.state = events.Running
		x.s, err = Start(x.o.Plan, x.o.Key, x.o.Event, x.rec.Time, x.o.leaves())
		return err
	}
	a := s.At(e.Step)
	if x.state.Final() && e.Kind != events.EntryAction && e.Kind != events.EntryRefused {
		return fmt.Errorf("it comes after the end")
	}
	switch e.Kind {
	case events.EntryStarted:
		return fmt.Errorf("it starts again")
	case events.EntryCommand:
		return x.command(a, e)
	case events.EntryDone:
		if e.Phase == events.Compensate {
			return x.undone(a)
		}
		return x.done(a, e)
	case events.EntryFailed:
		return x.failed(a, e)
	case events.EntryEmitted:
		m, err := x.emitted(e.Step)
		if err != nil {
			return err
		}
		return x.see(Output{Kind: Emit, Label: e.Step, Key: string(m.Key), Payload: m.Value})
	case events.EntryChosen:
		return x.see(Output{Kind: Chose, Label: e.Step, What: e.Message})
	case events.EntryEvent:
		return x.event(a, e, f)
	case events.EntryQueued:
		return x.queued(e, f)
	case events.EntryDischarged:
		if e.Phase == events.Forward && (a == nil || a.MayHaveHappened()) {
			return fmt.Errorf("it is free of its undo, and may have happened")
		}
	case events.EntryUnknown:
		if t := x.of[a]; t != nil && e.Code == "refused" {
			t.later = true
		}
	case events.EntryTransition:
		return x.transition(e)
	case events.EntryAction:
		switch events.ActionKind(e.Code) {
		case events.ActionCancel, events.ActionSuspend, events.ActionResume, events.ActionSignal:
		default: // an operator says what happened: no participant's word stands for that
			x.loose = true
		}
	}
	return nil
}

// see takes off what the world sees now.
func (x *explainer) see(o Output) error {
	want, ok := x.s.Saw(o)
	switch {
	case ok:
		return nil
	case want != nil:
		return fmt.Errorf("it is %s, and should be %s", o, want)
	}
	return fmt.Errorf("nothing of the kind is due; what is due: %v", x.s.Owed)
}

func (x *explainer) emitted(step string) (*events.Message, error) {
	for i, e := range x.rec.Decision.Emits {
		if e.Kind == events.EmitEvent && e.Step == step {
			return &x.out[i], nil
		}
	}
	return nil, fmt.Errorf("no event leaves")
}

// command takes an attempt of a step or its undo, which has to leave as well.
func (x *explainer) command(a *Act, e *events.Entry) error {
	var m *events.Message
	for i, c := range x.rec.Decision.Emits {
		if c.Kind != events.EmitCommand || c.Step != e.Step || c.Phase != e.Phase || c.Attempt != e.Attempt {
			continue
		}
		if m = &x.out[i]; c.Phase == events.Forward && c.Expiry <= x.rec.Time {
			return fmt.Errorf("it does not expire, or has")
		}
	}
	switch {
	case m == nil:
		return fmt.Errorf("no such command leaves")
	case a == nil || a.Kind != sagas.KindStep:
		return fmt.Errorf("there is no such step yet")
	case x.parked:
		return fmt.Errorf("a command of an instance that is parked")
	}
	t := x.of[a]
	if t == nil {
		t = &told{refused: map[string]bool{}}
		x.of[a] = t
	}
	if e.Phase == events.Compensate {
		if e.Attempt != t.undos+1 {
			return fmt.Errorf("attempt %d after %d", e.Attempt, t.undos)
		}
		t.undos++
		if e.Attempt == 1 {
			if err := x.see(Output{Kind: Undo, Label: e.Step, Payload: m.Value}); err != nil {
				return err
			}
			a.Undoing = true
		}
		if a.Status != GoingBack || !bytes.Equal(m.Value, a.undo) {
			return fmt.Errorf("an undo that is not due, or another than is owed")
		}
		return nil
	}
	at := attempted{e.Node, e.Execution}
	switch {
	case e.Attempt == 1:
		if err := x.see(Output{Kind: Command, Label: e.Step, Payload: m.Value}); err != nil {
			return err
		}
		if old := x.by[at]; old != nil {
			return fmt.Errorf("its execution is that of %s", old.Label)
		}
		x.by[at], t.payload = a, m.Value
	case x.by[at] != a || e.Attempt != a.Sent+1 || !bytes.Equal(m.Value, t.payload):
		return fmt.Errorf("attempt %d after %d, of another execution, or with another payload", e.Attempt, a.Sent)
	case !a.Forward():
		return fmt.Errorf("it is tried again, and should go back")
	}
	a.Sent, t.sent, t.extends, t.later, t.final = e.Attempt, x.s.Now, 0, false, false
	return nil
}

// done takes the good end of a node.
func (x *explainer) done(a *Act, e *events.Entry) error {
	if a == nil {
		return fmt.Errorf("it is not begun")
	}
	if a.Kind == sagas.KindDo {
		return x.see(Output{Kind: Ran, Label: e.Step})
	}
	if x.dealt[e.Step] {
		delete(x.dealt, e.Step)
		return nil
	}
	if !a.Forward() {
		return fmt.Errorf("it counts as done, and is not open, or what it stands in goes back")
	}
	switch a.Kind {
	case sagas.KindStep:
		t := x.of[a]
		if t == nil || !t.done {
			return fmt.Errorf("nobody said that it is done")
		}
		x.s.Done(a, t.reply)
	case sagas.KindWait:
		if a.Wait.Sleep > 0 {
			if x.s.Now < a.Began+millis(a.Wait.Sleep) {
				return fmt.Errorf("it slept %d ms instead of %v", x.s.Now-a.Began, a.Wait.Sleep)
			}
			x.s.Pass(a)
			return nil
		}
		in, ok := x.taken[e.Step]
		if !ok {
			return fmt.Errorf("nothing came for it")
		}
		delete(x.taken, e.Step)
		x.s.Take(a, in)
	default:
		return fmt.Errorf("a %s says that it is done", a.Kind)
	}
	return nil
}

func (x *explainer) undone(a *Act) error {
	t := x.of[a]
	if t == nil || !t.undone || !a.Undoing || a.Undone {
		return fmt.Errorf("it counts as undone, and nobody said so")
	}
	if x.parked && x.s.State == Running {
		x.loose = true
		return nil
	}
	x.s.IsUndone(a)
	return nil
}

func (x *explainer) failed(a *Act, e *events.Entry) error {
	if a == nil {
		return fmt.Errorf("it is not begun")
	}
	if a.Kind != sagas.KindStep && (a.Kind != sagas.KindWait) {
		return x.see(Output{Kind: Failed, Label: e.Step, What: e.Code})
	}
	if !a.Forward() {
		return fmt.Errorf("it fails, and is not open, or what it stands in goes back")
	}
	if a.Kind == sagas.KindWait {
		if w := a.Wait.Within; w == 0 || x.s.Now < a.Began+millis(w) || e.Code != "timeout" {
			return fmt.Errorf("it fails with %s after %d ms, and may wait %v", e.Code, x.s.Now-a.Began, w)
		}
	} else if why := x.mayFail(a, e.Code); why != "" {
		return fmt.Errorf("it fails with %s: %s", e.Code, why)
	}
	x.s.Fail(a, e.Code, e.Message)
	return nil
}

// mayFail says why a step may not fail now; "" when it may.
func (x *explainer) mayFail(a *Act, code string) string {
	t := x.of[a]
	switch {
	case t == nil:
		return "it was never sent"
	case a.Step.Role == sagas.Retriable:
		return "it is retriable"
	case a.Step.Role == sagas.Pivot && a.MayHaveHappened():
		return "it is the pivot, and may have happened"
	case t.refused[code]:
		return ""
	case code == events.CodeExpired && len(t.refused) > 0 && !a.MayHaveHappened():
		return "" // one attempt was rejected, and what was open of the others has expired
	}
	most := uint32(max(a.Step.Retry.Attempts, 0))
	if a.Step.Retry.Attempts == 0 {
		most = 3
		if a.Step.Role == sagas.Pivot {
			most = 20
		}
	}
	late := x.s.Now >= max(t.sent, t.extends)+millis(a.Step.Timeout)
	switch {
	case !t.later && !late:
		return "its last attempt is open"
	case !t.final && (most == 0 || a.Sent < most):
		return fmt.Sprintf("it was tried %d times of %d", a.Sent, most)
	}
	return ""
}

// queued takes a signal that waits for its Wait, and what a stopped instance holds for one or gives back to its place.
func (x *explainer) queued(e *events.Entry, f *Fact) error {
	m := f.Message
	switch {
	case m != nil && m.Kind == events.InboxOffer && m.EventID == e.Message:
		x.held[e.Step] = m
	case m != nil && m.Action != nil && m.Action.ID == e.Message:
		c := m.Action
		x.signals[c.ID] = true
		x.s.Queue(c.Name, c.ID, c.Who, c.Payload, c.Time, x.parked)
	case x.holds(e):
		delete(x.held, e.Step)
	case x.signals[e.Message]:
		x.s.Release(e.Message)
	default:
		return fmt.Errorf("%s never came", e.Message)
	}
	return nil
}

func (x *explainer) holds(e *events.Entry) bool {
	m := x.held[e.Step]
	return m != nil && m.EventID == e.Message
}

// event takes what comes for a Wait.
func (x *explainer) event(a *Act, e *events.Entry, f *Fact) error {
	if a == nil || a.Kind != sagas.KindWait {
		return fmt.Errorf("there is no such Wait yet")
	}
	if want, ok := x.s.Saw(Output{Kind: Took, Label: e.Step, What: e.Message}); ok {
		x.dealt[e.Step] = true
		return nil
	} else if want != nil {
		return fmt.Errorf("it takes %s from the queue, and should take %s", e.Message, want.What)
	}
	if a.Wait.Event == nil { // a signal
		for i, q := range x.s.queue {
			if q.id == e.Message { // it came while the instance was parked
				x.s.queue = append(x.s.queue[:i:i], x.s.queue[i+1:]...)
				x.taken[e.Step] = sagas.Taken{ID: q.id, Payload: q.payload, Who: q.who, Time: q.time}
				return nil
			}
		}
	}
	if !a.Forward() {
		return fmt.Errorf("it takes something, and is not open, or what it stands in goes back")
	}
	m := f.Message
	if x.holds(e) {
		m = x.held[e.Step]
		delete(x.held, e.Step)
	}
	switch {
	case m == nil:
		return fmt.Errorf("nothing came")
	case a.Wait.Event != nil:
		if m.Kind != events.InboxOffer || m.EventID != e.Message {
			return fmt.Errorf("event %s was not offered", e.Message)
		}
		id := m.Correlation.String() + " " + m.EventID
		if x.s.Now < x.given[id] {
			return fmt.Errorf("event %s was taken before", e.Message)
		}
		x.given[id] = m.Time + x.keep(a.Wait.Event)
		x.taken[e.Step] = sagas.Taken{ID: m.EventID, Payload: m.Payload, Time: m.Time}
	default:
		c := m.Action
		if c == nil || c.Name != a.Wait.Signal || c.ID != e.Message {
			return fmt.Errorf("signal %s was not sent", e.Message)
		}
		x.taken[e.Step] = sagas.Taken{ID: c.ID, Payload: c.Payload, Who: c.Who, Time: c.Time}
	}
	return nil
}

// keep is how long the id of an event is known: the longest that a Wait for it says, in ms.
func (x *explainer) keep(e *sagas.EventPlan) (ms int64) {
	for _, n := range x.o.Plan.Nodes {
		if n.Wait != nil && n.Wait.Event != nil && n.Wait.Event.Topic == e.Topic && n.Wait.Event.Type == e.Type {
			ms = max(ms, millis(n.Wait.Keep))
		}
	}
	return ms
}

func (x *explainer) transition(e *events.Entry) error {
	s := x.s
	was := x.state
	x.state, x.code, x.parked = e.To, e.Code, e.To == events.Parked || e.To == events.Suspended
	switch e.To {
	case events.Running:
		if s.State != Running && s.State != Stuck {
			return fmt.Errorf("it runs, and should be %s", s.State)
		}
	case events.Compensating:
		if s.State == Running {
			switch e.Code {
			case "deadline":
				if s.Due() == 0 || s.Now < s.Due() || s.pivot != nil {
					return fmt.Errorf("its deadline has not passed, or counts no more")
				}
				s.DeadlinePasses()
			case "cancelled":
				s.Cancel()
			}
		}
		if s.State != Compensating && s.State != Compensated || was == events.Running && s.Cause.Code != e.Code {
			return fmt.Errorf("it compensates because of %s, and should be %s because of %s", e.Code, s.State, s.Cause.Code)
		}
	case events.Completed, events.Compensated:
		if err := x.see(Output{Kind: Ended, What: e.To.String()}); err != nil {
			return err
		}
		if len(s.Owed) > 0 {
			return fmt.Errorf("it is %s, and this is still due: %v", e.To, s.Owed)
		}
	case events.Parked:
		return x.mayPark(e.Code)
	}
	return nil
}

// mayPark says whether a saga without faults would need an operator as well.
func (x *explainer) mayPark(code string) error {
	s := x.s
	for a, t := range x.of {
		switch code {
		case "undo-exhausted":
			if a.Undoing && !a.Undone && t.undos > 0 {
				return nil
			}
		case "pivot-unknown":
			if a.Step.Role == sagas.Pivot && a.Status == Open && a.MayHaveHappened() {
				return nil
			}
		case "retriable-rejected":
			if a.Step.Role == sagas.Retriable && a.Status == Open && (len(t.refused) > 0 || t.final) {
				return nil
			}
		case "retriable-exhausted":
			if a.Step.Role == sagas.Retriable && a.Status == Open && len(t.refused) == 0 {
				return nil
			}
		}
	}
	if code == "failed-past-pivot" && s.State == Stuck {
		return nil
	}
	return fmt.Errorf("it is parked for %s, and nothing in it says so", code)
}

func (x *explainer) outcome() (*Outcome, error) {
	if x.s == nil || x.loose {
		return &Outcome{State: x.state, Code: x.code, Loose: x.loose}, nil
	}
	o := x.s.outcome(x.state, x.code)
	for label, e := range o.Effects {
		if e == Either && x.state.Final() {
			return nil, fmt.Errorf("it is %s, and step %s is open", x.state, label)
		}
	}
	return o, nil
}
