// Package journal is the rules of the log: which records a reader accepts (LOG L1–L3), what an accepted
// record does to the shard's state and rows (the fold), and what a compaction round still has to carry.
//
// Owner, standby, rebuild, `journal cat` and the checker's fold all go through it. It may import events
// alone. The rule that must not break: what is accepted depends on nothing but the records before it; no
// clock, goroutine, lock, context or map order.
package journal
