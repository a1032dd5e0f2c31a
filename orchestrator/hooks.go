package orchestrator

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
)

// Hook is told what the shards of a node do, for telemetry. It is any value with the method of at least one of
// the interfaces below; the engine calls those it has. A call comes from the goroutine of the shard it is
// about, unless its interface says otherwise; so calls about different shards come at the same time. It must
// not block, must not panic, and changes nothing it is given. Without hooks nothing of this costs anything.
type Hook any

// HookPlans is told the definitions that the engine runs, once, before anything else.
type HookPlans interface {
	Plans(plans []*sagas.Plan)
}

// HookShard is told when a shard is opened and closed on this node.
type HookShard interface {
	// ShardOpened says that the shard is claimed and begins to decide.
	ShardOpened(shard int32)
	// ShardClosed says that it ended, or could not be opened: err says why, and is nil when it was handed over.
	// No call about it comes afterwards, until the shard is opened again.
	ShardClosed(shard int32, err error)
}

// HookStart is asked for the trace of every saga before its start is decided. The first hook that has it counts.
type HookStart interface {
	// TraceStart gives the flags that the saga's spans have from now on, on whatever node they are made; trace is
	// the trace context of the event that starts it. With ok == false the saga is not traced: its commands hand
	// trace on as it came. See events.MarkTraced.
	TraceStart(shard int32, id events.InstanceID, definition string, trace []events.Header) (flags byte, ok bool)
}

// HookAccepted is told every record of this owner that everybody accepts, in order, as soon as it is.
type HookAccepted interface {
	Accepted(shard int32, a *Accepted)
}

// Accepted is a record of the journal. The record may be kept, the value itself not.
type Accepted struct {
	Record  *events.Record
	Bytes   int             // of the record in the journal
	Took    time.Duration   // from its append to its acknowledgement
	Headers []events.Header // that came with the decision's input; none of timers
}

// HookEmitted is told of every message of a decision that Kafka acknowledged.
type HookEmitted interface {
	// Emitted names the topic, and how long after the acceptance of its decision, or after the takeover that
	// emits it again, the message was acknowledged.
	Emitted(shard int32, topic string, took time.Duration)
}

// HookInput is told of inputs that do not become decisions about an instance.
type HookInput interface {
	Input(shard int32, fate InputFate)
}

// InputFate is what became of an input.
type InputFate uint8

const (
	InputForwarded   InputFate = 1 // to the shard it belongs to
	InputDuplicate   InputFate = 2 // a forward that was taken already
	InputQuarantined InputFate = 3
	InputSkipped     InputFate = 4 // an event that no definition wants
	InputIgnored     InputFate = 5 // a stated rule drops it; it is journaled
)

func (f InputFate) String() string {
	switch f {
	case InputForwarded:
		return "forwarded"
	case InputDuplicate:
		return "duplicate"
	case InputQuarantined:
		return "quarantined"
	case InputSkipped:
		return "skipped"
	case InputIgnored:
		return "ignored"
	}
	return fmt.Sprintf("fate-%d", uint8(f))
}

// HookTimer is told of every timer that fires.
type HookTimer interface {
	TimerFired(shard int32, late time.Duration)
}

// HookRestore is told how a restore gets on: at its beginning, about every MiB of journal, and at its end.
type HookRestore interface {
	// Restoring says how many records of the journal were read, and how many there are to read.
	Restoring(shard int32, read, total int64)
}

// HookCompaction is told of every compaction round that ended.
type HookCompaction interface {
	Compacted(shard int32, c Compaction)
}

// Compaction is a compaction round.
type Compaction struct {
	Live    int64 // bytes of all rows
	Carried int64 // bytes of those that were written again
	Err     error // the round's trim failed
}

// HookLoad is told about once a second how a shard stands.
type HookLoad interface {
	Load(shard int32, l Load)
}

