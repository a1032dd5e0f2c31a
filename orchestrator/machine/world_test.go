package machine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// testData is the saga's data of every test: a log of what the plan's functions saw.
type testData struct {
	log   []string
	outer *testData // of an element: what is around it
}

func (d *testData) String() string {
	s := strings.Join(d.log, ",")
	if d.outer != nil {
		s = d.outer.String() + "/" + s
	}
	return s
}

// planOf reads a plan as stories write it: see combinator for what has children, as seq(a,b); leaves are a name with attributes, name:attribute=value:attribute. Every step has an undo unless it
// is free, a pivot or retriable.
func planOf(t testing.TB, text string, broken map[string]bool) *sagas.Plan {
	t.Helper()
	p := &sagas.Plan{
		Name: "order", Version: "1", Hash: [8]byte{1}, Retention: time.Hour,
		Start: sagas.Start{EventPlan: sagas.EventPlan{Topic: "orders"}, Data: func(v []byte) (any, error) {
			switch string(v) {
			case "bad":
				return nil, errors.New("this is no order")
			case "panic":
				panic("an order that kills")
			}
			return &testData{log: []string{string(v)}}, nil
		}},
		NewData: func() any { return &testData{} },
		Decode: func(row []byte, data any) error {
			if len(row) > 0 {
				data.(*testData).log = strings.Split(string(row), ",")
			}
			return nil
		},
		Encode: func(data any) ([]byte, error) { return []byte(data.(*testData).String()), nil },
	}
	r := &planReader{t: t, rest: strings.ReplaceAll(text, " ", ""), plan: p, broken: broken}
	p.Root = r.node(nil, 0)
	if r.rest != "" {
		t.Fatalf("plan %q: %q is left over", text, r.rest)
	}
	return p
}

type planReader struct {
	t      testing.TB
	rest   string
	plan   *sagas.Plan
	broken map[string]bool // of functions: they fail while their name is in it
}

func (r *planReader) node(parent *sagas.Node, index int) *sagas.Node {
	n := &sagas.Node{ID: uint32(len(r.plan.Nodes)), Parent: parent, Index: index}
	r.plan.Nodes = append(r.plan.Nodes, n)
	end := strings.IndexAny(r.rest, "(),")
	if end < 0 {
		end = len(r.rest)
	}
	word := r.rest[:end]
	if end == len(r.rest) || r.rest[end] != '(' {
		r.rest = r.rest[end:]
		r.leaf(n, word)
		return n
	}
	r.rest = r.rest[end+1:]
	r.combinator(n, word)
	for !strings.HasPrefix(r.rest, ")") {
		n.Children = append(n.Children, r.node(n, len(n.Children)))
		r.rest = strings.TrimPrefix(r.rest, ",")
	}
	r.rest = r.rest[1:]
	return n
}

