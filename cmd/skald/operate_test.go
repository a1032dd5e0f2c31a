package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/api"
)

// node is an engine that remembers what it was asked.
type fakeNode struct {
	acted   []orchestrator.Action
	answer  orchestrator.Answer
	filters []orchestrator.Filter
	one     orchestrator.Description
}

func (n *fakeNode) Act(_ context.Context, a orchestrator.Action) (orchestrator.Answer, error) {
	n.acted = append(n.acted, a)
	return n.answer, nil
}

func (n *fakeNode) Describe(id events.InstanceID) (orchestrator.Description, bool, error) {
	return n.one, id == n.one.ID, nil
}

func (n *fakeNode) Find(definition, key string) (events.InstanceID, bool, error) {
	return n.one.ID, definition == n.one.Definition && key == n.one.Key, nil
}

func (n *fakeNode) List(fn func(orchestrator.Instance) bool) error {
	fn(n.one.Instance)
	return nil
}

func (n *fakeNode) Quarantine(_ context.Context, f orchestrator.Filter, fn func(orchestrator.QuarantinedRecord) bool) error {
	n.filters = append(n.filters, f)
	fn(orchestrator.QuarantinedRecord{Partition: 1, Offset: 7, Place: "orders/0/3", Reason: "undecodable: \x1b[31mred", Message: events.Message{Topic: "orders", Key: []byte("k\n")}})
	return nil
}

func (n *fakeNode) Redrive(_ context.Context, f orchestrator.Filter, fn func(orchestrator.Redriven)) error {
	n.filters = append(n.filters, f)
	fn(orchestrator.Redriven{Shards: []int32{0}})
	return nil
}

func (n *fakeNode) Health() orchestrator.Health             { return orchestrator.Health{} }
func (n *fakeNode) Shards() []int32                         { return []int32{0} }
func (n *fakeNode) ShardOf(string) int32                    { return 0 }
func (n *fakeNode) ShardOfInstance(events.InstanceID) int32 { return 0 }

var parcel = orchestrator.Description{
	Instance: orchestrator.Instance{ID: events.InstanceID{1, 2, 15: 3},
		Head:    events.Head{Definition: "parcel", Version: "2", Key: "p-1/x", State: events.Parked, ParkedIn: events.Compensating, Code: "undo-exhausted", Message: "20 attempts\x1b[2J"},
		History: []events.Entry{{Kind: events.EntryStarted, Time: 1_790_000_000_000}, {Kind: events.EntryAction, Code: "retry", Who: "alice", Message: "bank is back", Step: "pay"}}},
	Data: []byte(`{"id":"p-1"}`), Parked: "pay",
	Owed:  []orchestrator.Owed{{Step: "pay", Execution: 1, Topic: "payments", Type: "refund", Attempts: 20}},
	Waits: []orchestrator.WaitingNode{{Name: "approved", Signal: "approve"}},
}

// ask runs a command against n and gives what it prints.
func ask(t *testing.T, n *fakeNode, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewServer(api.New(n))
	defer server.Close()
	var out, errs bytes.Buffer
	e := &env{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, width: func() int { return 0 }, getenv: func(name string) string {
		if name == "SKALD_API" {
			return strings.TrimPrefix(server.URL, "http://")
		}
		return ""
	}}
	code = run(context.Background(), e, args)
	return code, out.String(), errs.String()
}

