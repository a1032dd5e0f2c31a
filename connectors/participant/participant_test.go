package participant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

type (
	authorize struct {
		Order  string
		Amount int
	}
	authorized struct {
		PaymentID string `json:"payment_id"`
	}
	void struct{ Order string }
)

var (
	authorizeCommand = sagas.NewCommand[authorize, authorized]("payments.commands", "payments.authorize")
	voidCommand      = sagas.NewCommand[void, struct{}]("payments.commands", "payments.void")
)

// shop is the other side: it sends commands as the engine does and reads replies, on an in-process Kafka.
type shop struct {
	t       *testing.T
	ctx     context.Context
	brokers []string
	client  *kgo.Client
	logs    *safeBuffer
	clock   atomic.Int64 // ms since 1970
	seen    []*kgo.Record
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const (
	testTopic = "payments.commands"
	startTime = 1_800_000_000_000
)

func openShop(t *testing.T, opts ...kfake.Opt) *shop {
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(2, testTopic, "shop.replies")}, opts...)...)
	must(t, err)
	t.Cleanup(cluster.Close)
	s := &shop{t: t, brokers: cluster.ListenAddrs(), logs: &safeBuffer{}}
	s.clock.Store(startTime)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	s.ctx = ctx
	s.client, err = kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ConsumeTopics("shop.replies"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0))
	must(t, err)
	t.Cleanup(s.client.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.logs.String())
		}
	})
	return s
}

// running is one process of the participant.
type running struct {
	*Participant
	stop func() // and wait
	ctx  context.Context
}

func (s *shop) participant(cfg Config) *Participant {
	cfg.App, cfg.Brokers, cfg.Name = "shop", s.brokers, "payments"
	cfg.Logger = slog.New(slog.NewTextHandler(s.logs, nil))
	cfg.Now = func() time.Time { return time.UnixMilli(s.clock.Load()) }
	return New(cfg)
}

func (s *shop) run(p *Participant) *running {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	r := &running{Participant: p, ctx: ctx}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	s.t.Cleanup(r.stop)
	return r
}

// attempt is one command record.
type attempt struct {
	events.CommandID
	headers map[string]string // over those of the engine; "" removes one
	more    []kgo.RecordHeader
	payload []byte
	typ     string
}

func instance(n byte) events.InstanceID { return events.InstanceID{15: n} }

func forward(n byte, try uint32) attempt {
	return attempt{CommandID: events.CommandID{Instance: instance(n), Node: 1, Execution: 1, Attempt: try, Phase: events.Forward},
		typ: "payments.authorize", payload: fmt.Appendf(nil, `{"Order":"o%d","Amount":%d}`, n, n)}
}

func undo(n byte, try uint32) attempt {
	a := forward(n, try)
	a.Phase, a.typ, a.payload = events.Compensate, "payments.void", fmt.Appendf(nil, `{"Order":"o%d"}`, n)
	return a
}

func (a attempt) with(header, value string) attempt {
	h := map[string]string{header: value}
	for k, v := range a.headers {
		h[k] = v
	}
	a.headers = h
	return a
}

func (a attempt) record() *kgo.Record {
	headers := [][2]string{
		{events.HeaderSpecVersion, "1.0"}, {events.HeaderID, a.Text("shop")}, {events.HeaderType, a.typ},
		{events.HeaderCorrelationID, a.Instance.String()}, {events.HeaderIdempotencyKey, a.IdempotencyKey("authorize")},
		{events.HeaderReplyTo, "shop.replies"}, {events.HeaderSagaPhase, a.Phase.String()}, {events.HeaderSagaAttempt, fmt.Sprint(a.Attempt)},
	}
	if a.Phase == events.Compensate {
		f := a.CommandID
		f.Phase = events.Forward
		headers = append(headers, [2]string{events.HeaderUndoes, f.IdempotencyKey("authorize")})
	} else {
		headers = append(headers, [2]string{events.HeaderExpiryTime, events.Timestamp(startTime + 30_000)})
	}
	r := &kgo.Record{Topic: testTopic, Key: []byte("order-" + a.Instance.String()), Value: a.payload}
	put := func(k, v string) {
		if v != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
		}
	}
	for _, h := range headers {
		if v, ok := a.headers[h[0]]; ok {
			h[1] = v
		}
		put(h[0], h[1])
	}
	for k, v := range a.headers {
		if !slices.ContainsFunc(headers, func(h [2]string) bool { return h[0] == k }) {
			put(k, v)
		}
	}
	r.Headers = append(r.Headers, a.more...)
	return r
}

