package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/connectors/participant"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/journal"
	"github.com/skald-io/skald/orchestrator/store"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/test/check/checker"
)

// release is which of two builds of this program it is. Build one knows version 1 of the saga, build two versions 1
// and 2; the linker says which (-X main.release=2).
var release = "1"

const (
	rollShards = 6
	rollRate   = 40 // orders a second
	rollRest   = 300 * time.Millisecond
)

// rolled are the versions of one saga, the newest first, as many as a build knows. Their steps, and their steps'
// commands, have nothing in common, so that one cannot pass for the other.
func rolled(app, release string) []*sagas.Definition {
	build := func(o order) work { return work{Order: o.ID, Mode: o.Mode} }
	step := func(verb, version string) sagas.StepOf[order] {
		p := rolledPair(app, verb, version)
		return sagas.Step(verb+"-"+version, p.do, build, nil).Timeout(time.Minute).Undo(sagas.With(p.undo, build).Timeout(time.Minute))
	}
	start := sagas.StartOn(sagas.NewEvent[order](app+"-orders", "placed").KeyBy(func(o order) string { return o.ID }), func(o order) order { return o })
	one := sagas.Define("order", "1", start, sagas.Seq(step("reserve", "1"), step("ship", "1"))).Retention(time.Hour)
	if release == "1" {
		return []*sagas.Definition{one}
	}
	// Its timers become due while nobody can run it.
	two := sagas.Define("order", "2", start, sagas.Seq(step("reserve", "2"), sagas.Sleep[order]("rest", rollRest), step("ship", "2"))).Retention(time.Hour)
	return []*sagas.Definition{two, one}
}

func rolledPair(app, verb, version string) pair {
	topic := app + "-work"
	return pair{sagas.NewCommand[work, result](topic, verb+"."+version), sagas.NewCommand[work, result](topic, "undo-"+verb+"."+version)}
}

// rollingNode runs what this build knows, and says what waits when it is asked.
func rollingNode(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := kafka.Dial(kafka.Config{Brokers: strings.Split(os.Getenv(envBrokers), ","), Logger: quieter(log), Opts: []kgo.Opt{kgo.HeartbeatInterval(100 * time.Millisecond)}})
	if err != nil {
		return err
	}
	defer client.Close()
	app := os.Getenv(envApp)
	c := orchestrator.Config{App: app, Kafka: client, Dir: os.Getenv(envDir), Node: os.Getenv(envName), From: orchestrator.FromEarliest, Logger: log, CacheBytes: 16 << 20}
	for _, d := range rolled(app, release) {
		c.Definitions = append(c.Definitions, d)
	}
	e, err := orchestrator.New(c)
	if err != nil {
		return err
	}
	go func() {
		defer cancel() // the parent is gone
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Printf("%d %s\n", e.Stats().Waiting, strings.Join(e.Health().WaitingOn, ","))
		}
	}()
	return e.Run(ctx)
}

// builds links the two builds into a folder.
func builds(ctx context.Context, dir string) (map[string]string, error) {
	tags := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				tags = s.Value // planted breaks are in the nodes, if they are in this program
			}
		}
	}
	out := map[string]string{}
	for _, r := range []string{"1", "2"} {
		out[r] = filepath.Join(dir, "build-"+r)
		cmd := exec.CommandContext(ctx, "go", "build", "-o", out[r], "-tags", tags, "-ldflags", "-X main.release="+r, "github.com/skald-io/skald/test/chaos")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, said)
		}
	}
	return out, nil
}

// roll is three nodes that are replaced by another build of theirs, one after the other, under load.
type roll struct {
	options
	programs map[string]string // by release
	track    *track
	nodes    []*child
	releases []string // of nodes
	lives    int
	placed   atomic.Int64

	mu      sync.Mutex
	held    string        // the version that is not answered; "" for none
	shut    chan struct{} // closed when it is again
	waiting int           // inputs, when nobody could run them
}

// rollOut replaces every node by one of the release, one at a time.
func (r *roll) rollOut(release string) error {
	for n := range r.nodes {
		if c := r.nodes[n]; c != nil {
			if err := c.term(30 * time.Second); err != nil {
				return err
			}
		}
		r.lives++
		name := fmt.Sprintf("build%s-node%d-life%d", release, n, r.lives)
		c, err := spawnOf(r.programs[release], name, r.dir, envRole+"=rolling", envApp+"="+r.app, envBrokers+"="+strings.Join(r.brokers, ","),
			envName+"="+name, envDir+"="+filepath.Join(r.dir, "stores", strconv.Itoa(n)))
		if r.nodes[n], r.releases[n] = c, release; err != nil {
			return err
		}
		if err := r.owned(false); err != nil {
			return err
		}
	}
	return r.owned(true)
}

