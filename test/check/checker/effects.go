package checker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/skald-io/skald/events"
)

// Effect is a line of a participant's ledger: an effect that was applied. connectors/participant exports them.
type Effect struct {
	Instance       string `json:"instance"`
	Step           string `json:"step"`
	Direction      string `json:"direction"` // forward or compensate
	IdempotencyKey string `json:"idempotencykey"`
	Undoes         string `json:"undoes,omitempty"`
	Order          uint64 `json:"order"` // within the ledger
	Time           int64  `json:"time"`  // ms since 1970
}

// ReadLedger reads a ledger's export: one JSON object a line.
func ReadLedger(r io.Reader) ([]Effect, error) {
	var out []Effect
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if len(strings.TrimSpace(s.Text())) == 0 {
			continue
		}
		var e Effect
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("ledger, line %d: %w", n, err)
		}
		if e.IdempotencyKey == "" {
			return nil, fmt.Errorf("ledger, line %d: an effect without idempotencykey", n)
		}
		out = append(out, e)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return out, nil
}

// effects holds the ledgers against the decisions.
func (c *check) effects() {
	if len(c.e.Ledgers) == 0 {
		c.report.limit("no ledgers: effects are not judged")
		return
	}
	commanded := map[string]bool{}
	for _, d := range c.commands {
		commanded[effectKey(d.id.Instance, d.emit.Step, d.id.Execution, d.id.Phase)] = true
	}
	applied := map[string]bool{}
	for n, ledger := range c.e.Ledgers {
		ledger = slices.Clone(ledger)
		slices.SortStableFunc(ledger, func(a, b Effect) int {
			switch {
			case a.Order < b.Order:
				return -1
			case a.Order > b.Order:
				return 1
			}
			return 0
		})
		undone := map[string]uint64{}
		for _, e := range ledger {
			c.report.Effects++
			bad := func(rule Rule, format string, args ...any) {
				c.report.add(Violation{Rule: rule, Instance: e.Instance, Step: e.Step, Detail: fmt.Sprintf("ledger %d, order %d: ", n, e.Order) + fmt.Sprintf(format, args...)})
			}
			if applied[e.IdempotencyKey] {
				bad(RuleAppliedTwice, "the effect %s is applied again", e.IdempotencyKey)
			}
			applied[e.IdempotencyKey] = true
			if at, ok := undone[e.IdempotencyKey]; ok {
				bad(RuleAfterUndo, "the effect %s is applied after its undo (order %d)", e.IdempotencyKey, at)
			}
			if e.Undoes != "" {
				undone[e.Undoes] = e.Order
			}
			if (e.Direction == events.Compensate.String()) != (e.Undoes != "") {
				bad(RuleUnknownEffect, "a %s effect with undoes %q", e.Direction, e.Undoes)
			}
			if commanded[e.IdempotencyKey] {
				continue
			}
			id, err := events.ParseInstanceID(e.Instance)
			switch {
			case err != nil:
				bad(RuleUnknownEffect, "its instance: %v", err)
			case c.trimmed[id.Shard(max(c.shards, 1))]:
			default:
				bad(RuleUnknownEffect, "the effect %s was never commanded", e.IdempotencyKey)
			}
		}
	}
	c.twice(applied)
	for _, id := range slices.SortedFunc(keys(c.instances), compareIDs) {
		inst := c.instances[id]
		if inst.partial || inst.final == 0 {
			continue
		}
		for _, t := range slices.SortedFunc(keys(inst.tries), compareTries) {
			x := inst.tries[t]
			if inst.touched[x.step] || inst.touched[""] {
				continue // an operator has said what became of it
			}
			again := c.superseded(inst, t, x)
			done := applied[effectKey(id, x.step, t.execution, events.Forward)]
			undone := applied[effectKey(id, x.step, t.execution, events.Compensate)]
			switch inst.state {
			case events.Completed:
				if !done && !again && !c.o.PartialLedgers && (!x.done.none() && x.undone.none() || !c.optional(inst, x)) {
					inst.last.at(c, RuleCompleted, x.step, "the instance is completed without the step's effect")
				}
				if undone && !again && !c.optional(inst, x) {
					inst.last.at(c, RuleCompleted, x.step, "the instance is completed, and the step's effect undone")
				}
			case events.Compensated:
				if done && !undone && c.owing(inst, t) {
					inst.last.at(c, RuleCompensated, x.step, "the instance is compensated, and the step's effect is still there")
				}
			}
		}
	}
}

