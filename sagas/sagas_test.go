package sagas_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/sagas"
)

func plan(t *testing.T, d *sagas.Definition) *sagas.Plan {
	t.Helper()
	p, err := d.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func node(t *testing.T, p *sagas.Plan, name string) *sagas.Node {
	t.Helper()
	for _, n := range p.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %q", name)
	return nil
}

func TestDataOfAnotherSagaDoesNotCompile(t *testing.T) {
	const file = "testdata/otherdata/main.go"
	out, err := exec.Command("go", "build", "-gcflags=-e", "-o", os.DevNull, "./testdata/otherdata").CombinedOutput()
	if err == nil {
		t.Fatal("it compiles")
	}
	refused := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)main\.go:(\d+):`).FindAllStringSubmatch(string(out), -1) {
		refused[m[1]] = true
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(source), "\n") {
		if want, got := strings.HasSuffix(line, "// refused"), refused[fmt.Sprint(i+1)]; want != got {
			t.Errorf("%s:%d: refused is %t, want %t: %s\n%s", file, i+1, got, want, line, out)
		}
	}
}

func TestAPlanNumbersItsNodesInPreorder(t *testing.T) {
	p := plan(t, PlaceOrder)
	var got []string
	for i, n := range p.Nodes {
		parent := "-"
		if n.Parent != nil {
			parent = n.Parent.Name
			if n.Parent.Children[n.Index] != n {
				t.Errorf("%s is not child %d of its parent", n.Name, n.Index)
			}
		}
		if n.ID != uint32(i) {
			t.Errorf("node %d has the number %d", i, n.ID)
		}
		if !regexp.MustCompile(`^sagas/example_test\.go:\d+$`).MatchString(n.Source) {
			t.Errorf("%s was written at %s", n.Name, n.Source)
		}
		got = append(got, parent+"/"+n.Name)
	}
	want := "-/seq-1 seq-1/reserve-stock seq-1/all-1 all-1/authorize all-1/book-courier seq-1/cool-off seq-1/capture seq-1/notify"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if p.Root != p.Nodes[0] || p.Deadline != 24*time.Hour || p.Retention != 7*24*time.Hour {
		t.Errorf("root %v, deadline %v, retention %v", p.Root.Name, p.Deadline, p.Retention)
	}
}

func TestAGeneratedNameGivesWayToAWrittenOne(t *testing.T) {
	p := plan(t, define(sagas.Seq(sagas.Seq(step("seq-1")), sagas.Seq(step("seq-3")))))
	var got []string
	for _, n := range p.Nodes {
		got = append(got, n.Name)
	}
	if s := strings.Join(got, " "); s != "seq-2 seq-4 seq-1 seq-5 seq-3" {
		t.Error(s)
	}
}

func TestPoliciesHaveDefaults(t *testing.T) {
	s := node(t, plan(t, define(hold)), "hold").Step
	if s.Timeout != 30*time.Second || s.Undo.Timeout != 30*time.Second {
		t.Errorf("timeouts %v and %v", s.Timeout, s.Undo.Timeout)
	}
	for _, c := range []struct {
		name string
		got  sagas.Retry
		want string
	}{
		{"step", s.Retry, "{0 500ms 1m0s 0.2 []}"},
		{"undo", s.Undo.Retry, "{0 1s 5m0s 0.2 []}"},
		{"for ever", node(t, plan(t, define(step("a").Retry(sagas.ForEver()))), "a").Step.Retry, "{-1 500ms 1m0s 0.2 []}"},
		{"all of it", node(t, plan(t, define(step("a").
			Retry(sagas.Attempts(5), sagas.Backoff(time.Second, time.Hour)).
			Retry(sagas.Jitter(0), sagas.NotCodes("b", "a"), sagas.NotCodes("b")))), "a").Step.Retry, "{5 1s 1h0m0s 0 [a b]}"},
	} {
		if got := fmt.Sprint(c.got); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
}

func TestADeadlineMayBeJustLongEnough(t *testing.T) {
	plan(t, define(sagas.Seq(hold, sagas.Sleep[Order]("w", time.Hour))).Deadline(time.Hour))
	plan(t, define(sagas.Seq(hold, sagas.Sleep[Order]("w", time.Hour))))
	plan(t, define(wide(sagas.MaxNodes-1)))
	plan(t, define(deep(sagas.MaxDepth)))
}

func TestNodesAreValuesThatSeveralPlansMayShare(t *testing.T) {
	patient := hold.Timeout(time.Hour).Retry(sagas.Attempts(9))
	keen := hold.Retry(sagas.Attempts(2))
	for _, c := range []struct {
		def      *sagas.Definition
		timeout  time.Duration
		attempts int
	}{{define(hold), 30 * time.Second, 0}, {define(patient), time.Hour, 9}, {define(keen), 30 * time.Second, 2}} {
		s := plan(t, c.def).Root.Step
		if s.Timeout != c.timeout || s.Retry.Attempts != c.attempts {
			t.Errorf("timeout %v and %d attempts, not %v and %d", s.Timeout, s.Retry.Attempts, c.timeout, c.attempts)
		}
	}
	d := define(hold)
	if d.Deadline(time.Hour); plan(t, d).Deadline != 0 {
		t.Error("Deadline changed the definition it was called on")
	}
}

// The hash is part of every instance: if this test fails, running sagas of every user lose their definition.
func TestTheHashOfAPlanIsForEver(t *testing.T) {
	if h := plan(t, PlaceOrder).Hash; hex.EncodeToString(h[:]) != "9ebf5bdd537590c3" {
		t.Errorf("the hash is %x", h)
	}
}

func TestTheHashTellsPlansApart(t *testing.T) {
	base := func() sagas.StepOf[Order] { return sagas.Step("a", authorize, newHold, nil) }
	seen := map[[8]byte]string{}
	for name, d := range map[string]*sagas.Definition{
		"base":                  define(base().Undo(undoHold)),
		"definition":            sagas.Define("other", "1", start, base().Undo(undoHold)),
		"version":               sagas.Define("shop", "2", start, base().Undo(undoHold)),
		"start topic":           sagas.Define("shop", "1", sagas.StartOn(sagas.NewEvent[OrderPlaced]("other", "order.placed"), func(OrderPlaced) (o Order) { return }), base().Undo(undoHold)),
		"start type":            sagas.Define("shop", "1", sagas.StartOn(sagas.NewEvent[OrderPlaced]("orders", "other"), func(OrderPlaced) (o Order) { return }), base().Undo(undoHold)),
		"deadline":              define(base().Undo(undoHold)).Deadline(time.Hour),
		"retention":             define(base().Undo(undoHold)).Retention(time.Hour),
		"name":                  define(sagas.Step("b", authorize, newHold, nil).Undo(undoHold)),
		"type":                  define(sagas.Step("a", sagas.NewCommand[Authorize, Nothing]("payments.commands", "other"), newHold, nil).Undo(undoHold)),
		"topic":                 define(sagas.Step("a", sagas.NewCommand[Authorize, Nothing]("other", "payments.authorize"), newHold, nil).Undo(sagas.With(sagas.NewCommand[Void, Nothing]("other", "payments.void"), func(Order) (v Void) { return }))),
		"undo type":             define(base().Undo(sagas.With(sagas.NewCommand[Void, Nothing]("payments.commands", "other"), func(Order) (v Void) { return }))),
		"effect-free":           define(base().EffectFree()),
		"role":                  define(base().Pivot()),
		"retriable":             define(sagas.Seq(base().Pivot(), tell)),
		"timeout":               define(base().Undo(undoHold).Timeout(time.Second)),
		"attempts":              define(base().Undo(undoHold).Retry(sagas.Attempts(3))),
		"backoff":               define(base().Undo(undoHold).Retry(sagas.Backoff(time.Second, time.Minute))),
		"cap":                   define(base().Undo(undoHold).Retry(sagas.Backoff(500*time.Millisecond, time.Hour))),
		"jitter":                define(base().Undo(undoHold).Retry(sagas.Jitter(0.3))),
		"codes":                 define(base().Undo(undoHold).Retry(sagas.NotCodes("x", "y"))),
		"code":                  define(base().Undo(undoHold).Retry(sagas.NotCodes("x,y"))),
		"undo timeout":          define(base().Undo(undoHold.Timeout(time.Second))),
		"undo retry":            define(base().Undo(undoHold.Retry(sagas.Attempts(3)))),
		"seq":                   define(sagas.Seq(base().Undo(undoHold))),
		"all":                   define(sagas.All(sagas.CancelRest, base().Undo(undoHold))),
		"let it finish":         define(sagas.All(sagas.LetItFinish, base().Undo(undoHold))),
		"do":                    define(sagas.Seq(base().Undo(undoHold), sagas.Do("d", func(*Order) {}))),
		"wait":                  define(sagas.Seq(base().Undo(undoHold), sagas.Sleep[Order]("d", time.Second))),
		"longer wait":           define(sagas.Seq(base().Undo(undoHold), sagas.Sleep[Order]("d", time.Minute))),
		"order":                 define(sagas.Seq(sagas.Sleep[Order]("d", time.Minute), base().Undo(undoHold))),
		"the wait in a fork":    define(sagas.Seq(base().Undo(undoHold), sagas.All(sagas.CancelRest, sagas.Sleep[Order]("d", time.Second)))),
		"the wait in a seq":     define(sagas.Seq(base().Undo(undoHold), sagas.Seq(sagas.Sleep[Order]("d", time.Second)))),
		"wait beside the step":  define(sagas.Seq(sagas.All(sagas.CancelRest, base().Undo(undoHold), sagas.Sleep[Order]("d", time.Second)))),
		"wait after the branch": define(sagas.Seq(sagas.All(sagas.CancelRest, base().Undo(undoHold)), sagas.Sleep[Order]("d", time.Second))),
	} {
		p := plan(t, d)
		if other, taken := seen[p.Hash]; taken {
			t.Errorf("%s and %s have one hash; the plan is\n%s", name, other, p.Export())
		}
		seen[p.Hash] = name
	}
}

func TestTheHashLeavesFunctionsAlone(t *testing.T) {
	a := plan(t, define(sagas.Seq(sagas.Step("a", authorize, newHold, nil).Undo(undoHold), sagas.Do("d", func(*Order) {}))))
	b := plan(t, define(sagas.Seq(
		sagas.Step("a", authorize, func(Order) (a Authorize) { return }, func(*Order, Authorized) {}).Undo(sagas.With(void, func(Order) (v Void) { return })),
		sagas.Do("d", func(o *Order) { o.Total = 0 }))))
	if a.Hash != b.Hash {
		t.Errorf("%s\n%s", a.Export(), b.Export())
	}
}

func TestAStartReadsItsEvent(t *testing.T) {
	read := sagas.NewEvent[OrderPlaced]("orders", "placed").
		KeyBy(func(e OrderPlaced) string { return e.ID }).
		IDBy(func(e OrderPlaced) string { return "id of " + e.ID }).
		TypeBy(func(v sagas.EventView) (string, error) {
			if v.Headers["kind"] == "" {
				return "", errors.New("no kind")
			}
			return v.Headers["kind"], nil
		})
	p := plan(t, sagas.Define("shop", "1", sagas.StartOn(read, func(e OrderPlaced) Order { return Order{ID: e.ID, Total: e.Total} }), hold))
	view := sagas.EventView{Value: []byte(`{"id":"o-1","total":7,"added-later":true}`), Headers: map[string]string{"kind": "placed"}}

	if key, err := p.Start.Key(view); key != "o-1" || err != nil {
		t.Error(key, err)
	}
	if id, err := p.Start.ID(view); id != "id of o-1" || err != nil {
		t.Error(id, err)
	}
	if typ, err := p.Start.TypeOf(view); typ != "placed" || err != nil {
		t.Error(typ, err)
	}
	if _, err := p.Start.TypeOf(sagas.EventView{}); err == nil || err.Error() != "no kind" {
		t.Error(err)
	}
	data, err := p.Start.Data(view.Value)
	if err != nil {
		t.Fatal(err)
	}
	if o := data.(*Order); *o != (Order{ID: "o-1", Total: 7}) {
		t.Error(o)
	}
	if plain := plan(t, define(hold)).Start; plain.ID != nil || plain.TypeOf != nil {
		t.Error("functions that nobody gave")
	}
}

func TestGarbageIsNoEvent(t *testing.T) {
	p := plan(t, PlaceOrder)
	for _, garbage := range []string{"", " ", "null", " null ", "x", "7", `"text"`, `[]`, `{"id":7}`, `{"id":"a"}}`, `{"id":"a"} {"id":"b"}`, `{"id":"a"`, "{\"id\":\"\xff\"}", "\x1f\x8b"} {
		if data, err := p.Start.Data([]byte(garbage)); err == nil {
			t.Errorf("%q starts a saga with %v", garbage, data)
		}
		if key, err := p.Start.Key(sagas.EventView{Value: []byte(garbage)}); err == nil {
			t.Errorf("%q has the key %q", garbage, key)
		}
	}
}

func TestAStepBuildsItsCommandAndTakesItsReply(t *testing.T) {
	p := plan(t, PlaceOrder)
	reserve := node(t, p, "reserve-stock").Step
	data := p.NewData()
	if err := p.Decode([]byte(`{"id":"o-1","total":7}`), data); err != nil {
		t.Fatal(err)
	}
	if b, err := reserve.Build(data); string(b) != `{"Order":"o-1"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
	if b, err := reserve.Undo.Build(data); string(b) != `{"Order":"o-1"}` || err != nil {
		t.Errorf("%s %v", b, err)
	}
	if err := reserve.OnReply(data, []byte(`{"Warehouse":"north","New":1}`)); err != nil {
		t.Fatal(err)
	}
	if row, err := p.Encode(data); string(row) != `{"id":"o-1","total":7,"warehouse":"north"}` || err != nil {
		t.Errorf("%s %v", row, err)
	}
	if err := reserve.OnReply(data, []byte(`{"Warehouse":`)); err == nil || !strings.HasPrefix(err.Error(), "decoding a sagas_test.StockReserved: ") {
		t.Errorf("half a reply: %v", err)
	}
	for _, nothing := range [][]byte{nil, {}, []byte("null")} {
		if err := reserve.OnReply(data, nothing); err != nil {
			t.Errorf("%q: %v", nothing, err)
		}
		if o := data.(*Order); o.Warehouse != "" {
			t.Errorf("%q left %v", nothing, o)
		}
	}
	if node(t, p, "capture").Step.OnReply != nil {
		t.Error("a reply that nobody wants is read")
	}
}

func TestDataOfAnotherDefinitionIsRefused(t *testing.T) {
	p := plan(t, PlaceOrder)
	s := node(t, p, "reserve-stock").Step
	wrong := &OrderPlaced{}
	_, built := s.Build(wrong)
	_, encoded := p.Encode(wrong)
	for _, err := range []error{built, encoded, s.OnReply(wrong, nil), p.Decode([]byte(`{}`), wrong), p.Decode([]byte(`{}`), (*Order)(nil))} {
		if err == nil || !strings.HasPrefix(err.Error(), "the saga's data is a *sagas_test.Order, not a *sagas_test.") {
			t.Error(err)
		}
	}
}

func TestAParticipantSpeaksTheCommandOfThePlan(t *testing.T) {
	b, err := reserveStock.EncodeCommand(ReserveStock{"o-1"})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := reserveStock.DecodeCommand(b); c.Order != "o-1" || err != nil {
		t.Error(c, err)
	}
	if _, err := reserveStock.DecodeCommand(nil); err == nil || err.Error() != "decoding a sagas_test.ReserveStock: the payload is empty" {
		t.Error(err)
	}
	b, err = reserveStock.EncodeReply(StockReserved{"north"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := reserveStock.DecodeReply(b); r.Warehouse != "north" || err != nil {
		t.Error(r, err)
	}
	if r, err := reserveStock.DecodeReply(nil); r.Warehouse != "" || err != nil {
		t.Error(r, err)
	}
	if reserveStock.Topic() != "inventory.commands" || reserveStock.Type() != "inventory.reserve" {
		t.Error(reserveStock.Topic(), reserveStock.Type())
	}
}

func TestTheTypesOfAStepAreKnown(t *testing.T) {
	types, ok := PlaceOrder.StepTypes("reserve-stock")
	if got := fmt.Sprint(types, ok); got != "{sagas_test.ReserveStock sagas_test.StockReserved sagas_test.ReleaseStock sagas_test.Nothing} true" {
		t.Error(got)
	}
	if _, ok := PlaceOrder.StepTypes("cool-off"); ok {
		t.Error("a wait has payloads")
	}
}

func TestASharedSubtreeDoesNotMultiply(t *testing.T) {
	var n sagas.NodeOf[Order] = hold
	for range 60 {
		n = sagas.Seq(n, n)
	}
	if _, err := define(n).Plan(); err == nil || strings.Count(err.Error(), "the same node stands twice") != 60 {
		t.Error(err)
	}
	if _, ok := define(n).StepTypes("none"); ok {
		t.Error("a step that is not there")
	}
}
