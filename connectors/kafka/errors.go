package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// Error is something an operator must set right. Code is stable; it has a page in docs/errors.md.
type Error struct {
	Code   string
	Topic  string // "" where it concerns no topic
	Detail string // what is wrong
	Cure   string // what to do about it
	Err    error  // what Kafka or the network said, may be nil
}

// Codes of Error, and of Warning.
const (
	CodeUnreachable      = "broker-unreachable"
	CodeForbidden        = "not-authorized"
	CodeTopicMissing     = "topic-missing"
	CodePartitions       = "partition-count"
	CodeRetention        = "finite-retention"
	CodeCleanup          = "cleanup-policy"
	CodeMessageBytes     = "message-bytes"
	CodeTimestamp        = "timestamp-type"
	CodeReplication      = "replication"
	CodeMinISR           = "min-isr"
	CodeUnclean          = "unclean-election"
	CodeConfigUnknown    = "config-unreadable"
	CodePortBusy         = "port-busy"
	CodeNoTopicIDs       = "no-topic-ids"
	CodeNoTrim           = "no-trim"
	CodeOffsetsRetention = "offsets-retention"
	CodeCompression      = "compression"
	CodeConfiguration    = "configuration"
	CodeAuthentication   = "not-authenticated"
	CodeWeakSecurity     = "weak-security"
)

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code)
	b.WriteString(": ")
	if e.Topic != "" {
		fmt.Fprintf(&b, "topic %s: ", e.Topic)
	}
	b.WriteString(e.Detail)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Cure != "" {
		fmt.Fprintf(&b, " (%s)", e.Cure)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

func (c *Client) unreachable(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	if why := handshake(err); why != "" {
		return &Error{Code: CodeAuthentication, Detail: strings.Join(c.cfg.Brokers, ", ") + ": " + why,
			Cure: "`skald help connection` lists the settings of TLS and SASL", Err: err}
	}
	return &Error{Code: CodeUnreachable, Detail: "no answer from " + strings.Join(c.cfg.Brokers, ", "),
		Cure: "is Kafka running there, and does it advertise an address that this machine can reach?", Err: err}
}

// handshake says which side did not accept the other; "" when it is not that.
func handshake(err error) string {
	var cert *tls.CertificateVerificationError
	var alert tls.AlertError
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the broker does not accept these credentials"
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return "the broker does not offer this SASL mechanism there"
	case errors.As(err, &cert):
		return "this client does not accept the broker's certificate"
	case errors.As(err, &alert):
		return "the broker does not accept this client's certificate, or its TLS version"
	case errors.As(err, &header):
		return "there is no TLS at that address"
	}
	return ""
}

// refusal classifies what franz-go says of a record it gave up. It gives an error that wraps
// orchestrator.ErrRefused when the record is not in the topic and would never be accepted, however often it
// were sent; otherwise err, with the place, which leaves the outcome open.
//
//   - Sent again by franz-go itself, for ever, and so never seen here: no leader, too few replicas in
//     sync, a time-out, a lost connection, a broker's storage error, a throttle. A topic that is unknown
//     is one of these until several brokers have said so (UnknownTopicRetries), since a fresh topic is
//     unknown to some of them for a moment.
//   - Refused: the topic does not exist or was created anew, we may not write it or produce at all, the
//     record is too large (orchestrator.ErrTooLarge), or the broker finds it invalid for this topic. Sending it
//     again gives the same.
//   - Open: the client was closed, or the append timed out in flight, or an error of which we do not know
//     better. The record may be there, or come.
func refusal(err error, topic string, partition int32) error {
	for _, large := range []*kerr.Error{kerr.MessageTooLarge, kerr.RecordListTooLarge} {
		if errors.Is(err, large) && !mutant.On("kafka-refusal-leaves-the-outcome-open") {
			return fmt.Errorf("%w: %s: %w", orchestrator.ErrTooLarge, place(topic, partition), err)
		}
	}
	for _, never := range []*kerr.Error{
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType, kerr.PolicyViolation,
	} {
		if errors.Is(err, never) && !mutant.On("kafka-refusal-leaves-the-outcome-open") {
			return fmt.Errorf("%w: %s: %w", orchestrator.ErrRefused, place(topic, partition), err)
		}
	}
	if errors.Is(err, errNoPartition) && !mutant.On("kafka-refusal-leaves-the-outcome-open") {
		return fmt.Errorf("%w: %s: %w", orchestrator.ErrRefused, place(topic, partition), err)
	}
	return fmt.Errorf("%s: %w", place(topic, partition), err)
}

func place(topic string, partition int32) string {
	if partition < 0 {
		return topic
	}
	return fmt.Sprintf("%s/%d", topic, partition)
}

// passes says whether asking again may get another answer.
func passes(err error) bool {
	switch {
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return false // it is retriable by Kafka's book, but missing topics are common and leaders rarely that new
	case kerr.IsRetriable(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	}
	var n net.Error
	return errors.As(err, &n) || kgo.IsRetryableBrokerErr(err)
}
