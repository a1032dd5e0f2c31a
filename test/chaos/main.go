package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/skald-io/skald/test/kafka"
)

func main() {
	if runRole() {
		return
	}
	flag.Usage = usage
	brokers := flag.String("brokers", "1", "so many brokers are started, 1 or 3; or `ADDRESSES` of a Kafka that runs, separated by commas")
	duration := flag.Duration("duration", 10*time.Minute, "how long to go on killing")
	rate := flag.Int("rate", 40, "sagas a second")
	seed := flag.Uint64("seed", rand.Uint64N(1_000_000), "of the choice of victims and pauses")
	dir := flag.String("dir", "", "for stores, ledgers and logs; without, a temporary one, removed when nothing is wrong")
	strikes := flag.String("strikes", "", "instead of the whole schedule, these kills and troubles in turns, separated by commas: appended, decided, random, double, triple, participant, "+strings.Join(slices.Sorted(keysOf(troubles)), ", "))
	rounds := flag.Int("rounds", 1, "how often, at least, to go through -strikes")
	asJSON := flag.Bool("json", false, "print one JSON object, and nothing else, on standard output")
	takeOver := flag.Int("takeover", 0, "instead, kill a node of three that often on sessions of the default length, and say how long its shards went without a decision")
	flag.Parse()
	o := options{rate: *rate, seed: *seed, duration: *duration, out: os.Stdout}
	if *asJSON {
		o.out = os.Stderr
	}
	schedule, err := scheduleOf(*strikes, *rounds)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "chaos: -h lists the flags, and there are no arguments:", err)
		os.Exit(2)
	}
	o.schedule = schedule
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	shown, err := soak(ctx, *brokers, *dir, o, *takeOver)
	if *asJSON && shown != nil {
		_ = json.NewEncoder(os.Stdout).Encode(shown)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(statusOf(err))
	}
}

// unjudged is an error that says nothing of Skald: the run did not begin, or was ended by hand.
type unjudged struct{ error }

func (u unjudged) Unwrap() error { return u.error }

func statusOf(err error) int {
	if u := (unjudged{}); errors.As(err, &u) || errors.Is(err, context.Canceled) {
		return 2
	}
	return 1
}

func usage() {
	fmt.Fprintf(os.Stderr, `Kills and troubles Skald on a real Kafka, and asks the external checker what it cost.

	go run ./test/chaos -duration 10m                             the whole schedule, again and again
	go run ./test/chaos -duration 2h -brokers 3                   brokers are killed as well
	go run ./test/chaos -strikes random,pause -rounds 100 -duration 0   a hundred kills, and a hundred nodes that stand still

Exit status: 0 when nothing was violated and each strike is proven to have hit, 1 when something was violated, or a run did not show
what it is for, 2 when that could not be found out.

`)
	flag.PrintDefaults()
}

// scheduleOf reads -strikes and -rounds.
func scheduleOf(strikes string, rounds int) (schedule []string, err error) {
	if strikes == "" {
		return nil, nil
	}
	turn := strings.Split(strikes, ",")
	for _, s := range turn {
		if troubles[s] == nil && !slices.Contains([]string{pointAppended, pointDecided, "random", "double", "triple", "participant"}, s) {
			return nil, fmt.Errorf("-strikes: nothing is named %q", s)
		}
	}
	for range rounds {
		schedule = append(schedule, turn...)
	}
	return schedule, nil
}

// soak starts what is missing, makes the run, and gives what it has to show, for -json; nil when it did not come to an end.
func soak(ctx context.Context, brokers, dir string, o options, kills int) (shown any, err error) {
	switch n, _ := strconv.Atoi(brokers); n {
	case 0:
		o.brokers = strings.Split(brokers, ",")
	case 1, 3:
		if o.cluster, err = kafka.Start(ctx, kafka.Options{Brokers: n}); err != nil {
			return nil, unjudged{err}
		}
		defer o.cluster.Stop()
		o.brokers = o.cluster.Addrs()
	default:
		return nil, unjudged{fmt.Errorf("-brokers %s: 1, 3 or addresses", brokers)}
	}
	if o.dir = dir; dir == "" {
		if o.dir, err = os.MkdirTemp("", "skald-chaos-"); err != nil {
			return nil, unjudged{err}
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(o.dir)
			}
		}()
	}
	o.app = fmt.Sprintf("chaos-%d", time.Now().UnixMilli())
	if kills > 0 {
		took, err := takeOvers(ctx, o, kills)
		g := moved{kills, len(took), quantile(took, 0.5).Milliseconds(), quantile(took, 0.99).Milliseconds(), quantile(took, 1).Milliseconds()}
		fmt.Fprintf(o.out, "%d kills, %d shards moved: p50 %d, p99 %d, max %d ms\n", g.Kills, g.Moved, g.P50, g.P99, g.Max)
		return g, err
	}
	out, err := run(ctx, o)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(o.out, out)
	return out.summary(), out.verdict()
}

// moved are shards of killed nodes, and how long they went without a decision.
type moved struct {
	Kills int   `json:"kills"`
	Moved int   `json:"shards_moved"`
	P50   int64 `json:"p50_ms"`
	P99   int64 `json:"p99_ms"`
	Max   int64 `json:"max_ms"`
}
