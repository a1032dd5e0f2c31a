// Package api is what a node says over HTTP: whether it lives, whether it is ready, and what operators ask it and tell it
// to do. A program sets
//
//	config.HTTP = func(e *orchestrator.Engine) http.Handler { return api.New(e) }
//
// and the engine serves it at Config.Listen, with limits on time and size; who adds handlers does it before it
// returns the Server. It may import the engine, and nothing of the engine imports it. The rule that must not
// break: what changes anything is answered only to callers on the same machine, until there is access control.
package api

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"

	"github.com/skald-io/skald/internal/mutant"
	"github.com/skald-io/skald/orchestrator"
)

// Node is what the Server shows. *orchestrator.Engine is one.
type Node interface {
	Health() orchestrator.Health
}

// Server is an http.Handler with /livez and /readyz, with /v1/ for operators, and with what is added. It is safe for concurrent use once it serves.
type Server struct {
	node Node
	mux  *http.ServeMux
}

// MaxBody bounds the body of a request, in bytes.
const MaxBody = 1 << 20

// New makes a Server for a node. That of an engine answers operators as well, on the same machine: see Operator.
func New(n Node) *Server {
	s := &Server{node: n, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /livez", s.live)
	s.mux.HandleFunc("GET /readyz", s.ready)
	if e, ok := n.(Engine); ok {
		s.Handle("/v1/", NewOperator(e)) // which looks itself at who calls
	}
	return s
}

// Handle adds a handler, under a pattern of http.ServeMux, that everybody may call who reaches the address.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// HandleLocal adds a handler for callers on the same machine: others are refused with 403, and so is a browser that a
// foreign page has sent here.
func (s *Server) HandleLocal(pattern string, h http.Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !local(r) && !mutant.On("api-local-for-everybody") {
			answer(w, http.StatusForbidden, map[string]string{"error": "only callers on the same machine may do this: use the loopback address"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	s.mux.ServeHTTP(w, r)
}

// local reports whether the request came over loopback, for a name of loopback, and not from a page of another site.
func local(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return false
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if ip := net.ParseIP(name); name != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return false // a foreign name that resolves to this machine
	}
	origin := r.Header.Get("Origin")
	return origin == "" || origin == "http://"+r.Host
}

// live is 200 as long as the process answers.
func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"live": true, "node": s.node.Health().Node})
}

// readiness is the body of /readyz.
type readiness struct {
	Ready     bool                 `json:"ready"`
	Node      string               `json:"node"`
	Member    bool                 `json:"member"` // of the consumer group
	Shards    map[string]int       `json:"shards"` // by state
	Failing   []orchestrator.Shown `json:"failing,omitempty"`
	WaitingOn []string             `json:"waiting_on,omitempty"` // definitions that inputs wait for
}

// ready is 200 once the node is in the consumer group and none of its shards fails, else 503. A shard that is being
// restored does not keep it from being ready: no other node would be any sooner.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	h := s.node.Health()
	out := readiness{Node: h.Node, Member: h.Member, Shards: map[string]int{}, WaitingOn: h.WaitingOn}
	for _, shard := range h.Shards {
		out.Shards[shard.State]++
		if shard.State == orchestrator.ShardFailing && len(out.Failing) < 20 {
			out.Failing = append(out.Failing, shard)
		}
	}
	out.Ready = h.Member && !h.Stopping && len(out.Failing) == 0
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, out)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller may be gone
}
