package checker

import (
	"errors"
	"fmt"

	"github.com/skald-io/skald/events"
)

// place is a position in a topic, as an input is named.
type place struct {
	topic     string
	partition int32
	offset    int64
}

func (p place) String() string { return fmt.Sprintf("%s/%d/%d", p.topic, p.partition, p.offset) }

// accepted is one record that counts, with where it stands.
type accepted struct {
	shard  int32
	offset int64
	rec    *events.Record
}

// at is a violation at this record.
func (a *accepted) at(c *check, rule Rule, step, format string, args ...any) {
	v := Violation{Rule: rule, Topic: c.topics.Journal(), Partition: a.shard, Offset: a.offset, Seq: a.rec.Seq, Step: step, Detail: fmt.Sprintf(format, args...)}
	if a.rec.Decision != nil {
		v.Instance = text(a.rec.Decision.Instance)
	}
	c.report.add(v)
}

// fold reads one shard's journal by the rules L1 and L2, written out naively once more:
//
//   - the last claim wins;
//   - of the current claim's records the one that has the next sequence and the hash of the last accepted record
//     counts; one with a lower sequence was there before; anything else ends the epoch until a claim;
//   - of any other claim nothing counts;
//   - a checkpoint at the start of a trimmed journal is believed.
func (c *check) fold(shard int32, log *Log) (whole bool, out []accepted) {
	var (
		claim     *Epoch // the current one
		open      bool
		seq       uint64
		hash      events.Hash
		now       int64
		term      uint64 // of the last epoch that decided
		epochs    []*Epoch
		byNonce   = map[string]*Epoch{}
		truncated = log.First > 0
	)
	begin := func(rec *events.Record, node string, offset int64) {
		if claim != nil && claim.Nonce == rec.Nonce.String() {
			open = true // the same claim again
			return
		}
		claim, open = &Epoch{Shard: shard, Node: node, Nonce: rec.Nonce.String(), Term: rec.Term, Offset: offset, FirstAccepted: -1, LastAccepted: -1, LastRefused: -1}, true
		epochs = append(epochs, claim)
		byNonce[claim.Nonce] = claim
	}
	whole = !truncated
	for i := range log.Records {
		m := &log.Records[i]
		c.report.Records++
		rec, err := events.DecodeRecord(m.Value)
		if err != nil {
			if errors.Is(err, events.ErrNewerFormat) {
				c.report.limit("shard %d: from offset %d on its journal is %v", shard, m.Offset, err)
				break
			}
			c.report.limit("shard %d: the record at offset %d of its journal is damaged and was passed over: %v", shard, m.Offset, err)
			continue
		}
		if i == 0 && truncated {
			switch {
			case rec.Kind == events.KindCheckpoint:
				begin(rec, rec.Checkpoint.Claim.Node, m.Offset)
				seq, hash, now, term = rec.Seq-1, rec.Prev, rec.Time, rec.Term
			case rec.Kind == events.KindClaim && rec.Term == 1:
				whole = true // all of it, copied to where offsets begin higher
			default:
				c.report.add(Violation{Rule: RuleJournalStart, Topic: c.topics.Journal(), Partition: shard, Offset: m.Offset, Seq: rec.Seq,
					Detail: fmt.Sprintf("the trimmed journal begins with a %s", rec.Kind)})
				return false, nil
			}
		}
		if rec.Kind == events.KindClaim {
			begin(rec, rec.Claim.Node, m.Offset)
			if n := int(rec.Claim.Shards); n > 0 {
				c.shards = n
			}
			continue
		}
		if claim == nil || rec.Nonce.String() != claim.Nonce {
			if e := byNonce[rec.Nonce.String()]; e != nil {
				e.Refused++
				e.LastRefused = m.Offset
			}
			continue
		}
		switch {
		case !open:
			claim.Refused++
			claim.LastRefused = m.Offset
			continue
		case rec.Seq <= seq:
			claim.Duplicates++
			continue
		case rec.Seq != seq+1 || rec.Prev != hash:
			open = false
			claim.Refused++
			claim.LastRefused = m.Offset
			continue
		}
		a := accepted{shard, m.Offset, rec}
		if claim.Accepted == 0 {
			claim.FirstAccepted = m.Offset
			if claim.Term < term {
				a.at(c, RuleTerm, "", "the epoch of %s has term %d, after one of term %d decided", claim.Node, claim.Term, term)
			}
			term = max(term, claim.Term)
		}
		claim.Accepted++
		claim.LastAccepted = m.Offset
		if rec.Time < now {
			a.at(c, RuleTime, "", "its time is %s, the record before it had %s", events.Timestamp(rec.Time), events.Timestamp(now))
		}
		now = max(now, rec.Time)
		seq, hash = rec.Seq, events.HashOf(m.Value)
		c.report.Accepted++
		out = append(out, a)
	}
	for _, e := range epochs {
		c.report.Epochs = append(c.report.Epochs, *e)
	}
	return whole, out
}

// rows are a shard's rows, of which only what a check needs is kept.
type rows map[string]image

type image struct {
	due   int64
	sum   events.Hash
	after uint64 // sequence of the record it comes from
}

// apply keeps the rows up to date and holds carries against them.
func (c *check) apply(a *accepted, rs rows, whole bool) {
	switch a.rec.Kind {
	case events.KindDecision:
		d := a.rec.Decision
		if d.Purge {
			if inst := c.instances[d.Instance]; inst != nil {
				for ref := range inst.refs {
					delete(rs, string(events.RowKey(d.Instance, ref)))
				}
				clear(inst.refs)
			}
		}
		for i := range d.Rows {
			r := &d.Rows[i]
			id := d.Whose(r)
			key, inst := string(events.RowKey(id, r.Ref)), c.instances[id]
			if inst == nil && id != d.Instance {
				inst = c.instance(id, a.shard)
				inst.entity = entityRow(r.Ref.Part)
			}
			if r.Gone {
				delete(rs, key)
			} else {
				rs[key] = image{r.Due, events.HashOf(r.Value), a.rec.Seq}
			}
			if inst != nil {
				if r.Gone {
					delete(inst.refs, r.Ref)
				} else {
					inst.refs[r.Ref] = true
				}
			}
		}
	case events.KindCarry:
		for i := range a.rec.Carry.Rows {
			r := &a.rec.Carry.Rows[i]
			c.report.Carries++
			id, ref, ok := events.ParseRowKey(r.Key)
			if !ok {
				continue
			}
			is := image{r.Due, events.HashOf(r.Value), a.rec.Seq}
			was, known := rs[string(r.Key)]
			switch {
			case ref.Part == events.PartHistory:
				continue
			case known && (was.due != is.due || was.sum != is.sum):
				a.at(c, RuleCarry, "", "it carries row %s %d of instance %s, due %d, as it never was after sequence %d (due %d)", ref.Part, ref.N, id, r.Due, was.after, was.due)
			case !known && whole:
				a.at(c, RuleCarry, "", "it carries row %s %d of instance %s, which is not there", ref.Part, ref.N, id)
			}
			rs[string(r.Key)] = is
			inst := c.instance(id, a.shard)
			inst.refs[ref] = true
			inst.entity = inst.entity || entityRow(ref.Part)
			if !whole {
				inst.partial = true
			}
			if ref.Part == events.PartHead && inst.partial {
				if h, err := events.DecodeHead(r.Value); err == nil {
					inst.head(h, a.rec.Seq)
				}
			}
		}
		if a.rec.Carry.End != 0 {
			c.report.Rounds++
		}
	case events.KindCheckpoint:
		c.checkpoint(a, whole)
	}
}
