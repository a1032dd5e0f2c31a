package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/skald-io/skald/events"
)

// track follows the journal while it is recorded, just closely enough to steer by: who owns what, and how many
// instances have ended. It is safe for concurrent use.
type track struct {
	app string

	mu      sync.Mutex
	changed *sync.Cond
	owners  map[int32]owner
	seen    map[events.InstanceID]bool // true once it is final
	final   int
	ended   map[string]bool // business keys
	active  time.Time       // when a record of consequence was last seen
	byNonce map[events.Nonce]map[int32]int64
}

// owner is the last claim of a shard.
type owner struct {
	node   string
	nonce  events.Nonce
	offset int64
	seen   time.Time
}

func newTrack(app string) *track {
	t := &track{app: app, owners: map[int32]owner{}, seen: map[events.InstanceID]bool{}, ended: map[string]bool{}, byNonce: map[events.Nonce]map[int32]int64{}, active: time.Now()}
	t.changed = sync.NewCond(&t.mu)
	return t
}

func (t *track) watch(m events.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Topic != t.app+".journal" {
		t.active = time.Now()
		return
	}
	rec, err := events.DecodeRecord(m.Value)
	if err != nil {
		return
	}
	if rec.Kind != events.KindClaim {
		if t.byNonce[rec.Nonce] == nil {
			t.byNonce[rec.Nonce] = map[int32]int64{}
		}
		t.byNonce[rec.Nonce][m.Partition] = m.Offset
	}
	switch {
	case rec.Claim != nil:
		t.owners[m.Partition] = owner{rec.Claim.Node, rec.Nonce, m.Offset, time.Now()}
	case rec.Decision != nil && rec.Decision.Outcome != events.Progressed:
		t.active = time.Now()
		d := rec.Decision
		if d.Instance.IsZero() || d.Purge || rec.Nonce != t.owners[m.Partition].nonce {
			break
		}
		for i := range d.Rows {
			if d.Rows[i].Ref.Part != events.PartHead {
				continue
			}
			h, err := events.DecodeHead(d.Rows[i].Value)
			if err != nil {
				break
			}
			if !t.seen[d.Instance] && h.State.Final() {
				t.final++
				t.ended[h.Key] = true
			}
			t.seen[d.Instance] = t.seen[d.Instance] || h.State.Final()
		}
	}
	t.changed.Broadcast()
}

// until waits for a condition, which is asked under the lock after every record of the journal.
func (t *track) until(timeout time.Duration, what string, ok func() bool) error {
	late := time.Now().Add(timeout)
	timer := time.AfterFunc(timeout, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.changed.Broadcast()
	})
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !ok() {
		if !time.Now().Before(late) {
			return fmt.Errorf("not within %v: %s (%s)", timeout, what, t.describe())
		}
		t.changed.Wait()
	}
	return nil
}

// shardsOf are the shards whose last claim is by the node. It is called with the lock held, as all below.
func (t *track) shardsOf(node string) []int32 {
	var out []int32
	for s, o := range t.owners {
		if o.node == node {
			out = append(out, s)
		}
	}
	return out
}

func (t *track) describe() string {
	count := map[string]int{}
	for _, o := range t.owners {
		count[o.node]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d instances, %d final; shards:", len(t.seen), t.final)
	for n, k := range count {
		fmt.Fprintf(&b, " %s %d", n, k)
	}
	return b.String()
}