// Load is how a shard stands.
type Load struct {
	InFlight     int   // decisions that are not acknowledged yet
	Emitting     int   // messages that are not acknowledged yet
	Queued       int   // inputs that were read and not decided
	JournalBytes int64 // of the journal since the last compaction
	LiveBytes    int64 // of the rows, as of the last compaction
	Backlog      bool  // timers wait for what came before the claim
}

// HookInstances follows how many instances there are, by definition and state, final ones aside.
type HookInstances interface {
	// Instances says that n more, or fewer, are in the state. What the store holds when the shard is opened is
	// counted beside the loop, and told from another goroutine; what changes meanwhile is told as it is accepted.
	// The sum since ShardOpened is right once Counted was called.
	Instances(shard int32, definition string, state events.State, n int64)
	Counted(shard int32)
}

// hooks are the configured hooks by what they want. The zero value has none.
type hooks struct {
	plans      []HookPlans
	shard      []HookShard
	start      []HookStart
	accepted   []HookAccepted
	emitted    []HookEmitted
	input      []HookInput
	timer      []HookTimer
	restore    []HookRestore
	compaction []HookCompaction
	load       []HookLoad
	instances  []HookInstances
}

// newHooks sorts hooks; one that has no method of any interface is a mistake.
func newHooks(list []Hook) (*hooks, error) {
	h := &hooks{}
	for _, x := range list {
		known := false
		for _, add := range []func(Hook) bool{
			adder(&h.plans), adder(&h.shard), adder(&h.start), adder(&h.accepted), adder(&h.emitted), adder(&h.input),
			adder(&h.timer), adder(&h.restore), adder(&h.compaction), adder(&h.load), adder(&h.instances),
		} {
			known = add(x) || known
		}
		if !known {
			return nil, fmt.Errorf("a hook of type %T has none of the methods that hooks have", x)
		}
	}
	return h, nil
}

func adder[T any](to *[]T) func(Hook) bool {
	return func(x Hook) bool {
		h, ok := x.(T)
		if ok {
			*to = append(*to, h)
		}
		return ok
	}
}

// traced asks the hooks for the trace of a saga that is to start.
func (h *hooks) traced(shard int32, in *machine.Start) {
	if len(h.start) == 0 {
		return
	}
	if flags, ok := h.start[0].TraceStart(shard, in.Instance, in.Plan.Name, in.Trace); ok {
		in.Trace = events.MarkTraced(in.Trace, flags)
	}
}

func (h *hooks) fate(shard int32, fate InputFate) {
	for _, x := range h.input {
		x.Input(shard, fate)
	}
}

// watched is what a pending record needs to be told about; nil without hooks.
type watched struct {
	at      time.Time // of its append
	headers []events.Header
	was     standing // the instance's, before
	now     standing
}

// standing is where an instance is counted; the zero value: nowhere.
type standing struct {
	definition string
	state      events.State
}

// watch notes, before a record is applied to the deciding state, what its acceptance is to say.
func (s *Shard) watch(rec *events.Record) *watched {
	h := s.hooks
	if len(h.accepted) == 0 && len(h.instances) == 0 {
		return nil
	}
	var w *watched
	if n := len(s.unused); n > 0 {
		w, s.unused = s.unused[n-1], s.unused[:n-1]
	} else {
		w = &watched{}
	}
	*w = watched{at: time.Now(), headers: s.inputHeaders}
	s.inputHeaders = nil
	if d := rec.Decision; d != nil && len(h.instances) > 0 && moves(d) {
		// Whoever starts was not there: looking for it once more would cost more than all the rest.
		if d.Entries[0].Kind != events.EntryStarted {
			if raw, _, ok := s.overlay.Row(d.Instance, headRow); ok {
				w.was = standingOf(raw)
			}
		}
		for i := range d.Rows {
			if r := &d.Rows[i]; r.Ref == headRow && d.Whose(r) == d.Instance {
				w.now = standingOf(r.Value)
			}
		}
	}
	return w
}

var headRow = events.RowRef{Part: events.PartHead}

