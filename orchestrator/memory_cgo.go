//go:build cgo

package orchestrator

const cgo = true // Pebble keeps its caches in C's memory
