package telemetry

import (
	"fmt"
	"strings"
)

// kind is how a metric behaves.
type kind string

const (
	counter   kind = "counter"   // only grows, since the process began
	gauge     kind = "gauge"     // goes up and down
	histogram kind = "histogram" // a distribution
)

// spec is a metric: everything that is to be known of it. The table is the only place where metrics are
// declared; the instruments and the reference (docs/reference/metrics.md) are made of it.
type spec struct {
	name   string // of OpenTelemetry; Prometheus has underscores, the unit and _total where they belong
	kind   kind
	unit   string
	labels []string
	help   string
}

// Labels.
const (
	labelDefinition = "definition"
	labelState      = "state"
	labelShard      = "shard"
	labelStep       = "step"
	labelPhase      = "phase"
	labelOutcome    = "outcome"
	labelFate       = "fate"
	labelKind       = "kind"
	labelTopic      = "topic"
	labelCode       = "code"
	labelResult     = "result"
)

// labelHelp says what a label's values are, and what bounds them.
var labelHelp = map[string]string{
	labelDefinition: "a definition's name; at most 100 names, then `other`",
	labelState:      "an instance's state",
	labelShard:      "a shard's number",
	labelStep:       "a step's name in its definition, without the turn of a loop; at most 1,000 names, then `other`",
	labelPhase:      "`forward` or `compensate`",
	labelOutcome:    "of decisions `applied`, `ignored`, `quarantined`, `progress`; of attempts `done`, `rejected`, `unknown`",
	labelFate:       "`forwarded`, `duplicate`, `quarantined`, `skipped`, `ignored`",
	labelKind:       "`decision`, `carry`, `checkpoint`",
	labelTopic:      "a topic's name; at most 200 names, then `other`",
	labelCode:       "a stable code, see errors.md; at most 100, then `other`",
	labelResult:     "`ok` or `failed`",
}

const (
	mDecisions         = "skald.decisions"
	mJournalRecords    = "skald.journal.records"
	mJournalBytes      = "skald.journal.written"
	mAckDuration       = "skald.journal.ack.duration"
	mInFlight          = "skald.journal.in_flight"
	mJournalSize       = "skald.journal.size"
	mRowsSize          = "skald.rows.size"
	mInstances         = "skald.instances"
	mShards            = "skald.shards"
	mCounting          = "skald.shards.counting"
	mBacklog           = "skald.shards.backlog"
	mStarted           = "skald.sagas.started"
	mEnded             = "skald.sagas.ended"
	mSagaDuration      = "skald.saga.duration"
	mParked            = "skald.sagas.parked"
	mAttempts          = "skald.attempts"
	mEmitted           = "skald.emitted"
	mUndelivered       = "skald.emit.undelivered"
	mEmitDuration      = "skald.emit.duration"
	mEmitPending       = "skald.emit.pending"
	mInputs            = "skald.inputs"
	mQueued            = "skald.inputs.queued"
	mCompactions       = "skald.compactions"
	mCarried           = "skald.compaction.carried"
	mTimerDelay        = "skald.timer.delay"
	mRestoreRead       = "skald.restore.records"
	mRestoreTotal      = "skald.restore.total"
	mClaimsLost        = "skald.claims.lost"
	mShardsClosed      = "skald.shards.closed"
	mTelemetryUnlinked = "skald.telemetry.spans.forgotten"
)

