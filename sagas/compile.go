package sagas

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxNodes is the largest number of nodes of a plan, MaxDepth the largest number of nodes above one.
const (
	MaxNodes = 100_000
	MaxDepth = 100
)

const (
	maxName     = 64
	maxType     = 256
	maxAttempts = 1_000_000
	maxCodes    = 100
)

// DefinitionError is one mistake in a definition.
type DefinitionError struct {
	Source     string // folder/file.go:line
	Definition string
	Version    string
	Node       string // empty: the mistake is the definition's
	Kind       Kind   // of the node
	Problem    string // what is wrong, and what to do
}

func (e *DefinitionError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: saga %q version %q: ", e.Source, e.Definition, e.Version)
	if e.Node != "" {
		fmt.Fprintf(&b, "%s %q: ", e.Kind, e.Node)
	}
	return b.String() + e.Problem
}

// Plan checks the definition and gives the plan that the engine runs. The error joins one *DefinitionError
// for each mistake: those of the definition, then those of its nodes in the order in which they are
// written. Every call gives a new, equal plan.
func (d *Definition) Plan() (*Plan, error) {
	if d == nil || d.data.typ == nil {
		return nil, errors.New("an empty definition: make one by sagas.Define")
	}
	c := &compiler{def: d, specs: map[*spec]*Node{}, written: map[*Node]*spec{}, names: map[string]*Node{}}
	p := c.plan()
	if len(c.mistakes) == 0 {
		return p, nil
	}
	slices.SortStableFunc(c.mistakes, func(a, b mistake) int { return a.order() - b.order() })
	errs := make([]error, len(c.mistakes))
	for i, m := range c.mistakes {
		if m.node != nil { // now, because Seqs, Alls and Chooses are named last
			m.err.Node, m.err.Kind = m.node.Name, m.node.Kind
		}
		errs[i] = m.err
	}
	return nil, errors.Join(errs...)
}

type mistake struct {
	node *Node // nil: the definition's
	err  *DefinitionError
}

func (m mistake) order() int {
	if m.node == nil {
		return -1
	}
	return int(m.node.ID)
}

type compiler struct {
	def      *Definition
	mistakes []mistake
	nodes    []*Node
	specs    map[*spec]*Node  // where each node of the source stands in the plan
	written  map[*Node]*spec  // the other way round, but for a node that stands twice
	names    map[string]*Node // of the nodes that users named
	full     bool             // the plan is beyond a bound: the walk ended early
}

func (c *compiler) fail(source string, n *Node, format string, args ...any) {
	c.mistakes = append(c.mistakes, mistake{n, &DefinitionError{
		Source: source, Definition: c.def.name, Version: c.def.version, Problem: fmt.Sprintf(format, args...)}})
}

func (c *compiler) plan() *Plan {
	d := c.def
	p := &Plan{
		Name: d.name, Version: d.version, Retention: DefaultRetention, During: d.during, After: d.after,
		NewData: d.data.fresh, Decode: d.data.decode, Encode: d.data.encode,
	}
	if why := badName(d.name); why != "" {
		c.fail(d.source, nil, "the definition's name %s", why)
	}
	if !versionShape.MatchString(d.version) {
		c.fail(d.source, nil, "a version is 1 to %d letters, digits, '.', '-' or '_'", maxName)
	}
	if d.deadline != nil {
		p.Deadline = *d.deadline
		c.duration(d.source, nil, "deadline", p.Deadline)
	}
	if d.retention != nil {
		p.Retention = *d.retention
		c.duration(d.source, nil, "retention", p.Retention)
	}
	if d.during > DuringIgnore {
		c.fail(d.source, nil, "a start during another is DuringQuarantine or DuringIgnore, not %v", d.during)
	}
	if d.after > AfterIgnore {
		c.fail(d.source, nil, "a start after the end is AfterStart, AfterFailure, AfterQuarantine or AfterIgnore, not %v", d.after)
	}
	c.data()
	c.start(p)
	c.root(p)
	if c.full {
		return nil
	}
	c.nameRest()
	c.roles()
	c.afterPivot()
	c.loops(p)
	c.waits(p)
	if p.Deadline > 0 && p.Root != nil {
		if wait := leastTime(p.Root); wait > p.Deadline {
			c.fail(d.source, nil, "the deadline of %v cannot be met: its pauses take at least %v", p.Deadline, wait)
		}
	}
	if len(c.mistakes) == 0 {
		sum := sha256.Sum256([]byte(p.Export()))
		p.Hash = [8]byte(sum[:8])
	}
	return p
}

