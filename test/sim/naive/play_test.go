package naive

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
	"github.com/skald-io/skald/test/sim/plans"
)

// script answers from a list of choices, and counts on where that ends.
type script struct {
	says    map[string]Verdict
	choices []int
	of      []int // how many there were, choice by choice
	saw     []string
}

func (s *script) Pick(n int) int {
	i := len(s.of)
	s.of = append(s.of, n)
	if i < len(s.choices) {
		return s.choices[i]
	}
	return 0
}

func (s *script) Step(label string) (Verdict, []byte) { return s.says[label], nil }
func (s *script) Undo(label string) bool              { return s.says["undo "+label] == SaysDone }
func (s *script) Wait(label string) *sagas.Taken {
	if s.says[label] != SaysDone {
		return nil
	}
	return &sagas.Taken{}
}
func (s *script) See(o Output) {
	if o.Kind == Command || o.Kind == Undo || o.Kind == Ended {
		s.saw = append(s.saw, string(o.Kind)+" "+o.Label+o.What)
	}
}

// outcomes plays a plan in every order that concurrency allows.
func outcomes(t *testing.T, root sagas.NodeOf[plans.Data], says map[string]Verdict) []string {
	t.Helper()
	order := sagas.NewEvent[plans.Order]("orders", "placed")
	p, err := sagas.Define("shop", "1", sagas.StartOn(order, func(e plans.Order) plans.Data { return plans.Data{ID: e.ID} }), root).Plan()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for choices := []int{}; choices != nil; {
		s := &script{says: says, choices: choices}
		o, err := Play(p, "o", []byte(`{"id":"o"}`), s)
		if err != nil {
			t.Fatal(err)
		}
		all[o.String()] = true
		for len(choices) < len(s.of) {
			choices = append(choices, 0)
		}
		for len(choices) > 0 && choices[len(choices)-1]+1 == s.of[len(choices)-1] {
			choices = choices[:len(choices)-1]
		}
		if len(choices) == 0 {
			break
		}
		choices[len(choices)-1]++
	}
	return slices.Sorted(maps.Keys(all))
}

func does(name string) sagas.StepOf[plans.Data] {
	ask := func(d plans.Data) plans.Ask { return plans.Ask{ID: d.ID} }
	return sagas.Step(name, sagas.NewCommand[plans.Ask, plans.Reply]("svc", name), ask, nil).
		Undo(sagas.With(sagas.NewCommand[plans.Ask, plans.Reply]("svc", "undo."+name), ask))
}

func TestConcurrencyAllowsTheseOutcomesAndNoOthers(t *testing.T) {
	a, b := does("a"), does("b")
	for _, x := range []struct {
		what string
		root sagas.NodeOf[plans.Data]
		says map[string]Verdict
		want []string
	}{
		{"a sequence compensates", sagas.Seq[plans.Data](a, b), map[string]Verdict{"b": SaysNothing}, []string{
			"compensated, a: no effect, b: no effect"}},
		{"the first decides", sagas.FirstOf[plans.Data](a, b), nil, []string{
			"completed, a: an effect, b: no effect", "completed, a: no effect, b: an effect"}},
		{"the first fails, or the other is", sagas.FirstOf[plans.Data](a, b), map[string]Verdict{"b": SaysRejected}, []string{
			"compensated, a: no effect, b: no effect", "completed, a: an effect, b: no effect"}},
		{"any is enough", sagas.All(sagas.LetItFinish, sagas.NodeOf[plans.Data](a), b).Any(), nil, []string{
			"completed, a: an effect, b: an effect"}},
		{"any is enough, and the rest is cancelled", sagas.All(sagas.CancelRest, sagas.NodeOf[plans.Data](a), b).Any(), nil, []string{
			"completed, a: an effect, b: no effect", "completed, a: no effect, b: an effect"}},
		{"a save-point", sagas.Try("t", sagas.NodeOf[plans.Data](a)).Else(b), map[string]Verdict{"a": SaysNothing}, []string{
			"completed, a: no effect, b: an effect"}},
		{"an undo that is impossible", sagas.Seq[plans.Data](a, b), map[string]Verdict{"b": SaysRejected, "undo a": SaysNothing}, []string{
			"parked undo-exhausted, a: perhaps an effect, b: no effect"}},
		{"a time or an event", sagas.FirstOf[plans.Data](sagas.Seq[plans.Data](sagas.Sleep[plans.Data]("s", time.Second), a), b), nil, []string{
			"completed, a: an effect, b: no effect", "completed, a: no effect, b: an effect", "completed, b: an effect"}},
		{"the pivot is in doubt", sagas.Seq[plans.Data](a, sagas.Step("p", sagas.NewCommand[plans.Ask, plans.Reply]("svc", "p"), func(d plans.Data) plans.Ask { return plans.Ask{} }, nil).Pivot()), map[string]Verdict{"p": SaysNothing}, []string{
			"parked pivot-unknown, a: an effect, p: perhaps an effect"}},
	} {
		if got := outcomes(t, x.root, x.says); !slices.Equal(got, x.want) {
			t.Errorf("%s: the outcomes are\n%q\nwant\n%q", x.what, got, x.want)
		}
	}
}

// dice is a world by chance. It keeps what the saga did, and finds effects that are left.
type dice struct {
	*rand.Rand
	left  map[string]bool
	began map[string]int
}

func (d *dice) Pick(n int) int { return d.IntN(n) }
func (d *dice) Step(label string) (Verdict, []byte) {
	v := []Verdict{SaysDone, SaysDone, SaysDone, SaysDone, SaysRejected, SaysNothing}[d.IntN(6)]
	if v == SaysRejected {
		delete(d.left, label)
	}
	return v, nil
}
func (d *dice) Undo(label string) bool { delete(d.left, label); return true }
func (d *dice) Wait(label string) *sagas.Taken {
	if d.IntN(4) == 0 {
		return nil
	}
	return &sagas.Taken{ID: label, Payload: []byte(`{"v":1,"approved":true}`)}
}
func (d *dice) See(o Output) {
	if o.Kind == Command {
		d.left[o.Label] = true
		d.began[o.Label]++
	}
}

// TestPlaysOfRandomPlansLeaveNothingBehind plays random plans without faults: what completed has its effects, what
// compensated has none, and no step begins twice under one name.
func TestPlaysOfRandomPlansLeaveNothingBehind(t *testing.T) {
	ends := map[events.State]int{}
	for seed := range uint64(3000) {
		p, err := plans.New(seed, plans.Options{}).Plan()
		if err != nil {
			t.Fatal(err)
		}
		d := &dice{rand.New(rand.NewPCG(seed, 3)), map[string]bool{}, map[string]int{}}
		o, err := Play(p, "o", fmt.Appendf(nil, `{"id":"o","draw":%d}`, d.Uint32()), d)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		ends[o.State]++
		for label, e := range o.Effects {
			if e == Stands != d.left[label] && e != Either {
				t.Errorf("seed %d: it is %s, and of step %s there should be %s", seed, o.State, label, e)
			}
		}
		for label, n := range d.began {
			if n > 1 {
				t.Errorf("seed %d: step %s began %d times", seed, label, n)
			}
		}
	}
	t.Logf("ends: %v", ends)
	for _, s := range []events.State{events.Completed, events.Compensated, events.Parked} {
		if ends[s] < 30 {
			t.Errorf("only %d plays end %s", ends[s], s)
		}
	}
}
