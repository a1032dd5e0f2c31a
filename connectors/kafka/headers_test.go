package kafka

import (
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
)

// A message and its record share one list of headers: neither may grow into what the other sees.
func TestAMessageAndItsRecordHaveTheSameHeaders(t *testing.T) {
	for _, headers := range [][]events.Header{nil, {{Key: "a", Value: []byte("1")}}, {{Key: "a"}, {Key: "", Value: []byte{}}, {Key: "a", Value: []byte{0xff}}}} {
		m := events.Message{Topic: "t", Headers: append(make([]events.Header, 0, 8), headers...)}
		r := recordOf(&m)
		if len(r.Headers) != len(headers) {
			t.Fatalf("%d headers become %d", len(headers), len(r.Headers))
		}
		for i, h := range headers {
			if r.Headers[i].Key != h.Key || !reflect.DeepEqual(r.Headers[i].Value, h.Value) {
				t.Errorf("header %d becomes %v", i, r.Headers[i])
			}
		}
		if got := headersOf(r); len(got) != len(headers) || len(got) > 0 && !reflect.DeepEqual(got, headers) {
			t.Errorf("%v comes back as %v", headers, got)
		}
		_ = append(r.Headers, kgo.RecordHeader{Key: "of a hook"})
		_ = append(headersOf(r), events.Header{Key: "of a shard"})
		if n := len(headers); m.Headers[:n+1][n].Key != "" {
			t.Error("what is appended to a record's headers stands behind the message's")
		}
	}
}
