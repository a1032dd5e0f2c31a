package plans

import (
	"hash/fnv"
	"strconv"

	"github.com/skald-io/skald/sagas"
)

// Order is the event that starts a saga.
type Order struct {
	ID   string `json:"id"`   // the business key
	Draw uint32 `json:"draw"` // what conditions and lists are drawn from
}

// Data is a saga's data.
type Data struct {
	ID    string         `json:"id"`
	Draw  uint32         `json:"draw"`
	Count map[string]int `json:"count,omitempty"` // how often what was noted
	Sum   uint32         `json:"sum"`             // of all that was noted, in its order
}

// Item is an element of a loop's list. What the steps of its turn say is noted in it.
type Item struct {
	N     int            `json:"n"`
	Count map[string]int `json:"count,omitempty"`
	Sum   uint32         `json:"sum"`
}

// Ask is the payload of every command, undo and event of a saga.
type Ask struct {
	ID   string `json:"id"`
	Node string `json:"node"`
	Path []int  `json:"path,omitempty"` // the elements around it, outermost first
	Sum  uint32 `json:"sum"`            // of the data as they were
	Here uint32 `json:"here"`           // of the element
}

// Reply is what a participant says when it is done.
type Reply struct {
	V int `json:"v"`
}

// Note is what an event or a signal says that a saga waits for.
type Note struct {
	Key string `json:"key"` // of an event: the correlation key
	V   int    `json:"v"`
}

// note counts what happened, and mixes it into the sum.
func note(count *map[string]int, sum *uint32, what string, v int) {
	if *count == nil {
		*count = map[string]int{}
	}
	(*count)[what]++
	h := fnv.New32a()
	h.Write([]byte(what))
	*sum = *sum*16777619 + h.Sum32() + uint32(v)
}

func (d *Data) note(what string, v int) { note(&d.Count, &d.Sum, what, v) }

func (i *Item) note(what string, v int) { note(&i.Count, &i.Sum, what, v) }

// level is one depth of loops over lists: the saga's own data, or an element with what is around it. It says how
// the functions of a node there get at what they need, so that nodes are made by the same code at every depth.
type level[T any] struct {
	saga  func(*T) *Data
	note  func(t *T, what string, v int) // in the element, or in the saga's data where there is none
	count func(t *T, what string) int    // of what was noted there
	reset func(t *T, what string)
	path  func(*T) []int
	here  func(*T) uint32
	each  func(g *generator, depth int, at where) sagas.NodeOf[T] // a loop over a list; nil: none deeper
}

type one = sagas.Each[Data, Item]

// top is the saga itself, middle the body of a loop, bottom that of a loop in a loop.
func top() *level[Data] {
	l := &level[Data]{
		saga:  func(d *Data) *Data { return d },
		note:  func(d *Data, what string, v int) { d.note(what, v) },
		count: func(d *Data, what string) int { return d.Count[what] },
		reset: func(d *Data, what string) { delete(d.Count, what) },
		path:  func(*Data) []int { return nil },
		here:  func(*Data) uint32 { return 0 },
	}
	l.each = func(g *generator, depth int, at where) sagas.NodeOf[Data] { return forEach(g, l, middle(), depth, at) }
	return l
}

func middle() *level[one] {
	l := inner(top())
	l.each = func(g *generator, depth int, at where) sagas.NodeOf[one] {
		return forEach(g, l, inner(middle()), depth, at)
	}
	return l
}

// inner is the level below another.
func inner[T any](outer *level[T]) *level[sagas.Each[T, Item]] {
	type in = sagas.Each[T, Item]
	return &level[in]{
		saga:  func(e *in) *Data { return outer.saga(e.Saga) },
		note:  func(e *in, what string, v int) { e.Item.note(what, v) },
		count: func(e *in, what string) int { return e.Item.Count[what] },
		reset: func(e *in, what string) { delete(e.Item.Count, what) },
		path:  func(e *in) []int { return append(outer.path(e.Saga), e.Item.N) },
		here:  func(e *in) uint32 { return e.Item.Sum },
	}
}

// ask makes a payload.
func (l *level[T]) ask(t T, node string) Ask {
	d := l.saga(&t)
	return Ask{ID: d.ID, Node: node, Path: l.path(&t), Sum: d.Sum, Here: l.here(&t)}
}

// cond is a condition as it was drawn.
type cond struct {
	kind int
	n    int
	what string
}

const (
	always  = 0
	never   = 1
	drawn   = 2 // a bit of Order.Draw
	happens = 3 // what was noted at least once, here or in the saga
	ordered = 4 // the parity of the sum: it depends on the order in which replies came
)

func (l *level[T]) holds(c cond) func(T) bool {
	return func(t T) bool {
		d := l.saga(&t)
		switch c.kind {
		case always:
			return true
		case drawn:
			return d.Draw>>(c.n%32)&1 == 0
		case happens:
			return d.Count[c.what]+l.count(&t, c.what) > 0
		case ordered:
			return (d.Sum+l.here(&t))%uint32(2+c.n%2) != 0
		}
		return false
	}
}

// key is the correlation key that a Wait with a By asks for.
func (l *level[T]) key(suffix string) func(T) string {
	return func(t T) string {
		k := l.saga(&t).ID + suffix
		for _, n := range l.path(&t) {
			k += "-" + strconv.Itoa(n)
		}
		return k
	}
}
