// Command shop is a program that embeds the engine: it takes orders from Kafka through the saga of saga.go, and
// plays the four services of services.go. Without -brokers it brings a development broker of its own.
//
//	go run ./shop                       three orders: one is completed, two are compensated
//	go run ./shop -brokers kafka:9092   the same on your Kafka
//
// It ends when every order has. The rule that must not break: nothing in it that a program of yours could leave
// out.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"
)

const app = "shop-example"

func main() {
	brokers := flag.String("brokers", "", "use the Kafka at host:port, with commas between several")
	replication := flag.Int("replication", 3, "of the topics that are created on it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run := fmt.Sprint("-", time.Now().Unix()) // on your Kafka, orders of the last run are still there
	orders := []OrderPlaced{
		{ID: "order" + run, Lines: []Line{{"pen", 2, 1_50}}},
		{ID: "broke" + run, Lines: []Line{{"pen", 1, 1_50}}},
		{ID: "rare" + run, Lines: []Line{{"pen", 1, 1_50}, {"unicorn", 1, 999_00}}},
	}
	ended, err := place(ctx, *brokers, *replication, orders)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range orders {
		fmt.Printf("%s is %s\n", o.ID, ended[o.ID])
	}
}
