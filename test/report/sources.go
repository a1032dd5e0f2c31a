package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// source is a test program, and how to read what it prints.
type source struct {
	name string
	args []string // of go run
	read func(raw []byte) (finding, error)
}

// finding is what the page says of a source.
type finding struct {
	what, much, came string
	repeat           string
	faults           map[string]int // that landed
	wrong            string         // what it found; "": nothing
}

var sources = []source{
	{"spec", []string{"./test/spec", "-json"}, readSpec},
	{"sim", []string{"./test/sim", "-seeds", "5000", "-steps", "250", "-json"}, readSim},
	{"mutants", []string{"./test/mutants", "-json"}, readMutants("Planted breaks", "each by the test that is said to")},
	{"simulation", []string{"./test/mutants", "-tier", "simulation", "-json"}, readMutants("Planted breaks, by simulation", "with every other test off")},
	{"oracle", []string{"./test/mutants", "-tier", "oracle", "-json"}, readMutants("Planted breaks, by the oracle", "with every other test off")},
	{"chaos", []string{"./test/chaos", "-duration", "60s", "-json"}, readChaos("one broker")},
	{"brokers", []string{"./test/chaos", "-brokers", "3", "-rate", "20", "-duration", "0", "-strikes", "broker,random,controller,pause", "-rounds", "3", "-json"}, readChaos("three brokers, min ISR 2")},
	{"pauses", []string{"./test/chaos", "-duration", "0", "-strikes", "random,pause", "-rounds", "100", "-json"}, readChaos("a hundred kills and a hundred pauses")},
}

func init() {
	for i := range sources {
		s := &sources[i]
		read := s.read
		s.read = func(raw []byte) (finding, error) {
			f, err := read(raw)
			f.repeat = s.command()
			return f, err
		}
	}
}

// each decodes one JSON object after the other; there has to be one.
func each[T any](raw []byte) (all []T, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	for {
		var v T
		if err := d.Decode(&v); err == io.EOF {
			if len(all) == 0 {
				return nil, errors.New("it is empty")
			}
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
}

func one[T any](raw []byte) (v T, err error) {
	all, err := each[T](raw)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("it has %d objects, want one", len(all))
	}
	if err != nil {
		return v, err
	}
	return all[0], nil
}

func readSpec(raw []byte) (f finding, err error) {
	models, err := each[struct {
		Model, Expected string
		OK              bool
		States          int
	}](raw)
	if err != nil {
		return f, err
	}
	states, refuted := 0, 0
	for _, m := range models {
		states += m.States
		if m.Expected != "Holds" {
			refuted++
		}
		if !m.OK {
			f.wrong = m.Model + " is not as it says"
		}
	}
	f.what = "Specification of the log, with TLC"
	f.much = fmt.Sprintf("%d models, %s states", len(models), thousands(states))
	f.came = fmt.Sprintf("%d hold; %d variants without a rule are refuted, or reach what they are to reach", len(models)-refuted, refuted)
	return f, nil
}

func readSim(raw []byte) (f finding, err error) {
	r, err := one[struct {
		Seeds, Steps int
		Faults       map[string]int
		Never        []string
		Violations   []struct{ What string }
		Hash         string
		StepsPerS    float64 `json:"steps_per_s"`
	}](raw)
	if err != nil {
		return f, err
	}
	switch {
	case len(r.Violations) > 0:
		f.wrong = r.Violations[0].What
	case len(r.Never) > 0:
		f.wrong = fmt.Sprintf("these faults never landed: %v", r.Never)
	}
	f.what = "Simulation"
	f.much = fmt.Sprintf("%s seeds, %s steps, %s a second", thousands(r.Seeds), thousands(r.Steps), thousands(int(r.StepsPerS)))
	f.came = fmt.Sprintf("0 violations; hash of all traces `%s`", r.Hash)
	f.faults = r.Faults
	return f, nil
}

func readMutants(what, how string) func([]byte) (finding, error) {
	return func(raw []byte) (f finding, err error) {
		all, err := each[struct {
			Name   string
			Caught bool
		}](raw)
		if err != nil {
			return f, err
		}
		for _, m := range all {
			if !m.Caught {
				f.wrong = m.Name + " is not caught"
			}
		}
		f.what = what
		f.much = fmt.Sprintf("%d", len(all))
		f.came = fmt.Sprintf("%d of %d caught, %s", len(all), len(all), how)
		return f, nil
	}
}

func readChaos(on string) func([]byte) (finding, error) {
	return func(raw []byte) (f finding, err error) {
		r, err := one[struct {
			Orders       int
			Kills        map[string]int
			Troubles     map[string]int
			Participants int `json:"participants_killed"`
			Violations   int
			Decisions    int
			Again        int     `json:"decided_again_alike"`
			P50          int     `json:"take_over_p50_ms"`
			Max          int     `json:"take_over_max_ms"`
			ElapsedS     float64 `json:"elapsed_s"`
		}](raw)
		if err != nil {
			return f, err
		}
		if r.Violations > 0 {
			f.wrong = fmt.Sprintf("%d violations", r.Violations)
		}
		f.what = "Real processes on real Kafka, " + on
		f.much = fmt.Sprintf("%s sagas in %.0f s", thousands(r.Orders), r.ElapsedS)
		f.came = fmt.Sprintf("0 violations; %s of %s decisions made again alike, the others were quarantined; shards taken over in %d ms (median), %d at most", thousands(r.Again), thousands(r.Decisions), r.P50, r.Max)
		f.faults = map[string]int{}
		for name, n := range r.Kills {
			f.faults["node killed, "+name] = n
		}
		for name, n := range r.Troubles {
			f.faults[name] = n
		}
		if r.Participants > 0 {
			f.faults["participant killed"] = r.Participants
		}
		return f, nil
	}
}

// thousands prints a number in groups of three digits.
func thousands(n int) string {
	digits := fmt.Sprint(n)
	var groups []string
	for len(digits) > 3 {
		groups = append(groups, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}
	groups = append(groups, digits)
	slices.Reverse(groups)
	out := groups[0]
	for _, g := range groups[1:] {
		out += "," + g
	}
	return out
}
