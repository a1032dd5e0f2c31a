package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/orchestrator/journal"
)

// rows is the dumbest store: a map.
type rows map[string]string

func (r rows) Set(key []byte, due, _ int64, value []byte, _ uint64) {
	r[string(key)] = fmt.Sprintf("%d:%x", due, value)
}

func (r rows) Delete(key []byte, _ int64, _ uint64) { delete(r, string(key)) }

func (r rows) DeleteRange(from, to []byte) {
	for k := range r {
		if k >= string(from) && k < string(to) {
			delete(r, k)
		}
	}
}

// writer is an owner as the rules want it: it continues the chain it read.
type writer struct {
	nonce events.Nonce
	st    *journal.State
}

func claim(name byte, term uint64) []byte {
	r := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{name}, Term: term, Claim: &events.Claim{Node: string(name), Shards: 1}}
	return r.Encode(nil)
}

// after makes a writer that read all of log, its own claim last.
func after(t *testing.T, name byte, log [][]byte) *writer {
	t.Helper()
	st, _, _ := fold(t, log, 0)
	return &writer{events.Nonce{name}, st}
}

func (w *writer) decide(key string) []byte {
	id := events.InstanceID{15: key[0]}
	r := events.Record{Kind: events.KindDecision, Nonce: w.nonce, Seq: w.st.Seq + 1, Prev: w.st.Hash, Decision: &events.Decision{
		Outcome: events.Applied, Instance: id, Rows: []events.RowChange{{Ref: events.RowRef{Part: events.PartHead}, Value: []byte(key)}}}}
	v := r.Encode(nil)
	w.st.Apply(&r, nil, events.HashOf(v), rows{})
	return v
}

func fold(t *testing.T, log [][]byte, first int64) (*journal.State, rows, []journal.Verdict) {
	t.Helper()
	st, out := journal.NewState(), rows{}
	var folder journal.Folder // it has to agree on every record
	again, outAgain := journal.NewState(), rows{}
	var verdicts []journal.Verdict
	for i, v := range log {
		verdict, _, err := st.Fold(first+int64(i), i == 0, v, out)
		if err != nil {
			t.Fatalf("offset %d: %v", first+int64(i), err)
		}
		verdicts = append(verdicts, verdict)
		if got, _, err := folder.Fold(again, first+int64(i), i == 0, v, outAgain); err != nil || got != verdict {
			t.Fatalf("offset %d: a folder says %v (%v), not %v", first+int64(i), got, err, verdict)
		}
	}
	if !bytes.Equal(st.Encode(), again.Encode()) || !reflect.DeepEqual(out, outAgain) {
		t.Fatal("a folder ends in another state, or in other rows")
	}
	return st, out, verdicts
}

func wantVerdicts(t *testing.T, log [][]byte, want ...journal.Verdict) {
	t.Helper()
	if _, _, got := fold(t, log, 0); !slices.Equal(got, want) {
		t.Errorf("verdicts are %v, want %v", got, want)
	}
}

const (
	ok      = journal.Accepted
	dup     = journal.Duplicate
	foreign = journal.Foreign
	gap     = journal.Gap
	ended   = journal.Ended
)

// L1: a claim acknowledged at an offset is truncated by an unclean election, and another node's claim lands
// there. Both owners believe in that offset; only one nonce stands in the log.
func TestTwoClaimsAtOneOffsetAreTwoEpochs(t *testing.T) {
	truncated := [][]byte{claim('a', 1)}
	a := after(t, 'a', truncated)
	log := [][]byte{claim('b', 1)}
	b := after(t, 'b', log)
	log = append(log, a.decide("x"), b.decide("y"))
	wantVerdicts(t, log, ok, foreign, ok)
}

// L1: a paused owner wakes after another node's claim: nothing it appends counts.
func TestAWokenOwnerChangesNothing(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	log = append(log, a.decide("x"), claim('b', 2))
	b := after(t, 'b', log)
	log = append(log, a.decide("z"), b.decide("y"), a.decide("z"))
	wantVerdicts(t, log, ok, ok, ok, foreign, ok, foreign)
}