// data refuses types that would lose what users put into them.
func (c *compiler) data() {
	t := c.def.data.typ
	if err := encodable(t); err != nil {
		c.fail(c.def.source, nil, "the saga's data: %v", err)
	}
	if forgetful(t) {
		c.fail(c.def.source, nil, "the saga's data: %s has no exported field, so that nothing of it would be kept", t)
	}
}

// forgetful reports whether a type holds something of which JSON keeps nothing.
func forgetful(t reflect.Type) bool {
	if t.Kind() != reflect.Struct || t.NumField() == 0 || marshals(t) {
		return false
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() || f.Anonymous {
			return false
		}
	}
	return true
}

func marshals(t reflect.Type) bool {
	for _, m := range []string{"MarshalJSON", "MarshalText"} {
		if _, ok := reflect.PointerTo(t).MethodByName(m); ok {
			return true
		}
	}
	return false
}

func (c *compiler) start(p *Plan) {
	s := c.def.start
	if s == nil {
		c.fail(c.def.source, nil, "nothing starts it: give it a sagas.StartOn")
		return
	}
	p.Start = s.plan
	if s.missing {
		c.fail(s.source, nil, "StartOn needs a function for the saga's first data")
	}
	source := s.eventSource
	if source == "" { // the zero Event
		source = s.source
	}
	c.event(source, nil, "event that starts it", &s.plan.EventPlan)
	if err := encodable(s.event); err != nil {
		c.fail(s.source, nil, "the event that starts it: %v", err)
	}
}

// event checks an event that is consumed.
func (c *compiler) event(source string, n *Node, what string, e *EventPlan) {
	if why := badTopic(e.Topic); why != "" {
		c.fail(source, n, "the topic of the %s %s", what, why)
	}
	if e.Type != "" {
		if why := badType(e.Type); why != "" {
			c.fail(source, n, "the type of the %s %s", what, why)
		}
	} else if e.TypeOf != nil {
		c.fail(source, n, "TypeBy finds a type, but the event has none to compare it with")
	}
}

func (c *compiler) root(p *Plan) {
	if c.def.root == nil {
		c.fail(c.def.source, nil, "its plan is empty: give it at least one step")
		return
	}
	p.Root = c.node(c.def.root, nil, 0, 0)
	p.Nodes = c.nodes
}

// node adds a node and what is below it, in preorder.
func (c *compiler) node(s *spec, parent *Node, index, depth int) *Node {
	if c.full {
		return nil
	}
	if depth > MaxDepth {
		c.full = true
		c.fail(s.source, nil, "its plan is nested deeper than %d", MaxDepth)
		return nil
	}
	if len(c.nodes) == MaxNodes {
		c.full = true
		c.fail(c.def.source, nil, "its plan has more than %d nodes", MaxNodes)
		return nil
	}
	n := &Node{ID: uint32(len(c.nodes)), Parent: parent, Index: index, Kind: s.kind, Name: s.name, Source: s.source}
	c.nodes = append(c.nodes, n)
	if first, again := c.specs[s]; again {
		where := "twice in the plan: write it twice"
		if n.Name != "" {
			where += ", under two names"
		}
		c.fail(n.Source, n, "the same node stands %s", where)
		n.Name = first.Name
		return n
	}
	c.specs[s], c.written[n] = n, s
	if !unnamed(s.kind) {
		c.name(n)
	}
	if len(s.missing) > 0 {
		c.fail(n.Source, n, "it needs %s", strings.Join(s.missing, " and "))
	}
	switch s.kind {
	case KindStep:
		c.step(n, s)
	case KindWait:
		c.wait(n, s)
	case KindDo:
		n.Do = s.do
	case KindEmit:
		c.emit(n, s.emit)
	case KindAll:
		c.fork(n, &s.fork)
		c.below(n, s, depth)
		if s.fork.join == JoinSome && (s.fork.quorum < 1 || s.fork.quorum > len(s.children)) {
			c.fail(n.Source, n, "it is done when %d branches are: that is 1 to %d, as many as it has", s.fork.quorum, len(s.children))
		}
	case KindSeq:
		c.below(n, s, depth)
	case KindChoose:
		c.choose(n, s)
		c.below(n, s, depth)
	case KindRequire:
		n.Conds = []func(any) (bool, error){s.cond}
	case KindForEach:
		c.fork(n, &s.fork)
		c.most(n, s)
		c.forEach(n, s)
		c.below(n, s, depth)
	case KindWhile:
		n.Conds = []func(any) (bool, error){s.cond}
		c.most(n, s)
		c.below(n, s, depth)
	case KindTry:
		n.OnFail = s.onFail
		if s.elses > 1 {
			c.fail(n.Source, n, "it has %d Elses: put what they do into one Seq", s.elses)
		}
		c.below(n, s, depth)
	}
	return n
}

