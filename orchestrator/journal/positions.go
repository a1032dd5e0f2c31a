package journal

import (
	"slices"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// TP is one partition of a topic.
type TP struct {
	Topic     string
	Partition int32
}

func (a TP) compare(b TP) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// Mark is an exact, bounded record of which offsets of a partition are finished: everything below Low, and
// the spans of Ahead, which are ascending, apart from each other and from Low.
type Mark struct {
	TopicID [16]byte
	Low     int64
	Ahead   []events.Span
}

// Has reports whether the offset is finished.
func (m *Mark) Has(offset int64) bool {
	if offset < m.Low {
		return true
	}
	if n := len(m.Ahead); n > 0 && mutant.On("journal-high-water-mark") {
		return offset < m.Ahead[n-1].To
	}
	_, found := slices.BinarySearchFunc(m.Ahead, offset, func(s events.Span, o int64) int {
		switch {
		case s.To <= o:
			return -1
		case s.From > o:
			return 1
		}
		return 0
	})
	return found
}

// Add marks one offset.
func (m *Mark) Add(offset int64) {
	if m.Has(offset) {
		return
	}
	i, _ := slices.BinarySearchFunc(m.Ahead, offset, func(s events.Span, o int64) int {
		if s.From < o {
			return -1
		}
		return 1
	})
	joinsLeft := i > 0 && m.Ahead[i-1].To == offset
	joinsRight := i < len(m.Ahead) && m.Ahead[i].From == offset+1
	switch {
	case joinsLeft && joinsRight:
		m.Ahead[i-1].To = m.Ahead[i].To
		m.Ahead = slices.Delete(m.Ahead, i, i+1)
	case joinsLeft:
		m.Ahead[i-1].To++
	case joinsRight:
		m.Ahead[i].From--
	default:
		m.Ahead = slices.Insert(m.Ahead, i, events.Span{From: offset, To: offset + 1})
	}
}

// Raise lifts Low; it never falls.
func (m *Mark) Raise(low int64) {
	if low > m.Low {
		m.Low = low
		m.settle()
	}
}

// settle drops from Ahead what Low has reached. A span that begins at Low is not folded into it: Low is
// what its writer said, and all readers keep the same.
func (m *Mark) settle() {
	n := 0
	for n < len(m.Ahead) && m.Ahead[n].To <= m.Low {
		n++
	}
	m.Ahead = slices.Delete(m.Ahead, 0, n)
	if len(m.Ahead) > 0 && m.Ahead[0].From < m.Low {
		m.Ahead[0].From = m.Low
	}
}

func (m *Mark) clone() *Mark {
	c := *m
	c.Ahead = slices.Clone(m.Ahead)
	return &c
}

type marks map[TP]*Mark

func (ms marks) of(tp TP) *Mark {
	m := ms[tp]
	if m == nil {
		m = &Mark{}
		ms[tp] = m
	}
	return m
}

func (ms marks) clone() marks {
	c := make(marks, len(ms))
	for tp, m := range ms { // order: a copy
		c[tp] = m.clone()
	}
	return c
}

// list is the marks in order of topic and partition.
func (ms marks) list() []events.Position {
	out := make([]events.Position, 0, len(ms))
	for tp, m := range ms { // order: sorted below
		out = append(out, events.Position{Topic: tp.Topic, Partition: tp.Partition, TopicID: m.TopicID, Low: m.Low, Ahead: slices.Clone(m.Ahead)})
	}
	slices.SortFunc(out, func(a, b events.Position) int {
		return TP{a.Topic, a.Partition}.compare(TP{b.Topic, b.Partition})
	})
	return out
}

func marksOf(list []events.Position) marks {
	ms := make(marks, len(list))
	for _, p := range list {
		ms[TP{p.Topic, p.Partition}] = &Mark{TopicID: p.TopicID, Low: p.Low, Ahead: slices.Clone(p.Ahead)}
	}
	return ms
}
