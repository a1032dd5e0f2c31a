//go:build !cgo

package orchestrator

const cgo = false // Pebble keeps its caches in Go's heap
