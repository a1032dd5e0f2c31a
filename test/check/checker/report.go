package checker

import (
	"fmt"
	"sort"
	"strings"

	"github.com/skald-io/skald/events"
)

// Rule names what was violated. Names are stable: tools match them.
type Rule string

// The rules, each with the guarantee it belongs to.
const (
	RuleJournalStart    Rule = "journal-start"    // a trimmed journal begins with a checkpoint
	RuleTerm            Rule = "term"             // L1: terms of epochs that decide never fall
	RuleTime            Rule = "time"             // L11: the time of accepted records never falls
	RuleUnanswered      Rule = "unanswered"       // G5: every input is answered
	RuleAnsweredTwice   Rule = "answered-twice"   // G5: exactly once
	RuleWrongInput      Rule = "wrong-input"      // a decision names an input that is not there, or another than it answers
	RulePosition        Rule = "position"         // L6: no position passes an unfinished input, none falls
	RuleQuarantine      Rule = "quarantine"       // what is quarantined stands in the quarantine topic
	RuleUndecided       Rule = "undecided"        // G5: every command on a topic was decided
	RuleCommandBytes    Rule = "command-bytes"    // a command is what was decided, each time it is sent
	RuleLostCommand     Rule = "lost-command"     // every decided command is on its topic
	RuleCommandRecord   Rule = "command-record"   // a decision holds all of what it emits
	RuleDecidedTwice    Rule = "decided-twice"    // one decision for each attempt
	RuleAppliedTwice    Rule = "applied-twice"    // at most one effect per instance, step and direction
	RuleAfterUndo       Rule = "after-undo"       // L15: no effect after its undo
	RuleUnknownEffect   Rule = "unknown-effect"   // every effect was commanded
	RuleCompleted       Rule = "completed"        // G2: completed means every effect, and none undone
	RuleCompensated     Rule = "compensated"      // G2: compensated means every effect undone
	RuleUndoOrder       Rule = "undo-order"       // G4
	RuleForwardOrder    Rule = "forward-order"    // a step begins when those before it are done
	RuleUnfounded       Rule = "unfounded"        // done is decided on a reply that says so
	RuleTimerEarly      Rule = "timer-early"      // no timer fires before it is due
	RuleTimerTwice      Rule = "timer-twice"      // nor twice, nor without being set
	RuleFinalAbsorbs    Rule = "final-absorbs"    // G6
	RuleForwardInUndo   Rule = "forward-in-undo"  // G6: no forward command in what compensates, an instance or a scope
	RuleUndoPastPivot   Rule = "undo-past-pivot"  // G6
	RuleUndoInForward   Rule = "undo-in-forward"  // no undo while the instance goes forward, but in a scope that goes back
	RuleScope           Rule = "scope"            // only what may go back on its own does
	RuleEvent           Rule = "event"            // L20: an event that came is taken, kept, too old or put aside, and given once
	RuleMessage         Rule = "message"          // what one entity says to another is decided, and answered once
	RuleAction          Rule = "action"           // L22: an action is done once, and answered
	RuleKey             Rule = "key"              // one instance lives for a business key
	RuleExpiry          Rule = "expiry"           // forward commands expire, undos never do
	RuleCarry           Rule = "carry"            // LOG §1: a carry is the row as it is
	RuleCheckpoint      Rule = "checkpoint"       // LOG §1: a checkpoint holds the positions as they are
	RuleEmissionClaimed Rule = "emission-claimed" // L14: progress does not pass what is not on its topic
	RuleCommittedOnce   Rule = "committed-once"   // L16: who reads committed records sees each decided command once
	RuleUnfinished      Rule = "unfinished"       // G1: everything is final in the end
)

