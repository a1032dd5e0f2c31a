// Package redecide asks of a journal whether its decisions follow from their inputs: it folds the rows of a shard, makes
// every decision once more from the rows before it and the input it names, and compares the two byte for byte.
//
// It may import events and the pure packages of the core, machine and journal. It shares the machine with the engine, on purpose: it finds
// decisions that depend on anything but rows and input (a clock, chance, the order of a map, a function that is not pure,
// rows that the owner had and nobody else has), not rules that are wrong. What the rules are worth, test/check/checker and
// test/sim/naive ask, which have none of this code.
//
// Not everything can be made again. Report.Skipped counts it, by reason:
//
//   - an input that its topic has no longer: inboxes and replies are trimmed below what is journaled;
//   - what went to the quarantine topic: the shard, not the machine, says why, for all whom a record concerns together;
//   - what an older build than this decided, where the rules have changed: a claim names the build (Report.Builds);
//   - decisions about rows that a journal, trimmed, has not carried yet;
//   - an instance whose definition is not given.
//
// Of what Kafka said when it refused a command only what the history keeps is known, and the trace context of a saga
// is taken from its first row: the owner's telemetry draws it. The owner reads its clock when it decides and again
// when it stamps the record, so a decision that no entry dates is tried at the times shortly before its record's.
package redecide

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/machine"
)

// Config is what re-deciding needs besides the journal.
type Config struct {
	App string
	// Machine has the definitions, limits and aliases of the nodes that decided.
	Machine *machine.Machine
	// Input gives a record as it stands on its topic; nil when it is gone, or cannot be read.
	Input func(topic string, partition int32, offset int64) *events.Message
	// Lag is by how many milliseconds at most a record may be stamped after its decision; 0: 50.
	Lag int64
}

// Record is a record of a shard's journal as it stands there.
type Record struct {
	Offset int64
	Value  []byte
}

// Accept gives those records that every reader of the journal accepts (rules L1 and L2). log is the journal from its
// start on, which, when it was trimmed, is a checkpoint.
func Accept(log []Record) (accepted []Record, err error) {
	s := journal.NewState()
	for i, r := range log {
		v, _, err := s.Fold(r.Offset, i == 0, r.Value, noRows{})
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		if v == journal.Accepted {
			accepted = append(accepted, r)
		}
	}
	return accepted, nil
}

// noRows is for a reader that asks only what is accepted.
type noRows struct{}

func (noRows) Set(_ []byte, _, _ int64, _ []byte, _ uint64) {}
func (noRows) Delete([]byte, int64, uint64)                 {}
func (noRows) DeleteRange(_, _ []byte)                      {}

// Report is what became of a shard's decisions.
type Report struct {
	Decisions int            // that answer an input
	Same      int            // made again, alike
	Skipped   map[string]int // not made again, by reason
	Builds    map[string]int // decisions by each build, as the claims name them
	Differ    []Difference
}

// Difference is a decision that does not follow from its rows and input.
type Difference struct {
	Offset   int64
	Seq      uint64
	Instance events.InstanceID
	Input    events.InputKind
	What     string
}

func (d Difference) String() string {
	return fmt.Sprintf("offset %d, sequence %d, instance %s, %s: %s", d.Offset, d.Seq, d.Instance, d.Input, d.What)
}

// Reasons of Report.Skipped.
const (
	InputGone  = "the input is gone"
	Aside      = "it went to quarantine"
	NoRows     = "the rows before it are not known"
	NoPlan     = "the definition is not known"
	NotRouted  = "the input is for nobody here"
	Unreadable = "the input cannot be read"
	Broken     = "the instance's rows contradict each other"
	Untold     = "which command was refused is not known"
)

// brokenCode is orchestrator.CodeCorruptInstance.
const brokenCode = "corrupt-instance"

// Shard makes the decisions of one shard again. log holds the accepted records in order (see Accept), claims included;
// when it does not begin with the journal's first, it begins with a checkpoint. An error says that a record cannot
// be read.
func Shard(c Config, log []Record) (*Report, error) {
	if c.Lag == 0 {
		c.Lag = 50
	}
	s := &shard{Config: c, rows: rows{}, r: &Report{Skipped: map[string]int{}, Builds: map[string]int{}}}
	for i := range log {
		rec, err := events.DecodeRecord(log[i].Value)
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", log[i].Offset, err)
		}
		if i == 0 && rec.Kind == events.KindCheckpoint {
			s.partial = rec.Seq
		}
		switch rec.Kind {
		case events.KindClaim:
			s.build = rec.Claim.Build
		case events.KindCheckpoint:
			s.build = rec.Checkpoint.Claim.Build
		case events.KindCarry:
			s.carry(rec.Carry)
		case events.KindDecision:
			s.decision(log[i], rec)
			s.rows.apply(rec.Decision)
		}
	}
	return s.r, nil
}

