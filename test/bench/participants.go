package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/events"
)

func logger() *slog.Logger {
	return slog.New(quiet{slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})})
}

// quiet leaves out what the engine says of a cluster with one broker, which is what is wanted here.
type quiet struct{ slog.Handler }

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "the cluster risks something" {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(n string) slog.Handler      { return quiet{q.Handler.WithGroup(n)} }

// participantsRole runs all services in one process until it is told to end. "begin" and "end" are the borders of the window.
func participantsRole(ctx context.Context, o *options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		if o.plain {
			ended <- plainParticipants(ctx, o)
		} else {
			ended <- participants(ctx, o)
		}
	}()
	prof := profiler{dir: o.profile, role: "participants"}
	return serve(ctx, ended, func(word string) (any, error) {
		switch word {
		case "begin":
			if err := prof.begin(); err != nil {
				return nil, err
			}
			return processSample(), nil
		case "end":
			s := processSample()
			return s, prof.end()
		}
		return nil, errors.New("unknown word " + word)
	})
}

// participants are the services with the participant kit. Their handlers cost nothing, and their ledger is
// in memory: a service's own work is none of this measurement.
func participants(ctx context.Context, o *options) error {
	w := newWorld(o)
	p := participant.New(participant.Config{App: o.app, Brokers: strings.Split(o.brokers, ","), Name: "services", Logger: logger(),
		Workers: o.workers, Retention: time.Minute, Options: append(partitionedReplies(o), kgo.ProducerLinger(o.linger))})
	for i := range w.forward {
		participant.Handle(p, w.forward[i], func(_ context.Context, _ participant.Call, c command) (reply, error) {
			return reply{Reference: fmt.Sprintf("ref-%d-%s", i+1, c.Order), Location: "warehouse-north", ReadyAt: "2026-11-30T08:00:00Z"}, nil
		})
		participant.Handle(p, w.backward[i], func(context.Context, participant.Call, undo) (nothing, error) { return nothing{}, nil })
	}
	return p.Run(ctx)
}

// partitionedReplies says where replies go, when not where the Java client puts them.
func partitionedReplies(o *options) []kgo.Opt {
	if !o.scatter {
		return nil
	}
	return []kgo.Opt{kgo.RecordPartitioner(newForeign(events.Topics{App: o.app}.Replies()))}
}

// plainParticipants answer with the same replies, and keep none of a participant's rules: they forget.
func plainParticipants(ctx context.Context, o *options) error {
	w := newWorld(o)
	parts := map[string]map[int32]kgo.Offset{}
	for _, t := range w.commands {
		parts[t] = map[int32]kgo.Offset{}
		for p := range int32(o.shards) {
			parts[t][p] = kgo.NewOffset().AtStart()
		}
	}
	cl, err := kgo.NewClient(append(partitionedReplies(o), kgo.SeedBrokers(strings.Split(o.brokers, ",")...), kgo.ConsumePartitions(parts), kgo.ProducerLinger(o.linger),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.MaxBufferedRecords(1<<20))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var once sync.Once
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			out := &kgo.Record{Topic: o.app + ".replies", Key: r.Key, Value: fmt.Appendf(nil,
				`{"reference":"ref-1-%s","location":"warehouse-north","ready_at":"2026-11-30T08:00:00Z"}`, r.Key)}
			for _, h := range r.Headers {
				switch h.Key {
				case events.HeaderID:
					out.Headers = append(out.Headers, kgo.RecordHeader{Key: events.HeaderCausationID, Value: h.Value},
						kgo.RecordHeader{Key: h.Key, Value: append([]byte("r-"), h.Value...)})
				case events.HeaderType, events.HeaderCorrelationID, events.HeaderSpecVersion, events.HeaderContentType, events.HeaderTime, events.HeaderIdempotencyKey:
					out.Headers = append(out.Headers, h)
				}
			}
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: events.HeaderOutcome, Value: []byte("done")},
				kgo.RecordHeader{Key: events.HeaderSource, Value: []byte("/" + o.app + "/services")})
			cl.Produce(ctx, out, func(_ *kgo.Record, err error) {
				if err != nil && ctx.Err() == nil {
					once.Do(func() { fmt.Fprintln(os.Stderr, "bench participants: a reply was not sent:", err) })
				}
			})
		})
	}
	return nil
}