// L2: records 6 to 8 time out and the owner decides 6' and 7' anew; the originals arrive late. The hash
// chain keeps 8, of a future that was thrown away, from counting.
func TestALateRecordOfAThrownAwayFutureIsRefused(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	twin := after(t, 'a', log)
	late := [][]byte{a.decide("6"), a.decide("7"), a.decide("8")}
	log = append(log, twin.decide("6'"), twin.decide("7'"))
	log = append(log, late...)
	wantVerdicts(t, log, ok, ok, ok, dup, dup, gap)
}

// L2: a gap ends the epoch until the next claim; the same bytes again do not mend it.
func TestAGapEndsTheEpoch(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	one, two := a.decide("1"), a.decide("2")
	log = append(log, two, one, two, claim('b', 2))
	b := after(t, 'b', log)
	log = append(log, b.decide("1"))
	wantVerdicts(t, log, ok, gap, ended, ended, ok, ok)
}

// L2: a claim that arrives twice, from a retried batch, changes nothing while it is the current one, and
// costs only liveness when it is not: its owner's chain does not fit.
func TestAClaimThatArrivesTwiceIsHarmless(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	log = append(log, a.decide("1"), claim('a', 1), a.decide("2"), claim('b', 2))
	b := after(t, 'b', log)
	log = append(log, b.decide("3"), claim('a', 1), a.decide("3"), b.decide("4"))
	wantVerdicts(t, log, ok, ok, ok, ok, ok, ok, ok, dup, foreign)
}

// The sequence never restarts: a new owner continues the number and the hash it read.
func TestANewOwnerContinuesTheChain(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	log = append(log, a.decide("1"), a.decide("2"), claim('b', 2))
	b := after(t, 'b', log)
	log = append(log, b.decide("3"))
	if st, _, _ := fold(t, log, 0); st.Seq != 3 || st.Term != 2 {
		t.Errorf("sequence %d and term %d, want 3 and 2", st.Seq, st.Term)
	}
}

// L8, L13: what cannot be read stops the reader, and says who wrote it.
func TestANewerFormatIsRefusedWithTheBuildThatWroteIt(t *testing.T) {
	r := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{1}, Term: 1, Claim: &events.Claim{Node: "n", Build: "v9.1.0"}}
	st := journal.NewState()
	if _, _, err := st.Fold(0, true, r.Encode(nil), rows{}); err != nil {
		t.Fatal(err)
	}
	_, _, err := st.Fold(1, false, []byte{events.Format + 1, 8, 2}, rows{})
	if !errors.Is(err, events.ErrNewerFormat) || !bytes.Contains([]byte(err.Error()), []byte("v9.1.0")) {
		t.Errorf("error %v does not name the build", err)
	}
	newer := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{2}, Term: 2, Claim: &events.Claim{Node: "m", Build: "v10.0.0"}}
	value := newer.Encode(nil)
	value[0] = events.Format + 1
	_, _, err = st.Fold(1, false, value, rows{})
	if !errors.Is(err, events.ErrNewerFormat) || !bytes.Contains([]byte(err.Error()), []byte("v10.0.0")) {
		t.Errorf("error %v does not name the build of the newer claim", err)
	}
}

func TestAJournalWithoutItsHeadIsRefused(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	log = append(log, a.decide("1"), a.decide("2"))
	st := journal.NewState()
	if _, _, err := st.Fold(2, true, log[2], rows{}); !errors.Is(err, journal.ErrTrimmed) {
		t.Errorf("error is %v, want ErrTrimmed", err)
	}
}

// L1: a journal that was trimmed to a checkpoint is copied to a topic of its own, where offsets begin at 0. Who took it for
// one that has only begun would ignore all of it, and begin anew.
func TestATrimmedJournalMayBeCopiedToWhereOffsetsBeginAtZero(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	log = append(log, a.decide("1"))
	c := events.Record{Kind: events.KindCheckpoint, Nonce: a.nonce, Seq: a.st.Seq + 1, Prev: a.st.Hash, Term: a.st.Term, Checkpoint: a.st.NewCheckpoint()}
	value := c.Encode(nil)
	a.st.Apply(&c, nil, events.HashOf(value), rows{})
	log = append(log, value, a.decide("2"))
	for _, first := range []int64{0, 2, 100} {
		st, _, verdicts := fold(t, log[2:], first)
		if want := []journal.Verdict{journal.Accepted, journal.Accepted}; !slices.Equal(verdicts, want) || st.Seq != a.st.Seq || st.Hash != a.st.Hash {
			t.Errorf("from offset %d on, verdicts are %v and sequence %d, want %v and %d", first, verdicts, st.Seq, want, a.st.Seq)
		}
	}
}

