package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// membership is this node's part in the application: what it says of itself in the meta topic, and what it does
// about what others say there. Nothing that owning or deciding needs waits for it.
type membership struct {
	e       *Engine
	meta    *meta
	address string // at which other nodes reach this one; "": at none
	started int64  // ms since 1970
	peers   *peers

	wake   chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	wants map[int32]events.DefinitionRef // of shards that this node owned and has inputs for which it lacks that

	// The loop's own.
	said     []byte              // what this node last published
	seen     map[string]sighting // nodes by key
	common   uint8               // the newest format that all nodes read
	since    time.Time           // since when that is so
	swept    time.Time           // when dead nodes were last looked for
	rejoined time.Time           // when a rebalance was last asked for
	patience time.Duration       // until the next one
}

// sighting is when a node's present record was first seen here.
type sighting struct {
	offset int64
	at     time.Time
}

const (
	sweepEvery   = 20 * time.Second
	deadAfter    = time.Minute     // a record whose member is in the group no more
	neverJoined  = 5 * time.Minute // a record of a node that joined no group
	rejoinFirst  = time.Second     // between two rebalances asked for, growing
	rejoinLast   = time.Minute
	announceWait = 10 * time.Second // for one record
)

// enter makes this node known before it joins the group, and refuses an application that has moved on to a format it
// does not read. Whoever raises the level later reads of this node first.
func (e *Engine) enter(ctx context.Context, m *meta, l layout) (*membership, error) {
	s := &membership{e: e, meta: m, started: time.Now().UnixMilli(), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		wants: map[int32]events.DefinitionRef{}, seen: map[string]sighting{}, patience: rejoinFirst}
	if err := m.publish(ctx, e, l); err != nil {
		return nil, err
	}
	if err := s.retire(ctx); err != nil {
		return nil, err
	}
	var err error
	if s.peers, err = newPeers(s); err != nil {
		return nil, err
	}
	s.address = s.peers.address
	if err = s.announce(ctx); err == nil {
		err = m.sync(ctx)
	}
	if err == nil {
		err = s.raiseNew(ctx, l)
	}
	if err == nil {
		err = m.checkLevel()
	}
	bg, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if err != nil {
		close(s.ended)
		s.leave()
		return nil, err
	}
	go s.run(bg)
	return s, nil
}

// leave takes this node's record back; it is called once the group was left.
func (s *membership) leave() {
	s.cancel()
	<-s.ended
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := s.meta.put(ctx, events.NodeKey(s.e.cfg.Node), nil); err != nil {
		s.e.log.Debug("this node's record stays in the meta topic until others find it dead", "err", err)
	}
	// Others may ask until now; a refused connection would be taken for a death.
	s.peers.close()
}

func (m *meta) checkLevel() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Level > events.Format {
		return fmt.Errorf("%w: level %d, and this build (%s) reads up to %d: start a newer build", ErrLevel, m.state.Level, Build(), events.Format)
	}
	return nil
}

// poke makes the loop look at what changed on this node.
func (s *membership) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// waits notes that a shard of this node has inputs for a definition that it lacks.
func (s *membership) waits(shard int32, d events.DefinitionRef) {
	s.mu.Lock()
	s.wants[shard] = d
	s.mu.Unlock()
	s.poke()
}

func (s *membership) run(ctx context.Context) {
	defer close(s.ended)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		changed := s.meta.next()
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.e.log.Warn("the meta topic cannot be written; trying on", "err", err)
		}
		select {
		case <-changed:
		case <-s.wake:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look does what is due now.
func (s *membership) look(ctx context.Context) error {
	if err := s.meta.checkLevel(); err != nil {
		s.e.fail(err)
		return nil
	}
	nodes := s.meta.nodes()
	s.peers.follow(nodes)
	if s.notice(nodes) {
		s.e.cfg.Kafka.Rejoin(s.e.cfg.App) // its shards are given out: be there at once
	}
	s.rebalance()
	return errors.Join(s.announce(ctx), s.raise(ctx, nodes), s.sweep(ctx, nodes))
}

// info is what this node says of itself.
func (s *membership) info() *events.NodeInfo {
	e := s.e
	n := &events.NodeInfo{Name: e.cfg.Node, Address: s.address, Member: e.cfg.Kafka.MemberID(e.cfg.App), Build: Build(), Format: events.Format, Started: s.started, Definitions: s.meta.own}
	e.mu.Lock()
	n.Generation = e.generation
	n.Shards = slices.Sorted(maps.Keys(e.runners))
	e.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, shard := range slices.Sorted(maps.Keys(s.wants)) {
		n.Waiting = append(n.Waiting, events.WaitingShard{Shard: shard, Definition: s.wants[shard]})
	}
	return n
}

// announce publishes what this node says of itself, if it changed or somebody took it for dead.
func (s *membership) announce(ctx context.Context) error {
	rec := &events.MetaRecord{Node: s.info()}
	value := rec.Encode(nil)
	known, ok := s.meta.node(s.e.cfg.Node)
	if ok && known.Started != s.started && s.said != nil {
		return fmt.Errorf("another process calls itself node %s: give each a name of its own", s.e.cfg.Node)
	}
	if bytes.Equal(value, s.said) && ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, announceWait)
	defer cancel()
	if err := s.meta.put(ctx, events.NodeKey(s.e.cfg.Node), rec); err != nil {
		return err
	}
	s.said = value
	return nil
}

