package orchestrator

import (
	"fmt"
	"testing"

	"github.com/skald-io/skald/events"
)

// slow is a cluster that answers for the first message to a topic only when it is asked to.
type slow struct {
	*model
	topic string
	first *func(error)
}

func (m slow) Produce(msg *events.Message, done func(error)) {
	if msg.Topic == m.topic && *m.first == nil {
		*m.first = done
		return
	}
	m.model.Produce(msg, done)
}

// Progress waits for the oldest command of a topic; thousands that are done may be behind it, and their records must not
// be kept in memory for that.
func TestADoneCommandBehindOneThatIsOpenKeepsNothingOfItsRecord(t *testing.T) {
	st := newStory(t, 1, oneStep)
	a := st.open(0, "a")
	var answer func(error)
	a.cfg.Kafka = slow{st.kafka, "payments", &answer}
	for i := range 5 {
		st.order(0, fmt.Sprint(i))
	}
	must(t, st.turn(a))
	sent := a.emits.topics["payments"].sent
	if len(sent) != 5 || a.emits.open != 1 {
		t.Fatalf("%d commands are remembered and %d open, want 5 and 1", len(sent), a.emits.open)
	}
	for i, e := range sent {
		if open := i == 0; e.done == open || (e.rec != nil) != open || (e.message.Value != nil) != open {
			t.Errorf("command %d: done %v, and it keeps %v and %s", i, e.done, e.rec, e.message.Value)
		}
	}
	answer(nil)
	must(t, st.turn(a))
	if n := len(a.emits.topics["payments"].sent); n != 0 || a.emits.open != 0 {
		t.Errorf("%d commands are remembered and %d open after the last answer", n, a.emits.open)
	}
}