func (s *shop) send(as ...attempt) {
	s.t.Helper()
	for _, a := range as {
		must(s.t, s.client.ProduceSync(s.ctx, a.record()).FirstErr())
	}
}

// reply waits for the next reply to a's attempt that no call has given yet.
func (s *shop) reply(a attempt) *kgo.Record {
	s.t.Helper()
	for {
		for i, r := range s.seen {
			if head(r, events.HeaderCausationID) == a.Text("shop") {
				s.seen = slices.Delete(s.seen, i, i+1)
				return r
			}
		}
		f := s.client.PollFetches(s.ctx)
		if s.ctx.Err() != nil {
			s.t.Fatalf("no reply to %+v", a.CommandID)
		}
		s.seen = append(s.seen, f.Records()...)
	}
}

// expect waits for the reply and compares its outcome and error code.
func (s *shop) expect(a attempt, outcome, code string) *kgo.Record {
	s.t.Helper()
	r := s.reply(a)
	if o, c := head(r, events.HeaderOutcome), head(r, events.HeaderErrorCode); o != outcome || c != code {
		s.t.Errorf("%+v was answered %s %s (%s), not %s %s", a.CommandID, o, c, head(r, events.HeaderErrorMessage), outcome, code)
	}
	return r
}

func head(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// till is a handler's world: it counts the effects of each key.
type till struct {
	mu      sync.Mutex
	effects []string
}

func (t *till) authorize(_ context.Context, c Call, cmd authorize) (authorized, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.effects = append(t.effects, "authorize "+cmd.Order)
	return authorized{"pay-" + cmd.Order}, nil
}

func (t *till) void(_ context.Context, c Call, cmd void) (struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.effects = append(t.effects, "void "+cmd.Order)
	return struct{}{}, nil
}

func (t *till) list() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.effects, ", ")
}

func (s *shop) payments(cfg Config, t *till) *running {
	p := s.participant(cfg)
	Handle(p, authorizeCommand, t.authorize)
	Handle(p, voidCommand, t.void)
	return s.run(p)
}

func TestAReplyCarriesTheHeadersOfTheProtocol(t *testing.T) {
	s := openShop(t)
	s.payments(Config{}, &till{})
	a := forward(7, 1).with("traceparent", "00-aa-bb-01").with("unrelated", "x")
	s.send(a)
	r := s.expect(a, "done", "")
	if string(r.Value) != `{"payment_id":"pay-o7"}` || string(r.Key) != string(a.record().Key) {
		t.Errorf("reply %s: %s", r.Key, r.Value)
	}
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": a.Text("shop") + "-done", "ce_source": "/shop/payments", "ce_type": "payments.authorize.reply",
		"ce_time": "2027-01-15T08:00:00.000Z", "content-type": "application/json", "ce_causationid": a.Text("shop"),
		"ce_correlationid": instance(7).String(), "ce_outcome": "done", "traceparent": "00-aa-bb-01",
	}
	for k, v := range want {
		if got := head(r, k); got != v {
			t.Errorf("header %s is %q, not %q", k, got, v)
		}
	}
	if len(r.Headers) != len(want) {
		t.Errorf("headers %v", r.Headers)
	}
	m := &events.Message{Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, events.Header{Key: h.Key, Value: h.Value})
	}
	if parsed, err := events.ParseReply("shop", m); err != nil || parsed.Command != a.CommandID || parsed.Outcome != events.ReplyDone {
		t.Errorf("the engine reads %+v, %v", parsed, err)
	}
}

func TestTheHandlerIsToldAboutItsCommand(t *testing.T) {
	s := openShop(t)
	calls := make(chan Call, 2)
	p := s.participant(Config{})
	Handle(p, authorizeCommand, func(_ context.Context, c Call, _ authorize) (authorized, error) {
		calls <- c
		return authorized{}, nil
	})
	Handle(p, voidCommand, func(_ context.Context, c Call, _ void) (struct{}, error) { calls <- c; return struct{}{}, nil })
	s.run(p)
	s.send(forward(1, 3), undo(1, 2))
	s.expect(undo(1, 2), "done", "")
	f, u := <-calls, <-calls
	if f.Phase != events.Forward || f.Attempt != 3 || f.Step != "authorize" || f.Instance != instance(1).String() ||
		f.IdempotencyKey != instance(1).String()+"/authorize/1" || f.Undoes != "" || f.Expiry.UnixMilli() != startTime+30_000 ||
		f.Type != "payments.authorize" || f.Key != "order-"+instance(1).String() || f.ID != forward(1, 3).Text("shop") || f.Tx == nil {
		t.Errorf("forward call %+v", f)
	}
	if u.Phase != events.Compensate || u.Step != "authorize" || u.Undoes != f.IdempotencyKey || u.IdempotencyKey != f.IdempotencyKey+"/undo" || !u.Expiry.IsZero() {
		t.Errorf("undo call %+v", u)
	}
}

