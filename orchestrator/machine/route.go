package machine

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Route says what a message is to one entity.
type Route struct {
	Kind     events.InputKind // InputEvent, InputReply, or InputNone: nobody takes it, for Reason or because of Poison
	Reason   string
	Instance events.InstanceID // the entity: an instance or a correlation; it names the shard
	Start    *Start            // of InputEvent: of Start and Event exactly one is set
	Event    *Event
	Reply    *events.Reply // of InputReply
	// Poison stands beside routes of other definitions: the definition that Reason names cannot read the message.
	// It belongs in quarantine, although others take it.
	Poison *events.PoisonError
}

// kinds are the events that definitions want, by topic, then by definition, in the order of Config.Plans.
type kinds struct {
	starts map[string][][]*sagas.Plan // the versions of one definition, in order
	waits  map[string][]*waitKind
}

// waitKind is a kind of event that a definition waits for: what its correlations are named by.
type waitKind struct {
	definition, topic, typ string
	waits                  []*sagas.WaitPlan // of all nodes and versions; they may read different keys
}

func kindsOf(plans []*sagas.Plan) kinds {
	k := kinds{map[string][][]*sagas.Plan{}, map[string][]*waitKind{}}
	for _, p := range plans {
		starts := k.starts[p.Start.Topic]
		if i := slices.IndexFunc(starts, func(same []*sagas.Plan) bool { return same[0].Name == p.Name }); i >= 0 {
			starts[i] = append(starts[i], p)
		} else {
			k.starts[p.Start.Topic] = append(starts, []*sagas.Plan{p})
		}
		for _, n := range p.Nodes {
			if n.Wait != nil && n.Wait.Event != nil {
				k.wait(p, n.Wait)
			}
		}
	}
	return k
}

func (k *kinds) wait(p *sagas.Plan, w *sagas.WaitPlan) {
	e := w.Event
	list := k.waits[e.Topic]
	i := slices.IndexFunc(list, func(x *waitKind) bool { return x.definition == p.Name && x.typ == e.Type })
	if i < 0 {
		k.waits[e.Topic] = append(list, &waitKind{p.Name, e.Topic, e.Type, []*sagas.WaitPlan{w}})
		return
	}
	list[i].waits = append(list[i].waits, w)
}

// Routes classifies a message from outside; one that came through an inbox has been unwrapped. A reply has one
// route. A domain event has one for each entity that it concerns: for every definition that starts on it, the
// instance that it would start, by the first version that wants it; for every definition that waits for it, the
// correlation of its key. When nobody wants it there is one route, of kind InputNone, that says why. The error is
// a *events.PoisonError: none of those it concerns can ever take it; see Route.Poison for when only some cannot.
//
// A CloudEvent in structured mode is taken as the same in binary mode, and foreign headers under our names (see
// Config.Aliases). The result aliases msg, which is not changed.
func (m *Machine) Routes(msg *events.Message) ([]Route, error) {
	if msg.Topic == m.topics.Replies() {
		return m.routeReply(msg)
	}
	starts, waits := m.kinds.starts[msg.Topic], m.kinds.waits[msg.Topic]
	if len(starts)+len(waits) == 0 {
		return []Route{{Reason: ReasonUnknownTopic + ": no definition starts on or waits for events of " + msg.Topic}}, nil
	}
	msg, err := m.read(msg)
	if err != nil {
		return nil, err
	}
	e := &incoming{m: m, msg: msg}
	for _, versions := range starts {
		e.starts(versions)
	}
	for _, k := range waits {
		e.waits(k)
	}
	switch {
	case len(e.routes) == 0 && len(e.poison) > 0:
		return nil, e.poison[0].Poison
	case len(e.routes) == 0:
		return []Route{{Reason: ReasonUnknownType + ": no definition starts on or waits for this event"}}, nil
	}
	return append(e.routes, e.poison...), nil
}

