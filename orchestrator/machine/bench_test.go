package machine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// wide is an instance of that many branches, all of them open.
func wide(t testing.TB, branches int) *world {
	names := make([]string, branches)
	for i := range names {
		names[i] = fmt.Sprintf("step-%05d:noreply", i)
	}
	w := newWorld(t, Config{Plans: []*sagas.Plan{planOf(t, "all("+strings.Join(names, ",")+")", nil)}})
	w.quiet = true
	w.start("order-1", "m-1", "order-1")
	for range branches {
		ref := nodeRef(0)
		if w.rows[ref].due == 0 {
			break
		}
		w.fire(ref)
	}
	for i := 1; i <= branches; i++ {
		if w.rows[nodeRef(uint32(i))].value == nil {
			t.Fatalf("branch %d is not open", i)
		}
	}
	return w
}

func doneOf(w *world, node uint32) events.Reply {
	return events.Reply{Command: events.CommandID{Instance: w.id, Node: node, Execution: 1, Attempt: 1, Phase: events.Forward}, Outcome: events.ReplyDone}
}

// TestDecisionsCostTheSameInWideInstances: what a decision reads, writes and takes does not depend on the
// number of branches (L17). Times are the best of many short turns, taken in alternation, so that what else the
// machine does falls on both.
func TestDecisionsCostTheSameInWideInstances(t *testing.T) {
	const limit = 1.5
	narrow, broad := wide(t, 10), wide(t, 10_000)
	for _, w := range []*world{narrow, broad} {
		w.reply(doneOf(w, 3))
	}
	if narrow.loads != broad.loads {
		t.Errorf("%d rows are read with 10 branches, %d with 10,000", narrow.loads, broad.loads)
	}
	if float64(broad.lastLen) > limit*float64(narrow.lastLen) {
		t.Errorf("%d bytes with 10 branches, %d with 10,000", narrow.lastLen, broad.lastLen)
	}
	read := narrow.loads
	turn := func(w *world, best time.Duration) time.Duration {
		const decisions = 100
		begun := time.Now()
		for range decisions {
			w.m.Reply(w, w.now, doneOf(w, 5))
		}
		return min(best, time.Since(begun)/decisions)
	}
	a, b := time.Hour, time.Hour
	for range 200 {
		a, b = turn(narrow, a), turn(broad, b)
	}
	t.Logf("10 branches: %d bytes, %v; 10,000: %d bytes, %v; %d rows read", narrow.lastLen, a, broad.lastLen, b, read)
	if float64(b) > limit*float64(a) {
		t.Errorf("%v with 10 branches, %v with 10,000", a, b)
	}
}

func BenchmarkReply(b *testing.B) {
	for _, branches := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("branches=%d", branches), func(b *testing.B) {
			w := wide(b, branches)
			d := w.reply(doneOf(w, 3))
			b.ReportAllocs()
			for b.Loop() {
				d = w.m.Reply(w, w.now, doneOf(w, 5))
			}
			w.seq++
			b.ReportMetric(float64(len(w.encode(d))), "bytes/decision")
		})
	}
}

