package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator"
)

// Engine is what an Operator needs of an *orchestrator.Engine.
type Engine interface {
	Act(ctx context.Context, a orchestrator.Action) (orchestrator.Answer, error)
	Describe(id events.InstanceID) (orchestrator.Description, bool, error)
	Find(definition, key string) (events.InstanceID, bool, error)
	List(fn func(orchestrator.Instance) bool) error
	Quarantine(ctx context.Context, f orchestrator.Filter, fn func(orchestrator.QuarantinedRecord) bool) error
	Redrive(ctx context.Context, f orchestrator.Filter, fn func(orchestrator.Redriven)) error
	Shards() []int32
	ShardOf(key string) int32
	ShardOfInstance(id events.InstanceID) int32
}

// MaxLimit bounds the instances or records in one response.
const MaxLimit = 1000

// askTimeout is how long a request waits for a decision at most.
const askTimeout = 30 * time.Second

// Operator handles what operators ask and do, below /v1/. Nothing that comes in is trusted: bodies are bounded, a page of
// another site cannot make a browser ask (requests name the host they want, and bodies are JSON), and whatever changes
// something goes through Engine.Act, so that it is journaled with who and why. It is safe for concurrent use.
type Operator struct {
	engine Engine
	mux    *http.ServeMux
}

// NewOperator makes the handler over an engine. New mounts it by itself.
func NewOperator(e Engine) *Operator {
	a := &Operator{engine: e, mux: http.NewServeMux()}
	for pattern, h := range a.handlers() {
		a.mux.HandleFunc(pattern, h)
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, CodeNotFound, "there is no such resource")
	})
	return a
}

func (a *Operator) handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /v1/instances":                                    a.list,
		"GET /v1/instances/{id}":                               a.describe,
		"POST /v1/instances/{id}/actions":                      a.act,
		"GET /v1/definitions/{definition}/keys/{key}":          a.describe,
		"POST /v1/definitions/{definition}/keys/{key}/actions": a.act,
		"GET /v1/quarantine":                                   a.quarantine,
		"POST /v1/quarantine/redrive":                          a.redrive,
	}
}

// Codes of errors of the API itself. Those of actions are orchestrator's and machine's.
const (
	CodeNotFound     = "not-found"
	CodeNotHere      = "not-here"
	CodeBadInput     = "bad-request"
	CodeBadParameter = "unknown-parameter"
	CodeForbidden    = "forbidden-origin"
	CodeTooLarge     = "body-too-large"
	CodeInternal     = "internal"
)

// Error is the body of every response that is none of what was asked for.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// ServeHTTP implements http.Handler. It answers only what is asked of this machine by name: a page whose name was
// pointed at this machine asks under its own.
func (a *Operator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case !loopback(r.Host) || !loopback(r.RemoteAddr):
		fail(w, http.StatusForbidden, CodeForbidden, "this API answers on a loopback address alone: ask 127.0.0.1, [::1] or localhost")
		return
	case r.Header.Get("Origin") != "" || fetched(r.Header.Get("Sec-Fetch-Site")):
		fail(w, http.StatusForbidden, CodeForbidden, "this API is not for pages in a browser")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	a.mux.ServeHTTP(w, r)
}

// query reads a request's parameters, strictly: one that is not among the allowed names, stands there twice, or cannot be
// read would otherwise widen what is asked for, without a word. false: the response is written.
func query(w http.ResponseWriter, r *http.Request, allowed ...string) (q url.Values, ok bool) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadInput, fmt.Sprintf("the parameters cannot be read: %.200v", err))
		return nil, false
	}
	var unknown, twice []string
	for name, values := range q {
		switch {
		case !slices.Contains(allowed, name):
			unknown = append(unknown, fmt.Sprintf("%.40q", name))
		case len(values) > 1:
			twice = append(twice, fmt.Sprintf("%q", name))
		}
	}
	slices.Sort(unknown)
	slices.Sort(twice)
	known := "this request has none"
	if len(allowed) > 0 {
		known = "this request has " + strings.Join(allowed, ", ")
	}
	switch {
	case len(unknown) > 0:
		fail(w, http.StatusBadRequest, CodeBadParameter, fmt.Sprintf("there is no parameter %s: %s", strings.Join(unknown[:min(len(unknown), 20)], ", "), known))
	case len(twice) > 0:
		fail(w, http.StatusBadRequest, CodeBadParameter, fmt.Sprintf("parameter %s stands there more than once", strings.Join(twice, ", ")))
	default:
		return q, true
	}
	return nil, false
}

