package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/skald-io/skald/cmd/skald/internal/shop"
	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/api"
)

var devCommand = command{
	name:    "dev",
	args:    "--demo [flags]",
	summary: "a shop that shows sagas, on an embedded development broker",
	about: `With --demo: an embedded development broker (kfake: not Kafka, it keeps nothing), the engine, and a shop of
four services (inventory, payments, courier, notifications) in one process. Orders come in; some payments
are declined, some services are slow, some die before they answer. Each saga that ends is one line:

  order-17 compensated: reserve-stock ✓ authorize ✗ card-declined ↩ release-stock ✓

  ✓ done   ✗ rejected, or failed   ? outcome unknown   ×2 attempts   ↩ from here on, undos

Without --demo: the broker alone, for programs of your own.

stdout has the sagas and the summary; with -o json, one object for each saga and nothing else. Ctrl-C ends
it cleanly, a second one at once.

  skald dev --demo --orders 200 --once          place 200 orders, wait until all are final
  skald dev --demo --brokers localhost:9092     the same on your Kafka
  skald dev --demo --without payments           leave a service out, and write it yourself

With OTEL_EXPORTER_OTLP_ENDPOINT, traces and metrics go to that collector; the other OTEL_* variables count as well.

Exit codes: 0, also after Ctrl-C without --once; 1 when it failed, or orders were not final in time; 2 for
wrong flags; 130 when --once was interrupted.`,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		o := &devOptions{}
		f.BoolVar(&o.demo, "demo", false, "run the shop")
		f.Float64Var(&o.rate, "rate", 0, "orders a second; default 5, and 20 with --once `N`")
		f.IntVar(&o.orders, "orders", 0, "how many orders to place; default: no end `N`")
		f.BoolVar(&o.once, "once", false, "end when every one of --orders is final, with a summary")
		f.DurationVar(&o.wait, "wait", 2*time.Minute, "with --once: how long after the last order was placed to give up `DURATION`")
		f.Var(&o.brokers, "brokers", "use the Kafka at host:port, with commas between several; its topics are created `ADDR`")
		f.StringVar(&o.app, "app", defaultApp, "the application: the prefix of its topics `NAME`")
		f.StringVar(&o.listen, "listen", "127.0.0.1:0", "where the embedded broker listens; port 0 is any free one `ADDR`")
		f.StringVar(&o.api, "api", defaultAPI, "where the demo's node answers skald get, describe, signal and so on `ADDR`")
		f.Var(&o.without, "without", "leave a service out; may be given several times `SERVICE`")
		f.IntVar(&o.shards, "shards", 4, "shards, and partitions of the topics that are created `N`")
		f.StringVar(&o.dir, "dir", "", "with --brokers: where the stores are; default: a temporary folder `DIR`")
		f.Int64Var(&o.seed, "seed", 1, "decides who is slow, and who dies `N`")
		f.StringVar(&o.from, "from", "latest", "where a first start reads a topic of orders that is there already: latest or earliest `WHERE`")
		f.BoolVar(&o.calm, "calm", false, "no slowness and no crashes")
		f.StringVar(&o.metrics, "metrics", "", "serve /metrics for Prometheus there as well, beside the API; port 0 is any free one `ADDR`")
		f.BoolVar(&o.verbose, "verbose", false, "log what the engine does, on stderr")
		o.out = outputFlag(f)
		conn := &connection{flags: f}
		conn.securityFlags(f)
		return func(ctx context.Context, e *env) error {
			if len(o.brokers) > 0 || conn.file != "" || conn.properties != "" {
				l, err := conn.load(e)
				if err != nil {
					return err
				}
				o.conf, o.brokers = l.Config, l.Config.Brokers
				if _, named := l.Values["app"]; named {
					o.app = conn.app
				}
			}
			set := map[string]bool{}
			f.Visit(func(x *flag.Flag) { set[x.Name] = true })
			if err := o.check(set); err != nil {
				return err
			}
			o.shardsSet, o.apiSet = set["shards"], set["api"]
			if !o.demo {
				return devBroker(ctx, newScreen(e), o)
			}
			return demo(ctx, newScreen(e), o)
		}
	},
}

