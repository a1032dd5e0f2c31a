package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
	"github.com/skald-io/skald/orchestrator/api"
)

type fixed orchestrator.Health

func (f fixed) Health() orchestrator.Health { return orchestrator.Health(f) }

func ask(t *testing.T, h http.Handler, path string, change ...func(*http.Request)) (status int, body map[string]any) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:7500"+path, nil)
	r.RemoteAddr = "127.0.0.1:40000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil && w.Code < 400 {
		t.Fatalf("%s: %q: %v", path, w.Body, err)
	}
	return w.Code, body
}

func TestANodeIsReadyInTheGroupWhileItRestoresAndNotWhileAShardFails(t *testing.T) {
	owned, restoring := orchestrator.Shown{Shard: 0, State: orchestrator.ShardOwned}, orchestrator.Shown{Shard: 1, State: orchestrator.ShardRestoring}
	failing := orchestrator.Shown{Shard: 2, State: orchestrator.ShardFailing, Code: "append-unknown", Error: "x"}
	for _, c := range []struct {
		what   string
		health orchestrator.Health
		want   int
	}{
		{"before it joined", orchestrator.Health{}, 503},
		{"with nothing assigned", orchestrator.Health{Member: true}, 200},
		{"owning and restoring", orchestrator.Health{Member: true, Shards: []orchestrator.Shown{owned, restoring}}, 200},
		{"a shard fails", orchestrator.Health{Member: true, Shards: []orchestrator.Shown{owned, failing}}, 503},
		{"it waits for a definition", orchestrator.Health{Member: true, WaitingOn: []string{"bill 1"}}, 200},
		{"it stops", orchestrator.Health{Member: true, Stopping: true}, 503},
	} {
		s := api.New(fixed(c.health))
		if got, body := ask(t, s, "/readyz"); got != c.want || body["ready"] != (c.want == 200) {
			t.Errorf("%s: %d %v", c.what, got, body)
		}
		if got, body := ask(t, s, "/livez"); got != 200 || body["live"] != true {
			t.Errorf("%s: %d %v", c.what, got, body)
		}
	}
}

func TestWhatChangesAnythingIsForCallersOnTheSameMachine(t *testing.T) {
	s := api.New(fixed{})
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	s.Handle("GET /open", ok)
	s.HandleLocal("GET /act", ok)
	for _, c := range []struct {
		what   string
		change func(*http.Request)
		want   int
	}{
		{"here", func(*http.Request) {}, 200},
		{"by IPv6", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:1", "[::1]:7500" }, 200},
		{"by name", func(r *http.Request) { r.Host = "localhost:7500" }, 200},
		{"from another machine", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:1" }, 403},
		{"by a foreign name that leads here", func(r *http.Request) { r.Host = "evil.example:7500" }, 403},
		{"from a foreign page", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"from a page of ours", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:7500") }, 200},
	} {
		if got, _ := ask(t, s, "/act", c.change); got != c.want {
			t.Errorf("%s: %d", c.what, got)
		}
		if got, _ := ask(t, s, "/open", c.change); got != 200 {
			t.Errorf("%s, what changes nothing: %d", c.what, got)
		}
	}
}

func TestABodyIsReadNoFurtherThanItsLimit(t *testing.T) {
	s := api.New(fixed{})
	var seen error
	s.HandleLocal("POST /act", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, seen = r.Body.Read(make([]byte, api.MaxBody+1))
		for seen == nil {
			_, seen = r.Body.Read(make([]byte, 1<<16))
		}
	}))
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/act", strings.NewReader(strings.Repeat("x", api.MaxBody+1)))
	r.RemoteAddr = "127.0.0.1:1"
	s.ServeHTTP(httptest.NewRecorder(), r)
	if tooLarge := (*http.MaxBytesError)(nil); !errors.As(seen, &tooLarge) {
		t.Errorf("%v", seen)
	}
}

// unasked is an engine that nobody may ask anything.
type unasked struct{ api.Engine }

func (unasked) ShardOfInstance(events.InstanceID) int32 { return 0 }

func TestAParameterThatARequestDoesNotHaveIsRefusedByName(t *testing.T) {
	h := api.NewOperator(unasked{})
	for _, c := range []struct {
		method, path string
		want         []string
	}{
		{"GET", "/v1/instances?stat=parked&limit=5&x=1", []string{`"stat", "x"`, "definition, key, limit, state"}},
		{"GET", "/v1/instances?state=parked&state=running", []string{`"state"`, "more than once"}},
		{"GET", "/v1/instances/" + strings.Repeat("0", 32) + "?verbose", []string{`"verbose"`, "this request has none"}},
		{"POST", "/v1/instances/" + strings.Repeat("0", 32) + "/actions?dry-run=true", []string{`"dry-run"`}},
		{"GET", "/v1/definitions/order/keys/7?version=1", []string{`"version"`}},
		{"POST", "/v1/definitions/order/keys/7/actions?force=1", []string{`"force"`}},
		{"GET", "/v1/quarantine?reasons=x", []string{`"reasons"`, "key, limit, partition, reason, topic"}},
		{"POST", "/v1/quarantine/redrive?topic=x", []string{`"topic"`}},
	} {
		status, body := ask(t, h, c.path, func(r *http.Request) { r.Method, r.Host, r.RemoteAddr = c.method, "127.0.0.1:1", "127.0.0.1:2" })
		message, _ := body["message"].(string)
		if status != http.StatusBadRequest || body["code"] != api.CodeBadParameter {
			t.Errorf("%s %s is answered %d %v", c.method, c.path, status, body)
		}
		for _, want := range c.want {
			if !strings.Contains(message, want) {
				t.Errorf("%s %s: %q is not in %q", c.method, c.path, want, message)
			}
		}
	}
	if status, body := ask(t, h, "/v1/instances?a=1;b=2", func(r *http.Request) { r.Host, r.RemoteAddr = "127.0.0.1:1", "127.0.0.1:2" }); status != http.StatusBadRequest || body["code"] != api.CodeBadInput {
		t.Errorf("what cannot be read is answered %d %v", status, body)
	}
}
