package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/api"
)

// The operator's commands: each asks a node's API, and prints what it says.

const defaultAPI = "127.0.0.1:7171"

const targetHelp = `TARGET is an instance's id, or DEFINITION/KEY: the live instance of a definition with that business key.`

// operating are the flags of every command that asks the API.
type operating struct {
	flags   *flag.FlagSet
	addr    string
	timeout time.Duration
	out     *output
}

func operatingFlags(f *flag.FlagSet) *operating {
	o := &operating{flags: f}
	f.StringVar(&o.addr, "api", "", "address of a node's API; $SKALD_API, or else "+defaultAPI+" `HOST:PORT`")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait for an answer `DURATION`")
	o.out = outputFlag(f)
	return o
}

// ask sends a request, and decodes what comes into v. A response that is an error of the API's is an *api.Error; one
// with status 409 is decoded like a success, and ok is false.
func (o *operating) ask(ctx context.Context, e *env, method, path string, in, v any) (ok bool, err error) {
	addr := o.addr
	if addr == "" {
		addr = e.getenv("SKALD_API")
	}
	if addr == "" {
		addr = defaultAPI
	}
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/")
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return false, usagef("%s", err)
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, body)
	if err != nil {
		return false, usagef("--api %q is not host:port", addr)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := (&http.Client{Transport: &http.Transport{Proxy: nil}}).Do(req)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return false, fmt.Errorf("no answer from the API at %s: %w; does a node run there? Give its address with --api or $SKALD_API", addr, err)
	}
	defer res.Body.Close()
	const most = 64 << 20
	b, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return false, fmt.Errorf("the API at %s: %w", addr, err)
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusConflict {
		if err := json.Unmarshal(b, v); err != nil {
			return false, fmt.Errorf("the API at %s says what this build does not understand: %w", addr, err)
		}
		return res.StatusCode == http.StatusOK, nil
	}
	fault := &api.Error{}
	if json.Unmarshal(b, fault) != nil || fault.Code == "" {
		return false, fmt.Errorf("the API at %s answers %s: is it Skald's?", addr, res.Status)
	}
	return false, fault
}

// targetPath is the resource of a TARGET.
func targetPath(target string) (string, error) {
	if _, err := events.ParseInstanceID(target); err == nil {
		return "/v1/instances/" + target, nil
	}
	definition, key, ok := strings.Cut(target, "/")
	if !ok || definition == "" || key == "" {
		return "", usagef("%q is neither an instance's id (32 hexadecimal digits) nor DEFINITION/KEY", target)
	}
	return "/v1/definitions/" + url.PathEscape(definition) + "/keys/" + url.PathEscape(key), nil
}

// arg is the positional argument n, which must be there.
func (o *operating) arg(n int, what string) (string, error) {
	if o.flags.NArg() <= n {
		return "", usagef("%s is missing", what)
	}
	return o.flags.Arg(n), nil
}

var getCommand = command{
	name: "get", args: "[TARGET] [--state S] [--definition D] [--key K] [-o json]", takes: 1,
	summary: "list instances, or show one in a line",
	about: `Lists the instances of the node that is asked, or the one that TARGET names. Instances of shards on other nodes
are not in its list.

` + targetHelp,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		o := operatingFlags(f)
		state := f.String("state", "", "running, suspended, compensating, parked, completed, compensated or terminated `STATE`")
		definition := f.String("definition", "", "of this definition alone `NAME`")
		key := f.String("key", "", "of this business key alone `KEY`")
		limit := f.Int("limit", 100, "at most so many `N`")
		return func(ctx context.Context, e *env) error {
			s := newScreen(e)
			if o.flags.NArg() == 1 {
				path, err := targetPath(o.flags.Arg(0))
				if err != nil {
					return err
				}
				var one api.Instance
				if _, err := o.ask(ctx, e, http.MethodGet, path, nil, &one); err != nil {
					return err
				}
				if *o.out == "json" {
					s.Object(one.Summary)
				} else {
					s.Result(summaryLine(&one.Summary))
				}
				return nil
			}
			q := url.Values{"limit": {strconv.Itoa(*limit)}}
			for name, v := range map[string]string{"state": *state, "definition": *definition, "key": *key} {
				if v != "" {
					q.Set(name, v)
				}
			}
			var list api.Instances
			if _, err := o.ask(ctx, e, http.MethodGet, "/v1/instances?"+q.Encode(), nil, &list); err != nil {
				return err
			}
			for i := range list.Instances {
				if *o.out == "json" {
					s.Object(&list.Instances[i])
				} else {
					s.Result(summaryLine(&list.Instances[i]))
				}
			}
			if list.More {
				s.Note("there are more than %d: narrow it down, or raise --limit", *limit)
			}
			return nil
		}
	},
}