// owned waits until nodes that run own every shard; all: and each of them one, at least. In between a shard may well
// go to the only node that has what it waits for.
func (r *roll) owned(all bool) error {
	return r.track.until(takeOverTime, fmt.Sprintf("every shard has an owner that runs, and every node a shard: %v", all), func() bool {
		has := map[string]int{}
		for _, o := range r.track.owners {
			has[o.node]++
		}
		shards := 0
		for _, c := range r.nodes {
			if c == nil {
				continue
			}
			if all && has[c.name] == 0 {
				return false
			}
			shards += has[c.name]
		}
		return shards == rollShards
	})
}

// ask gives how many inputs wait on the nodes, and for what.
func (r *roll) ask() (n int, on []string, err error) {
	for _, c := range r.nodes {
		if err := c.tell("waiting"); err != nil {
			return 0, nil, fmt.Errorf("%s: %w (%s)", c.name, err, c.log)
		}
		select {
		case line := <-c.said:
			count, names, _ := strings.Cut(line, " ")
			k, err := strconv.Atoi(count)
			if err != nil {
				return 0, nil, fmt.Errorf("%s says %q", c.name, line)
			}
			n += k
			if names != "" {
				on = append(on, strings.Split(names, ",")...)
			}
		case <-c.ended:
			return 0, nil, fmt.Errorf("%s ended by itself: %w (%s)", c.name, c.err, c.log)
		case <-time.After(takeOverTime):
			return 0, nil, fmt.Errorf("%s does not say what waits (%s)", c.name, c.log)
		}
	}
	slices.Sort(on)
	return n, slices.Compact(on), nil
}

// asked asks until the answer is as wanted.
func (r *roll) asked(what string, ok func(n int, on []string) bool) error {
	late := time.Now().Add(takeOverTime)
	for {
		n, on, err := r.ask()
		if err != nil {
			return err
		}
		if ok(n, on) {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("it never came to pass that %s: %d inputs wait, on %v", what, n, on)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// hold keeps a version's commands from being answered, until letGo, and waits until so many sagas are open that some
// are on every shard.
func (r *roll) hold(version string) error {
	r.mu.Lock()
	r.held, r.shut = version, make(chan struct{})
	r.mu.Unlock()
	return r.track.until(takeOverTime, "sagas are begun, and stay open", func() bool { return len(r.track.seen)-r.track.final >= 2*rollRate })
}

func (r *roll) letGo() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != "" {
		close(r.shut)
		r.held = ""
	}
}

// handle makes the participant take the commands of both versions.
func (r *roll) handle(p *participant.Participant) {
	for _, version := range []string{"1", "2"} {
		for _, verb := range []string{"reserve", "ship"} {
			pr := rolledPair(r.app, verb, version)
			participant.Handle(p, pr.do, func(ctx context.Context, call participant.Call, w work) (result, error) {
				r.mu.Lock()
				held, shut := r.held, r.shut
				r.mu.Unlock()
				if version == held {
					select {
					case <-shut:
					case <-ctx.Done():
						return result{}, ctx.Err()
					}
				}
				if w.Mode == modeDecline && verb == "ship" {
					return result{}, participant.Reject("declined", "order %s", w.Order)
				}
				return result{verb + version}, nil
			})
			participant.Handle(p, pr.undo, func(context.Context, participant.Call, work) (result, error) { return result{verb}, nil })
		}
	}
}

// load places orders at a steady rate on any partition, until ctx ends and all are there.
func (r *roll) load(ctx context.Context, cl *kgo.Client) error {
	tick := time.NewTicker(time.Second / rollRate)
	defer tick.Stop()
	var failed atomic.Pointer[error]
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			err := cl.Flush(context.WithoutCancel(ctx))
			if f := failed.Load(); f != nil {
				err = errors.Join(err, *f)
			}
			return err
		}
		id, mode := fmt.Sprintf("order-%05d", n), modeOK
		if n%5 == 4 {
			mode = modeDecline
		}
		cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: r.app + "-orders", Partition: rand.Int32N(rollShards), Key: []byte(id), Value: fmt.Appendf(nil, `{"id":%q,"mode":%q}`, id, mode),
			Headers: []kgo.RecordHeader{{Key: events.HeaderType, Value: []byte("placed")}, {Key: events.HeaderID, Value: []byte("event-" + id)}}},
			func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(&err)
				}
			})
		r.placed.Add(1)
	}
}

