package participant

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// handler is a registered function without its types. bind decodes the payload; what it returns executes.
type handler func(payload []byte) (func(context.Context, Call) ([]byte, error), error)

// executor keeps the participant's rules for one command at a time. It knows the ledger and the clock, and
// nothing of Kafka. It is safe for concurrent use.
type executor struct {
	ledger    Ledger
	atomic    bool
	now       func() time.Time
	skew      time.Duration
	retention time.Duration
	maxValue  int
	log       func(c *command, msg string, err error, more ...any)
}

// errAbandoned says that there is no answer: the process is stopping, the command will be read again.
var errAbandoned = errors.New("stopped before the command was executed")

// execute answers c. repeated says that the answer was remembered, not found now.
//
// The order of the rules matters:
//
//  1. what was answered is answered again, expired or undone or not: the effect is there, or was refused;
//  2. a forward command whose undo was seen does not begin, nor one after its expiry, nor one that cannot
//     be decoded;
//  3. before a handler is called it is noted that it is, and before an undo begins, that its forward
//     command must not begin any more: these notes are durable before anything else happens;
//  4. answer and effect are remembered together.
//
// A refusal is `rejected` only if no handler was ever called for the key. Otherwise a crash may have hidden
// an effect, a `rejected` would free the saga of an undo that it owes, and the answer is `retry`.
func (x *executor) execute(ctx context.Context, c *command, h handler, progress func()) (a Answer, repeated bool, err error) {
	if c.problem != nil {
		x.log(c, "command rejected: its headers cannot be read", c.problem)
		return x.answer(events.ReplyRejected, CodeUndecodable, c.problem.Error()), false, nil
	}
	run, undecodable := h(c.payload)
	for noted := false; ; {
		tx, err := x.ledger.Begin(ctx, c.lock())
		if err != nil {
			return x.ledgerFailed(ctx, c, err)
		}
		again := false
		a, repeated, again, err = x.turn(ctx, tx, c, run, undecodable, noted, progress)
		tx.Rollback()
		if err != nil {
			if errors.Is(err, errAbandoned) {
				return Answer{}, false, err
			}
			return x.ledgerFailed(ctx, c, err)
		}
		if !again {
			return a, repeated, nil
		}
		noted = true
	}
}

// turn is one transaction: an answer, or a note after which it is taken again. Errors are the ledger's.
func (x *executor) turn(ctx context.Context, tx Tx, c *command, run func(context.Context, Call) ([]byte, error),
	undecodable error, noted bool, progress func()) (a Answer, repeated, again bool, err error) {
	own, err := tx.Lookup(c.idempotency)
	if err != nil {
		return a, false, false, err
	}
	if own.Answer != nil && !mutant.On("participant-forgets-its-answers") {
		return *own.Answer, true, false, nil
	}
	forward := c.phase == events.Forward
	if forward {
		untouched := !own.Started
		switch late := x.late(c); {
		case own.Undone:
			return x.refuse(untouched, events.CodeUndone, "its undo was seen before it"), false, false, nil
		case late > 0:
			return x.refuse(untouched, events.CodeExpired, fmt.Sprintf("it expired %v ago", late)), false, false, nil
		case undecodable != nil:
			x.log(c, "command rejected: its payload cannot be decoded", undecodable)
			a = x.refuse(untouched, CodeUndecodable, undecodable.Error())
			if a.Outcome == events.ReplyRejected {
				// A later build might decode it, when the saga no longer thinks that it owes an undo.
				err = x.remember(tx, c, own, a, false)
			}
			return a, false, false, err
		case !x.atomic && !own.Started && !mutant.On("participant-call-not-noted"):
			own.Started, own.Until = true, x.until(c)
			return a, false, true, join(tx.Remember(c.idempotency, own), tx.Commit)
		}
	} else if c.undoes != "" && !noted {
		undone, err := tx.Lookup(c.undoes)
		if err != nil {
			return a, false, false, err
		}
		undone.Undone, undone.Until = !mutant.On("participant-tombstone-not-kept"), max(undone.Until, x.until(c))
		return a, false, true, join(tx.Remember(c.undoes, undone), tx.Commit)
	} else if undecodable != nil {
		x.log(c, "undo rejected: its payload cannot be decoded", undecodable)
		return x.answer(events.ReplyRejected, CodeUndecodable, undecodable.Error()), false, false, nil
	}

	call := c.call()
	call.Tx, call.progress = tx, progress
	value, err := x.call(ctx, c, run, call)
	if err == nil && len(value) > x.maxValue {
		x.log(c, "the handler's result is too large for a reply", nil, "bytes", len(value), "max", x.maxValue)
		err = Retry(CodeReplySize, "the result has %d bytes, at most %d", len(value), x.maxValue)
	}
	if err != nil {
		if ctx.Err() != nil {
			return a, false, false, errAbandoned
		}
		a = answerTo(err)
		a.Message, a.Code, a.Time = bounded(a.Message, events.MaxMessage), bounded(a.Code, maxCode), x.now().UnixMilli()
		if mutant.On("participant-failed-handler-commits") {
			err := tx.Commit()
			return a, false, false, err
		}
		if a.Outcome != events.ReplyRejected || !forward || mutant.On("participant-rejection-not-remembered") {
			return a, false, false, nil // the transaction, and with it what the handler wrote, is rolled back
		}
		tx.Rollback()
		if tx, err = x.ledger.Begin(ctx, c.lock()); err != nil {
			return a, false, false, err
		}
		defer tx.Rollback()
		if own, err = tx.Lookup(c.idempotency); err != nil {
			return a, false, false, err
		}
		if own.Answer != nil { // another process was faster in between
			return *own.Answer, true, false, nil
		}
		return a, false, false, x.remember(tx, c, own, a, false)
	}
	a = x.answer(events.ReplyDone, "", "")
	a.Value = value
	return a, false, false, x.remember(tx, c, own, a, true)
}