func summaryLine(i *api.Summary) string {
	line := fmt.Sprintf("%s  %-12s %s/%s", i.ID, i.State, sanitize(i.Definition, 0), sanitize(i.Key, 0))
	if i.Code != "" {
		line += "  " + sanitize(i.Code, 0)
	}
	return line
}

var describeCommand = command{
	name: "describe", args: "TARGET [-o json]", takes: 1,
	summary: "show all there is to know of an instance",
	about: `Shows an instance: its state and why, its data, what it waits for, what would have to be undone, what is queued,
and its history.

` + targetHelp,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		o := operatingFlags(f)
		return func(ctx context.Context, e *env) error {
			target, err := o.arg(0, "TARGET")
			if err != nil {
				return err
			}
			path, err := targetPath(target)
			if err != nil {
				return err
			}
			var one api.Instance
			if _, err := o.ask(ctx, e, http.MethodGet, path, nil, &one); err != nil {
				return err
			}
			s := newScreen(e)
			if *o.out == "json" {
				s.Object(one)
				return nil
			}
			for _, line := range describeLines(&one) {
				s.Result(sanitize(line, 0))
			}
			return nil
		}
	},
}

// describeLines print an instance for people. They are not safe for a terminal yet.
func describeLines(i *api.Instance) (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	add("%s/%s  %s", i.Definition, i.Key, i.State)
	add("  id          %s", i.ID)
	add("  version     %s", i.Version)
	for _, x := range []struct{ name, text string }{
		{"stopped in", i.StoppedIn}, {"parked at", i.ParkedAt}, {"code", i.Code}, {"message", i.Message}, {"cause", i.Cause}, {"", i.CauseMessage},
		{"goes back to", i.Savepoint}, {"pivot", i.Pivot}, {"started", i.Started}, {"deadline", i.Deadline}, {"ended", i.Ended}, {"data", string(i.Data)},
	} {
		if x.text != "" {
			add("  %-11s %s", x.name, x.text)
		}
	}
	for _, w := range i.Waits {
		what := "time"
		switch {
		case w.Signal != "":
			what = "signal " + w.Signal
		case w.Topic != "":
			what = fmt.Sprintf("event %s of %s with key %s", w.Type, w.Topic, w.Key)
		}
		if w.Until != "" {
			what += ", until " + w.Until
		}
		add("  waits       %s: %s", w.Name, what)
	}
	for _, x := range i.Owed {
		add("  owes        %s: %s to %s, execution %d, tried %d times", x.Step, x.Type, x.Topic, x.Execution, x.Attempts)
	}
	for _, q := range i.Queue {
		add("  queued      %s %s %s %s", q.Time, q.Signal, q.ID, q.Who)
	}
	for _, h := range i.History {
		line := "  " + h.Time + "  " + h.Kind
		for _, x := range []string{h.Step, h.To, h.Code, h.Who, h.Message} {
			if x != "" {
				line += " " + x
			}
		}
		if h.Direction == "compensate" {
			line += " (undo)"
		}
		if h.Attempt > 1 {
			line += fmt.Sprintf(" attempt %d", h.Attempt)
		}
		out = append(out, line)
	}
	return out
}

// acting describes one of the commands that act.
type acting struct {
	name    string
	kind    events.ActionKind
	summary string
	about   string
	args    string // after TARGET
	takes   int    // positional arguments, TARGET included
	reason  bool   // --why is required
	flags   func(f *flag.FlagSet, in *api.ActionRequest)
	payload string // the flag that holds one, "" for none; what it is for
	usage   string
	must    bool // the payload
	fill    func(o *operating, in *api.ActionRequest) error
}

