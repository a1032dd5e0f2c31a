package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// PlanOptions say for what to plan. App is required.
type PlanOptions struct {
	App         string
	Partitions  int      // shards; default 12; cannot be changed later
	Replication int      // default 3
	MinISR      int      // default 2, but at most Replication
	Inputs      []string // domain topics that are read
	Commands    []string // topics that commands, and emitted events, are written to
	Lifecycle   bool     // plan <app>.lifecycle too
	// Transactional are those of Commands that are written in transactions.
	Transactional []string
	// Create plans Inputs and Commands as topics too, which otherwise belong to others. The demo does.
	Create bool

	Engine      string // principal for the ACLs; default "User:skald"
	Participant string // default "User:participant"
}

// TopicPlan is what an application needs on a cluster.
type TopicPlan struct {
	Topics []PlannedTopic
	ACLs   []ACL
}

// PlannedTopic is a topic as it should be.
type PlannedTopic struct {
	Name        string
	Partitions  int
	Replication int
	Config      map[string]string
	Why         string
}

// Plan says which topics and rights an application needs, and no more than that.
func Plan(o PlanOptions) TopicPlan {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.Partitions, 12)
	def(&o.Replication, 3)
	def(&o.MinISR, 2)
	o.MinISR = min(o.MinISR, o.Replication)
	if o.Engine == "" {
		o.Engine = "User:skald"
	}
	if o.Participant == "" {
		o.Participant = "User:participant"
	}
	names := events.Topics{App: o.App}
	isr := fmt.Sprint(o.MinISR)
	// Skald trims these itself. Kafka frees the disk by segments, so those are small.
	kept := func(more ...string) map[string]string {
		c := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "min.insync.replicas": isr,
			"segment.bytes": fmt.Sprint(64 << 20)}
		for i := 0; i < len(more); i += 2 {
			c[more[i]] = more[i+1]
		}
		return c
	}
	days := func(n int) map[string]string {
		return map[string]string{"cleanup.policy": "delete", "retention.ms": fmt.Sprint(n * 24 * 60 * 60 * 1000), "min.insync.replicas": isr}
	}
	var p TopicPlan
	add := func(name string, partitions int, config map[string]string, why string) {
		if slices.ContainsFunc(p.Topics, func(t PlannedTopic) bool { return t.Name == name }) {
			return
		}
		p.Topics = append(p.Topics, PlannedTopic{name, partitions, o.Replication, config, why})
	}
	room := fmt.Sprint(1<<20 + overhead)
	add(names.Journal(), o.Partitions, kept("message.timestamp.type", "LogAppendTime", "max.message.bytes", room), "the whole state of the sagas")
	add(names.Inbox(), o.Partitions, kept("max.message.bytes", room), "what nodes send each other; its partitions are the shards that the consumer group gives out")
	add(names.Replies(), o.Partitions, kept(), "what participants answer")
	add(names.Meta(), 1, map[string]string{"cleanup.policy": "compact", "min.insync.replicas": isr, "segment.bytes": fmt.Sprint(64 << 20)}, "what the nodes know of each other: definitions, members, the journal's format")
	add(names.Quarantine(), min(o.Partitions, 3), days(14), "inputs that nobody could take, untouched")
	if o.Lifecycle {
		add(names.Lifecycle(), o.Partitions, days(7), "events about sagas, for others to read")
	}
	if o.Create {
		for _, t := range o.Inputs {
			add(t, o.Partitions, days(7), "domain events")
		}
		for _, t := range o.Commands {
			add(t, o.Partitions, days(7), "commands")
		}
	}

	p.ACLs = acls(o.Engine, Permissions(orchestrator.Needs{App: o.App, Inputs: o.Inputs, Commands: o.Commands, Transactional: o.Transactional, Lifecycle: o.Lifecycle}))
	var participant []Permission
	for _, t := range o.Commands {
		participant = append(participant, Permission{Resource: "topic", Name: t, Operation: "Read"})
	}
	participant = append(participant, Permission{Resource: "topic", Name: names.Replies(), Operation: "Write"})
	p.ACLs = append(p.ACLs, acls(o.Participant, participant)...)
	return p
}

