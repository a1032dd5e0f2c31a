package kafka_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/orchestrator"
)

// guarded is an embedded broker that checks rights, with its administrator.
func guarded(t *testing.T) (cfg kafka.Config, admin *kadm.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "secret"), kfake.User("PLAIN", "skald", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.SASL(plain.Auth{User: "admin", Pass: "secret"}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kafka.Config{Brokers: cluster.ListenAddrs(), SASL: kafka.SASL{Mechanism: "PLAIN", User: "skald", Password: "secret"}, Session: 2 * time.Second}, kadm.NewClient(cl)
}

func rule(p kafka.Permission) *kadm.ACLBuilder {
	b := kadm.NewACLs().Allow("User:skald").AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	if p.Prefixed {
		b.ResourcePatternType(kadm.ACLPatternPrefixed)
	}
	switch p.Resource {
	case "topic":
		b.Topics(p.Name)
	case "group":
		b.Groups(p.Name)
	case "transactional-id":
		b.TransactionalIDs(p.Name)
	}
	return b.Operations(map[string]kmsg.ACLOperation{"Read": kmsg.ACLOperationRead, "Write": kmsg.ACLOperationWrite, "Delete": kmsg.ACLOperationDelete,
		"DescribeConfigs": kmsg.ACLOperationDescribeConfigs}[p.Operation])
}

func TestEachRightThatIsMissingIsNamedAtTheStartAndNoOtherIsNeeded(t *testing.T) {
	cfg, admin := guarded(t)
	needs := orchestrator.Needs{App: "shop", Shards: 2, Inputs: []string{"orders"}, Commands: []string{"stock", "payments"}, Transactional: []string{"stock"}, Lifecycle: true}
	for _, topic := range kafka.Plan(kafka.PlanOptions{App: "shop", Partitions: 2, Replication: 1, Inputs: needs.Inputs, Commands: needs.Commands, Create: true, Lifecycle: true}).Topics {
		config := map[string]*string{}
		for k, v := range topic.Config {
			config[k] = &v
		}
		if _, err := admin.CreateTopic(ctx(t), int32(topic.Partitions), 1, config, topic.Name); err != nil {
			t.Fatal(err)
		}
	}
	for _, group := range []string{"shop", orchestrator.EmitGroup("shop")} { // the embedded broker checks rights on groups that exist
		if _, err := admin.CommitOffsets(ctx(t), group, kadm.Offsets{"orders": {0: {Topic: "orders", LeaderEpoch: -1}}}); err != nil {
			t.Fatal(err)
		}
	}
	all := kafka.Permissions(needs)
	for _, p := range all {
		if _, err := admin.CreateACLs(ctx(t), rule(p)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := kafka.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Check(ctx(t), needs); err != nil {
		t.Fatalf("with all that the list names: %v", err)
	}
	for _, p := range all {
		b := rule(p)
		if _, err := admin.DeleteACLs(ctx(t), b); err != nil {
			t.Fatal(err)
		}
		_, err := c.Check(ctx(t), needs)
		lines := strings.Split(fmt.Sprint(err), "\n")
		if !strings.HasPrefix(lines[0], kafka.CodeForbidden+": ") || !strings.Contains(lines[0], "lacks "+p.String()+",") || len(lines) != 1 {
			t.Errorf("without %s: %v", p, err)
		}
		if _, err := admin.CreateACLs(ctx(t), rule(p)); err != nil {
			t.Fatal(err)
		}
	}
}
