package shop

import "testing"

func TestThePlanIsSound(t *testing.T) {
	if _, err := PlaceOrder.Plan(); err != nil {
		t.Fatal(err)
	}
}