func TestWhatIsAskedForReachesTheNode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "patch.json")
	if err := os.WriteFile(file, []byte(`{"note":null}`), 0o600); err != nil {
		t.Fatal(err)
	}
	id := parcel.ID.String()
	for _, x := range []struct {
		line string
		want orchestrator.Action
	}{
		{"signal parcel/p-1/x approve --data {\"ok\":true} --who bob", orchestrator.Action{Action: events.Action{Kind: events.ActionSignal, Definition: "parcel", Key: "p-1/x", Name: "approve", Payload: []byte(`{"ok":true}`), Who: "bob"}}},
		{"signal --data - " + id + " approve --who bob --id s-1", orchestrator.Action{Instance: parcel.ID, Action: events.Action{ID: "s-1", Kind: events.ActionSignal, Name: "approve", Payload: []byte(`{"from":"stdin"}`), Who: "bob"}}},
		{"retry " + id + " --step pay --undo --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionRetry, Step: "pay", Undo: true, Who: "bob"}}},
		{"resolve " + id + " --outcome compensated --why by-hand --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionResolve, Outcome: "compensated", Why: "by-hand", Who: "bob"}}},
		{"skip " + id + " --why x --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionSkip, Why: "x", Who: "bob"}}},
		{"compensate " + id + " --to before --past-pivot --why x --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionCompensate, Name: "before", PastPivot: true, Why: "x", Who: "bob"}}},
		{"cancel " + id + " --why x --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionCancel, Why: "x", Who: "bob"}}},
		{"suspend " + id + " --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionSuspend, Who: "bob"}}},
		{"resume " + id + " --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionResume, Who: "bob"}}},
		{"terminate " + id + " --why x --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionTerminate, Why: "x", Who: "bob"}}},
		{"patch " + id + " --data @" + file + " --why x --who bob", orchestrator.Action{Instance: parcel.ID, Action: events.Action{Kind: events.ActionPatchData, Payload: []byte(`{"note":null}`), Why: "x", Who: "bob"}}},
	} {
		n := &fakeNode{answer: orchestrator.Answer{ID: "a", Instance: parcel.ID, Done: true}}
		code, out, errs := ask(t, n, `{"from":"stdin"}`, strings.Fields(x.line)...)
		if code != exitOK || len(n.acted) != 1 || !strings.Contains(out, "done") {
			t.Errorf("%s: exit %d\n%s%s", x.line, code, out, errs)
			continue
		}
		got, _ := json.Marshal(n.acted[0])
		if want, _ := json.Marshal(x.want); !bytes.Equal(got, want) {
			t.Errorf("%s asks for\n%s\nnot for\n%s", x.line, got, want)
		}
	}
	n := &fakeNode{answer: orchestrator.Answer{Done: true}}
	if ask(t, n, "", "suspend", id); len(n.acted) != 1 || n.acted[0].Who == "" {
		t.Error("who acts is not known")
	}
}

func TestARefusalIsPrintedAndFails(t *testing.T) {
	n := &fakeNode{answer: orchestrator.Answer{ID: "a", Instance: parcel.ID, Code: "not-parked", Message: "it runs\x1b[2J"}}
	code, out, _ := ask(t, n, "", "retry", parcel.ID.String())
	if code != exitFailed || !strings.Contains(out, "refused: not-parked: it runs") || strings.Contains(out, "\x1b") {
		t.Errorf("exit %d\n%q", code, out)
	}
	code, out, _ = ask(t, n, "", "retry", parcel.ID.String(), "-o", "json")
	var answer api.Answer
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != exitFailed || answer.Done || answer.Code != "not-parked" {
		t.Errorf("exit %d\n%s (%v)", code, out, err)
	}
}

func TestWhatMakesNoSenseIsNotAsked(t *testing.T) {
	id := parcel.ID.String()
	for _, line := range []string{"retry", "retry nonsense", "retry /x", "retry parcel/", "retry " + id + " x", "cancel " + id, "cancel " + id + " --why=", "signal " + id, "resolve " + id + " --why x",
		"patch " + id + " --why x", "signal " + id + " approve --data {", "signal " + id + " approve extra", "describe", "redrive", "redrive --all x", "redrive --offset 3", "redrive --partition 1 --offset x"} {
		n := &fakeNode{}
		if code, _, errs := ask(t, n, "", strings.Fields(line)...); code != exitUsage || len(n.acted)+len(n.filters) > 0 {
			t.Errorf("%s: exit %d, asked %v\n%s", line, code, n.acted, errs)
		}
	}
	if code, _, errs := ask(t, &fakeNode{}, "", "get", "--api", "127.0.0.1:1"); code != exitFailed || !strings.Contains(errs, "--api") {
		t.Errorf("without a node: exit %d\n%s", code, errs)
	}
}

func TestAnInstanceIsShownAndNothingOfItReachesTheTerminalRaw(t *testing.T) {
	n := &fakeNode{one: parcel}
	code, out, errs := ask(t, n, "", "describe", "parcel/p-1/x")
	for _, want := range []string{"parcel/p-1/x  parked", "parked at   pay", "undo-exhausted", `{"id":"p-1"}`, "owes        pay: refund to payments", "waits       approved: signal approve", "action pay retry alice bank is back"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if code != exitOK || strings.Contains(out+errs, "\x1b") {
		t.Errorf("exit %d\n%q", code, out)
	}
	for _, line := range []string{"get", "get --state parked", "get " + parcel.ID.String(), "get -o json", "describe -o json " + parcel.ID.String(), "quarantine", "quarantine -o json"} {
		code, out, errs := ask(t, n, "", strings.Fields(line)...)
		if code != exitOK || out == "" || strings.Contains(out, "\x1b") {
			t.Errorf("%s: exit %d\n%q%s", line, code, out, errs)
		}
	}
	if code, out, _ := ask(t, n, "", "get", "--state", "running"); code != exitOK || out != "" {
		t.Errorf("exit %d: %q", code, out)
	}
	if code, _, errs := ask(t, n, "", "describe", events.InstanceID{9}.String()); code != exitFailed || !strings.Contains(errs, api.CodeNotFound) {
		t.Errorf("nobody: exit %d\n%s", code, errs)
	}
	code, out, _ = ask(t, n, "", "redrive", "--reason", "undecodable", "--partition", "1", "--offset", "7")
	if last := n.filters[len(n.filters)-1]; code != exitOK || !strings.Contains(out, "1 records put back") || last.Reason != "undecodable" || *last.Partition != 1 || len(last.Offsets) != 1 {
		t.Errorf("exit %d %s%+v", code, out, last)
	}
}

// The API is for this machine's operator, not for pages in a browser, and takes nothing on trust.
func TestTheAPIRefusesWhatItCannotTrust(t *testing.T) {
	n := &fakeNode{answer: orchestrator.Answer{Done: true}}
	path := "/v1/instances/" + parcel.ID.String() + "/actions"
	for why, x := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"nothing wrong":       {func(*http.Request) {}, http.StatusOK},
		"localhost":           {func(r *http.Request) { r.Host = "localhost:7171" }, http.StatusOK},
		"another host's name": {func(r *http.Request) { r.Host = "evil.example:7171" }, http.StatusForbidden},
		"another machine":     {func(r *http.Request) { r.RemoteAddr = "192.0.2.1:50000" }, http.StatusForbidden},
		"a page":              {func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, http.StatusForbidden},
		"a page's form":       {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		"a form":              {func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, http.StatusUnsupportedMediaType},
		"no JSON":             {func(r *http.Request) { r.Body = body("{") }, http.StatusBadRequest},
		"more than one":       {func(r *http.Request) { r.Body = body(`{"kind":"resume"}{}`) }, http.StatusBadRequest},
		"an unknown field":    {func(r *http.Request) { r.Body = body(`{"kind":"resume","sudo":true}`) }, http.StatusBadRequest},
		"no UTF-8":            {func(r *http.Request) { r.Body = body("{\"kind\":\"\xff\"}") }, http.StatusBadRequest},
		"too large a body":    {func(r *http.Request) { r.Body = body(`{"kind":"` + strings.Repeat("x", api.MaxBody) + `"}`) }, http.StatusRequestEntityTooLarge},
		"no instance's id":    {func(r *http.Request) { r.URL.Path = "/v1/instances/x/actions" }, http.StatusBadRequest},
		"no such resource":    {func(r *http.Request) { r.URL.Path = "/v1/things" }, http.StatusNotFound},
		"a method it has not": {func(r *http.Request) { r.Method = http.MethodDelete }, http.StatusNotFound},
		"everything redriven": {func(r *http.Request) { r.URL.Path = "/v1/quarantine/redrive"; r.Body = body(`{}`) }, http.StatusBadRequest},
		"a limit that is none": {func(r *http.Request) {
			r.Method = http.MethodGet
			r.URL.Path, r.URL.RawQuery = "/v1/instances", "limit=1e9"
		}, http.StatusBadRequest},
		"a state that is none": {func(r *http.Request) {
			r.Method = http.MethodGet
			r.URL.Path, r.URL.RawQuery = "/v1/instances", "state=x"
		}, http.StatusBadRequest},
		"a partition below all": {func(r *http.Request) {
			r.Method = http.MethodGet
			r.URL.Path, r.URL.RawQuery = "/v1/quarantine", "partition=-1"
		}, http.StatusBadRequest},
	} {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:7171"+path, strings.NewReader(`{"kind":"resume"}`))
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = "127.0.0.1:50000"
		x.change(r)
		w := httptest.NewRecorder()
		api.New(n).ServeHTTP(w, r)
		var fault api.Error
		if w.Code != x.want || x.want != http.StatusOK && (json.Unmarshal(w.Body.Bytes(), &fault) != nil || fault.Code == "") {
			t.Errorf("%s: %d %s", why, w.Code, w.Body)
		}
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.org:0"} {
		if _, _, err := api.Listen(context.Background(), addr, http.NotFoundHandler()); err == nil {
			t.Errorf("it listens on %s", addr)
		}
	}
}

func body(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

// The demo's node answers the operator's commands.
func TestTheDemoCanBeAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var log lockedBuffer
	ended := make(chan int, 1)
	go func() {
		e := &env{stdout: io.Discard, stderr: &log, getenv: func(string) string { return "" }, width: func() int { return 0 }}
		ended <- run(ctx, e, []string{"dev", "--demo", "--orders", "3", "--rate", "50", "--calm", "--shards", "2", "--api", "127.0.0.1:0", "--without", "inventory"})
	}()
	addr := ""
	for late := time.After(30 * time.Second); addr == ""; {
		if _, rest, ok := strings.Cut(log.String(), "api: http://"); ok {
			addr, _, _ = strings.Cut(rest, " ")
			break
		}
		select {
		case code := <-ended:
			t.Fatalf("the demo ended with %d\n%s", code, log.String())
		case <-late:
			t.Fatalf("no API\n%s", log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	skald := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		e := &env{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }, width: func() int { return 0 }}
		code := run(ctx, e, append(args, "--api", addr))
		return code, out.String(), errs.String()
	}
	var ids []string
	for late := time.Now().Add(30 * time.Second); len(ids) < 3 && time.Now().Before(late); {
		ids = nil
		_, out, _ := skald("get")
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			if id, _, ok := strings.Cut(line, " "); ok {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) != 3 {
		t.Fatalf("%d instances are listed", len(ids))
	}
	if code, out, errs := skald("suspend", ids[0], "--why", "a test", "--who", "alice"); code != exitOK {
		t.Fatalf("exit %d %s%s", code, out, errs)
	}
	if code, out, errs := skald("describe", ids[0]); code != exitOK || !strings.Contains(out, "suspended") || !strings.Contains(out, "alice a test") {
		t.Errorf("exit %d %s%s", code, out, errs)
	}
	if code, out, _ := skald("suspend", ids[0]); code != exitFailed || !strings.Contains(out, "refused") {
		t.Errorf("exit %d %s", code, out)
	}
	cancel()
	<-ended
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
