package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

type order struct{ Type, ID, Message string }

// routes is a machine with a definition that knows its events by ce_type, one that reads plain JSON, and one
// that takes all of a topic.
func routes(t *testing.T) *Machine {
	read := func(fn func(order) string) func(sagas.EventView) (string, error) {
		return func(e sagas.EventView) (string, error) {
			if string(e.Value) == "boom" {
				panic("boom")
			}
			var o order
			err := json.Unmarshal(e.Value, &o)
			return fn(o), err
		}
	}
	cloud := planOf(t, "a", nil)
	cloud.Start.Type = "order.placed"
	plain := planOf(t, "a", nil)
	plain.Name, plain.Start.Topic, plain.Start.Type = "plain", "plain", "placed"
	plain.Start.TypeOf = read(func(o order) string { return o.Type })
	plain.Start.Key = read(func(o order) string { return o.ID })
	plain.Start.ID = read(func(o order) string { return o.Message })
	all := planOf(t, "a", nil)
	all.Name, all.Start.Topic = "all", "all"
	return New(Config{App: "shop", Slots: 64, MaxRecord: 4000, Plans: []*sagas.Plan{cloud, plain, all}})
}

func TestRouteClassifiesEvents(t *testing.T) {
	m := routes(t)
	typ := func(v string) []events.Header { return []events.Header{{Key: events.HeaderType, Value: []byte(v)}} }
	long := strings.Repeat("k", 2000)
	for name, x := range map[string]struct {
		msg  events.Message
		want string
	}{
		"a CloudEvent of the type":                    {events.Message{Topic: "orders", Key: []byte("k1"), Value: []byte("{}"), Headers: append(typ("order.placed"), events.Header{Key: "ce_id", Value: []byte("e1")})}, "start order k1 e1"},
		"without an id, its place is its id":          {events.Message{Topic: "orders", Partition: 3, Offset: 9, Key: []byte("k1"), Value: []byte("{}"), Headers: typ("order.placed")}, "start order k1 orders-3-9"},
		"of another type":                             {events.Message{Topic: "orders", Value: nil, Headers: typ("order.shipped")}, "none unknown-type"},
		"of no type":                                  {events.Message{Topic: "orders", Key: []byte("k"), Value: []byte("{}")}, "none unknown-type"},
		"on a topic that starts nothing":              {events.Message{Topic: "other"}, "none unknown-topic"},
		"a null value":                                {events.Message{Topic: "orders", Key: []byte("k1"), Headers: typ("order.placed")}, "null-value"},
		"an empty value is one":                       {events.Message{Topic: "all", Key: []byte("k1"), Value: []byte{}}, "start all k1 all-0-0"},
		"no key":                                      {events.Message{Topic: "all", Value: []byte("{}")}, "missing-key"},
		"a key that is too long":                      {events.Message{Topic: "all", Key: []byte(long), Value: []byte("{}")}, "oversize"},
		"a key that is not UTF-8":                     {events.Message{Topic: "all", Key: []byte{0xff}, Value: []byte("{}")}, "invalid-utf8"},
		"an id that is too long":                      {events.Message{Topic: "all", Key: []byte("k"), Value: []byte("{}"), Headers: []events.Header{{Key: "ce_id", Value: []byte(long)}}}, "oversize"},
		"a value that is too long":                    {events.Message{Topic: "all", Key: []byte("k"), Value: make([]byte, 2001)}, "oversize"},
		"a foreign value that is too long":            {events.Message{Topic: "orders", Key: []byte("k"), Value: make([]byte, 2001)}, "none unknown-type"},
		"a header twice":                              {events.Message{Topic: "all", Key: []byte("k"), Value: []byte("{}"), Headers: append(typ("a"), typ("b")...)}, "duplicate-header"},
		"plain JSON":                                  {events.Message{Topic: "plain", Value: []byte(`{"Type":"placed","ID":"k1","Message":"m1"}`)}, "start plain k1 m1"},
		"plain JSON without an id":                    {events.Message{Topic: "plain", Value: []byte(`{"Type":"placed","ID":"k1"}`)}, "start plain k1 plain-0-0"},
		"plain JSON of another type":                  {events.Message{Topic: "plain", Value: []byte(`{"Type":"shipped"}`)}, "none unknown-type"},
		"plain JSON without a key":                    {events.Message{Topic: "plain", Value: []byte(`{"Type":"placed"}`)}, "missing-key"},
		"what is no JSON":                             {events.Message{Topic: "plain", Value: []byte(`{`)}, "undecodable"},
		"what makes the function panic":               {events.Message{Topic: "plain", Value: []byte(`boom`)}, "undecodable"},
		"null for a function":                         {events.Message{Topic: "plain"}, "null-value"},
		"too much for a function":                     {events.Message{Topic: "plain", Value: make([]byte, 2001)}, "oversize"},
		"a reply without the command that it answers": {events.Message{Topic: "shop.replies"}, "missing-header"},
		"a reply to a forged command":                 {events.Message{Topic: "shop.replies", Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte("c123")}}}, "forged-command-id"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcome(m.Routes(&x.msg)); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}

