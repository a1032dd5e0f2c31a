package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// takeOver measures how long the shards of a killed node go without a decision, on sessions of the default length:
// what replaces it is the connection that other nodes held to it (L5).
type takeOver struct {
	options
	kills  int
	client *kgo.Client
	nodes  []*child

	mu      sync.Mutex
	changed *sync.Cond
	last    map[int32]decided // of each shard
	failed  error
}

// decided is a shard's last decision that answers an event.
type decided struct {
	node string
	at   time.Time // when it was read
}

// takeOverRate is how many events a second each shard gets.
const takeOverRate = 25

// gap is one shard's time without an owner.
type gap struct {
	kill  int
	shard int32
	took  time.Duration
}

// oneStep is a saga that nobody answers.
func oneStep(app string) orchestrator.Definition {
	build := func(o order) work { return work{Order: o.ID} }
	do := sagas.NewCommand[work, result](app+"-work", "do")
	undo := sagas.NewCommand[work, result](app+"-work", "undo")
	return sagas.Define("one", "1",
		sagas.StartOn(sagas.NewEvent[order](app+"-orders", ""), func(o order) order { return o }),
		sagas.Step("do", do, build, nil).Undo(sagas.With(undo, build)).Timeout(time.Hour))
}

// plainNode is a node without anything between it and Kafka, and with every default.
func plainNode(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := kafka.Dial(kafka.Config{Brokers: strings.Split(os.Getenv(envBrokers), ","), Logger: quieter(log)})
	if err != nil {
		return err
	}
	defer client.Close()
	go func() {
		defer cancel() // the parent is gone
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
	}()
	app := os.Getenv(envApp)
	e, err := orchestrator.New(orchestrator.Config{App: app, Kafka: client, Definitions: []orchestrator.Definition{oneStep(app)}, Dir: os.Getenv(envDir),
		Node: os.Getenv(envName), From: orchestrator.FromEarliest, Logger: log, CacheBytes: 32 << 20})
	if err != nil {
		return err
	}
	return e.Run(ctx)
}

// takeOvers kills nodes one after the other, and gives the gaps of all shards that moved, the shortest first.
func takeOvers(ctx context.Context, o options, kills int) ([]gap, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &takeOver{options: o, kills: kills, last: map[int32]decided{}}
	t.changed = sync.NewCond(&t.mu)
	plan := kafka.Plan(kafka.PlanOptions{App: o.app, Partitions: shards, Replication: 1, MinISR: 1, Inputs: []string{o.app + "-orders"}, Commands: []string{o.app + "-work"}, Create: true})
	admin, err := kafka.Dial(kafka.Config{Brokers: o.brokers})
	if err != nil {
		return nil, err
	}
	_, err = plan.Apply(ctx, admin)
	admin.Close()
	if err != nil {
		return nil, err
	}
	t.client, err = kgo.NewClient(kgo.SeedBrokers(o.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1),
		kgo.ConsumeTopics(o.app+".journal"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(20*time.Millisecond))
	if err != nil {
		return nil, err
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	defer t.client.Close()
	defer cancel()
	beside.Go(t.read)
	beside.Go(func() { t.load(ctx) })
	defer t.killAll()
	for n := range nodeCount {
		t.nodes = append(t.nodes, nil)
		if err := t.start(n); err != nil {
			return nil, err
		}
	}
	var out []gap
	for k := range kills {
		if err := t.until(time.Minute, "every node decides for its share of the shards", t.balanced); err != nil {
			return nil, err
		}
		gaps, err := t.kill(k, k%nodeCount)
		if err != nil {
			return nil, err
		}
		out = append(out, gaps...)
		if err := t.start(k % nodeCount); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b gap) int { return int(a.took - b.took) })
	return out, nil
}

func (t *takeOver) name(n int) string { return fmt.Sprintf("node-%d", n) }

func (t *takeOver) start(n int) error {
	c, err := spawn(t.name(n), t.dir, envRole+"=plain", envApp+"="+t.app, envBrokers+"="+strings.Join(t.brokers, ","),
		envName+"="+t.name(n), envDir+"="+filepath.Join(t.dir, t.name(n)))
	t.nodes[n] = c
	return err
}

func (t *takeOver) killAll() {
	for _, c := range t.nodes {
		if c != nil {
			c.kill()
		}
	}
}

// load puts events on every shard's partition, with keys that belong there.
func (t *takeOver) load(ctx context.Context) {
	tick := time.NewTicker(time.Second / takeOverRate)
	defer tick.Stop()
	next := 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for p := range int32(shards) {
			key := ""
			for {
				key = fmt.Sprintf("order-%d", next)
				next++
				if int32(int(events.Slot([]byte(key), shards*events.SlotsPerShard))%shards) == p {
					break
				}
			}
			t.client.Produce(ctx, &kgo.Record{Topic: t.app + "-orders", Partition: p, Key: []byte(key), Value: fmt.Appendf(nil, `{"id":%q}`, key)}, nil)
		}
	}
}