func TestADuplicateAndALaterAttemptGetTheFirstAnswerAgain(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		s, w := openShop(t), &till{}
		s.payments(Config{Ledger: l}, w)
		s.send(forward(1, 1))
		first := s.expect(forward(1, 1), "done", "")
		s.clock.Add(1000)
		s.send(forward(1, 1), forward(1, 2))
		again, second := s.expect(forward(1, 1), "done", ""), s.expect(forward(1, 2), "done", "")
		if fmt.Sprint(again.Headers, again.Value) != fmt.Sprint(first.Headers, first.Value) {
			t.Errorf("the answer to a duplicate differs:\n%v %s\n%v %s", first.Headers, first.Value, again.Headers, again.Value)
		}
		second.Headers[1], second.Headers[6] = first.Headers[1], first.Headers[6] // ce_id, ce_causationid
		if fmt.Sprint(second.Headers, second.Value) != fmt.Sprint(first.Headers, first.Value) {
			t.Errorf("the answer to the second attempt differs in more than its ids: %v", second.Headers)
		}
		if w.list() != "authorize o1" {
			t.Errorf("effects: %s", w.list())
		}
		got := effectsOf(t, l)
		want := Effect{Instance: instance(1).String(), Step: "authorize", Direction: "forward", IdempotencyKey: instance(1).String() + "/authorize/1", Order: 1, Time: startTime}
		if len(got) != 1 || got[0] != want {
			t.Errorf("log of effects: %+v", got)
		}
	})
}

func TestARejectionIsRememberedAndARetryIsNot(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		s := openShop(t)
		var calls atomic.Int32
		p := s.participant(Config{Ledger: l})
		Handle(p, authorizeCommand, func(context.Context, Call, authorize) (authorized, error) {
			switch calls.Add(1) {
			case 1:
				return authorized{}, Retry("busy", "in %d s", 3)
			case 2:
				return authorized{}, fmt.Errorf("charging: %w", Reject("declined", "%s", strings.Repeat("é", events.MaxMessage)+"\xff"))
			}
			return authorized{"free"}, nil
		})
		s.run(p)
		s.send(forward(1, 1), forward(1, 2), forward(1, 3))
		r := s.expect(forward(1, 1), "retry", "busy")
		if head(r, events.HeaderErrorMessage) != "in 3 s" || len(r.Value) != 0 {
			t.Errorf("%v", r.Headers)
		}
		s.expect(forward(1, 2), "rejected", "declined")
		r = s.expect(forward(1, 3), "rejected", "declined")
		if n := len(head(r, events.HeaderErrorMessage)); n != events.MaxMessage {
			t.Errorf("the message has %d bytes", n)
		}
		if calls.Load() != 2 || len(effectsOf(t, l)) != 0 {
			t.Errorf("%d calls, effects %v", calls.Load(), effectsOf(t, l))
		}
	})
}

func TestOfAnUndoOnlyDoneIsRemembered(t *testing.T) {
	s, l := openShop(t), NewMemory()
	var calls atomic.Int32
	p := s.participant(Config{Ledger: l})
	Handle(p, voidCommand, func(context.Context, Call, void) (struct{}, error) {
		switch calls.Add(1) {
		case 1:
			return struct{}{}, Reject("settled", "too late")
		case 2:
			return struct{}{}, errors.New("no connection")
		}
		return struct{}{}, nil
	})
	s.run(p)
	s.send(undo(1, 1), undo(1, 2), undo(1, 3), undo(1, 4))
	s.expect(undo(1, 1), "rejected", "settled")
	s.expect(undo(1, 2), "retry", CodeError)
	s.expect(undo(1, 3), "done", "")
	s.expect(undo(1, 4), "done", "")
	if calls.Load() != 3 {
		t.Errorf("%d calls", calls.Load())
	}
	if got := effectsOf(t, l); len(got) != 1 || got[0].Direction != "compensate" || got[0].Undoes != instance(1).String()+"/authorize/1" {
		t.Errorf("effects %+v", got)
	}
}

