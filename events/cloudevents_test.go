package events

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func structuredMessage(doc string, more ...Header) *Message {
	return &Message{Topic: "orders", Partition: 1, Offset: 2, Key: []byte("k"), Value: []byte(doc), Time: 5,
		Headers: append([]Header{{HeaderContentType, []byte("application/cloudevents+json; charset=UTF-8")}}, more...)}
}

// shown prints what Binary made: the headers in order, then the value.
func shown(m *Message, err error) string {
	var p *PoisonError
	switch {
	case errors.As(err, &p):
		return p.Code + " " + p.Detail
	case err != nil:
		return "not poison: " + err.Error()
	}
	var b strings.Builder
	for _, h := range m.Headers {
		fmt.Fprintf(&b, "%s=%s ", strings.TrimPrefix(h.Key, "ce_"), h.Value)
	}
	if m.Value == nil {
		return b.String() + "null"
	}
	return b.String() + string(m.Value)
}

func TestAStructuredCloudEventBecomesABinaryOne(t *testing.T) {
	const must = `"specversion":"1.0","id":"e1","source":"/s","type":"t"`
	const has = "specversion=1.0 id=e1 source=/s type=t "
	for name, x := range map[string]struct{ doc, want string }{
		"data stays as it stands":             {`{` + must + `,"data": {"b" : 1,  "a":1.50} }`, has + `content-type=application/json {"b" : 1,  "a":1.50}`},
		"without data":                        {`{` + must + `}`, has + "content-type=application/json null"},
		"with null data":                      {`{` + must + `,"data":null}`, has + "content-type=application/json null"},
		"a string of JSON data":               {`{` + must + `,"data":"x"}`, has + `content-type=application/json "x"`},
		"a string of text":                    {`{"datacontenttype":"text/plain",` + must + `,"data":"a\nb"}`, "content-type=text/plain " + has + "a\nb"},
		"an object of a kind that is no JSON": {`{` + must + `,"datacontenttype":"text/xml","data":{}}`, has + "content-type=text/xml {}"},
		"bytes":                               {`{` + must + `,"data_base64":"AAH/"}`, has + "content-type=application/json \x00\x01\xff"},
		"attributes of every kind":            {`{` + must + `,"n":12,"yes":true,"gone":null}`, has + "n=12 yes=true content-type=application/json null"},
		"the context of a trace":              {`{` + must + `,"traceparent":"00-a"}`, has + "traceparent=00-a content-type=application/json null"},
		"an attribute twice":                  {`{` + must + `,"id":"e2"}`, `undecodable a CloudEvent in structured mode: the attribute "id" stands twice`},
		"no id":                               {`{"specversion":"1.0","source":"/s","type":"t"}`, "undecodable a CloudEvent in structured mode: it has no id"},
		"another version":                     {`{"specversion":"0.3","id":"e1","source":"/s","type":"t"}`, `undecodable a CloudEvent in structured mode: specversion "0.3" is not 1.0`},
		"an attribute with structure":         {`{` + must + `,"x":{}}`, "undecodable a CloudEvent in structured mode: the attribute x: it is a string, a number or a boolean"},
		"an attribute with a wrong name":      {`{` + must + `,"X-y":1}`, `undecodable a CloudEvent in structured mode: the name of an attribute is 1 to 64 lower-case letters and digits, not "X-y"`},
		"data twice over":                     {`{` + must + `,"data":1,"data_base64":"AA=="}`, "undecodable a CloudEvent in structured mode: it has both data and data_base64"},
		"what is no base64":                   {`{` + must + `,"data_base64":"?"}`, "undecodable a CloudEvent in structured mode: its data_base64: illegal base64 data at input byte 0"},
		"two documents":                       {`{` + must + `}{}`, "undecodable a CloudEvent in structured mode: 2 bytes follow its document"},
		"half a document":                     {`{` + must, "undecodable a CloudEvent in structured mode: its document is no JSON: EOF"},
		"an array":                            {`[]`, "undecodable a CloudEvent in structured mode: its value is no JSON object"},
		"nothing":                             {``, "undecodable a CloudEvent in structured mode: its value is no JSON object"},
		"bytes that are no text":              {`{` + must + ",\"x\":\"\xff\"}", "undecodable a CloudEvent in structured mode: its document is not UTF-8"},
		"an attribute that is too long":       {`{` + must + `,"x":"` + strings.Repeat("x", MaxHeaderBytes) + `"}`, "oversize 16459 bytes of headers, at most 16384"},
		"too many attributes":                 {`{` + must + manyAttributes() + `}`, "undecodable a CloudEvent in structured mode: more than 64 attributes"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := shown(Binary(structuredMessage(x.doc))); got != x.want {
				t.Errorf("got  %s\nwant %s", got, x.want)
			}
		})
	}
}