// ended waits until that many more sagas have ended.
func (r *roll) ended(more int) error {
	r.track.mu.Lock()
	from := r.track.final
	r.track.mu.Unlock()
	return r.track.until(takeOverTime, fmt.Sprintf("%d more sagas end", more), func() bool { return r.track.final >= from+more })
}

// rolls rolls forward, back, and forward again, and gives what is wrong with what the journal then says.
func rolls(ctx context.Context, o options) (*rolledOut, error) {
	programs, err := builds(ctx, o.dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &roll{options: o, programs: programs, track: newTrack(o.app), nodes: make([]*child, nodeCount), releases: make([]string, nodeCount)}
	admin, err := kafka.Dial(kafka.Config{Brokers: o.brokers})
	if err != nil {
		return nil, err
	}
	_, err = kafka.Plan(kafka.PlanOptions{App: o.app, Partitions: rollShards, Replication: 1, MinISR: 1, Inputs: []string{o.app + "-orders"}, Commands: []string{o.app + "-work"}, Create: true}).Apply(ctx, admin)
	admin.Close()
	if err != nil {
		return nil, err
	}
	rec, err := checker.NewRecorder(ctx, o.app, o.brokers, []string{o.app + "-orders", o.app + "-work"}, r.track.watch)
	if err != nil {
		return nil, err
	}
	defer rec.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ledger := participant.NewMemory()
	part := participant.New(participant.Config{App: o.app, Name: "work", Brokers: o.brokers, Ledger: ledger, Logger: slog.New(slog.DiscardHandler), Workers: 4096})
	r.handle(part)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { _ = part.Run(ctx) })
	defer func() {
		for _, c := range r.nodes {
			if c != nil {
				c.kill()
			}
		}
	}()
	if err := r.story(ctx, cl); err != nil {
		return nil, err
	}
	for _, c := range r.nodes {
		if err := c.term(takeOverTime); err != nil {
			return nil, err
		}
	}
	late, stop := context.WithTimeout(ctx, takeOverTime)
	defer stop()
	ev, err := rec.Finish(late)
	if err != nil {
		return nil, err
	}
	var effects bytes.Buffer
	if err := participant.WriteEffects(&effects, ledger); err != nil {
		return nil, err
	}
	applied, err := checker.ReadLedger(&effects)
	if err != nil {
		return nil, err
	}
	ev.Ledgers = append(ev.Ledgers, applied)
	return r.judge(ev)
}

// story is what happens.
func (r *roll) story(ctx context.Context, cl *kgo.Client) (err error) {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(r.out, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if err := r.rollOut("1"); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan error, 1)
	go func() { loaded <- r.load(loading, cl) }()
	step := func(what string, do func() error) {
		if err == nil {
			if err = do(); err == nil {
				say("%s; %d orders", what, r.placed.Load())
			}
		}
	}
	more := func() error { return r.ended(2 * rollRate) }
	step("build 1 is everywhere", more)
	step("sagas of version 1 are begun and not answered", func() error { return r.hold("1") })
	step("rolled forward", func() error { return r.rollOut("2") })
	r.letGo()
	step("build 2 ends what build 1 began", more)
	step("sagas of version 2 are begun and not answered", func() error { return r.hold("2") })
	step("rolled back", func() error { return r.rollOut("1") })
	r.letGo()
	step("what build 1 cannot run waits, and says so", func() error {
		return r.asked("inputs wait for version 2", func(n int, on []string) bool {
			r.waiting = max(r.waiting, n)
			return n >= rollRate && slices.Equal(on, []string{"order 2"})
		})
	})
	step("their neighbours go on", more)
	step("rolled forward again", func() error { return r.rollOut("2") })
	step("nothing waits", func() error { return r.asked("nothing waits", func(n int, _ []string) bool { return n == 0 }) })
	stop()
	step("the load has stopped", func() error { return <-loaded })
	step("all sagas are final", func() error {
		return r.track.until(endTime, "they are", func() bool { return r.track.final >= int(r.placed.Load()) })
	})
	return err
}

// rolledOut is what a roll has to show.
type rolledOut struct {
	report  *checker.Report
	orders  int
	waiting int
	began   map[string]int // sagas, by version
	crossed int            // sagas that were decided by nodes of both builds
	strange []string       // what decided a saga that is not its own
}

