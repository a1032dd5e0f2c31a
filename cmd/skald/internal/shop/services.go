package shop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/participant"
)

// Names are the services, in the order in which an order meets them.
var Names = []string{"inventory", "payments", "courier", "notifications"}

// Topics are the shop's topics: the one of events, and the services' commands.
var Topics = []string{OrdersTopic, InventoryTopic, PaymentsTopic, CourierTopic, NotificationsTopic}

// TopicOf is the topic a service takes its commands from.
func TopicOf(service string) string { return service + ".commands" }

// Options say where the services run, and how badly.
type Options struct {
	App     string
	Brokers []string
	Reach   []kgo.Opt // TLS, authentication
	Without []string  // services that are left out
	Seed    int64
	Calm    bool // no slowness and no crashes; business goes on refusing orders
	Logger  *slog.Logger
	// Crashed is told, from any goroutine, that a service died and will be started again.
	Crashed func(service string)
}

// CheckNames says which of the names is no service.
func CheckNames(names []string) error {
	for _, n := range names {
		if !slices.Contains(Names, n) {
			return fmt.Errorf("there is no service %q: %s", n, strings.Join(Names, ", "))
		}
	}
	return nil
}

// Run runs the services until ctx ends, and returns when all have stopped; the error is of one that could
// not start. Effects are left out: what matters here is what is answered, and when.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, name := range Names {
		if slices.Contains(o.Without, name) {
			continue
		}
		s := &service{Options: o, name: name, ledger: participant.NewMemory()}
		all.Go(func() {
			if err := s.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// service is one of the four, over all its lives. The ledger outlives a crash, as a database would.
type service struct {
	Options
	name   string
	ledger *participant.InMemory

	slow atomic.Bool  // someone is being kept waiting
	died atomic.Int64 // when it crashed last, ms since 1970
	kill atomic.Pointer[context.CancelFunc]
}

const (
	// session is shorter than the engine's: after a kill of all, the services are back before it decides that they are late.
	session      = 6 * time.Second
	restartTakes = 300 * time.Millisecond
	betweenDeath = 5 * time.Second // at any rate of orders
)

func (s *service) run(ctx context.Context) error {
	for lives := 0; ctx.Err() == nil; lives++ {
		life, kill := context.WithCancel(ctx)
		s.kill.Store(&kill)
		p := participant.New(participant.Config{App: s.App, Brokers: s.Brokers, Options: append([]kgo.Opt{kgo.SessionTimeout(session)}, s.Reach...), Name: s.name, Ledger: s.ledger, Logger: s.Logger,
			Workers: 32, Retention: time.Hour,
			Grace: 50 * time.Millisecond, // a crash does not wait for its handlers; nor does Ctrl-C here
		})
		s.register(p)
		err := p.Run(life)
		kill()
		if err != nil && ctx.Err() == nil {
			if lives == 0 {
				return err
			}
			s.Logger.Warn("a service does not come back yet", "service", s.name, "error", err)
		}
		select {
		case <-time.After(restartTakes):
		case <-ctx.Done():
		}
	}
	return nil
}

func (s *service) register(p *participant.Participant) {
	switch s.name {
	case "inventory":
		participant.Handle(p, reserveStock, func(ctx context.Context, c participant.Call, cmd ReserveStock) (StockReserved, error) {
			if number(cmd.Order)%17 == 0 {
				return StockReserved{}, participant.Reject("out-of-stock", "no %s left", cmd.Lines[0].SKU)
			}
			return StockReserved{Warehouse: [...]string{"north", "south"}[number(cmd.Order)%2]}, s.trouble(ctx, c, 1, 1)
		})
		participant.Handle(p, releaseStock, s.undo)
	case "payments":
		participant.Handle(p, authorize, func(ctx context.Context, c participant.Call, cmd AuthorizePayment) (PaymentAuthorized, error) {
			if Declined(number(cmd.Order)) {
				return PaymentAuthorized{}, participant.Reject("card-declined", "the bank says no")
			}
			return PaymentAuthorized{Authorization: "auth-" + cmd.Order}, s.trouble(ctx, c, 0, 2)
		})
		participant.Handle(p, void, s.undo)
		participant.Handle(p, capture, func(ctx context.Context, c participant.Call, cmd CapturePayment) (Nothing, error) {
			if number(cmd.Order)%23 == 0 {
				return Nothing{}, participant.Reject("authorization-withdrawn", "%s was withdrawn", cmd.Authorization)
			}
			return Nothing{}, s.trouble(ctx, c, 0, 0)
		})
	case "courier":
		participant.Handle(p, bookCourier, func(ctx context.Context, c participant.Call, cmd BookCourier) (CourierBooked, error) {
			// It asks a carrier, which now and then takes a moment: long enough for a declined card to come first.
			if percent(s.Seed, "carrier", number(cmd.Order), 30) {
				if err := s.pause(ctx, 300*time.Millisecond); err != nil {
					return CourierBooked{}, err
				}
			}
			return CourierBooked{Tracking: "track-" + cmd.Order}, s.trouble(ctx, c, 5, 2)
		})
		participant.Handle(p, cancelCourier, s.undo)
	case "notifications":
		participant.Handle(p, notify, func(ctx context.Context, c participant.Call, cmd NotifyCustomer) (Nothing, error) {
			if c.Attempt <= 1 && percent(s.Seed, "mail", number(cmd.Order), 5) {
				return Nothing{}, participant.Retry("mail-busy", "try again")
			}
			return Nothing{}, s.trouble(ctx, c, 0, 0)
		})
	}
}

// Declined are the orders whose payment is: one in five.
func Declined(number int) bool { return number%5 == 4 }

// undo does not ask whether there is something to undo: the effect may never have happened, and what is
// not there is undone.
func (s *service) undo(ctx context.Context, c participant.Call, cmd OrderRef) (Nothing, error) {
	return Nothing{}, s.trouble(ctx, c, 0, 1)
}

// trouble is what a service does to slow percent of its commands, which take longer than the saga waits,
// and to crash percent, on which it dies before it answers. Which ones, the order and the attempt decide.
func (s *service) trouble(ctx context.Context, c participant.Call, slow, crash uint32) error {
	if s.Calm {
		return nil
	}
	n := number(c.Key)*64 + c.Attempt%64
	what := s.name + c.Step + c.Phase.String()
	if percent(s.Seed, what+"crash", n, crash) && s.crash() {
		<-ctx.Done() // the dead answer nothing
		return ctx.Err()
	}
	if percent(s.Seed, what+"slow", n, slow) && s.slow.CompareAndSwap(false, true) {
		defer s.slow.Store(false)
		return s.pause(ctx, patience+500*time.Millisecond)
	}
	return nil
}

func (s *service) pause(ctx context.Context, d time.Duration) error {
	if s.Calm {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *service) crash() bool {
	now := time.Now().UnixMilli()
	last := s.died.Load()
	if now-last < betweenDeath.Milliseconds() || !s.died.CompareAndSwap(last, now) {
		return false
	}
	if s.Crashed != nil {
		s.Crashed(s.name)
	}
	(*s.kill.Load())()
	return true
}

var plan = sync.OnceValues(PlaceOrder.Plan)

// UndoName is what the undo of a node of PlaceOrder is called: the last word of its command's type.
func UndoName(node uint32, step string) string {
	plan, err := plan()
	if err != nil || int(node) >= len(plan.Nodes) || plan.Nodes[node].Step == nil || plan.Nodes[node].Step.Undo == nil {
		return "undo " + step
	}
	t := plan.Nodes[node].Step.Undo.Type
	return t[strings.LastIndexByte(t, '.')+1:]
}