func TestAForwardCommandThatItsUndoOvertookIsRefused(t *testing.T) {
	eachLedger(t, func(t *testing.T, l fullLedger) {
		s, w := openShop(t), &till{}
		s.payments(Config{Ledger: l}, w)
		s.send(undo(1, 1), forward(1, 1), forward(1, 2))
		s.expect(undo(1, 1), "done", "")
		s.expect(forward(1, 1), "rejected", events.CodeUndone)
		s.expect(forward(1, 2), "rejected", events.CodeUndone)
		if w.list() != "void o1" {
			t.Errorf("effects: %s", w.list())
		}
	})
}

func TestAnUndoThatIsNotDoneYetAlreadyStopsItsForwardCommand(t *testing.T) {
	s := openShop(t)
	w := &till{}
	p := s.participant(Config{})
	Handle(p, authorizeCommand, w.authorize)
	Handle(p, voidCommand, func(context.Context, Call, void) (struct{}, error) { return struct{}{}, Retry("busy", "") })
	s.run(p)
	s.send(undo(1, 1), forward(1, 1))
	s.expect(undo(1, 1), "retry", "busy")
	s.expect(forward(1, 1), "rejected", events.CodeUndone)
	if w.list() != "" {
		t.Errorf("effects: %s", w.list())
	}
}

func TestAnEffectThatIsThereIsNeverDeniedNotEvenAfterItsUndo(t *testing.T) {
	s, w := openShop(t), &till{}
	s.payments(Config{}, w)
	s.send(forward(1, 1), undo(1, 1), forward(1, 1))
	s.expect(forward(1, 1), "done", "")
	s.expect(undo(1, 1), "done", "")
	s.expect(forward(1, 1), "done", "")
	if w.list() != "authorize o1, void o1" {
		t.Errorf("effects: %s", w.list())
	}
}

func TestAnExpiredCommandIsRefusedUnlessItWasAnsweredBefore(t *testing.T) {
	s, w := openShop(t), &till{}
	s.payments(Config{Skew: time.Second}, w)
	s.clock.Store(startTime + 31_000) // on the border, with the skew
	s.send(forward(1, 1))
	s.expect(forward(1, 1), "done", "")
	s.clock.Store(startTime + 31_001)
	s.send(forward(1, 1), forward(2, 1))
	s.expect(forward(1, 1), "done", "")
	s.expect(forward(2, 1), "rejected", events.CodeExpired)
	fresh := forward(2, 2).with(events.HeaderExpiryTime, events.Timestamp(startTime+60_000))
	s.send(fresh)
	s.expect(fresh, "done", "") // expired is not remembered
	if w.list() != "authorize o1, authorize o2" {
		t.Errorf("effects: %s", w.list())
	}
}

func TestAnUndoNeverExpires(t *testing.T) {
	s, w := openShop(t), &till{}
	s.payments(Config{}, w)
	late := undo(1, 1).with(events.HeaderExpiryTime, events.Timestamp(1))
	s.send(late)
	s.expect(late, "done", "")
}

func TestAPanicIsARetryAndItsNeighboursGoOn(t *testing.T) {
	s, w := openShop(t), &till{}
	p := s.participant(Config{})
	Handle(p, authorizeCommand, func(ctx context.Context, c Call, cmd authorize) (authorized, error) {
		if cmd.Amount == 1 {
			panic("no such till")
		}
		return w.authorize(ctx, c, cmd)
	})
	s.run(p)
	s.send(forward(1, 1), forward(2, 1))
	s.expect(forward(1, 1), "retry", CodePanic)
	s.expect(forward(2, 1), "done", "")
	if logs := s.logs.String(); !strings.Contains(logs, "no such till") || !strings.Contains(logs, "participant_test.go") {
		t.Errorf("the log does not show the panic and its place:\n%s", logs)
	}
}

