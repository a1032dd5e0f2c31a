package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/skald-io/skald/test/kafka"
)

func main() {
	if runRole() {
		return
	}
	brokers := flag.String("brokers", "", "addresses of a Kafka, separated by commas; without, one is started")
	duration := flag.Duration("duration", 10*time.Minute, "how long to go on killing")
	rate := flag.Int("rate", 40, "sagas a second")
	seed := flag.Uint64("seed", rand.Uint64N(1_000_000), "of the choice of victims and pauses")
	dir := flag.String("dir", "", "for stores, ledgers and logs; without, a temporary one, removed when nothing is wrong")
	takeOver := flag.Int("takeover", 0, "instead, kill a node of three that often on sessions of the default length, and say how long its shards went without a decision")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, *brokers, *dir, options{rate: *rate, seed: *seed, duration: *duration, out: os.Stdout}, *takeOver); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(1)
	}
}

func soak(ctx context.Context, brokers, dir string, o options, kills int) (err error) {
	if brokers == "" {
		cluster, err := kafka.Start(ctx, kafka.Options{})
		if err != nil {
			return err
		}
		defer cluster.Stop()
		brokers = cluster.Addr()
	}
	o.brokers = strings.Split(brokers, ",")
	if o.dir = dir; dir == "" {
		if o.dir, err = os.MkdirTemp("", "skald-chaos-"); err != nil {
			return err
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
		return err
	}
	out, err := run(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(out)
	return out.verdict()
}
