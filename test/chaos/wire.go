package main

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the network between a node and the brokers, as troubles have it. It stands in the node's process, between the
// Kafka client and its connections.
type wire struct {
	mu      sync.Mutex
	conns   map[*wiredConn]bool
	late    time.Duration // what each read takes longer
	deaf    bool          // nothing that the brokers say arrives
	noticed int           // reads that were late or kept back, since the last change
}

// reset breaks every connection, as a firewall that lost its table does, and says how many there were.
func (w *wire) reset() (n int) {
	w.mu.Lock()
	conns := w.conns
	w.conns = nil
	w.mu.Unlock()
	for c := range conns {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // an RST, no orderly end
		}
		_ = c.Close()
		n++
	}
	return n
}

// set changes the network, and says how many reads the last change has met.
func (w *wire) set(late time.Duration, deaf bool) (noticed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	noticed = w.noticed
	w.late, w.deaf, w.noticed = late, deaf, 0
	return noticed
}

func (w *wire) over(c net.Conn) net.Conn {
	wired := &wiredConn{Conn: c, w: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		w.conns = map[*wiredConn]bool{}
	}
	w.conns[wired] = true
	return wired
}

type wiredConn struct {
	net.Conn
	w        *wire
	deadline atomic.Int64 // of reads, ns since 1970; 0: none
	closed   atomic.Bool
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	return n, c.hold()
}

// hold keeps back what was read for as long as the network does, or until the reader gives up.
func (c *wiredConn) hold() error {
	c.w.mu.Lock()
	late, deaf := c.w.late, c.w.deaf
	if late > 0 || deaf {
		c.w.noticed++
	}
	c.w.mu.Unlock()
	for end := time.Now().Add(late); deaf || time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		switch d := c.deadline.Load(); {
		case c.closed.Load():
			return net.ErrClosed
		case d != 0 && time.Now().UnixNano() > d:
			return os.ErrDeadlineExceeded
		}
		c.w.mu.Lock()
		deaf = c.w.deaf
		c.w.mu.Unlock()
	}
	return nil
}

func (c *wiredConn) SetReadDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *wiredConn) SetDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetDeadline(t)
}

func (c *wiredConn) note(t time.Time) {
	if t.IsZero() {
		c.deadline.Store(0)
		return
	}
	c.deadline.Store(t.UnixNano())
}

func (c *wiredConn) Close() error {
	c.closed.Store(true)
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}