// moves reports whether a decision may change the state of its instance: it says so in its history. What is purged
// has ended, and is counted nowhere.
func moves(d *events.Decision) bool {
	for i := range d.Entries {
		if k := d.Entries[i].Kind; k == events.EntryStarted || k == events.EntryTransition {
			return true
		}
	}
	return false
}

func standingOf(head []byte) standing {
	h, err := events.ViewHead(head)
	if err != nil || h.State.Final() {
		return standing{}
	}
	return standing{string(h.Definition), h.State}
}

// tell says that a record is accepted.
func (s *Shard) tell(p *pending) {
	w := p.watched
	if w == nil {
		return
	}
	h := s.hooks
	if len(h.accepted) > 0 {
		s.told = Accepted{Record: p.rec, Bytes: p.size, Took: time.Since(w.at), Headers: w.headers}
		for _, x := range h.accepted {
			x.Accepted(s.cfg.ID, &s.told)
		}
	}
	p.watched, s.told = nil, Accepted{}
	s.unused = append(s.unused, w)
	if w.was == w.now {
		return
	}
	for _, x := range h.instances {
		if w.was.state != 0 {
			x.Instances(s.cfg.ID, w.was.definition, w.was.state, -1)
		}
		if w.now.state != 0 {
			x.Instances(s.cfg.ID, w.now.definition, w.now.state, 1)
		}
	}
}

// tellLoad tells how the shard stands.
func (s *Shard) tellLoad() {
	h := s.hooks
	if len(h.load) == 0 {
		return
	}
	l := Load{InFlight: len(s.inflight), Emitting: s.emits.open, JournalBytes: s.applied.Bytes, LiveBytes: s.liveBytes, Backlog: s.backlog}
	for _, in := range s.inputs {
		l.Queued += in.queued
	}
	for _, x := range h.load {
		x.Load(s.cfg.ID, l)
	}
}

// A census counts the instances that the store holds when a shard is opened. It reads a snapshot beside the
// loop, rests most of the time, and never delays the shard; the heads of a million sleeping sagas take seconds of
// work spread over about a minute.
const (
	censusRows = 4096 // looked at between two rests
	censusRest = 9    // how many times as long it rests as it works
)

// census begins to count. It is called when the store holds exactly what was accepted, before anything is decided.
func (s *Shard) census() error {
	h := s.hooks
	if len(h.instances) == 0 || mutant.On("telemetry-store-not-counted") {
		return nil
	}
	snap, err := s.store.Snapshot()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	s.aside(func() {
		defer snap.Close()
		counted, err := count(s.bg, snap, func(n map[standing]int64) {
			for _, x := range h.instances {
				for at, n := range n {
					x.Instances(s.cfg.ID, at.definition, at.state, n)
				}
			}
		})
		switch {
		case err != nil:
			s.log.Warn("counting the instances failed; the figures of this shard stay too small until it is opened again", "err", err)
		case counted:
			for _, x := range h.instances {
				x.Counted(s.cfg.ID)
			}
		}
	})
	return nil
}

// count tells the instances of a snapshot, some at a time. counted is false when ctx ended first.
func count(ctx context.Context, snap store.Snapshot, tell func(map[standing]int64)) (counted bool, err error) {
	from, to := []byte{events.FamilyInstance}, []byte{events.FamilyInstance + 1}
	for ctx.Err() == nil {
		began, seen, more := time.Now(), 0, false
		found := map[standing]int64{}
		err := snap.Scan(from, to, func(row store.Row) bool {
			if seen++; seen > censusRows {
				from, more = bytes.Clone(row.Key), true
				return false
			}
			if _, ref, ok := events.ParseRowKey(row.Key); ok && ref == headRow {
				if at := standingOf(row.Value); at.state != 0 {
					found[at]++
				}
			}
			return true
		})
		if err != nil {
			return false, err
		}
		tell(found)
		if !more {
			return true, nil
		}
		rest := time.NewTimer(censusRest * time.Since(began))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
		}
	}
	return false, nil
}
