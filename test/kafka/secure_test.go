package kafka_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	skald "github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/test/kafka"
)

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// guarded is one cluster for the tests of this file: they run one after the other.
func guarded(t *testing.T) (*kafka.Cluster, *kadm.Client) {
	t.Helper()
	c := kafka.Require(t, kafka.Options{Secure: true})
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addr()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return c, kadm.NewClient(cl)
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(30 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it never came to pass that %s", what)
		}
	}
}

func allow(principal string, p skald.Permission) *kadm.ACLBuilder {
	b := kadm.NewACLs().Allow(principal).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	if p.Prefixed {
		b.ResourcePatternType(kadm.ACLPatternPrefixed)
	}
	switch p.Resource {
	case "topic":
		b.Topics(p.Name)
	case "group":
		b.Groups(p.Name)
	default:
		b.TransactionalIDs(p.Name)
	}
	return b.Operations(map[string]kmsg.ACLOperation{"Read": kmsg.ACLOperationRead, "Write": kmsg.ACLOperationWrite, "Delete": kmsg.ACLOperationDelete,
		"DescribeConfigs": kmsg.ACLOperationDescribeConfigs}[p.Operation])
}

type secureOrder struct {
	ID string `json:"id"`
}

func (s *secured) definition() orchestrator.Definition {
	pay := sagas.NewCommand[secureOrder, secureOrder](s.app+"-payments", "pay")
	refund := sagas.NewCommand[secureOrder, secureOrder](s.app+"-payments", "refund")
	same := func(o secureOrder) secureOrder { return o }
	return sagas.Define("order", "1", sagas.StartOn(sagas.NewEvent[secureOrder](s.app+"-orders", "OrderPlaced"), same),
		sagas.Seq(sagas.Step("pay", pay, same, nil).Undo(sagas.With(refund, same))))
}

// secured is an application on the guarded cluster.
type secured struct {
	app   string
	needs orchestrator.Needs
}

