package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
)

var journalCatCommand = command{
	name:    "journal cat",
	args:    "[--app NAME] [--brokers ADDR] [--partition N] [--from OFFSET] [-o json]",
	summary: "print the journal, record by record",
	about: `Prints the records of an application's journal as every reader of it judges them: accepted, or ignored and
why (a duplicate, foreign: of another claim than the current one, a gap in the current claim's chain, or
ended: after such a gap). It reads up to the end as it is at the start, and changes nothing.

Payloads are not printed, only their sizes: they are the users' data. Exit code 1 when a record could not
be read; the others are still printed.`,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		c := connectionFlags(f)
		partition := f.Int("partition", -1, "only this one; default: all of them, one after the other `N`")
		from := f.Int64("from", 0, "where to begin to print; what is before is read all the same, to judge the rest `OFFSET`")
		out := outputFlag(f)
		return func(ctx context.Context, e *env) error {
			if *partition < -1 || *from < 0 {
				return usagef("--partition and --from are not negative")
			}
			client, err := c.dial(e)
			if err != nil {
				return err
			}
			defer client.Close()
			parts, err := journalPartitions(ctx, client, c.app, *partition)
			if err != nil {
				return err
			}
			return catJournal(ctx, newScreen(e), client, events.Topics{App: c.app}.Journal(), parts, *from, *out == "json")
		}
	},
}

// journalPartitions are the journal's partitions, or the one that was asked for.
func journalPartitions(ctx context.Context, k orchestrator.Kafka, app string, only int) ([]int32, error) {
	topic := events.Topics{App: app}.Journal()
	topics, err := k.Topics(ctx, topic)
	if err != nil {
		return nil, err
	}
	n := topics[topic].Partitions
	switch {
	case n == 0:
		return nil, fmt.Errorf("topic %s does not exist: is the application called %s?", topic, app)
	case only >= n:
		return nil, usagef("--partition %d: %s has %d, from 0", only, topic, n)
	case only >= 0:
		return []int32{int32(only)}, nil
	}
	parts := make([]int32, n)
	for i := range parts {
		parts[i] = int32(i)
	}
	return parts, nil
}

func catJournal(ctx context.Context, s *screen, k orchestrator.Kafka, topic string, parts []int32, from int64, asJSON bool) error {
	var unread int
	for _, p := range parts {
		log := k.Log(topic, p)
		state := journal.NewState()
		first := true
		_, err := log.Read(ctx, 0, func(r orchestrator.LogRecord) error {
			verdict, rec, err := state.Fold(r.Offset, first, r.Value, noRows{})
			first = false
			if err != nil {
				unread++
			}
			if r.Offset < from {
				return nil
			}
			v := viewOfRecord(p, r, verdict, rec, err)
			if asJSON {
				s.Object(v)
			} else {
				s.Result(v.line())
			}
			return nil
		})
		log.Close()
		if err != nil {
			return fmt.Errorf("%s/%d: %w", topic, p, err)
		}
	}
	if unread > 0 {
		return fmt.Errorf("%d records of %s could not be read; what follows one is judged without it", unread, topic)
	}
	return nil
}

// noRows is for readers who want to know what is accepted, not what it makes.
type noRows struct{}

func (noRows) Set([]byte, int64, int64, []byte, uint64) {}
func (noRows) Delete([]byte, int64, uint64)             {}
func (noRows) DeleteRange([]byte, []byte)               {}

// recordView is a journal record as `-o json` prints it. Fields are only ever added.
type recordView struct {
	Partition  int32           `json:"partition"`
	Offset     int64           `json:"offset"`
	Appended   string          `json:"appended"` // the broker's time
	Verdict    string          `json:"verdict"`  // accepted, duplicate, foreign, gap, ended; unreadable
	Error      string          `json:"error,omitempty"`
	Bytes      int             `json:"bytes"`
	Kind       string          `json:"kind,omitempty"`
	Nonce      string          `json:"nonce,omitempty"`
	Term       uint64          `json:"term,omitempty"`
	Seq        uint64          `json:"seq,omitempty"`
	Prev       string          `json:"prev,omitempty"`
	Time       string          `json:"time,omitempty"` // the owner's
	Claim      *claimView      `json:"claim,omitempty"`
	Decision   *decisionView   `json:"decision,omitempty"`
	Carry      *carryView      `json:"carry,omitempty"`
	Checkpoint *checkpointView `json:"checkpoint,omitempty"`
}

