package kafka_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
)

// wire is a network that can be cut, or that swallows what one side says.
type wire struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn

	mute atomic.Bool // what we send is lost
	deaf atomic.Bool // what we are sent is lost

	key  int16 // of the request to do something before
	what func()
}

// before has f called once, before a request with that key is sent.
func (w *wire) before(key int16, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.key, w.what = key, f
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
		if err != nil {
			return nil, err
		}
		w.conns = append(w.conns, conn)
		return wired{conn, w}, nil
	}))
}

type wired struct {
	net.Conn
	w *wire
}

func (c wired) Write(b []byte) (int, error) {
	if c.w.mute.Load() {
		return len(b), nil
	}
	// A request is sent in one write: its size, then its key.
	c.w.mu.Lock()
	what := c.w.what
	if what != nil && len(b) > 6 && int16(binary.BigEndian.Uint16(b[4:])) == c.w.key {
		c.w.what = nil
	} else {
		what = nil
	}
	c.w.mu.Unlock()
	if what != nil {
		what()
	}
	return c.Conn.Write(b)
}

func (c wired) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.w.deaf.Load() {
			return n, err
		}
	}
}

// off ends all connections and refuses new ones, until on.
func (w *wire) off() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	w.hangUp()
}

// hangUp is called with mu held.
func (w *wire) hangUp() {
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// on makes the network whole again; who was cut off has to connect anew.
func (w *wire) on() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hangUp()
	w.cut = false
	w.mute.Store(false)
	w.deaf.Store(false)
}
