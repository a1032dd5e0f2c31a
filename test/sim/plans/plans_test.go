package plans

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/skald-io/skald/sagas"
)

var seeds = flag.Int("seeds", 10_000, "how many definitions to make")

// TestEveryKindPolicyAndRoleOccurs makes many definitions: all of them are valid, and each word of the plan's
// vocabulary occurs in at least one of a hundred.
func TestEveryKindPolicyAndRoleOccurs(t *testing.T) {
	in := map[string]int{} // plans that have it
	hashes := map[[8]byte]bool{}
	nodes, deepest := 0, 0
	for seed := range *seeds {
		p, err := New(uint64(seed), Options{}).Plan()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if seed%10 == 0 {
			if again, err := New(uint64(seed), Options{}).Plan(); err != nil || again.Hash != p.Hash || again.Export() != p.Export() {
				t.Fatalf("seed %d made another definition the second time", seed)
			}
		}
		hashes[p.Hash] = true
		nodes += len(p.Nodes)
		has := map[string]bool{}
		words(p, has)
		for w := range has {
			in[w]++
		}
		for _, n := range p.Nodes {
			depth := 0
			for up := n.Parent; up != nil; up = up.Parent {
				depth++
			}
			deepest = max(deepest, depth)
		}
	}
	for _, w := range vocabulary {
		if in[w] < *seeds/100 {
			t.Errorf("only %d of %d plans have %q", in[w], *seeds, w)
		}
	}
	for _, w := range slices.Sorted(maps.Keys(in)) {
		if !slices.Contains(vocabulary, w) {
			t.Errorf("%q occurs and is not asked for", w)
		}
		t.Logf("%5d %s", in[w], w)
	}
	if len(hashes) < *seeds*9/10 {
		t.Errorf("%d definitions have only %d trees", *seeds, len(hashes))
	}
	t.Logf("%d trees of %d definitions, %.1f nodes each, up to %d deep", len(hashes), *seeds, float64(nodes)/float64(*seeds), deepest)
}

// vocabulary is what has to occur.
var vocabulary = []string{
	"step", "seq", "all", "wait", "do", "emit", "choose", "require", "for-each", "while", "try",
	"role compensatable", "role pivot", "role retriable", "effect-free",
	"attempts by role", "attempts named", "attempts for ever", "undo attempts by role", "undo attempts named", "undo attempts for ever",
	"backoff", "jitter", "not codes", "timeout", "reply not needed",
	"wait event", "wait event by", "wait event keep", "wait signal", "wait approval", "wait sleep", "wait first of", "wait within", "wait for ever",
	"emit key", "choose otherwise", "choose without otherwise", "try else", "try without else", "try on failure",
	"all all", "all some", "all first", "all cancel-rest", "all let-it-finish", "all width",
	"for-each all", "for-each some", "for-each first", "for-each cancel-rest", "for-each let-it-finish", "for-each width", "for-each most", "for-each in for-each",
	"while most", "while in while", "while in for-each", "loop past the pivot", "try past the pivot",
	"deadline", "no deadline", "retention", "during quarantine", "during ignore",
	"after start", "after failure", "after quarantine", "after ignore",
}