// Violation is one contradiction, with the place that shows it.
type Violation struct {
	Rule      Rule   `json:"rule"`
	Topic     string `json:"topic,omitempty"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Seq       uint64 `json:"seq,omitempty"` // of the journal record, when the place is one
	Instance  string `json:"instance,omitempty"`
	Step      string `json:"step,omitempty"`
	Detail    string `json:"detail"`
}

func (v Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", v.Rule, v.Detail)
	if v.Topic != "" {
		fmt.Fprintf(&b, " (%s/%d/%d", v.Topic, v.Partition, v.Offset)
		if v.Seq != 0 {
			fmt.Fprintf(&b, ", sequence %d", v.Seq)
		}
		b.WriteString(")")
	}
	if v.Instance != "" {
		fmt.Fprintf(&b, " instance %s", v.Instance)
	}
	if v.Step != "" {
		fmt.Fprintf(&b, " step %s", v.Step)
	}
	return b.String()
}

// Epoch is one claim and what came of it.
type Epoch struct {
	Shard    int32  `json:"shard"`
	Node     string `json:"node"`
	Nonce    string `json:"nonce"`
	Term     uint64 `json:"term"`
	Offset   int64  `json:"offset"` // of the claim; of the checkpoint where the journal begins with one
	Accepted int    `json:"accepted"`
	// FirstAccepted and LastAccepted are offsets; -1 when nothing was accepted.
	FirstAccepted int64 `json:"first_accepted"`
	LastAccepted  int64 `json:"last_accepted"`
	// Refused counts records that carry this epoch's nonce and were not accepted, duplicates aside; LastRefused is
	// the last one's offset, or -1.
	Refused     int   `json:"refused"`
	LastRefused int64 `json:"last_refused"`
	Duplicates  int   `json:"duplicates"`
}

// Report is the outcome of a check.
type Report struct {
	Violations []Violation `json:"violations"`
	// Limits say, in words, what could not be judged with the evidence at hand.
	Limits []string `json:"limits,omitempty"`
	Epochs []Epoch  `json:"epochs,omitempty"`

	Shards     int            `json:"shards"`
	Records    int            `json:"records"`
	Accepted   int            `json:"accepted"`
	Decisions  int            `json:"decisions"`
	Inputs     int            `json:"inputs"`   // judged: events that start a saga, replies, messages in inboxes
	Commands   int            `json:"commands"` // decided
	Sent       int            `json:"sent"`     // on topics, repetitions included
	Effects    int            `json:"effects"`  // in ledgers
	Scopes     int            `json:"scopes"`   // that went back on their own
	Turns      int            `json:"turns"`    // commands in loops
	Messages   int            `json:"messages"` // from one entity to another
	Taken      int            `json:"taken"`    // events, by those who waited for them
	Told       int            `json:"told"`     // events that sagas emit
	Actions    int            `json:"actions"`  // answered: operators' and signals
	Instances  map[string]int `json:"instances"`
	Carries    int            `json:"carried_rows"`
	Rounds     int            `json:"compaction_rounds"` // those whose last carry was seen
	ByRule     map[Rule]int   `json:"by_rule,omitempty"`
	Suppressed int            `json:"suppressed,omitempty"` // beyond MaxViolations
}

// MaxViolations bounds how many a report spells out; all are counted in ByRule.
const MaxViolations = 1000

// OK reports whether nothing was violated.
func (r *Report) OK() bool { return len(r.ByRule) == 0 }

func (r *Report) add(v Violation) {
	if r.ByRule == nil {
		r.ByRule = map[Rule]int{}
	}
	r.ByRule[v.Rule]++
	if len(r.Violations) >= MaxViolations {
		r.Suppressed++
		return
	}
	r.Violations = append(r.Violations, v)
}

func (r *Report) limit(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	for _, l := range r.Limits {
		if l == s {
			return
		}
	}
	r.Limits = append(r.Limits, s)
}

// String prints the report for people.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d shards, %d journal records, %d accepted, %d decisions, %d epochs, %d compaction rounds (%d rows carried)\n",
		r.Shards, r.Records, r.Accepted, r.Decisions, len(r.Epochs), r.Rounds, r.Carries)
	fmt.Fprintf(&b, "%d inputs, %d commands decided, %d sent, %d effects\n", r.Inputs, r.Commands, r.Sent, r.Effects)
	fmt.Fprintf(&b, "%d scopes went back on their own, %d commands in loops, %d messages, %d events taken, %d told, %d actions\n", r.Scopes, r.Turns, r.Messages, r.Taken, r.Told, r.Actions)
	states := make([]string, 0, len(r.Instances))
	for s := range r.Instances {
		states = append(states, s)
	}
	sort.Strings(states)
	b.WriteString("instances:")
	for _, s := range states {
		fmt.Fprintf(&b, " %s %d", s, r.Instances[s])
	}
	b.WriteString("\n")
	for _, l := range r.Limits {
		fmt.Fprintf(&b, "limit: %s\n", l)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "VIOLATION %s\n", v)
	}
	if r.Suppressed > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.Suppressed)
	}
	fmt.Fprintf(&b, "violations: %d\n", len(r.Violations)+r.Suppressed)
	return b.String()
}

func text(id events.InstanceID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
