package kafka_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/test/kafka"
)

const envOrphan = "SKALD_TEST_ORPHAN"

// TestMain lets the test binary play a process that starts Kafka and is killed.
func TestMain(m *testing.M) {
	if os.Getenv(envOrphan) != "" {
		c, err := kafka.Start(context.Background(), kafka.Options{HeapMiB: 256})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(c.Addr())
		select {}
	}
	os.Exit(m.Run())
}

func client(t *testing.T, c *kafka.Cluster) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.ConsumeTopics("a"), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestWhatWasAcknowledgedIsThereAfterAKillAndARestart(t *testing.T) {
	c := kafka.Require(t, kafka.Options{Config: map[string]string{"flush.messages": "1"}, HeapMiB: 256})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl := client(t, c)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "a"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, kgo.StringRecord("hello")).FirstErr(); err == nil {
		t.Fatal("produced to no topic")
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: []byte("hello")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	if conn, err := net.Dial("tcp", c.Addr()); err == nil {
		conn.Close()
		t.Fatal("a killed broker listens")
	}
	if err := c.Restart(ctx, 0); err != nil {
		t.Fatal(err)
	}
	got := cl.PollFetches(ctx)
	if got.NumRecords() != 1 || string(got.Records()[0].Value) != "hello" {
		t.Fatalf("read %d records, %v", got.NumRecords(), got.Errors())
	}
}

func TestThreeBrokersReplicateAndSurviveTheLossOfOne(t *testing.T) {
	c := kafka.Require(t, kafka.Options{Brokers: 3, HeapMiB: 256})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl := client(t, c)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 3, nil, "a"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: []byte("one")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: []byte("two")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestABrokerDiesWithTheProcessThatStartedIt(t *testing.T) {
	kafka.Require(t) // skips, and has the jars fetched
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envOrphan+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(line)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd.Process.Kill()
	cmd.Wait()
	// The kernel closes the broker's end of the connection when the broker dies.
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("the broker at %s lives on: %v", addr, err)
	}
}

func TestABrokerThatCannotStartSaysWhyInItsOwnWords(t *testing.T) {
	kafka.Require(t)
	_, err := kafka.Start(context.Background(), kafka.Options{Config: map[string]string{"log.retention.bytes": "many"}})
	if err == nil || !strings.Contains(err.Error(), "log.retention.bytes") {
		t.Fatalf("%v", err)
	}
}