// unnamed are the kinds to which users give no name.
func unnamed(k Kind) bool { return k == KindSeq || k == KindAll || k == KindChoose }

func (c *compiler) wait(n *Node, s *spec) {
	w, plan := s.wait, s.wait.plan
	n.Wait = &plan
	if len(s.missing) > 0 { // there is nothing to wait for
		return
	}
	if w.sleep {
		c.duration(n.Source, n, "wait", plan.Sleep)
		return
	}
	source := w.declared
	if source == "" { // the zero Event or Signal
		source = n.Source
	}
	if w.within != nil {
		plan.Within = *w.within
		c.duration(n.Source, n, "Within", plan.Within)
	}
	switch {
	case plan.Event != nil:
		c.event(source, n, "event that it waits for", plan.Event)
		plan.Keep = DefaultKeep
		if w.keep != nil {
			plan.Keep = *w.keep
			c.duration(n.Source, n, "Keep", plan.Keep)
		}
	default:
		if why := badName(plan.Signal); why != "" {
			c.fail(source, n, "the name of its signal %s", why)
		}
		if plan.Key != nil {
			c.fail(n.Source, n, "it has a By: a signal names its instance and carries no key")
		}
		if w.keep != nil {
			c.fail(n.Source, n, "it has a Keep: a signal that comes early waits in the instance's queue")
		}
	}
	c.payload(n.Source, n, "event or signal", w.typ)
}

func (c *compiler) emit(n *Node, e *emitSpec) {
	plan := e.EmitPlan
	n.Emit = &plan
	source := e.declared
	if source == "" { // the zero Event
		source = n.Source
	}
	c.command(source, n, "event", plan.Topic, plan.Type)
	c.payload(n.Source, n, "event", e.typ)
}

// fork checks how branches are opened and joined.
func (c *compiler) fork(n *Node, f *forkSpec) {
	n.OnFailure, n.Join, n.Quorum = f.onFailure, f.join, f.quorum
	if f.onFailure != CancelRest && f.onFailure != LetItFinish {
		c.fail(n.Source, n, "on failure it is CancelRest or LetItFinish, not %v", f.onFailure)
	}
	if f.joins > 1 {
		c.fail(n.Source, n, "it has %d joins: Any, AtLeast and First exclude one another", f.joins)
	}
	if f.width != nil {
		n.Width = *f.width
		if n.Width < 1 || n.Width > MaxMost {
			c.fail(n.Source, n, "its width is 1 to %d, not %d", MaxMost, n.Width)
		}
	}
}

func (c *compiler) most(n *Node, s *spec) {
	n.Most = DefaultMost
	if s.most == nil {
		return
	}
	n.Most = *s.most
	if n.Most < 1 || n.Most > MaxMost {
		c.fail(n.Source, n, "its Most is 1 to %d, not %d", MaxMost, n.Most)
	}
}

func (c *compiler) forEach(n *Node, s *spec) {
	plan := s.each.EachPlan
	n.Each = &plan
	c.payload(n.Source, n, "element", s.each.item)
	if forgetful(s.each.item) {
		c.fail(n.Source, n, "its element: %s has no exported field, so that nothing of it would be kept", s.each.item)
	}
	if f := &s.fork; f.join == JoinSome && (f.quorum < 1 || f.quorum > n.Most) {
		c.fail(n.Source, n, "it is done when %d turns are: that is 1 to %d, its Most", f.quorum, n.Most)
	}
}

