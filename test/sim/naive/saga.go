package naive

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/skald-io/skald/sagas"
)

// Saga is one saga at work. What the world says of its open steps and waits are moves: Done, Fail, Take, Pass and so
// on. Each changes the tree at once and as far as it can, and adds what follows from it to Owed: what the world has yet
// to see. It is not safe for concurrent use.
type Saga struct {
	Plan *sagas.Plan
	Key  string // the business key
	Now  int64  // ms since 1970: when the next move happens

	State State
	Cause sagas.Failure // why it compensates
	Owed  []Output      // in the order in which they came about
	Err   error         // a function of the definition failed, and nothing after that counts
	// Leaves says whether the command of a step leaves although the step is given up in the same breath in which it is
	// begun: both may be. nil: it does not.
	Leaves func(label string) bool

	data    []byte
	root    *Act
	acts    map[string]*Act // by label
	started int64
	pivot   *Act // that was begun, and is not known to have failed
	queue   []signal
}

// State is how far a saga is.
type State uint8

const (
	Running State = iota
	Compensating
	Completed
	Compensated
	Stuck // it failed past its pivot
)

func (s State) String() string {
	return [...]string{"running", "compensating", "completed", "compensated", "stuck past its pivot"}[s]
}

// Kind is what the world sees of a saga.
type Kind string

const (
	Command Kind = "command" // a step's, for the first time
	Undo    Kind = "undo"    // a step's, for the first time
	Emit    Kind = "event"   // of an Emit
	Ran     Kind = "ran"     // a Do
	Chose   Kind = "chose"   // a Choose, Require or While, and what
	Took    Kind = "took"    // a Wait took a signal from the queue
	Failed  Kind = "failed"  // a Require or a loop, and with which code
	Ended   Kind = "ended"   // the saga, and how
)

// Output is something that the world is to see.
type Output struct {
	Kind    Kind
	Label   string
	What    string
	Key     string // of Emit
	Payload []byte // of Command, Undo and Emit
}

func (o Output) String() string {
	return fmt.Sprintf("%s %s %s %s", o.Kind, o.Label, o.What, o.Payload)
}

type signal struct {
	name, id, who string
	payload       []byte
	time          int64
	held          bool // by a Wait of an instance that is stopped
}

// Act is a node of the plan at work, in one turn of each loop around it.
type Act struct {
	*sagas.Node
	Label  string
	Status Status
	Began  int64

	s    *Saga
	up   *Act
	turn int    // of the body of a loop
	item []byte // of the body of a ForEach, as its turn left it
	kids []*Act // those that were begun, in order

	items [][]byte // of a ForEach
	done  int      // of a fork: branches that are done
	lost  int      // and that failed
	lose  bool     // of a fork: it fails once nothing of it is open
	why   sagas.Failure
	then  []func() // once it is undone

	// Of a step.
	Sent     uint32          // attempts that the world saw
	Rejected map[uint32]bool // of them those that were rejected
	Happened bool            // somebody said done
	Undoing  bool            // the world saw its undo
	Undone   bool            // and it was done
	undo     []byte          // what the undo will say
}

// Status is what became of a node.
type Status uint8

const (
	Open Status = iota
	Done
	Lost // it failed
	GoingBack
	Gone // undone, or never done
)

// Start begins a saga of an event. leaves is kept, see Saga.Leaves.
func Start(p *sagas.Plan, key string, event []byte, now int64, leaves func(label string) bool) (*Saga, error) {
	s := &Saga{Plan: p, Key: key, Now: now, Leaves: leaves, started: now, acts: map[string]*Act{}}
	data, err := p.Start.Data(event)
	if err != nil {
		return nil, err
	}
	if s.data, err = p.Encode(data); err != nil {
		return nil, err
	}
	s.begin(p.Root, nil, 0, nil)
	return s, s.Err
}

// At finds what was begun under a label: NAME, or NAME[turn] in a loop.
func (s *Saga) At(label string) *Act { return s.acts[label] }

