package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A CloudEvent comes in binary mode, its attributes in headers and its data as the value, or in structured mode,
// all of it as one JSON document in the value (CloudEvents 1.0, Kafka binding and JSON format). What reads events
// knows the first alone; Binary makes it of the second.

// Binary is m in binary mode: m itself, unless its content-type says that it is a CloudEvent in structured mode.
// Then the attributes stand as ce_* headers in place of those of the record, the content-type is the data's, and
// the value is the data, byte for byte as they stand in the document (a JSON string is read when the data is not
// JSON, data_base64 is decoded). Other headers stay. Data that is missing or null gives a null value. Neither m nor
// its bytes are changed; the result aliases them. What is no CloudEvent is a *PoisonError.
func Binary(m *Message) (*Message, error) {
	value, ok := m.header(HeaderContentType)
	if !ok || !isCloudEvents(value) {
		return m, nil
	}
	kind := string(value)
	if media := mediaType(kind); media != "application/cloudevents+json" {
		return nil, &PoisonError{PoisonUndecodable, fmt.Sprintf("a CloudEvent in structured mode is application/cloudevents+json, not %.60q", media)}
	}
	s := structured{headers: make([]Header, 0, len(m.Headers)+8)}
	for _, h := range m.Headers {
		if h.Key != HeaderContentType && !strings.HasPrefix(h.Key, "ce_") {
			s.headers = append(s.headers, h)
		}
	}
	s.others = len(s.headers)
	if err := s.read(m.Value); err != nil {
		return nil, &PoisonError{PoisonUndecodable, "a CloudEvent in structured mode: " + err.Error()}
	}
	if err := CheckHeaders(s.headers); err != nil {
		return nil, err
	}
	b := *m
	b.Headers, b.Value = s.headers, s.value
	return &b, nil
}

func isCloudEvents(contentType []byte) bool {
	const prefix = "application/cloudevents"
	return len(contentType) >= len(prefix) && bytes.EqualFold(contentType[:len(prefix)], []byte(prefix))
}

