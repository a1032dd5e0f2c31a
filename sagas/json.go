package sagas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Payloads and data are JSON as encoding/json has it, tags and methods included. They are read by the code that
// encoding/json itself is made of since Go 1.27, in its compatible mode: a saga's data are decoded in nearly every
// decision, and it takes half the time.

// legacy makes encoding/json/v2 read what encoding/json reads. json.Number is another type to it than its own; asking for
// that at each value costs as much as decoding, so that types which cannot hold one go without.
var (
	legacy            = jsonv1.DefaultOptionsV1()
	legacyWithNumbers = jsonv2.JoinOptions(legacy, jsonv2.WithUnmarshalers(jsonv2.UnmarshalFromFunc(
		func(from *jsontext.Decoder, n *json.Number) error {
			raw, err := from.ReadValue()
			if err != nil {
				return err
			}
			return json.Unmarshal(raw, n)
		})))
	numbers sync.Map // reflect.Type → whether it may hold a json.Number
)

// unmarshalJSON is json.Unmarshal.
func unmarshalJSON(b []byte, v any) error {
	options := legacy
	if mayHoldNumber(reflect.TypeOf(v)) {
		options = legacyWithNumbers
	}
	return jsonv2.Unmarshal(b, v, options)
}

func mayHoldNumber(t reflect.Type) bool {
	if t == nil {
		return false
	}
	if known, ok := numbers.Load(t); ok {
		return known.(bool)
	}
	may := findsNumber(t, map[reflect.Type]bool{})
	numbers.Store(t, may)
	return may
}

// findsNumber looks for json.Number in a type. An interface may hold a pointer to anything, which is then decoded into.
func findsNumber(t reflect.Type, seen map[reflect.Type]bool) bool {
	if t == reflect.TypeFor[json.Number]() || t.Kind() == reflect.Interface {
		return true
	}
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return findsNumber(t.Elem(), seen)
	case reflect.Map:
		return findsNumber(t.Key(), seen) || findsNumber(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if findsNumber(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

func encodeJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding a %T as JSON: %w", v, err)
	}
	return b, nil
}

// decodeJSON fills *v. unmarshalJSON already refuses what follows the value; it would take bytes that are
// not UTF-8, and null for anything.
func decodeJSON(b []byte, v any) error {
	shape := func() string { return reflect.TypeOf(v).Elem().String() }
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return fmt.Errorf("decoding a %s: the payload is empty", shape())
	case isNull(b):
		return fmt.Errorf("decoding a %s: the payload is null", shape())
	case !utf8.Valid(b):
		return fmt.Errorf("decoding a %s: the payload is not UTF-8", shape())
	}
	if err := unmarshalJSON(b, v); err != nil {
		return fmt.Errorf("decoding a %s: %w", shape(), err)
	}
	return nil
}

func decodeReply(b []byte, v any) error {
	if len(b) == 0 || isNull(b) {
		return nil
	}
	return decodeJSON(b, v)
}

func isNull(b []byte) bool { return string(bytes.TrimSpace(b)) == "null" }

// encodable finds types that JSON can never hold (a channel, a function) when the saga is defined, not when
// the first one starts. It looks at a zero value, so it does not see into empty slices and nil pointers.
func encodable(t reflect.Type) (err error) {
	if t.Kind() == reflect.Interface {
		return nil
	}
	defer func() {
		if recover() != nil { // a Marshaler that does not like a zero value
			err = nil
		}
	}()
	var unsupported *json.UnsupportedTypeError
	if _, e := json.Marshal(reflect.New(t).Interface()); errors.As(e, &unsupported) {
		return fmt.Errorf("%s cannot be JSON: it holds a %s", t, unsupported.Type)
	}
	return nil
}