// begin starts a node under another, and all that starts with it.
func (s *Saga) begin(n *sagas.Node, up *Act, turn int, item []byte) {
	a := &Act{Node: n, s: s, up: up, turn: turn, item: item, Began: s.Now, Label: n.Name + turns(up, turn), Rejected: map[uint32]bool{}}
	s.acts[a.Label] = a
	if up == nil {
		s.root = a
	} else {
		up.kids = append(up.kids, a)
	}
	switch n.Kind {
	case sagas.KindStep:
		payload := a.build(n.Step.Build)
		a.rebuildUndo()
		if n.Step.Role == sagas.Pivot {
			s.pivot = a
		}
		s.owe(Output{Kind: Command, Label: a.Label, Payload: payload})
	case sagas.KindDo:
		a.work(true, n.Do)
		s.owe(Output{Kind: Ran, Label: a.Label})
		a.end(nil)
	case sagas.KindEmit:
		o := Output{Kind: Emit, Label: a.Label, Key: s.Key}
		if n.Emit.Key != nil {
			a.work(false, func(d any) (err error) { o.Key, err = n.Emit.Key(d); return err })
		}
		o.Payload = a.build(n.Emit.Build)
		s.owe(o)
		a.end(nil)
	case sagas.KindWait:
		if n.Wait.Signal != "" {
			a.takeQueued()
		}
	case sagas.KindRequire:
		if a.asks(0) {
			a.end(nil)
		} else {
			a.failed("required", a.Label)
		}
	case sagas.KindChoose:
		a.choose()
	case sagas.KindWhile:
		a.again()
	case sagas.KindSeq, sagas.KindTry:
		s.begin(n.Children[0], a, 0, nil)
	case sagas.KindForEach:
		a.work(false, func(d any) (err error) { a.items, err = n.Each.Items(d); return err })
		if len(a.items) > n.Most {
			a.failed("too-many", "")
			return
		}
		a.fork()
	case sagas.KindAll:
		a.fork()
	}
}

// turns are the numbers of the loops' turns around a node, as they stand in its label: those around the node above,
// and, in the body of a loop, its own.
func turns(up *Act, turn int) string {
	if up == nil {
		return ""
	}
	around := up.Label[len(up.Name):]
	if up.Kind == sagas.KindForEach || up.Kind == sagas.KindWhile {
		around += "[" + strconv.Itoa(turn) + "]"
	}
	return around
}

// end ends a node that went forward: well, or by a failure.
func (a *Act) end(f *sagas.Failure) {
	if a.s.Err != nil {
		return
	}
	a.Status = Done
	if f != nil {
		a.Status = Lost
	}
	if a.up == nil {
		a.s.ended(f)
	} else if a.up.Status == Open {
		a.up.ended(a, f)
	}
}

// failed ends a node that is no step, and says why.
func (a *Act) failed(code, message string) {
	a.s.owe(Output{Kind: Failed, Label: a.Label, What: code})
	a.end(&sagas.Failure{Step: a.Label, Code: code, Message: message})
}

// ended takes the end of the whole.
func (s *Saga) ended(f *sagas.Failure) {
	switch {
	case f == nil:
		s.final(Completed)
	case s.pivot != nil:
		s.State, s.Cause = Stuck, *f
	default:
		s.compensate(*f)
	}
}

func (s *Saga) final(how State) {
	s.State = how
	s.owe(Output{Kind: Ended, What: how.String()})
}

// compensate turns the saga round: what was begun goes back, in the reverse of the order in which it came.
func (s *Saga) compensate(why sagas.Failure) {
	s.State, s.Cause = Compensating, why
	s.root.goBack(func() { s.final(Compensated) })
}

// ended takes the end of one of a node's children, and goes on with what is next.
func (a *Act) ended(kid *Act, f *sagas.Failure) {
	switch a.Kind {
	case sagas.KindSeq:
		if next := kid.Index + 1; f == nil && next < len(a.Children) {
			a.s.begin(a.Children[next], a, 0, nil)
			return
		}
		a.end(f)
	case sagas.KindChoose:
		a.end(f)
	case sagas.KindWhile:
		if f != nil {
			a.end(f)
			return
		}
		a.again()
	case sagas.KindTry:
		if f == nil || kid.Index == 1 {
			a.end(f)
			return
		}
		kid.goBack(func() { a.otherWay(*f) })
	default:
		a.joined(kid, f)
	}
}