// read makes a message what the rest of the machine knows.
func (m *Machine) read(msg *events.Message) (*events.Message, error) {
	if err := events.CheckHeaders(msg.Headers); err != nil {
		return nil, err
	}
	b, err := events.Binary(msg)
	if err != nil {
		return nil, err
	}
	if len(m.cfg.Aliases) == 0 {
		return b, nil
	}
	c := *b
	if c.Headers = m.cfg.Aliases.Read(b.Headers); len(c.Headers) != len(b.Headers) {
		if err := events.CheckHeaders(c.Headers); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func (m *Machine) routeReply(msg *events.Message) ([]Route, error) {
	msg, err := m.read(msg)
	if err != nil {
		return nil, err
	}
	r, err := events.ReadReply(m.cfg.App, msg) // read has checked its headers
	if err != nil {
		return nil, err
	}
	if err := m.checkSize(msg, 2); err != nil {
		return nil, err
	}
	one := &struct {
		routes [1]Route
		reply  events.Reply
	}{reply: r}
	one.routes[0] = Route{Kind: events.InputReply, Instance: r.Command.Instance, Reply: &one.reply}
	return one.routes[:], nil
}

// checkSize keeps a payload below a part of a record: half of one, because a parked instance may have to hold it
// beside what it owes, or a third, because a correlation keeps it and offers it in one record.
func (m *Machine) checkSize(msg *events.Message, part int) *events.PoisonError {
	if most := m.cfg.MaxRecord / part; len(msg.Value) > most {
		return &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("a value of %d bytes, at most %d", len(msg.Value), most)}
	}
	return nil
}

// incoming is a domain event on its way to those it concerns.
type incoming struct {
	m      *Machine
	msg    *events.Message
	view   *sagas.EventView
	routes []Route
	poison []Route
}

// cannot notes that a definition wants the event and cannot read it.
func (e *incoming) cannot(definition string, err *events.PoisonError) {
	e.poison = append(e.poison, Route{Reason: definition, Poison: err})
}

// starts finds the first version of a definition that starts on the event.
func (e *incoming) starts(versions []*sagas.Plan) {
	var failed *events.PoisonError
	for _, p := range versions {
		is, err := e.is(p.Name, &p.Start.EventPlan)
		switch {
		case err != nil:
			failed = err
		case is:
			if err := e.start(p); err != nil {
				e.cannot(p.Name, err)
			}
			return
		}
	}
	if failed != nil {
		e.cannot(versions[0].Name, failed)
	}
}

// is reports whether the event is of that kind. A foreign event of a type that nobody wants is passed over however it
// looks; only a function that has to read it makes demands on its value.
func (e *incoming) is(definition string, p *sagas.EventPlan) (bool, *events.PoisonError) {
	switch {
	case p.Type == "":
		return true, nil
	case p.TypeOf == nil:
		typ, _ := e.msg.Header(events.HeaderType)
		return typ == p.Type, nil
	}
	if err := e.checkValue(2); err != nil {
		return false, err
	}
	typ, err := e.call("type", definition, p.TypeOf)
	return err == nil && typ == p.Type, err
}

func (e *incoming) checkValue(part int) *events.PoisonError {
	if e.msg.Value == nil {
		return &events.PoisonError{Code: events.PoisonNullValue, Detail: "an event that starts a saga, or is waited for, has a value"}
	}
	return e.m.checkSize(e.msg, part)
}

func (e *incoming) start(p *sagas.Plan) *events.PoisonError {
	if err := e.checkValue(2); err != nil {
		return err
	}
	key, id, err := e.names(p.Name, &p.Start.EventPlan)
	if err != nil {
		return err
	}
	s := &Start{
		Plan:      p,
		Instance:  events.NewInstanceID(e.m.cfg.App, p.Name, key, id, e.m.cfg.Slots),
		Key:       key,
		MessageID: id,
		Value:     e.msg.Value,
		Trace:     events.TraceHeaders(e.msg.Headers),
	}
	e.routes = append(e.routes, Route{Kind: events.InputEvent, Instance: s.Instance, Start: s})
	return nil
}

// waits finds the correlations of a kind: one for each key that its waits read in the event.
func (e *incoming) waits(k *waitKind) {
	var failed *events.PoisonError
	found := len(e.routes)
	var keep time.Duration
	for _, w := range k.waits {
		is, err := e.is(k.definition, w.Event)
		if err == nil && is {
			err = e.wait(k, w, found)
			keep = max(keep, w.Keep)
		}
		if err != nil {
			failed = err
		}
	}
	for i := range e.routes[found:] {
		e.routes[found+i].Event.Keep = keep
	}
	if failed != nil {
		e.cannot(k.definition, failed)
	}
}

func (e *incoming) wait(k *waitKind, w *sagas.WaitPlan, found int) *events.PoisonError {
	if err := e.checkValue(3); err != nil {
		return err
	}
	key, id, err := e.names(k.definition, w.Event)
	if err != nil {
		return err
	}
	to := e.m.correlationID(k.definition, w.Event, key)
	if slices.ContainsFunc(e.routes[found:], func(r Route) bool { return r.Instance == to }) {
		return nil
	}
	e.routes = append(e.routes, Route{Kind: events.InputEvent, Instance: to, Event: &Event{
		Correlation: to, Definition: k.definition, Topic: k.topic, Type: k.typ, Key: key,
		MessageID: id, Value: e.msg.Value, Trace: events.TraceHeaders(e.msg.Headers), Time: e.msg.Time,
	}})
	return nil
}

func (m *Machine) correlationID(definition string, e *sagas.EventPlan, key string) events.InstanceID {
	return events.CorrelationID(m.cfg.App, definition, e.Topic, e.Type, key, m.cfg.Slots)
}

// names reads the event's key and id.
func (e *incoming) names(definition string, p *sagas.EventPlan) (key, id string, err *events.PoisonError) {
	if p.Key == nil {
		key = string(e.msg.Key)
	} else if key, err = e.call("key", definition, p.Key); err != nil {
		return "", "", err
	}
	if p.ID != nil {
		if id, err = e.call("id", definition, p.ID); err != nil {
			return "", "", err
		}
	}
	if id == "" {
		id = events.MessageIDOf(e.msg)
	}
	switch {
	case key == "":
		err = &events.PoisonError{Code: events.PoisonMissingKey, Detail: "an event for " + definition + " has a key: the record's, or one that the definition reads"}
	case len(key) > events.MaxKeyBytes:
		err = &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("a key of %d bytes, at most %d", len(key), events.MaxKeyBytes)}
	case len(id) > events.MaxIDBytes:
		err = &events.PoisonError{Code: events.PoisonOversize, Detail: fmt.Sprintf("a message id of %d bytes, at most %d", len(id), events.MaxIDBytes)}
	case !utf8.ValidString(key):
		err = &events.PoisonError{Code: events.PoisonInvalidUTF8, Detail: "the key"}
	case !utf8.ValidString(id):
		err = &events.PoisonError{Code: events.PoisonInvalidUTF8, Detail: "the message id"}
	}
	return key, id, err
}

// call runs one of the definition's functions over the event; whatever goes wrong makes it undecodable.
func (e *incoming) call(what, definition string, fn func(sagas.EventView) (string, error)) (string, *events.PoisonError) {
	if e.view == nil {
		e.view = &sagas.EventView{Topic: e.msg.Topic, Key: e.msg.Key, Value: e.msg.Value, Time: e.msg.Time,
			Headers: make(map[string]string, len(e.msg.Headers))}
		for _, h := range e.msg.Headers {
			if _, ok := e.view.Headers[h.Key]; !ok {
				e.view.Headers[h.Key] = string(h.Value)
			}
		}
	}
	s := ""
	if t := try(func() (err error) { s, err = fn(*e.view); return err }); t != "" {
		return "", &events.PoisonError{Code: events.PoisonUndecodable, Detail: "the " + what + " of the event, for " + definition + ": " + t}
	}
	return s, nil
}
