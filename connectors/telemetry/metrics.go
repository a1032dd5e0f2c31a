package telemetry

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// metrics keeps the figures that the table declares. Counters and gauges are plain numbers under the lock of their
// shard, which nobody else wants but the reader, some microseconds every few seconds; they become instruments
// when they are read.
type metrics struct {
	mu     sync.Mutex // of shards and what follows
	shards map[int32]*figures

	definitions, steps, topics, codes *names

	ack, emit, timer, saga metric.Float64Histogram
	spans                  *spans
}

// series are the figures of one metric by the values of its labels, in the order of the table.
type series map[[4]string]int64

// figures are those of one shard. Counters go on when the shard comes back.
type figures struct {
	mu   sync.Mutex
	id   string
	open bool
	// counters that move rarely, by metric.
	counters map[string]series
	// counting: what the store held is still being counted.
	counting  bool
	instances map[instances]int64
	// The commonest ones, without a map.
	decisions      [8]int64 // by outcome
	records        [8]int64 // by kind
	bytes, carried int64
	fates          [8]int64
	attempts       map[attempt]int64
	emitted        map[string]int64
	load           orchestrator.Load
	read, total    int64 // of the restore
}

type instances struct {
	definition string
	state      events.State
}

type attempt struct {
	definition, step string
	phase            events.Phase
	outcome          events.EntryKind
}

// Buckets of durations, in seconds.
var (
	shortBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
	longBuckets  = []float64{.01, .05, .1, .5, 1, 5, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}
)

// Bounds of labels.
const (
	maxDefinitions = 100
	maxSteps       = 1000
	maxTopics      = 200
	maxCodes       = 100
)

func newMetrics(meter metric.Meter, sp *spans) (*metrics, error) {
	m := &metrics{shards: map[int32]*figures{}, spans: sp,
		definitions: newNames(maxDefinitions), steps: newNames(maxSteps), topics: newNames(maxTopics), codes: newNames(maxCodes)}
	var errs []error
	var observed []metric.Observable
	instruments := map[string]metric.Int64Observable{}
	for _, s := range table {
		var err error
		switch s.kind {
		case counter:
			var i metric.Int64ObservableCounter
			i, err = meter.Int64ObservableCounter(s.name, metric.WithUnit(s.unit), metric.WithDescription(s.help))
			instruments[s.name], observed = i, append(observed, i)
		case gauge:
			var i metric.Int64ObservableGauge
			i, err = meter.Int64ObservableGauge(s.name, metric.WithUnit(s.unit), metric.WithDescription(s.help))
			instruments[s.name], observed = i, append(observed, i)
		case histogram:
			var i metric.Float64Histogram
			buckets := shortBuckets
			if s.name == mSagaDuration || s.name == mTimerDelay {
				buckets = longBuckets
			}
			i, err = meter.Float64Histogram(s.name, metric.WithUnit(s.unit), metric.WithDescription(s.help), metric.WithExplicitBucketBoundaries(buckets...))
			to := map[string]*metric.Float64Histogram{mAckDuration: &m.ack, mEmitDuration: &m.emit, mTimerDelay: &m.timer, mSagaDuration: &m.saga}[s.name]
			*to = i
		}
		errs = append(errs, err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, s := range table {
			if s.kind == histogram {
				continue
			}
			for labels, n := range m.collect(s.name) {
				set := make([]attribute.KeyValue, len(s.labels))
				for i, l := range s.labels {
					set[i] = attribute.String(l, labels[i])
				}
				o.ObserveInt64(instruments[s.name], n, metric.WithAttributes(set...))
			}
		}
		return nil
	}, observed...)
	return m, errors.Join(append(errs, err)...)
}

// of gives the shard's figures.
func (m *metrics) of(shard int32) *figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.shards[shard]
	if f == nil {
		f = &figures{id: strconv.Itoa(int(shard)), counters: map[string]series{},
			instances: map[instances]int64{}, attempts: map[attempt]int64{}, emitted: map[string]int64{}}
		m.shards[shard] = f
	}
	return f
}