// The topic was created anew, and what its owner had under way landed in it: it is no beginning.
func TestAJournalThatBeginsWithADecisionIsRefused(t *testing.T) {
	st := journal.NewState()
	if _, _, err := st.Fold(0, true, after(t, 'a', [][]byte{claim('a', 1)}).decide("1"), rows{}); !errors.Is(err, journal.ErrTrimmed) {
		t.Errorf("error is %v, want ErrTrimmed", err)
	}
}

// L6, L7: a mark remembers exactly what is finished, whatever the order.
func TestAMarkAgreesWithASet(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var m journal.Mark
		set := map[int64]bool{}
		var low int64
		for range 200 {
			if rng.IntN(10) == 0 {
				low = max(low, rng.Int64N(60))
				m.Raise(low)
			} else {
				o := rng.Int64N(60)
				m.Add(o)
				set[o] = true
			}
			for o := range int64(60) {
				if want := o < low || set[o]; m.Has(o) != want {
					t.Fatalf("seed %d: offset %d finished: %v, want %v (%+v)", seed, o, !want, want, m)
				}
			}
			at := m.Low - 1
			for _, s := range m.Ahead {
				if s.From <= at || s.To <= s.From {
					t.Fatalf("seed %d: spans out of order or touching: %+v", seed, m)
				}
				at = s.To
			}
		}
	}
}

// L6: what several records answer is finished with the last of them.
func TestAnInputThatSeveralRecordsAnswerIsFinishedWithTheLast(t *testing.T) {
	st := journal.NewState()
	decide := func(more bool) {
		st.Apply(&events.Record{Kind: events.KindDecision, Seq: st.Seq + 1, Decision: &events.Decision{Outcome: events.Applied, Instance: events.InstanceID{15: 1},
			Input: events.Input{Kind: events.InputEvent, Topic: "t", Offset: 7, Low: 7, More: more, Origin: &events.Origin{Topic: "o", Offset: 9, Low: 9}}}}, nil, events.Hash{}, rows{})
	}
	finished := func() (position, origin bool) {
		return st.Position(journal.TP{Topic: "t"}).Has(7), st.Origin(journal.TP{Topic: "o"}).Has(9)
	}
	decide(true)
	if position, origin := finished(); position || origin {
		t.Errorf("after the first of two records: position %v, origin %v", position, origin)
	}
	decide(false)
	if position, origin := finished(); !position || !origin {
		t.Errorf("after the last record: position %v, origin %v", position, origin)
	}
}

// L6, L7: a record raises the low marks that it names, of its input's partition and of its origin's.
func TestARecordRaisesTheLowMarksThatItNames(t *testing.T) {
	st := journal.NewState()
	st.Apply(&events.Record{Kind: events.KindDecision, Seq: 1, Decision: &events.Decision{Outcome: events.Ignored, Input: events.Input{
		Kind: events.InputReply, Topic: "t", Partition: 3, Offset: 7, Low: 5, Origin: &events.Origin{Topic: "o", Partition: 4, Offset: 9, Low: 8}}}}, nil, events.Hash{}, rows{})
	position, origin := st.Position(journal.TP{Topic: "t", Partition: 3}), st.Origin(journal.TP{Topic: "o", Partition: 4})
	if position.Low != 5 || !position.Has(7) || position.Has(6) {
		t.Errorf("the position is %+v, want all below 5, and 7", position)
	}
	if origin.Low != 8 || !origin.Has(9) || origin.Has(8) {
		t.Errorf("the origin is %+v, want all below 8, and 9", origin)
	}
}

