package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/cmd/skald/internal/shop"
	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/orchestrator"
)

const topicsAbout = `An application needs <app>.journal, <app>.inbox and <app>.replies, which nothing but Skald deletes from, and
<app>.quarantine. The partitions of the first three are its shards: their number is fixed once it has run.
The topics of events (--input) and of commands (--command) belong to others: name them for the ACLs, and
add --create to have them created as well. ACLs are printed for an administrator, never set.`

var topicsPlanCommand = command{
	name:    "topics plan",
	args:    "[--app NAME] [--brokers ADDR] [flags] [-o json]",
	summary: "print the topics and ACLs that an application needs",
	about:   "Prints what is needed and changes nothing. Where a connection is named, it also says what is there already.\n\n" + topicsAbout,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		c := connectionFlags(f)
		p := planFlags(f, c)
		out := outputFlag(f)
		return func(ctx context.Context, e *env) error {
			if _, err := c.load(e); err != nil { // it may name the application
				return err
			}
			plan, err := p.plan(f)
			if err != nil {
				return err
			}
			s := newScreen(e)
			if *out == "json" {
				s.Object(viewOfPlan(plan))
			} else {
				fmt.Fprint(e.stdout, plan)
			}
			if !c.named(e) {
				return nil
			}
			client, err := c.dial(e)
			if err != nil {
				return err
			}
			defer client.Close()
			var names []string
			for _, t := range plan.Topics {
				names = append(names, t.Name)
			}
			have, err := client.Topics(ctx, names...)
			if err != nil {
				return err
			}
			for _, t := range plan.Topics {
				switch is := have[t.Name]; {
				case is.Partitions == 0:
					s.Note("%s is missing", t.Name)
				case is.Partitions != t.Partitions:
					s.Note("%s exists with %d partitions, not %d", t.Name, is.Partitions, t.Partitions)
				default:
					s.Note("%s exists", t.Name)
				}
			}
			return nil
		}
	},
}

var topicsApplyCommand = command{
	name:    "topics apply",
	args:    "[--app NAME] [--brokers ADDR] [flags] [-o json]",
	summary: "create the topics that are missing",
	about:   "Creates what is missing of what `skald topics plan` prints. It alters nothing that exists, but says how\nthat differs.\n\n" + topicsAbout,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		c := connectionFlags(f)
		p := planFlags(f, c)
		out := outputFlag(f)
		return func(ctx context.Context, e *env) error {
			if _, err := c.load(e); err != nil { // it may name the application
				return err
			}
			plan, err := p.plan(f)
			if err != nil {
				return err
			}
			client, err := c.dial(e)
			if err != nil {
				return err
			}
			defer client.Close()
			applied, err := plan.Apply(ctx, client)
			s := newScreen(e)
			if *out == "json" {
				s.Object(viewOfApplied(applied))
			} else {
				for _, t := range applied.Created {
					s.Result("created " + t)
				}
				for _, t := range applied.Existing {
					s.Result("exists  " + t)
				}
				for _, d := range applied.Differences {
					s.Result("differs " + sanitize(d.String(), 0))
				}
			}
			return err
		}
	},
}

var topicsACLCommand = command{
	name:    "topics acl",
	args:    "[--app NAME] [flags] [-o json]",
	summary: "print the least rights that the nodes need, one by one",
	about: `Prints each operation on each resource that the nodes of an application do, and what for: the whole list, under
which Skald is tested. What Kafka derives from others (Describe from Read, Write and Delete) is not in it.
"skald topics plan" prints the same as commands of kafka-acls.sh, with those for participants.`,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		c := connectionFlags(f)
		p := planFlags(f, c)
		out := outputFlag(f)
		return func(ctx context.Context, e *env) error {
			if _, err := c.load(e); err != nil {
				return err
			}
			if _, err := p.plan(f); err != nil {
				return err
			}
			all := kafka.Permissions(orchestrator.Needs{App: c.app, Inputs: p.inputs, Commands: p.commands, Transactional: p.transactional, Lifecycle: p.Lifecycle})
			s := newScreen(e)
			if *out == "json" {
				views := []rightView{}
				for _, x := range all {
					views = append(views, rightView{x.Resource, x.Name, x.Prefixed, x.Operation, x.Why})
				}
				s.Object(views)
				return nil
			}
			for _, x := range all {
				s.Result(fmt.Sprintf("%-70s %s", x, x.Why))
			}
			return nil
		}
	},
}

type rightView struct {
	Resource  string `json:"resource"`
	Name      string `json:"name"`
	Prefixed  bool   `json:"prefixed"`
	Operation string `json:"operation"`
	Why       string `json:"why"`
}

type planOptions struct {
	c *connection
	kafka.PlanOptions
	inputs, commands, transactional list
}

func planFlags(f *flag.FlagSet, c *connection) *planOptions {
	p := &planOptions{c: c}
	f.IntVar(&p.Partitions, "partitions", 12, "shards; they cannot be changed later `N`")
	f.IntVar(&p.Replication, "replication", 3, "copies of each partition `N`")
	f.IntVar(&p.MinISR, "min-isr", 2, "copies that must have a record before it is acknowledged `N`")
	f.Var(&p.inputs, "input", "topic of events that sagas start on; may be given several times `TOPIC`")
	f.Var(&p.commands, "command", "topic that commands are sent to; may be given several times `TOPIC`")
	f.Var(&p.transactional, "transactional", "one of them that is written in transactions; may be given several times `TOPIC`")
	f.BoolVar(&p.Lifecycle, "lifecycle", false, "also <app>.lifecycle, which announces the ends of sagas")
	f.BoolVar(&p.Create, "create", false, "create the topics of --input and --command too")
	f.StringVar(&p.Engine, "engine", "User:skald", "principal of the nodes, for the ACLs `PRINCIPAL`")
	f.StringVar(&p.Participant, "participant", "User:participant", "principal of the services, for the ACLs `PRINCIPAL`")
	return p
}

