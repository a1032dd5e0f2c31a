package engine_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/skald-io/skald/connectors/kafka"
	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// refused runs an engine that must not go on, and gives its last word.
func (w *world) refused(t *testing.T, adjust ...func(*orchestrator.Config)) error {
	t.Helper()
	n := w.start(t, adjust...)
	select {
	case err := <-n.err:
		if err == nil {
			t.Fatal("it ended without an error")
		}
		n.client.Close()
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the engine runs")
	}
	return nil
}

// says holds an error to a code that it begins with, and to words.
func says(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	if !strings.HasPrefix(err.Error(), code+": ") {
		t.Errorf("its code is not %s: %v", code, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("it does not say %q: %v", word, err)
		}
	}
}

func TestAClusterThatWouldLoseSagasIsRefusedWithCauseAndCure(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		for _, x := range []struct {
			what  string
			spoil func(t *testing.T, w *world) (topic string)
			code  string
			cure  string
		}{
			{"the journal is missing", func(t *testing.T, w *world) string { return w.drop(t, w.own().Journal()) }, kafka.CodeTopicMissing, "skald topics apply"},
			{"the domain topic is missing", func(t *testing.T, w *world) string { return w.drop(t, w.orders()) }, kafka.CodeTopicMissing, "skald topics apply"},
			{"the topic of commands is missing", func(t *testing.T, w *world) string { return w.drop(t, w.cmds()) }, kafka.CodeTopicMissing, "skald topics apply"},
			{"quarantine is missing", func(t *testing.T, w *world) string { return w.drop(t, w.own().Quarantine()) }, kafka.CodeTopicMissing, "skald topics apply"},
			{"the inbox has more partitions", func(t *testing.T, w *world) string {
				w.grow(t, w.own().Inbox(), 3)
				return w.own().Inbox()
			}, kafka.CodePartitions, "start with the number they have"},
			{"the journal has a retention", func(t *testing.T, w *world) string {
				week := "604800000"
				if _, err := w.admin.AlterTopicConfigs(bounded(t), []kadm.AlterConfig{{Name: "retention.ms", Value: &week}}, w.own().Journal()); err != nil {
					t.Fatal(err)
				}
				return w.own().Journal()
			}, kafka.CodeRetention, "retention.ms=-1"},
			{"the journal is compacted", func(t *testing.T, w *world) string {
				compact := "compact"
				if _, err := w.admin.AlterTopicConfigs(bounded(t), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &compact}}, w.own().Journal()); err != nil {
					t.Fatal(err)
				}
				return w.own().Journal()
			}, kafka.CodeCleanup, "cleanup.policy=delete"},
		} {
			t.Run(x.what, func(t *testing.T) {
				w := newWorld(t, b, 2)
				topic := x.spoil(t, w)
				err := w.refused(t)
				says(t, err, x.code, topic, x.cure)
				var e *kafka.Error
				if !errors.As(err, &e) || e.Code != x.code || e.Cure == "" {
					t.Errorf("no *kafka.Error with the code: %v", err)
				}
			})
		}
	})
}

func TestRisksAreToldOnceAndKeepNobodyFromStarting(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 1)
		n := w.start(t)
		n.owns(t, 1)
		if got := n.log.find("risks", "err", kafka.CodeReplication+": topic "+w.own().Journal()); len(got) != 1 {
			t.Errorf("one replica is told %d times", len(got))
		}
		n.stop(t)
	})
}

func TestALifecycleTopicIsNeededOnlyByWhoAnnounces(t *testing.T) {
	w := newWorld(t, embedded(t), 1)
	says(t, w.refused(t, func(c *orchestrator.Config) { c.Lifecycle = true }), kafka.CodeTopicMissing, w.own().Lifecycle())
}

func TestAnUnreachableBrokerIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{b: broker{l.Addr().String()}, app: "unreachable", shards: 1}
	l.Close()
	says(t, w.refused(t), kafka.CodeUnreachable, w.b.addr, "is Kafka running there")
}

func (w *world) drop(t *testing.T, topic string) string {
	t.Helper()
	if _, err := w.admin.DeleteTopic(bounded(t), topic); err != nil {
		t.Fatal(err)
	}
	c := w.dial(t)
	defer c.Close()
	until(t, topic+" is gone", func() bool {
		ts, err := c.Topics(bounded(t), topic)
		return err == nil && ts[topic].Partitions == 0
	})
	return topic
}

func (w *world) grow(t *testing.T, topic string, to int) {
	t.Helper()
	got, err := w.admin.UpdatePartitions(bounded(t), to, topic)
	if err == nil {
		_, err = got.On(topic, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := w.dial(t)
	defer c.Close()
	until(t, topic+" has grown", func() bool {
		ts, err := c.Topics(bounded(t), topic)
		return err == nil && ts[topic].Partitions == to
	})
}

func TestAnApplicationThatHasRunKeepsItsNumberOfShards(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		n := w.start(t)
		w.place(t, 0, "a")
		w.completed(t, n, "a")
		n.stop(t)
		for _, topic := range []string{w.own().Journal(), w.own().Inbox(), w.own().Replies()} {
			w.grow(t, topic, 3)
		}
		err := w.refused(t)
		says(t, err, orchestrator.CodeShardCount, "2 shards", "3 partitions", "restore their partition count")
		if !errors.Is(err, orchestrator.ErrShardCount) {
			t.Errorf("%v", err)
		}
	})
}

