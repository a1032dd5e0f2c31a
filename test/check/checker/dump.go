package checker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/skald-io/skald/events"
)

// dumped is a line of written evidence: a partition's bounds, then its records; a ledger's effects.
type dumped struct {
	App     string          `json:"app,omitempty"`
	Part    *Part           `json:"part,omitempty"`
	First   int64           `json:"first,omitempty"`
	End     int64           `json:"end,omitempty"`
	Settled int64           `json:"settled,omitempty"` // of a journal partition; 0: all of it
	Message *events.Message `json:"message,omitempty"`
	Ledger  []Effect        `json:"ledger,omitempty"`
}

// Write prints the evidence as lines of JSON, so that a run can be judged again when its cluster is gone.
func (e *Evidence) Write(w io.Writer) error {
	out := json.NewEncoder(w)
	err := out.Encode(dumped{App: e.App})
	parts := slices.SortedFunc(keys(e.Logs), func(a, b Part) int {
		if a.Topic != b.Topic {
			return slices.Compare([]string{a.Topic}, []string{b.Topic})
		}
		return int(a.Partition - b.Partition)
	})
	for _, p := range parts {
		l := e.Logs[p]
		d := dumped{Part: &p, First: l.First, End: l.End}
		if p.Topic == (events.Topics{App: e.App}).Journal() {
			d.Settled = e.Settled[p.Partition]
		}
		if err == nil {
			err = out.Encode(d)
		}
		for i := range l.Records {
			if err == nil {
				err = out.Encode(dumped{Message: &l.Records[i]})
			}
		}
	}
	for _, ledger := range e.Ledgers {
		if err == nil && len(ledger) > 0 {
			err = out.Encode(dumped{Ledger: ledger})
		}
	}
	if err != nil {
		return fmt.Errorf("evidence of %s: %w", e.App, err)
	}
	return nil
}

// ReadEvidence reads what Write printed.
func ReadEvidence(r io.Reader) (*Evidence, error) {
	in := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	e := NewEvidence("")
	var l *Log
	for n := 1; ; n++ {
		var d dumped
		err := in.Decode(&d)
		switch {
		case err == io.EOF:
			return e, nil
		case err != nil:
			return nil, fmt.Errorf("evidence, line %d: %w", n, err)
		case d.App != "":
			e.App = d.App
		case d.Part != nil:
			l = e.Log(d.Part.Topic, d.Part.Partition)
			l.First, l.End = d.First, d.End
			if d.Settled != 0 {
				e.Settled[d.Part.Partition] = d.Settled
			}
		case d.Message != nil && l != nil:
			l.Records = append(l.Records, *d.Message)
		case d.Ledger != nil:
			e.Ledgers = append(e.Ledgers, d.Ledger)
		}
	}
}