// outcome prints routes, the first one's first.
func outcome(routes []Route, err error) string {
	var p *events.PoisonError
	switch {
	case errors.As(err, &p):
		return p.Code
	case err != nil:
		return "not poison: " + err.Error()
	}
	var all []string
	for _, r := range routes {
		all = append(all, outcomeOf(r))
	}
	return strings.Join(all, "; ")
}

func outcomeOf(r Route) string {
	switch {
	case r.Poison != nil:
		return r.Poison.Code + " for " + r.Reason
	case r.Kind == events.InputNone:
		code, _, _ := strings.Cut(r.Reason, ":")
		return "none " + code
	case r.Kind == events.InputReply:
		return fmt.Sprintf("reply %s %s %d", r.Instance, r.Reply.Outcome, len(r.Reply.Payload))
	case r.Event != nil:
		if r.Instance != r.Event.Correlation {
			return "two correlations"
		}
		return fmt.Sprintf("event %s %s %s %s %s keep %s", r.Event.Definition, r.Event.Topic, r.Event.Type, r.Event.Key, r.Event.MessageID, r.Event.Keep)
	case r.Instance != r.Start.Instance:
		return "two instances"
	}
	return "start " + r.Start.Plan.Name + " " + r.Start.Key + " " + r.Start.MessageID
}

func TestRouteClassifiesReplies(t *testing.T) {
	m := routes(t)
	id := events.CommandID{Instance: events.NewInstanceID("shop", "order", "k", "m", 64), Node: 1, Execution: 1, Attempt: 2, Phase: events.Compensate}
	msg := events.Message{Topic: "shop.replies", Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte(id.Text("shop"))}}}
	if got, want := outcome(m.Routes(&msg)), "reply "+id.Instance.String()+" done 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	msg.Value = make([]byte, 2001)
	if got := outcome(m.Routes(&msg)); got != "oversize" {
		t.Errorf("a reply of more than half a record: %q", got)
	}
	msg.Headers[0].Value = []byte(id.Text("another"))
	if got := outcome(m.Routes(&msg)); got != "forged-command-id" {
		t.Errorf("a reply to another application: %q", got)
	}
}

// both is a machine with two definitions: one starts on an order and waits for its payment by two keys, one starts on
// a payment, in two versions.
func both(t *testing.T) *Machine {
	by := func(field func(order) string) func(sagas.EventView) (string, error) {
		return func(e sagas.EventView) (string, error) {
			var o order
			err := json.Unmarshal(e.Value, &o)
			return field(o), err
		}
	}
	wait := func(keep time.Duration, key func(sagas.EventView) (string, error)) *sagas.WaitPlan {
		return &sagas.WaitPlan{Keep: keep, Event: &sagas.EventPlan{Topic: "payments", Type: "paid", Key: key}}
	}
	first := planOf(t, "seq(a,b,c,d)", nil)
	for i, w := range []*sagas.WaitPlan{
		wait(time.Hour, nil), wait(2*time.Hour, by(func(o order) string { return o.ID })), wait(time.Minute, by(func(o order) string { return o.ID })),
	} {
		n := first.Nodes[i+1]
		n.Kind, n.Step, n.Wait = sagas.KindWait, nil, w
	}
	newer, older := planOf(t, "a", nil), planOf(t, "a", nil)
	newer.Name, newer.Version, newer.Start.Topic, newer.Start.Type = "ship", "2", "payments", "paid"
	older.Name, older.Version, older.Start.Topic, older.Start.Type = "ship", "1", "payments", ""
	return New(Config{App: "shop", Slots: 64, MaxRecord: 4000, Plans: []*sagas.Plan{first, newer, older},
		Aliases: events.Aliases{"kafka_correlationId": events.HeaderCausationID, "x-type": events.HeaderType}})
}

