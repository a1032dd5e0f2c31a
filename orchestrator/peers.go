package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// peers is this node's address, and its connections to the addresses of the others (L5). A process that is killed
// closes its connections and refuses new ones at once, long before its session in the consumer group ends. Who sees
// that removes the dead member from the group, which gives its shards out like any other's: claims come from
// assignments alone, so that nobody claims against anybody.
//
// A mistake costs liveness only: the log decides who owns a shard. It is bounded, too: a process is evicted at most
// once by each other one, and only by one that was connected to it before.
type peers struct {
	s       *membership
	address string
	server  *http.Server
	client  *http.Client
	slots   chan struct{} // of connections held for others
	closing chan struct{}
	running sync.WaitGroup

	// The loop's own.
	watched map[string]context.CancelFunc // by incarnation
	evicted map[string]bool               // incarnations
	mu      sync.Mutex                    // over evicted
}

const (
	peerPath    = "/peer"
	headerNode  = "Skald-Node"
	maxPeers    = 512
	maxConns    = 1024
	dialTimeout = 2 * time.Second
	redialFirst = 5 * time.Millisecond
	redialLast  = 2 * time.Second
)

func newPeers(s *membership) (*peers, error) {
	c := &s.e.cfg
	p := &peers{s: s, slots: make(chan struct{}, maxPeers), closing: make(chan struct{}), watched: map[string]context.CancelFunc{}, evicted: map[string]bool{}}
	if c.Listen == ListenNone {
		return p, nil
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %s, for other nodes and the API (Config.Listen): %w", c.Listen, err)
	}
	if p.address = c.Advertise; p.address == "" {
		p.address = reachable(l.Addr())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+peerPath, p.hold)
	if c.HTTP != nil {
		mux.Handle("/", c.HTTP(s.e))
	}
	p.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.e.log.Handler(), slog.LevelDebug),
	}
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
			DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10, ResponseHeaderTimeout: 10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	p.running.Go(func() {
		_ = p.server.Serve(&counted{Listener: l, slots: make(chan struct{}, maxConns), ended: make(chan struct{})})
	})
	s.e.log.Info("listening for other nodes and the API", "address", l.Addr().String(), "advertised", p.address)
	return p, nil
}

// reachable is where others find a listener: its address, or this host's name when it listens on all of them.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return a.String()
	}
	if name, err := os.Hostname(); err == nil {
		return net.JoinHostPort(name, port)
	}
	return a.String()
}

// close ends all connections, in both directions.
func (p *peers) close() {
	for _, cancel := range p.watched {
		cancel()
	}
	close(p.closing)
	if p.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if p.server.Shutdown(ctx) != nil {
			p.server.Close()
		}
	}
	p.running.Wait()
}

// incarnation tells a process of a node from the next.
func incarnation(n *events.NodeInfo) string { return fmt.Sprintf("%s %d", n.Name, n.Started) }

// hold answers another node who this is, and then nothing more for as long as both live.
func (p *peers) hold(w http.ResponseWriter, r *http.Request) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		http.Error(w, "too many peers", http.StatusServiceUnavailable)
		return
	}
	rc := http.NewResponseController(w)
	if errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})) != nil {
		return
	}
	w.Header().Set(headerNode, incarnation(&events.NodeInfo{Name: p.s.e.cfg.Node, Started: p.s.started}))
	w.WriteHeader(http.StatusOK)
	if rc.Flush() != nil {
		return
	}
	select {
	case <-r.Context().Done():
	case <-p.closing:
	}
}

// follow watches the nodes that are known, and nobody else.
func (p *peers) follow(nodes map[string]events.KnownNode) {
	if p.client == nil {
		return
	}
	known := map[string]bool{}
	for _, n := range nodes {
		if n.Name == p.s.e.cfg.Node || n.Address == "" {
			continue
		}
		who := incarnation(&n.NodeInfo)
		known[who] = true
		if p.watched[who] == nil {
			ctx, cancel := context.WithCancel(context.Background())
			p.watched[who] = cancel
			p.running.Go(func() { p.watch(ctx, who, n.Name, n.Address) })
		}
	}
	for who, cancel := range p.watched {
		if !known[who] {
			cancel()
			delete(p.watched, who)
		}
	}
}

// watch holds a connection to another process until it is known no more, and evicts it when it died.
func (p *peers) watch(ctx context.Context, who, name, address string) {
	connected, delay := mutant.On("engine-evicts-again-and-again"), redialFirst
	for ctx.Err() == nil {
		held, err := p.connect(ctx, who, address)
		if ctx.Err() != nil {
			return
		}
		if held {
			connected, delay = true, redialFirst
		}
		p.s.e.log.Debug("no connection to a node", "to", name, "address", address, "err", err)
		if (connected || mutant.On("engine-evicts-whom-it-never-reached")) && gone(err) {
			p.evict(ctx, who, name)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, redialLast)
	}
}

// errAnother says that another process answers at the address.
var errAnother = errors.New("another process has the address")

// gone reports whether the error says that the process is not there any more. A time-out says nothing.
func gone(err error) bool {
	return (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errAnother)) && !mutant.On("engine-death-unnoticed")
}

// connect holds a connection until it breaks; held reports whether there was one.
func (p *peers) connect(ctx context.Context, who, address string) (held bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+peerPath, nil)
	if err != nil {
		return false, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch got := resp.Header.Get(headerNode); {
	case resp.StatusCode == http.StatusServiceUnavailable:
		return false, errors.New("it holds no more connections")
	case got != who:
		return false, errAnother
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	return true, err
}

// evict removes a process that died from the group, once.
func (p *peers) evict(ctx context.Context, who, name string) {
	p.mu.Lock()
	again := p.evicted[who]
	if len(p.evicted) > 10_000 {
		clear(p.evicted)
	}
	p.evicted[who] = true
	p.mu.Unlock()
	n, ok := p.s.meta.node(name)
	if again && !mutant.On("engine-evicts-again-and-again") || !ok || incarnation(&n.NodeInfo) != who || n.Member == "" {
		return
	}
	e := p.s.e
	e.log.Warn("a node died: its connection broke and is refused; its shards are given out", "died", name, "address", n.Address, "shards", n.Shards)
	e.evictions.Add(1)
	ectx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := e.cfg.Kafka.Evict(ectx, e.cfg.App, n.Member); err != nil {
		e.log.Warn("it could not be removed from the group, which will do so when its session ends", "died", name, "err", err)
		return
	}
	e.cfg.Kafka.Rejoin(e.cfg.App)
	if err := p.s.meta.put(ectx, events.NodeKey(name), nil); err != nil && ctx.Err() == nil {
		e.log.Debug("the record of a dead node stays for now", "died", name, "err", err)
	}
}

// counted accepts at most as many connections at a time as it has slots.
type counted struct {
	net.Listener
	slots chan struct{}
	ended chan struct{}
	once  sync.Once
}

func (l *counted) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

func (l *counted) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{Conn: c, free: func() { <-l.slots }}, nil
}

type slotted struct {
	net.Conn
	once sync.Once
	free func()
}

func (c *slotted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.free)
	return err
}