func (f *figures) add(metric string, n int64, labels ...string) {
	var at [4]string
	copy(at[:], labels)
	s := f.counters[metric]
	if s == nil {
		s = series{}
		f.counters[metric] = s
	}
	s[at] += n
}

func (m *metrics) opened(shard int32) {
	f := m.of(shard)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open, f.counting = true, true
	f.read, f.total = 0, 0
	clear(f.instances)
}

func (m *metrics) closed(shard int32, err error) {
	f := m.of(shard)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open, f.counting = false, false
	f.read, f.total, f.load = 0, 0, orchestrator.Load{}
	if !mutant.On("telemetry-keeps-instances-of-a-lost-shard") {
		clear(f.instances)
	}
	if errors.Is(err, orchestrator.ErrClaimLost) {
		f.add(mClaimsLost, 1)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		code := orchestrator.ErrorCode(err)
		if code == "" {
			code = other
		}
		f.add(mShardsClosed, 1, m.codes.of([]byte(code)))
	}
}

// Input implements orchestrator.HookInput.
func (m *metrics) Input(shard int32, fate orchestrator.InputFate) {
	f := m.of(shard)
	f.mu.Lock()
	f.fates[fate&7]++
	f.mu.Unlock()
}

// Emitted implements orchestrator.HookEmitted.
func (m *metrics) Emitted(shard int32, topic string, took time.Duration) {
	name := m.topics.of([]byte(topic))
	f := m.of(shard)
	f.mu.Lock()
	f.emitted[name]++
	f.mu.Unlock()
	m.emit.Record(context.Background(), took.Seconds())
}

// TimerFired implements orchestrator.HookTimer.
func (m *metrics) TimerFired(_ int32, late time.Duration) {
	m.timer.Record(context.Background(), max(late, 0).Seconds())
}

// Restoring implements orchestrator.HookRestore.
func (m *metrics) Restoring(shard int32, read, total int64) {
	f := m.of(shard)
	f.mu.Lock()
	f.read, f.total = read, total
	f.mu.Unlock()
}

// Compacted implements orchestrator.HookCompaction.
func (m *metrics) Compacted(shard int32, c orchestrator.Compaction) {
	result := "ok"
	if c.Err != nil {
		result = "failed"
	}
	f := m.of(shard)
	f.mu.Lock()
	f.add(mCompactions, 1, result)
	f.carried += c.Carried
	f.mu.Unlock()
}

// Load implements orchestrator.HookLoad.
func (m *metrics) Load(shard int32, l orchestrator.Load) {
	f := m.of(shard)
	f.mu.Lock()
	f.load = l
	f.mu.Unlock()
}

// Instances implements orchestrator.HookInstances.
func (m *metrics) Instances(shard int32, definition string, state events.State, n int64) {
	name := m.definitions.of([]byte(definition))
	f := m.of(shard)
	f.mu.Lock()
	f.instances[instances{name, state}] += n
	f.mu.Unlock()
}

// Counted implements orchestrator.HookInstances.
func (m *metrics) Counted(shard int32) {
	f := m.of(shard)
	f.mu.Lock()
	f.counting = false
	f.mu.Unlock()
}

// headOf is the head that a decision writes.
func headOf(d *events.Decision) (head events.HeadView, ok bool) {
	if d == nil || len(d.Entries) == 0 {
		return head, false
	}
	for i := range d.Rows {
		if r := &d.Rows[i]; r.Ref.Part == events.PartHead && d.Whose(r) == d.Instance {
			head, err := events.ViewHead(r.Value)
			return head, err == nil
		}
	}
	return head, false
}

