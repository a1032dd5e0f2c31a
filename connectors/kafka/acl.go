package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// Permission is one operation on one resource that an engine does, and so the least it has to be allowed.
// Operations that Kafka derives from others (Describe from Read, Write and Delete) are not listed.
type Permission struct {
	Resource  string // "topic", "group" or "transactional-id", as kafka-acls.sh has them
	Name      string
	Prefixed  bool   // Name is the beginning of names
	Operation string // "Read", "Write", "Delete", "DescribeConfigs"
	Why       string // what is done with it
}

func (p Permission) String() string {
	if p.Prefixed {
		return fmt.Sprintf("%s on each %s that begins with %s", p.Operation, p.Resource, p.Name)
	}
	return fmt.Sprintf("%s on %s %s", p.Operation, p.Resource, p.Name)
}

// Permissions are all that the nodes of an application need, in the order of kafka-acls.sh's resources. What
// Check asks for, what `skald topics acl` prints and what the tests run under is this list. (IdempotentWrite
// is not among it: since Kafka 2.8 the right to write a topic includes it.)
func Permissions(n orchestrator.Needs) []Permission {
	t := events.Topics{App: n.App}
	var out []Permission
	topic := func(name, op, why string) {
		p := Permission{Resource: "topic", Name: name, Operation: op, Why: why}
		if !slices.ContainsFunc(out, func(o Permission) bool { o.Why = why; return o == p }) {
			out = append(out, p)
		}
	}
	topic(t.Journal(), "Read", "to restore a shard")
	topic(t.Journal(), "Write", "to append decisions")
	topic(t.Journal(), "Delete", "to trim what is compacted")
	topic(t.Journal(), "DescribeConfigs", "to see at the start that Kafka deletes nothing by itself")
	topic(t.Inbox(), "Read", "to take what other nodes send")
	topic(t.Inbox(), "Write", "to forward to other shards")
	topic(t.Inbox(), "Delete", "to trim what is done")
	topic(t.Inbox(), "DescribeConfigs", "to see at the start that Kafka deletes nothing by itself")
	topic(t.Replies(), "Read", "to take what participants answer")
	topic(t.Replies(), "Delete", "to trim what is done")
	topic(t.Replies(), "DescribeConfigs", "to see at the start that Kafka deletes nothing by itself")
	topic(t.Meta(), "Read", "to know definitions and members")
	topic(t.Meta(), "Write", "to publish them")
	topic(t.Meta(), "DescribeConfigs", "to see at the start that it is compacted")
	topic(t.Quarantine(), "Write", "to put aside what nobody could take")
	if n.Lifecycle {
		topic(t.Lifecycle(), "Write", "to announce the ends of sagas")
	}
	for _, name := range n.Inputs {
		topic(name, "Read", "to take events")
	}
	for _, name := range n.Commands {
		topic(name, "Write", "to send commands")
	}
	out = append(out, Permission{Resource: "group", Name: n.App, Operation: "Read", Why: "to share the shards, and to commit offsets for lag tools"})
	if len(n.Transactional) > 0 {
		out = append(out,
			Permission{Resource: "group", Name: orchestrator.EmitGroup(n.App), Operation: "Read", Why: "to commit how far is emitted, together with the commands"},
			Permission{Resource: "transactional-id", Name: orchestrator.EmitIDs(n.App), Prefixed: true, Operation: "Write", Why: "to emit commands in transactions"})
	}
	return out
}

// noOperations is how a broker says that it does not tell what is allowed (KIP-430).
const noOperations = math.MinInt32

var operations = map[string]kmsg.ACLOperation{
	"Read": kmsg.ACLOperationRead, "Write": kmsg.ACLOperationWrite, "Delete": kmsg.ACLOperationDelete, "DescribeConfigs": kmsg.ACLOperationDescribeConfigs,
}