// choose begins the first child whose condition holds.
func (a *Act) choose() {
	for i := range a.Children {
		if a.Conds[i] != nil && !a.holds(i) {
			continue
		}
		a.s.owe(Output{Kind: Chose, Label: a.Label, What: a.Cases[i]})
		a.s.begin(a.Children[i], a, 0, nil)
		return
	}
	a.s.owe(Output{Kind: Chose, Label: a.Label, What: "none"})
	a.end(nil)
}

func (a *Act) holds(i int) (yes bool) {
	a.work(false, func(d any) (err error) { yes, err = a.Conds[i](d); return err })
	return yes
}

// asks is holds for a condition whose answer is said.
func (a *Act) asks(i int) bool {
	yes, what := a.holds(i), "no"
	if yes {
		what = "yes"
	}
	a.s.owe(Output{Kind: Chose, Label: a.Label, What: what})
	return yes
}

// again asks whether a While has another turn.
func (a *Act) again() {
	switch yes := a.asks(0); {
	case !yes:
		a.end(nil)
	case len(a.kids) == a.Most:
		a.failed("too-many", "")
	default:
		a.s.begin(a.Children[0], a, len(a.kids), nil)
	}
}

// otherWay goes on with a Try whose body is undone.
func (a *Act) otherWay(why sagas.Failure) {
	if !a.Forward() {
		return
	}
	if a.OnFail != nil {
		a.work(true, func(d any) error { return a.OnFail(d, why) })
	}
	if len(a.Children) == 1 {
		a.end(nil)
		return
	}
	a.s.begin(a.Children[1], a, 0, nil)
}

// A fork is an All or a ForEach.

func (a *Act) branches() int {
	if a.Kind == sagas.KindForEach {
		return len(a.items)
	}
	return len(a.Children)
}

// needs is how many branches have to be done.
func (a *Act) needs() int {
	switch a.Join {
	case sagas.JoinSome:
		return a.Quorum
	case sagas.JoinFirst:
		return 1
	}
	return a.branches()
}

func (a *Act) fork() {
	if a.Join == sagas.JoinSome && a.branches() < a.Quorum {
		a.failed("too-few", "")
		return
	}
	a.goOn()
}

// goOn begins branches as far as the fork's width allows, or ends it when nothing is open and nothing will be.
func (a *Act) goOn() {
	for a.Forward() {
		decided := a.lose || a.Join != sagas.JoinAll && a.done >= a.needs()
		open := 0
		for _, kid := range a.kids {
			if kid.Status == Open || kid.Status == GoingBack {
				open++
			}
		}
		next := len(a.kids)
		switch {
		case !decided && next < a.branches() && (a.Width == 0 || open < a.Width):
			if a.Kind == sagas.KindForEach {
				a.s.begin(a.Children[0], a, next, a.items[next])
			} else {
				a.s.begin(a.Children[next], a, 0, nil)
			}
			continue
		case open > 0 || !decided && next < a.branches():
		case a.lose:
			a.end(&a.why)
		default:
			a.end(nil)
		}
		return
	}
}

// joined takes the end of a branch.
func (a *Act) joined(kid *Act, f *sagas.Failure) {
	if f == nil {
		a.done++
		if a.done >= a.needs() && (a.Join == sagas.JoinFirst || a.Join == sagas.JoinSome && a.OnFailure == sagas.CancelRest) && !a.lose {
			a.leaveOut()
		}
		a.goOn()
		return
	}
	if a.lost++; a.lost == 1 {
		a.why = *f
	}
	switch {
	case a.Join == sagas.JoinFirst:
		a.lose = true
		kid.goBack(a.goOn)
		a.leaveOut()
	case a.Join == sagas.JoinSome && !a.lose && a.branches()-a.lost >= a.needs():
		kid.goBack(a.goOn)
	default: // it cannot be done any more
		a.lose = true
		if a.OnFailure == sagas.CancelRest {
			a.end(&a.why)
			return
		}
	}
	a.goOn()
}

// leaveOut undoes the branches that are not done.
func (a *Act) leaveOut() {
	for _, kid := range slices.Backward(a.kids) {
		if kid.Status == Open {
			kid.goBack(a.goOn)
		}
	}
}

