package main

import "testing"

// main.go is the program in the README; it is here while readme_test.go builds it.
func TestTheDefinitionIsSound(t *testing.T) {
	if _, err := placeOrder.Plan(); err != nil {
		t.Fatal(err)
	}
}
