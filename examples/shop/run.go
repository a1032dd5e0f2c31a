package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// place runs engine and services until every order has ended, and says how. brokers "" is a development broker.
func place(ctx context.Context, brokers string, replication int, orders []OrderPlaced) (map[string]events.State, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if brokers == "" {
		dev, err := kafka.StartDev(kafka.DevOptions{})
		if err != nil {
			return nil, err
		}
		defer dev.Close()
		brokers, replication = dev.Addr(), 1
	}
	addrs := strings.Split(brokers, ",")
	client, err := kafka.Dial(kafka.Config{Brokers: addrs})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	plan, err := PlaceOrder.Plan()
	if err != nil {
		return nil, err
	}
	topics := kafka.Plan(kafka.PlanOptions{App: app, Partitions: 4, Replication: replication,
		Inputs: plan.Reads(), Commands: plan.Writes(), Create: true})
	if _, err := topics.Apply(ctx, client); err != nil {
		return nil, err
	}

	engine, err := orchestrator.New(orchestrator.Config{
		App: app, Kafka: client, Definitions: []orchestrator.Definition{PlaceOrder},
		From: orchestrator.FromEarliest, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 2)
	go func() { failed <- engine.Run(ctx) }()
	go func() { failed <- services(ctx, addrs) }()
	defer func() { // both have stopped before their broker does
		stop()
		<-failed
		<-failed
	}()

	for _, o := range orders {
		value, err := orderPlaced.Encode(o)
		if err != nil {
			return nil, err
		}
		client.Produce(&events.Message{Topic: orderPlaced.Topic(), Partition: -1, Key: []byte(o.ID), Value: value,
			Headers: []events.Header{{Key: events.HeaderType, Value: []byte(orderPlaced.Type())}, {Key: events.HeaderID, Value: []byte("placed-" + o.ID)}}},
			func(err error) {
				if err != nil {
					fmt.Printf("%s was not placed: %v\n", o.ID, err)
				}
			})
	}
	return follow(ctx, engine, failed, orders)
}

// follow looks at the instances until all have ended.
func follow(ctx context.Context, engine *orchestrator.Engine, failed chan error, orders []OrderPlaced) (map[string]events.State, error) {
	ended := map[string]events.State{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ended, ctx.Err()
		case err := <-failed:
			failed <- nil // place waits for two
			return ended, errors.Join(errors.New("engine or services ended"), err)
		case <-tick.C:
		}
		err := engine.List(func(i orchestrator.Instance) bool {
			if i.State.Final() || i.State == events.Parked {
				ended[i.Key] = i.State
			}
			return true
		})
		if err != nil {
			return ended, err
		}
		done := 0
		for _, o := range orders {
			if _, ok := ended[o.ID]; ok {
				done++
			}
		}
		if done == len(orders) {
			return ended, nil
		}
	}
}