func stepFlags(f *flag.FlagSet, in *api.ActionRequest) {
	f.StringVar(&in.Step, "step", "", "the step it is about, as its history names it; default: the one that is parked `NAME`")
	f.BoolVar(&in.Undo, "undo", false, "it is about the step's undo")
}

var actings = []acting{
	{name: "signal", kind: events.ActionSignal, args: "NAME [--data JSON]", takes: 2, summary: "send a signal to an instance",
		about:   "A Wait for the signal takes it; one that comes early waits in the instance's queue.",
		payload: "data", usage: "what the signal says: JSON, @FILE, or - for standard input `JSON`",
		fill: func(o *operating, in *api.ActionRequest) (err error) {
			in.Name, err = o.arg(1, "the signal's NAME")
			return err
		}},
	{name: "retry", kind: events.ActionRetry, args: "[--step NAME] [--undo] [--payload JSON]", takes: 1, flags: stepFlags, summary: "try a parked step, or undo, again",
		about: `Attempts start anew under the same idempotency key. With --payload the command is another one: it gets a key of its
own, and what the old one may have done stays owed.`,
		payload: "payload", usage: "the command instead: JSON, @FILE, or - for standard input `JSON`"},
	{name: "resolve", kind: events.ActionResolve, args: "--outcome OUTCOME --why TEXT [--step NAME] [--undo] [--payload JSON]", takes: 1, reason: true, summary: "say what became of a step, or its undo",
		about: `done: the effect is there (--payload is the reply that did not come). rejected: there is no effect, of no attempt.
compensated: it has been undone. Skald believes what you say.`,
		payload: "payload", usage: "the reply: JSON, @FILE, or - for standard input `JSON`",
		flags: func(f *flag.FlagSet, in *api.ActionRequest) {
			stepFlags(f, in)
			f.StringVar(&in.Outcome, "outcome", "", "done, rejected or compensated `OUTCOME`")
		},
		fill: func(_ *operating, in *api.ActionRequest) error {
			if in.Outcome == "" {
				return usagef("--outcome is missing: done, rejected or compensated")
			}
			return nil
		}},
	{name: "skip", kind: events.ActionSkip, args: "--why TEXT [--step NAME]", takes: 1, reason: true, flags: stepFlags, summary: "go on without a parked step",
		about: "The step counts as done, without its effect; what it may have done stays owed."},
	{name: "compensate", kind: events.ActionCompensate, args: "--why TEXT [--to SAVE-POINT] [--past-pivot]", takes: 1, reason: true, summary: "undo what an instance did",
		about: "At once, also when it is parked. With --to it goes back to a save-point and on from there.",
		flags: func(f *flag.FlagSet, in *api.ActionRequest) {
			f.StringVar(&in.Name, "to", "", "the save-point (a Try) to go back to; default: all of it `NAME`")
			f.BoolVar(&in.PastPivot, "past-pivot", false, "also when the point of no return is passed")
		}},
	{name: "cancel", kind: events.ActionCancel, args: "--why TEXT", takes: 1, reason: true, summary: "end an instance: undo what it did, unless the pivot is passed",
		about: "As compensate, with the code cancelled."},
	{name: "suspend", kind: events.ActionSuspend, args: "[--why TEXT]", takes: 1, summary: "let an instance stand still",
		about: "No command goes out and no time-out counts until it is resumed. What participants answer is kept."},
	{name: "resume", kind: events.ActionResume, args: "[--why TEXT]", takes: 1, summary: "let a suspended instance go on",
		about: "What came meanwhile is taken first."},
	{name: "terminate", kind: events.ActionTerminate, args: "--why TEXT", takes: 1, reason: true, summary: "end an instance at once, with whatever it owes",
		about: "Nothing is undone. Its history lists what would have been: that is yours to do."},
	{name: "patch", kind: events.ActionPatchData, args: "--data JSON --why TEXT", takes: 1, reason: true, must: true, summary: "change an instance's data",
		about:   "The data must be what the definition reads afterwards, or nothing changes.",
		payload: "data", usage: "a JSON merge patch (RFC 7396): JSON, @FILE, or - for standard input `JSON`"},
}