// Add adds the figures of another shard.
func (r *Report) Add(o *Report) {
	r.Decisions += o.Decisions
	r.Same += o.Same
	for k, n := range o.Skipped {
		r.Skipped[k] += n
	}
	for k, n := range o.Builds {
		r.Builds[k] += n
	}
	r.Differ = append(r.Differ, o.Differ...)
}

// NewReport is a report of nothing, for Add.
func NewReport() *Report { return &Report{Skipped: map[string]int{}, Builds: map[string]int{}} }

type shard struct {
	Config
	rows    rows
	r       *Report
	build   string
	partial uint64 // sequence of the checkpoint that the journal begins with, until all rows are carried; 0: rows are whole
	time    int64  // of the record before
}

// rows are a shard's rows, without history.
type rows map[events.InstanceID]map[events.RowRef]cell

type cell struct {
	value []byte
	due   int64
}

// Row is of machine.View.
func (rs rows) Row(id events.InstanceID, ref events.RowRef) (value []byte, due int64, ok bool) {
	c, ok := rs[id][ref]
	return slices.Clip(c.value), c.due, ok
}

func (rs rows) set(id events.InstanceID, ref events.RowRef, c cell) {
	if rs[id] == nil {
		rs[id] = map[events.RowRef]cell{}
	}
	rs[id][ref] = c
}

func (rs rows) apply(d *events.Decision) {
	if d.Purge {
		delete(rs, d.Instance)
	}
	for i := range d.Rows {
		if r := &d.Rows[i]; r.Gone {
			delete(rs[d.Whose(r)], r.Ref)
		} else {
			rs.set(d.Whose(r), r.Ref, cell{r.Value, r.Due})
		}
	}
}

func (s *shard) carry(c *events.Carry) {
	for i := range c.Rows {
		if id, ref, ok := events.ParseRowKey(c.Rows[i].Key); ok && ref.Part != events.PartHistory {
			s.rows.set(id, ref, cell{c.Rows[i].Value, c.Rows[i].Due})
		}
	}
	if c.End != 0 && c.End == s.partial {
		s.partial = 0
	}
}

// decision makes one decision again.
func (s *shard) decision(a Record, rec *events.Record) {
	d := rec.Decision
	if d.Outcome == events.Progressed || d.Input.Kind == events.InputNone {
		s.time = rec.Time
		return
	}
	s.r.Decisions++
	s.r.Builds[s.build]++
	why, what := s.again(a, rec)
	s.time = rec.Time
	switch {
	case why != "":
		s.r.Skipped[why]++
	case what != "":
		s.r.Differ = append(s.r.Differ, Difference{a.Offset, rec.Seq, d.Instance, d.Input.Kind, what})
	default:
		s.r.Same++
	}
}

// again says why a decision cannot be made again, or what is different when it is.
func (s *shard) again(a Record, rec *events.Record) (why, what string) {
	d := rec.Decision
	switch {
	case d.Outcome == events.Quarantined:
		return Aside, ""
	case s.partial != 0:
		return NoRows, ""
	case strings.HasPrefix(d.Reason, brokenCode):
		return Broken, ""
	}
	decide, why := s.input(rec)
	if why != "" {
		return why, ""
	}
	first := rec.Time
	if len(d.Entries) > 0 {
		first = d.Entries[0].Time
	}
	// The time at which it was decided: that of its entries, or else a little before its record's.
	for now := first; ; now-- {
		made := decide(now)
		if made == nil {
			return "", "the machine finds the rows corrupt"
		}
		if made.Outcome == machine.Waits {
			return NoPlan, ""
		}
		made.Input, made.Progress, made.Unknown = d.Input, d.Progress, d.Unknown
		r := *rec
		r.Decision = made
		b := r.Encode(nil)
		if bytes.Equal(b, a.Value) {
			return "", ""
		}
		if what == "" {
			what = difference(d, made)
		}
		if len(d.Entries) > 0 || now <= max(s.time, rec.Time-s.Lag) {
			return "", what
		}
	}
}