func (c *compiler) choose(n *Node, s *spec) {
	names := map[string]string{}
	for i, way := range s.ways {
		switch {
		case way == nil:
			n.Conds, n.Cases = append(n.Conds, nil), append(n.Cases, "")
			continue // its node is nil as well, and that is said
		case !way.otherwise && way.cond == nil:
			c.fail(way.source, n, "its case %q needs a condition", way.name)
		case way.otherwise && i < len(s.ways)-1:
			c.fail(way.source, n, "its Otherwise is not the last: what stands behind it is never taken")
		}
		if why := badName(way.name); why != "" {
			c.fail(way.source, n, "the name of a case %s", why)
		} else if first := names[way.name]; first != "" {
			c.fail(way.source, n, "the name of the case %q is taken by the one at %s", way.name, first)
		} else {
			names[way.name] = way.source
		}
		n.Conds, n.Cases = append(n.Conds, way.cond), append(n.Cases, way.name)
	}
}

func (c *compiler) below(n *Node, s *spec, depth int) {
	nodes := s.below()
	if len(nodes) == 0 {
		c.fail(n.Source, n, "there is nothing in it")
	}
	for i, child := range nodes {
		if child == nil {
			c.fail(n.Source, n, "its node number %d is nil", i+1)
			continue
		}
		if m := c.node(child, n, i, depth+1); m != nil {
			n.Children = append(n.Children, m)
		}
	}
}

func (c *compiler) name(n *Node) {
	if why := badName(n.Name); why != "" {
		c.fail(n.Source, n, "the name of a %s %s", n.Kind, why)
		return
	}
	if first, taken := c.names[n.Name]; taken {
		c.fail(n.Source, n, "the name is taken by the %s at %s", first.Kind, first.Source)
		return
	}
	c.names[n.Name] = n
}

// nameRest names the Seqs, Alls and Chooses by their kind and a number, around the names that users gave.
func (c *compiler) nameRest() {
	next := map[Kind]int{}
	for _, n := range c.nodes {
		if !unnamed(n.Kind) {
			continue
		}
		for n.Name == "" {
			next[n.Kind]++
			name := n.Kind.String() + "-" + strconv.Itoa(next[n.Kind])
			if c.names[name] == nil {
				n.Name = name
			}
		}
	}
}

func (c *compiler) step(n *Node, s *spec) {
	step := s.step
	n.Step = &step
	step.Timeout = s.timeout
	switch {
	case s.pivot && s.retriable:
		c.fail(n.Source, n, "it is both Pivot and Retriable: the pivot is the last step that may fail")
		step.Role = Pivot
	case s.pivot:
		step.Role = Pivot
	case s.retriable:
		step.Role = Retriable
	}
	source := s.cmdSource
	if source == "" { // the zero Command
		source = n.Source
	}
	c.command(source, n, "command", step.Topic, step.Type)
	c.payload(n.Source, n, "command", s.types.Command)
	c.payload(n.Source, n, "reply", s.types.Reply)
	c.duration(n.Source, n, "timeout", step.Timeout)
	step.Retry = c.retry(n.Source, n, "retry", DefaultBackoff, DefaultCap, s.retry)

	if s.undos > 1 {
		c.fail(n.Source, n, "it has %d undos: it is compensated by one command", s.undos)
	}
	if u := s.undo; u != nil {
		source := u.cmdSource
		if source == "" {
			source = u.source
		}
		if len(u.missing) > 0 {
			c.fail(u.source, n, "it needs %s", strings.Join(u.missing, " and "))
		}
		c.command(source, n, "undo", u.topic, u.typ)
		c.payload(u.source, n, "undo", u.command)
		c.payload(u.source, n, "undo's reply", u.reply)
		c.duration(u.source, n, "undo's timeout", u.timeout)
		if badTopic(u.topic) != "" || badTopic(step.Topic) != "" {
			// said already
		} else if u.topic != step.Topic {
			c.fail(u.source, n, "its undo goes to topic %q and its command to %q: both go to one topic, or the undo could overtake what it undoes", u.topic, step.Topic)
		} else if u.typ == step.Type {
			c.fail(u.source, n, "its undo has the type of its command, %q: the participant could not tell them apart", u.typ)
		}
		step.Undo = &UndoPlan{Topic: u.topic, Type: u.typ, Build: u.build, Timeout: u.timeout,
			Retry: c.retry(u.source, n, "undo's retry", DefaultUndoBackoff, DefaultUndoCap, u.retry)}
	} else if s.undos > 0 {
		c.fail(n.Source, n, "its Undo is empty: make one by sagas.With")
	}
	if step.Undo != nil {
		switch {
		case step.EffectFree:
			c.fail(n.Source, n, "it is EffectFree and has an Undo: an effect is what an undo is for")
		case s.pivot:
			c.fail(n.Source, n, "it is the pivot and has an Undo: there is no way back past the pivot")
		case s.retriable:
			c.fail(n.Source, n, "it is Retriable and has an Undo: nothing after the pivot is undone")
		}
	}
}

