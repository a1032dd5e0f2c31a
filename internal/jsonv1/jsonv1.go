// Package jsonv1 reads JSON as encoding/json does, by the code that encoding/json is made of from Go 1.27 on.
//
// It may import no other package of this module. The rule that must not break: what it reads, and what it refuses, is what
// encoding/json reads and refuses, but for the tag option string of numbers.
package jsonv1

import (
	"encoding/json"
	"reflect"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	v1 "github.com/go-json-experiment/json/v1"
)

// legacy makes encoding/json/v2 read what encoding/json reads. json.Number is another type to it than its own; asking for
// that at each value costs as much as decoding, so that types which cannot hold one go without.
var (
	legacy            = v1.DefaultOptionsV1()
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

// Unmarshal is json.Unmarshal, in half the time.
func Unmarshal(b []byte, v any) error {
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