// BenchmarkSaga runs five steps with undo, from the event to the end.
func BenchmarkSaga(b *testing.B) {
	p := planOf(b, "seq(reserve,book,pay,pack,send)", nil)
	m := New(Config{App: "shop", Slots: 64, Plans: []*sagas.Plan{p}})
	msg := &events.Message{Topic: "orders", Key: []byte("order-1"), Value: []byte(`{"id":"order-1","lines":[1,2,3]}`), Offset: 7}
	b.ReportAllocs()
	decisions := 0
	for b.Loop() {
		w := &world{m: m, now: epoch, rows: map[events.RowRef]cell{}}
		routes, _ := m.Routes(msg)
		route := routes[0]
		w.id = route.Instance
		keep(w, m.Start(w, w.now, *route.Start))
		for i := uint32(1); i <= 5; i++ {
			keep(w, m.Reply(w, w.now, doneOf(w, i)))
		}
		decisions += 6
		if h := w.head(); h.State != events.Completed {
			b.Fatal(h.State)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(decisions), "ns/decision")
}

func keep(w *world, d *events.Decision) {
	for _, r := range d.Rows {
		w.rows[r.Ref] = cell{r.Value, r.Due}
	}
}

// looped is an instance of a ForEach over that many elements, all of them open.
func looped(t testing.TB, elements int) *world {
	p := planOf(t, fmt.Sprintf("each:n=%d:most=%d(seq(a:noreply,b:noreply))", elements, elements), nil)
	w := newWorld(t, Config{Plans: []*sagas.Plan{p}})
	w.quiet = true
	w.start("order-1", "m-1", "order-1")
	decisions := 1
	for ref, ok := w.left(); ok; ref, ok = w.left() {
		decisions++
		if emits := len(w.fire(ref).Emits); emits > DefaultFanOut {
			t.Fatalf("a decision issued %d commands, at most %d", emits, DefaultFanOut)
		}
		if w.lastLen > DefaultMaxRecord/2 {
			t.Fatalf("a decision took %d bytes", w.lastLen)
		}
	}
	if least := elements / DefaultFanOut; decisions < least {
		t.Fatalf("%d elements were begun in %d decisions", elements, decisions)
	}
	for i := range elements {
		if cell := w.rows[nodeRef(firstOf(w, i))]; cell.due == 0 {
			t.Fatalf("element %d is not open", i)
		}
	}
	return w
}

// left is a row at which a further decision has to go on at once.
func (w *world) left() (ref events.RowRef, ok bool) {
	for ref, cell := range w.rows {
		if cell.due != 0 && cell.due <= w.now {
			return ref, true
		}
	}
	return ref, false
}

// firstOf is the row of the first step of an element's body.
func firstOf(w *world, element int) uint32 {
	return uint32(len(w.plan.Nodes) + 3*element + 1)
}

// TestALoopOverTenThousandElementsGoesOnInSmallDecisions: a wide loop is begun, and undone, in several decisions, and
// what one decision within it reads, writes and takes does not depend on its width (L17).
func TestALoopOverTenThousandElementsGoesOnInSmallDecisions(t *testing.T) {
	const limit = 1.5
	narrow, broad := looped(t, 10), looped(t, 10_000)
	for _, w := range []*world{narrow, broad} {
		w.reply(doneOf(w, firstOf(w, 3)))
	}
	read := broad.loads
	if narrow.loads != read {
		t.Errorf("%d rows are read with 10 elements, %d with 10,000", narrow.loads, read)
	}
	if float64(broad.lastLen) > limit*float64(narrow.lastLen) {
		t.Errorf("%d bytes with 10 elements, %d with 10,000", narrow.lastLen, broad.lastLen)
	}
	turn := func(w *world, best time.Duration) time.Duration {
		const decisions = 100
		begun := time.Now()
		for range decisions {
			w.m.Reply(w, w.now, doneOf(w, firstOf(w, 5)))
		}
		return min(best, time.Since(begun)/decisions)
	}
	a, b := time.Hour, time.Hour
	for range 200 {
		a, b = turn(narrow, a), turn(broad, b)
	}
	t.Logf("10 elements: %d bytes, %v; 10,000: %d bytes, %v; %d rows read", narrow.lastLen, a, broad.lastLen, b, read)
	if float64(b) > limit*float64(a) {
		t.Errorf("%v with 10 elements, %v with 10,000", a, b)
	}
	refused := doneOf(broad, firstOf(broad, 7))
	refused.Outcome = events.ReplyRejected
	broad.reply(refused)
	for ref, ok := broad.left(); ok; ref, ok = broad.left() {
		if d := broad.fire(ref); len(d.Emits) > DefaultFanOut || broad.lastLen > DefaultMaxRecord/2 {
			t.Fatalf("a decision issued %d undos in %d bytes", len(d.Emits), broad.lastLen)
		}
	}
	for i := range 10_000 {
		row, want := firstOf(broad, i), events.NodeUndoing
		switch i {
		case 3:
			row++ // a is done, b was open
		case 7:
			want = events.NodeUndone
		}
		if n, err := events.DecodeNode(broad.rows[nodeRef(row)].value); err != nil || n.Status != want {
			t.Fatalf("the step of element %d is %s (%v)", i, n.Status, err)
		}
	}
}

func BenchmarkReplyInALoop(b *testing.B) {
	for _, elements := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("elements=%d", elements), func(b *testing.B) {
			w := looped(b, elements)
			d := w.reply(doneOf(w, firstOf(w, 3)))
			b.ReportAllocs()
			for b.Loop() {
				d = w.m.Reply(w, w.now, doneOf(w, firstOf(w, 5)))
			}
			w.seq++
			b.ReportMetric(float64(len(w.encode(d))), "bytes/decision")
		})
	}
}

func TestASagaOfFiveStepsKeepsToItsAllocations(t *testing.T) {
	p := planOf(t, "seq(reserve,book,pay,pack,send)", nil)
	m := New(Config{App: "shop", Slots: 64, Plans: []*sagas.Plan{p}})
	msg := &events.Message{Topic: "orders", Key: []byte("order-1"), Value: []byte(`{"id":"order-1"}`), Offset: 7}
	got := testing.AllocsPerRun(50, func() {
		w := &world{m: m, now: epoch, rows: map[events.RowRef]cell{}}
		routes, _ := m.Routes(msg)
		w.id = routes[0].Instance
		keep(w, m.Start(w, w.now, *routes[0].Start))
		for i := uint32(1); i <= 5; i++ {
			keep(w, m.Reply(w, w.now, doneOf(w, i)))
		}
	})
	if got > 195 { // 180, the test's own included
		t.Errorf("%v allocations", got)
	}
}