var table = []spec{
	{mDecisions, counter, "{decision}", []string{labelOutcome}, "Decisions that were accepted in the journal."},
	{mJournalRecords, counter, "{record}", []string{labelKind}, "Records that this node appended and that were accepted."},
	{mJournalBytes, counter, "By", nil, "Bytes of those records."},
	{mAckDuration, histogram, "s", nil, "From the append of a journal record to its acknowledgement."},
	{mInFlight, gauge, "{record}", []string{labelShard}, "Journal records that are not acknowledged yet."},
	{mJournalSize, gauge, "By", []string{labelShard}, "The journal since its last compaction round."},
	{mRowsSize, gauge, "By", []string{labelShard}, "The rows of the shard, as of its last compaction round or its opening."},
	{mInstances, gauge, "{instance}", []string{labelDefinition, labelState}, "Instances on this node that have not ended, by state: running, suspended, compensating, parked. What a shard's store holds is counted when the shard is opened, beside its work; until skald.shards.counting is 0 the figure may be too small."},
	{mShards, gauge, "{shard}", nil, "Shards that this node decides for."},
	{mCounting, gauge, "{shard}", nil, "Shards whose instances are still being counted."},
	{mBacklog, gauge, "{shard}", nil, "Shards whose timers wait for what came before the claim."},
	{mStarted, counter, "{saga}", []string{labelDefinition}, "Sagas that were started."},
	{mEnded, counter, "{saga}", []string{labelDefinition, labelState}, "Sagas that ended: completed, compensated, terminated."},
	{mSagaDuration, histogram, "s", []string{labelDefinition, labelState}, "From a saga's start to its end, by the times of its decisions."},
	{mParked, counter, "{saga}", []string{labelDefinition, labelCode}, "How often a saga was parked: each needs an operator."},
	{mAttempts, counter, "{attempt}", []string{labelDefinition, labelStep, labelPhase, labelOutcome}, "Attempts of steps and of undos by their outcome."},
	{mEmitted, counter, "{message}", []string{labelTopic}, "Messages of decisions that Kafka acknowledged, repeated ones included."},
	{mUndelivered, counter, "{event}", []string{labelDefinition, labelStep}, "Events of an Emit that Kafka refused for good: the saga went on without them."},
	{mEmitDuration, histogram, "s", nil, "The emit lag: from the acceptance of a decision to the acknowledgement of a message it emits."},
	{mEmitPending, gauge, "{message}", []string{labelShard}, "Messages of accepted decisions that Kafka has not acknowledged yet."},
	{mInputs, counter, "{input}", []string{labelFate}, "Inputs that changed no instance here."},
	{mQueued, gauge, "{input}", []string{labelShard}, "Inputs that were read and are not decided yet."},
	{mCompactions, counter, "{round}", []string{labelResult}, "Compaction rounds of journals."},
	{mCarried, counter, "By", nil, "Bytes of rows that compaction wrote again."},
	{mTimerDelay, histogram, "s", nil, "How late timers fire."},
	{mRestoreRead, gauge, "{record}", []string{labelShard}, "Journal records read so far by the restore of a shard that is not open yet."},
	{mRestoreTotal, gauge, "{record}", []string{labelShard}, "Journal records that this restore has to read."},
	{mClaimsLost, counter, "{claim}", nil, "Claims that this node lost to another one."},
	{mShardsClosed, counter, "{shard}", []string{labelCode}, "Shards that stopped with an error and were opened again."},
	{mTelemetryUnlinked, counter, "{span}", nil, "Attempts of traced sagas that were too many to remember: their spans begin by the definition's time-out and have no link to what caused them."},
}

// Reference is the page docs/reference/metrics.md.
func Reference() string {
	var b strings.Builder
	b.WriteString("<!-- Generated by go generate ./connectors/telemetry. Do not edit. -->\n\n# Metrics\n\n" +
		"By OpenTelemetry's name and by Prometheus'. Counters count since the process began; everything is about this node, the\n" +
		"one that has the shard. Resource: `service.name` is the application, or `OTEL_SERVICE_NAME`; `service.instance.id` the node.\n\n" +
		"| metric | Prometheus | kind | unit | labels | |\n|---|---|---|---|---|---|\n")
	for _, s := range table {
		labels := make([]string, len(s.labels))
		for i, l := range s.labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", s.name, s.prometheus(), s.kind, strings.Trim(s.unit, "{}"), strings.Join(labels, ", "), s.help)
	}
	b.WriteString("\n## Labels\n\n| label | values |\n|---|---|\n")
	said := map[string]bool{}
	for _, s := range table {
		for _, l := range s.labels {
			if !said[l] {
				said[l] = true
				fmt.Fprintf(&b, "| `%s` | %s |\n", l, labelHelp[l])
			}
		}
	}
	return b.String()
}

// prometheus is the metric's name on the page for Prometheus.
func (s spec) prometheus() string {
	name := strings.ReplaceAll(s.name, ".", "_")
	switch s.unit {
	case "s":
		name += "_seconds"
	case "By":
		name += "_bytes"
	}
	if s.kind == counter {
		name += "_total"
	}
	return name
}