func progress(st *journal.State, p events.Progress) {
	st.Apply(&events.Record{Kind: events.KindDecision, Seq: st.Seq + 1, Decision: &events.Decision{Outcome: events.Progressed, Progress: &p}}, nil, events.Hash{}, rows{})
}

// L8: a progress record gives inputs their start positions, and moves them where nothing is decided. They never fall.
func TestProgressMovesPositionsForwardOnly(t *testing.T) {
	st, tp, id := journal.NewState(), journal.TP{Topic: "t", Partition: 1}, [16]byte{7}
	progress(st, events.Progress{Positions: []events.Position{{Topic: "t", Partition: 1, TopicID: id, Low: 40}}})
	progress(st, events.Progress{Positions: []events.Position{{Topic: "t", Partition: 1, Low: 30}}})
	if m := st.Position(tp); m.Low != 40 || m.TopicID != id {
		t.Errorf("the position is %+v, want 40 of topic %x", m, id)
	}
}

// L14: what is emitted is known per topic, and in common once a record says so of all.
func TestProgressOfEmissionIsKnownPerTopicAndNeverFalls(t *testing.T) {
	st := journal.NewState()
	on := func(topic string, seq uint64, want bool) {
		t.Helper()
		if got := st.EmittedOn(topic, seq); got != want {
			t.Errorf("record %d emitted on %s: %v, want %v (%d, %v)", seq, topic, got, want, st.EmittedSeq, st.Emitted)
		}
	}
	progress(st, events.Progress{EmittedSeq: 5, Emitted: []events.TopicProgress{{Topic: "a", Seq: 9}}})
	on("a", 9, true)
	on("a", 10, false)
	on("b", 5, true)
	on("b", 6, false)
	progress(st, events.Progress{EmittedSeq: 4, Emitted: []events.TopicProgress{{Topic: "a", Seq: 8}, {Topic: "b", Seq: 7}}})
	on("a", 9, true)
	on("b", 7, true)
	on("c", 5, true)
	on("c", 6, false)
	progress(st, events.Progress{EmittedSeq: 7})
	if !maps.Equal(st.Emitted, map[string]uint64{"a": 9}) {
		t.Errorf("topics that are further are %v, want a alone, up to 9", st.Emitted)
	}
}

func TestAReaderKnowsItsPlaceAndWhatTheJournalHasGrownBy(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	one, two := a.decide("1"), a.decide("2")
	put := func(r events.Record) []byte {
		r.Nonce, r.Seq, r.Prev, r.Term = a.nonce, a.st.Seq+1, a.st.Hash, 1
		v := r.Encode(nil)
		a.st.Apply(&r, nil, events.HashOf(v), rows{})
		return v
	}
	check := func(next, at int64, checkpoint uint64, bytes int) {
		t.Helper()
		st, _, _ := fold(t, log, 100)
		if st.Next != next || st.At != at || st.Checkpoint != checkpoint || st.Bytes != int64(bytes) {
			t.Errorf("after %d records: next %d, at %d, checkpoint %d, %d bytes; want %d, %d, %d, %d", len(log), st.Next, st.At, st.Checkpoint, st.Bytes, next, at, checkpoint, bytes)
		}
	}
	check(101, 0, 0, 0)
	log = append(log, one, two)
	check(103, 102, 0, len(one)+len(two))
	log = append(log, one) // a duplicate
	check(104, 102, 0, len(one)+len(two))
	log = append(log, put(events.Record{Kind: events.KindCheckpoint, Checkpoint: a.st.NewCheckpoint()}))
	check(105, 104, 3, 0)
	log = append(log, put(events.Record{Kind: events.KindCarry, Carry: &events.Carry{Rows: []events.CarriedRow{{Key: events.RowKey(events.InstanceID{1}, events.RowRef{Part: events.PartHead}), Value: []byte("x")}}}}))
	check(106, 105, 3, 0)
	three := a.decide("3")
	log = append(log, three)
	check(107, 106, 3, len(three))
}

