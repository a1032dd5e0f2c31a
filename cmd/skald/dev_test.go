package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/cmd/skald/internal/shop"
	"github.com/skald-io/skald/connectors/kafka"
)

func TestFlagsOfDevThatMakeNoSense(t *testing.T) {
	for args, want := range map[string]string{
		"dev --once":                                             "--once is for --demo",
		"dev --demo --once":                                      "--once needs --orders",
		"dev --demo --orders -1":                                 "at least 1",
		"dev --demo --from yesterday":                            `--from "yesterday"`,
		"dev --demo --wait 1m":                                   "--wait is for --once",
		"dev --demo --orders 1 --once --wait 0s":                 "more than nothing",
		"dev --demo --rate 0":                                    "--rate 0",
		"dev --demo --rate NaN":                                  "--rate NaN",
		"dev --demo --rate fast":                                 "invalid value",
		"dev --demo --shards 0":                                  "--shards 0: 1 to",
		"dev --demo --app a.b":                                   `--app "a.b"`,
		"dev --demo --without paymnts":                           `there is no service "paymnts": inventory, payments, courier, notifications`,
		"dev --demo --listen 127.0.0.1:1 --brokers h:9":          "not both",
		"topics plan --app a/b":                                  `--app "a/b"`,
		"topics plan --partitions 0":                             "at least 1",
		"topics apply --brokers h:9 --replication 1 --min-isr 2": "nothing could be written",
		"journal cat --from -2":                                  "not negative",
		"topics":                                                 "topics needs one of: plan, apply",
		"journal":                                                "journal needs one of: cat",
		"dev --demo --without payments --without payments --orders": "flag needs an argument",
	} {
		e, stdout, stderr := testEnv()
		if code := run(t.Context(), e, strings.Fields(args)); code != exitUsage {
			t.Errorf("skald %s: exit %d", args, code)
		}
		if !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
			t.Errorf("skald %s: stderr %q, stdout %q; want %q", args, stderr, stdout, want)
		}
	}
}

func TestABusyPortIsSaidSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, args := range [][]string{{"dev"}, {"dev", "--demo"}} {
		e, stdout, stderr := testEnv()
		code := run(t.Context(), e, append(args, "--listen", l.Addr().String()))
		if code != exitFailed || !strings.Contains(stderr.String(), "port-busy") || !strings.Contains(stderr.String(), l.Addr().String()) || stdout.Len() > 0 {
			t.Errorf("%v: exit %d, stderr %q", args, code, stderr)
		}
	}
}

// startDev gives the address of an embedded broker that several runs can share, as they would a Kafka.
func startDev(t *testing.T) string {
	t.Helper()
	broker, err := kafka.StartDev(kafka.DevOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker.Addr()
}

func objects(t *testing.T, out string) map[string]instanceView {
	t.Helper()
	all := map[string]instanceView{}
	for line := range strings.Lines(out) {
		var v instanceView
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("stdout has more than objects: %q: %v", line, err)
		}
		if _, twice := all[v.Key]; twice {
			t.Errorf("two objects for %s", v.Key)
		}
		all[v.Key] = v
	}
	return all
}

