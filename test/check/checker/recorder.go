package checker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Recorder reads an application's topics from their beginning and keeps everything, also what is trimmed
// afterwards. Topics that the journal names, of commands and of events, are found as it is read. It is safe for
// concurrent use.
type Recorder struct {
	app    string
	client *kgo.Client
	admin  *kadm.Client
	cancel context.CancelFunc
	ended  chan struct{}

	closing sync.Once

	mu      sync.Mutex
	changed *sync.Cond
	ev      *Evidence
	topics  map[string]bool // wanted; true once read
	watch   func(events.Message)
	err     error
}

// NewRecorder begins to read. extra names topics beside those the journal leads to. watch, if not nil, is told
// every record as it is read, one at a time. Close or Finish ends it.
func NewRecorder(ctx context.Context, app string, brokers, extra []string, watch func(events.Message)) (*Recorder, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.KeepControlRecords(), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, fmt.Errorf("recorder of %s: %w", app, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Recorder{app: app, client: client, admin: kadm.NewClient(client), cancel: cancel, ended: make(chan struct{}), ev: NewEvidence(app), topics: map[string]bool{}, watch: watch}
	r.changed = sync.NewCond(&r.mu)
	t := events.Topics{App: app}
	for _, name := range append([]string{t.Journal(), t.Inbox(), t.Replies(), t.Quarantine()}, extra...) {
		r.topics[name] = false
	}
	if err := r.discover(ctx); err != nil {
		cancel()
		client.Close()
		return nil, err
	}
	if len(r.ev.parts(t.Journal())) == 0 {
		cancel()
		client.Close()
		return nil, fmt.Errorf("recorder of %s: topic %s does not exist at %s", app, t.Journal(), strings.Join(brokers, ","))
	}
	go r.run(ctx)
	return r, nil
}

// discover begins to read the topics that are wanted and not yet read. Those that do not exist stay wanted.
func (r *Recorder) discover(ctx context.Context) error {
	r.mu.Lock()
	var names []string
	for name, on := range r.topics {
		if !on {
			names = append(names, name)
		}
	}
	r.mu.Unlock()
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	starts, err := r.admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("recorder of %s: %w", r.app, err)
	}
	add := map[string]map[int32]kgo.Offset{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, parts := range starts {
		whole := len(parts) > 0
		for _, p := range parts {
			whole = whole && p.Err == nil && p.Partition >= 0
		}
		if !whole {
			continue
		}
		r.topics[name] = true
		add[name] = map[int32]kgo.Offset{}
		for _, p := range parts {
			l := r.ev.Log(name, p.Partition)
			l.First, l.End = p.Offset, p.Offset
			add[name][p.Partition] = kgo.NewOffset().At(p.Offset)
		}
	}
	if len(add) > 0 {
		r.client.AddConsumePartitions(add)
	}
	return nil
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.ended)
	look := time.Now()
	for {
		wait, cancel := context.WithTimeout(ctx, time.Second)
		fetches := r.client.PollFetches(wait)
		cancel()
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		fetches.EachError(func(t string, p int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				r.err = fmt.Errorf("recorder of %s: %s/%d: %w", r.app, t, p, err)
			}
		})
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Attrs.IsControl() {
				r.ev.Skip(rec.Topic, rec.Partition, rec.Offset)
				return
			}
			m := message(rec)
			r.ev.Add(m)
			if m.Topic == r.app+".journal" {
				r.note(m.Value)
			}
			if r.watch != nil {
				r.watch(m)
			}
		})
		missing := false
		for _, on := range r.topics {
			missing = missing || !on
		}
		r.changed.Broadcast()
		r.mu.Unlock()
		if missing && time.Since(look) > 200*time.Millisecond {
			look = time.Now()
			if err := r.discover(ctx); err != nil && ctx.Err() == nil {
				r.mu.Lock()
				r.err = err
				r.mu.Unlock()
			}
		}
	}
}

// note finds the topics that a journal record speaks of.
func (r *Recorder) note(value []byte) {
	rec, err := events.DecodeRecord(value)
	if err != nil {
		return
	}
	want := func(topic string) {
		if _, known := r.topics[topic]; !known && topic != "" {
			r.topics[topic] = false
		}
	}
	if d := rec.Decision; d != nil {
		want(d.Input.Topic)
		for i := range d.Emits {
			if k := d.Emits[i].Kind; k == events.EmitCommand || k == events.EmitEvent {
				want(d.Emits[i].Topic)
			}
		}
		if d.Progress != nil {
			for _, p := range d.Progress.Positions {
				want(p.Topic)
			}
		}
	}
	if rec.Checkpoint != nil {
		for _, p := range rec.Checkpoint.Positions {
			want(p.Topic)
		}
	}
}

func message(rec *kgo.Record) events.Message {
	m := events.Message{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Key: rec.Key, Value: rec.Value, Time: rec.Timestamp.UnixMilli()}
	for _, h := range rec.Headers {
		m.Headers = append(m.Headers, events.Header{Key: h.Key, Value: h.Value})
	}
	return m
}

// With calls fn with what was seen so far. fn must not keep it.
func (r *Recorder) With(fn func(*Evidence)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(r.ev)
}

// CatchUp reads to the ends that the named topics have now, or all of them when none is named.
func (r *Recorder) CatchUp(ctx context.Context, topics ...string) error {
	_, err := r.catchUp(ctx, topics...)
	return err
}

func (r *Recorder) catchUp(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
	if err := r.discover(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	if len(topics) == 0 {
		for name, on := range r.topics {
			if on {
				topics = append(topics, name)
			}
		}
	}
	r.mu.Unlock()
	ends, err := r.admin.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("recorder of %s: %w", r.app, err)
	}
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		behind := ""
		ends.Each(func(o kadm.ListedOffset) {
			if l := r.ev.Log(o.Topic, o.Partition); l.End < o.Offset {
				behind = fmt.Sprintf("%s/%d is read to %d of %d", o.Topic, o.Partition, l.End, o.Offset)
			}
		})
		switch {
		case behind == "":
			return ends, nil
		case ctx.Err() != nil:
			return nil, errors.Join(fmt.Errorf("recorder of %s: %s: %w", r.app, behind, ctx.Err()), r.err)
		}
		r.changed.Wait()
	}
}

// Finish reads to the end, in the order that makes the evidence coherent while the application runs: the journal,
// then everything that follows from it, then what the journal says of that. It ends the recorder.
func (r *Recorder) Finish(ctx context.Context) (*Evidence, error) {
	defer r.Close()
	journal := events.Topics{App: r.app}.Journal()
	settled, err := r.catchUp(ctx, journal)
	if err == nil {
		_, err = r.catchUp(ctx)
	}
	if err == nil {
		_, err = r.catchUp(ctx, journal)
	}
	if err != nil {
		return nil, err
	}
	r.Close()
	settled.Each(func(o kadm.ListedOffset) { r.ev.Settled[o.Partition] = o.Offset })
	return r.ev, nil
}

// Close ends the recorder.
func (r *Recorder) Close() {
	r.closing.Do(func() {
		r.cancel()
		<-r.ended
		r.client.Close()
	})
}