func (r *planReader) leaf(n *sagas.Node, word string) {
	attrs := strings.Split(word, ":")
	n.Name = attrs[0]
	name := n.Name
	check := r.check(name)
	size := map[string]int{}
	pad := func(what string) string { return strings.Repeat("#", size[what]) }
	s := &sagas.StepPlan{Topic: "svc", Type: name, Timeout: 30 * time.Second,
		Retry: sagas.Retry{Backoff: time.Second, Cap: 8 * time.Second}}
	s.Build = func(d any) ([]byte, error) {
		return []byte(name + "(" + d.(*testData).String() + ")" + pad("size")), check("build")
	}
	s.OnReply = func(d any, reply []byte) error {
		if reply == nil {
			reply = []byte("nil")
		}
		d.(*testData).log = append(d.(*testData).log, name+"="+string(reply))
		return check("reply")
	}
	s.Undo = &sagas.UndoPlan{Topic: "svc", Type: "undo-" + name, Timeout: 10 * time.Second,
		Retry: sagas.Retry{Backoff: time.Second, Cap: 8 * time.Second},
		Build: func(d any) ([]byte, error) {
			return []byte("undo-" + name + "(" + d.(*testData).String() + ")" + pad("undosize")), check("undo")
		}}
	n.Kind, n.Step = sagas.KindStep, s
	for _, a := range attrs[1:] {
		k, v, _ := strings.Cut(a, "=")
		number, _ := strconv.Atoi(v)
		length, _ := time.ParseDuration(v)
		switch k {
		case "pivot":
			s.Role, s.Undo = sagas.Pivot, nil
		case "retriable":
			s.Role, s.Undo = sagas.Retriable, nil
		case "free":
			s.EffectFree, s.Undo = true, nil
		case "attempts":
			s.Retry.Attempts = number
		case "undoattempts":
			s.Undo.Retry.Attempts = number
		case "not":
			s.Retry.NotCodes = []string{v}
		case "undonot":
			s.Undo.Retry.NotCodes = []string{v}
		case "timeout":
			s.Timeout = length
		case "noreply":
			s.OnReply = nil
		case "same":
			s.OnReply = func(any, []byte) error { return nil }
		case "size", "undosize":
			size[k] = number
		case "wait":
			n.Kind, n.Step, n.Wait = sagas.KindWait, nil, &sagas.WaitPlan{Sleep: length}
		case "on", "signal":
			n.Kind, n.Step = sagas.KindWait, nil
			n.Wait = &sagas.WaitPlan{Signal: v, Take: func(d any, in sagas.Taken) error {
				if string(in.Payload) == "bad" {
					return errors.New("this is not what " + name + " takes")
				}
				d.(*testData).log = append(d.(*testData).log, name+"="+string(in.Payload))
				return check("take")
			}}
			if k == "on" {
				n.Wait.Signal, n.Wait.Keep = "", time.Hour
				n.Wait.Event = &sagas.EventPlan{Topic: "payments", Type: v}
			}
		case "within":
			n.Wait.Within = length
		case "keep":
			n.Wait.Keep = length
		case "by":
			n.Wait.Key = func(any) (string, error) { return v, check("key") }
		case "do":
			n.Kind, n.Step = sagas.KindDo, nil
			n.Do = func(d any) error {
				d.(*testData).note(name)
				return check("do")
			}
		case "outside": // a Do that changes the saga's data from within a loop
			n.Kind, n.Step = sagas.KindDo, nil
			n.Do = func(d any) error {
				d.(*testData).root().note(name)
				return check("do")
			}
		case "require": // yes, no, or what the data have to contain
			n.Kind, n.Step = sagas.KindRequire, nil
			n.Conds = []func(any) (bool, error){func(d any) (bool, error) { return d.(*testData).holds(v), check("cond") }}
		case "emit":
			n.Kind, n.Step = sagas.KindEmit, nil
			n.Emit = &sagas.EmitPlan{Topic: "news", Type: name,
				Build: func(d any) ([]byte, error) {
					return []byte(name + "(" + d.(*testData).String() + ")" + pad("size")), check("build")
				}}
		case "key":
			n.Emit.Key = func(any) (string, error) { return v, check("key") }
		default:
			r.t.Fatalf("plan: %q has no attribute %q", name, a)
		}
	}
}

// world is the rows of one shard and a clock: it does with decisions what the shard's loop does, and holds
// every decision against the rules that all of them obey.
type world struct {
	t       testing.TB
	m       *Machine
	plan    *sagas.Plan
	now     int64
	rows    map[events.RowRef]cell // of the entity that is looked at, among those of all
	all     map[events.InstanceID]map[events.RowRef]cell
	id      events.InstanceID
	seq     uint64
	loads   int // rows read by the last decision
	again   map[string]int
	sent    []*events.InboxMessage // between entities, and not delivered yet
	names   map[events.InstanceID]string
	keys    bool // rows of keys are shown
	quiet   bool // no second decision to compare with
	lastLen int  // bytes of the last decision
}

