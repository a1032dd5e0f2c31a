package checker

import (
	"sort"

	"github.com/skald-io/skald/events"
)

// Part names a partition of a topic.
type Part struct {
	Topic     string
	Partition int32
}

// Log is what was seen of one partition: its records in order of offset, without the broker's own markers.
type Log struct {
	// First is the lowest offset from which on nothing is missing; above 0 when the partition had been trimmed
	// before anybody looked.
	First int64
	// End is the offset after the last one looked at.
	End     int64
	Records []events.Message
}

// Evidence is everything a check is based on. It is not safe for concurrent use.
type Evidence struct {
	App  string
	Logs map[Part]*Log
	// Settled is, for each journal partition, the offset up to which its consequences had their time: what the
	// decisions below it emitted stands on its topics if progress says so, and the inputs they name were read.
	// Without an entry everything has.
	Settled map[int32]int64
	Ledgers [][]Effect
}

// NewEvidence is evidence of nothing yet.
func NewEvidence(app string) *Evidence {
	return &Evidence{App: app, Logs: map[Part]*Log{}, Settled: map[int32]int64{}}
}

// Log is the log of a partition, made when it is not there.
func (e *Evidence) Log(topic string, partition int32) *Log {
	p := Part{topic, partition}
	l := e.Logs[p]
	if l == nil {
		l = &Log{}
		e.Logs[p] = l
	}
	return l
}

// Add appends a record to its partition's log. Records come in order of offset. A hole is remembered as the
// beginning of what is known.
func (e *Evidence) Add(m events.Message) {
	l := e.Log(m.Topic, m.Partition)
	if m.Offset < l.End {
		return // seen already: a client may deliver a record again after a reconnect
	}
	if m.Offset > l.End {
		l.First, l.Records = m.Offset, nil
	}
	l.End = m.Offset + 1
	l.Records = append(l.Records, m)
}

// Skip moves past an offset that holds no record of anybody: a broker's marker.
func (e *Evidence) Skip(topic string, partition int32, offset int64) {
	l := e.Log(topic, partition)
	if offset > l.End {
		l.First, l.Records = offset+1, nil
	}
	l.End = max(l.End, offset+1)
}

// parts are the partitions of a topic that were looked at, in order.
func (e *Evidence) parts(topic string) []Part {
	var out []Part
	for p := range e.Logs {
		if p.Topic == topic {
			out = append(out, p)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Partition < out[j].Partition })
	return out
}

// At finds a record by its place; nil when it was not seen, or there is none.
func (e *Evidence) At(topic string, partition int32, offset int64) *events.Message {
	m, _ := e.at(Part{topic, partition}, offset)
	return m
}

// at finds a record by its place.
func (e *Evidence) at(p Part, offset int64) (m *events.Message, known bool) {
	l := e.Logs[p]
	if l == nil || offset < l.First || offset >= l.End {
		return nil, false
	}
	i := sort.Search(len(l.Records), func(i int) bool { return l.Records[i].Offset >= offset })
	if i == len(l.Records) || l.Records[i].Offset != offset {
		return nil, true
	}
	return &l.Records[i], true
}
