package sagas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"

	"github.com/skald-io/skald/internal/jsonv1"
)

// Payloads and data are JSON as encoding/json has it, tags and methods included; a saga's data are decoded in nearly every
// decision, which is why internal/jsonv1 reads them.

func encodeJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding a %T as JSON: %w", v, err)
	}
	return b, nil
}

// decodeJSON fills *v. Unmarshal already refuses what follows the value; it would take bytes that are
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
	if err := jsonv1.Unmarshal(b, v); err != nil {
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
