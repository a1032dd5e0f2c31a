package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/orchestrator"
)

// A child is told what it is by its environment.
const (
	envRole    = "SKALD_CHAOS_ROLE" // node, plain, rolling or participant
	envApp     = "SKALD_CHAOS_APP"
	envBrokers = "SKALD_CHAOS_BROKERS"
	envName    = "SKALD_CHAOS_NAME"
	envDir     = "SKALD_CHAOS_DIR"
	envCopied  = "SKALD_CHAOS_COPIED"   // of a node: the file that says how far the recorder is
	envWork    = "SKALD_CHAOS_SERVICES" // of a participant, separated by commas
	envKinds   = "SKALD_CHAOS_KINDS"    // of a node: names of the sagas, separated by commas; all without
	envTxn     = "SKALD_CHAOS_TXN"      // of a node: 1 when it emits in transactions
)

const session = 700 * time.Millisecond

// runRole does what the environment says, until SIGTERM or the end of stdin, and reports whether it said anything.
func runRole() bool {
	role := os.Getenv(envRole)
	if role == "" {
		return false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	var err error
	switch role {
	case "plain":
		err = plainNode(ctx, log)
	case "rolling":
		err = rollingNode(ctx, log)
	case "node":
		err = node(ctx, log)
	case "participant":
		err = takePart(ctx, log)
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func node(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	app := os.Getenv(envApp)
	var out sync.Mutex
	f := &faults{app: app, queued: map[string]map[string]bool{}, durable: map[string]string{}, trims: map[orchestrator.TopicPartition]int64{}, copied: os.Getenv(envCopied), say: func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...)
	}}
	client, err := kafka.Dial(kafka.Config{Brokers: strings.Split(os.Getenv(envBrokers), ","), Session: session, Logger: quieter(log), Opts: []kgo.Opt{kgo.Dialer(f.dial)}})
	if err != nil {
		return err
	}
	defer client.Close()
	f.Kafka = client
	var engine atomic.Pointer[orchestrator.Engine]
	go func() {
		defer cancel() // the parent is gone, or closes the pipe to end us
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			switch words := strings.Fields(in.Text()); {
			case len(words) == 3 && words[0] == "arm":
				n, _ := strconv.Atoi(words[2])
				f.arm(words[1], n)
			case len(words) > 1 && words[0] == "act":
				if e := engine.Load(); e != nil {
					go act(ctx, e, log, in.Text()[len("act "):])
				}
			case len(words) == 1 && words[0] == "go":
				f.goOn()
			case len(words) == 2 && words[0] == "net":
				f.say("net %d", f.network(words[1]))
			}
		}
	}()
	go f.trim(ctx)
	cast := newCast(app).only(strings.FieldsFunc(os.Getenv(envKinds), func(r rune) bool { return r == ',' }))
	e, err := orchestrator.New(orchestrator.Config{
		App: app, Kafka: f, Definitions: cast.definitions(), Transactional: cast.transactional(os.Getenv(envTxn) == "1"), Dir: os.Getenv(envDir), Node: os.Getenv(envName),
		From: orchestrator.FromEarliest, Logger: log, CompactAfter: compactAfter, CacheBytes: 8 << 20, BacklogWait: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	engine.Store(e)
	return e.Run(ctx)
}

// network makes the network what a word says, and counts what the one before has met.
func (f *faults) network(how string) int {
	switch how {
	case "reset":
		return f.wire.reset()
	case "slow":
		return f.wire.set(lateBy, false)
	case "deaf":
		return f.wire.set(0, true)
	}
	return f.wire.set(0, false)
}

// act sends what an operator says through this node, and asks again under the same id when it is not answered.
func act(ctx context.Context, e *orchestrator.Engine, log *slog.Logger, line string) {
	var a orchestrator.Action
	if err := json.Unmarshal([]byte(line), &a.Action); err != nil {
		log.Error("no action", "error", err)
		return
	}
	for range 3 {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		answer, err := e.Act(try, a)
		cancel()
		log.Info("acted", "kind", a.Kind, "key", a.Key, "id", a.ID, "done", answer.Done, "code", answer.Code, "message", answer.Message, "error", err)
		if err == nil || !errors.Is(err, orchestrator.ErrUnanswered) || ctx.Err() != nil {
			return
		}
	}
}

const compactAfter = 96 << 10

func takePart(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ledger, err := participant.OpenLedger(os.Getenv(envDir))
	if err != nil {
		return err
	}
	app := os.Getenv(envApp)
	p := participant.New(participant.Config{
		App: app, Name: os.Getenv(envName), Brokers: strings.Split(os.Getenv(envBrokers), ","), Ledger: ledger, Logger: log, Workers: 128,
		Options: []kgo.Opt{kgo.SessionTimeout(session), kgo.HeartbeatInterval(session / 3)},
	})
	newCast(app).handlers(p, strings.Split(os.Getenv(envWork), ",")...)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return errors.Join(p.Run(ctx), ledger.Close())
}

// quieter drops what a Kafka client says of brokers that are slow for a moment.
func quieter(log *slog.Logger) *slog.Logger { return log.With("of", "kafka") }
