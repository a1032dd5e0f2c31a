package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// keptOffsets is how long the group's offsets should outlive a standstill of the whole application.
const keptOffsets = 24 * time.Hour

// checkBroker looks at what the brokers offer, apart from their topics: ordered, durable appends are all
// that the guarantees need, so everything here is a risk and no more.
func (c *Client) checkBroker(ctx context.Context, n orchestrator.Needs, journal orchestrator.Topic, risk func(*Error)) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if journal.Partitions > 0 && journal.ID == [16]byte{} {
		risk(&Error{Code: CodeNoTopicIDs, Detail: "the brokers give topics no ids, so a journal that is deleted and created again is noticed only when its records do not fit",
			Cure: "run Kafka 3.0 or newer"})
	}
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "skald", "1"
	if resp, err := req.RequestWith(ctx, c.admin); err == nil {
		trims := false
		for _, k := range resp.ApiKeys {
			trims = trims || k.ApiKey == int16(kmsg.DeleteRecords)
		}
		if !trims && !mutant.On("kafka-no-trim-unsaid") {
			risk(&Error{Code: CodeNoTrim, Detail: "the brokers cannot delete records, so journal, inbox and replies grow for ever", Cure: "use brokers with DeleteRecords, or watch the disks"})
		}
	}
	if len(n.Transactional) == 0 {
		return
	}
	if kept, ok := c.brokerSetting(ctx, "offsets.retention.minutes"); ok {
		if m, err := strconv.Atoi(kept); err == nil && time.Duration(m)*time.Minute < keptOffsets {
			risk(&Error{Code: CodeOffsetsRetention, Detail: fmt.Sprintf("the brokers' offsets.retention.minutes is %d: after a crash and a longer standstill, the last second of commands would be emitted twice", m),
				Cure: "set offsets.retention.minutes to at least 1440"})
		}
	}
}

// brokerSetting is one of a broker's settings; ok is false when this principal may not read it, which it
// need not.
func (c *Client) brokerSetting(ctx context.Context, name string) (value string, ok bool) {
	meta := kmsg.NewPtrMetadataRequest()
	meta.Topics = []kmsg.MetadataRequestTopic{}
	m, err := meta.RequestWith(ctx, c.admin)
	if err != nil || len(m.Brokers) == 0 {
		return "", false
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(m.Brokers[0].NodeID)), []string{name}
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, c.admin)
	if err != nil {
		return "", false
	}
	for _, r := range resp.Resources {
		for _, kv := range r.Configs {
			if r.ErrorCode == 0 && kv.Name == name && kv.Value != nil {
				return *kv.Value, true
			}
		}
	}
	return "", false
}

// checkCompression looks at what makes a topic of the application slower than it has to be.
func checkCompression(t orchestrator.Topic, risk func(*Error)) {
	alter := "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config "
	if v, ok := t.Config["compression.type"]; ok && v != "producer" && v != "" {
		risk(&Error{Code: CodeCompression, Topic: t.Name, Detail: fmt.Sprintf("its compression.type is %s: the brokers compress every batch anew, which costs them more than anything else here", v), Cure: alter + "compression.type=producer"})
	}
}