// forbidden says which of the permissions this principal lacks, without doing anything: brokers tell what is
// allowed on topics, and refuse a heartbeat of nobody and the end of no transaction differently from one that
// is not allowed. A broker that does not tell is believed to allow.
func (c *Client) forbidden(ctx context.Context, all []Permission) ([]Permission, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	req.IncludeTopicAuthorizedOperations = true
	asked := map[string]bool{}
	for _, p := range all {
		if p.Resource == "topic" && !asked[p.Name] {
			asked[p.Name] = true
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(p.Name)
			req.Topics = append(req.Topics, t)
		}
	}
	resp, err := req.RequestWith(ctx, c.admin)
	if err != nil {
		return nil, c.unreachable(err)
	}
	allowed := map[string]int32{}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		allowed[*t.Topic] = t.AuthorizedOperations
		switch t.ErrorCode {
		case kerr.TopicAuthorizationFailed.Code:
			allowed[*t.Topic] = 0
		case kerr.UnknownTopicOrPartition.Code:
			allowed[*t.Topic] = noOperations // that it is missing is said elsewhere
		}
	}
	var out []Permission
	for _, p := range all {
		no := false
		switch p.Resource {
		case "topic":
			bits, told := allowed[p.Name]
			no = told && bits != noOperations && bits&(1<<operations[p.Operation]) == 0
		case "group":
			hb := kmsg.NewPtrHeartbeatRequest()
			hb.Group, hb.MemberID, hb.Generation = p.Name, "nobody", -1
			resp, err := hb.RequestWith(ctx, c.admin)
			if err == nil {
				err = kerr.ErrorForCode(resp.ErrorCode)
			}
			no = errors.Is(err, kerr.GroupAuthorizationFailed)
		case "transactional-id":
			end := kmsg.NewPtrEndTxnRequest()
			end.TransactionalID, end.ProducerID, end.ProducerEpoch = p.Name+"0", -1, -1
			resp, err := end.RequestWith(ctx, c.admin)
			if err == nil {
				err = kerr.ErrorForCode(resp.ErrorCode)
			}
			no = errors.Is(err, kerr.TransactionalIDAuthorizationFailed)
		}
		if ctx.Err() != nil {
			return nil, c.unreachable(ctx.Err())
		}
		if no && !mutant.On("kafka-rights-not-asked") {
			out = append(out, p)
		}
	}
	return out, nil
}

// notAllowed says it to an operator.
func notAllowed(p Permission) *Error {
	e := &Error{Code: CodeForbidden, Detail: fmt.Sprintf("this principal lacks %s, which is needed %s", p, p.Why), Cure: p.acl("").command()}
	if p.Resource == "topic" {
		e.Topic = p.Name
	}
	return e
}

func (p Permission) acl(principal string) ACL {
	return ACL{Principal: principal, Resource: p.Resource, Name: p.Name, Prefixed: p.Prefixed, Operations: []string{p.Operation}}
}

// topicConfigs gives the settings of those topics whose settings may be read.
func (c *Client) topicConfigs(ctx context.Context, topics []string) (map[string]map[string]string, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
		req.Resources = append(req.Resources, r)
	}
	resp, err := req.RequestWith(ctx, c.admin)
	if err != nil {
		return nil, err
	}
	out := make(map[string]map[string]string, len(topics))
	for _, r := range resp.Resources {
		if r.ErrorCode != 0 {
			continue // not allowed, or deleted meanwhile
		}
		m := make(map[string]string, len(r.Configs))
		for _, kv := range r.Configs {
			v := ""
			if kv.Value != nil {
				v = *kv.Value
			}
			m[kv.Name] = v
		}
		out[r.ResourceName] = m
	}
	return out, nil
}

// ACL allows one principal some operations on one resource.
type ACL struct {
	Principal  string
	Resource   string // "topic", "group" or "transactional-id"
	Name       string
	Prefixed   bool // Name is the beginning of names
	Operations []string
}

// acls are the permissions as an administrator gives them to a principal: one for each resource.
func acls(principal string, all []Permission) []ACL {
	var out []ACL
	for _, p := range all {
		i := slices.IndexFunc(out, func(a ACL) bool { return a.Resource == p.Resource && a.Name == p.Name && a.Prefixed == p.Prefixed })
		if i < 0 {
			out = append(out, p.acl(principal))
		} else {
			out[i].Operations = append(out[i].Operations, p.Operation)
		}
	}
	return out
}

// String is the command that sets it.
func (a ACL) String() string { return a.command() }

func (a ACL) command() string {
	principal, pattern := a.Principal, ""
	if principal == "" {
		principal = "\"$PRINCIPAL\""
	}
	if a.Prefixed {
		pattern = " --resource-pattern-type prefixed"
	}
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server \"$BROKERS\" --add --allow-principal %s --%s %s%s --operation %s",
		principal, a.Resource, a.Name, pattern, strings.Join(a.Operations, " --operation "))
}
