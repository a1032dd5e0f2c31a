package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/sagas"
)

// services runs the four participants until ctx ends. They share a process here; a real service runs where its
// database is, and keeps the participant's ledger in it.
func services(ctx context.Context, brokers []string) error {
	inventory := service("inventory", brokers)
	participant.Handle(inventory, reserveStock, func(_ context.Context, _ participant.Call, c ReserveStock) (StockReserved, error) {
		for _, l := range c.Lines {
			if l.SKU == "unicorn" {
				return StockReserved{}, participant.Reject("out-of-stock", "there is no %s", l.SKU)
			}
		}
		return StockReserved{Warehouse: "north"}, nil
	})
	undo(inventory, releaseStock)

	payments := service("payments", brokers)
	participant.Handle(payments, authorize, func(_ context.Context, _ participant.Call, c Authorize) (Authorized, error) {
		if strings.HasPrefix(c.Order, "broke-") {
			return Authorized{}, participant.Reject("card-declined", "the bank says no")
		}
		return Authorized{ID: "auth-" + c.Order}, nil
	})
	undo(payments, void)
	done(payments, capture)

	courier := service("courier", brokers)
	done(courier, bookCourier)
	undo(courier, cancelCourier)

	notifications := service("notifications", brokers)
	done(notifications, notify)

	all := []*participant.Participant{inventory, payments, courier, notifications}
	errs := make(chan error, len(all))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	for _, p := range all {
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				errs <- err
				cancel() // the others have nothing to do without it
			}
		})
	}
	running.Wait()
	close(errs)
	return <-errs
}

func service(name string, brokers []string) *participant.Participant {
	return participant.New(participant.Config{App: app, Name: name, Brokers: brokers, Logger: slog.New(slog.DiscardHandler)})
}

// done handles a command that always succeeds.
func done[C any](p *participant.Participant, command sagas.Command[C, Nothing]) {
	participant.Handle(p, command, func(_ context.Context, call participant.Call, c C) (Nothing, error) {
		fmt.Printf("%-14s %s %+v\n", call.Key, command.Type(), c)
		return Nothing{}, nil
	})
}

// undo handles a compensation. It does not ask whether there is something to undo: the effect may never have
// happened, and what is not there is undone.
func undo(p *participant.Participant, command sagas.Command[OrderRef, Nothing]) { done(p, command) }