func TestAnOwnerIsWhoMadeTheLastClaimAndWhoseChainIsWhole(t *testing.T) {
	if journal.NewState().Own(events.Nonce{}) {
		t.Error("before any claim, somebody without a nonce owns the shard")
	}
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	one, two := a.decide("1"), a.decide("2")
	own := func(want bool, why string) {
		t.Helper()
		if st, _, _ := fold(t, log, 0); st.Own(a.nonce) != want || st.Own(events.Nonce{'x'}) {
			t.Errorf("%s: its own is %v, somebody else's %v", why, st.Own(a.nonce), st.Own(events.Nonce{'x'}))
		}
	}
	log = append(log, one)
	own(true, "after its claim")
	log = append(log, two, one)
	own(true, "after a duplicate")
	log = append(log, claim('b', 2))
	own(false, "after another claim")
	log = append([][]byte{claim('a', 1)}, two)
	own(false, "after a gap")
}

func TestEntriesOfADecisionAreRowsOfHistoryFromItsFirstOn(t *testing.T) {
	st, got, id := journal.NewState(), rows{}, events.InstanceID{15: 1}
	entries := []events.Entry{{Kind: events.EntryStarted, Message: "m", Time: 5}, {Kind: events.EntryStarted, Message: "n", Time: 6}}
	st.Apply(&events.Record{Kind: events.KindDecision, Seq: 1, Decision: &events.Decision{Instance: id, FirstRow: 3, Entries: entries}}, nil, events.Hash{}, got)
	want := rows{}
	for i := range entries {
		want[string(events.RowKey(id, events.RowRef{Part: events.PartHistory, N: 3 + uint64(i)}))] = fmt.Sprintf("0:%x", entries[i].Encode(nil))
	}
	if !maps.Equal(got, want) {
		t.Errorf("rows are %v, want %v", got, want)
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	for v, want := range map[journal.Verdict]string{ok: "accepted", ended: "ended", 0: "verdict-0", 6: "verdict-6"} {
		if got := v.String(); got != want {
			t.Errorf("verdict %d is called %q, want %q", uint8(v), got, want)
		}
	}
}

func TestAStateThatIsCutShortIsRefused(t *testing.T) {
	st := journal.NewState()
	st.Broken = true
	whole := st.Encode()
	if got, err := journal.DecodeState(whole); err != nil || !got.Broken {
		t.Errorf("a broken chain is encoded as %+v (%v)", got, err)
	}
	for n := range whole {
		if _, err := journal.DecodeState(whole[:n]); !errors.Is(err, events.ErrMalformed) {
			t.Errorf("the first %d bytes of a state: %v", n, err)
		}
	}
	if _, err := journal.DecodeState(nil); err == nil || !strings.HasSuffix(err.Error(), "cut short") {
		t.Errorf("no bytes: %v", err)
	}
}

func TestRowsOfOtherEntitiesAndRowsThatGoFoldAsTheRecordSays(t *testing.T) {
	a, b := events.InstanceID{15: 1}, events.InstanceID{15: 2}
	node := func(n uint64) events.RowRef { return events.RowRef{Part: events.PartNode, N: n} }
	st, got := journal.NewState(), rows{}
	for _, d := range []events.Decision{
		{Instance: a, Rows: []events.RowChange{{Ref: node(1), Value: []byte("1")}, {Ref: node(2), Due: 5, Value: []byte("2")}, {Of: b, Ref: node(1), Value: []byte("3")}}},
		{Instance: a, Rows: []events.RowChange{{Ref: node(2), Gone: true, WasDue: 5}, {Ref: node(9), Gone: true}}},
		// A purge takes the rows of its own instance, before rows are set, and no others.
		{Instance: a, Purge: true, Rows: []events.RowChange{{Of: b, Ref: node(2), Value: []byte("4")}}},
		{Instance: a, Rows: []events.RowChange{{Of: b, Ref: node(1), Gone: true}}},
	} {
		st.Apply(&events.Record{Kind: events.KindDecision, Seq: st.Seq + 1, Decision: &d}, nil, events.Hash{}, got)
	}
	want := rows{string(events.RowKey(b, node(2))): "0:34"}
	if !maps.Equal(got, want) {
		t.Errorf("rows are %v, want %v", got, want)
	}
}

// An owner applies a record twice, with one image; a reader makes its own.
func TestARecordChangesTheSameWithItsImageAndWithout(t *testing.T) {
	id, other := events.InstanceID{15: 1}, events.InstanceID{15: 2}
	d := &events.Decision{Outcome: events.Applied, Instance: id, FirstRow: 250, Purge: true}
	for i := range 20 {
		e := events.Entry{Kind: events.EntryCommand, Time: 1 << 40, Step: strings.Repeat("s", i*i), Who: strings.Repeat("w", i), Unknown: []byte{0xa0, 6, byte(i)}}
		d.Entries = append(d.Entries, e, events.Entry{})
		d.Rows = append(d.Rows, events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: uint64(i)}, Due: int64(i), Value: []byte{byte(i)}},
			events.RowChange{Of: other, Ref: events.RowRef{Part: events.PartNode, N: uint64(i % 7)}, Gone: i%3 == 0, Value: []byte("x")})
	}
	for _, d := range []*events.Decision{d, {Outcome: events.Ignored}, {Instance: id, Entries: d.Entries}, {Instance: id, Rows: d.Rows}} {
		rec := &events.Record{Kind: events.KindDecision, Seq: 1, Decision: d}
		prefix := []byte("what stands before it")
		image := journal.AppendImage(prefix, d)[len(prefix):]
		if len(image) > journal.ImageSize(d) {
			t.Errorf("an image of %d bytes was announced as one of %d", len(image), journal.ImageSize(d))
		}
		var got [3]rows
		for i, image := range []journal.Image{nil, image, image} {
			got[i] = rows{string(events.RowKey(id, events.RowRef{Part: events.PartQueue})): "purged"}
			journal.NewState().Apply(rec, image, events.Hash{}, got[i])
		}
		if !maps.Equal(got[0], got[1]) || !maps.Equal(got[1], got[2]) {
			t.Errorf("%v without its image, %v and %v with it", got[0], got[1], got[2])
		}
		for i := range d.Entries {
			row := got[0][string(events.RowKey(id, events.RowRef{Part: events.PartHistory, N: d.FirstRow + uint64(i)}))]
			if want := fmt.Sprintf("0:%x", d.Entries[i].Encode(nil)); row != want {
				t.Errorf("entry %d stands as %q, not %q", i, row, want)
			}
		}
	}
}