func TestPoisonIsRejectedOrSkippedAndNeverBlocks(t *testing.T) {
	s, w := openShop(t), &till{}
	r := s.payments(Config{}, w)
	broken := forward(1, 1)
	broken.payload = []byte(`{"Order":`)
	null := forward(2, 1)
	null.payload = nil
	twice := forward(3, 1)
	twice.more = []kgo.RecordHeader{{Key: events.HeaderUndoes, Value: []byte("a")}, {Key: events.HeaderUndoes, Value: []byte("b")}}
	rejected := []attempt{
		broken, null, twice,
		forward(4, 1).with(events.HeaderIdempotencyKey, ""),
		forward(5, 1).with(events.HeaderIdempotencyKey, strings.Repeat("k", events.MaxIDBytes+1)),
		forward(6, 1).with(events.HeaderExpiryTime, "tomorrow"),
		forward(7, 1).with(events.HeaderSagaPhase, "sideways"),
		forward(8, 1).with(events.HeaderSagaAttempt, "first"),
		forward(9, 1).with(events.HeaderUndoes, "another"),
		forward(10, 1).with("ce_x", "\xff"),
		forward(11, 1).with("x", strings.Repeat("x", events.MaxHeaderBytes)),
	}
	skipped := []attempt{
		forward(20, 1).with(events.HeaderReplyTo, ""),
		forward(21, 1).with(events.HeaderReplyTo, "no topic!"),
		forward(22, 1).with(events.HeaderID, ""),
		forward(23, 1).with(events.HeaderID, strings.Repeat("i", events.MaxIDBytes+1)),
	}
	unknown := forward(24, 1)
	unknown.typ = "payments.capture"
	s.send(append(append(rejected, skipped...), unknown, forward(25, 1).with(events.HeaderType, ""))...)
	for _, a := range rejected {
		s.expect(a, "rejected", CodeUndecodable)
	}
	s.send(forward(30, 1))
	s.expect(forward(30, 1), "done", "")
	if w.list() != "authorize o30" {
		t.Errorf("effects: %s", w.list())
	}
	r.stop()
	if got, want := r.Stats(), (Stats{Done: 1, Rejected: 11, Skipped: 2, Unanswerable: 4}); got != want {
		t.Errorf("stats %+v, not %+v", got, want)
	}
	if len(s.seen) != 0 {
		t.Errorf("%d more replies", len(s.seen))
	}
	if n := strings.Count(s.logs.String(), "level=ERROR"); n != 15 {
		t.Errorf("%d errors are logged, not 15", n)
	}
	s.allCommitted()
}

// allCommitted waits until the group's positions are the ends of the topic.
func (s *shop) allCommitted() {
	s.t.Helper()
	if lag := s.lag(); lag != 0 {
		s.t.Errorf("%d commands are not committed", lag)
	}
}

// lag is how many commands the group has not committed.
func (s *shop) lag() (lag int64) {
	s.t.Helper()
	admin := kadm.NewClient(s.client)
	ends, err := admin.ListEndOffsets(s.ctx, testTopic)
	must(s.t, err)
	committed, err := admin.FetchOffsets(s.ctx, "shop.payments")
	must(s.t, err)
	ends.Each(func(end kadm.ListedOffset) {
		at, _ := committed.Lookup(testTopic, end.Partition)
		lag += end.Offset - max(at.At, 0)
	})
	return lag
}

func TestARejectionForBeingUndecodableHoldsWhenALaterBuildCouldDecodeIt(t *testing.T) {
	s, l, w := openShop(t), NewMemory(), &till{}
	old := s.participant(Config{Ledger: l})
	Handle(old, sagas.NewCommand[struct{ Amount string }, authorized](testTopic, "payments.authorize"),
		func(context.Context, Call, struct{ Amount string }) (authorized, error) { return authorized{}, nil })
	r := s.run(old)
	s.send(forward(1, 1))
	s.expect(forward(1, 1), "rejected", CodeUndecodable)
	r.stop()
	s.payments(Config{Ledger: l}, w)
	s.send(forward(1, 1))
	s.expect(forward(1, 1), "rejected", CodeUndecodable)
	if w.list() != "" {
		t.Errorf("effects: %s", w.list())
	}
}

func TestAfterACrashEveryUncommittedCommandIsAnsweredAndNoneIsExecutedTwice(t *testing.T) {
	for _, point := range []string{"executed", "answered"} { // remembered, not sent; sent, not committed
		t.Run(point, func(t *testing.T) {
			s, w := openShop(t), &till{}
			disk := vfs.NewCrashableMem()
			l, err := openLedger("ledger", disk)
			must(t, err)
			p := s.participant(Config{Ledger: l})
			Handle(p, authorizeCommand, w.authorize)
			Handle(p, voidCommand, w.void)
			crashed := make(chan struct{}, 8)
			p.crash = func(at string, c *command) bool {
				if at == point {
					crashed <- struct{}{}
				}
				return at == point
			}
			r := s.run(p)
			s.send(forward(1, 1), forward(2, 1))
			<-crashed
			<-crashed
			after := disk.CrashClone(vfs.CrashCloneCfg{})
			r.stop()
			must(t, l.Close())
			if s.lag() != 2 {
				t.Fatalf("%d commands are uncommitted, not 2", s.lag())
			}
			if point == "answered" {
				s.expect(forward(1, 1), "done", "")
				s.expect(forward(2, 1), "done", "")
			}

			l, err = openLedger("ledger", after)
			must(t, err)
			defer l.Close()
			r = s.payments(Config{Ledger: l}, w)
			s.expect(forward(1, 1), "done", "")
			s.expect(forward(2, 1), "done", "")
			r.stop()
			s.allCommitted()
			if n := len(effectsOf(t, l)); n != 2 || strings.Count(w.list(), "authorize") != 2 {
				t.Errorf("%d effects: %s", n, w.list())
			}
			if r.Stats().Repeated != 2 {
				t.Errorf("stats %+v", r.Stats())
			}
		})
	}
}

