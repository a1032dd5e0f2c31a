package machine

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into the stories of testdata")

// TestStories tells each story of testdata and compares what is decided with what it says. A story is a
// list of commands, each followed by ---- and its decision, up to an empty line; lines with # are for
// people. See (*storyteller).do for the commands.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { tell(t, file) })
	}
}

func tell(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &storyteller{t: t, broken: map[string]bool{}}
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := i + 1
		var want strings.Builder
		if i+1 < len(lines) && lines[i+1] == "----" {
			for i += 2; i < len(lines) && lines[i] != ""; i++ {
				want.WriteString(lines[i] + "\n")
			}
			i--
		}
		got := s.do(line)
		if got == "" && want.Len() == 0 {
			continue
		}
		out.WriteString("----\n" + got)
		if got != want.String() && !*rewrite {
			t.Errorf("%s:%d: %s\ngot:\n%swant:\n%s", file, at, line, got, want.String())
		}
		if t.Failed() {
			return
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type storyteller struct {
	t       *testing.T
	w       *world
	cfg     Config
	broken  map[string]bool
	actions int
}

// do obeys one command:
//
//	plan [deadline=D] [fanout=N] [maxrecord=N] [lifecycle] PLAN   a new world, with that definition
//	start key=K [id=I] [value=V]                                  an event starts an instance
//	reply STEP[/undo] OUTCOME [attempt=N] [execution=N] [code=C] [message=M] [payload=P]
//	refused STEP[/undo] [attempt=N]                               Kafka refuses the command for good
//	timer [NODE|head]                                             time passes until that timer fires, or the next
//	stale NODE                                                    a timer that is not what the row says
//	back TRY                                                      the instance goes back to a save-point
//	wait D                                                        time passes, and nothing fires
//	break FUNC, mend FUNC                                         a user function fails from now on, or no more
//	forget, learn                                                 the machine has no definitions, has them again
//	rows                                                          what is stored
//	event type=T key=K id=I [value=V]                             an event on payments, to everybody it concerns
//	deliver [N], messages                                         the N-th message under way arrives, or all are listed
//	use K                                                         the instance of that business key is looked at
//	signal NAME [id=I] [who=W] [payload=P] [key=K] [step=S]
//	act KIND [id=I] [who=W] [why=W] [step=S] [name=N] [outcome=O] [payload=P] [key=K] [undo] [pastpivot]
//	overdue                                                       time passes until the next timer of a correlation or an answer
func (s *storyteller) do(line string) string {
	words := strings.Fields(line)
	args := map[string]string{}
	var plain []string
	for _, word := range words[1:] {
		if k, v, ok := strings.Cut(word, "="); ok && !strings.ContainsAny(k, "(:") {
			args[k] = v
		} else {
			plain = append(plain, word)
		}
	}
	switch words[0] {
	case "plan":
		s.plan(args, plain)
		return ""
	case "start":
		id := args["id"]
		if id == "" {
			id = "m-" + args["key"]
		}
		value := args["value"]
		if value == "" {
			value = args["key"]
		}
		return s.w.print(s.w.start(args["key"], id, value))
	case "reply":
		r := events.Reply{Command: s.command(plain[0], args), Code: args["code"], Message: args["message"]}
		r.Outcome = map[string]events.ReplyOutcome{"done": 1, "rejected": 2, "retry": 3, "progress": 4}[plain[1]]
		if r.Outcome == 0 {
			s.t.Fatalf("%q: no outcome", line)
		}
		if p, ok := args["payload"]; ok {
			r.Payload = []byte(p)
		}
		return s.w.print(s.w.reply(r))
	case "refused":
		r := Refusal{Command: s.command(plain[0], args), Code: "UNKNOWN_TOPIC", Message: "it is gone"}
		r.Command.Instance = s.w.id
		return s.w.print(s.w.decide(func() *events.Decision { return s.w.m.Refused(s.w, s.w.now, r) }))
	case "timer":
		return s.timer(plain)
	case "stale":
		n := s.w.named(plain[0])
		return s.w.print(s.w.decide(func() *events.Decision {
			return s.w.m.Timer(s.w, s.w.now, Timer{s.w.id, nodeRef(n.ID), s.w.now - 1})
		}))
	case "back":
		x := s.w.tree()
		return s.w.print(s.w.decide(func() *events.Decision { return s.w.goBackTo(x.at(s.w.numberOf(plain[0]))) }))
	case "wait":
		d, err := time.ParseDuration(plain[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.w.now += d.Milliseconds()
		return ""
	case "break", "mend":
		s.broken[plain[0]] = words[0] == "break"
		return ""
	case "forget", "learn":
		cfg := s.cfg
		if words[0] == "forget" {
			cfg.Plans = nil
		}
		cfg.App, cfg.Slots = "shop", 64
		s.w.m = New(cfg)
		return ""
	case "rows":
		return s.rows()
	case "event":
		return s.w.event(&events.Message{Topic: "payments", Key: []byte(args["key"]), Value: []byte(args["value"]), Time: s.w.now,
			Headers: []events.Header{{Key: events.HeaderType, Value: []byte(args["type"])}, {Key: events.HeaderID, Value: []byte(args["id"])}}})
	case "messages":
		return s.w.messages()
	case "deliver":
		n := 1
		if len(plain) > 0 {
			n, _ = strconv.Atoi(plain[0])
		}
		if n < 1 || n > len(s.w.sent) {
			return "nothing is under way\n"
		}
		return s.w.printMessage(s.w.sent[n-1].Encode(nil)) + "\n" + s.w.print(s.w.deliver(n-1))
	case "use":
		s.w.turnTo(instanceOf(s.t, s.w, plain[0]))
		return ""
	case "signal", "act":
		if args["id"] == "" {
			s.actions++
			args["id"] = "a" + strconv.Itoa(s.actions)
		}
		kind := plain[0]
		if words[0] == "signal" {
			kind, args["name"] = "signal", plain[0]
		}
		return s.w.print(s.w.message(s.w.actionOf(kind, args, plain[1:])))
	case "overdue":
		return s.overdue()
	}
	s.t.Fatalf("%q: no such command", line)
	return ""
}

func (s *storyteller) plan(args map[string]string, plain []string) {
	number := func(k string) int { n, _ := strconv.Atoi(args[k]); return n }
	clear(s.broken)
	s.actions = 0
	p := planOf(s.t, plain[len(plain)-1], s.broken)
	p.Deadline, _ = time.ParseDuration(args["deadline"])
	s.cfg = Config{Plans: []*sagas.Plan{p}, FanOut: number("fanout"), MaxRecord: number("maxrecord"), Lifecycle: plain[0] == "lifecycle"}
	p.During = map[string]sagas.During{"ignore": sagas.DuringIgnore}[args["during"]]
	p.After = map[string]sagas.After{"failure": sagas.AfterFailure, "quarantine": sagas.AfterQuarantine, "ignore": sagas.AfterIgnore}[args["after"]]
	s.w = newWorld(s.t, s.cfg)
	s.w.keys = slices.Contains(plain, "keys")
}

// overdue fires the first timer that is not the instance's.
func (s *storyteller) overdue() string {
	var id events.InstanceID
	var ref events.RowRef
	due := int64(0)
	for other, rows := range s.w.all {
		for r, c := range rows {
			key := events.RowKey(other, r)
			if r.Part >= events.PartAnswer && c.due != 0 && (due == 0 || c.due < due || c.due == due && bytes.Compare(key, events.RowKey(id, ref)) < 0) {
				id, ref, due = other, r, c.due
			}
		}
	}
	if due == 0 {
		return "no timer\n"
	}
	s.w.now = max(s.w.now, due)
	return s.w.print(s.w.at(id, func() *events.Decision { return s.w.m.Timer(s.w, s.w.now, Timer{id, ref, due}) }))
}

func (s *storyteller) command(name string, args map[string]string) events.CommandID {
	number := func(k string) uint32 {
		if args[k] == "" {
			return 1
		}
		n, err := strconv.Atoi(args[k])
		if err != nil {
			s.t.Fatal(err)
		}
		return uint32(n)
	}
	c := events.CommandID{Phase: events.Forward, Execution: number("execution"), Attempt: number("attempt")}
	name, undo := strings.CutSuffix(name, "/undo")
	if undo {
		c.Phase = events.Compensate
	}
	if n, err := strconv.Atoi(name); err == nil {
		c.Node = uint32(n)
	} else {
		c.Node = s.w.numberOf(name)
	}
	return c
}

func (s *storyteller) timer(plain []string) string {
	due := s.w.due()
	if len(due) == 0 {
		return "no timer\n"
	}
	ref := due[0]
	if len(plain) > 0 {
		if ref = headRef; plain[0] != "head" {
			ref = nodeRef(s.w.numberOf(plain[0]))
		}
		if s.w.rows[ref].due == 0 {
			return "no timer\n"
		}
	}
	return s.w.print(s.w.fire(ref))
}

func (s *storyteller) rows() string {
	var b strings.Builder
	show := func(ref events.RowRef) {
		if c, ok := s.w.rows[ref]; ok {
			fmt.Fprintf(&b, "  = %s%s\n", s.w.printRow(ref, c.value), printDue(c.due))
		}
	}
	show(headRef)
	show(dataRef)
	for _, ref := range s.w.nodeRefs() {
		show(ref)
	}
	if b.Len() == 0 {
		return "no rows\n"
	}
	return b.String()
}