func (c *compiler) command(source string, n *Node, what, topic, typ string) {
	if why := badTopic(topic); why != "" {
		c.fail(source, n, "the topic of its %s %s", what, why)
	}
	if why := badType(typ); why != "" {
		c.fail(source, n, "the type of its %s %s", what, why)
	}
}

func (c *compiler) payload(source string, n *Node, what string, t reflect.Type) {
	if t == nil {
		return
	}
	if err := encodable(t); err != nil {
		c.fail(source, n, "its %s: %v", what, err)
	}
}

// duration refuses what no clock of Skald can tell from nothing: times are journaled in milliseconds.
func (c *compiler) duration(source string, n *Node, what string, d time.Duration) {
	if d < time.Millisecond {
		c.fail(source, n, "its %s of %v is too short: at least 1ms", what, d)
	}
}

func (c *compiler) retry(source string, n *Node, what string, backoff, limit time.Duration, options []RetryOption) Retry {
	r := retrySpec{Retry: Retry{Backoff: backoff, Cap: limit, Jitter: DefaultJitter}}
	for i, o := range options {
		if o == nil {
			c.fail(source, n, "its %s: option %d is nil", what, i+1)
			continue
		}
		o(&r)
	}
	if r.attemptsSet && !r.forEver && (r.Attempts < 1 || r.Attempts > maxAttempts) {
		c.fail(source, n, "its %s: attempts are 1 to %d, or ForEver; not %d", what, maxAttempts, r.Attempts)
	}
	if r.Backoff < time.Millisecond {
		c.fail(source, n, "its %s: a backoff of %v is too short: it is at least 1ms", what, r.Backoff)
	}
	if r.Cap < r.Backoff {
		c.fail(source, n, "its %s: the backoff begins with %v and is at most %v", what, r.Backoff, r.Cap)
	}
	if !(r.Jitter >= 0 && r.Jitter <= 1) { // so that NaN is refused as well
		c.fail(source, n, "its %s: jitter is 0 to 1, not %v", what, r.Jitter)
	}
	if len(r.NotCodes) > maxCodes {
		c.fail(source, n, "its %s: %d codes, at most %d", what, len(r.NotCodes), maxCodes)
	}
	if slices.Contains(r.NotCodes, "") {
		c.fail(source, n, "its %s: an error code is not empty", what)
	}
	slices.Sort(r.NotCodes)
	r.NotCodes = slices.Compact(r.NotCodes)
	return r.Retry
}

var (
	nameShape    = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	versionShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	topicShape   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
)

func badName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > maxName:
		return fmt.Sprintf("has %d letters, at most %d", len(s), maxName)
	case !nameShape.MatchString(s):
		return "is lower-case letters, digits and '-', and begins with a letter"
	}
	return ""
}

func badTopic(s string) string {
	switch {
	case s == "":
		return "is missing"
	case !topicShape.MatchString(s) || s == "." || s == "..":
		return fmt.Sprintf("is 1 to 249 letters, digits, '.', '_' or '-', not %.260q", s)
	}
	return ""
}

func badType(s string) string {
	switch {
	case s == "":
		return "is missing"
	case len(s) > maxType:
		return fmt.Sprintf("has %d bytes, at most %d", len(s), maxType)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return fmt.Sprintf("is printable text, not %q", s)
	}
	return ""
}
