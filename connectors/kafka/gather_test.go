package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sentTo is a producer that keeps what it is handed, and answers when it is told to.
type sentTo struct {
	sync.Mutex
	values []string
}

func (s *sentTo) Produce(_ context.Context, r *kgo.Record, _ func(*kgo.Record, error)) {
	s.Lock()
	defer s.Unlock()
	s.values = append(s.values, string(r.Value))
}

func record(value string) *kgo.Record { return &kgo.Record{Value: []byte(value)} }

func (s *sentTo) want(t *testing.T, when string, values ...string) {
	t.Helper()
	s.Lock()
	defer s.Unlock()
	if !slices.Equal(s.values, values) {
		t.Errorf("%s %q were handed over, want %q", when, s.values, values)
	}
}

func TestARecordIsHeldOnlyWhileThereMayBeCompany(t *testing.T) {
	to := &sentTo{}
	g := newGatherer(0, to)
	g.add(record("a"), nil, nil)
	to.want(t, "alone and at once,", "a")
	g.add(record("b"), nil, nil)
	g.add(record("c"), nil, nil)
	to.want(t, "before the first was answered,", "a")
	g.answered()
	to.want(t, "after the answer,", "a", "b", "c")
	g.answered()
	g.add(record("d"), nil, nil)
	to.want(t, "while c is not answered,", "a", "b", "c")
	g.answered()
	g.answered()
	to.want(t, "after all answers,", "a", "b", "c", "d")
}

func TestWhatIsAddedInOneGoLeavesTogether(t *testing.T) {
	to := &sentTo{}
	g := newGatherer(0, to)
	g.begin()
	g.begin() // another shard
	g.add(record("a"), nil, nil)
	g.end()
	g.add(record("b"), nil, nil)
	to.want(t, "while somebody is at it,")
	g.end()
	to.want(t, "when nobody is,", "a", "b")
}

func TestNothingIsHeldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sentTo{}
		g := newGatherer(0, to)
		for _, value := range []string{"a", "b", "c"} { // the answer to a never comes
			g.add(record(value), nil, nil)
		}
		time.Sleep(maxHold - time.Microsecond)
		synctest.Wait()
		to.want(t, "shortly before its time,", "a")
		time.Sleep(time.Microsecond)
		synctest.Wait()
		to.want(t, "when it was held long enough,", "a", "b", "c")
		g.add(record("d"), nil, nil)
		time.Sleep(maxHold)
		synctest.Wait()
		to.want(t, "the next time,", "a", "b", "c", "d")
		g.add(record("e"), nil, nil)
		much := strings.Repeat("f", maxHeldBytes)
		g.add(record(much), nil, nil)
		to.want(t, "when there is much of it,", "a", "b", "c", "d", "e", much)
	})
}

func TestALingerThatIsSetIsTheProducersOwn(t *testing.T) {
	for _, linger := range []time.Duration{NoLinger, time.Second} {
		to := &sentTo{}
		g := newGatherer(linger, to)
		g.begin()
		g.add(record("a"), nil, nil)
		g.add(record("b"), nil, nil)
		to.want(t, "at once,", "a", "b")
		g.end()
	}
}

// Whoever waited for the append was told that its outcome is unknown, and decides anew: it had better not arrive.
func TestAHeldAppendIsNotSentAfterOneThatFailed(t *testing.T) {
	to := &sentTo{}
	c := &Client{appends: newGatherer(0, to)}
	l := c.Log("journal", 0).(*journal)
	told := make(chan error, 3)
	for _, value := range []string{"first", "second", "third"} {
		l.Append([]byte(value), func(_ int64, err error) { told <- err })
	}
	l.acknowledged(&l.pending[0].record, errors.New("no answer in time"))
	for range 3 {
		if err := <-told; err == nil {
			t.Error("an append behind a failed one is said to have arrived")
		}
	}
	c.appends.flush()
	to.want(t, "after the failure,", "first")
}

// forwarding is a producer that hands on each record through a channel, in the order in which it was given.
type forwarding chan *kgo.Record

func (f forwarding) Produce(_ context.Context, r *kgo.Record, _ func(*kgo.Record, error)) { f <- r }

func TestRecordsLeaveInTheirOrderWhoeverHandsThemOver(t *testing.T) {
	const n = 5000
	to := make(forwarding, n)
	g := newGatherer(0, to)
	go func() {
		for i := range n {
			if i%7 == 0 {
				g.begin()
			}
			g.add(&kgo.Record{Offset: int64(i)}, nil, nil)
			if i%7 == 6 || i == n-1 {
				g.end()
			}
		}
	}()
	for i := range n {
		if r := <-to; r.Offset != int64(i) {
			t.Fatalf("record %d leaves when %d is next", r.Offset, i)
		}
		g.answered()
	}
}