type devOptions struct {
	demo, once, calm, verbose       bool
	shardsSet                       bool
	rate                            float64
	orders, shards                  int
	wait                            time.Duration
	brokers, without                list
	app, listen, dir, from, metrics string
	api                             string
	apiSet                          bool
	seed                            int64
	out                             *output
	conf                            kafka.Config // of the Kafka that is not embedded
}

func (o *devOptions) check(set map[string]bool) error {
	if !o.demo {
		for name := range set {
			if name != "listen" && name != "verbose" {
				return usagef("--%s is for --demo", name)
			}
		}
		return nil
	}
	switch {
	case o.once && o.orders <= 0:
		return usagef("--once needs --orders N: otherwise there is no end to wait for")
	case o.orders < 0:
		return usagef("--orders %d: at least 1", o.orders)
	case set["wait"] && !o.once:
		return usagef("--wait is for --once")
	case o.wait <= 0:
		return usagef("--wait %s: more than nothing", o.wait)
	case set["rate"] && !(o.rate > 0 && o.rate <= 100_000):
		return usagef("--rate %g: more than 0, at most 100000", o.rate)
	case !validApp(o.app):
		return usagef("--app %q: 1 to 100 letters, digits, '-' or '_'", o.app)
	case o.shards < 1 || o.shards > events.MaxShards:
		return usagef("--shards %d: 1 to %d", o.shards, events.MaxShards)
	case set["dir"] && len(o.brokers) == 0:
		return usagef("--dir is for --brokers: the embedded broker forgets everything, and a store is worth nothing without its journal")
	case o.from != "latest" && o.from != "earliest":
		return usagef("--from %q: latest or earliest", o.from)
	case set["listen"] && len(o.brokers) > 0:
		return usagef("--listen is for the embedded broker, --brokers for one that runs already: not both")
	}
	if o.rate == 0 {
		o.rate = 5
		if o.once {
			o.rate = 20
		}
	}
	if err := shop.CheckNames(o.without); err != nil {
		return usagef("--without: %s", err)
	}
	return nil
}

// devBroker is `dev` without --demo.
func devBroker(ctx context.Context, s *screen, o *devOptions) error {
	broker, err := startBroker(s, o.listen)
	if err != nil {
		return err
	}
	defer broker.Close()
	s.Note("nothing runs on it: start your program against it, or see sagas with `skald dev --demo`; Ctrl-C ends it")
	<-ctx.Done()
	return nil
}

func startBroker(s *screen, listen string) (*kafka.Dev, error) {
	broker, err := kafka.StartDev(kafka.DevOptions{Addr: listen})
	if err != nil {
		return nil, err
	}
	s.Note("broker: %s (embedded development broker, kfake: not Kafka)", broker.Addr())
	return broker, nil
}