func (p *planOptions) plan(f *flag.FlagSet) (kafka.TopicPlan, error) {
	o := p.PlanOptions
	o.App, o.Inputs, o.Commands, o.Transactional = p.c.app, p.inputs, p.commands, p.transactional
	minISRSet := false
	f.Visit(func(x *flag.Flag) { minISRSet = minISRSet || x.Name == "min-isr" })
	switch {
	case !validApp(o.App):
		return kafka.TopicPlan{}, usagef("--app %q: 1 to 100 letters, digits, '-' or '_'", o.App)
	case o.Partitions < 1 || o.Replication < 1 || o.MinISR < 1:
		return kafka.TopicPlan{}, usagef("--partitions, --replication and --min-isr are at least 1")
	case o.MinISR > o.Replication && minISRSet:
		return kafka.TopicPlan{}, usagef("--min-isr %d is more than --replication %d: nothing could be written", o.MinISR, o.Replication)
	}
	return kafka.Plan(o), nil
}

type planView struct {
	Topics []topicView `json:"topics"`
	ACLs   []string    `json:"acls"` // commands of kafka-acls.sh
}

type topicView struct {
	Name        string            `json:"name"`
	Partitions  int               `json:"partitions"`
	Replication int               `json:"replication"`
	Config      map[string]string `json:"config"`
}

func viewOfPlan(p kafka.TopicPlan) planView {
	v := planView{Topics: []topicView{}, ACLs: []string{}}
	for _, t := range p.Topics {
		v.Topics = append(v.Topics, topicView{t.Name, t.Partitions, t.Replication, t.Config})
	}
	for _, a := range p.ACLs {
		v.ACLs = append(v.ACLs, a.String())
	}
	return v
}

type appliedView struct {
	Created     []string `json:"created"`
	Existing    []string `json:"existing"`
	Differences []string `json:"differences"`
}

func viewOfApplied(a kafka.Applied) appliedView {
	v := appliedView{append([]string{}, a.Created...), append([]string{}, a.Existing...), []string{}}
	for _, d := range a.Differences {
		v.Differences = append(v.Differences, d.String())
	}
	return v
}

// demoTopics creates what the demo needs and is missing. It gives the number of shards, and whether the
// topic of orders is new.
func demoTopics(ctx context.Context, s *screen, client *kafka.Client, conf kafka.Config, o *devOptions) (shards int, fresh bool, err error) {
	if _, err := client.Topics(ctx, shop.OrdersTopic); err != nil {
		return 0, false, err // it says best that nobody answers
	}
	nodes, err := countBrokers(ctx, conf)
	if err != nil {
		return 0, false, err
	}
	commands := shop.Topics[1:]
	plan := kafka.Plan(kafka.PlanOptions{App: o.app, Partitions: o.shards, Replication: min(nodes, 3), Inputs: []string{shop.OrdersTopic}, Commands: commands, Create: true})
	applied, err := plan.Apply(ctx, client)
	if err != nil {
		return 0, false, err
	}
	if len(o.brokers) > 0 && len(applied.Created) > 0 {
		why := ""
		if nodes < 3 {
			why = fmt.Sprintf(", since the cluster has %d brokers: a lost disk can lose sagas", nodes)
			if nodes == 1 {
				why = ", since the cluster has one broker: a lost disk loses sagas"
			}
		}
		s.Note("created %d topics with replication %d%s", len(applied.Created), min(nodes, 3), why)
	}
	check := orchestrator.Needs{App: o.app, Inputs: []string{shop.OrdersTopic}, Commands: commands}
	if o.shardsSet {
		check.Shards = o.shards
	}
	warnings, err := client.Check(ctx, check)
	if err != nil {
		return 0, false, err
	}
	if len(o.brokers) > 0 { // of the embedded broker nobody expects durability
		for _, line := range warningLines(warnings) {
			s.Note("%s", line)
		}
	}
	topics, err := client.Topics(ctx, plan.Topics[0].Name)
	if err != nil {
		return 0, false, err
	}
	return topics[plan.Topics[0].Name].Partitions, slices.Contains(applied.Created, shop.OrdersTopic), nil
}

// warningLines says each kind of warning once, with the first topic that has it.
func warningLines(warnings []error) []string {
	var codes []string
	count := map[string]int{}
	first := map[string]*kafka.Error{}
	for _, warning := range warnings {
		var w *kafka.Error
		if !errors.As(warning, &w) {
			continue
		}
		if count[w.Code]++; count[w.Code] == 1 {
			codes = append(codes, w.Code)
			first[w.Code] = w
		}
	}
	var out []string
	for _, code := range codes {
		line := "warning: " + sanitize(first[code].Error(), 0)
		if n := count[code] - 1; n > 0 {
			line += fmt.Sprintf(", and %d more topics", n)
		}
		out = append(out, line)
	}
	return out
}

func countBrokers(ctx context.Context, c kafka.Config) (int, error) {
	opts, err := c.ClientOpts()
	if err != nil {
		return 0, err
	}
	client, err := kgo.NewClient(append(opts, kgo.ClientID("skald-count"))...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	found, err := kadm.NewClient(client).ListBrokers(ctx)
	if err != nil {
		return 0, err
	}
	return max(len(found), 1), nil
}
