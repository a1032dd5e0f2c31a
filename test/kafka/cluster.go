package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options say what to start. The zero value is one broker, with its data in a temporary directory.
type Options struct {
	Brokers int               // 0 means 1
	Dir     string            // data and logs, kept on Stop; "" means a temporary directory, removed on Stop
	Config  map[string]string // broker properties, over the defaults
	HeapMiB int               // of each broker; 0 means 512
	Secure  bool              // guarded listeners beside the plain one, and an authorizer; see Secure
}

// Cluster is a running Kafka. Its methods are safe for concurrent use.
type Cluster struct {
	dir     string
	temp    *os.File // the lock on a temporary directory, nil when the directory is the caller's
	heap    int
	libs    string
	brokers []*broker
	secure  *Secure

	mu sync.Mutex // guards the processes of the brokers
}

type broker struct {
	id   int
	addr string
	dir  string
	proc *process // nil when stopped
}

const (
	startTimeout = 90 * time.Second // two shared cores, three brokers
	stopTimeout  = 15 * time.Second
)

// Start fetches what is missing, starts the brokers and returns when they answer. An error names what is
// missing, or ends with the tail of the broker's log.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Brokers == 0 {
		o.Brokers = 1
	}
	if o.HeapMiB == 0 {
		o.HeapMiB = 512
	}
	libs, err := Jars(ctx)
	if err != nil {
		return nil, err
	}
	// A port that was free may be taken when the broker binds it; other ports are another chance.
	for try := 0; ; try++ {
		c, err := start(ctx, o, libs)
		if err == nil {
			return c, nil
		}
		if try == 2 || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
}

func start(ctx context.Context, o Options, libs string) (_ *Cluster, err error) {
	c := &Cluster{dir: o.Dir, heap: o.HeapMiB, libs: libs}
	if c.dir == "" {
		if c.dir, c.temp, err = tempDir(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	ports, err := freePorts(5 * o.Brokers)
	if err != nil {
		return nil, err
	}
	voters := make([]string, o.Brokers)
	for i := range voters {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[2*i+1])
	}
	cluster, err := clusterID(c.dir)
	if err != nil {
		return nil, err
	}
	for i := range o.Brokers {
		b := &broker{id: i + 1, addr: "127.0.0.1:" + strconv.Itoa(ports[2*i]), dir: filepath.Join(c.dir, "broker-"+strconv.Itoa(i+1))}
		if err := os.MkdirAll(b.dir, 0o755); err != nil {
			return nil, err
		}
		props := defaults(o.Brokers)
		maps.Copy(props, map[string]string{
			"node.id":                  strconv.Itoa(b.id),
			"controller.quorum.voters": strings.Join(voters, ","),
			"listeners":                fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d", b.addr, ports[2*i+1]),
			"advertised.listeners":     "PLAINTEXT://" + b.addr,
			"log.dirs":                 filepath.Join(b.dir, "data"),
		})
		if o.Secure {
			guarded, err := c.secureProperties(b, ports[2*i+1], ports[2*o.Brokers+3*i:])
			if err != nil {
				return nil, err
			}
			maps.Copy(props, guarded)
		}
		maps.Copy(props, o.Config)
		if err := writeProperties(b.properties(), props); err != nil {
			return nil, err
		}
		c.brokers = append(c.brokers, b)
	}
	errs := make(chan error, len(c.brokers))
	for _, b := range c.brokers {
		go func() {
			err := c.format(ctx, b, cluster)
			if err == nil {
				err = c.run(b)
			}
			errs <- err
		}()
	}
	for range c.brokers {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return nil, err
	}
	if err := c.await(ctx); err != nil || !o.Secure {
		return c, err
	}
	return c, c.users(ctx)
}

// defaults are what a test wants of n brokers: nothing created by accident, groups that form and notice a
// death at once, small buffers.
func defaults(n int) map[string]string {
	replicas := strconv.Itoa(min(n, 3))
	isr := strconv.Itoa(min(n, 2))
	return map[string]string{
		"process.roles":                                    "broker,controller",
		"controller.listener.names":                        "CONTROLLER",
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              isr,
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    isr,
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            isr,
		"share.coordinator.state.topic.num.partitions":     "4",
		"group.initial.rebalance.delay.ms":                 "0",
		"group.min.session.timeout.ms":                     "500",
		"auto.create.topics.enable":                        "false",
		"log.retention.check.interval.ms":                  "30000",
		"log.segment.delete.delay.ms":                      "1000",
		"log.cleaner.dedupe.buffer.size":                   "8388608",
		"num.network.threads":                              "2",
		"num.io.threads":                                   "4",
		"broker.heartbeat.interval.ms":                     "500",
		"broker.session.timeout.ms":                        "3000",
	}
}

// Addr is the address of the first broker, host:port.
func (c *Cluster) Addr() string { return c.brokers[0].addr }

// Addrs are the addresses of all brokers.
func (c *Cluster) Addrs() []string {
	out := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		out[i] = b.addr
	}
	return out
}

