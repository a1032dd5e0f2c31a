// Command check judges a run of Skald from outside: journal, topics and the participants' ledgers.
//
//	go run ./test/check -brokers localhost:9092 -app shop -ledger payments.jsonl -ledger stock.jsonl -quiescent
//
// It exits with 1 when something Skald promises was violated, and with 2 when it could not judge.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/skald-io/skald/test/check/checker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
	}
	os.Exit(code)
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	brokers := flags.String("brokers", "", "addresses of the cluster, separated by commas")
	app := flags.String("app", "", "the application's name")
	asJSON := flags.Bool("json", false, "print the report as one JSON object")
	quiescent := flags.Bool("quiescent", false, "the load has stopped: everything has to be answered, sent and final")
	partial := flags.Bool("partial-ledgers", false, "not all participants' ledgers are given: a missing effect proves nothing")
	follow := flags.Bool("follow", false, "keep reading until interrupted, so that what is trimmed meanwhile is judged too")
	evidence := flags.String("evidence", "", "judge a file of evidence that test/chaos kept, instead of a cluster")
	timeout := flags.Duration("timeout", time.Minute, "how long reading to the end may take")
	var ledgers, starts list
	flags.Var(&ledgers, "ledger", "a file with a participant's applied effects, one JSON object a line; may be repeated")
	flags.Var(&starts, "starts", "a topic whose events start sagas, or topic=ce_type; may be repeated (default: types that started one)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0, nil
		}
		return 2, nil // flag has said why
	}
	if *evidence == "" && (*brokers == "" || *app == "") || flags.NArg() > 0 {
		return 2, errors.New("give -brokers and -app, or -evidence, and no other arguments; -h lists the flags")
	}
	o := checker.Options{Quiescent: *quiescent, PartialLedgers: *partial}
	var extra []string
	for _, s := range starts {
		topic, typ, _ := strings.Cut(s, "=")
		if o.Starts == nil {
			o.Starts = map[string][]string{}
		}
		o.Starts[topic] = append(o.Starts[topic], typ)
		extra = append(extra, topic)
	}
	ev, err := load(ctx, *evidence, source{*app, strings.Split(*brokers, ","), extra, ledgers, *follow, *timeout}, stderr)
	if err != nil {
		return 2, err
	}
	report := checker.Check(ev, o)
	if *asJSON {
		err = json.NewEncoder(stdout).Encode(report)
	} else {
		_, err = io.WriteString(stdout, report.String())
	}
	switch {
	case err != nil:
		return 2, err
	case !report.OK():
		return 1, nil
	}
	return 0, nil
}

// source is a running cluster, and what is read of it.
type source struct {
	app            string
	brokers, extra []string
	ledgers        []string
	follow         bool
	timeout        time.Duration
}

// load gives the evidence, from a file or from a cluster.
func load(ctx context.Context, file string, s source, stderr io.Writer) (*checker.Evidence, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return checker.ReadEvidence(f)
	}
	begin := ctx
	if s.follow {
		begin = context.WithoutCancel(ctx)
	} else if _, err := readLedgers(s.ledgers); err != nil {
		return nil, err // before the cluster is read
	}
	r, err := checker.NewRecorder(begin, s.app, s.brokers, s.extra, nil)
	if err != nil {
		return nil, err
	}
	if s.follow {
		fmt.Fprintln(stderr, "check: reading; interrupt to judge")
		<-ctx.Done()
	}
	end, cancel := context.WithTimeout(begin, s.timeout)
	defer cancel()
	ev, err := r.Finish(end)
	if err != nil {
		return nil, err
	}
	ev.Ledgers, err = readLedgers(s.ledgers) // only now are they complete
	return ev, err
}

func readLedgers(files []string) ([][]checker.Effect, error) {
	var out [][]checker.Effect
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		effects, err := checker.ReadLedger(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, effects)
	}
	return out, nil
}