func TestAStateSurvivesItsEncoding(t *testing.T) {
	log, _ := randomLog(3)
	st, _, _ := fold(t, log, 7)
	st.TopicID = [16]byte{1, 2, 3}
	st.EmitFrom = 12
	got, err := journal.DecodeState(st.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, st) {
		t.Errorf("decoded\n%+v\nwant\n%+v", got, st)
	}
}

// randomLog plays three owners on one log: claims at any moment, batches lost, late, twice and out of
// order, acks lost, and compaction rounds that finish or are abandoned. It gives the log and the index of
// each checkpoint whose round was finished by its owner.
func randomLog(seed uint64) (log [][]byte, trims []int) {
	rng := rand.New(rand.NewPCG(seed, 7))
	type owner struct {
		*writer
		base  map[string]uint64 // rows as the owner sees them: the sequence of the last image
		value map[string][]byte
		round uint64
		at    int
		queue []string
	}
	var owners [3]*owner
	var late [][]byte
	term, current := uint64(0), 0
	// What every reader knows, kept up as the log grows.
	known, rowsKnown := journal.NewState(), ownerRows{map[string]uint64{}, map[string][]byte{}}
	put := func(v []byte) {
		if _, _, err := known.Fold(int64(len(log)), len(log) == 0, v, rowsKnown); err != nil {
			panic(err)
		}
		log = append(log, v)
	}
	open := func(nonce events.Nonce) *owner {
		return &owner{writer: &writer{nonce, known.Clone()}, base: maps.Clone(rowsKnown.base), value: maps.Clone(rowsKnown.value)}
	}
	for range 300 {
		if rng.IntN(12) == 0 {
			current = rng.IntN(3)
		}
		i := current
		o := owners[i]
		if o == nil || rng.IntN(40) == 0 {
			term++
			r := events.Record{Kind: events.KindClaim, Nonce: events.Nonce{byte('a' + i), byte(term), byte(term >> 8)}, Term: term, Claim: &events.Claim{Node: "n"}}
			put(r.Encode(nil))
			owners[i] = open(r.Nonce)
			continue
		}
		view := ownerRows{o.base, o.value}
		var r events.Record
		finished := false
		switch {
		case o.round == 0 && rng.IntN(8) == 0:
			r = events.Record{Kind: events.KindCheckpoint, Term: o.st.Term, Checkpoint: o.st.NewCheckpoint()}
			o.round, o.at = o.st.Seq+1, len(log)
			o.queue = nil
			for k := range o.base {
				o.queue = append(o.queue, k)
			}
			slices.Sort(o.queue)
		case o.round != 0 && rng.IntN(2) == 0:
			c := &events.Carry{}
			for len(o.queue) > 0 && len(c.Rows) < 2 {
				k := o.queue[0]
				o.queue = o.queue[1:]
				if base, live := o.base[k]; live && base < o.round {
					c.Rows = append(c.Rows, events.CarriedRow{Key: []byte(k), Value: o.value[k]})
				}
			}
			if len(o.queue) == 0 {
				c.End, finished = o.round, true
			}
			r = events.Record{Kind: events.KindCarry, Carry: c}
		default:
			id := events.InstanceID{15: byte(rng.IntN(6))}
			d := &events.Decision{Outcome: events.Applied, Instance: id, Input: events.Input{Kind: events.InputEvent, Topic: "t", Partition: int32(rng.IntN(2)), Offset: rng.Int64N(100), Low: rng.Int64N(50), More: rng.IntN(4) == 0,
				Origin: &events.Origin{Topic: "o", Offset: rng.Int64N(100), Low: rng.Int64N(50)}}}
			if rng.IntN(6) == 0 {
				d.Purge = true
			} else {
				d.Rows = []events.RowChange{{Ref: events.RowRef{Part: events.PartNode, N: rng.Uint64N(4)}, Value: []byte{byte(rng.IntN(250))}}}
			}
			if rng.IntN(4) == 0 { // a row of another entity, set or removed; also after the purge of the instance
				r := events.RowChange{Of: events.InstanceID{15: byte(rng.IntN(6))}, Ref: events.RowRef{Part: events.PartKey, N: rng.Uint64N(2)}, Gone: rng.IntN(2) == 0}
				if !r.Gone {
					r.Value = []byte{byte(rng.IntN(250))}
				}
				d.Rows = append(d.Rows, r)
			}
			if rng.IntN(4) == 0 {
				d.Rows = append(d.Rows, events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: rng.Uint64N(4)}, Gone: true})
			}
			if rng.IntN(5) == 0 {
				d.Progress = &events.Progress{EmittedSeq: o.st.Seq / 2, Emitted: []events.TopicProgress{{Topic: "c", Seq: o.st.Seq}}}
			}
			r = events.Record{Kind: events.KindDecision, Decision: d}
		}
		r.Nonce, r.Seq, r.Prev = o.nonce, o.st.Seq+1, o.st.Hash
		v := r.Encode(nil)
		o.st.Apply(&r, nil, events.HashOf(v), view)
		fate := rng.IntN(20)
		if fate == 0 {
			late = append(late, v) // lost for now; the owner believes in it until it reads its acks
			owners[i] = nil
			continue
		}
		put(v)
		if fate == 1 {
			put(v)
		}
		if fate == 2 && len(late) > 0 {
			put(late[rng.IntN(len(late))])
		}
		// The owner learns by its ack whether everybody accepts the record.
		if known.Hash != o.st.Hash {
			owners[i] = nil
			continue
		}
		if finished {
			trims = append(trims, o.at)
			o.round = 0
		}
	}
	return log, trims
}