func fetched(site string) bool { return site != "" && site != "none" }

// loopback reports whether a Host header, or an address, names this machine to itself.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Listen serves h on a loopback address until ctx ends, then lets what is under way finish. It returns when it
// listens; stopped is closed when it has ended. Another address than a loopback one is an error.
func Listen(ctx context.Context, addr string, h http.Handler) (at string, stopped <-chan struct{}, err error) {
	if !loopback(addr) {
		return "", nil, fmt.Errorf("%q is no loopback address: the API has no passwords yet, so it is for this machine alone", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 5 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if s.Shutdown(grace) != nil {
				_ = s.Close()
			}
		case <-ended:
		}
		<-ended
	}()
	return l.Addr().String(), done, nil
}

func (a *Operator) list(w http.ResponseWriter, r *http.Request) {
	q, ok := query(w, r, "definition", "key", "limit", "state")
	if !ok {
		return
	}
	limit, err := limitOf(q.Get("limit"))
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadInput, err.Error())
		return
	}
	state, definition, key := q.Get("state"), q.Get("definition"), q.Get("key")
	if state != "" && !known(state) {
		fail(w, http.StatusBadRequest, CodeBadInput, fmt.Sprintf("there is no state %.40q", state))
		return
	}
	out := Instances{Instances: []Summary{}, Shards: a.engine.Shards()}
	err = a.engine.List(func(i orchestrator.Instance) bool {
		if state != "" && i.State.String() != state || definition != "" && i.Definition != definition || key != "" && i.Key != key {
			return true
		}
		if len(out.Instances) == limit {
			out.More = true
			return false
		}
		out.Instances = append(out.Instances, summaryOf(i.ID, &i.Head))
		return true
	})
	if err != nil {
		fail(w, http.StatusInternalServerError, CodeInternal, err.Error())
		return
	}
	reply(w, http.StatusOK, out)
}

func known(state string) bool {
	for s := events.Running; s <= events.Terminated; s++ {
		if s.String() == state {
			return true
		}
	}
	return false
}

func limitOf(s string) (int, error) {
	if s == "" {
		return 100, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, fmt.Errorf("limit is 1 to %d, not %.20q", MaxLimit, s)
	}
	return n, nil
}

// target is whom a request is about.
func (a *Operator) target(r *http.Request) (id events.InstanceID, definition, key string, err error) {
	if s := r.PathValue("id"); s != "" {
		id, err = events.ParseInstanceID(s)
		return id, "", "", err
	}
	return id, r.PathValue("definition"), r.PathValue("key"), nil
}

func (a *Operator) describe(w http.ResponseWriter, r *http.Request) {
	if _, fine := query(w, r); !fine {
		return
	}
	id, definition, key, err := a.target(r)
	shard := a.engine.ShardOfInstance(id)
	var ok bool
	if err == nil && key != "" {
		shard = a.engine.ShardOf(key)
		if id, ok, err = a.engine.Find(definition, key); err == nil && !ok {
			fail(w, http.StatusNotFound, CodeNotFound, fmt.Sprintf("there is no instance of %.128q with the key %.200q", definition, key))
			return
		}
	}
	var d orchestrator.Description
	if err == nil {
		d, ok, err = a.engine.Describe(id)
	}
	switch {
	case errors.Is(err, events.ErrInstanceID):
		fail(w, http.StatusBadRequest, CodeBadInput, err.Error())
	case errors.Is(err, orchestrator.ErrNotHere):
		fail(w, http.StatusMisdirectedRequest, CodeNotHere, fmt.Sprintf("shard %d is not, or not yet, on this node: ask another one", shard))
	case err != nil:
		fail(w, http.StatusInternalServerError, CodeInternal, err.Error())
	case !ok:
		fail(w, http.StatusNotFound, CodeNotFound, "there is no instance "+id.String())
	default:
		reply(w, http.StatusOK, viewOf(&d))
	}
}

