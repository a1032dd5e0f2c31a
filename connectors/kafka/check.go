package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

const applyCure = "`skald topics plan` shows what is needed, `skald topics apply` creates what is missing"

// missing says that a topic does not exist.
func missing(topic string) *Error {
	return &Error{Code: CodeTopicMissing, Topic: topic, Detail: "it does not exist", Cure: applyCure}
}

// Check asks the cluster whether the application can run on it. The error joins an *Error for each thing
// that keeps it from running, or is the one that says that no broker answers. The warnings, each an *Error,
// name risks that one may choose to live with.
func (c *Client) Check(ctx context.Context, n orchestrator.Needs) (warnings []error, err error) {
	names := events.Topics{App: n.App}
	own := []string{names.Journal(), names.Inbox(), names.Replies()}
	all := append(own, names.Meta(), names.Quarantine())
	if n.Lifecycle {
		all = append(all, names.Lifecycle())
	}
	all = append(append(all, n.Inputs...), n.Commands...)
	lacking, err := c.forbidden(ctx, Permissions(n))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range lacking {
		errs = append(errs, notAllowed(p))
	}
	if len(errs) > 0 { // what else is wrong cannot be seen
		return nil, errors.Join(errs...)
	}
	topics, err := c.Topics(ctx, all...)
	if err != nil {
		return nil, err
	}
	bad := func(e *Error) { errs = append(errs, e) }
	risk := func(e *Error) { warnings = append(warnings, e) }
	seen := make(map[string]bool)
	for _, name := range all {
		if topics[name].Partitions == 0 && !seen[name] {
			bad(missing(name))
		}
		seen[name] = true
	}
	want := n.Shards
	for _, name := range own {
		t := topics[name]
		if t.Partitions == 0 {
			continue
		}
		if want == 0 {
			want = t.Partitions
		}
		if t.Partitions != want {
			bad(&Error{Code: CodePartitions, Topic: name, Detail: fmt.Sprintf("it has %d partitions, not %d", t.Partitions, want),
				Cure: "the number of shards is fixed when the topics are created: delete and create them again to begin anew, or start with the number they have"})
		}
		c.checkOwn(t, name == names.Journal(), bad, risk)
		if name != names.Replies() {
			c.checkRoom(t, bad)
		}
		checkCompression(t, risk)
	}
	c.checkBroker(ctx, n, topics[names.Journal()], risk)
	c.checkMeta(topics[names.Meta()], bad)
	return warnings, errors.Join(errs...)
}

// checkMeta looks at the topic in which the nodes find each other: it is read in one order, and wholly at every start.
func (c *Client) checkMeta(t orchestrator.Topic, bad func(*Error)) {
	if t.Partitions > 1 {
		bad(&Error{Code: CodePartitions, Topic: t.Name, Detail: fmt.Sprintf("it has %d partitions, not 1: its records would have no order", t.Partitions),
			Cure: "delete it and create it again; what it holds is published anew at the next start"})
	}
	if v, ok := t.Config["cleanup.policy"]; ok && v != "compact" {
		bad(&Error{Code: CodeCleanup, Topic: t.Name, Detail: fmt.Sprintf("its cleanup.policy is %q: definitions would vanish that nodes still need", v),
			Cure: "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config cleanup.policy=compact"})
	}
}

// checkOwn looks at a topic that holds what nothing else does.
func (c *Client) checkOwn(t orchestrator.Topic, journal bool, bad, risk func(*Error)) {
	if t.Replication < 3 {
		risk(&Error{Code: CodeReplication, Topic: t.Name, Detail: fmt.Sprintf("it has %d replicas: a lost disk can lose sagas", t.Replication), Cure: "replicate it 3 times"})
	}
	if t.Config == nil {
		risk(&Error{Code: CodeConfigUnknown, Topic: t.Name, Detail: "its settings cannot be read, so nobody checks its retention", Cure: "allow DescribeConfigs on it"})
		return
	}
	alter := func(setting string) string {
		return "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config " + setting
	}
	if v, ok := t.Config["cleanup.policy"]; ok && v != "delete" {
		bad(&Error{Code: CodeCleanup, Topic: t.Name, Detail: fmt.Sprintf("its cleanup.policy is %q: records would vanish that are still needed", v), Cure: alter("cleanup.policy=delete")})
	}
	for _, key := range []string{"retention.ms", "retention.bytes"} {
		if v, ok := t.Config[key]; ok && v != "-1" && !mutant.On("kafka-finite-retention-taken") {
			bad(&Error{Code: CodeRetention, Topic: t.Name, Detail: fmt.Sprintf("its %s is %s: Kafka would delete what sagas still need; Skald trims it itself", key, v), Cure: alter(key + "=-1")})
		}
	}
	if isr, err := strconv.Atoi(t.Config["min.insync.replicas"]); err == nil {
		switch {
		case isr > t.Replication:
			bad(&Error{Code: CodeMinISR, Topic: t.Name, Detail: fmt.Sprintf("its min.insync.replicas is %d of %d replicas: it takes no record", isr, t.Replication), Cure: alter(fmt.Sprint("min.insync.replicas=", max(1, t.Replication-1)))})
		case isr < 2:
			risk(&Error{Code: CodeMinISR, Topic: t.Name, Detail: fmt.Sprintf("its min.insync.replicas is %d: what is acknowledged may be on one broker only", isr), Cure: alter("min.insync.replicas=2")})
		}
	}
	if strings.EqualFold(t.Config["unclean.leader.election.enable"], "true") {
		risk(&Error{Code: CodeUnclean, Topic: t.Name, Detail: "unclean leader election is on: acknowledged records can be lost", Cure: alter("unclean.leader.election.enable=false")})
	}
	if !journal {
		return
	}
	if v, ok := t.Config["message.timestamp.type"]; ok && v != "LogAppendTime" {
		risk(&Error{Code: CodeTimestamp, Topic: t.Name, Detail: fmt.Sprintf("its message.timestamp.type is %s: time-outs follow the nodes' clocks instead of the brokers'", v), Cure: alter("message.timestamp.type=LogAppendTime")})
	}
}

// checkRoom looks whether journal and inbox take all that a shard may write there: what it says to another can
// neither be left out nor be put aside.
func (c *Client) checkRoom(t orchestrator.Topic, bad func(*Error)) {
	if n, err := strconv.Atoi(t.Config["max.message.bytes"]); err == nil && n < c.cfg.MaxMessageBytes {
		bad(&Error{Code: CodeMessageBytes, Topic: t.Name, Detail: fmt.Sprintf("its max.message.bytes is %d: a record may have %d", n, c.cfg.MaxMessageBytes),
			Cure: "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config max.message.bytes=" + strconv.Itoa(c.cfg.MaxMessageBytes+overhead)})
	}
}

// overhead is what Kafka's default of max.message.bytes has over 1 MiB.
const overhead = 12