// demo runs the shop until ctx ends, or until what was asked for is done.
func demo(ctx context.Context, s *screen, o *devOptions) (err error) {
	level := slog.LevelError
	if o.verbose {
		level = slog.LevelInfo
	}
	logger := slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: level}))

	conf, prefix := o.conf, "order-"
	if len(conf.Brokers) == 0 {
		broker, err := startBroker(s, o.listen)
		if err != nil {
			return err
		}
		defer broker.Close()
		conf.Brokers = []string{broker.Addr()}
	} else {
		// Orders of earlier runs are still there.
		prefix += newRun() + "-"
	}
	conf.Logger = logger
	reach, err := conf.ClientOpts()
	if err != nil {
		return err
	}
	client, err := kafka.Dial(conf)
	if err != nil {
		return err
	}
	defer client.Close()
	shards, fresh, err := demoTopics(ctx, s, client, conf, o)
	if err != nil {
		return err
	}
	from := orchestrator.FromLatest // others may have written to a topic of that name
	if fresh || o.from == "earliest" {
		from = orchestrator.FromEarliest
	}

	dir := o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "skald-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	told, untold, err := startTelemetry(ctx, s, o.app, o.metrics, logger)
	if err != nil {
		return err
	}
	defer untold()
	w := newWatch(prefix)
	engine, err := orchestrator.New(orchestrator.Config{App: o.app, Node: nodeName(), Kafka: client, Definitions: []orchestrator.Definition{shop.PlaceOrder},
		Dir: dir, From: from, Logger: logger, Applied: w.Applied, Hooks: []orchestrator.Hook{told}})
	if err != nil {
		return err
	}

	// Everything below ends with work: first no more orders, then the services, then the engine.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 3)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	start := func(what string, run func() error) {
		running.Go(func() {
			if err := run(); err != nil && work.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	start("engine", func() error {
		if err := engine.Run(work); err != nil {
			return err
		}
		return errors.New("it ended by itself")
	})
	start("services", func() error {
		return shop.Run(work, shop.Options{App: o.app, Brokers: conf.Brokers, Reach: reach, Without: o.without, Seed: o.seed, Calm: o.calm, Logger: logger,
			Crashed: func(service string) { s.Note("%s", s.paint(dim, service+" died; it starts again")) }})
	})
	if len(o.without) > 0 {
		for _, name := range o.without {
			s.Note("%s is left out: its commands wait on the topic %s", name, shop.TopicOf(name))
		}
	}
	if err := ready(ctx, s, engine, shards, failed); err != nil {
		return err
	}
	if err := serveDemo(work, s, engine, told.Handler(), o); err != nil {
		return err
	}

	began := time.Now()
	placed := make(chan struct{})
	ordering, noMore := context.WithCancel(ctx)
	defer noMore()
	start("orders", func() error {
		defer close(placed)
		return pace(ordering, o.rate, o.orders, func(number int) error {
			w.Placed(number)
			client.Produce(shop.NewOrder(o.seed, w.key(number), number), func(err error) {
				if err != nil && work.Err() == nil {
					select {
					case failed <- fmt.Errorf("order %s was not placed: %w", w.key(number), err):
					default:
					}
				}
			})
			return nil
		})
	})
	f := &follower{screen: s, watch: w, json: *o.out == "json", undoName: shop.UndoName, once: o.once, wait: o.wait, placed: placed, failed: failed}
	err = f.run(ctx)
	line := summary(w.Tally(), time.Since(began))
	if f.json {
		s.Note("%s", line)
	} else {
		s.Result(line)
	}
	return err
}

// serveDemo lets the operator's commands reach the demo. Another one may have the usual address already.
func serveDemo(ctx context.Context, s *screen, engine *orchestrator.Engine, metrics http.Handler, o *devOptions) error {
	node := api.New(engine)
	node.Handle("GET /metrics", metrics)
	at, _, err := api.Listen(ctx, o.api, node)
	if err != nil && !o.apiSet {
		at, _, err = api.Listen(ctx, "127.0.0.1:0", node)
	}
	if err != nil {
		return fmt.Errorf("--api %s: %w", o.api, err)
	}
	hint := ""
	if at != defaultAPI {
		hint = " --api " + at
	}
	s.Note("api: http://%s (try: skald get%s)", at, hint)
	return nil
}

// ready waits until this node decides for every shard. Another node of the same application may hold some;
// then it says so and goes on.
func ready(ctx context.Context, s *screen, engine *orchestrator.Engine, shards int, failed <-chan error) error {
	const patience = 30 * time.Second
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		n := len(engine.Shards())
		if n >= shards {
			s.Status("")
			return nil
		}
		s.Status(fmt.Sprintf("taking the shards: %d of %d", n, shards))
		select {
		case <-tick.C:
		case <-late.C:
			s.Status("")
			if n == 0 {
				return fmt.Errorf("no shard of %d after %s: does another program hold the group? --verbose shows more", shards, patience)
			}
			s.Note("this node has %d of %d shards after %s; sagas of the others are not seen here", n, shards, patience)
			return nil
		case err := <-failed:
			return err
		case <-ctx.Done():
			return &exitError{exitInterrupted, "interrupted before it was ready"}
		}
	}
}

// newRun is a short name for this run, unlike those of other runs.
func newRun() string {
	var b [4]byte
	rand.Read(b[:])
	return strings.ToLower(hex.EncodeToString(b[:]))
}
