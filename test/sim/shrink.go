package main

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Every scheduled step draws its chances from a source of its own, which seed and number decide. So a step that is left
// out, or a fault that may not happen, changes nothing of what the others draw, and a story can be made shorter piece by
// piece as long as it still ends badly.

// shrinkFor bounds the time that is spent on one story.
const shrinkFor = 20 * time.Second

// shrunk is the shortest story that was found.
type shrunk struct {
	choice choice
	kept   spans
	out    outcome // told
	tries  int
}

// likeness is what two violations of one kind share: the words of their first line that name nothing.
func likeness(violation string) string {
	line, _, _ := strings.Cut(violation, "\n")
	words := strings.Fields(line)
	words = slices.DeleteFunc(words, func(w string) bool { return strings.ContainsAny(w, "0123456789") })
	return strings.Join(words[:min(len(words), 8)], " ")
}

// shrink looks for a shorter story of a run that found something wrong, with a violation of the same kind.
func shrink(ctx context.Context, c choice, out outcome, limit time.Duration) shrunk {
	began := time.Now()
	r, wanted := shrunk{choice: c}, likeness(out.violation)
	c.tell = false
	var kept []int
	for n := range min(c.steps, out.at+1) {
		if c.keep == nil || c.keep(n) {
			kept = append(kept, n)
		}
	}
	late := func() bool { return ctx.Err() != nil || time.Since(began) > limit }
	fails := func(steps []int, without faults) bool {
		r.tries++
		try := c
		try.keep, try.without = spansOf(steps).has, without
		return likeness(simulate(try).violation) == wanted
	}
	if !fails(kept, c.without) { // it needs what comes after the step in which it was found
		kept = nil
		for n := range c.steps {
			if c.keep == nil || c.keep(n) {
				kept = append(kept, n)
			}
		}
	}
	without := c.without
	for again := true; again && !late(); {
		again = false
		for size := max(len(kept)/2, 1); size >= 1 && !late(); size /= 2 {
			for from := 0; from < len(kept) && !late(); {
				less := slices.Concat(kept[:from], kept[min(from+size, len(kept)):])
				if fails(less, without) {
					kept, again = less, true
				} else {
					from += size
				}
			}
		}
		for f := range faultCount {
			if !without.has(f) && !late() && fails(kept, without.with(f)) {
				without, again = without.with(f), true
			}
		}
	}
	r.kept = spansOf(kept)
	r.choice.keep, r.choice.without, r.choice.tell = r.kept.has, without, true
	r.out = simulate(r.choice)
	return r
}
