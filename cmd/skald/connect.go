package main

import (
	"flag"
	"regexp"

	"github.com/skald-io/skald/connectors/kafka"
)

// connection is what every command that talks to Kafka is told.
type connection struct {
	app     string
	brokers list
}

const defaultApp = "skald-demo"

var appName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)

// validApp says whether the engine takes the name.
func validApp(name string) bool { return appName.MatchString(name) }

func connectionFlags(f *flag.FlagSet) *connection {
	c := &connection{}
	f.StringVar(&c.app, "app", defaultApp, "the application: the prefix of its topics `NAME`")
	f.Var(&c.brokers, "brokers", "Kafka, host:port, with commas between several; default: $SKALD_BROKERS, or localhost:9092 `ADDR`")
	return c
}

func (c *connection) addresses(e *env) []string {
	if len(c.brokers) > 0 {
		return c.brokers
	}
	var l list
	if l.Set(e.getenv("SKALD_BROKERS")) == nil {
		return l
	}
	return []string{"localhost:9092"}
}

func (c *connection) dial(e *env) (*kafka.Client, error) {
	return kafka.Dial(kafka.Config{Brokers: c.addresses(e)})
}
