package participant

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/skald-io/skald/events"
)

// Call is what a handler is told about the command it executes, beside its payload. It is valid until the
// handler returns.
type Call struct {
	ID             string       // ce_id: this attempt
	Type           string       // ce_type
	Instance       string       // ce_correlationid: the saga instance, 32 hexadecimal digits
	Step           string       // the step's name, as far as the idempotency key tells it; else empty
	Key            string       // the record's key: the saga's business key
	IdempotencyKey string       // the same for all attempts of one execution; another one for its undo
	Undoes         string       // of an undo: the idempotency key of what is to be undone, which may have had no effect
	Phase          events.Phase // Forward or Compensate
	Attempt        int          // from 1; 0 when the command does not say
	Expiry         time.Time    // nobody waits for the effect any longer; zero: never
	Tx             Tx           // the ledger's transaction; a handler uses it when the ledger is its own database

	progress func()
}

// Progress tells the saga that the step is still at it, so that its time-out starts anew. It does not
// block and may be called from any goroutine while the handler runs. It may get lost; call it often enough.
func (c Call) Progress() {
	if c.progress != nil {
		c.progress()
	}
}

// Refusal is the error of a handler that answers something else than done.
type Refusal struct {
	Outcome events.ReplyOutcome // ReplyRejected or ReplyRetry
	Code    string              // stable, for Retry.NotCodes and for people; at most 128 bytes
	Message string              // for people; cut to events.MaxMessage
}

func (r *Refusal) Error() string { return r.Outcome.String() + " " + r.Code + ": " + r.Message }

// Reject is the answer that the command definitely has no effect and never will have: the saga goes
// backward and owes nothing for this attempt. A handler that was interrupted under the same idempotency
// key before must be sure of those calls, too; if it is not, it answers Retry.
func Reject(code, format string, args ...any) error {
	return &Refusal{events.ReplyRejected, code, fmt.Sprintf(format, args...)}
}

// Retry is the answer "not now": the saga asks again after its backoff. It says nothing definite about an
// effect. Any other error of a handler is answered as Retry with the code "error".
func Retry(code, format string, args ...any) error {
	return &Refusal{events.ReplyRetry, code, fmt.Sprintf(format, args...)}
}

// Error codes of answers that the kit gives itself, beside events.CodeExpired and events.CodeUndone.
const (
	CodeError       = "error"       // retry: the handler returned an error of no particular kind
	CodePanic       = "panic"       // retry: the handler panicked
	CodeUndecodable = "undecodable" // rejected: headers or payload cannot be read
	CodeLedger      = "ledger"      // retry: the ledger failed; whether there is an effect is open
	CodeReplySize   = "reply-size"  // retry: the handler's result does not fit a reply, or cannot be encoded
	CodeUnknown     = "unknown"     // retry: expired or undone, but a call that was interrupted may have had its effect
)

const maxCode = 128

// answerTo turns a handler's error into an answer.
func answerTo(err error) Answer {
	a := Answer{Outcome: events.ReplyRetry, Code: CodeError, Message: err.Error()}
	var r *Refusal
	if errors.As(err, &r) {
		a = Answer{Outcome: r.Outcome, Code: r.Code, Message: r.Message}
		if a.Outcome != events.ReplyRejected {
			a.Outcome = events.ReplyRetry
		}
		if a.Code == "" {
			a.Code = CodeError
		}
	}
	return a
}

// bounded cuts what goes into headers.
func bounded(s string, n int) string { return events.Cut(strings.ToValidUTF8(s, "\uFFFD"), n) }

// stepOf reads the step's name out of an idempotency key: instance/step/execution, and /undo.
func stepOf(key string) string {
	_, rest, ok := strings.Cut(strings.TrimSuffix(key, "/undo"), "/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return ""
	}
	return rest[:i]
}