func (a *Operator) act(w http.ResponseWriter, r *http.Request) {
	if _, ok := query(w, r); !ok {
		return
	}
	id, definition, key, err := a.target(r)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadInput, err.Error())
		return
	}
	var in ActionRequest
	if !body(w, r, &in) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	answer, err := a.engine.Act(ctx, orchestrator.Action{Instance: id, Action: events.Action{
		ID: in.ID, Kind: events.ActionKind(in.Kind), Who: in.Who, Why: in.Why, Definition: definition, Key: key, Step: in.Step, Name: in.Name,
		Undo: in.Undo, Outcome: in.Outcome, Payload: in.Payload, PastPivot: in.PastPivot}})
	var bad *orchestrator.ActionError
	switch {
	case errors.As(err, &bad) && bad.Code == orchestrator.CodeBadAction:
		fail(w, http.StatusBadRequest, bad.Code, bad.Detail)
	case errors.As(err, &bad):
		fail(w, http.StatusServiceUnavailable, bad.Code, bad.Detail)
	case errors.Is(err, orchestrator.ErrUnanswered):
		fail(w, http.StatusGatewayTimeout, orchestrator.CodeUnanswered, strings.TrimPrefix(err.Error(), orchestrator.CodeUnanswered+": "))
	case err != nil:
		fail(w, http.StatusServiceUnavailable, orchestrator.CodeNotStarted, err.Error())
	case !answer.Done:
		reply(w, http.StatusConflict, answerView(answer))
	default:
		reply(w, http.StatusOK, answerView(answer))
	}
}

func (a *Operator) quarantine(w http.ResponseWriter, r *http.Request) {
	q, ok := query(w, r, "key", "limit", "partition", "reason", "topic")
	if !ok {
		return
	}
	limit, err := limitOf(q.Get("limit"))
	f := orchestrator.Filter{Reason: q.Get("reason"), Topic: q.Get("topic"), Key: q.Get("key")}
	if s := q.Get("partition"); s != "" && err == nil {
		var n int64
		if n, err = strconv.ParseInt(s, 10, 32); err == nil && n < 0 {
			err = errors.New("a partition is not negative")
		}
		p := int32(n)
		f.Partition = &p
	}
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadInput, err.Error())
		return
	}
	out := QuarantineList{Records: []QuarantinedView{}}
	err = a.engine.Quarantine(r.Context(), f, func(q orchestrator.QuarantinedRecord) bool {
		if len(out.Records) == limit {
			out.More = true
			return false
		}
		out.Records = append(out.Records, quarantinedView(&q))
		return true
	})
	if err != nil {
		fail(w, http.StatusInternalServerError, CodeInternal, err.Error())
		return
	}
	reply(w, http.StatusOK, out)
}

func (a *Operator) redrive(w http.ResponseWriter, r *http.Request) {
	if _, ok := query(w, r); !ok {
		return
	}
	var in RedriveRequest
	if !body(w, r, &in) {
		return
	}
	f := orchestrator.Filter{Reason: in.Reason, Topic: in.Topic, Key: in.Key, Partition: in.Partition, Offsets: in.Offsets}
	if !in.All && f.Reason == "" && f.Topic == "" && f.Key == "" && f.Partition == nil && len(f.Offsets) == 0 {
		fail(w, http.StatusBadRequest, CodeBadInput, "say which records: by reason, topic, key, partition or offsets, or all of them")
		return
	}
	var out RedriveResult
	err := a.engine.Redrive(r.Context(), f, func(x orchestrator.Redriven) {
		if x.Err == nil {
			out.Redriven++
			return
		}
		out.Left++
		if len(out.Refused) < MaxLimit {
			v := quarantinedView(&x.QuarantinedRecord)
			v.Error = events.Cut(x.Err.Error(), 512)
			out.Refused = append(out.Refused, v)
		}
	})
	if err != nil {
		fail(w, http.StatusServiceUnavailable, CodeInternal, fmt.Sprintf("%d records were put back, then: %v; redriving again is safe", out.Redriven, err))
		return
	}
	reply(w, http.StatusOK, out)
}

// body reads a request's JSON, strictly; false: the response is written.
func body(w http.ResponseWriter, r *http.Request, v any) bool {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, CodeBadInput, "the body is JSON, of content type application/json")
		return false
	}
	raw, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, CodeTooLarge, fmt.Sprintf("a body has at most %d bytes", MaxBody))
		return false
	case err != nil:
		fail(w, http.StatusBadRequest, CodeBadInput, err.Error())
		return false
	case !utf8.Valid(raw):
		fail(w, http.StatusBadRequest, CodeBadInput, "the body is not UTF-8")
		return false
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		fail(w, http.StatusBadRequest, CodeBadInput, "the body: "+err.Error())
		return false
	}
	if _, err := d.Token(); err != io.EOF {
		fail(w, http.StatusBadRequest, CodeBadInput, "the body goes on after its JSON object")
		return false
	}
	return true
}

func fail(w http.ResponseWriter, status int, code, message string) {
	reply(w, status, Error{code, message})
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"the response cannot be printed"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