// remember makes an answer, and with it the effect, durable.
func (x *executor) remember(tx Tx, c *command, own Memory, a Answer, applied bool) error {
	own.Answer, own.Until = &a, max(own.Until, x.until(c))
	if err := tx.Remember(c.idempotency, own); err != nil {
		return err
	}
	if applied {
		err := tx.Applied(Effect{Instance: c.instance, Step: stepOf(c.idempotency), Direction: c.phase.String(),
			IdempotencyKey: c.idempotency, Undoes: c.undoes, Time: a.Time})
		if err != nil {
			return err
		}
	}
	return tx.Commit()
}

// call runs the user's function; its panic is an error like another.
func (x *executor) call(ctx context.Context, c *command, run func(context.Context, Call) ([]byte, error), call Call) (value []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			if mutant.On("participant-panic-escapes") {
				panic(p)
			}
			x.log(c, "the handler panicked", nil, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			value, err = nil, Retry(CodePanic, "the handler panicked: %v", p)
		}
	}()
	return run(ctx, call)
}

// refuse is the answer to a forward command that does not begin.
func (x *executor) refuse(untouched bool, code, why string) Answer {
	if untouched {
		return x.answer(events.ReplyRejected, code, why)
	}
	return x.answer(events.ReplyRetry, CodeUnknown, why+", and a call that was interrupted may have had its effect")
}

func (x *executor) answer(o events.ReplyOutcome, code, message string) Answer {
	return Answer{Outcome: o, Code: code, Message: bounded(message, events.MaxMessage), Time: x.now().UnixMilli()}
}

// ledgerFailed: nothing definite is known, and nothing definite is said.
func (x *executor) ledgerFailed(ctx context.Context, c *command, err error) (Answer, bool, error) {
	if ctx.Err() != nil {
		return Answer{}, false, errAbandoned
	}
	x.log(c, "the ledger failed", err)
	return x.answer(events.ReplyRetry, CodeLedger, err.Error()), false, nil
}

// late is how long ago the command expired, as far as clocks can tell.
func (x *executor) late(c *command) time.Duration {
	if c.expiry == 0 || mutant.On("participant-expiry-ignored") {
		return 0
	}
	return x.now().Sub(time.UnixMilli(c.expiry)) - x.skew
}

// until is how long the command must be remembered: it may come again until it expires, and be looked for
// by its undo after that.
func (x *executor) until(c *command) int64 {
	if mutant.On("participant-forgets-before-expiry") {
		return x.now().UnixMilli()
	}
	return max(x.now().UnixMilli(), c.expiry) + x.retention.Milliseconds()
}

func join(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}