type claimView struct {
	Node       string `json:"node"`
	Generation int32  `json:"generation"`
	Shards     uint32 `json:"shards"`
	Slots      uint32 `json:"slots"`
	Build      string `json:"build"`
}

type decisionView struct {
	Outcome  string        `json:"outcome"`
	Reason   string        `json:"reason,omitempty"`
	Input    *inputView    `json:"input,omitempty"`
	Instance string        `json:"instance,omitempty"`
	Key      string        `json:"key,omitempty"`
	State    string        `json:"state,omitempty"`
	Entries  []entryView   `json:"entries,omitempty"`
	Rows     []rowView     `json:"rows,omitempty"`
	Purge    bool          `json:"purge,omitempty"`
	Emits    []emitView    `json:"emits,omitempty"`
	Progress *progressView `json:"progress,omitempty"`
}

type inputView struct {
	Kind      string `json:"kind"`
	Place     string `json:"place,omitempty"`  // topic/partition/offset
	Origin    string `json:"origin,omitempty"` // the same, of where it was first read
	Low       int64  `json:"low,omitempty"`
	MessageID string `json:"message_id,omitempty"`
	Row       string `json:"row,omitempty"`
	Due       string `json:"due,omitempty"`
	More      bool   `json:"more,omitempty"` // further records answer the same input
}

type entryView struct {
	Kind      string `json:"kind"`
	Step      string `json:"step,omitempty"`
	Direction string `json:"direction,omitempty"`
	Execution uint32 `json:"execution,omitempty"`
	Attempt   uint32 `json:"attempt,omitempty"`
	Code      string `json:"code,omitempty"`
	Message   string `json:"message,omitempty"`
	To        string `json:"to,omitempty"`
	Who       string `json:"who,omitempty"`
}

type rowView struct {
	Row   string `json:"row"`
	Bytes int    `json:"bytes"`
	Due   string `json:"due,omitempty"`
	Of    string `json:"of,omitempty"`   // another entity than the decision's
	Gone  bool   `json:"gone,omitempty"` // it is removed
}

type emitView struct {
	Kind      string `json:"kind"` // command, lifecycle, message, event
	Topic     string `json:"topic,omitempty"`
	Type      string `json:"type,omitempty"`
	To        string `json:"to,omitempty"` // of a message: the entity it is for
	Bytes     int    `json:"bytes,omitempty"`
	Step      string `json:"step,omitempty"`
	Direction string `json:"direction,omitempty"`
	Execution uint32 `json:"execution,omitempty"`
	Attempt   uint32 `json:"attempt,omitempty"`
	Expiry    string `json:"expiry,omitempty"`
}

type progressView struct {
	Positions  []positionView    `json:"positions,omitempty"`
	EmittedSeq uint64            `json:"emitted_seq"`
	Emitted    map[string]uint64 `json:"emitted,omitempty"`
}

type positionView struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Low       int64  `json:"low"`
}

type carryView struct {
	Rows int    `json:"rows"`
	End  uint64 `json:"end,omitempty"` // of the last carry of a round: the checkpoint's sequence
}

type checkpointView struct {
	Positions []positionView `json:"positions,omitempty"`
	Origins   []positionView `json:"origins,omitempty"`
	Progress  progressView   `json:"progress"`
	Claim     claimView      `json:"claim"`
}