// Dir is where the brokers keep data and logs.
func (c *Cluster) Dir() string { return c.dir }

// Libs is the directory of the jars; the Java clients are among them.
func (c *Cluster) Libs() string { return c.libs }

// Kill ends broker i, counted from 0, with SIGKILL, and returns when it is gone. Its data stay.
func (c *Cluster) Kill(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.brokers[i]; b.proc != nil {
		b.proc.kill()
		b.proc = nil
	}
}

// Restart starts broker i again on its data and its ports, and returns when all running brokers answer.
func (c *Cluster) Restart(ctx context.Context, i int) error {
	c.Kill(i)
	if err := c.run(c.brokers[i]); err != nil {
		return err
	}
	return c.await(ctx)
}

// Stop ends the brokers: cleanly when the directory is the caller's, at once when it is thrown away anyway.
// A second call does nothing.
func (c *Cluster) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var wg sync.WaitGroup
	for _, b := range c.brokers {
		if p := b.proc; p != nil {
			b.proc = nil
			wg.Go(func() {
				if c.temp == nil {
					p.term(stopTimeout)
				}
				p.kill()
			})
		}
	}
	wg.Wait()
	if c.temp != nil {
		os.RemoveAll(c.dir)
		c.temp.Close()
		c.temp = nil
	}
}

func (b *broker) properties() string { return filepath.Join(b.dir, "server.properties") }
func (b *broker) log() string        { return filepath.Join(b.dir, "broker.log") }

// format prepares the directory of a broker that has none yet.
func (c *Cluster) format(ctx context.Context, b *broker, cluster string) error {
	cmd := exec.CommandContext(ctx, "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", filepath.Join(c.libs, "*"),
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.tools.StorageTool", "format", "--ignore-formatted",
		"-t", cluster, "-c", b.properties())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kafka broker %d: format its storage: %w\n%s", b.id, err, tail(out))
	}
	return nil
}

func (c *Cluster) run(b *broker) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := launch(b.log(), "java", "-Xmx"+strconv.Itoa(c.heap)+"m", "-XX:+UseG1GC", "-cp", filepath.Join(c.libs, "*"),
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "kafka.Kafka", b.properties())
	if err != nil {
		return fmt.Errorf("kafka broker %d: %w", b.id, err)
	}
	b.proc = p
	return nil
}

// await returns when every running broker is registered with the controller, or one has ended.
func (c *Cluster) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c.mu.Lock()
	var up []*broker
	procs := make(map[*broker]*process)
	for _, b := range c.brokers {
		if b.proc != nil {
			up, procs[b] = append(up, b), b.proc
		}
	}
	c.mu.Unlock()
	for _, b := range up {
		if err := c.awaitBroker(ctx, b, procs[b], len(up)); err != nil {
			out, _ := os.ReadFile(b.log())
			return fmt.Errorf("kafka broker %d: %w; the end of %s:\n%s", b.id, err, b.log(), tail(out))
		}
	}
	return nil
}

func (c *Cluster) awaitBroker(ctx context.Context, b *broker, p *process, n int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RequestRetries(0), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{} // none; nil would mean all
		if resp, err := req.RequestWith(ctx, cl.SeedBrokers()[0]); err == nil && len(resp.Brokers) >= n && resp.ControllerID >= 0 {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer at %s: %w", b.addr, ctx.Err())
		case <-tick.C:
		}
	}
}

// process is a child that dies with its parent.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // why; to be read after ended
}

// launch starts a child with its output in a file.
func launch(log, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() {
		// The kernel ties the child's life to the thread that forked it, not to the process, so that
		// thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			if p.err = p.cmd.Wait(); p.err == nil {
				p.err = errors.New("exit status 0")
			}
			close(p.ended)
		}
	}()
	return p, <-started
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

func (p *process) term(timeout time.Duration) {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(timeout):
	}
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are found, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// clusterID is kept in the directory, so that a cluster can be started on it again.
func clusterID(dir string) (string, error) {
	file := filepath.Join(dir, "cluster-id")
	if id, err := os.ReadFile(file); err == nil {
		return string(id), nil
	}
	var raw [16]byte
	rand.Read(raw[:])
	raw[0] &= 0x7f // a leading '-' would be taken for an option
	id := base64.RawURLEncoding.EncodeToString(raw[:])
	return id, errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(file, []byte(id), 0o644))
}

func writeProperties(file string, props map[string]string) error {
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(props)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(props[k], `\`, `\\`))
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func tail(out []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-30):], []byte("\n"))
}