type cell struct {
	value []byte
	due   int64
}

const epoch = int64(1_000_000)

func newWorld(t testing.TB, cfg Config) *world {
	cfg.App, cfg.Slots = "shop", 64
	w := &world{t: t, m: New(cfg), now: epoch, rows: map[events.RowRef]cell{}, all: map[events.InstanceID]map[events.RowRef]cell{}, names: map[events.InstanceID]string{}}
	if len(cfg.Plans) > 0 {
		w.plan = cfg.Plans[0]
	}
	return w
}

// Row is of View.
func (w *world) Row(id events.InstanceID, ref events.RowRef) ([]byte, int64, bool) {
	w.loads++
	if w.again != nil && ref.Part != events.PartAnswer && ref.Part != events.PartKey { // those are looked at first
		w.again[fmt.Sprint(id, ref)]++
	}
	rows := w.rows
	if id != w.id {
		rows = w.all[id]
	}
	c, ok := rows[ref]
	return slices.Clip(c.value), c.due, ok
}

// decide asks for a decision, twice, and applies it.
func (w *world) decide(fn func() *events.Decision) *events.Decision {
	w.t.Helper()
	w.loads, w.again = 0, map[string]int{}
	d := fn()
	loads, again := w.loads, w.again
	if d == nil {
		w.t.Fatal("the decision is nil: a row cannot be read")
	}
	for ref, n := range again {
		if n > 2 || n > 1 && d.Outcome == events.Applied && !d.Purge && w.headIn(d).State != events.Parked && !refuses(d) {
			w.t.Fatalf("row %v was read %d times", ref, n)
		}
	}
	w.again = nil
	w.seq++
	value := w.encode(d)
	if !w.quiet {
		if twice := w.encode(fn()); !bytes.Equal(value, twice) {
			w.t.Fatalf("the same rows and input gave two decisions:\n%s%s", w.print(d), w.print(fn()))
		}
	}
	w.lastLen, w.loads = len(value), loads
	w.check(d, value)
	w.apply(d)
	return d
}

func (w *world) headBefore() *events.Head {
	h, _ := events.DecodeHead(w.rows[headRef].value)
	return h
}

func (w *world) headIn(d *events.Decision) *events.Head {
	h := &events.Head{}
	for _, r := range d.Rows {
		if r.Ref == headRef {
			h, _ = events.DecodeHead(r.Value)
		}
	}
	return h
}

// refuses reports whether a decision refuses an action: it was tried first.
func refuses(d *events.Decision) bool {
	return slices.ContainsFunc(d.Entries, func(e events.Entry) bool { return e.Kind == events.EntryRefused })
}

func (w *world) encode(d *events.Decision) []byte {
	r := &events.Record{Kind: events.KindDecision, Seq: w.seq, Time: w.now, Decision: d}
	return r.Encode(nil)
}

func (w *world) check(d *events.Decision, value []byte) {
	w.t.Helper()
	switch d.Outcome {
	case events.Applied:
		if own := slices.ContainsFunc(d.Rows, func(r events.RowChange) bool { return r.Of.IsZero() }); d.Purge && own || !d.Purge && len(d.Rows)+len(d.Emits) == 0 {
			w.t.Fatalf("an applied decision changes rows or purges them, or only answers:\n%s", w.print(d))
		}
	default:
		if len(d.Rows)+len(d.Entries)+len(d.Emits) != 0 || d.Reason == "" {
			w.t.Fatalf("a decision that takes nothing has only a reason:\n%s", w.print(d))
		}
	}
	if room := 4000; len(value) > w.m.cfg.MaxRecord+room {
		w.t.Fatalf("a record of %d bytes, at most %d", len(value), w.m.cfg.MaxRecord)
	}
	if size := sizeOf(d) + len(d.Reason); size < len(value)-100 {
		w.t.Fatalf("the estimate of %d bytes is below the size of %d", size, len(value))
	}
	rec, err := events.DecodeRecord(value)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := events.Outgoing("shop", rec)
	if err != nil || len(out) != len(d.Emits) {
		w.t.Fatalf("%d messages go out for %d emits: %v", len(out), len(d.Emits), err)
	}
	seen := map[string]bool{}
	for i := range d.Rows {
		r := &d.Rows[i]
		name := fmt.Sprint(d.Whose(r), r.Ref)
		if seen[name] || r.WasDue != w.of(d.Whose(r))[r.Ref].due {
			w.t.Fatalf("row %v stands twice, or was not due at %d\n%s", r.Ref, r.WasDue, w.print(d))
		}
		seen[name] = true
	}
	if d.FirstRow != 0 || len(d.Entries) > 0 {
		if h := w.headBefore(); h != nil && len(d.Rows) > 0 && d.FirstRow != h.Entries {
			w.t.Fatalf("history goes on at %d, not %d", d.FirstRow, h.Entries)
		}
	}
}

