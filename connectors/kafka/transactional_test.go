package kafka_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// shard stands for the owner of a journal partition: record n stands at offset n, has sequence n+1, and
// emits one command whose key is n.
type shard struct {
	e  orchestrator.Emitter
	at orchestrator.Emitted

	mu   sync.Mutex
	told map[int64]error
}

func openShard(c *kafka.Client, app, journal, topic string) (*shard, error) {
	s := &shard{e: c.Transactions(orchestrator.EmitID(app, 0), orchestrator.EmitGroup(app), orchestrator.TopicPartition{Topic: journal}, []string{topic}), told: map[int64]error{}}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	s.at, err = s.e.Open(ctx)
	return s, err
}

func (s *shard) emit(n int64, topic string, size int) {
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(rand.Uint32()) // it cannot be compressed
	}
	m := &events.Message{Topic: topic, Partition: -1, Key: fmt.Append(nil, n), Value: value}
	s.e.Emit(orchestrator.Emitted{Next: n + 1, Seq: uint64(n) + 1}, []*events.Message{m}, func(_ int, err error) {
		s.mu.Lock()
		s.told[n] = err
		s.mu.Unlock()
	})
}

func (s *shard) outcome(n int64) (err error, told bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err, told = s.told[n]
	return err, told
}

func (s *shard) awaits(t *testing.T, n int64) error {
	t.Helper()
	var err error
	until(t, fmt.Sprintf("record %d is told of", n), func() (told bool) { err, told = s.outcome(n); return told })
	return err
}

// readCommitted gives the keys on a topic as a consumer sees them that reads committed records only.
func (b *broker) readCommitted(t *testing.T, topic string, want int) []string {
	t.Helper()
	cl := b.plain(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
	b.writeMark(t, topic)
	var keys []string
	for {
		f := cl.PollFetches(ctx(t))
		if err := f.Err0(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(keys), want, err)
		}
		for _, r := range f.Records() {
			if string(r.Key) == "end" {
				return keys
			}
			keys = append(keys, string(r.Key))
		}
	}
}

// writeMark ends a topic of one partition, so that its reader knows when it has read everything.
func (b *broker) writeMark(t *testing.T, topic string) {
	t.Helper()
	if err := b.plain(t).ProduceSync(ctx(t), &kgo.Record{Topic: topic, Key: []byte("end")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsEmittedAndHowFarAreOneTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		journal, commands, app := b.topic(t, 1), b.topic(t, 1), name(t)
		c := b.dial(t)
		one, err := openShard(c, app, journal, commands)
		if err != nil || one.at != (orchestrator.Emitted{}) {
			t.Fatal(one.at, err)
		}
		for n := range int64(50) {
			one.emit(n, commands, 10)
		}
		for n := range int64(50) {
			if err := one.awaits(t, n); err != nil {
				t.Fatal(err)
			}
		}
		// The next owner begins where this one committed; what the old one sends from now on is nobody's.
		two, err := openShard(b.dial(t), app, journal, commands)
		if err != nil || two.at != (orchestrator.Emitted{Next: 50, Seq: 50}) {
			t.Fatal(two.at, err)
		}
		one.emit(50, commands, 10)
		if err := one.awaits(t, 50); !errors.Is(err, orchestrator.ErrFenced) {
			t.Errorf("an owner that was replaced is told %v", err)
		}
		two.emit(50, commands, 10)
		if err := two.awaits(t, 50); err != nil {
			t.Error(err)
		}
		one.e.Close()
		two.e.Close()
		keys := b.readCommitted(t, commands, 51)
		for n, key := range keys {
			if key != fmt.Sprint(n) {
				t.Fatalf("record %d is %s", n, key)
			}
		}
		if len(keys) != 51 {
			t.Errorf("%d records", len(keys))
		}
		// Progress on other topics covers nothing: what was in flight on them may be lost.
		other, err := openShard(c, app, journal, b.topic(t, 1))
		if err != nil || other.at != (orchestrator.Emitted{}) {
			t.Error(other.at, err)
		}
		other.e.Close()
	})
}

func TestAMessageThatIsRefusedLeavesTheOthersOfItsTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		journal, commands, app := b.topic(t, 1), b.topic(t, 1, "max.message.bytes", "2000"), name(t)
		s, err := openShard(b.dial(t), app, journal, commands)
		if err != nil {
			t.Fatal(err)
		}
		defer s.e.Close()
		for n := range int64(9) {
			size := 10
			if n == 4 {
				size = 3000
			}
			s.emit(n, commands, size)
		}
		for n := range int64(9) {
			if err := s.awaits(t, n); (n == 4) != errors.Is(err, orchestrator.ErrRefused) || n != 4 && err != nil {
				t.Errorf("record %d: %v", n, err)
			}
		}
		if got := strings.Join(b.readCommitted(t, commands, 8), " "); got != "0 1 2 3 5 6 7 8" {
			t.Error(got)
		}
	})
}

// The helper process of the test below: it says that it has begun, and emits so many records more, or, for 0, until it
// is killed.
func init() {
	args := strings.Split(os.Getenv("SKALD_TEST_EMITTER"), " ")
	if len(args) != 5 {
		return
	}
	var more int64
	fmt.Sscan(args[4], &more)
	c, err := kafka.Dial(kafka.Config{Brokers: args[:1]})
	if err == nil {
		var s *shard
		if s, err = openShard(c, args[1], args[2], args[3]); err == nil {
			fmt.Println("begun")
			tick := time.NewTicker(time.Millisecond)
			total := s.at.Next + more
			for n := s.at.Next; n < total || more == 0; n++ {
				s.emit(n, args[3], 100)
				if n%5 == 0 {
					<-tick.C // several transactions, of whatever is there
				}
			}
			for range tick.C {
				if err, told := s.outcome(total - 1); told {
					fmt.Println("done", total, err)
					os.Exit(0)
				}
			}
		}
	}
	fmt.Println("failed", err)
	os.Exit(1)
}

func TestAProcessThatIsKilledAtAnyPointEmitsEachMessageOnceForReadersOfCommittedRecords(t *testing.T) {
	onEach(t, func(t *testing.T, b *broker) {
		const kills, more = 8, 200
		journal, commands, app := b.topic(t, 1), b.topic(t, 1), name(t)
		rng := rand.New(rand.NewPCG(1, 2))
		total := 0
		for run := range kills + 1 {
			last := run == kills
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("SKALD_TEST_EMITTER=%s %s %s %s %d", b.addr, app, journal, commands, map[bool]int{true: more}[last]))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for sc := bufio.NewScanner(out); sc.Scan(); {
				switch line := sc.Text(); {
				case line != "begun":
					if n, err := fmt.Sscanf(line, "done %d <nil>", &total); n != 1 || err != nil {
						t.Fatal(line)
					}
				case !last: // somewhere in the middle of its transactions, or before the first
					after := time.Duration(rng.IntN(200)) * time.Millisecond
					time.AfterFunc(after, func() { cmd.Process.Kill() })
				}
			}
			if err := cmd.Wait(); (err == nil) != last {
				t.Fatalf("run %d ended with %v", run, err)
			}
		}
		seen := map[string]int{}
		for _, key := range b.readCommitted(t, commands, total) {
			seen[key]++
		}
		for n := range total {
			if k := seen[fmt.Sprint(n)]; k != 1 {
				t.Fatalf("record %d of %d is there %d times, after %d kills", n, total, k, kills)
			}
		}
		if total <= more {
			t.Errorf("%d records: nothing was committed before the kills", total)
		}
	})
}
