package machine

import (
	"fmt"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/sagas"
)

// A definition has one live instance for a business key. Who it is stands in a row of the key's own entity, which
// lives in the slot of the instance and is written in the decisions about it: its start, its end, its purge. An
// instance from before there were such rows has none; of its key nothing is known.

// Codes with which the Reason begins when a start is not taken because of its key.
const (
	ReasonKeyLive  = "key-live"
	ReasonKeyEnded = "key-ended"
)

var keyRef = events.RowRef{Part: events.PartKey}

func (m *Machine) keyID(definition, key string) events.InstanceID {
	return events.KeyID(m.cfg.App, definition, key, m.cfg.Slots)
}

// key reads what is known of a key.
func (w *work) key(id events.InstanceID) *events.KeyState {
	raw, _, found := w.entity(id).row(keyRef)
	if !found {
		return &events.KeyState{}
	}
	k, err := events.DecodeKeyState(raw)
	if err != nil {
		w.corrupt = true
		return &events.KeyState{}
	}
	return k
}

// keyAllows asks the policies of a start's definition. It gives nil when the instance may start, and else
// what becomes of the start.
func keyAllows(k *events.KeyState, in *Start) *events.Decision {
	if in.Keyless {
		return nil
	}
	p := in.Plan
	refuse := func(ignore bool, reason string) *events.Decision {
		d := &events.Decision{Outcome: events.Quarantined, Instance: in.Instance, Reason: reason}
		if ignore {
			d.Outcome = events.Ignored
		}
		return d
	}
	if !k.Live.IsZero() && !mutant.On("machine-two-live-instances") {
		return refuse(p.During == sagas.DuringIgnore, fmt.Sprintf("%s: instance %s of this key is not at its end", ReasonKeyLive, k.Live))
	}
	if k.Last.IsZero() {
		return nil
	}
	ended := fmt.Sprintf("%s: instance %s of this key ended %s", ReasonKeyEnded, k.Last, k.LastState)
	switch p.After {
	case sagas.AfterFailure:
		if k.LastState == events.Completed && !mutant.On("machine-completed-key-starts-again") {
			return refuse(p.During == sagas.DuringIgnore, ended)
		}
	case sagas.AfterQuarantine:
		return refuse(false, ended)
	case sagas.AfterIgnore:
		return refuse(true, ended)
	}
	return nil
}

// setKey writes a key's row; one that knows nothing any more is removed.
func (w *work) setKey(id events.InstanceID, k *events.KeyState) {
	if k.Live.IsZero() && k.Last.IsZero() {
		w.entity(id).remove(keyRef)
		return
	}
	w.entity(id).set(keyRef, 0, k.Encode(nil))
}

// keyStarts notes which instance of a key lives.
func (w *work) keyStarts(k *events.KeyState, in *Start) {
	if in.Keyless {
		return
	}
	k.Definition, k.Key, k.Live = in.Plan.Name, in.Key, in.Instance
	w.setKey(w.m.keyID(k.Definition, k.Key), k)
}

// keyEnds notes that the instance ended.
func (w *work) keyEnds() {
	id := w.m.keyID(w.head.Definition, w.head.Key)
	if k := w.key(id); k.Live == w.id && !mutant.On("machine-key-lives-for-ever") {
		k.Live, k.Last, k.LastState, k.LastEnded = events.InstanceID{}, w.id, w.head.State, w.now
		w.setKey(id, k)
	}
}

// keyForgets notes that the instance is purged.
func (w *work) keyForgets() {
	id := w.m.keyID(w.head.Definition, w.head.Key)
	if k := w.key(id); k.Last == w.id {
		k.Last, k.LastState, k.LastEnded = events.InstanceID{}, 0, 0
		w.setKey(id, k)
	}
}
