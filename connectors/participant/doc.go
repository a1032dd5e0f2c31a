// Package participant is for services in Go that execute the commands of sagas: a typed handler per
// command, and the participant's rules of docs/protocol.md kept for it.
//
//	p := participant.New(participant.Config{App: "shop", Brokers: brokers, Name: "payments", Ledger: ledger})
//	participant.Handle(p, authorize, func(ctx context.Context, c participant.Call, cmd Authorize) (Authorized, error) {
//		if cmd.Amount > limit {
//			return Authorized{}, participant.Reject("declined", "%d is over the limit", cmd.Amount)
//		}
//		return Authorized{PaymentID: charge(c.IdempotencyKey, cmd)}, nil
//	})
//	err := p.Run(ctx)
//
// participant.go is the service around a consumer group, execute.go the rules, ledger.go the memory that
// they need. It may import sagas and events, not the engine: a participant is another team's program.
//
// The rule that must not break: `rejected` is answered only when the attempt has no effect and never will
// have, because the saga then owes no undo for it. In doubt the answer is `retry`, which says nothing.
//
// # What at-least-once leaves to the handler
//
// A command is read again until its reply is acknowledged and its offset committed. Once an answer is
// remembered in the Ledger, the handler is not called for that idempotency key again. A crash after the
// handler's effect and before the answer is remembered calls it twice: either the handler is idempotent
// under Call.IdempotencyKey (hand it on to the payment provider, make it a unique column), or the ledger
// lives in the same database as the effect and both are committed as one transaction: see Ledger and
// Call.Tx.
package participant
