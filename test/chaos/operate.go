package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
)

// inputs are the topics that sagas start on, or wait for.
func (c *cast) inputs() []string { return []string{c.events, c.payments, c.parcels} }

func customer(order string) string { return "customer-" + order }

// around is what else happens to an order, before or after it is placed: its payment, which may be the first of all,
// and what operators do. Every action is sent through two nodes, under one id.
func (h *harness) around(ctx context.Context, definition, id, mode string, n int, note func(*kgo.Record, error)) {
	later := func(d time.Duration, fn func()) { time.AfterFunc(d, fn) }
	action := func(kind events.ActionKind, name, payload string) events.Action {
		return events.Action{ID: fmt.Sprintf("%s-%s", kind, id), Kind: kind, Who: "chaos", Why: "so it is in a run", Definition: definition, Key: id, Name: name, Payload: []byte(payload)}
	}
	if definition == "courier" && mode != modeUnpaid {
		paid := &kgo.Record{Topic: h.cast.payments, Key: fmt.Appendf(nil, "payment-%d", n), Value: fmt.Appendf(nil, `{"customer":%q}`, customer(id)),
			Headers: []kgo.RecordHeader{{Key: events.HeaderType, Value: []byte("paid")}, {Key: events.HeaderID, Value: []byte("payment-" + id)}}}
		again := *paid
		wait := []time.Duration{0, 600 * time.Millisecond, 3 * time.Second}[n%3] // early, about in time, and when nobody waits any more
		later(wait, func() {
			h.load.Produce(ctx, paid, note)
			if n%5 == 0 {
				h.load.Produce(ctx, &again, note)
			}
		})
	}
	if definition != "approval" {
		return
	}
	yes := func() { h.act(action(events.ActionSignal, "approval", `{"approved":true}`)) }
	soon := []time.Duration{50 * time.Millisecond, 900 * time.Millisecond}[n%2] // before, or after, anybody waits for it
	switch mode {
	case modeApprove:
		later(soon, yes)
	case modeRefuse:
		later(soon, func() { h.act(action(events.ActionSignal, "approval", `{"approved":false}`)) })
	case modeCancel:
		later(soon, func() { h.act(action(events.ActionCancel, "", "")) })
	case modeSuspend:
		later(soon, func() { h.act(action(events.ActionSuspend, "", "")) })
		later(soon+500*time.Millisecond, yes)
		h.watchOver(tended{n, action(events.ActionResume, "", ""), time.Now().Add(2 * time.Second)})
	case modeStuck:
		later(soon, yes)
		a := action(events.ActionRetry, "", fmt.Sprintf(`{"order":%q,"mode":"ok"}`, id))
		a.Step = "send"
		h.watchOver(tended{n, a, time.Now().Add(2 * time.Second)})
	}
}

// act has an action sent by two nodes, which may be one, or dead.
func (h *harness) act(a events.Action) {
	line, err := json.Marshal(a)
	if err != nil {
		h.logf("%v", err)
		return
	}
	h.acts.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	first := int(h.acts.Load()) % len(h.nodes)
	for i := range 2 {
		if c := h.nodes[(first+i)%len(h.nodes)].child; c != nil && !c.gone() {
			go func() { _ = c.tell("act %s", line) }() // one that is stopped reads nothing
		}
	}
}

// tended is an order that ends only when an operator has done something, again and again until it has ended.
type tended struct {
	n    int
	do   events.Action
	from time.Time
}

func (h *harness) watchOver(t tended) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tended = append(h.tended, t)
}

func (h *harness) tend(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.mu.Lock()
		all := h.tended
		h.tended = nil
		h.mu.Unlock()
		for _, t := range all {
			h.track.mu.Lock()
			ended := h.track.ended[t.do.Key]
			h.track.mu.Unlock()
			if ended {
				continue
			}
			h.watchOver(t)
			if time.Now().After(t.from) {
				a := t.do
				a.ID = fmt.Sprintf("%s-%d", a.ID, round)
				h.act(a)
			}
		}
	}
}
