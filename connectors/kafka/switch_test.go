package kafka_test

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
)

// wire is a network that can be cut.
type wire struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func newSwitch() *wire { return &wire{} }

func (w *wire) through(c *kafka.Config) {
	c.Opts = append(c.Opts, kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil && w.cut {
			conn.Close()
			return nil, errors.New("the wire is cut")
		}
		if err == nil {
			w.conns = append(w.conns, conn)
		}
		return conn, err
	}))
}

func (w *wire) off() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *wire) on() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}