func words(p *sagas.Plan, has map[string]bool) {
	say := func(is bool, format string, args ...any) {
		if is {
			has[fmt.Sprintf(format, args...)] = true
		}
	}
	say(p.Deadline > 0, "deadline")
	say(p.Deadline == 0, "no deadline")
	say(p.Retention != sagas.DefaultRetention, "retention")
	say(true, "during %v", p.During)
	say(true, "after %v", p.After)
	past := false
	for _, n := range p.Nodes {
		say(true, "%v", n.Kind)
		within := func(k sagas.Kind) bool {
			for up := n.Parent; up != nil; up = up.Parent {
				if up.Kind == k {
					return true
				}
			}
			return false
		}
		loop := n.Kind == sagas.KindForEach || n.Kind == sagas.KindWhile
		say(past && loop, "loop past the pivot")
		say(past && n.Kind == sagas.KindTry, "try past the pivot")
		say(loop && n.Most != sagas.DefaultMost, "%v most", n.Kind)
		say(loop && within(sagas.KindForEach), "%v in for-each", n.Kind)
		say(n.Kind == sagas.KindWhile && within(sagas.KindWhile), "while in while")
		switch n.Kind {
		case sagas.KindStep:
			s := n.Step
			past = past || s.Role == sagas.Pivot
			say(true, "role %v", s.Role)
			say(s.EffectFree, "effect-free")
			say(s.OnReply == nil, "reply not needed")
			say(s.Timeout != sagas.DefaultTimeout, "timeout")
			say(true, "attempts %s", attempts(s.Retry.Attempts))
			say(s.Retry.Backoff != sagas.DefaultBackoff, "backoff")
			say(s.Retry.Jitter != sagas.DefaultJitter, "jitter")
			say(len(s.Retry.NotCodes) > 0, "not codes")
			if s.Undo != nil {
				say(true, "undo attempts %s", attempts(s.Undo.Retry.Attempts))
			}
		case sagas.KindWait:
			w := n.Wait
			say(w.Sleep > 0, "wait sleep")
			say(w.Event != nil, "wait event")
			say(w.Key != nil, "wait event by")
			say(w.Event != nil && w.Keep != sagas.DefaultKeep, "wait event keep")
			say(w.Signal == Signal, "wait signal")
			say(w.Signal == ApprovalBy, "wait approval")
			say(w.Within > 0, "wait within")
			say(w.Within == 0 && w.Sleep == 0, "wait for ever")
		case sagas.KindEmit:
			say(n.Emit.Key != nil, "emit key")
		case sagas.KindChoose:
			last := n.Conds[len(n.Conds)-1]
			say(last == nil, "choose otherwise")
			say(last != nil, "choose without otherwise")
		case sagas.KindTry:
			say(len(n.Children) == 2, "try else")
			say(len(n.Children) == 1, "try without else")
			say(n.OnFail != nil, "try on failure")
		case sagas.KindAll, sagas.KindForEach:
			say(true, "%v %v", n.Kind, n.Join)
			say(true, "%v %v", n.Kind, n.OnFailure)
			say(n.Width > 0, "%v width", n.Kind)
			first := func(i int) *sagas.Node { return n.Children[i].Children[0] }
			say(n.Join == sagas.JoinFirst && n.Kind == sagas.KindAll && len(n.Children) == 2 && n.Children[0].Kind == sagas.KindSeq && n.Children[1].Kind == sagas.KindSeq &&
				first(0).Wait != nil && first(0).Wait.Event != nil && first(1).Wait != nil && first(1).Wait.Sleep > 0, "wait first of")
		}
	}
}

func attempts(n int) string {
	switch {
	case n < 0:
		return "for ever"
	case n == 0:
		return "by role"
	}
	return "named"
}

// TestTheDrawDecidesWhatASagaDoes asks the functions of many plans: a condition answers differently for different
// draws, and a list has different lengths.
func TestTheDrawDecidesWhatASagaDoes(t *testing.T) {
	conds, lists := 0, 0
	for seed := range 200 {
		p, err := New(uint64(seed), Options{}).Plan()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range p.Nodes {
			if n.Kind == sagas.KindRequire && n.Parent != nil {
				answers := map[bool]bool{}
				for draw := range uint32(64) {
					if yes, err := n.Conds[0](&Data{ID: "o", Draw: draw * 0x9e3779b9}); err == nil {
						answers[yes] = true
					}
				}
				if len(answers) == 2 {
					conds++
				}
			}
			if n.Kind == sagas.KindForEach {
				lengths := map[int]bool{}
				for draw := range uint32(64) {
					if items, err := n.Each.Items(&Data{ID: "o", Draw: draw * 0x9e3779b9}); err == nil {
						lengths[len(items)] = true
					}
				}
				if len(lengths) == 4 {
					lists++
				}
			}
		}
	}
	if conds < 10 || lists < 10 {
		t.Errorf("%d conditions and %d lists depend on the draw", conds, lists)
	}
}

// TestOptionsLeaveOut holds definitions against what their options leave out.
func TestOptionsLeaveOut(t *testing.T) {
	for seed := range 500 {
		o := Options{Name: "small", Version: "7", Prefix: "a.", Nodes: 8, NoPivot: true, NoLoops: true, NoWaits: true}
		p, err := New(uint64(seed), o).Plan()
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]bool{}
		words(p, has)
		for _, w := range []string{"role pivot", "role retriable", "for-each", "while", "wait event", "wait signal", "wait approval"} {
			if has[w] {
				t.Fatalf("seed %d has %q", seed, w)
			}
		}
		if p.Name != "small" || p.Version != "7" || p.Start.Topic != "a."+StartTopic {
			t.Fatalf("seed %d is called %s %s and starts on %s", seed, p.Name, p.Version, p.Start.Topic)
		}
		for _, topic := range p.Writes() {
			if topic[:2] != "a." {
				t.Fatalf("seed %d writes to %s", seed, topic)
			}
		}
	}
}