func viewOfRecord(partition int32, r orchestrator.LogRecord, verdict journal.Verdict, rec *events.Record, err error) recordView {
	v := recordView{Partition: partition, Offset: r.Offset, Appended: events.Timestamp(r.Time), Verdict: verdict.String(), Bytes: len(r.Value)}
	if err != nil {
		v.Verdict, v.Error = "unreadable", err.Error()
		if errors.Is(err, journal.ErrTrimmed) {
			v.Verdict = "no-beginning"
		}
	}
	if rec == nil {
		return v
	}
	v.Kind, v.Nonce, v.Term, v.Seq = rec.Kind.String(), rec.Nonce.String(), rec.Term, rec.Seq
	if rec.Kind != events.KindClaim {
		v.Prev = rec.Prev.String()
	}
	v.Time = timestamp(rec.Time)
	if c := rec.Claim; c != nil {
		x := viewOfClaim(c)
		v.Claim = &x
	}
	if d := rec.Decision; d != nil {
		v.Decision = viewOfDecision(d)
	}
	if c := rec.Carry; c != nil {
		v.Carry = &carryView{len(c.Rows), c.End}
	}
	if c := rec.Checkpoint; c != nil {
		v.Checkpoint = &checkpointView{viewOfPositions(c.Positions), viewOfPositions(c.Origins), viewOfProgress(&c.Progress), viewOfClaim(&c.Claim)}
	}
	return v
}

// timestamp is events.Timestamp, but nothing for no time.
func timestamp(ms int64) string {
	if ms == 0 {
		return ""
	}
	return events.Timestamp(ms)
}

func viewOfClaim(c *events.Claim) claimView {
	return claimView{c.Node, c.Generation, c.Shards, c.Slots, c.Build}
}

func viewOfPositions(ps []events.Position) []positionView {
	var out []positionView
	for _, p := range ps {
		out = append(out, positionView{p.Topic, p.Partition, p.Low})
	}
	return out
}

func viewOfProgress(p *events.Progress) progressView {
	v := progressView{Positions: viewOfPositions(p.Positions), EmittedSeq: p.EmittedSeq}
	for _, t := range p.Emitted {
		if v.Emitted == nil {
			v.Emitted = map[string]uint64{}
		}
		v.Emitted[t.Topic] = t.Seq
	}
	return v
}

func viewOfDecision(d *events.Decision) *decisionView {
	v := &decisionView{Outcome: d.Outcome.String(), Reason: d.Reason, Purge: d.Purge}
	if in := &d.Input; in.Kind != events.InputNone {
		x := &inputView{Kind: in.Kind.String(), Low: in.Low, MessageID: in.MessageID, Due: timestamp(in.Due), More: in.More}
		if in.Topic != "" {
			x.Place = fmt.Sprintf("%s/%d/%d", in.Topic, in.Partition, in.Offset)
		}
		if o := in.Origin; o != nil {
			x.Origin = fmt.Sprintf("%s/%d/%d", o.Topic, o.Partition, o.Offset)
		}
		if in.Row.Part != 0 {
			x.Row = rowName(in.Row)
		}
		v.Input = x
	}
	if !d.Instance.IsZero() {
		v.Instance = d.Instance.String()
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		x := entryView{Kind: e.Kind.String(), Step: e.Step, Execution: e.Execution, Attempt: e.Attempt, Code: e.Code, Message: e.Message, Who: e.Who}
		if e.Phase != 0 {
			x.Direction = e.Phase.String()
		}
		if e.To != 0 {
			x.To = e.To.String()
		}
		v.Entries = append(v.Entries, x)
	}
	for i := range d.Rows {
		r := &d.Rows[i]
		x := rowView{Row: rowName(r.Ref), Bytes: len(r.Value), Due: timestamp(r.Due), Gone: r.Gone}
		own := d.Whose(r) == d.Instance
		if !own {
			x.Of = r.Of.String()
		}
		v.Rows = append(v.Rows, x)
		if r.Ref.Part == events.PartHead && own {
			if h, err := events.DecodeHead(r.Value); err == nil {
				v.Key, v.State = h.Key, h.State.String()
			}
		}
	}
	for i := range d.Emits {
		e := &d.Emits[i]
		x := emitView{Kind: e.Kind.String(), Bytes: len(e.Payload), Topic: e.Topic, Type: e.Type, Step: e.Step, Execution: e.Execution, Attempt: e.Attempt, Expiry: timestamp(e.Expiry)}
		if e.Phase != 0 {
			x.Direction = e.Phase.String()
		}
		if !e.To.IsZero() {
			x.To = e.To.String()
		}
		if e.Kind == events.EmitMessage && e.Type == "" {
			if m, err := events.DecodeInboxMessage(e.Payload); err == nil {
				x.Type = m.Kind.String()
			}
		}
		v.Emits = append(v.Emits, x)
	}
	if d.Progress != nil {
		p := viewOfProgress(d.Progress)
		v.Progress = &p
	}
	return v
}