func (m *metrics) accepted(shard int32, a *orchestrator.Accepted, head *events.HeadView, hasHead bool) {
	m.ack.Record(context.Background(), a.Took.Seconds())
	f := m.of(shard)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[a.Record.Kind&7]++
	f.bytes += int64(a.Bytes)
	d := a.Record.Decision
	if d == nil {
		return
	}
	f.decisions[d.Outcome&7]++
	if !hasHead {
		return
	}
	definition := m.definitions.of(head.Definition)
	for i := range d.Entries {
		e := &d.Entries[i]
		switch e.Kind {
		case events.EntryDone, events.EntryRejected, events.EntryUnknown:
			if e.Attempt > 0 {
				f.attempts[attempt{definition, m.step(e.Step), e.Phase, e.Kind}]++
			}
		case events.EntryUndelivered:
			f.add(mUndelivered, 1, definition, m.step(e.Step))
		case events.EntryStarted:
			f.add(mStarted, 1, definition)
		case events.EntryTransition:
			switch {
			case e.To == events.Parked:
				f.add(mParked, 1, definition, m.codes.of([]byte(e.Code)))
			case e.To.Final():
				f.add(mEnded, 1, definition, e.To.String())
				m.saga.Record(context.Background(), float64(max(head.Ended-head.Started, 0))/1000,
					metric.WithAttributes(attribute.String(labelDefinition, definition), attribute.String(labelState, e.To.String())))
			}
		}
	}
}

func (m *metrics) step(label string) string {
	if !mutant.On("telemetry-labels-with-turns") {
		label = planName(label)
	}
	return m.steps.of([]byte(label))
}

// collect sums a metric over the shards.
func (m *metrics) collect(name string) series {
	m.mu.Lock()
	all := make([]*figures, 0, len(m.shards))
	for _, f := range m.shards {
		all = append(all, f)
	}
	m.mu.Unlock()
	sum := series{}
	switch name {
	case mShards, mCounting, mBacklog, mJournalBytes, mCarried, mClaimsLost, mTelemetryUnlinked:
		sum[[4]string{}] = 0 // it is there before anything happens
	}
	if name == mTelemetryUnlinked {
		sum[[4]string{}] = int64(m.spans.forgotten.Load())
	}
	for _, f := range all {
		f.mu.Lock()
		f.collect(name, sum)
		f.mu.Unlock()
	}
	return sum
}

var outcomeOf = map[events.EntryKind]string{events.EntryDone: "done", events.EntryRejected: "rejected", events.EntryUnknown: "unknown"}

func (f *figures) collect(name string, to series) {
	add := func(n int64, labels ...string) {
		var at [4]string
		copy(at[:], labels)
		to[at] += n
	}
	one := func(is bool) int64 {
		if is {
			return 1
		}
		return 0
	}
	for labels, n := range f.counters[name] {
		to[labels] += n
	}
	switch name {
	case mDecisions:
		for o, n := range f.decisions {
			if n > 0 {
				add(n, events.Outcome(o).String())
			}
		}
	case mJournalRecords:
		for k, n := range f.records {
			if n > 0 {
				add(n, events.Kind(k).String())
			}
		}
	case mJournalBytes:
		add(f.bytes)
	case mCarried:
		add(f.carried)
	case mInputs:
		for _, fate := range fates {
			add(f.fates[fate], fate.String())
		}
	case mAttempts:
		for a, n := range f.attempts {
			add(n, a.definition, a.step, a.phase.String(), outcomeOf[a.outcome])
		}
	case mEmitted:
		for topic, n := range f.emitted {
			add(n, topic)
		}
	case mShards:
		add(one(f.open))
	case mCounting:
		add(one(f.counting))
	case mBacklog:
		add(one(f.load.Backlog))
	case mRestoreRead:
		if f.total > 0 {
			add(f.read, f.id)
		}
	case mRestoreTotal:
		if f.total > 0 {
			add(f.total, f.id)
		}
	}
	if name == mInstances {
		for at, n := range f.instances {
			add(n, at.definition, at.state.String())
		}
	}
	if !f.open {
		return
	}
	switch name {
	case mInFlight:
		add(int64(f.load.InFlight), f.id)
	case mJournalSize:
		add(f.load.JournalBytes, f.id)
	case mRowsSize:
		add(f.load.LiveBytes, f.id)
	case mEmitPending:
		add(int64(f.load.Emitting), f.id)
	case mQueued:
		add(int64(f.load.Queued), f.id)
	}
}

var fates = []orchestrator.InputFate{orchestrator.InputForwarded, orchestrator.InputDuplicate, orchestrator.InputQuarantined, orchestrator.InputSkipped, orchestrator.InputIgnored}
