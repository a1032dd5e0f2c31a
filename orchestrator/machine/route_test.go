package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

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
			if got := outcome(m.Route(&x.msg)); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}

func outcome(r Route, err error) string {
	var p *events.PoisonError
	switch {
	case errors.As(err, &p):
		return p.Code
	case err != nil:
		return "not poison: " + err.Error()
	case r.Kind == events.InputNone:
		code, _, _ := strings.Cut(r.Reason, ":")
		return "none " + code
	case r.Kind == events.InputReply:
		return fmt.Sprintf("reply %s %s %d", r.Instance, r.Reply.Outcome, len(r.Reply.Payload))
	}
	if r.Instance != r.Start.Instance {
		return "two instances"
	}
	return "start " + r.Start.Plan.Name + " " + r.Start.Key + " " + r.Start.MessageID
}

func TestRouteClassifiesReplies(t *testing.T) {
	m := routes(t)
	id := events.CommandID{Instance: events.NewInstanceID("shop", "order", "k", "m", 64), Node: 1, Execution: 1, Attempt: 2, Phase: events.Compensate}
	msg := events.Message{Topic: "shop.replies", Headers: []events.Header{{Key: events.HeaderCausationID, Value: []byte(id.Text("shop"))}}}
	if got, want := outcome(m.Route(&msg)), "reply "+id.Instance.String()+" done 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	msg.Value = make([]byte, 2001)
	if got := outcome(m.Route(&msg)); got != "oversize" {
		t.Errorf("a reply of more than half a record: %q", got)
	}
	msg.Headers[0].Value = []byte(id.Text("another"))
	if got := outcome(m.Route(&msg)); got != "forged-command-id" {
		t.Errorf("a reply to another application: %q", got)
	}
}
