package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/test/kafka"
)

// need skips the test, or fails it where everything must be there.
func need(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv(kafka.EnvReal) == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func python(t *testing.T) []string {
	t.Helper()
	interpreter := os.Getenv("SKALD_PYTHON")
	if interpreter == "" {
		interpreter = "python3"
	}
	if out, err := exec.Command(interpreter, "-c", "import confluent_kafka").CombinedOutput(); err != nil {
		need(t, "%s with confluent-kafka is needed (%v: %s): python3 -m venv V && V/bin/pip install -r test/interop/requirements.txt, then SKALD_PYTHON=V/bin/python",
			interpreter, err, bytes.TrimSpace(out))
	}
	return []string{interpreter, "payments.py"}
}

func java(t *testing.T, libs string) []string {
	t.Helper()
	if _, err := exec.LookPath("javac"); err != nil {
		need(t, "javac is needed: %v (Debian: apt-get install default-jdk-headless)", err)
	}
	jars := filepath.Join(libs, "*")
	classes := t.TempDir()
	if out, err := exec.Command("javac", "-cp", jars, "-d", classes, "PaymentsParticipant.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return []string{"java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classes + string(os.PathListSeparator) + jars, "PaymentsParticipant"}
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "skald-interop-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "skald")
	if out, err := exec.Command("go", "build", "-o", file, "../../cmd/skald").CombinedOutput(); err != nil {
		return dir, errors.New(string(out))
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, _ := build(); file != "" {
		if filepath.Base(file) == "skald" {
			file = filepath.Dir(file)
		}
		os.RemoveAll(file)
	}
	os.Exit(code)
}

// instance is what `skald dev --demo -o json` prints for each saga.
type instance struct {
	ID, Key, State string
	Steps          []struct{ Name, Direction, Outcome string }
}

// output keeps what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// shop runs 20 orders through the demo with a foreign payments service; brokers is empty for the embedded
// broker. Every saga must become final, and the foreign service must have done all there is to do.
func shop(t *testing.T, service []string, brokers string) {
	skald, err := build()
	if err != nil {
		t.Fatalf("build of cmd/skald: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args := []string{"dev", "--demo", "--without", "payments", "--orders", "20", "--rate", "4", "--once", "-o", "json", "--calm"}
	if brokers != "" {
		args = append(args, "--brokers", brokers)
	} else {
		args = append(args, "--listen", "127.0.0.1:0")
	}
	demo := exec.CommandContext(ctx, skald, args...)
	var sagas bytes.Buffer
	demo.Stdout = &sagas
	stderr, err := demo.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	var said, paid output
	address, left := make(chan string, 1), make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		leftOut := sync.OnceFunc(func() { close(left) })
		lines := bufio.NewScanner(io.TeeReader(stderr, &said))
		for lines.Scan() {
			if _, rest, ok := strings.Cut(lines.Text(), "broker: "); ok && brokers == "" {
				addr, _, _ := strings.Cut(rest, " ")
				select {
				case address <- addr:
				default:
				}
			}
			if strings.Contains(lines.Text(), "payments is left out") {
				leftOut() // its topic exists now
			}
		}
	}()
	defer func() {
		if t.Failed() {
			t.Logf("demo:\n%s\nservice:\n%s", said.String(), paid.String())
		}
	}()
	select {
	case <-left:
	case <-read:
		t.Fatalf("the demo ended: %v", demo.Wait())
	case <-ctx.Done():
		t.Fatal("the demo does not start")
	}
	if brokers == "" {
		select {
		case brokers = <-address:
		default:
			t.Fatal("the demo does not say where its broker is")
		}
	}
	foreign := exec.CommandContext(ctx, service[0], append(service[1:], brokers)...)
	foreign.Stdout, foreign.Stderr = &paid, &paid
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = foreign.Process.Kill()
		_ = foreign.Wait()
	}()
	<-read
	if err := demo.Wait(); err != nil {
		t.Fatalf("the demo: %v", err)
	}

	states := map[string]int{}
	outcomes := map[string]int{}
	dec := json.NewDecoder(&sagas)
	for dec.More() {
		var i instance
		if err := dec.Decode(&i); err != nil {
			t.Fatal(err)
		}
		states[i.State]++
		for _, s := range i.Steps {
			outcomes[s.Direction+" "+s.Name+" "+s.Outcome]++
		}
	}
	t.Logf("%v %v", states, outcomes)
	if states["completed"]+states["compensated"] != 20 || states["completed"] == 0 {
		t.Errorf("not all of 20 sagas are completed or compensated, and some completed: %v", states)
	}
	if n := outcomes["forward capture done"]; n != states["completed"] {
		t.Errorf("%d sagas are completed, %d payments captured", states["completed"], n)
	}
	if n := strings.Count(paid.String(), "payments.capture"); n != states["completed"] {
		t.Errorf("%d sagas are completed, the service captured %d times", states["completed"], n)
	}
}

func TestPythonTakesPartOnTheEmbeddedBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs it for ten seconds")
	}
	shop(t, python(t), "")
}

func TestPythonTakesPartOnKafka(t *testing.T) {
	cluster := kafka.Require(t, kafka.Options{Brokers: 1})
	shop(t, python(t), cluster.Addr())
}

func TestJavaTakesPartOnKafka(t *testing.T) {
	cluster := kafka.Require(t, kafka.Options{Brokers: 1})
	shop(t, java(t, cluster.Libs()), cluster.Addr())
}

// TestTheTextInTheDocumentsIsTheServiceThatRuns: one source, shown in two places.
func TestTheTextInTheDocumentsIsTheServiceThatRuns(t *testing.T) {
	want, err := os.ReadFile("payments.py")
	if err != nil {
		t.Fatal(err)
	}
	for file, required := range map[string]bool{"../../docs/protocol.md": true, "../../README.md": false} {
		text, err := os.ReadFile(file)
		if err != nil && required {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(text), "<!-- payments.py -->\n```python\n")
		if !ok {
			if required || strings.Contains(string(text), "<!-- payments.py -->") {
				t.Errorf("%s has no fenced python block marked payments.py", file)
			}
			continue
		}
		if got, _, _ := strings.Cut(rest, "```\n"); got != string(want) {
			t.Errorf("%s does not show test/interop/payments.py as it is:\n%s", file, got)
		}
	}
}
