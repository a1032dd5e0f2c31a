package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/machine"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/test/check/checker"
	"github.com/skald-io/skald/test/check/redecide"
)

// judge waits for the end of all sagas, stops everything in an orderly way, and calls the checker.
func (h *harness) judge(ctx context.Context) error {
	h.out.orders = int(h.placed.Load())
	h.logf("load stopped after %d orders; waiting for their ends", h.out.orders)
	if err := h.track.until(endTime, "all instances are final", func() bool { return h.track.final >= h.out.orders }); err != nil {
		h.logf("%v: the checker will say which", err)
	}
	settle := 30 * time.Second
	if h.transactional {
		settle = 6 * time.Second // only purges come any more
	}
	late := time.Now().Add(settle)
	for time.Now().Before(late) {
		h.track.mu.Lock()
		quiet := time.Since(h.track.active) > 3*time.Second
		h.track.mu.Unlock()
		if quiet {
			break
		}
		h.pause(200 * time.Millisecond)
	}
	if err := h.healthy(); err != nil {
		return err
	}
	var errs []error
	for _, n := range h.nodes {
		errs = append(errs, n.term(30*time.Second))
	}
	for _, p := range h.parts {
		errs = append(errs, p.term(30*time.Second))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	h.logf("all is stopped; judging")
	end, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ev, err := h.rec.Finish(end)
	if err != nil {
		return err
	}
	for _, p := range h.parts {
		effects, err := readLedger(h.ledgerDir(p))
		if err != nil {
			return err
		}
		ev.Ledgers = append(ev.Ledgers, effects)
	}
	o := checker.Options{Quiescent: true, Plans: map[string]*sagas.Plan{}, Starts: map[string][]string{}}
	var plans []*sagas.Plan
	for _, k := range h.cast.kinds {
		p, err := k.def.Plan()
		if err != nil {
			return err
		}
		plans = append(plans, p)
		o.Plans[checker.PlanName(p)] = p
		o.Starts[h.cast.events] = append(o.Starts[h.cast.events], k.typ)
	}
	if h.reader != nil {
		if h.out.committed, err = h.reader.finish(end); err != nil {
			return err
		}
		o.Committed = h.out.committed
	}
	h.out.evidence = ev
	h.out.report = checker.Check(ev, o)
	if h.out.again, err = decideAgain(ev, plans); err != nil {
		return err
	}
	h.countZombie()
	if h.out.verdict() == nil || h.transactional && h.out.transactionalVerdict() == nil {
		return nil
	}
	f, err := os.Create(filepath.Join(h.dir, "evidence.jsonl"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	err = errors.Join(ev.Write(w), w.Flush(), f.Close())
	h.logf("the evidence is kept in %s", f.Name())
	return err
}

func readLedger(dir string) ([]checker.Effect, error) {
	l, err := participant.OpenLedger(dir)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var b bytes.Buffer
	if err := participant.WriteEffects(&b, l); err != nil {
		return nil, err
	}
	return checker.ReadLedger(&b)
}

// decideAgain makes every decision of every shard once more, from its journal and the topics.
func decideAgain(ev *checker.Evidence, plans []*sagas.Plan) (*redecide.Report, error) {
	journal, shards := events.Topics{App: ev.App}.Journal(), 0
	for p := range ev.Logs {
		if p.Topic == journal {
			shards++
		}
	}
	c := redecide.Config{App: ev.App, Machine: machine.New(machine.Config{App: ev.App, Slots: shards * events.SlotsPerShard, Plans: plans}), Input: ev.At}
	all := redecide.NewReport()
	for p := range int32(shards) {
		var log []redecide.Record
		for _, m := range ev.Log(journal, p).Records {
			log = append(log, redecide.Record{Offset: m.Offset, Value: m.Value})
		}
		accepted, err := redecide.Accept(log)
		if err != nil {
			return nil, fmt.Errorf("journal of shard %d: %w", p, err)
		}
		r, err := redecide.Shard(c, accepted)
		if err != nil {
			return nil, fmt.Errorf("journal of shard %d: %w", p, err)
		}
		all.Add(r)
	}
	return all, nil
}

// countZombie counts what the stopped node wrote with its old nonces after it woke, and what of it was accepted.
func (h *harness) countZombie() {
	for p, l := range h.out.evidence.Logs {
		if p.Topic != h.app+".journal" {
			continue
		}
		for i := range l.Records {
			rec, err := events.DecodeRecord(l.Records[i].Value)
			if err != nil || rec.Kind == events.KindClaim {
				continue
			}
			if from, ok := h.epochs[rec.Nonce.String()]; ok && l.Records[i].Offset >= from {
				h.out.zombie.attempted++
			}
		}
	}
	for _, e := range h.out.report.Epochs {
		if from, ok := h.epochs[e.Nonce]; ok && e.LastAccepted >= from {
			h.out.zombie.accepted++
		}
	}
}

// fates says, for the kills at a point, what the journal says of the record that was held: it is there and was
// accepted, as the evidence has it, or it is not.
func (o *outcome) fates() (confirmed int, lines []string) {
	hashes := map[string]string{} // hash → place
	for p, l := range o.evidence.Logs {
		if !strings.HasSuffix(p.Topic, ".journal") {
			continue
		}
		for i := range l.Records {
			hashes[events.HashOf(l.Records[i].Value).String()] = l.Records[i].Place()
		}
	}
	for _, line := range o.proven {
		hash := ""
		for _, w := range strings.Fields(line) {
			if v, ok := strings.CutPrefix(w, "hash="); ok {
				hash = v
			}
		}
		at, ok := hashes[hash]
		if ok && strings.Contains(line, at+" ") {
			confirmed++
			lines = append(lines, line+": it stands in the journal there")
		} else {
			lines = append(lines, line+": it is not in the journal")
		}
	}
	return confirmed, lines
}

// String prints the figures.
func (o *outcome) String() string {
	var b strings.Builder
	confirmed, lines := o.fates()
	fmt.Fprintf(&b, "kills of nodes: %d", o.nodeKills())
	for _, k := range slices.Sorted(keysOf(o.kills)) {
		fmt.Fprintf(&b, ", %s %d", k, o.kills[k])
	}
	fmt.Fprintf(&b, "; of participants: %d\n", o.partKills)
	for _, k := range slices.Sorted(keysOf(o.troubles)) {
		fmt.Fprintf(&b, "%s %d ", k, o.troubles[k])
	}
	b.WriteByte('\n')
	fmt.Fprintf(&b, "held between append and acknowledgement, or acknowledgement and emission, and killed there: %d, of which the journal confirms %d\n", len(o.proven), confirmed)
	for _, l := range lines {
		fmt.Fprintf(&b, "  %s\n", l)
	}
	fmt.Fprintf(&b, "decisions made again: %d of %d alike, %d others; not made again: %v\n", o.again.Same, o.again.Decisions, len(o.again.Differ), o.again.Skipped)
	took := slices.Sorted(slices.Values(o.takeOvers))
	if len(took) > 0 {
		fmt.Fprintf(&b, "take-over: fastest %v, median %v, slowest %v\n", took[0].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	}
	z := o.zombie
	fmt.Fprintf(&b, "stopped owner %s: %d shards moved, %d of their journals trimmed past it; after it woke: %d records appended, %d accepted\n", z.node, z.moved, z.trimmed, z.attempted, z.accepted)
	fmt.Fprintf(&b, "orders: %d, compensated %.0f%%\n", o.orders, 100*o.compensated())
	b.WriteString(o.report.String())
	return b.String()
}

// summary is what a program reads of an outcome.
type summary struct {
	Seed         uint64         `json:"seed"`
	Orders       int            `json:"orders"`
	Kills        map[string]int `json:"kills"`    // of nodes, by class
	Troubles     map[string]int `json:"troubles"` // that landed
	Participants int            `json:"participants_killed"`
	Violations   int            `json:"violations"`
	Decisions    int            `json:"decisions"`
	Again        int            `json:"decided_again_alike"`
	TakeOverMS   int64          `json:"take_over_p50_ms"`
	Slowest      int64          `json:"take_over_max_ms"`
	ElapsedS     float64        `json:"elapsed_s"`
}

func (o *outcome) summary() summary {
	s := summary{o.seed, o.orders, o.kills, o.troubles, o.partKills, len(o.report.Violations) + o.report.Suppressed, o.again.Decisions, o.again.Same, 0, 0, o.elapsed.Seconds()}
	if took := slices.Sorted(slices.Values(o.takeOvers)); len(took) > 0 {
		s.TakeOverMS, s.Slowest = took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds()
	}
	return s
}

func (o *outcome) compensated() float64 {
	return float64(o.report.Instances[events.Compensated.String()]) / float64(max(o.orders, 1))
}

// verdict says what is missing for the run to have shown what it is for.
func (o *outcome) verdict() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	n := len(o.report.Violations) + o.report.Suppressed
	want(n == 0, "%d violations", n)
	want(len(o.again.Differ) == 0, "%d decisions do not follow from their rows and inputs, such as %v", len(o.again.Differ), o.again.Differ)
	want(o.again.Same >= o.again.Decisions*9/10, "only %d of %d decisions could be made again: %v", o.again.Same, o.again.Decisions, o.again.Skipped)
	want(len(o.report.Limits) == 0, "the checker could not judge everything: %s", strings.Join(o.report.Limits, "; "))
	want(o.zombie.moved > 0 && o.zombie.trimmed == o.zombie.moved, "of the stopped owner's %d shards %d were trimmed", o.zombie.moved, o.zombie.trimmed)
	want(o.zombie.attempted > 0, "the woken owner tried nothing")
	want(o.zombie.accepted == 0, "%d epochs of the woken owner went on", o.zombie.accepted)
	if !o.whole {
		return errors.Join(errs...)
	}
	want(o.nodeKills() >= 20, "%d nodes were killed, 20 are to be", o.nodeKills())
	confirmed, _ := o.fates()
	want(confirmed >= 10, "%d kills are proven to be between append and emission, 10 are to be", confirmed)
	want(o.kills["double"] >= 4, "two nodes at once were killed %d times, not twice", o.kills["double"]/2)
	want(o.kills["triple"] >= 3, "all nodes at once were never killed")
	want(o.compensated() >= 0.3, "%.0f%% of the sagas compensated, 30%% are to", 100*o.compensated())
	want(o.report.Rounds > 0, "no journal was compacted")
	r := o.report
	want(r.Scopes > 0 && r.Turns > 0 && r.Messages > 0 && r.Taken > 0 && r.Told > 0 && r.Actions > 0, "not every kind of node, or no operator, was in it: %d scopes, %d commands in loops, %d messages, %d events taken, %d told, %d actions",
		r.Scopes, r.Turns, r.Messages, r.Taken, r.Told, r.Actions)
	return errors.Join(errs...)
}

func keysOf[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