// read follows the journal: who decides.
func (t *takeOver) read() {
	owners := map[int32]events.Claim{}
	nonces := map[int32]events.Nonce{}
	for {
		f := t.client.PollFetches(context.Background())
		if f.IsClientClosed() {
			return
		}
		now := time.Now()
		t.mu.Lock()
		f.EachRecord(func(r *kgo.Record) {
			rec, err := events.DecodeRecord(r.Value)
			switch {
			case err != nil:
				t.failed = err
			case rec.Claim != nil:
				owners[r.Partition], nonces[r.Partition] = *rec.Claim, rec.Nonce
			case rec.Decision != nil && rec.Decision.Input.Kind == events.InputEvent && rec.Nonce == nonces[r.Partition]:
				t.last[r.Partition] = decided{owners[r.Partition].Node, now}
			}
		})
		t.mu.Unlock()
		t.changed.Broadcast()
	}
}

func (t *takeOver) until(timeout time.Duration, what string, ok func() bool) error {
	late := time.Now().Add(timeout)
	timer := time.AfterFunc(timeout, t.changed.Broadcast)
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !ok() {
		if !time.Now().Before(late) || t.failed != nil {
			return errors.Join(fmt.Errorf("not within %v: %s: %v", timeout, what, t.last), t.failed)
		}
		t.changed.Wait()
	}
	return nil
}

// balanced is called with the lock held, as every condition.
func (t *takeOver) balanced() bool {
	share := map[string]int{}
	for _, d := range t.last {
		if time.Since(d.at) < time.Second {
			share[d.node]++
		}
	}
	for n := range nodeCount {
		if share[t.name(n)] != shards/nodeCount {
			return false
		}
	}
	return true
}

// kill ends a node with SIGKILL and waits until others decide for its shards.
func (t *takeOver) kill(k, n int) (out []gap, err error) {
	name := t.name(n)
	t.mu.Lock()
	var lost []int32
	for s, d := range t.last {
		if d.node == name {
			lost = append(lost, s)
		}
	}
	t.mu.Unlock()
	slices.Sort(lost)
	at := time.Now()
	t.nodes[n].kill()
	back := map[int32]time.Duration{}
	err = t.until(takeOverTime, "others decide for what a killed node owned", func() bool {
		for _, s := range lost {
			if d := t.last[s]; d.node != name && d.at.After(at) && back[s] == 0 {
				back[s] = d.at.Sub(at)
			}
		}
		return len(back) == len(lost)
	})
	for _, s := range lost {
		out = append(out, gap{k, s, back[s]})
	}
	line := fmt.Sprintf("kill %2d of %s:", k+1, name)
	for _, g := range out {
		line += fmt.Sprintf(" shard %d %v", g.shard, g.took.Round(time.Millisecond))
	}
	fmt.Fprintln(t.out, line)
	return out, err
}

// quantile is the gap below which that part of them lies.
func quantile(gaps []gap, q float64) time.Duration {
	if len(gaps) == 0 {
		return 0
	}
	return gaps[min(int(q*float64(len(gaps))), len(gaps)-1)].took
}