func TestAfterACrashInsideTheHandlerNothingDefiniteIsSaidOnceItExpired(t *testing.T) {
	s := openShop(t)
	disk := vfs.NewCrashableMem()
	l, err := openLedger("ledger", disk)
	must(t, err)
	p := s.participant(Config{Ledger: l})
	var after *vfs.MemFS
	inside := make(chan struct{})
	Handle(p, authorizeCommand, func(context.Context, Call, authorize) (authorized, error) {
		after = disk.CrashClone(vfs.CrashCloneCfg{}) // the money has moved, nothing is remembered
		close(inside)
		return authorized{}, nil
	})
	p.crash = func(string, *command) bool { return true }
	r := s.run(p)
	s.send(forward(1, 1))
	<-inside
	r.stop()
	must(t, l.Close())

	l, err = openLedger("ledger", after)
	must(t, err)
	defer l.Close()
	s.clock.Store(startTime + 40_000)
	w := &till{}
	s.payments(Config{Ledger: l}, w)
	s.expect(forward(1, 1), "retry", CodeUnknown)
	s.send(undo(1, 1), forward(1, 2))
	s.expect(undo(1, 1), "done", "")
	s.expect(forward(1, 2), "retry", CodeUnknown)
	if w.list() != "void o1" {
		t.Errorf("effects: %s", w.list())
	}
}

func TestCommandsOfOneKeyAreExecutedInOrderAndThoseOfOthersBeside(t *testing.T) {
	s, w := openShop(t), &till{}
	p := s.participant(Config{})
	entered, release := make(chan struct{}), make(chan struct{})
	Handle(p, authorizeCommand, func(ctx context.Context, c Call, cmd authorize) (authorized, error) {
		if cmd.Amount == 1 {
			close(entered)
			<-release
		}
		return w.authorize(ctx, c, cmd)
	})
	Handle(p, voidCommand, w.void)
	r := s.run(p)
	s.send(forward(1, 1), undo(1, 1))
	<-entered
	for n := byte(2); n < 10; n++ { // on the same partition, too
		s.send(forward(n, 1), undo(n, 1))
		s.expect(undo(n, 1), "done", "")
	}
	if strings.Contains(w.list(), "o1") {
		t.Errorf("effects: %s", w.list())
	}
	close(release)
	s.expect(undo(1, 1), "done", "")
	for n := 1; n < 10; n++ {
		a, v := strings.Index(w.list(), fmt.Sprint("authorize o", n)), strings.Index(w.list(), fmt.Sprint("void o", n))
		if a < 0 || v < a {
			t.Errorf("order %d: %s", n, w.list())
		}
	}
	r.stop()
	s.allCommitted()
}

func TestAPositionDoesNotPassACommandThatIsBeingExecuted(t *testing.T) {
	s, w := openShop(t), &till{}
	p := s.participant(Config{Grace: time.Millisecond})
	entered := make(chan struct{})
	Handle(p, authorizeCommand, func(ctx context.Context, c Call, cmd authorize) (authorized, error) {
		if cmd.Amount == 1 {
			close(entered)
			<-ctx.Done() // it does not end before Grace is over
			return authorized{}, ctx.Err()
		}
		return w.authorize(ctx, c, cmd)
	})
	r := s.run(p)
	slow := forward(1, 1)
	s.send(slow)
	<-entered
	behind := 0
	place := func(a attempt) int32 {
		rec := a.record()
		must(t, s.client.ProduceSync(s.ctx, rec).FirstErr())
		return rec.Partition
	}
	part := s.partitionOf(slow)
	for n := byte(2); n < 12; n++ {
		if place(forward(n, 1)) == part {
			behind++
		}
		s.expect(forward(n, 1), "done", "")
	}
	r.stop()
	if behind == 0 {
		t.Fatal("no command is behind the slow one")
	}
	if got := s.lag(); got < int64(behind)+1 {
		t.Fatalf("%d commands are uncommitted, at least %d must be", got, behind+1)
	}
	s.payments(Config{}, w)
	s.expect(slow, "done", "")
}

