package orchestrator

import (
	"errors"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator/machine"
)

// maxWaiting bounds the inputs of one partition that wait for a definition. Beyond it the partition stands still: no
// more fits into what a checkpoint says of it.
const maxWaiting = 8192

// absent is what a shard knows of instances and events whose definition this node does not have (L12). They wait
// where they stand: the position does not pass them, so that the next owner reads them again, and nothing is
// journaled. A node's definitions do not change while it runs, so none of them is looked at twice.
type absent struct {
	instances map[events.InstanceID]bool // with timers that were passed over
	told      map[string]bool            // definitions by name, version and hash
	waiting   int64
	format    bool // some wait for a newer format of the journal
}

// leave takes the shard's share out of the node's count.
func (a *absent) leave(stats *shardStats) {
	stats.waiting.Add(-a.waiting)
	a.waiting = 0
}

// wait sets an input aside for a node that has the definition. Its neighbours go on.
func (s *Shard) wait(in *input, offset int64, origin *events.Origin, ref events.DefinitionRef) {
	if origin != nil && !mutant.On("shard-origin-passes-waiting") {
		s.openOrigin(origin) // it was forwarded, and no later forward's low mark may pass it
	}
	if !mutant.On("shard-position-passes-waiting") {
		in.begin(offset)
		in.waiting = append(in.waiting, offset)
	}
	s.absent.waiting++
	s.stats.waiting.Add(1)
	s.tellWaiting(ref)
	if len(in.waiting) == maxWaiting {
		s.log.Error("this input stands still: too many of its records wait for a definition that this node does not have", "code", CodeDefinitionMissing,
			"topic", in.tp.Topic, "partition", in.tp.Partition, "waiting", len(in.waiting), "definition", ref.Name, "version", ref.Version)
	}
}

// errLevelRaised ends a shard in which inputs waited for a newer format: it is opened again and takes them up.
var errLevelRaised = errors.New("the journal's format was raised: inputs that waited for it are taken up")

// sayable gives the decision, or, when the application's level has no words for it, one that waits: older builds
// are still about, and would read the record wrongly (L13). Only what no older build could have begun waits so.
func (s *Shard) sayable(d *events.Decision) *events.Decision {
	if d == nil || d.NeedsFormat() <= s.cfg.Meta.Level() || mutant.On("shard-writes-beyond-the-level") {
		return d
	}
	if !s.absent.format {
		s.absent.format = true
		s.log.Warn("inputs wait until every node of the application reads the newer format of the journal", "code", CodeFormatAwaited, "level", s.cfg.Meta.Level(), "needs", d.NeedsFormat(), "instance", d.Instance)
	}
	return &events.Decision{Outcome: machine.Waits, Instance: d.Instance, Reason: CodeFormatAwaited}
}

// awaited is the definition that a decision waits for; the zero value when it is not a definition that it waits for.
func (s *Shard) awaited(d *events.Decision, id events.InstanceID) events.DefinitionRef {
	if d.Reason == CodeFormatAwaited {
		return events.DefinitionRef{}
	}
	return s.definitionOf(id)
}

// passOver remembers an instance whose timers nobody here can decide.
func (s *Shard) passOver(d *events.Decision, id events.InstanceID) {
	if s.absent.instances == nil {
		s.absent.instances = map[events.InstanceID]bool{}
	}
	s.absent.instances[id] = true
	s.tellWaiting(s.awaited(d, id))
}

func (s *Shard) tellWaiting(ref events.DefinitionRef) {
	key := events.DefinitionKey(ref)
	if ref.Name == "" || s.absent.told[key] {
		return
	}
	if s.absent.told == nil {
		s.absent.told = map[string]bool{}
	}
	s.absent.told[key] = true
	s.log.Warn("inputs wait for a definition that this node does not have; a node that has it will take the shard", "code", CodeDefinitionMissing, "definition", ref.Name, "version", ref.Version)
	if s.cfg.Waits != nil {
		s.cfg.Waits(ref)
	}
}

// definitionOf is the definition that an instance is pinned to.
func (s *Shard) definitionOf(id events.InstanceID) (ref events.DefinitionRef) {
	value, _, ok := s.overlay.Row(id, events.RowRef{Part: events.PartHead})
	if !ok {
		return ref
	}
	if h, err := events.DecodeHead(value); err == nil {
		ref = events.DefinitionRef{Name: h.Definition, Version: h.Version, Hash: h.DefHash}
	}
	return ref
}

// ask holds the input until the meta topic is read to its end, once for each record: who forwarded it knows a
// definition that takes it, and had published that before. It reports whether to wait for the answer.
func (s *Shard) ask(in *input, offset int64) bool {
	if s.cfg.Meta == nil || in.asked == offset+1 {
		return false
	}
	in.asking, in.next = true, offset
	s.aside(func() {
		if err := s.cfg.Meta.sync(s.bg); err != nil && s.bg.Err() == nil {
			s.log.Warn("the meta topic cannot be read", "err", err)
		}
		s.post(func(*Shard) error {
			in.asking, in.asked = false, offset+1
			return nil
		})
	})
	return true
}
