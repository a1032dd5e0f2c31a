package events

import (
	"strconv"
	"strings"
)

// WrapQuarantined is the record that keeps m in the quarantine topic of app: bytes and headers untouched, and after them
// why, and the place m was read at. Its partition follows m's key, so that records of one key stay in order.
func WrapQuarantined(app string, m *Message, reason string) Message {
	q := Message{Topic: Topics{app}.Quarantine(), Partition: -1, Key: m.Key, Value: m.Value, Time: m.Time}
	q.Headers = append(append(make([]Header, 0, len(m.Headers)+2), m.Headers...),
		Header{HeaderReason, []byte(reason)}, Header{HeaderPlace, []byte(m.Place())})
	return q
}

// UnwrapQuarantined undoes WrapQuarantined: m as it was first read, and why it was put aside. ok is false for a record that
// does not say where it was read. What was read may itself have had headers of those names: the last ones count.
func UnwrapQuarantined(q *Message) (m Message, reason string, ok bool) {
	why, at := lastHeader(q.Headers, HeaderReason), lastHeader(q.Headers, HeaderPlace)
	if why < 0 || at < 0 {
		return m, "", false
	}
	m = Message{Key: q.Key, Value: q.Value, Time: q.Time}
	if m.Topic, m.Partition, m.Offset, ok = ParsePlace(string(q.Headers[at].Value)); !ok {
		return Message{}, "", false
	}
	for i := range q.Headers {
		if i != why && i != at {
			m.Headers = append(m.Headers, q.Headers[i])
		}
	}
	return m, string(q.Headers[why].Value), true
}

func lastHeader(headers []Header, name string) int {
	for i := len(headers) - 1; i >= 0; i-- {
		if headers[i].Key == name {
			return i
		}
	}
	return -1
}

// ParsePlace reads what Message.Place printed.
func ParsePlace(s string) (topic string, partition int32, offset int64, ok bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 || !isTopic(parts[0]) {
		return "", 0, 0, false
	}
	p, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil || p < 0 {
		return "", 0, 0, false
	}
	offset, err = strconv.ParseInt(parts[2], 10, 64)
	if err != nil || offset < 0 {
		return "", 0, 0, false
	}
	return parts[0], int32(p), offset, true
}