// judge holds the journal against the rule: what decides an instance is its own version, in a build that has it.
func (r *roll) judge(ev *checker.Evidence) (*rolledOut, error) {
	out := &rolledOut{orders: int(r.placed.Load()), waiting: r.waiting, began: map[string]int{}}
	o := checker.Options{Quiescent: true, Plans: map[string]*sagas.Plan{}, Starts: map[string][]string{r.app + "-orders": {"placed"}}}
	for _, d := range rolled(r.app, "2") {
		p, err := d.Plan()
		if err != nil {
			return nil, err
		}
		o.Plans[checker.PlanName(p)] = p
	}
	out.report = checker.Check(ev, o)
	versions := map[events.InstanceID]string{} // and the hash of the tree
	by := map[events.InstanceID]map[string]bool{}
	for shard := range int32(rollShards) {
		log, st, node := ev.Log(r.app+".journal", shard), journal.NewState(), ""
		for i := range log.Records {
			m := &log.Records[i]
			v, rec, err := st.Fold(m.Offset, m.Offset == 0, bytes.Clone(m.Value), &store.Batch{})
			if err != nil {
				return nil, err
			}
			if rec.Claim != nil {
				node = rec.Claim.Node
			}
			d := rec.Decision
			if v != journal.Accepted || d == nil {
				continue
			}
			strange := func(format string, args ...any) {
				out.strange = append(out.strange, fmt.Sprintf("%s: %s", m.Place(), fmt.Sprintf(format, args...)))
			}
			if d.Outcome == events.Quarantined {
				strange("quarantined: %s", d.Reason)
			}
			if d.Instance.IsZero() {
				continue
			}
			for i := range d.Rows {
				if d.Rows[i].Ref.Part != events.PartHead || !d.Rows[i].Of.IsZero() || d.Rows[i].Gone {
					continue
				}
				h, err := events.DecodeHead(d.Rows[i].Value)
				if err != nil {
					return nil, err
				}
				ref := fmt.Sprintf("%s %x", h.Version, h.DefHash)
				switch was, known := versions[d.Instance]; {
				case !known:
					versions[d.Instance], by[d.Instance] = ref, map[string]bool{}
					out.began[h.Version]++
				case was != ref:
					strange("an instance of version %s is now one of %s", was, ref)
				}
				if h.State == events.Parked {
					strange("parked: %s", d.Reason)
				}
			}
			version, _, _ := strings.Cut(versions[d.Instance], " ")
			if version == "2" && strings.HasPrefix(node, "build1-") {
				strange("%s decided for an instance of version 2: %s %s", node, d.Outcome, d.Input.Kind)
			}
			for i := range d.Emits {
				if e := &d.Emits[i]; e.Kind == events.EmitCommand && !strings.HasSuffix(e.Type, "."+version) {
					strange("an instance of version %s emits %s", version, e.Type)
				}
			}
			if b := by[d.Instance]; b != nil && !b[node[:len("build1")]] {
				if b[node[:len("build1")]] = true; len(b) == 2 {
					out.crossed++
				}
			}
		}
	}
	return out, nil
}

// verdict says what is missing for the roll to have shown what it is for.
func (o *rolledOut) verdict() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(len(o.strange) == 0, "%d decisions are not their instance's own: %s", len(o.strange), strings.Join(o.strange[:min(10, len(o.strange))], "; "))
	want(len(o.report.Violations)+o.report.Suppressed == 0, "%d violations", len(o.report.Violations)+o.report.Suppressed)
	want(len(o.report.Limits) == 0, "the checker could not judge everything: %s", strings.Join(o.report.Limits, "; "))
	final := o.report.Instances[events.Completed.String()] + o.report.Instances[events.Compensated.String()]
	want(final == o.orders, "%d of %d orders have a final saga", final, o.orders)
	want(o.report.Instances[events.Compensated.String()] > 0, "none compensated")
	want(o.began["1"] > 0 && o.began["2"] > 0, "sagas by version: %v", o.began)
	want(o.crossed >= rollRate, "only %d sagas of version 1 went over to the other build", o.crossed)
	return errors.Join(errs...)
}

func (o *rolledOut) String() string {
	return fmt.Sprintf("orders %d, sagas by version %v, %d decided by both builds, %d inputs waited\n%s", o.orders, o.began, o.crossed, o.waiting, o.report)
}
