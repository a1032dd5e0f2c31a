package main

import (
	"flag"
	"fmt"
	"regexp"
	"strings"

	"github.com/skald-io/skald/connectors/kafka"
)

// connection is what every command that talks to Kafka is told: by flags, variables and files, as
// kafka.Load puts them together.
type connection struct {
	app        string
	brokers    list // of --brokers alone
	file       string
	properties string
	flags      *flag.FlagSet

	loaded *kafka.Loaded
}

const defaultApp = "skald-demo"

var appName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)

// validApp says whether the engine takes the name.
func validApp(name string) bool { return appName.MatchString(name) }

// ownSettings are those that are not of the connection.
var ownSettings = []kafka.Setting{
	{Key: "app", Arg: "NAME", Default: defaultApp, Help: "the application: the prefix of its topics"},
}

// connectionFlags declares --app, --brokers, --config and --properties, and one flag for each setting of a
// connection, which help lists apart.
func connectionFlags(f *flag.FlagSet) *connection {
	c := &connection{flags: f}
	f.StringVar(&c.app, "app", defaultApp, "the application: the prefix of its topics `NAME`")
	f.Var(&c.brokers, "brokers", "Kafka, host:port, with commas between several; default: $SKALD_BROKERS, or localhost:9092 `ADDR`")
	c.securityFlags(f)
	return c
}

func (c *connection) securityFlags(f *flag.FlagSet) {
	f.StringVar(&c.file, "config", "", "a YAML file of settings; default: $SKALD_CONFIG `FILE`")
	f.StringVar(&c.properties, "properties", "", "a Java client.properties, as it is; default: $SKALD_PROPERTIES `FILE`")
	for _, s := range kafka.Settings() {
		if name := s.Flag(); name != "" && f.Lookup(name) == nil {
			f.Var(new(settingFlag), name, s.Help+" `"+s.Arg+"`")
		}
	}
}

// settingFlag is a flag of the connection's table. kafka.Load reads it; nothing is checked before.
type settingFlag string

func (s *settingFlag) String() string     { return string(*s) }
func (s *settingFlag) Set(v string) error { *s = settingFlag(v); return nil }

// load reads the settings once, and says what is weak or has no effect.
func (c *connection) load(e *env) (kafka.Loaded, error) {
	if c.loaded != nil {
		return *c.loaded, nil
	}
	given := map[string]string{}
	c.flags.Visit(func(x *flag.Flag) {
		if _, ok := x.Value.(*settingFlag); ok || x.Name == "brokers" || x.Name == "app" {
			given[x.Name] = x.Value.String()
		}
	})
	l, err := kafka.Load(kafka.Sources{Flags: given, Getenv: e.getenv, Environ: environ(e), File: c.file, Properties: c.properties, More: ownSettings,
		Ignore: func(name string) bool {
			return strings.HasPrefix(name, "SKALD_KAFKA_") || strings.HasPrefix(name, "SKALD_REAL_")
		}})
	for _, w := range l.Warnings {
		fmt.Fprintf(e.stderr, "warning: %s\n", sanitize(w.Error(), 0))
	}
	if err != nil {
		return l, err
	}
	if v, ok := l.Values["app"]; ok {
		switch c.app = string(v.Text); {
		case validApp(c.app):
		case v.Place == "--app":
			return l, usagef("--app %q: 1 to 100 letters, digits, '-' or '_'", c.app)
		default:
			return l, &kafka.Error{Code: kafka.CodeConfiguration, Detail: fmt.Sprintf("%s: app: %q", v.Place, sanitize(c.app, 120)), Cure: "1 to 100 letters, digits, '-' or '_'"}
		}
	}
	c.loaded = &l
	return l, nil
}

// named says whether anything tells where Kafka is.
func (c *connection) named(e *env) bool {
	if c.file != "" || c.properties != "" || len(c.brokers) > 0 {
		return true
	}
	return e.getenv("SKALD_BROKERS") != "" || e.getenv("SKALD_CONFIG") != "" || e.getenv("SKALD_PROPERTIES") != ""
}

func (c *connection) dial(e *env) (*kafka.Client, error) {
	l, err := c.load(e)
	if err != nil {
		return nil, err
	}
	return kafka.Dial(l.Config)
}

// environ is the process's environment when that is what getenv reads: tests have one of their own.
func environ(e *env) []string {
	if e.environ == nil {
		return nil
	}
	return e.environ()
}
