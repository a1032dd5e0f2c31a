package kafka

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// DevOptions say how to embed a broker. The zero value is one on a free port of loopback, in memory.
type DevOptions struct {
	Addr    string // host:port; "" is a free port of 127.0.0.1. The host must be a loopback address.
	DataDir string // keeps the data; "" forgets them on Close
	// MinSession is the shortest group session that the broker allows. Default 500 ms.
	MinSession time.Duration
}

// Dev is an embedded broker for development. It speaks Kafka's protocol, but it is one process without
// replication, which stamps records with the producer's time and was written to test clients: not a place
// for data that matters.
type Dev struct {
	addr    string
	cluster *kfake.Cluster
}

// StartDev starts it. A port in use is an *Error with CodePortBusy.
func StartDev(o DevOptions) (*Dev, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.MinSession <= 0 {
		o.MinSession = 500 * time.Millisecond
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("development broker at %q: %w", o.Addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("development broker at %s: it has no access control and listens on loopback only", o.Addr)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, &Error{Code: CodePortBusy, Detail: "the development broker cannot listen on " + o.Addr, Cure: "stop what listens there, or choose another port", Err: err}
		}
		return nil, fmt.Errorf("development broker at %s: %w", o.Addr, err)
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return l, nil }),
		kfake.GroupMinSessionTimeout(o.MinSession),
		kfake.BrokerConfigs(map[string]string{"default.replication.factor": "1"}),
	}
	if o.DataDir != "" {
		opts = append(opts, kfake.DataDir(o.DataDir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("development broker at %s: %w", o.Addr, err)
	}
	return &Dev{addr: l.Addr().String(), cluster: cluster}, nil
}

// Addr is where it listens, host:port.
func (d *Dev) Addr() string { return d.addr }

// Cluster is the broker itself, for tests that plant faults in it.
func (d *Dev) Cluster() *kfake.Cluster { return d.cluster }

// Close ends it. With a DataDir the data are written first.
func (d *Dev) Close() { d.cluster.Close() }
