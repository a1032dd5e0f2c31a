package kafka_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/orchestrator"
)

func TestWhatBrokersLackIsSaidAtTheStart(t *testing.T) {
	without := func(keys ...kmsg.Key) *kversion.Versions {
		v := kversion.V4_1_0()
		for _, k := range keys {
			v.SetMaxKeyVersion(k.Int16(), -1)
		}
		return v
	}
	old := kversion.V4_1_0()
	old.SetMaxKeyVersion(kmsg.Metadata.Int16(), 9)
	needs := orchestrator.Needs{App: "shop", Commands: []string{"payments"}, Transactional: []string{"payments"}}
	for _, x := range []struct {
		what   string
		opts   []kfake.Opt
		config map[string]string // of the inbox
		want   string
	}{
		{what: "nothing", want: ""},
		{what: "DeleteRecords", opts: []kfake.Opt{kfake.MaxVersions(without(kmsg.DeleteRecords))}, want: kafka.CodeNoTrim},
		{what: "topic ids", opts: []kfake.Opt{kfake.MaxVersions(old)}, want: kafka.CodeNoTopicIDs},
		{what: "memory for offsets", opts: []kfake.Opt{kfake.BrokerConfigs(map[string]string{"offsets.retention.minutes": "60"})}, want: kafka.CodeOffsetsRetention},
		{what: "the clients' compression", config: map[string]string{"compression.type": "zstd"}, want: kafka.CodeCompression},
		{what: "caution in elections", config: map[string]string{"unclean.leader.election.enable": "true"}, want: kafka.CodeUnclean},
	} {
		t.Run(x.what, func(t *testing.T) {
			cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(1, "payments")}, x.opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer cluster.Close()
			cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			for _, p := range kafka.Plan(kafka.PlanOptions{App: "shop", Partitions: 2}).Topics {
				config := map[string]*string{}
				for k, v := range p.Config {
					config[k] = kadm.StringPtr(v)
				}
				for k, v := range x.config {
					if p.Name == "shop.inbox" {
						config[k] = kadm.StringPtr(v)
					}
				}
				if _, err := kadm.NewClient(cl).CreateTopic(ctx(t), int32(p.Partitions), 3, config, p.Name); err != nil {
					t.Fatal(err)
				}
			}
			c, err := kafka.Dial(kafka.Config{Brokers: cluster.ListenAddrs()})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			warnings, err := c.Check(ctx(t), needs)
			if err != nil {
				t.Fatal(err)
			}
			var codes []string
			for _, w := range warnings {
				e := (*kafka.Error)(nil)
				if !errors.As(w, &e) || e.Cure == "" {
					t.Errorf("%v has no code or no cure", w)
					continue
				}
				codes = append(codes, e.Code)
			}
			if got := strings.Join(slices.Compact(codes), " "); got != x.want {
				t.Errorf("%s, want %s: %s", got, x.want, fmt.Sprint(warnings))
			}
		})
	}
}