// String prints the plan: topics as one would read them, ACLs as one would run them.
func (p TopicPlan) String() string {
	var b strings.Builder
	b.WriteString("topics:\n")
	for _, t := range p.Topics {
		fmt.Fprintf(&b, "  %s: %s\n    %d partitions, replication %d\n", t.Name, t.Why, t.Partitions, t.Replication)
		for _, k := range slices.Sorted(maps.Keys(t.Config)) {
			fmt.Fprintf(&b, "    %s=%s\n", k, t.Config[k])
		}
	}
	b.WriteString("ACLs, where the cluster checks them (participants also need Read on a consumer group of their own):\n")
	for _, a := range p.ACLs {
		fmt.Fprintf(&b, "  %s\n", a)
	}
	return b.String()
}

// Applied says what Apply found and did.
type Applied struct {
	Created     []string
	Existing    []string
	Differences []Difference // between what exists and the plan; nothing is altered
}

// Difference is a setting of a topic that is not as planned.
type Difference struct{ Topic, Setting, Is, Planned string }

func (d Difference) String() string {
	return fmt.Sprintf("topic %s: %s is %s, planned %s", d.Topic, d.Setting, d.Is, d.Planned)
}

// Apply creates the topics that are missing. It never alters one that exists, but says how it differs from
// the plan. ACLs are for an administrator to set. After an error, what is in Created was created.
func (p TopicPlan) Apply(ctx context.Context, c *Client) (Applied, error) {
	var out Applied
	names := make([]string, len(p.Topics))
	for i, t := range p.Topics {
		names[i] = t.Name
	}
	have, err := c.Topics(ctx, names...)
	if err != nil {
		return out, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	adm := kadm.NewClient(c.admin)
	var errs []error
	for _, t := range p.Topics {
		is := have[t.Name]
		if is.Partitions == 0 {
			config := make(map[string]*string, len(t.Config))
			for k, v := range t.Config {
				config[k] = &v
			}
			resp, err := adm.CreateTopic(ctx, int32(t.Partitions), int16(t.Replication), config, t.Name)
			switch {
			case err == nil:
				out.Created = append(out.Created, t.Name)
			case errors.Is(err, kerr.TopicAlreadyExists): // somebody was faster
				out.Existing = append(out.Existing, t.Name)
			case errors.Is(err, kerr.InvalidReplicationFactor):
				errs = append(errs, &Error{Code: CodeReplication, Topic: t.Name, Detail: fmt.Sprintf("it cannot have %d replicas here", t.Replication),
					Cure: "plan with --replication no larger than the number of brokers", Err: err})
			case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
				errs = append(errs, &Error{Code: CodeForbidden, Topic: t.Name, Detail: "this principal must not create it",
					Cure: "allow Create on the cluster for a moment, or let an administrator create what the plan prints", Err: err})
			default:
				errs = append(errs, fmt.Errorf("topic %s: create it: %w %s", t.Name, err, resp.ErrMessage))
			}
			continue
		}
		out.Existing = append(out.Existing, t.Name)
		differs := func(setting, is, planned string) {
			if is != planned {
				out.Differences = append(out.Differences, Difference{t.Name, setting, is, planned})
			}
		}
		differs("partitions", fmt.Sprint(is.Partitions), fmt.Sprint(t.Partitions))
		differs("replication", fmt.Sprint(is.Replication), fmt.Sprint(t.Replication))
		for _, k := range slices.Sorted(maps.Keys(t.Config)) {
			if is.Config != nil {
				differs(k, is.Config[k], t.Config[k])
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return out, err
	}
	// A topic that was just created is unknown to some brokers for a moment.
	for len(out.Created) > 0 {
		have, err := c.Topics(ctx, out.Created...)
		if err != nil {
			return out, err
		}
		if !slices.ContainsFunc(out.Created, func(name string) bool { return have[name].Partitions == 0 }) {
			break
		}
		if !pause(ctx, 50*time.Millisecond) {
			return out, fmt.Errorf("wait for created topics: %w", ctx.Err())
		}
	}
	return out, nil
}