func (w *world) apply(d *events.Decision) {
	if d.Purge {
		clear(w.rows)
	}
	for i := range d.Rows {
		r := &d.Rows[i]
		if rows := w.of(d.Whose(r)); r.Gone {
			delete(rows, r.Ref)
		} else {
			rows[r.Ref] = cell{bytes.Clone(r.Value), r.Due}
		}
	}
	if d.Instance != w.id {
		w.t.Fatalf("the decision is for instance %s", d.Instance)
	}
	for _, e := range d.Emits {
		if e.Kind != events.EmitMessage {
			continue
		}
		m, err := events.DecodeInboxMessage(bytes.Clone(e.Payload))
		if err != nil || m.To != e.To {
			w.t.Fatalf("a message that cannot be read, or goes elsewhere: %v", err)
		}
		w.sent = append(w.sent, m)
	}
}

// of gives the rows of an entity.
func (w *world) of(id events.InstanceID) map[events.RowRef]cell {
	if id == w.id {
		return w.rows
	}
	if w.all[id] == nil {
		w.all[id] = map[events.RowRef]cell{}
	}
	return w.all[id]
}

// turnTo makes an entity the one that is looked at.
func (w *world) turnTo(id events.InstanceID) {
	w.rows, w.id = w.of(id), id
	w.all[id] = w.rows
}

// at decides for an entity that is not, or not for long, the one that is looked at.
func (w *world) at(id events.InstanceID, fn func() *events.Decision) *events.Decision {
	w.t.Helper()
	before := w.id
	w.turnTo(id)
	d := w.decide(fn)
	if !before.IsZero() {
		w.turnTo(before)
	}
	return d
}

// deliver takes the i-th message that is under way to its entity.
func (w *world) deliver(i int) *events.Decision {
	w.t.Helper()
	m := w.sent[i]
	w.sent = slices.Delete(w.sent, i, i+1)
	return w.message(m)
}

func (w *world) message(m *events.InboxMessage) *events.Decision {
	w.t.Helper()
	to := m.To
	if a := m.Action; a != nil && a.Key != "" {
		if k, err := events.DecodeKeyState(w.of(to)[keyRef].value); err == nil && !k.Live.IsZero() && w.of(to)[answerRef(a.ID)].value == nil {
			to = k.Live
		}
	}
	return w.at(to, func() *events.Decision { return w.m.Message(w, w.now, m) })
}

func (w *world) start(key, id, value string) *events.Decision {
	w.t.Helper()
	routes, err := w.m.Routes(&events.Message{Topic: "orders", Key: []byte(key), Value: []byte(value),
		Headers: []events.Header{{Key: events.HeaderID, Value: []byte(id)}}})
	if err != nil {
		w.t.Fatal(err)
	}
	route := routes[0]
	w.turnTo(route.Instance)
	w.names[w.id] = key
	return w.decide(func() *events.Decision { return w.m.Start(w, w.now, *route.Start) })
}