func TestAJournalOfANewerFormatIsRefusedWithTheBuildThatWroteIt(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 1)
		w.participant(t)
		dir := t.TempDir()
		n := w.start(t, inDir(dir))
		w.place(t, 0, "a")
		w.completed(t, n, "a")
		n.stop(t)

		claim := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{9}, Term: 9, Claim: &events.Claim{Node: "n", Shards: 1, Slots: 64, Build: "v47.11.0"}}
		value := claim.Encode(nil)
		value[0] = events.Format + 1
		c := w.dial(t)
		log := c.Log(w.own().Journal(), 0)
		appended := make(chan error, 1)
		log.Append(value, func(_ int64, err error) { appended <- err })
		if err := <-appended; err != nil {
			t.Fatal(err)
		}
		log.Close()
		for _, dir := range []string{dir, ""} { // with its store, and without
			err := w.refused(t, inDir(dir))
			says(t, err, orchestrator.CodeNewerFormat, "v47.11.0", fmt.Sprint(events.Format+1))
			if !errors.Is(err, events.ErrNewerFormat) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestATopicThatWasCreatedAnewIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		for _, x := range []struct {
			what  string
			topic func(w *world) string
			cure  string
		}{
			{"orders", (*world).orders, "restore the topic, or start a new application name"},
			{"inbox", func(w *world) string { return w.own().Inbox() }, "restore the topic, or start a new application name"},
			{"replies", func(w *world) string { return w.own().Replies() }, "restore the topic, or start a new application name"},
			{"journal", func(w *world) string { return w.own().Journal() }, "restore the topic, or remove the store's folder"},
		} {
			t.Run(x.what, func(t *testing.T) {
				w := newWorld(t, b, 1)
				w.participant(t)
				dir := t.TempDir()
				n := w.start(t, inDir(dir))
				w.place(t, 0, "a")
				w.completed(t, n, "a")
				n.stop(t)
				w.drop(t, x.topic(w))
				w.create(t)
				err := w.refused(t, inDir(dir))
				says(t, err, orchestrator.CodeTopicRecreated, x.what, "created again", x.cure)
				if !errors.Is(err, orchestrator.ErrTopicRecreated) {
					t.Errorf("%v", err)
				}
			})
		}
	})
}

func TestAnInputThatLostItsPlaceHaltsAndTheOthersGoOn(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		w := newWorld(t, b, 2)
		w.participant(t)
		n := w.start(t)
		w.place(t, 0, "a")
		w.place(t, 1, "b")
		w.completed(t, n, "a", "b")
		n.stop(t)

		w.place(t, 0, "lost-1", "lost-2")
		w.place(t, 1, "c")
		c := w.dial(t)
		if err := c.DeleteRecords(bounded(t), orchestrator.TopicPartition{Topic: w.orders(), Partition: 0}, 3); err != nil {
			t.Fatal(err)
		}
		w.place(t, 0, "behind-the-gap")

		n = w.start(t)
		w.place(t, 1, "d")
		w.completed(t, n, "c", "d")
		until(t, "it names what is lost", func() bool {
			got := n.log.find("this input halts", "code", orchestrator.CodePositionLost, "topic", w.orders(), "partition", "0", "position", "1", "log_start", "3")
			return len(got) == 1
		})
		for _, key := range []string{"lost-1", "lost-2", "behind-the-gap"} {
			if _, ok, err := n.Get(w.id(key)); ok || err != nil {
				t.Errorf("order %s was started in spite of the gap before it: %v", key, err)
			}
		}
		n.stop(t)
	})
}

func TestAnApplicationReadsFromLatestUnlessToldOtherwise(t *testing.T) {
	onEach(t, func(t *testing.T, b broker) {
		for _, x := range []struct {
			name string
			from orchestrator.From
		}{{"latest", orchestrator.FromLatest}, {"earliest", orchestrator.FromEarliest}} {
			t.Run(x.name, func(t *testing.T) {
				w := newWorld(t, b, 2)
				w.participant(t)
				from := func(c *orchestrator.Config) { c.From = x.from }
				w.place(t, 0, "old-1")
				w.place(t, 1, "old-2")
				n := w.start(t, from)
				n.owns(t, 2)
				w.place(t, 0, "new-1")
				w.place(t, 1, "new-2")
				w.completed(t, n, "new-1", "new-2")
				n.stop(t)
				// Where it began is journaled: what arrives while nobody runs is no longer old.
				w.place(t, 0, "between")
				n = w.start(t, from)
				n.owns(t, 2)
				w.completed(t, n, "between", "new-1")
				for _, key := range []string{"old-1", "old-2"} {
					if x.from == orchestrator.FromEarliest {
						w.completed(t, n, key)
					} else if _, ok, err := n.Get(w.id(key)); ok || err != nil {
						t.Errorf("order %s was there before the application and was started: %v", key, err)
					}
				}
				n.stop(t)
			})
		}
	})
}

func TestWhatIsWrongWithTheConfigurationIsSaidBeforeAnythingRuns(t *testing.T) {
	_, err := orchestrator.New(orchestrator.Config{App: "a b", Logger: slog.New(slog.DiscardHandler)})
	for _, want := range []string{`app "a b"`, "no Kafka connection", "no definition"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}
}