func TestTheDemoServesItsMetrics(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, _, _ := testEnv()
	r, w := io.Pipe()
	e.stderr = w
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, e, strings.Fields("dev --demo --rate 100 --calm --metrics 127.0.0.1:0"))
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	found := ""
	for found == "" && lines.Scan() {
		if at, ok := strings.CutPrefix(lines.Text(), "metrics: "); ok {
			found = at
		}
	}
	go io.Copy(io.Discard, r)
	const want = "skald_sagas_ended_total{definition=\"place-order\",state=\"completed\"}"
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); ; {
		var page []byte
		if resp, err := http.Get(found); err == nil {
			page, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if strings.Contains(string(page), want) {
			break
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("no %s at %q:\n%s", want, found, page)
		}
	}
	cancel()
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestTheDemoPlacesOrdersAndEndsWhenAllAreFinal(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	e, stdout, stderr := testEnv()
	if code := run(t.Context(), e, strings.Fields("dev --demo --orders 20 --once --rate 100 -o json")); code != exitOK {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	if !strings.HasPrefix(stderr.String(), "broker: 127.0.0.1:") || !strings.Contains(stderr.String(), "(embedded development broker, kfake: not Kafka)") {
		t.Errorf("stderr does not say what the broker is: %s", stderr)
	}
	all := objects(t, stdout.String())
	if len(all) != 20 {
		t.Fatalf("%d objects", len(all))
	}
	for key, v := range all {
		n := numberOf(t, key)
		refused := shop.Declined(n) || n%17 == 0
		if refused && v.State != "compensated" || !refused && v.State != "completed" && v.State != "compensated" {
			t.Errorf("%s is %s", key, v.State)
		}
		checkShape(t, v)
	}
}

func numberOf(t *testing.T, key string) int {
	t.Helper()
	n, ok := newWatch(key[:strings.LastIndexByte(key, '-')+1]).number(key)
	if !ok {
		t.Fatalf("the key %q", key)
	}
	return n
}

// checkShape looks at what the JSON of a final instance promises, its undos among it.
func checkShape(t *testing.T, v instanceView) {
	t.Helper()
	if len(v.ID) != 32 || v.Definition != "place-order" || v.Ended == nil {
		t.Errorf("%+v", v)
	}
	last := ""
	var owed, undone []string
	for _, s := range v.Steps {
		for _, at := range []string{v.Started, *v.Ended, s.Started} {
			if _, err := time.Parse(time.RFC3339, at); err != nil {
				t.Errorf("%s: %v", v.Key, err)
			}
		}
		if s.Started < last || s.Started < v.Started || s.Started > *v.Ended {
			t.Errorf("%s: %s is out of order", v.Key, s.Name)
		}
		last = s.Started
		if s.Attempts < 1 || s.Outcome == outcomeOpen || s.Ended == nil {
			t.Errorf("%s: step %+v of a final instance", v.Key, s)
		}
		switch {
		case s.Direction == "compensate":
			undone = append(undone, s.Name)
			if s.Outcome != outcomeDone {
				t.Errorf("%s: undo %+v", v.Key, s)
			}
		case s.Outcome != outcomeRejected:
			owed = append(owed, s.Name)
		}
	}
	if v.State == "completed" {
		if want := 5; len(v.Steps) != want || len(undone) > 0 {
			t.Errorf("%s completed with %s", v.Key, short(v.Steps))
		}
		return
	}
	for _, name := range owed {
		if !slices.Contains(undone, name) {
			t.Errorf("%s: %s is not undone: %s", v.Key, name, short(v.Steps))
		}
	}
	if i := slices.Index(undone, "reserve-stock"); i >= 0 && i != len(undone)-1 {
		t.Errorf("%s: the reservation is undone before what followed it: %v", v.Key, undone)
	}
}

func TestASecondRunOnTheSameKafkaAwaitsItsOwnOrders(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	addr := startDev(t)
	var keys []string
	for i := range 2 {
		e, stdout, stderr := testEnv()
		if code := run(t.Context(), e, []string{"dev", "--demo", "--brokers", addr, "--orders", "6", "--once", "--rate", "100", "--calm", "-o", "json"}); code != exitOK {
			t.Fatalf("run %d: exit %d\n%s", i, code, stderr)
		}
		if created := strings.Contains(stderr.String(), "created 10 topics with replication 1, since the cluster has one broker"); created != (i == 0) {
			t.Errorf("run %d: %s", i, stderr)
		}
		if strings.Count(stderr.String(), "warning: replication: topic skald-demo.journal: it has 1 replicas") != 1 || strings.Count(stderr.String(), "warning: replication") != 1 {
			t.Errorf("run %d does not warn once of one replica: %s", i, stderr)
		}
		all := objects(t, stdout.String())
		if len(all) != 6 {
			t.Errorf("run %d: %d objects", i, len(all))
		}
		for k := range all {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 12 {
		t.Errorf("the runs share orders: %v", keys)
	}

	// What they left can be read.
	e, stdout, stderr := testEnv()
	if code := run(t.Context(), e, []string{"journal", "cat", "--brokers", addr, "-o", "json"}); code != exitOK {
		t.Fatalf("journal cat: exit %d\n%s", code, stderr)
	}
	kinds := map[string]int{}
	started := map[string]bool{}
	for line := range strings.Lines(stdout.String()) {
		var v recordView
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		kinds[v.Verdict+" "+v.Kind]++
		if v.Decision != nil && v.Decision.Key != "" {
			started[v.Decision.Key] = true
		}
	}
	if kinds["accepted claim"] < 8 || len(started) != 12 {
		t.Errorf("records %v, orders %d", kinds, len(started))
	}
	e, _, stderr = testEnv()
	if code := run(t.Context(), e, []string{"dev", "--demo", "--brokers", addr, "--shards", "3", "--orders", "1", "--once"}); code != exitFailed || !strings.Contains(stderr.String(), "partition-count") {
		t.Errorf("another number of shards: exit %d, %s", code, stderr)
	}
}

func TestOrdersThatAServiceIsMissingForAreListed(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	e, stdout, stderr := testEnv()
	code := run(t.Context(), e, strings.Fields("dev --demo --orders 3 --once --rate 100 --calm --without inventory --wait 500ms"))
	if code != exitFailed {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	for _, want := range []string{"inventory is left out: its commands wait on the topic inventory.commands", "3 of 3 orders", "order-1 running: reserve-stock …", "order-3 running"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not on stderr: %s", want, stderr)
		}
	}
	if !strings.Contains(stdout.String(), "0 completed, 0 compensated, 3 not final") {
		t.Errorf("stdout: %s", stdout)
	}
}

func TestCtrlCEndsTheDemoCleanly(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, _, stderr := testEnv()
	r, w := io.Pipe()
	e.stdout = w
	var lines []string
	var reading sync.WaitGroup
	reading.Go(func() {
		for in := bufio.NewScanner(r); in.Scan(); {
			lines = append(lines, in.Text())
			if len(lines) == 3 {
				cancel()
			}
		}
	})
	code := run(ctx, e, strings.Fields("dev --demo --rate 50 --calm"))
	w.Close()
	reading.Wait()
	if code != exitOK {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, " orders in ") {
		t.Errorf("the last line is no summary: %s", last)
	}
	for _, l := range lines[:len(lines)-1] {
		if !strings.HasPrefix(l, "order-") {
			t.Errorf("stdout has %q", l)
		}
	}
}

func TestTopicsArePlannedThenCreated(t *testing.T) {
	addr := startDev(t)
	args := []string{"--app", "shop", "--brokers", addr, "--partitions", "2", "--replication", "1", "--min-isr", "1", "--input", "orders", "--command", "payments.commands"}
	e, stdout, stderr := testEnv()
	if code := run(t.Context(), e, append([]string{"topics", "plan"}, args...)); code != exitOK {
		t.Fatalf("plan: exit %d\n%s", code, stderr)
	}
	for _, want := range []string{"shop.journal", "retention.ms=-1", "kafka-acls.sh", "payments.commands"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the plan does not have %q:\n%s", want, stdout)
		}
	}
	if !strings.Contains(stderr.String(), "shop.journal is missing") {
		t.Errorf("stderr: %s", stderr)
	}
	for i, want := range []string{"created shop.journal", "exists  shop.journal"} {
		e, stdout, stderr := testEnv()
		if code := run(t.Context(), e, append([]string{"topics", "apply"}, args...)); code != exitOK {
			t.Fatalf("apply %d: exit %d\n%s", i, code, stderr)
		}
		if !strings.Contains(stdout.String(), want) || strings.Contains(stdout.String(), "created orders") {
			t.Errorf("apply %d: %s", i, stdout)
		}
	}
	e, stdout, _ = testEnv()
	if code := run(t.Context(), e, append([]string{"topics", "plan", "-o", "json"}, args...)); code != exitOK {
		t.Fatal(code)
	}
	var v planView
	if err := json.Unmarshal(stdout.Bytes(), &v); err != nil || len(v.Topics) < 4 || len(v.ACLs) == 0 {
		t.Errorf("%v: %+v", err, v)
	}
}
