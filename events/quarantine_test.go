package events

import (
	"reflect"
	"testing"
)

func TestWhatWasQuarantinedComesBackAsItWasRead(t *testing.T) {
	forged := []Header{{HeaderPlace, []byte("other/1/2")}, {HeaderReason, []byte("forged")}, {"x", []byte("kept")}}
	for _, m := range []Message{
		{Topic: "orders", Partition: 3, Offset: 41, Key: []byte("k"), Value: []byte("v"), Time: 7},
		{Topic: "orders", Offset: 1, Headers: forged},
	} {
		q := WrapQuarantined("shop", &m, "undecodable: no JSON")
		got, reason, ok := UnwrapQuarantined(&q)
		if !ok || reason != "undecodable: no JSON" || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v comes back as\n%+v for %q (%v)", m, got, reason, ok)
		}
	}
	for _, place := range []string{"", "orders", "orders/1", "orders/1/2/3", "orders/x/2", "orders/1/x", "orders/-1/2", "orders/1/-2", "o rders/1/2", "/1/2", "orders/4294967296/1"} {
		if _, _, ok := UnwrapQuarantined(&Message{Headers: []Header{{HeaderReason, nil}, {HeaderPlace, []byte(place)}}}); ok {
			t.Errorf("the place %q is taken", place)
		}
	}
	if _, _, ok := UnwrapQuarantined(&Message{Headers: []Header{{HeaderPlace, []byte("orders/1/2")}}}); ok {
		t.Error("a record without a reason is taken for a quarantined one")
	}
}
