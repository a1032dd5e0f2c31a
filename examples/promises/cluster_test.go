package promises

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
)

// cluster is a development broker with one service on it, for the promises that take nodes to keep.
type cluster struct {
	t      *testing.T
	broker string
	client *kafka.Client
	saga   *sagas.Definition

	mu      sync.Mutex
	effects map[string]int // of the service, by step and order
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, effects: map[string]int{}, saga: sagas.Define("order", "1", onPlaced, sagas.Seq(reserveStock, sendParcel))}
	dev, err := kafka.StartDev(kafka.DevOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.Close)
	c.broker = dev.Addr()
	c.client = c.dial()
	t.Cleanup(c.client.Close)
	plan, err := c.saga.Plan()
	if err != nil {
		t.Fatal(err)
	}
	topics := kafka.Plan(kafka.PlanOptions{App: "promises", Partitions: 4, Replication: 1, Inputs: plan.Reads(), Commands: plan.Writes(), Create: true})
	if _, err := topics.Apply(t.Context(), c.client); err != nil {
		t.Fatal(err)
	}
	p := participant.New(participant.Config{App: "promises", Name: "service", Brokers: []string{c.broker}, Logger: slog.New(slog.DiscardHandler)})
	for _, command := range []sagas.Command[Ask, Answer]{reserve, release, send} {
		participant.Handle(p, command, func(_ context.Context, call participant.Call, a Ask) (Answer, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.effects[command.Type()+" "+a.Order]++
			return Answer{}, nil
		})
	}
	c.run(p.Run)
	return c
}

func (c *cluster) dial() *kafka.Client {
	client, err := kafka.Dial(kafka.Config{Brokers: []string{c.broker}})
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// run runs what has a Run until the test ends, or until it is told to stop.
func (c *cluster) run(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			c.t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	c.t.Cleanup(stop)
	return stop
}

// node starts an engine. Its store is in memory: what it forgets it has to read back from Kafka.
func (c *cluster) node(name string) (e *orchestrator.Engine, stop func()) {
	client := c.dial()
	c.t.Cleanup(client.Close)
	e, err := orchestrator.New(orchestrator.Config{App: "promises", Kafka: client, Definitions: []orchestrator.Definition{c.saga},
		Node: name, From: orchestrator.FromEarliest, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	return e, c.run(e.Run)
}

// place puts orders first to last onto their topic.
func (c *cluster) place(first, last int) {
	for i := first; i <= last; i++ {
		value, _ := placed.Encode(Placed{ID: "o-" + strconv.Itoa(i)})
		c.put(value)
	}
}

func (c *cluster) put(value []byte) {
	c.client.Produce(&events.Message{Topic: placed.Topic(), Partition: -1, Value: value,
		Headers: []events.Header{{Key: events.HeaderType, Value: []byte(placed.Type())}}}, func(err error) {
		if err != nil {
			c.t.Error(err)
		}
	})
}

// until waits for a condition.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			c.t.Fatal("it does not come to pass: " + what)
		}
	}
}

// sent is how many orders have left; none twice.
func (c *cluster) sent() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, times := range c.effects { // order: a count
		if times != 1 {
			c.t.Errorf("%s, %d times", what, times)
		}
		if strings.HasPrefix(what, send.Type()) {
			n++
		}
	}
	return n
}

// ended are the states in which the node's instances ended.
func ended(e *orchestrator.Engine) map[events.State]int {
	states := map[events.State]int{}
	e.List(func(i orchestrator.Instance) bool {
		if i.State.Final() {
			states[i.State]++
		}
		return true
	})
	return states
}