func rowName(r events.RowRef) string {
	if r.Part == events.PartHead || r.Part == events.PartData {
		return r.Part.String()
	}
	return fmt.Sprintf("%s/%d", r.Part, r.N)
}

// line is the record for people: where, what became of it, what it says.
func (v *recordView) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d %s %s", v.Partition, v.Offset, v.Appended, v.Verdict)
	if v.Error != "" {
		fmt.Fprintf(&b, ": %s", v.Error)
	}
	if v.Kind != "" {
		fmt.Fprintf(&b, " %s", v.Kind)
	}
	if v.Seq > 0 {
		fmt.Fprintf(&b, " seq %d", v.Seq)
	}
	switch {
	case v.Claim != nil:
		fmt.Fprintf(&b, " term %d by %s (generation %d, build %s), epoch %.8s, %d shards", v.Term, v.Claim.Node, v.Claim.Generation, v.Claim.Build, v.Nonce, v.Claim.Shards)
	case v.Carry != nil:
		fmt.Fprintf(&b, " %d rows", v.Carry.Rows)
		if v.Carry.End > 0 {
			fmt.Fprintf(&b, ", the last of checkpoint seq %d", v.Carry.End)
		}
	case v.Checkpoint != nil:
		fmt.Fprintf(&b, " emitted to seq %d, %d positions", v.Checkpoint.Progress.EmittedSeq, len(v.Checkpoint.Positions))
	case v.Decision != nil:
		v.Decision.line(&b)
	}
	return sanitize(b.String(), 0)
}

func (d *decisionView) line(b *strings.Builder) {
	fmt.Fprintf(b, " %s", d.Outcome)
	if d.Reason != "" {
		fmt.Fprintf(b, " (%s)", d.Reason)
	}
	if in := d.Input; in != nil {
		fmt.Fprintf(b, " %s", in.Kind)
		for _, x := range []string{in.Place, in.Row} {
			if x != "" {
				fmt.Fprintf(b, " %s", x)
			}
		}
		if in.Origin != "" {
			fmt.Fprintf(b, " from %s", in.Origin)
		}
	}
	if d.Instance != "" {
		fmt.Fprintf(b, " · %s", d.Instance)
		if d.Key != "" {
			fmt.Fprintf(b, " %s %s", d.Key, d.State)
		}
	}
	for _, e := range d.Entries {
		fmt.Fprintf(b, " · %s", e.Kind)
		for _, x := range []string{e.Step, e.To, e.Code, e.Who} {
			if x != "" {
				fmt.Fprintf(b, " %s", x)
			}
		}
		if e.Direction == "compensate" {
			b.WriteString(" ↩")
		}
		if e.Attempt > 1 {
			fmt.Fprintf(b, " attempt %d", e.Attempt)
		}
	}
	for _, e := range d.Emits {
		to := e.Topic
		if e.To != "" {
			to = e.To
		}
		fmt.Fprintf(b, " → %s %s", to, e.Type)
	}
	if d.Purge {
		b.WriteString(" · purged")
	}
	if p := d.Progress; p != nil {
		fmt.Fprintf(b, " · emitted to seq %d", p.EmittedSeq)
	}
}