// twice asks for one effect per instance, step and direction, whatever the key says of executions: none of them
// may stand beside another without its undo in between.
func (c *check) twice(applied map[string]bool) {
	seen := map[string]string{}
	for _, key := range slices.Sorted(keys(applied)) {
		base, undo := strings.CutSuffix(key, "/undo")
		i := strings.LastIndexByte(base, '/')
		if undo || i < 0 {
			continue
		}
		if _, err := strconv.ParseUint(base[i+1:], 10, 32); err != nil {
			continue
		}
		if other, ok := seen[base[:i]]; ok && !applied[other+"/undo"] && !applied[base+"/undo"] {
			instance, step, _ := strings.Cut(base[:i], "/")
			c.report.add(Violation{Rule: RuleAppliedTwice, Instance: instance, Step: step, Detail: fmt.Sprintf("two executions have an effect, %s and %s, and neither is undone", other, base)})
		}
		seen[base[:i]] = base
	}
}

// endings judges how instances end, by the journal alone.
func (c *check) endings() {
	for _, id := range slices.SortedFunc(keys(c.instances), compareIDs) {
		inst := c.instances[id]
		if inst.entity || inst.state == 0 && !inst.partial && inst.started == 0 {
			continue // or it is a key without an instance, which refused an action
		}
		name := inst.state.String()
		if inst.state == 0 {
			name = "unknown"
		}
		c.report.Instances[name]++
		if inst.final == 0 && c.o.Quiescent && inst.state != 0 {
			inst.last.at(c, RuleUnfinished, "", "the instance is %s in the end", inst.state)
		}
		if inst.partial || inst.final == 0 {
			continue
		}
		for _, t := range slices.SortedFunc(keys(inst.tries), compareTries) {
			x := inst.tries[t]
			optional := c.optional(inst, x) || c.superseded(inst, t, x)
			switch inst.state {
			case events.Completed:
				switch {
				case inst.touched[x.step] || inst.touched[""]:
				case optional && !c.settled(inst, t, x):
					inst.last.at(c, RuleCompleted, x.step, "the instance is completed, and its step is neither done nor undone: %d of %d attempts rejected", len(x.rejected), x.attempts)
				case !optional && x.done.none():
					inst.last.at(c, RuleCompleted, x.step, "the instance is completed, and its step was commanded and never decided done")
				}
				if !x.undoing.none() && !optional {
					inst.last.at(c, RuleCompleted, x.step, "the instance is completed, and its step's undo was decided")
				}
			case events.Compensated:
				if x.owes() && c.owing(inst, t) {
					inst.last.at(c, RuleCompensated, x.step, "the instance is compensated, and its step still owes its undo: %d of %d attempts rejected", len(x.rejected), x.attempts)
				}
			}
		}
	}
}

// optional reports whether an instance can complete without a step, or without this execution of it.
func (c *check) optional(inst *instance, x *execution) bool {
	s := c.shapes[inst.plan]
	return s != nil && s.optional(x.step) || len(inst.scopes) > 0 && (s == nil || inst.back)
}

// superseded reports whether a step was begun anew, because an operator had it tried with another payload, and this
// execution of it is settled.
func (c *check) superseded(inst *instance, t try, x *execution) bool {
	later, ok := inst.tries[try{t.node, inst.nodes[t.node]}]
	return ok && later != x && later.step == x.step && c.settled(inst, t, x)
}

func compareIDs(a, b events.InstanceID) int { return strings.Compare(string(a[:]), string(b[:])) }

func compareTries(a, b try) int {
	if a.node != b.node {
		return int(a.node) - int(b.node)
	}
	return int(a.execution) - int(b.execution)
}