// input gives what makes the decision again at a time.
func (s *shard) input(rec *events.Record) (decide func(now int64) *events.Decision, why string) {
	d, m := rec.Decision, s.Machine
	switch d.Input.Kind {
	case events.InputTimer:
		t := machine.Timer{Instance: d.Instance, Row: d.Input.Row, Due: d.Input.Due}
		return func(now int64) *events.Decision { return m.Timer(s.rows, now, t) }, ""
	case events.InputRefused:
		return s.refused(d)
	}
	msg := s.Input(d.Input.Topic, d.Input.Partition, d.Input.Offset)
	if msg == nil {
		return nil, InputGone
	}
	original, inbox, ok := s.unwrap(msg)
	if !ok {
		return nil, Unreadable
	}
	if inbox != nil {
		return func(now int64) *events.Decision { return m.Message(s.rows, now, inbox) }, ""
	}
	routes, err := m.Routes(&original)
	if err != nil {
		return nil, Unreadable
	}
	for i := range routes {
		x := &routes[i]
		switch {
		case x.Kind != d.Input.Kind || x.Instance != d.Instance:
		case x.Start != nil:
			x.Start.Keyless = rec.Format < 2
			x.Start.Trace = traceOf(d, x.Start.Trace)
			return func(now int64) *events.Decision { return m.Start(s.rows, now, *x.Start) }, ""
		case x.Event != nil:
			return func(now int64) *events.Decision { return m.Event(s.rows, now, *x.Event) }, ""
		case x.Reply != nil:
			return func(now int64) *events.Decision { return m.Reply(s.rows, now, *x.Reply) }, ""
		}
	}
	return nil, NotRouted
}

// traceOf is the trace context that a saga began with, or that of its event where no row says.
func traceOf(d *events.Decision, of []events.Header) []events.Header {
	for i := range d.Rows {
		if r := &d.Rows[i]; r.Ref.Part == events.PartHead && r.Of.IsZero() {
			if h, err := events.DecodeHead(r.Value); err == nil {
				return h.Trace
			}
		}
	}
	return of
}

// unwrap takes a record out of what it was sent in: a forward, a message between entities, or one of them that came
// back from quarantine.
func (s *shard) unwrap(m *events.Message) (original events.Message, inbox *events.InboxMessage, ok bool) {
	topics := events.Topics{App: s.App}
	if m.Topic != topics.Inbox() {
		return *m, nil, true
	}
	if _, forwarded := m.Header(events.HeaderForward); !forwarded {
		if msg, _, is, err := events.UnwrapMessage(m); is {
			return *m, msg, err == nil
		}
	}
	original, origin, err := events.UnwrapForward(m)
	if err != nil || origin.Topic != topics.Quarantine() {
		return original, nil, err == nil
	}
	if original, _, ok = events.UnwrapQuarantined(&original); !ok || original.Topic != topics.Inbox() {
		return original, nil, ok
	}
	msg, _, is, err := events.UnwrapMessage(&original)
	return original, msg, is && err == nil
}

// refused reads back what Kafka said of a command from the history: of an ignored refusal it makes no difference.
func (s *shard) refused(d *events.Decision) (decide func(now int64) *events.Decision, why string) {
	id, err := events.ParseCommandID(s.App, d.Input.MessageID)
	if err != nil {
		return nil, Untold
	}
	in := machine.Refusal{Command: id}
	for _, e := range d.Entries {
		if e.Kind == events.EntryUnknown && e.Code == machine.CodeRefused {
			in.Code, in.Message, _ = strings.Cut(e.Message, ": ")
		}
	}
	return func(now int64) *events.Decision { return s.Machine.Refused(s.rows, now, in) }, ""
}

// difference says in what two decisions differ.
func difference(was, is *events.Decision) string {
	switch {
	case was.Outcome != is.Outcome || was.Reason != is.Reason:
		return fmt.Sprintf("it was %s %s, and is %s %s", was.Outcome, was.Reason, is.Outcome, is.Reason)
	case len(was.Entries) != len(is.Entries):
		return fmt.Sprintf("it had %d entries, and has %d", len(was.Entries), len(is.Entries))
	case len(was.Emits) != len(is.Emits):
		return fmt.Sprintf("it sent %d messages, and sends %d", len(was.Emits), len(is.Emits))
	case len(was.Rows) != len(is.Rows):
		return fmt.Sprintf("it changed %d rows, and changes %d", len(was.Rows), len(is.Rows))
	}
	for i := range was.Entries {
		if x, y := was.Entries[i].Encode(nil), is.Entries[i].Encode(nil); !bytes.Equal(x, y) {
			return fmt.Sprintf("its entry %d, %s %s, is another", i, was.Entries[i].Kind, was.Entries[i].Step)
		}
	}
	for i := range was.Rows {
		x, y := &was.Rows[i], &is.Rows[i]
		if x.Of != y.Of || x.Ref != y.Ref || x.Due != y.Due || x.WasDue != y.WasDue || x.Gone != y.Gone || !bytes.Equal(x.Value, y.Value) {
			return fmt.Sprintf("its row %s %d, due %d, is row %s %d, due %d, or holds something else", x.Ref.Part, x.Ref.N, x.Due, y.Ref.Part, y.Ref.N, y.Due)
		}
	}
	return "its messages are others"
}