func TestAnEventIsRoutedToEveryDefinitionThatStartsOnItOrWaitsForIt(t *testing.T) {
	m := both(t)
	h := func(kv ...string) (out []events.Header) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, events.Header{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return out
	}
	doc := `{"specversion":"1.0","id":"e9","source":"/p","type":"paid","data":{"ID":"k2"}}`
	for name, x := range map[string]struct {
		msg  events.Message
		want string
	}{
		"a start and two keys": {events.Message{Key: []byte("k1"), Value: []byte(`{"ID":"k2"}`), Headers: h("ce_type", "paid", "ce_id", "e1")},
			"start ship k1 e1; event order payments paid k1 e1 keep 2h0m0s; event order payments paid k2 e1 keep 2h0m0s"},
		"the same key twice": {events.Message{Key: []byte("k1"), Value: []byte(`{"ID":"k1"}`), Headers: h("ce_type", "paid", "ce_id", "e1")},
			"start ship k1 e1; event order payments paid k1 e1 keep 2h0m0s"},
		"another type starts the older version alone": {events.Message{Key: []byte("k1"), Value: []byte(`{}`), Headers: h("ce_type", "refunded", "ce_id", "e1")},
			"start ship k1 e1"},
		"what one cannot read the others take": {events.Message{Key: []byte("k1"), Value: []byte(`{`), Headers: h("ce_type", "paid", "ce_id", "e1")},
			"start ship k1 e1; event order payments paid k1 e1 keep 2h0m0s; undecodable for order"},
		"what is too long to be kept starts all the same": {events.Message{Key: []byte("k1"), Value: make([]byte, 1400), Headers: h("ce_type", "paid", "ce_id", "e1")},
			"start ship k1 e1; oversize for order"},
		"what nobody can take": {events.Message{Headers: h("ce_type", "paid")}, "null-value"},
		"a structured CloudEvent": {events.Message{Key: []byte("k1"), Value: []byte(doc), Headers: h("content-type", "application/cloudevents+json")},
			"start ship k1 e9; event order payments paid k1 e9 keep 2h0m0s; event order payments paid k2 e9 keep 2h0m0s"},
		"a foreign name of the type": {events.Message{Key: []byte("k1"), Value: []byte(`{"ID":"k1"}`), Headers: h("x-type", "paid", "ce_id", "e1")},
			"start ship k1 e1; event order payments paid k1 e1 keep 2h0m0s"},
		"a broken structured one": {events.Message{Key: []byte("k1"), Value: []byte(`{`), Headers: h("content-type", "application/cloudevents+json")}, "undecodable"},
	} {
		t.Run(name, func(t *testing.T) {
			x.msg.Topic = "payments"
			if got := outcome(m.Routes(&x.msg)); got != x.want {
				t.Errorf("got  %s\nwant %s", got, x.want)
			}
		})
	}
}

func TestAReplyMayNameItsCommandAsItsServiceDoes(t *testing.T) {
	id := events.CommandID{Instance: events.NewInstanceID("shop", "order", "k", "m", 64), Node: 1, Execution: 1, Attempt: 1, Phase: events.Forward}
	msg := events.Message{Topic: "shop.replies", Value: []byte("{}"), Headers: []events.Header{{Key: "kafka_correlationId", Value: []byte(id.Text("shop"))}}}
	if got, want := outcome(both(t).Routes(&msg)), "reply "+id.Instance.String()+" done 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(msg.Headers) != 1 {
		t.Error("the record changed")
	}
}