func (w *world) reply(r events.Reply) *events.Decision {
	w.t.Helper()
	r.Command.Instance = w.id
	return w.decide(func() *events.Decision { return w.m.Reply(w, w.now, r) })
}

// due lists the timers in the order in which they fire.
func (w *world) due() []events.RowRef {
	var refs []events.RowRef
	for ref, c := range w.rows {
		if c.due != 0 {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b events.RowRef) int {
		if x, y := w.rows[a].due, w.rows[b].due; x != y {
			return int(min(max(x-y, -1), 1))
		}
		if a.Part != b.Part {
			return int(a.Part) - int(b.Part)
		}
		return int(a.N) - int(b.N)
	})
	return refs
}

func (w *world) fire(ref events.RowRef) *events.Decision {
	w.t.Helper()
	due := w.rows[ref].due
	w.now = max(w.now, due)
	return w.decide(func() *events.Decision { return w.m.Timer(w, w.now, Timer{w.id, ref, due}) })
}

func (w *world) head() *events.Head { return w.headBefore() }

func (w *world) named(name string) *sagas.Node {
	for _, n := range w.plan.Nodes {
		if n.Name == name {
			return n
		}
	}
	w.t.Fatalf("the plan has no node %q", name)
	return nil
}

// print shows a decision as stories do.
func (w *world) print(d *events.Decision) string {
	if d.Outcome == Waits {
		return fmt.Sprintf("%s waits %s\n", clock(w.now), d.Reason)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", clock(w.now), d.Outcome)
	if d.Reason != "" {
		fmt.Fprintf(&b, " %s", short(d.Reason))
	}
	if d.Purge {
		b.WriteString(" purge")
	}
	b.WriteString("\n")
	for _, e := range d.Entries {
		fmt.Fprintf(&b, "  %s\n", printEntry(&e))
	}
	for _, r := range d.Rows {
		if r.Ref.Part == events.PartKey && !w.keys {
			continue
		}
		what := ""
		if r.Gone {
			what = r.Ref.Part.String() + " " + strconv.FormatUint(r.Ref.N%1000, 10) + " is gone"
		} else {
			what = w.printRow(r.Ref, r.Value)
		}
		fmt.Fprintf(&b, "  = %s%s\n", what, printDue(r.Due))
	}
	rec := &events.Record{Kind: events.KindDecision, Seq: 1, Time: w.now, Decision: d}
	out, err := events.Outgoing("shop", rec)
	if err != nil {
		fmt.Fprintf(&b, "  > %v\n", err)
	}
	for i, m := range out {
		e := d.Emits[i]
		if e.Kind == events.EmitLifecycle {
			fmt.Fprintf(&b, "  > %s %s\n", m.Topic, e.Type)
			continue
		}
		if e.Kind == events.EmitMessage {
			fmt.Fprintf(&b, "  > %s\n", w.printMessage(e.Payload))
			continue
		}
		if e.Kind == events.EmitEvent {
			fmt.Fprintf(&b, "  > %s %s key %s %s\n", m.Topic, e.Type, m.Key, short(string(m.Value)))
			continue
		}
		if e.Kind == events.EmitCommand && strings.Contains(e.Step, "[") {
			fmt.Fprintf(&b, "  > %s %s for %s execution %d attempt %d", m.Topic, e.Type, e.Step, e.Execution, e.Attempt)
		} else {
			fmt.Fprintf(&b, "  > %s %s execution %d attempt %d", m.Topic, e.Type, e.Execution, e.Attempt)
		}
		if e.Expiry != 0 {
			fmt.Fprintf(&b, " expires %s", clock(e.Expiry))
		}
		if _, ok := m.Header(events.HeaderUndoes); ok {
			b.WriteString(" undoes " + e.Step)
		}
		fmt.Fprintf(&b, " %s\n", short(string(m.Value)))
	}
	return b.String()
}

func clock(ms int64) string { return time.Duration((ms - epoch) * 1e6).String() }

func printDue(due int64) string {
	if due == 0 {
		return ""
	}
	return " due " + clock(due)
}

// short leaves out what follows the first line: it is a stack, which changes with every edit of the machine.
func short(s string) string {
	s, stack, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if stack != "" {
		s += " and a stack"
	}
	if len(s) > 300 {
		s = s[:40] + "..." + strconv.Itoa(len(s))
	}
	return s
}

func printEntry(e *events.Entry) string {
	s := e.Kind.String()
	if e.Step != "" {
		s += " " + e.Step
	}
	if e.Phase == events.Compensate {
		s += " (undo)"
	}
	if e.Attempt != 0 {
		s += fmt.Sprintf(" #%d", e.Attempt)
	}
	if e.To != 0 {
		s += " " + e.To.String()
	}
	if e.Who != "" {
		s += " by " + e.Who
	}
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Message != "" {
		s += ": " + short(e.Message)
	}
	return s
}

func (w *world) printRow(ref events.RowRef, value []byte) string {
	switch ref.Part {
	case events.PartHead:
		h, err := events.DecodeHead(value)
		if err != nil {
			return err.Error()
		}
		s := "head " + h.State.String()
		if h.State == events.Parked {
			s += fmt.Sprintf(" in %s at node %d", h.ParkedIn, h.ParkedNode)
		}
		if h.Code != "" {
			s += " " + h.Code
		}
		if h.Cause != "" && h.Cause != h.Code {
			s += " cause " + h.Cause
		}
		if h.Pivot != 0 {
			s += " pivot " + [...]string{"ahead", "decided", "done"}[h.Pivot]
		}
		if h.Held != 0 {
			s += fmt.Sprintf(" held %d", h.Held-1)
		}
		if h.QueueFirst != h.QueueNext {
			s += fmt.Sprintf(" queue %d to %d", h.QueueFirst, h.QueueNext-1)
		}
		return s
	case events.PartData:
		return "data " + short(string(value))
	case events.PartNode:
	default:
		return w.printOther(ref, value)
	}
	n, err := events.DecodeNode(value)
	if err != nil {
		return err.Error()
	}
	name := w.labelOf(ref.N)
	s := name + " " + n.Status.String()
	if n.Status == 0 {
		s = name + " not started"
	}
	if n.Execution == 0 {
		s += fmt.Sprintf(" index %d active %d", n.Index, n.Active)
	} else {
		s += fmt.Sprintf(" attempts %d", n.Attempts)
	}
	if n.Rejected != 0 {
		s += fmt.Sprintf(" rejected %b", n.Rejected)
	}
	if n.Failed {
		s += " failed"
	}
	if n.Lost != 0 {
		s += fmt.Sprintf(" lost %d", n.Lost)
	}
	if n.Done != 0 {
		s += fmt.Sprintf(" done %d", n.Done)
	}
	if n.Base != 0 || n.Count != 0 {
		s += fmt.Sprintf(" base %d count %d", n.Base, n.Count)
	}
	if n.Prev != 0 {
		s += fmt.Sprintf(" after %d", n.Prev)
	}
	if n.Item != nil {
		s += " item " + short(string(n.Item))
	}
	if n.Code != "" {
		s += fmt.Sprintf(" because %s said %s", n.Step, n.Code)
	}
	if n.Key != "" {
		s += " for " + n.Key
	}
	if n.HasAnswer {
		s += " done"
	}
	if n.Answer != nil {
		s += fmt.Sprintf(" answer %q", n.Answer)
	}
	if n.Held {
		s += " held"
	}
	if n.Undo != nil {
		s += fmt.Sprintf(" owes %s", short(string(n.Undo.Payload)))
		if n.Undo.Attempts > 0 {
			s += fmt.Sprintf(" tried %d", n.Undo.Attempts)
		}
	}
	return s
}