func (s *shop) partitionOf(a attempt) int32 {
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic(testTopic).Partition(a.record(), 2))
}

func TestProgressIsSentBeforeTheAnswer(t *testing.T) {
	s := openShop(t)
	p := s.participant(Config{})
	Handle(p, authorizeCommand, func(_ context.Context, c Call, _ authorize) (authorized, error) {
		c.Progress()
		c.Progress()
		return authorized{}, nil
	})
	s.run(p)
	s.send(forward(1, 1))
	one, two := s.expect(forward(1, 1), "progress", ""), s.expect(forward(1, 1), "progress", "")
	s.expect(forward(1, 1), "done", "")
	if head(one, events.HeaderID) == head(two, events.HeaderID) {
		t.Error("two reports of progress have the same id")
	}
}

func TestAResultTooLargeForAReplyIsARetry(t *testing.T) {
	s, l := openShop(t), NewMemory()
	p := s.participant(Config{MaxReply: 40, Ledger: l})
	Handle(p, authorizeCommand, func(_ context.Context, _ Call, cmd authorize) (authorized, error) {
		return authorized{strings.Repeat("x", cmd.Amount)}, nil
	})
	s.run(p)
	s.send(forward(41, 1), forward(3, 1))
	s.expect(forward(41, 1), "retry", CodeReplySize)
	s.expect(forward(3, 1), "done", "")
	if len(effectsOf(t, l)) != 1 {
		t.Errorf("effects %v", effectsOf(t, l))
	}
}

func TestAReplyThatKafkaRefusesIsPassedOverSoThatNeighboursGoOn(t *testing.T) {
	s := openShop(t)
	r := s.payments(Config{Options: []kgo.Opt{kgo.UnknownTopicRetries(1)}}, &till{})
	s.send(forward(1, 1).with(events.HeaderReplyTo, "gone.replies"), forward(2, 1))
	s.expect(forward(2, 1), "done", "")
	r.stop()
	if r.Stats().Unsent != 1 || s.lag() != 0 {
		t.Errorf("stats %+v, lag %d", r.Stats(), s.lag())
	}
}

// failing is a ledger whose disk fails at a named verb.
type failing struct {
	*InMemory
	at atomic.Value
}

type failingTx struct {
	Tx
	l *failing
}

var errDisk = errors.New("disk full")

func (l *failing) fails(verb string) bool { v, _ := l.at.Load().(string); return v == verb }

func (l *failing) Begin(ctx context.Context, lock string) (Tx, error) {
	if l.fails("begin") {
		return nil, errDisk
	}
	tx, err := l.InMemory.Begin(ctx, lock)
	return failingTx{tx, l}, err
}

func (t failingTx) Lookup(key string) (Memory, error) {
	if t.l.fails("lookup") {
		return Memory{}, errDisk
	}
	return t.Tx.Lookup(key)
}

func (t failingTx) Remember(key string, m Memory) error {
	if t.l.fails("answer") && m.Answer != nil || t.l.fails("note") && m.Answer == nil {
		return errDisk
	}
	return t.Tx.Remember(key, m)
}

func (t failingTx) Commit() error {
	if t.l.fails("commit") {
		return errDisk
	}
	return t.Tx.Commit()
}

func TestALedgerThatFailsGivesRetryAndNothingDefinite(t *testing.T) {
	s, w := openShop(t), &till{}
	l := &failing{InMemory: NewMemory()}
	s.payments(Config{Ledger: l}, w)
	for i, verb := range []string{"begin", "lookup", "note", "commit", "answer"} {
		l.at.Store(verb)
		for _, a := range []attempt{forward(byte(2*i), 1), undo(byte(2*i+1), 1)} {
			s.send(a)
			s.expect(a, "retry", CodeLedger)
		}
		if verb != "answer" && w.list() != "" {
			t.Errorf("%s failed, and there are effects: %s", verb, w.list())
		}
	}
	l.at.Store("")
	s.send(forward(100, 1))
	s.expect(forward(100, 1), "done", "")
}

// database is a user's ledger whose transactions hold the handlers' effects.
type database struct {
	*InMemory
	mu      sync.Mutex
	balance int
	begun   int
}

type databaseTx struct {
	Tx
	db    *database
	delta int
}

func (d *database) Atomic() bool { return true }

func (d *database) Begin(ctx context.Context, lock string) (Tx, error) {
	tx, err := d.InMemory.Begin(ctx, lock)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun++
	return &databaseTx{Tx: tx, db: d}, err
}