type ownerRows struct {
	base  map[string]uint64
	value map[string][]byte
}

func (r ownerRows) Set(key []byte, _, _ int64, value []byte, base uint64) {
	r.base[string(key)], r.value[string(key)] = base, bytes.Clone(value)
}

func (r ownerRows) Delete(key []byte, _ int64, _ uint64) {
	delete(r.base, string(key))
	delete(r.value, string(key))
}

func (r ownerRows) DeleteRange(from, to []byte) {
	for k := range r.base {
		if k >= string(from) && k < string(to) {
			delete(r.base, k)
			delete(r.value, k)
		}
	}
}

// LOG §1: a compacted journal folds to the same rows and the same state as the whole one; so does a copy
// at other offsets.
func TestACompactedJournalFoldsLikeTheWholeOne(t *testing.T) {
	trimmed := 0
	for seed := range uint64(600) {
		log, trims := randomLog(seed)
		whole, want, _ := fold(t, log, 0)
		for _, at := range trims {
			trimmed++
			part, got, _ := fold(t, log[at:], int64(at))
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, trimmed to %d: rows differ\n%v\n%v", seed, at, got, want)
			}
			if a, b := part.NewCheckpoint(), whole.NewCheckpoint(); !reflect.DeepEqual(a, b) || part.Hash != whole.Hash || part.Seq != whole.Seq {
				t.Fatalf("seed %d, trimmed to %d: state differs\n%+v\n%+v", seed, at, a, b)
			}
		}
		shifted, got, _ := fold(t, log, 4711)
		if !reflect.DeepEqual(got, want) || shifted.Hash != whole.Hash {
			t.Fatalf("seed %d: a copy at other offsets differs", seed)
		}
	}
	if trimmed < 300 {
		t.Errorf("only %d trims happened: the model does not exercise compaction", trimmed)
	}
}

