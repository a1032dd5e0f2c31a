package main

import (
	"context"
	"encoding/json"
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
	out, err := soak(ctx, *brokers, *dir, o, *takeOver)
	if *asJSON && out != nil {
		_ = json.NewEncoder(os.Stdout).Encode(out.summary())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		if out == nil {
			os.Exit(2)
		}
		os.Exit(1)
	}
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

// soak starts what is missing, and makes the run. Without an outcome the error says what kept it from being judged.
func soak(ctx context.Context, brokers, dir string, o options, kills int) (out *outcome, err error) {
	switch n, _ := strconv.Atoi(brokers); n {
	case 0:
		o.brokers = strings.Split(brokers, ",")
	case 1, 3:
		if o.cluster, err = kafka.Start(ctx, kafka.Options{Brokers: n}); err != nil {
			return nil, err
		}
		defer o.cluster.Stop()
		o.brokers = o.cluster.Addrs()
	default:
		return nil, fmt.Errorf("-brokers %s: 1, 3 or addresses", brokers)
	}
	if o.dir = dir; dir == "" {
		if o.dir, err = os.MkdirTemp("", "skald-chaos-"); err != nil {
			return nil, err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(o.dir)
			}
		}()
	}
	o.app = fmt.Sprintf("chaos-%d", time.Now().UnixMilli())
	if kills > 0 {
		gaps, err := takeOvers(ctx, o, kills)
		fmt.Printf("%d kills, %d shards moved: p50 %v, p99 %v, max %v\n", kills, len(gaps), quantile(gaps, 0.5), quantile(gaps, 0.99), quantile(gaps, 1))
		return nil, err
	}
	if out, err = run(ctx, o); err != nil {
		return nil, err
	}
	fmt.Fprint(o.out, out)
	return out, out.verdict()
}