// Forward reports whether a node may go on: it is open, and nothing above it goes back. A fork that failed and cancels
// the rest, in one that lets the others finish, is undone only when those have ended; until then what is open of it
// goes on.
func (a *Act) Forward() bool {
	if a.Status != Open {
		return false
	}
	for up := a.up; up != nil; up = up.up {
		if up.Status != Open && up.Status != Lost {
			return false
		}
	}
	return true
}

// goBack undoes what was done of a node, and does then what follows.
func (a *Act) goBack(then func()) {
	if a.Status == Gone {
		then()
		return
	}
	a.then = append(a.then, then)
	if a.Status == GoingBack {
		return
	}
	a.Status = GoingBack
	switch a.Kind {
	case sagas.KindStep:
		a.undoStep()
	case sagas.KindAll:
		a.backTogether()
	case sagas.KindForEach:
		if a.Width != 1 {
			a.backTogether()
			return
		}
		a.backOneByOne()
	default:
		a.backOneByOne()
	}
}

// backOneByOne undoes the last child that is not undone yet, and comes again.
func (a *Act) backOneByOne() {
	for _, kid := range slices.Backward(a.kids) {
		if kid.Status != Gone {
			kid.goBack(a.backOneByOne)
			return
		}
	}
	a.gone()
}

// backTogether undoes all children side by side.
func (a *Act) backTogether() {
	left := 1
	one := func() {
		if left--; left == 0 {
			a.gone()
		}
	}
	for _, kid := range slices.Backward(a.kids) {
		left++
		kid.goBack(one)
	}
	one()
}

func (a *Act) gone() {
	if a.Status == Gone {
		return
	}
	a.Status = Gone
	for _, then := range a.then {
		then()
	}
}

// undoStep owes the step's undo, unless it has no effect: nobody saw its command, or every attempt was rejected.
func (a *Act) undoStep() {
	leaves := a.Sent > 0
	if !leaves {
		if leaves = a.s.Leaves != nil && a.s.Leaves(a.Label); !leaves {
			a.s.drop(Command, a.Label)
		}
	}
	if !leaves || a.Sent > 0 && !a.MayHaveHappened() || a.undo == nil {
		a.gone()
		return
	}
	a.s.owe(Output{Kind: Undo, Label: a.Label, Payload: a.undo})
}

// MayHaveHappened reports whether a step may have an effect: it is said to, or some attempt was not rejected.
func (a *Act) MayHaveHappened() bool { return a.Happened || int(a.Sent) > len(a.Rejected) }

// rebuildUndo makes what the undo will say of the data as they are.
func (a *Act) rebuildUndo() {
	if u := a.Step.Undo; u != nil && !a.Step.EffectFree {
		a.undo = a.build(u.Build)
	}
}

// Moves: what the world says.

// Says notes what a participant says of an attempt of a step, whether it still counts or not.
func (s *Saga) Says(a *Act, attempt uint32, done bool) {
	if attempt == 0 || attempt > a.Sent {
		return
	}
	if done {
		a.Happened = true
		return
	}
	a.Rejected[attempt] = true
	if a.Status == GoingBack && !a.Undoing && !a.MayHaveHappened() {
		s.drop(Undo, a.Label)
		a.gone()
	}
}

// Done ends an open step well.
func (s *Saga) Done(a *Act, reply []byte) {
	a.Happened = true
	if fn := a.Step.OnReply; fn != nil {
		a.work(true, func(d any) error { return fn(d, reply) })
	}
	a.rebuildUndo()
	a.end(nil)
}

// Fail ends an open step or Wait by a failure.
func (s *Saga) Fail(a *Act, code, message string) {
	if a == s.pivot {
		s.pivot = nil
	}
	a.end(&sagas.Failure{Step: a.Label, Code: code, Message: message})
}

// IsUndone ends a step's undo.
func (s *Saga) IsUndone(a *Act) {
	a.Undone = true
	a.gone()
}

// Pass ends a Sleep, or a Wait that took what came.
func (s *Saga) Pass(a *Act) { a.end(nil) }

// Take ends a Wait by what came for it.
func (s *Saga) Take(a *Act, in sagas.Taken) {
	if a.Wait.Take != nil {
		a.work(true, func(d any) error { return a.Wait.Take(d, in) })
	}
	a.end(nil)
}