// L1: two nodes that read the same journal claim with the same term; the last claim in the log wins.
func TestTheLastClaimWins(t *testing.T) {
	log := [][]byte{claim('a', 1), claim('b', 1)}
	a, b := after(t, 'a', log[:1]), after(t, 'b', log)
	log = append(log, a.decide("x"), b.decide("y"))
	wantVerdicts(t, log, ok, ok, foreign, ok)
}

// L2: a record that carries the right hash and the wrong number does not count either.
func TestASequenceThatJumpsIsAGap(t *testing.T) {
	log := [][]byte{claim('a', 1)}
	a := after(t, 'a', log)
	a.st.Seq++
	log = append(log, a.decide("x"))
	wantVerdicts(t, log, ok, gap)
}

type noRows struct{}

func (noRows) Set([]byte, int64, int64, []byte, uint64) {}
func (noRows) Delete([]byte, int64, uint64)             {}
func (noRows) DeleteRange([]byte, []byte)               {}

func TestApplyingADecisionAllocatesOnceForAllKeysAndEntries(t *testing.T) {
	d := &events.Decision{Outcome: events.Applied, Instance: events.InstanceID{1}}
	for i := range 8 {
		d.Entries = append(d.Entries, events.Entry{Kind: events.EntryCommand, Time: 1 << 40, Step: "reserve", Node: 3, Attempt: 1, Execution: 1})
		d.Rows = append(d.Rows, events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: uint64(i)}, Value: []byte("x")})
	}
	rec := &events.Record{Kind: events.KindDecision, Seq: 1, Decision: d}
	s := &journal.State{}
	if n := testing.AllocsPerRun(100, func() { s.Apply(rec, nil, events.Hash{}, noRows{}) }); n > 1 {
		t.Errorf("%v allocations for 16 rows", n)
	}
}

func BenchmarkApply(b *testing.B) {
	d := &events.Decision{Outcome: events.Applied, Instance: events.InstanceID{1}}
	for i := range 3 {
		d.Entries = append(d.Entries, events.Entry{Kind: events.EntryCommand, Time: 1 << 40, Step: "reserve", Node: 3, Attempt: 1, Execution: 1})
		d.Rows = append(d.Rows, events.RowChange{Ref: events.RowRef{Part: events.PartNode, N: uint64(i)}, Value: []byte("x")})
	}
	rec := &events.Record{Kind: events.KindDecision, Seq: 1, Decision: d}
	s := &journal.State{}
	b.ReportAllocs()
	for b.Loop() {
		s.Apply(rec, nil, events.Hash{}, noRows{})
	}
}
