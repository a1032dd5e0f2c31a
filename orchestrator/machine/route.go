package machine

import (
	"fmt"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Route says what a message is and which instance it belongs to.
type Route struct {
	Kind     events.InputKind // InputEvent, InputReply, or InputNone: skipped by the rule that Reason names
	Reason   string
	Instance events.InstanceID
	Start    *Start        // of InputEvent
	Reply    *events.Reply // of InputReply
}

// Route classifies a message from outside; one that came through an inbox has been unwrapped. The error is
// a *events.PoisonError: nobody can ever take this message. The result aliases msg.
func (m *Machine) Route(msg *events.Message) (Route, error) {
	if msg.Topic == m.topics.Replies() {
		return m.routeReply(msg)
	}
	plans := m.starts[msg.Topic]
	if len(plans) == 0 {
		return Route{Reason: ReasonUnknownTopic + ": no definition starts on " + msg.Topic}, nil
	}
	if err := events.CheckHeaders(msg.Headers); err != nil {
		return Route{}, err
	}
	e := &incoming{m: m, msg: msg}
	plan, err := e.plan(plans)
	if err != nil {
		return Route{}, err
	}
	if plan == nil {
		return Route{Reason: ReasonUnknownType + ": no definition starts on this event"}, nil
	}
	start, err := e.start(plan)
	if err != nil {
		return Route{}, err
	}
	return Route{Kind: events.InputEvent, Instance: start.Instance, Start: start}, nil
}

func (m *Machine) routeReply(msg *events.Message) (Route, error) {
	r, err := events.ParseReply(m.cfg.App, msg)
	if err != nil {
		return Route{}, err
	}
	if err := m.checkSize(msg); err != nil {
		return Route{}, err
	}
	return Route{Kind: events.InputReply, Instance: r.Command.Instance, Reply: &r}, nil
}

// checkSize keeps a payload below half a record: a parked instance may have to hold it beside what it owes.
func (m *Machine) checkSize(msg *events.Message) error {
	if len(msg.Value) > m.cfg.MaxRecord/2 {
		return &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("a value of %d bytes, at most %d", len(msg.Value), m.cfg.MaxRecord/2)}
	}
	return nil
}

// incoming is a domain event on its way to a definition.
type incoming struct {
	m    *Machine
	msg  *events.Message
	view *sagas.EventView
}

// plan finds the first plan whose type is the event's. A foreign event of a type that nobody wants is
// skipped however it looks; only a function that has to read it makes demands on its value.
func (e *incoming) plan(plans []*sagas.Plan) (*sagas.Plan, error) {
	var failed error
	typ, _ := e.msg.Header(events.HeaderType)
	for _, p := range plans {
		switch {
		case p.Start.Type == "":
			return p, nil
		case p.Start.TypeOf == nil:
			if typ == p.Start.Type {
				return p, nil
			}
		default:
			if err := e.checkValue(); err != nil {
				return nil, err
			}
			t, err := e.call("type", p, p.Start.TypeOf)
			if err != nil {
				failed = err
			} else if t == p.Start.Type {
				return p, nil
			}
		}
	}
	return nil, failed
}

func (e *incoming) checkValue() error {
	if e.msg.Value == nil {
		return &events.PoisonError{Code: events.PoisonNullValue, Detail: "an event that starts a saga has a value"}
	}
	return e.m.checkSize(e.msg)
}

func (e *incoming) start(p *sagas.Plan) (*Start, error) {
	if err := e.checkValue(); err != nil {
		return nil, err
	}
	key, id := "", ""
	var err error
	if p.Start.Key == nil {
		key = string(e.msg.Key)
	} else if key, err = e.call("key", p, p.Start.Key); err != nil {
		return nil, err
	}
	if p.Start.ID == nil {
		id = events.MessageIDOf(e.msg)
	} else if id, err = e.call("id", p, p.Start.ID); err != nil {
		return nil, err
	}
	if id == "" {
		id = events.MessageIDOf(e.msg)
	}
	switch {
	case key == "":
		return nil, &events.PoisonError{Code: events.PoisonMissingKey, Detail: "an event that starts a saga has a key: the record's, or one that the definition reads"}
	case len(key) > events.MaxKeyBytes:
		return nil, &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("a key of %d bytes, at most %d", len(key), events.MaxKeyBytes)}
	case len(id) > events.MaxIDBytes:
		return nil, &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("a message id of %d bytes, at most %d", len(id), events.MaxIDBytes)}
	case !utf8.ValidString(key):
		return nil, &events.PoisonError{Code: events.PoisonInvalidUTF8, Detail: "the key"}
	case !utf8.ValidString(id):
		return nil, &events.PoisonError{Code: events.PoisonInvalidUTF8, Detail: "the message id"}
	}
	return &Start{
		Plan:      p,
		Instance:  events.NewInstanceID(e.m.cfg.App, p.Name, key, id, e.m.cfg.Slots),
		Key:       key,
		MessageID: id,
		Value:     e.msg.Value,
		Trace:     events.TraceHeaders(e.msg.Headers),
	}, nil
}

// call runs one of the definition's functions over the event; whatever goes wrong makes it undecodable.
func (e *incoming) call(what string, p *sagas.Plan, fn func(sagas.EventView) (string, error)) (s string, err error) {
	if e.view == nil {
		e.view = &sagas.EventView{Topic: e.msg.Topic, Key: e.msg.Key, Value: e.msg.Value, Time: e.msg.Time,
			Headers: make(map[string]string, len(e.msg.Headers))}
		for _, h := range e.msg.Headers {
			if _, ok := e.view.Headers[h.Key]; !ok {
				e.view.Headers[h.Key] = string(h.Value)
			}
		}
	}
	t := try(func() (err error) { s, err = fn(*e.view); return err })
	if t != "" {
		return "", &events.PoisonError{Code: events.PoisonUndecodable, Detail: "the " + what + " of the event, for " + p.Name + ": " + t}
	}
	return s, nil
}
