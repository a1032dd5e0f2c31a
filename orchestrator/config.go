package orchestrator

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Definition is what sagas.Define returns.
type Definition interface {
	Plan() (*sagas.Plan, error)
}

// From says where a shard begins to read a domain topic it has never read.
type From uint8

const (
	FromLatest   From = 0 // what arrives from now on
	FromEarliest From = 1 // everything the topic holds
)

// Config is everything an Engine is told. App, Kafka and one definition are required.
type Config struct {
	App string // prefix of the topics, name of the group; letters, digits, '-', '_'; at most 100
	// Kafka is a connection for this engine alone: two of one application would end each other's reading.
	Kafka Kafka
	// Definitions may hold several versions of one: the first of a name starts new sagas, and instances of the others
	// go on under the version they began with (L12).
	Definitions []Definition
	// Dir holds the stores, one folder a shard. "": they are kept in memory, and every start rebuilds them
	// from Kafka.
	Dir  string
	Node string // name of this node, in claims and for other nodes; no two at a time have one; default: host name and process id
	From From
	// Listen is the address, host:port, at which other nodes and the API reach this one; default: a free port of
	// 127.0.0.1; ListenNone: none, and a killed node is replaced only when its session in the group ends. There is
	// no access control, so that an address which others can reach is one to protect. Advertise is what the
	// other nodes are told; default: that address, or the host's name when it listens on all.
	Listen, Advertise string
	// HTTP makes what the address serves besides the connections of other nodes; see orchestrator/api.
	HTTP      func(*Engine) http.Handler
	Retired   []string // names of definitions that no node is to run any more: their events are skipped from then on
	Lifecycle bool     // announce final and parked instances on <app>.lifecycle
	Logger    *slog.Logger
	// Applied is told every accepted decision once it is applied, in order per shard, from the shard's
	// goroutine: it must not block. It sees decisions again that are replayed from the journal's tail.
	Applied func(shard int32, r *events.Record)
	Hooks   []Hook // are told what happens, for telemetry; see Hook

	MaxRecord    int           // bytes of a journal record; default 768 KiB; below max.message.bytes of the journal
	MaxInFlight  int           // decisions ahead of their acknowledgement, per shard; default 4,096
	CompactAfter int64         // bytes of journal, at least, between two compaction rounds; default 64 MiB
	FormatAfter  time.Duration // how long every node has to read a journal format before it is written; from then on no older build can run; default 10 min; negative: never
	TopicsEvery  time.Duration // how often domain topics are looked at for new partitions; default 30 s
	// Transactional are topics of commands that are emitted in transactions, together with the progress (L16):
	// who reads them with isolation.level=read_committed sees each command once, whatever crashes.
	Transactional []string

	BacklogWait time.Duration // how long timers wait for the backlog of domain topics after a claim (L10); default 1 min
	CacheBytes  int64         // of memory for all stores of this node; default 128 MiB, half of it for what is not on disk yet
}

const defaultCache = 128 << 20

// ListenNone is the Config.Listen of a node that no other reaches.
const ListenNone = "none"

// unnamed counts the nodes of this process that were given no name.
var unnamed atomic.Int64

var appName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)

// withDefaults fills what was left out, then validates.
func (c Config) withDefaults() (Config, []*sagas.Plan, error) {
	if c.Node == "" {
		host, _ := os.Hostname()
		c.Node = fmt.Sprintf("%s-%d", host, os.Getpid())
		if n := unnamed.Add(1); n > 1 {
			c.Node += fmt.Sprintf("-%d", n)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MaxRecord == 0 {
		c.MaxRecord = 768 << 10
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 4096
	}
	if c.CompactAfter == 0 {
		c.CompactAfter = 64 << 20
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.FormatAfter == 0 {
		c.FormatAfter = 10 * time.Minute
	}
	if c.TopicsEvery <= 0 {
		c.TopicsEvery = 30 * time.Second
	}
	if c.BacklogWait == 0 {
		c.BacklogWait = time.Minute
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCache
	}
	var errs []error
	if !appName.MatchString(c.App) {
		errs = append(errs, fmt.Errorf("app %.120q: a name has 1 to 100 letters, digits, '-' or '_'", c.App))
	}
	if c.Kafka == nil {
		errs = append(errs, errors.New("no Kafka connection: set Config.Kafka, for instance to a connectors/kafka client"))
	}
	if host, _, err := net.SplitHostPort(c.Listen); c.Listen != ListenNone && (err != nil || host == "" && c.Advertise == "") {
		errs = append(errs, fmt.Errorf("listen %.200q: name host and port, such as 127.0.0.1:0, or set Advertise to what other nodes are to use", c.Listen))
	}
	if len(c.Definitions) == 0 {
		errs = append(errs, errors.New("no definition: an engine without sagas has nothing to do"))
	}
	var plans []*sagas.Plan
	for _, d := range c.Definitions {
		p, err := d.Plan()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if slices.ContainsFunc(plans, func(o *sagas.Plan) bool { return o.Name == p.Name && o.Version == p.Version }) {
			errs = append(errs, fmt.Errorf("definition %s version %s is listed twice", p.Name, p.Version))
		}
		if slices.Contains(c.Retired, p.Name) {
			errs = append(errs, fmt.Errorf("definition %s is listed and retired", p.Name))
		}
		plans = append(plans, p)
	}
	return c, plans, errors.Join(errs...)
}
