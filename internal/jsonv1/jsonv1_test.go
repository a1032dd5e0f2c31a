package jsonv1

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"
)

type embedded struct {
	E int
	F string `json:"f,omitempty"`
}

// plain has what encoding/json has a rule for, but the tag option string: of numbers in quotes the newer code takes
// some that the older one refuses, such as "+0".
type plain struct {
	A   string
	B   int64 `json:"b"`
	C   uint8
	D   float64 `json:"d"`
	F32 float32
	OK  bool
	embedded
	Ptr    *plain            `json:"p,omitempty"`
	Deep   **string          `json:"deep,omitempty"`
	Map    map[string]int    `json:"m"`
	ByInt  map[int]string    `json:",omitempty"`
	Many   []string          `json:"s"`
	Raw    json.RawMessage   `json:"raw"`
	At     time.Time         `json:"at"`
	Bytes  []byte            `json:"bytes"`
	Three  [3]int            `json:"three"`
	Took   time.Duration     `json:"took"`
	Hidden string            `json:"-"`
	Names  map[string]*int64 `json:"names,omitempty"`
}

// shapes has numbers as they are written as well, and what may hold anything.
type shapes struct {
	plain
	Any    any           `json:"any"`
	Number json.Number   `json:"n"`
	Each   []json.Number `json:"each,omitempty"`
}

func alike(t *testing.T, b []byte) {
	t.Helper()
	alikeAs[plain](t, b)
	alikeAs[shapes](t, b)
}

// alikeAs decodes b both ways, into zero values.
func alikeAs[T any](t *testing.T, b []byte) {
	t.Helper()
	var want, got T
	wrong, err := json.Unmarshal(b, &want), Unmarshal(b, &got)
	if (wrong == nil) != (err == nil) {
		t.Fatalf("%q: encoding/json says %v, Unmarshal %v", b, wrong, err)
	}
	if err == nil && !reflect.DeepEqual(want, got) {
		t.Fatalf("%q:\nencoding/json gives %+v\nUnmarshal    %+v", b, want, got)
	}
}

var jsonSeeds = []string{
	`{"A":"<é\u2028","b":-9223372036854775808,"C":255,"d":1.5,"f":"x","p":{"A":"y"},"deep":"z","m":{"k":1},"ByInt":{"3":"x"}}`,
	`{"s":[],"any":[1.5,"x",null,{"a":{}}],"raw":{"q":[1, 2]},"n":12.50,"each":[1e3,"7"],"at":"2026-01-01T00:00:00.5Z","bytes":"aGk="}`,
	`{"a":"another case","A":"twice","three":[1,2,3,4],"took":5,"-":"no","names":{"x":null,"y":1}}`,
	`{"three":[]}`, `{"C":256}`, `{"b":1e3}`, `{"d":"1.5"}`, `{"n":"x"}`, `{"n":true}`, `{"bytes":"?"}`, `{"at":"yesterday"}`,
	`{"A":"\ud800"}`, `{"s":null,"p":null,"m":null}`, ` [] `, `"x"`, `{"A":"x"} {}`, `{"A":"x",}`, `{`, `null`, `nul`,
}

func TestJSONIsReadAsEncodingJSONReadsIt(t *testing.T) {
	for _, seed := range jsonSeeds {
		alike(t, []byte(seed))
	}
}

func TestNumbersAreFoundWhereverTheyMayBe(t *testing.T) {
	type ring struct{ Next *ring }
	type deep struct {
		M map[string][]*[2]struct{ N json.Number }
	}
	for _, c := range []struct {
		v   any
		may bool
	}{
		{new(plain), false}, {new(shapes), true}, {new(json.Number), true}, {new(any), true}, {new(ring), false}, {new(deep), true},
		{new(map[json.Number]int), true}, {new(map[string]any), true}, {new(string), false}, {new(struct{ error }), true},
	} {
		if got := mayHoldNumber(reflect.TypeOf(c.v)); got != c.may {
			t.Errorf("%T may hold a json.Number: %v, want %v", c.v, got, c.may)
		}
	}
}

func FuzzJSONIsReadAsEncodingJSONReadsIt(f *testing.F) {
	for _, seed := range jsonSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if utf8.Valid(b) { // sagas refuses anything else before
			alike(t, b)
		}
	})
}
