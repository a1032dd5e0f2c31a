// Command run starts real Kafka on loopback, prints its address on stdout, and stops it on Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/skald-io/skald/test/kafka"
)

func main() {
	var o kafka.Options
	flag.IntVar(&o.Brokers, "brokers", 1, "number of brokers")
	flag.StringVar(&o.Dir, "dir", "", "directory for data and logs, kept (default: a temporary one)")
	flag.IntVar(&o.HeapMiB, "heap", 512, "heap of each broker, MiB")
	o.Config = make(map[string]string)
	flag.Func("config", "a broker property, key=value; may be repeated", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("want key=value")
		}
		o.Config[k] = v
		return nil
	})
	fetch := flag.Bool("fetch", false, "fetch what Kafka needs, print where it is, and start nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *fetch {
		dir, err := kafka.Jars(ctx)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(dir)
		return
	}
	c, err := kafka.Start(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.Join(c.Addrs(), ","))
	fmt.Fprintf(os.Stderr, "kafka runs, its logs are below %s; Ctrl-C stops it\n", c.Dir())
	<-ctx.Done()
	c.Stop()
}