// Queue keeps a signal that came before its Wait, or, of an instance that is stopped, for a Wait that is at work.
func (s *Saga) Queue(name, id, who string, payload []byte, time int64, stopped bool) {
	held := 0
	for _, q := range s.queue {
		if q.name == name && q.held {
			held++
		}
	}
	s.queue = append(s.queue, signal{name, id, who, payload, time, stopped && held < s.waits(name)})
}

// waits counts the Waits at work for a signal.
func (s *Saga) waits(name string) (n int) {
	for _, a := range s.acts {
		if a.Wait != nil && a.Wait.Signal == name && a.Status == Open {
			n++
		}
	}
	return n
}

// Release leaves a signal that a Wait holds to another one.
func (s *Saga) Release(id string) {
	for i := range s.queue {
		s.queue[i].held = s.queue[i].held && s.queue[i].id != id
	}
}

// takeQueued lets a Wait that begins take the first signal of its name that no other one holds.
func (a *Act) takeQueued() {
	holders := a.s.waits(a.Wait.Signal) - 1
	for i, q := range a.s.queue {
		switch {
		case q.name != a.Wait.Signal:
		case q.held && holders > 0:
			holders--
		default:
			a.s.queue = slices.Delete(a.s.queue, i, i+1)
			a.s.owe(Output{Kind: Took, Label: a.Label, What: q.id})
			a.s.Take(a, sagas.Taken{ID: q.id, Who: q.who, Payload: q.payload, Time: q.time})
			return
		}
	}
}

// DeadlinePasses compensates a saga that took too long. It changes nothing past the pivot.
func (s *Saga) DeadlinePasses() { s.turn("deadline") }

// Cancel compensates a saga because somebody says so.
func (s *Saga) Cancel() { s.turn("cancelled") }

func (s *Saga) turn(code string) {
	if s.State == Running && s.pivot == nil {
		s.compensate(sagas.Failure{Code: code})
	}
}

// Due is when the deadline passes; 0: never.
func (s *Saga) Due() int64 {
	if s.Plan.Deadline == 0 {
		return 0
	}
	return s.started + millis(s.Plan.Deadline)
}

func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// owe adds what the world is to see.
func (s *Saga) owe(o Output) { s.Owed = append(s.Owed, o) }

// drop takes back what the world has not seen.
func (s *Saga) drop(k Kind, label string) {
	s.Owed = slices.DeleteFunc(s.Owed, func(o Output) bool { return o.Kind == k && o.Label == label })
}

// Saw takes off what the world sees; it is false when it was not to see that, or something else of the same name: then
// want is what it should have seen.
func (s *Saga) Saw(o Output) (want *Output, ok bool) {
	for i := range s.Owed {
		w := s.Owed[i]
		if w.Kind != o.Kind || w.Label != o.Label {
			continue
		}
		if w.What != o.What || w.Key != o.Key || !bytes.Equal(w.Payload, o.Payload) {
			return &w, false
		}
		s.Owed = slices.Delete(s.Owed, i, i+1)
		return &w, true
	}
	return nil, false
}

// build makes a payload of the data.
func (a *Act) build(fn func(any) ([]byte, error)) (payload []byte) {
	a.work(false, func(d any) (err error) { payload, err = fn(d); return err })
	return payload
}

// work runs a function of the definition over the data that the node sees: the saga's, or, in the body of a ForEach,
// what that makes of them and its element.
func (a *Act) work(changes bool, fn func(any) error) {
	s := a.s
	if s.Err != nil {
		return
	}
	s.Err = func() error {
		data := s.Plan.NewData()
		if err := s.Plan.Decode(s.data, data); err != nil {
			return err
		}
		var bodies []*Act // innermost first
		for at := a; at != nil; at = at.up {
			if at.up != nil && at.up.Kind == sagas.KindForEach {
				bodies = append(bodies, at)
			}
		}
		see := data
		seen := make([]any, len(bodies))
		for i, b := range slices.Backward(bodies) {
			var err error
			if see, err = b.up.Each.Enter(see, b.item, b.turn); err != nil {
				return err
			}
			seen[i] = see
		}
		if err := fn(see); err != nil || !changes {
			return err
		}
		for i, b := range bodies {
			item, err := b.up.Each.Leave(seen[i])
			if err != nil {
				return err
			}
			b.item = item
		}
		row, err := s.Plan.Encode(data)
		s.data = row
		return err
	}()
}
