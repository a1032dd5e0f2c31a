// Package naive says what a saga may do, by the plainest code that can: an interpreter of plans that keeps a saga as a
// tree of what was begun, in memory, and knows neither rows, attempts, time-outs that are retried, parking, records nor
// crashes.
//
// It may import sagas and events alone: it shares no decision with orchestrator/machine. What is written here
// follows DESIGN §4 and the guide, so where the two disagree, one of them is wrong.
//
// saga.go is the interpreter; play.go runs a plan against a script; explain.go takes what was seen of a saga that ran
// under faults and finds the run without faults that looks the same (G8), or says where there is none.
package naive