// notice remembers since when nodes are as they are, and says whether one is gone.
func (s *membership) notice(nodes map[string]events.KnownNode) (gone bool) {
	for key, n := range nodes {
		if was, ok := s.seen[key]; !ok || was.offset != n.Offset {
			s.seen[key] = sighting{n.Offset, time.Now()}
		}
	}
	for key := range s.seen {
		if _, ok := nodes[key]; !ok {
			delete(s.seen, key)
			gone = true
		}
	}
	return gone
}

// rebalance asks for one when a shard would be better off elsewhere. Only the group's leader brings one about.
func (s *membership) rebalance() {
	if !s.meta.better() {
		s.patience = rejoinFirst
		return
	}
	if time.Since(s.rejoined) < s.patience {
		return
	}
	s.rejoined, s.patience = time.Now(), min(2*s.patience, rejoinLast)
	s.e.cfg.Kafka.Rejoin(s.e.cfg.App)
}

// raise lifts the format's level to what every node has read for long enough (L13).
func (s *membership) raise(ctx context.Context, nodes map[string]events.KnownNode) error {
	common := s.meta.common()
	if common != s.common {
		s.common, s.since = common, time.Now()
	}
	if common <= s.meta.level() || s.e.cfg.FormatAfter < 0 || time.Since(s.since) < s.e.cfg.FormatAfter {
		return nil
	}
	s.since = time.Now() // not again at once
	members, err := s.e.cfg.Kafka.Members(ctx, s.e.cfg.App)
	if err != nil {
		return err
	}
	for _, id := range members {
		if !hasMember(nodes, id) && !mutant.On("engine-level-ignores-silent-members") {
			s.e.log.Debug("the format stays: there is a member of a build that says nothing of itself", "member", id)
			return nil
		}
	}
	return s.meta.putLevel(ctx, common, s.e)
}

func hasMember(nodes map[string]events.KnownNode, id string) bool {
	for _, n := range nodes {
		if n.Member == id {
			return true
		}
	}
	return false
}

// raiseNew lifts the level of an application that has not written anything yet.
func (s *membership) raiseNew(ctx context.Context, l layout) error {
	common := s.meta.common()
	if common <= s.meta.level() || s.e.cfg.FormatAfter < 0 {
		return nil
	}
	var tps []TopicPartition
	for p := range l.shards {
		tps = append(tps, TopicPartition{s.e.topics.Journal(), int32(p)})
	}
	bounds, err := s.e.cfg.Kafka.Bounds(ctx, tps)
	if err != nil {
		return err
	}
	for _, b := range bounds {
		if b.End > 0 {
			return nil
		}
	}
	// The coordinator of a group that is new may take its time; the level can be raised later.
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if members, err := s.e.cfg.Kafka.Members(short, s.e.cfg.App); err != nil || len(members) > 0 {
		return nil
	}
	if err := s.meta.putLevel(ctx, common, s.e); err != nil {
		return err
	}
	return s.meta.sync(ctx)
}

func (m *meta) putLevel(ctx context.Context, level uint8, e *Engine) error {
	e.log.Info("raising the journal's format", "level", level)
	return m.put(ctx, events.LevelKey, &events.MetaRecord{Level: &events.FormatLevel{Level: uint32(level), Node: e.cfg.Node}})
}

// level is the application's, also one that this build does not know.
func (m *meta) level() uint8 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Level
}

func (m *meta) common() uint8 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Common()
}

// sweep removes the records of nodes that died without taking them back, and of trees that came too late.
func (s *membership) sweep(ctx context.Context, nodes map[string]events.KnownNode) error {
	if time.Since(s.swept) < sweepEvery {
		return nil
	}
	s.swept = time.Now()
	members, err := s.e.cfg.Kafka.Members(ctx, s.e.cfg.App)
	if err != nil {
		return err
	}
	var errs []error
	for key, n := range nodes {
		quiet := time.Since(s.seen[key].at)
		dead := n.Member != "" && !slices.Contains(members, n.Member) && quiet > deadAfter || n.Member == "" && quiet > neverJoined
		if n.Name == s.e.cfg.Node || !dead {
			continue
		}
		s.e.log.Info("a node is gone", "gone", n.Name, "address", n.Address)
		errs = append(errs, s.meta.put(ctx, key, nil))
	}
	for _, d := range s.meta.late() {
		errs = append(errs, s.meta.put(ctx, events.DefinitionKey(d), nil))
	}
	return errors.Join(errs...)
}

// late are the trees that were published under a name and version which stood for another one.
func (m *meta) late() (out []events.DefinitionRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, list := range m.state.Definitions {
		for i := range list[1:] {
			out = append(out, list[1+i].Ref())
		}
	}
	return out
}

// retire removes definitions that Config.Retired names: their events are nobody's any more.
func (s *membership) retire(ctx context.Context) error {
	var gone []events.DefinitionRef
	s.meta.mu.Lock()
	for _, list := range s.meta.state.Definitions {
		for i := range list {
			if slices.Contains(s.e.cfg.Retired, list[i].Name) {
				gone = append(gone, list[i].Ref())
			}
		}
	}
	s.meta.mu.Unlock()
	for _, d := range gone {
		if err := s.meta.put(ctx, events.DefinitionKey(d), nil); err != nil {
			return fmt.Errorf("retiring definition %s version %s: %w", d.Name, d.Version, err)
		}
	}
	return nil
}