func newSecured(t *testing.T, admin *kadm.Client, app string) *secured {
	t.Helper()
	s := &secured{app: app, needs: orchestrator.Needs{App: app, Shards: 2, Inputs: []string{app + "-orders"}, Commands: []string{app + "-payments"}, Lifecycle: true,
		Transactional: []string{app + "-payments"}}}
	plan := skald.Plan(skald.PlanOptions{App: app, Partitions: 2, Replication: 1, Inputs: s.needs.Inputs, Commands: s.needs.Commands, Lifecycle: true, Create: true})
	for _, topic := range plan.Topics {
		config := map[string]*string{}
		for k, v := range topic.Config {
			config[k] = &v
		}
		if _, err := admin.CreateTopic(limited(t), int32(topic.Partitions), 1, config, topic.Name); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range skald.Permissions(s.needs) {
		s.set(t, admin, "User:skald", p)
	}
	return s
}

func (s *secured) set(t *testing.T, admin *kadm.Client, principal string, p skald.Permission) {
	t.Helper()
	done, err := admin.CreateACLs(limited(t), allow(principal, p))
	if err == nil {
		err = done[0].Err
	}
	if err != nil {
		t.Fatalf("allow %s: %v", p, err)
	}
}

func dial(t *testing.T, cfg skald.Config) *skald.Client {
	t.Helper()
	cfg.Opts = append(cfg.Opts, kgo.MetadataMinAge(50*time.Millisecond))
	c, err := skald.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestOnlyTheListedRightsAreNeededAndEachThatIsMissingIsNamed(t *testing.T) {
	c, admin := guarded(t)
	sec := c.Secure()
	s := newSecured(t, admin, "shop")
	scram := skald.Config{Brokers: []string{sec.SASLSSL}, TLS: skald.TLS{Enabled: true, Trust: skald.Store{File: sec.CAFile}},
		SASL: skald.SASL{Mechanism: "SCRAM-SHA-512", User: sec.User, Password: skald.Secret(sec.Password)}, Session: 2 * time.Second}

	t.Run("every way to authenticate is understood", func(t *testing.T) { s.authenticates(t, c) })
	t.Run("a saga runs", func(t *testing.T) { s.runs(t, c, admin, scram) })
	client := dial(t, scram)
	for _, p := range skald.Permissions(s.needs) {
		t.Run("without "+p.String(), func(t *testing.T) {
			if _, err := admin.DeleteACLs(limited(t), allow("User:skald", p)); err != nil {
				t.Fatal(err)
			}
			var err error
			await(t, "the start is refused", func() bool { _, err = client.Check(limited(t), s.needs); return err != nil })
			if lines := strings.Split(err.Error(), "\n"); len(lines) != 1 || !strings.HasPrefix(lines[0], skald.CodeForbidden+": ") || !strings.Contains(lines[0], "lacks "+p.String()+",") {
				t.Errorf("it is told of as %v", err)
			}
			s.set(t, admin, "User:skald", p)
			await(t, "it is allowed again", func() bool { _, err = client.Check(limited(t), s.needs); return err == nil })
		})
	}
}

// authenticates reaches the cluster by every mechanism, and by the properties that Java's tools use.
func (s *secured) authenticates(t *testing.T, c *kafka.Cluster) {
	sec := c.Secure()
	dir := t.TempDir()
	token, password := filepath.Join(dir, "token"), filepath.Join(dir, "password")
	properties := clientProperties(t, sec)
	for file, content := range map[string]string{token: sec.Token, password: sec.Password + "\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tls := skald.TLS{Enabled: true, Trust: skald.Store{File: sec.CAFile}}
	java, err := skald.Load(skald.Sources{Properties: properties})
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]skald.Config{
		"PLAIN":                    {Brokers: []string{sec.SASLSSL}, TLS: tls, SASL: skald.SASL{Mechanism: "PLAIN", User: sec.User, PasswordFile: password}},
		"SCRAM-SHA-256":            {Brokers: []string{sec.SASLSSL}, TLS: tls, SASL: skald.SASL{Mechanism: "SCRAM-SHA-256", User: sec.User, Password: skald.Secret(sec.Password)}},
		"SCRAM-SHA-512, plaintext": {Brokers: []string{sec.SASLPlain}, SASL: skald.SASL{Mechanism: "SCRAM-SHA-512", User: sec.User, Password: skald.Secret(sec.Password)}},
		"OAUTHBEARER":              {Brokers: []string{sec.SASLSSL}, TLS: tls, SASL: skald.SASL{Mechanism: "OAUTHBEARER", TokenFile: token}},
		"mTLS":                     {Brokers: []string{sec.MTLS}, TLS: skald.TLS{Enabled: true, Trust: skald.Store{File: sec.CAFile}, Own: skald.Store{File: sec.CertFile, KeyFile: sec.KeyFile}}},
		"client.properties":        java.Config,
	} {
		if _, err := dial(t, cfg).Check(limited(t), s.needs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong := skald.Config{Brokers: []string{sec.SASLSSL}, TLS: tls, SASL: skald.SASL{Mechanism: "PLAIN", User: sec.User, Password: "wrong"}}
	var e *skald.Error
	if _, err := dial(t, wrong).Check(limited(t), s.needs); !errors.As(err, &e) || e.Code != skald.CodeAuthentication {
		t.Errorf("a wrong password is told of as %v", err)
	}
	wrong = skald.Config{Brokers: []string{sec.SASLSSL}, TLS: skald.TLS{Enabled: true}, SASL: skald.SASL{Mechanism: "PLAIN", User: sec.User, PasswordFile: password}}
	if _, err := dial(t, wrong).Check(limited(t), s.needs); !errors.As(err, &e) || e.Code != skald.CodeAuthentication {
		t.Errorf("a broker whose certificate nobody trusts is told of as %v", err)
	}
}

// clientProperties is a file that Java's tools and Skald take alike.
func clientProperties(t *testing.T, sec *kafka.Secure) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "client.properties")
	text := fmt.Sprintf("# as Java's tools take it\nbootstrap.servers=%s\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\n"+
		"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n    username=\"%s\" \\\n    password=\"p=a\\\\\"s\\\\\\\\s, word\";\n"+
		"ssl.truststore.type=PEM\nssl.truststore.location=%s\nssl.endpoint.identification.algorithm=https\nrequest.timeout.ms=5000\n", sec.SASLSSL, sec.User, sec.CAFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func javaTool(t *testing.T, c *kafka.Cluster, class string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(limited(t), "java", append([]string{"-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", filepath.Join(c.Libs(), "*"), class}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// runs lets engine and participant complete sagas with the rights that the lists give them, and no more.
func (s *secured) runs(t *testing.T, c *kafka.Cluster, admin *kadm.Client, cfg skald.Config) {
	sec := c.Secure()
	for _, p := range []skald.Permission{{Resource: "topic", Name: s.app + "-payments", Operation: "Read"}, {Resource: "topic", Name: events.Topics{App: s.app}.Replies(), Operation: "Write"},
		{Resource: "group", Name: "payments", Operation: "Read"}} {
		s.set(t, admin, "User:participant", p)
	}
	theirs := skald.Config{Brokers: []string{sec.SASLSSL}, TLS: cfg.TLS, SASL: skald.SASL{Mechanism: "PLAIN", User: "participant", Password: skald.Secret(sec.Password)}}
	reach, err := theirs.ClientOpts()
	if err != nil {
		t.Fatal(err)
	}
	p := participant.New(participant.Config{App: s.app, Brokers: theirs.Brokers, Group: "payments", Name: "payments", Ledger: participant.NewMemory(), Options: reach})
	participant.Handle(p, sagas.NewCommand[secureOrder, secureOrder](s.app+"-payments", "pay"), func(_ context.Context, _ participant.Call, o secureOrder) (secureOrder, error) { return o, nil })
	participant.Handle(p, sagas.NewCommand[secureOrder, secureOrder](s.app+"-payments", "refund"), func(_ context.Context, _ participant.Call, o secureOrder) (secureOrder, error) { return o, nil })
	engine, err := orchestrator.New(orchestrator.Config{App: s.app, Kafka: dial(t, cfg), Definitions: []orchestrator.Definition{s.definition()}, From: orchestrator.FromEarliest, Lifecycle: true, Transactional: s.needs.Transactional})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(limited(t))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() {
		if err := engine.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		if err := p.Run(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const orders = 10
	for i := range orders {
		value, _ := json.Marshal(secureOrder{fmt.Sprint("order-", i)})
		r := &kgo.Record{Topic: s.app + "-orders", Key: fmt.Append(nil, "order-", i), Value: value, Headers: []kgo.RecordHeader{{Key: events.HeaderType, Value: []byte("OrderPlaced")}}}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "every saga is completed", func() bool {
		n := 0
		err := engine.List(func(i orchestrator.Instance) bool {
			if i.State == events.Completed {
				n++
			}
			return true
		})
		return err == nil && n == orders
	})
	// Java's own tool, with the same settings, sees that nothing is left to read.
	await(t, "the positions are committed", func() bool {
		at, err := admin.FetchOffsets(ctx, s.app)
		if err != nil {
			return false
		}
		n := int64(0)
		at.Each(func(o kadm.OffsetResponse) {
			if o.Topic == s.app+"-orders" {
				n += o.At
			}
		})
		return n == orders
	})
	out, err := javaTool(t, c, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", sec.SASLSSL, "--command-config", clientProperties(t, sec), "--describe", "--group", s.app)
	lag := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && f[0] == s.app && f[5] != "-" {
			lag[f[1]] = f[5]
		}
	}
	if err != nil || lag[s.app+"-orders"] != "0" || len(lag) < 3 {
		t.Errorf("Java's tool, with the same file, sees %v: %v\n%s", lag, err, out)
	}
}