func manyAttributes() string {
	var b strings.Builder
	for i := range MaxHeaders {
		fmt.Fprintf(&b, `,"a%d":1`, i)
	}
	return b.String()
}

func TestARecordThatIsNotStructuredStaysWhatItIs(t *testing.T) {
	for _, kind := range []string{"", "application/json", "application/cloudevent", "text/plain"} {
		m := &Message{Value: []byte("x"), Headers: []Header{{HeaderContentType, []byte(kind)}}}
		if got, err := Binary(m); err != nil || got != m {
			t.Errorf("%q: %v, %v", kind, got, err)
		}
	}
	for _, kind := range []string{"application/cloudevents+avro", "application/cloudevents-batch+json"} {
		if _, err := Binary(&Message{Headers: []Header{{HeaderContentType, []byte(kind)}}}); !IsPoison(err) {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

func TestHeadersOfTheRecordThatAreNotOfTheEventStay(t *testing.T) {
	m := structuredMessage(`{"specversion":"1.0","id":"e1","source":"/s","type":"t","traceparent":"inner"}`,
		Header{"tenant", []byte("7")}, Header{HeaderID, []byte("outer")}, Header{HeaderTraceParent, []byte("outer")})
	before := shown(m, nil)
	if got, want := shown(Binary(m)), "tenant=7 traceparent=outer specversion=1.0 id=e1 source=/s type=t content-type=application/json null"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := shown(m, nil); got != before {
		t.Errorf("the record itself changed: %s", got)
	}
}

func FuzzBinary(f *testing.F) {
	f.Add(`application/cloudevents+json`, []byte(`{"specversion":"1.0","id":"e1","source":"/s","type":"t","data":{"a":[1,{}]}}`))
	f.Add(`application/cloudevents+json`, []byte(`{"specversion":"1.0","id":"e1","source":"/s","type":"t","data_base64":"AAE="}`))
	f.Add(`Application/CloudEvents+json;x`, []byte(`{"id":"\ud800","data":"\u0000"}`))
	f.Add(``, []byte(nil))
	f.Fuzz(func(t *testing.T, kind string, doc []byte) {
		in := bytes.Clone(doc)
		m := &Message{Value: doc, Headers: []Header{{HeaderContentType, []byte(kind)}, {"x", []byte("y")}}}
		b, err := Binary(m)
		if !bytes.Equal(doc, in) {
			t.Fatal("reading changed its input")
		}
		if err != nil {
			if !IsPoison(err) {
				t.Fatal(err)
			}
			return
		}
		if err := CheckHeaders(b.Headers); err != nil && b != m {
			t.Fatalf("it is taken, and its headers are not: %v", err)
		}
	})
}

func TestForeignHeadersAreReadUnderOurNames(t *testing.T) {
	a := Aliases{"kafka_correlationId": HeaderCausationID, "kafka_replyTopic": HeaderReplyTo, "reply_outcome-type": HeaderOutcome}
	h := func(kv ...string) (out []Header) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, Header{kv[i], []byte(kv[i+1])})
		}
		return out
	}
	for name, x := range map[string]struct{ in, want []Header }{
		"a foreign name":           {h("kafka_correlationId", "c1"), h("kafka_correlationId", "c1", HeaderCausationID, "c1")},
		"our own name counts":      {h("kafka_correlationId", "c1", HeaderCausationID, "c2"), h("kafka_correlationId", "c1", HeaderCausationID, "c2")},
		"a foreign outcome":        {h("reply_outcome-type", "FAILURE"), h("reply_outcome-type", "FAILURE", HeaderOutcome, "rejected")},
		"a foreign word for done":  {h("reply_outcome-type", "SUCCESS"), h("reply_outcome-type", "SUCCESS", HeaderOutcome, "done")},
		"an outcome that is ours":  {h("reply_outcome-type", "retry"), h("reply_outcome-type", "retry", HeaderOutcome, "retry")},
		"the first of two counts":  {h("kafka_correlationId", "c1", "kafka_correlationId", "c2"), h("kafka_correlationId", "c1", "kafka_correlationId", "c2", HeaderCausationID, "c1")},
		"a name that nobody knows": {h("x", "y"), h("x", "y")},
	} {
		if got := a.Read(x.in); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
	}
	out := a.Write(h(HeaderID, "c1", HeaderCausationID, "e1", HeaderReplyTo, "shop.replies"))
	if want := h(HeaderID, "c1", HeaderCausationID, "e1", HeaderReplyTo, "shop.replies", "kafka_correlationId", "c1", "kafka_replyTopic", "shop.replies"); !reflect.DeepEqual(out, want) {
		t.Errorf("a command goes out with %s, want %s", out, want)
	}
}