func actingCommands() []command {
	var out []command
	for _, a := range actings {
		out = append(out, a.command())
	}
	return out
}

func (a acting) command() command {
	return command{
		name: a.name, args: "TARGET " + a.args, takes: a.takes, summary: a.summary,
		about: a.about + `

The instance decides: the command prints its answer, and exits with 1 when it refuses. The same --id again gets the
same answer, and does nothing twice: give one where a script may ask again.

` + targetHelp,
		setup: func(f *flag.FlagSet) func(context.Context, *env) error {
			o := operatingFlags(f)
			in := &api.ActionRequest{Kind: string(a.kind)}
			f.StringVar(&in.ID, "id", "", "the action's id; default: a new one `ID`")
			f.StringVar(&in.Who, "who", "", "who acts; default: you, as this machine knows you `NAME`")
			why := "why, for the history"
			if a.reason {
				why += "; required"
			}
			f.StringVar(&in.Why, "why", "", why+" `TEXT`")
			payload := new(string)
			if a.payload != "" {
				payload = f.String(a.payload, "", a.usage)
			}
			if a.flags != nil {
				a.flags(f, in)
			}
			return func(ctx context.Context, e *env) error { return a.run(ctx, e, o, in, *payload) }
		},
	}
}

func (a acting) run(ctx context.Context, e *env, o *operating, in *api.ActionRequest, payload string) error {
	target, err := o.arg(0, "TARGET")
	if err != nil {
		return err
	}
	path, err := targetPath(target)
	if err != nil {
		return err
	}
	if a.fill != nil {
		if err := a.fill(o, in); err != nil {
			return err
		}
	}
	if o.flags.NArg() < a.takes {
		return usagef("an argument is missing")
	}
	if a.reason && strings.TrimSpace(in.Why) == "" {
		return usagef("--why is required: %s changes for good what the saga does", a.name)
	}
	if a.must && payload == "" {
		return usagef("--%s is required", a.payload)
	}
	if payload != "" {
		if in.Payload, err = readJSON(e, payload); err != nil {
			return err
		}
	}
	if in.Who == "" {
		in.Who = whoami()
	}
	var answer api.Answer
	ok, err := o.ask(ctx, e, http.MethodPost, path+"/actions", in, &answer)
	if err != nil {
		return err
	}
	s := newScreen(e)
	if *o.out == "json" {
		s.Object(answer)
	} else {
		s.Result(sanitize(answerLine(a.name, &answer), 0))
	}
	if !ok {
		return &exitError{code: exitFailed}
	}
	return nil
}

func answerLine(name string, a *api.Answer) string {
	line := name + ": done"
	if !a.Done {
		line = name + ": refused"
	}
	for _, x := range []string{a.Code, a.Message} {
		if x != "" {
			line += ": " + x
		}
	}
	if a.Instance != "" {
		line += "  (instance " + a.Instance + ", id " + a.ID + ")"
	}
	return line
}

const maxPayload = 512 << 10

// readJSON reads a payload given in place, from a file, or from standard input.
func readJSON(e *env, s string) (json.RawMessage, error) {
	var from io.Reader = strings.NewReader(s)
	switch {
	case s == "-" && e.stdin != nil:
		from = e.stdin
	case strings.HasPrefix(s, "@"):
		file, err := os.Open(s[1:])
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	b, err := io.ReadAll(io.LimitReader(from, maxPayload+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxPayload:
		return nil, usagef("a payload has at most %d bytes", maxPayload)
	case !json.Valid(b):
		return nil, usagef("%.60q is no JSON", b)
	}
	return b, nil
}

// whoami is the user of this machine.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return events.Cut(u.Username, events.MaxWhoBytes)
	}
	return "unknown"
}