func (t *databaseTx) Commit() error {
	t.db.mu.Lock()
	t.db.balance += t.delta
	t.db.mu.Unlock()
	return t.Tx.Commit()
}

func TestALedgerInTheUsersDatabaseCommitsEffectAndAnswerAsOne(t *testing.T) {
	s, db := openShop(t), &database{InMemory: NewMemory()}
	p := s.participant(Config{Ledger: db})
	Handle(p, authorizeCommand, func(_ context.Context, c Call, cmd authorize) (authorized, error) {
		c.Tx.(*databaseTx).delta += cmd.Amount
		switch cmd.Amount {
		case 1:
			return authorized{}, Reject("declined", "after it had written")
		case 2:
			panic("after it had written")
		}
		return authorized{}, nil
	})
	r := s.run(p)
	s.send(forward(1, 1), forward(2, 1), forward(50, 1), forward(50, 2))
	s.expect(forward(1, 1), "rejected", "declined")
	s.expect(forward(2, 1), "retry", CodePanic)
	s.expect(forward(50, 1), "done", "")
	s.expect(forward(50, 2), "done", "")
	r.stop()
	if db.balance != 50 {
		t.Errorf("the balance is %d, not 50", db.balance)
	}
	if db.begun != 5 { // one each, and one more to remember the rejection
		t.Errorf("%d transactions", db.begun)
	}
	if m := lookup(t, db, instance(2).String()+"/authorize/1"); m.Started {
		t.Error("a call is noted that left nothing behind")
	}
}

func TestKeysAreForgottenAfterTheRetention(t *testing.T) {
	s, l := openShop(t), NewMemory()
	s.payments(Config{Ledger: l, Retention: time.Hour}, &till{})
	s.send(forward(1, 1))
	s.expect(forward(1, 1), "done", "")
	key := instance(1).String() + "/authorize/1"
	if got, want := lookup(t, l, key).Until, int64(startTime+30_000+3_600_000); got != want {
		t.Errorf("remembered until %d, not %d", got, want)
	}
	s.clock.Store(startTime + 30_001 + 3_600_000)
	for n := byte(2); lookup(t, l, key).Answer != nil; n++ { // pruned in passing, some polls later
		s.send(forward(n, 1))
		s.reply(forward(n, 1))
	}
}

func TestAPartitionThatMovesIsHandedOverFinished(t *testing.T) {
	s, w, l := openShop(t), &till{}, NewMemory() // shared: as two processes share a database
	first := s.payments(Config{Ledger: l}, w)
	s.send(forward(1, 1))
	s.expect(forward(1, 1), "done", "")
	s.payments(Config{Ledger: l}, w)
	for n := byte(2); n < 60; n++ {
		s.send(forward(n, 1))
		if n == 30 {
			first.stop()
		}
	}
	for n := byte(2); n < 60; n++ {
		s.expect(forward(n, 1), "done", "")
	}
	if n := len(effectsOf(t, l)); n != 59 {
		t.Errorf("%d effects", n)
	}
}

func TestRunSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	s := openShop(t)
	fn := func(context.Context, Call, authorize) (authorized, error) { return authorized{}, nil }
	for _, c := range []struct {
		name string
		cfg  Config
		reg  func(*Participant)
		want []string
	}{
		{"nothing", Config{}, func(*Participant) {}, []string{"Config.App is empty", "Config.Name is empty", "Config.Brokers is empty", "no handler"}},
		{"negative", Config{App: "a", Name: "b", Brokers: s.brokers, Skew: -1, Workers: -1}, func(p *Participant) { Handle(p, authorizeCommand, fn) }, []string{"Config.Skew", "Config.Workers"}},
		{"twice", Config{App: "a", Name: "b", Brokers: s.brokers}, func(p *Participant) { Handle(p, authorizeCommand, fn); Handle(p, authorizeCommand, fn) }, []string{`two handlers for topic "payments.commands" and type "payments.authorize"`}},
		{"topic", Config{App: "a", Name: "b", Brokers: s.brokers}, func(p *Participant) {
			Handle(p, sagas.NewCommand[authorize, authorized]("missing.commands", "x"), fn)
		}, []string{"topic missing.commands", "create it"}},
		{"broker", Config{App: "a", Name: "b", Brokers: []string{"127.0.0.1:1"}, Options: []kgo.Opt{kgo.RetryTimeout(time.Millisecond)}}, func(p *Participant) { Handle(p, authorizeCommand, fn) }, []string{"127.0.0.1:1", "no answer from Kafka"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(c.cfg)
			c.reg(p)
			err := p.Run(s.ctx)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}
