package events

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

const upstream = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func tracedDecision(trace []Header) *Record {
	r := typicalDecision()
	for i := range r.Decision.Rows {
		if row := &r.Decision.Rows[i]; row.Ref.Part == PartHead {
			h, err := DecodeHead(row.Value)
			if err != nil {
				panic(err)
			}
			h.Trace = trace
			row.Value = h.Encode(nil)
		}
	}
	return r
}

func traceParentOf(t *testing.T, r *Record, n int) (c SpanContext) {
	t.Helper()
	out, err := Outgoing("shop", r)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := TraceParent(out[n].Headers)
	if !ok {
		t.Fatalf("no traceparent that can be read in %v", out[n].Headers)
	}
	for _, h := range out[n].Headers {
		if h.Key == headerTraced {
			t.Errorf("the mark leaves the journal")
		}
	}
	return c
}

func TestACommandOfATracedSagaNamesTheSpanOfItsAttempt(t *testing.T) {
	state := Header{HeaderTraceState, []byte("a=b")}
	trace := MarkTraced([]Header{{HeaderTraceParent, []byte(upstream)}, state}, FlagSampled)
	saga, ok := TraceOf(sampleID, trace)
	if !ok {
		t.Fatal("it is not traced")
	}
	parent, _ := ParseTraceParent([]byte(upstream))
	if saga.Parent != parent || saga.Saga.Trace != parent.Trace || saga.Saga.Span == parent.Span {
		t.Errorf("%+v", saga)
	}
	r := tracedDecision(trace)
	e := &r.Decision.Emits[0]
	got := traceParentOf(t, r, 0)
	if want := saga.Command(CommandID{r.Decision.Instance, e.Node, e.Execution, e.Attempt, e.Phase}); got != want {
		t.Errorf("%x, not %x", got, want)
	}
	out, _ := Outgoing("shop", r)
	if header(t, &out[0], HeaderTraceState) != "a=b" {
		t.Errorf("%v", out[0].Headers)
	}
	e.Attempt++
	if again := traceParentOf(t, r, 0); again == got || again.Trace != got.Trace {
		t.Errorf("a second attempt has the span %x, the first %x", again, got)
	}
	// What is handed on does not depend on who sends it: the record alone decides.
	read, err := DecodeRecord(r.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := traceParentOf(t, r, 0), traceParentOf(t, read, 0); a != b {
		t.Errorf("%x, and %x when it is read back", a, b)
	}
}

func TestASagaNobodyTracesHandsItsContextOnAsItCame(t *testing.T) {
	trace := []Header{{HeaderTraceParent, []byte(upstream)}, {HeaderBaggage, []byte("k=v")}}
	out, err := Outgoing("shop", tracedDecision(trace))
	if err != nil {
		t.Fatal(err)
	}
	if got := out[0].Headers[len(out[0].Headers)-2:]; !reflect.DeepEqual(got, trace) {
		t.Errorf("%v", got)
	}
}

func TestATraceWithoutParentIsNamedLikeItsInstance(t *testing.T) {
	if Sampled(nil) || Sampled(MarkTraced(nil, 0)) || !Sampled(MarkTraced(nil, FlagSampled)) {
		t.Error("the mark's flag is misread")
	}
	bad := []Header{{HeaderTraceParent, []byte("00-1-2-01")}, {HeaderTraceState, []byte("a=b")}, {HeaderBaggage, []byte("k=v")}}
	marked := MarkTraced(bad, 0)
	if got, ok := TraceOf(sampleID, marked); !ok || got.Saga.Trace != sampleID || got.Saga.Flags != 0 || got.Parent != (SpanContext{}) {
		t.Errorf("%+v %v", got, ok)
	}
	if len(marked) != 2 || marked[0].Key != HeaderBaggage {
		t.Errorf("%v", marked)
	}
}

func TestTheMarkIsNotTakenFromOutside(t *testing.T) {
	if got := TraceHeaders(MarkTraced(nil, FlagSampled)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestTraceParentsAreReadAsTheW3CSays(t *testing.T) {
	for text, want := range map[string]bool{
		upstream: true,
		strings.Replace(upstream, "00-", "01-", 1):           true,
		strings.Replace(upstream, "00-", "01-", 1) + "-more": true,
		strings.Replace(upstream, "00-", "01-", 1) + "more":  false,
		strings.Replace(upstream, "00-", "ff-", 1):           false,
		upstream + "-more":          false,
		strings.ToUpper(upstream):   false,
		upstream[:54]:               false,
		"":                          false,
		strings.Repeat("0", 55):     false,
		strings.Repeat("\xff-", 40): false,
		"00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01":                 false,
		"00-0af7651916cd43dd8448eb211c80319c-" + strings.Repeat("0", 16) + "-01": false,
	} {
		c, ok := ParseTraceParent([]byte(text))
		if ok != want {
			t.Errorf("%q: %v", text, ok)
		}
		if text == upstream && !bytes.Equal(c.AppendTraceParent(nil), []byte(upstream)) {
			t.Errorf("%s comes back as %s", upstream, c.AppendTraceParent(nil))
		}
	}
}

func TestAViewOfAHeadAgreesWithTheHead(t *testing.T) {
	h := &Head{Definition: "place-order", Version: "1", Key: "k", State: Parked, ParkedIn: Running, Started: 5, Ended: 9, Code: "c",
		Trace: MarkTraced([]Header{{HeaderBaggage, []byte("k=v")}}, FlagSampled)}
	raw := h.Encode(nil)
	v, err := ViewHead(raw)
	if err != nil || string(v.Definition) != h.Definition || v.State != h.State || v.Started != 5 || v.Ended != 9 || !reflect.DeepEqual(v.Trace, h.Trace) {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := ViewHead(raw[:len(raw)-1]); err == nil {
		t.Error("half a head is read")
	}
}