// quarantineFlags are the flags that say which records.
func quarantineFlags(f *flag.FlagSet, in *api.RedriveRequest) (partition *int) {
	f.StringVar(&in.Reason, "reason", "", "with this code `CODE`")
	f.StringVar(&in.Topic, "topic", "", "read from this topic `TOPIC`")
	f.StringVar(&in.Key, "key", "", "with this record key `KEY`")
	return f.Int("partition", -1, "of this partition of the quarantine topic `N`")
}

var quarantineCommand = command{
	name: "quarantine", args: "[--reason CODE] [--topic TOPIC] [--key KEY] [-o json]",
	summary: "list what nobody could take",
	about: `Lists the records of the quarantine topic: where each was read, and why it was put aside. Values are not
printed. docs/errors.md says what each code means and what to do; then skald redrive puts them back.`,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		o := operatingFlags(f)
		in := &api.RedriveRequest{}
		partition := quarantineFlags(f, in)
		limit := f.Int("limit", 100, "at most so many `N`")
		return func(ctx context.Context, e *env) error {
			q := url.Values{"limit": {strconv.Itoa(*limit)}}
			for name, v := range map[string]string{"reason": in.Reason, "topic": in.Topic, "key": in.Key} {
				if v != "" {
					q.Set(name, v)
				}
			}
			if *partition >= 0 {
				q.Set("partition", strconv.Itoa(*partition))
			}
			var list api.QuarantineList
			if _, err := o.ask(ctx, e, http.MethodGet, "/v1/quarantine?"+q.Encode(), nil, &list); err != nil {
				return err
			}
			s := newScreen(e)
			for i := range list.Records {
				if *o.out == "json" {
					s.Object(&list.Records[i])
				} else {
					s.Result(sanitize(quarantinedLine(&list.Records[i]), 0))
				}
			}
			if list.More {
				s.Note("there are more than %d: narrow it down, or raise --limit", *limit)
			}
			return nil
		}
	},
}

func quarantinedLine(q *api.QuarantinedView) string {
	line := fmt.Sprintf("%d/%d  %s  %s  key %s  %d bytes  %s", q.Partition, q.Offset, q.Time, q.Place, q.Key, q.Bytes, q.Reason)
	if q.Error != "" {
		line += "  left: " + q.Error
	}
	return line
}

var redriveCommand = command{
	name: "redrive", args: "--all | [--reason CODE] [--topic TOPIC] [--key KEY] [--partition N] [--offset N]",
	summary: "put quarantined records back",
	about: `Puts records of the quarantine topic back into the inboxes of the shards that they are for, in order. They stay in
the quarantine topic, and each is taken once however often it is redriven. One that nobody can take now either is left,
and named.`,
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		o := operatingFlags(f)
		in := &api.RedriveRequest{}
		partition := quarantineFlags(f, in)
		var offsets list
		f.Var(&offsets, "offset", "with this offset in the quarantine topic, with --partition; may be given several times `N`")
		f.BoolVar(&in.All, "all", false, "all of them")
		return func(ctx context.Context, e *env) error {
			for _, s := range offsets {
				n, err := strconv.ParseInt(s, 10, 64)
				if err != nil || n < 0 {
					return usagef("--offset %q is no offset", s)
				}
				in.Offsets = append(in.Offsets, n)
			}
			if *partition >= 0 {
				p := int32(*partition)
				in.Partition = &p
			}
			switch {
			case len(in.Offsets) > 0 && in.Partition == nil:
				return usagef("--offset needs --partition: each partition counts its own")
			case !in.All && in.Reason == "" && in.Topic == "" && in.Key == "" && in.Partition == nil:
				return usagef("say which records, or --all")
			}
			var done api.RedriveResult
			if _, err := o.ask(ctx, e, http.MethodPost, "/v1/quarantine/redrive", in, &done); err != nil {
				return err
			}
			s := newScreen(e)
			if *o.out == "json" {
				s.Object(done)
			} else {
				s.Result(fmt.Sprintf("%d records put back, %d left", done.Redriven, done.Left))
				for i := range done.Refused {
					s.Result(sanitize(quarantinedLine(&done.Refused[i]), 0))
				}
			}
			if done.Left > 0 {
				return &exitError{code: exitFailed}
			}
			return nil
		}
	},
}