// mediaType is a content-type without its parameters, in lower case.
func mediaType(contentType string) string {
	s, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

// structured is a CloudEvent that is being read from its JSON document.
type structured struct {
	headers []Header
	others  int // headers that are not of the document
	data    []byte
	base64  []byte
	value   []byte
}

func (s *structured) read(doc []byte) error {
	if !utf8.Valid(doc) {
		return fmt.Errorf("its document is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("its value is no JSON object")
	}
	var names []string
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return fmt.Errorf("its document is no JSON: %.200s", err.Error())
		}
		name, _ := t.(string)
		if slices.Contains(names, name) {
			return fmt.Errorf("the attribute %.40q stands twice", name)
		}
		if names = append(names, name); len(names) > MaxHeaders {
			return fmt.Errorf("more than %d attributes", MaxHeaders)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("its document is no JSON: %.200s", err.Error())
		}
		if err := s.attribute(name, raw, doc, int(d.InputOffset())); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("its document is no JSON: %.200s", err.Error())
	}
	if rest := bytes.TrimSpace(doc[d.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("%d bytes follow its document", len(rest))
	}
	return s.complete()
}

// attribute takes one member of the document. raw is its value as it stands; it ends at doc[end].
func (s *structured) attribute(name string, raw json.RawMessage, doc []byte, end int) error {
	switch name {
	case "data":
		s.data = doc[end-len(raw) : end : end]
		return nil
	case "data_base64":
		s.base64 = raw
		return nil
	}
	if !isAttribute(name) {
		return fmt.Errorf("the name of an attribute is 1 to 64 lower-case letters and digits, not %.40q", name)
	}
	text, ok, err := scalar(raw)
	if err != nil {
		return fmt.Errorf("the attribute %s: %w", name, err)
	}
	if !ok {
		return nil // null is the same as absent
	}
	switch name {
	case "datacontenttype":
		s.set(HeaderContentType, text)
	case HeaderTraceParent, HeaderTraceState: // of the extension for tracing; a header of the record is nearer
		if !slices.ContainsFunc(s.headers[:s.others], func(h Header) bool { return h.Key == name }) {
			s.set(name, text)
		}
	default:
		s.set("ce_"+name, text)
	}
	return nil
}

func (s *structured) set(key, value string) {
	s.headers = append(s.headers, Header{key, []byte(value)})
}

func (s *structured) get(key string) string {
	for _, h := range s.headers[s.others:] {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// complete checks what a CloudEvent must have, and makes the value.
func (s *structured) complete() error {
	for _, key := range []string{HeaderSpecVersion, HeaderID, HeaderSource, HeaderType} {
		if s.get(key) == "" {
			return fmt.Errorf("it has no %s", strings.TrimPrefix(key, "ce_"))
		}
	}
	if v := s.get(HeaderSpecVersion); !strings.HasPrefix(v, "1.") {
		return fmt.Errorf("specversion %.20q is not 1.0", v)
	}
	kind := s.get(HeaderContentType)
	if kind == "" {
		kind = "application/json"
		s.set(HeaderContentType, kind)
	}
	switch {
	case s.data != nil && s.base64 != nil:
		return fmt.Errorf("it has both data and data_base64")
	case s.base64 != nil:
		text, ok, err := scalar(s.base64)
		if err == nil && ok {
			s.value, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil {
			return fmt.Errorf("its data_base64: %.80s", err.Error())
		}
	case s.data != nil && string(s.data) != "null":
		s.value = s.data
		if text, ok, err := scalar(s.data); err == nil && ok && s.data[0] == '"' && !isJSON(kind) {
			s.value = []byte(text)
		}
	}
	return nil
}

// isJSON reports whether data of that content-type is JSON.
func isJSON(contentType string) bool {
	media := mediaType(contentType)
	return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
}

// scalar prints a string, number or boolean; ok is false for null.
func scalar(raw json.RawMessage) (text string, ok bool, err error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return "", false, err
	}
	switch v := v.(type) {
	case nil:
		return "", false, nil
	case string:
		return v, true, nil
	case bool:
		return strconv.FormatBool(v), true, nil
	case json.Number:
		return v.String(), true, nil
	}
	return "", false, fmt.Errorf("it is a string, a number or a boolean")
}

func isAttribute(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(name) > 0 && len(name) <= 64
}

// Aliases let services take part that use other header names: foreign name to ours. Of a service that was
// written for Spring Kafka's request and reply it is {"kafka_correlationId": HeaderCausationID, "kafka_replyTopic":
// HeaderReplyTo}; Eventuate's replies need {"reply_to_message_id": HeaderCausationID, "reply_outcome-type":
// HeaderOutcome}. It is not to be changed once it is used.
type Aliases map[string]string

// Read adds to the headers of what came, under our names, what foreign names say; a header that stands under our
// name already counts. The outcomes SUCCESS and FAILURE are read as done and rejected. headers is not changed.
func (a Aliases) Read(headers []Header) []Header {
	if len(a) == 0 {
		return headers
	}
	out := headers
	for _, h := range headers {
		ours, ok := a[h.Key]
		if !ok || slices.ContainsFunc(out, func(x Header) bool { return x.Key == ours }) {
			continue
		}
		if len(out) == len(headers) {
			out = slices.Clip(headers)
		}
		if ours == HeaderOutcome {
			switch string(h.Value) {
			case "SUCCESS":
				h.Value = []byte("done")
			case "FAILURE":
				h.Value = []byte("rejected")
			}
		}
		out = append(out, Header{ours, h.Value})
	}
	return out
}

// Write adds to the headers of a command what a service expects under its own names, in their order: under the
// alias of HeaderCausationID the command's id, which is what the reply has to give back, and under any other the
// header of our name, if the command has it. headers is not changed.
func (a Aliases) Write(headers []Header) []Header {
	if len(a) == 0 {
		return headers
	}
	names := make([]string, 0, len(a))
	for foreign := range a { // order: they are sorted next
		names = append(names, foreign)
	}
	slices.Sort(names)
	out := slices.Clip(headers)
	for _, foreign := range names {
		ours := a[foreign]
		if ours == HeaderCausationID {
			ours = HeaderID
		}
		for _, h := range headers {
			if h.Key == ours {
				out = append(out, Header{foreign, h.Value})
				break
			}
		}
	}
	return out
}
