package events

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Golden files hold what builds have written. A .hex file never changes: -rewrite adds those that are
// missing and prints the readable .txt files anew. A new field gets a new sample, beside the old ones.
var rewrite = flag.Bool("rewrite", false, "write missing golden files, and every readable one")

const goldenDir = "testdata/golden"

// goldenFile names a sample's golden file, without its extension: one of the first format is named by itself, later
// ones by "format-N/".
func goldenFile(name string) string {
	if !strings.Contains(name, "/") {
		name = "format-1/" + name
	}
	return filepath.Join(goldenDir, filepath.FromSlash(name))
}

func repeat16(b byte) (a [16]byte) {
	for i := range a {
		a[i] = b + byte(i)
	}
	return a
}

var sampleID = NewInstanceID("shop", "place-order", "order-7", "evt-7", 12*SlotsPerShard)

func sampleHead() *Head {
	return &Head{Definition: "place-order", Version: "1", DefHash: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Key: "order-7", State: Running,
		Started: 1_790_000_000_000, Entries: 4, Trace: []Header{{HeaderTraceParent, []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}}
}

func sampleNode() *NodeState {
	return &NodeState{Status: NodeActive, Execution: 1, Attempts: 1, Payload: []byte(`{"order":"order-7","amount":4200,"currency":"EUR"}`),
		Undo: &Obligation{Topic: "payments.commands", Type: "VoidAuthorization", Payload: []byte(`{"order":"order-7"}`)}, Expiry: 1_790_000_030_120}
}

// typicalDecision is a reply that ends one step and starts the next: about 900 bytes.
func typicalDecision() *Record {
	done := &NodeState{Status: NodeDone, Execution: 1, Attempts: 1,
		Undo: &Obligation{Topic: "inventory.commands", Type: "ReleaseStock", Payload: []byte(`{"order":"order-7"}`)}, Expiry: 1_790_000_030_000}
	return &Record{Format: 1, Kind: KindDecision, Nonce: repeat16(0x10), Seq: 4711, Prev: repeat16(0x80), Time: 1_790_000_000_120,
		Decision: &Decision{
			Outcome: Applied,
			Input: Input{Kind: InputReply, Topic: "shop.replies", Partition: 3, Offset: 9001, Low: 8990,
				MessageID: "0198c5a2-1111-7abc-8def-001122334455"},
			Instance: sampleID,
			FirstRow: 2,
			Entries: []Entry{
				{Kind: EntryDone, Time: 1_790_000_000_120, Step: "reserve-stock", Node: 1, Phase: Forward, Execution: 1, Attempt: 1},
				{Kind: EntryCommand, Time: 1_790_000_000_120, Step: "authorize", Node: 2, Phase: Forward, Execution: 1, Attempt: 1},
			},
			Rows: []RowChange{
				{Ref: RowRef{PartHead, 0}, Due: 1_790_000_600_000, WasDue: 1_790_000_600_000, Value: sampleHead().Encode(nil)},
				{Ref: RowRef{PartData, 0}, Value: []byte(`{"ID":"order-7","Lines":[{"sku":"A-1","n":2}],"Total":4200,"Warehouse":"north"}`)},
				{Ref: RowRef{PartNode, 0}, Value: (&NodeState{Status: NodeActive, Index: 1}).Encode(nil)},
				{Ref: RowRef{PartNode, 1}, WasDue: 1_790_000_030_000, Value: done.Encode(nil)},
				{Ref: RowRef{PartNode, 2}, Due: 1_790_000_030_120, Value: sampleNode().Encode(nil)},
			},
			Emits: []Emit{{Kind: EmitCommand, Topic: "payments.commands", Type: "Authorize", Step: "authorize", Node: 2, Execution: 1,
				Attempt: 1, Phase: Forward, Expiry: 1_790_000_030_120}},
		}}
}

// samples are what the golden files were written from: between them every field of every message.
func samples() map[string]interface{ Encode([]byte) []byte } {
	header := Record{Format: 1, Nonce: repeat16(0x10), Seq: 4712, Prev: repeat16(0x80), Time: 1_790_000_000_200}
	decision := func(d Decision) *Record {
		r := header
		r.Kind, r.Decision = KindDecision, &d
		return &r
	}
	claim := Claim{Node: "node-a", Generation: 17, Shards: 12, Slots: 768, Build: "v0.1.0"}
	positions := []Position{{Topic: "orders", TopicID: repeat16(0x40), Partition: 3, Low: 42}, {Topic: "shop.inbox", Low: 7}}
	emission := Progress{EmittedSeq: 4700, Emitted: []TopicProgress{{Topic: "payments.commands", Seq: 4711}}}
	carry, checkpoint := header, header
	carry.Kind, carry.Carry = KindCarry, &Carry{End: 4600, Rows: []CarriedRow{
		{Key: RowKey(sampleID, RowRef{PartHead, 0}), Due: 1_790_000_600_000, Value: sampleHead().Encode(nil)},
		{Key: RowKey(sampleID, RowRef{PartHistory, 0}), Value: (&Entry{Kind: EntryStarted, Time: 1_790_000_000_000, Message: "evt-7"}).Encode(nil)},
	}}
	checkpoint.Kind, checkpoint.Term = KindCheckpoint, 5
	checkpoint.Checkpoint = &Checkpoint{Claim: claim, Progress: emission, Origins: []Position{{Topic: "orders", Partition: 2, Low: 30}},
		Positions: append(positions[1:2:2], Position{Topic: "orders", TopicID: repeat16(0x40), Partition: 3, Low: 42, Ahead: []Span{{43, 45}, {300, 301}}})}
	all := map[string]interface{ Encode([]byte) []byte }{
		"claim":          &Record{Format: 1, Kind: KindClaim, Nonce: repeat16(0x10), Term: 5, Claim: &claim},
		"decision-reply": typicalDecision(),
		"decision-forwarded": decision(Decision{Outcome: Ignored, Reason: "stale-execution: 1 of 2", Instance: sampleID,
			Input: Input{Kind: InputReply, Topic: "shop.inbox", Partition: 3, Offset: 12, Low: 12, MessageID: "m-1",
				Origin: &Origin{Topic: "shop.replies", Partition: 1, Offset: 500, Low: 480}}}),
		"decision-timer": decision(Decision{Outcome: Applied, Instance: sampleID, FirstRow: 4,
			Input: Input{Kind: InputTimer, MessageID: "timer", Row: RowRef{PartNode, 2}, Due: 1_790_000_030_120},
			Entries: []Entry{
				{Kind: EntryUnknown, Time: 1_790_000_030_130, Step: "authorize", Node: 2, Phase: Forward, Execution: 1, Attempt: 1, Code: "timeout", Message: "no reply within 30s"},
				{Kind: EntryTransition, Time: 1_790_000_030_130, To: Compensating, Code: "timeout"},
			},
			Emits: []Emit{
				{Kind: EmitCommand, Topic: "payments.commands", Type: "VoidAuthorization", Step: "authorize", Node: 2, Execution: 1, Attempt: 1, Phase: Compensate},
				{Kind: EmitLifecycle, Topic: "shop.lifecycle", Type: "saga.compensating"},
			}}),
		"decision-purge":      decision(Decision{Outcome: Applied, Instance: sampleID, Purge: true, Input: Input{Kind: InputTimer, Row: RowRef{PartHead, 0}, Due: 1_790_000_900_000}}),
		"decision-quarantine": decision(Decision{Outcome: Quarantined, Reason: PoisonMissingKey, Input: Input{Kind: InputEvent, Topic: "orders", Offset: 5, Low: 6}}),
		"decision-progress":   decision(Decision{Outcome: Progressed, Progress: &Progress{Positions: positions, EmittedSeq: 4700, Emitted: emission.Emitted}}),
		"carry":               &carry,
		"checkpoint":          &checkpoint,
		"head":                sampleHead(),
		"head-parked": &Head{Definition: "place-order", Version: "1", Key: "order-7", State: Parked, ParkedIn: Compensating, Pivot: PivotDecided,
			Started: 1_790_000_000_000, Ended: 1_790_000_100_000, Entries: 40, Code: "undo-failed", Message: "authorize: 20 attempts: no answer", ParkedNode: 2,
			Cause: "declined", CauseMessage: "no funds", Held: 4},
		"node-step": sampleNode(),
		"node-full": &NodeState{Status: NodeUndoGap, Index: 2, Active: 3, Failed: true, Execution: 2, Attempts: 3, Rejected: 5, Payload: []byte("p"),
			Undo: &Obligation{Topic: "t", Type: "T", Payload: []byte("u"), Attempts: 4}, Answer: []byte("a"), HasAnswer: true, Expiry: 1_790_000_030_120, Held: true, NextHeld: 5},
		"entry": &Entry{Kind: EntryRejected, Time: 1_790_000_000_120, Step: "authorize", Node: 2, Phase: Forward, Execution: 1, Attempt: 2, Code: "declined", Message: "no funds", To: Compensating},
	}
	for name, sample := range samplesOfFormat2() {
		all["format-2/"+name] = sample
	}
	return all
}

// samplesOfFormat2 have what the first format has not: rows of other entities, rows that go one by one, inputs
// that several records answer, messages between entities, and the rows of loops, waits and actions.
func samplesOfFormat2() map[string]interface{ Encode([]byte) []byte } {
	decision := func(d Decision) *Record {
		return &Record{Format: 2, Kind: KindDecision, Nonce: repeat16(0x10), Seq: 4713, Prev: repeat16(0x80), Time: 1_790_000_000_300, Decision: &d}
	}
	trace := []Header{{HeaderTraceParent, []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}
	correlation := CorrelationID("shop", "place-order", "payments", "PaymentSettled", "pay-9", 12*SlotsPerShard)
	waiter := Waiter{Instance: sampleID, Node: 5, Execution: 2, Until: 1_790_000_400_000}
	offer := &InboxMessage{Kind: InboxOffer, To: sampleID, From: Waiter{Instance: sampleID, Node: 5, Execution: 2}, Correlation: correlation,
		EventID: "evt-8", Payload: []byte(`{"paid":4200}`), Time: 1_790_000_000_290}
	return map[string]interface{ Encode([]byte) []byte }{
		"decision-start-with-key": decision(Decision{Outcome: Applied, Instance: sampleID,
			Input:   Input{Kind: InputEvent, Topic: "orders", Partition: 3, Offset: 41, Low: 41, MessageID: "evt-7", More: true},
			Entries: []Entry{{Kind: EntryStarted, Time: 1_790_000_000_300, Message: "evt-7"}, {Kind: EntryEmitted, Time: 1_790_000_000_300, Step: "announce"}},
			Rows: []RowChange{
				{Ref: RowRef{PartHead, 0}, Value: sampleHead().Encode(nil)},
				{Of: KeyID("shop", "place-order", "order-7", 12*SlotsPerShard), Ref: RowRef{PartKey, 0}, Value: (&KeyState{Live: sampleID}).Encode(nil)},
				{Gone: true, Ref: RowRef{PartQueue, 3}, WasDue: 1_790_000_000_200},
			},
			Emits: []Emit{
				{Kind: EmitEvent, Topic: "order.events", Type: "OrderAccepted", Step: "announce", Node: 4, Payload: []byte(`{"order":"order-7"}`), Key: "order-7"},
				{Kind: EmitMessage, To: correlation, Payload: offer.Encode(nil)},
			}}),
		"decision-action": decision(Decision{Outcome: Applied, Instance: sampleID, FirstRow: 9,
			Input: Input{Kind: InputAction, Topic: "shop.inbox", Partition: 3, Offset: 13, Low: 13, MessageID: "act-1"},
			Entries: []Entry{
				{Kind: EntryAction, Time: 1_790_000_000_300, Step: "authorize", Code: string(ActionRetry), Who: "alice", Message: "bank is back"},
				{Kind: EntryRefused, Time: 1_790_000_000_300, Code: string(ActionCancel), Who: "alice", Message: "past the pivot"},
			},
			Rows: []RowChange{{Ref: RowRef{PartAnswer, AnswerNumber("act-1")}, Value: (&Answer{MessageID: "act-1", Done: true}).Encode(nil)}}}),
		"head-loop": &Head{Definition: "place-order", Version: "2", Key: "order-7", State: Suspended, ParkedIn: Running, Started: 1_790_000_000_000, Entries: 9,
			NextNode: 40, Partial: true, QueueFirst: 3, QueueNext: 5, Answers: 2, Waits: 6, Savepoint: "before-payment"},
		"node-loop": &NodeState{Status: NodeActive, Plan: 4, Up: 3, Turn: 2, Item: []byte(`{"sku":"A-1"}`), Prev: 12, Base: 16, Count: 3, Done: 1},
		"node-fork": &NodeState{Status: NodeClosing, Index: 2, Active: 1, Done: 2, Lost: 1, Count: 4},
		"node-wait": &NodeState{Status: NodeFailed, Execution: 2, Key: "pay-9", NextWait: 8, Code: "timeout", Message: "no event within 48h", Step: "settled"},
		"queued":    &Queued{Name: "approve", MessageID: "act-2", Payload: []byte(`{"ok":true}`), Who: "bob", Place: "shop.inbox/3/14", Time: 1_790_000_000_300},
		"answer":    &Answer{MessageID: "act-1", Done: true, Code: "queued", Message: "it waits for its turn", Time: 1_790_000_000_300},
		"key":       &KeyState{Definition: "place-order", Key: "order-7", Live: sampleID, Last: NewInstanceID("shop", "place-order", "order-7", "evt-1", 12*SlotsPerShard), LastState: Compensated, LastEnded: 1_789_000_000_000},
		"answer-key": &Answer{MessageID: "act-4", Done: true,
			Time: 1_790_000_000_300, Instance: sampleID},
		"queued-held": &Queued{Name: "approve", MessageID: "act-3", Payload: []byte(`{"ok":true}`), Who: "bob",
			Time: 1_790_000_000_300, Number: 7},
		"correlation": &Correlation{Definition: "place-order", Topic: "payments", Type: "PaymentSettled", Key: "pay-9",
			Waiting: []Waiter{{Instance: sampleID, Node: 5, Execution: 2}, {}},
			Events:  []BufferedEvent{{N: 3, ID: "evt-8", Until: 1_790_000_400_000, Offered: &waiter}, {ID: "evt-9"}},
			Seen:    []SeenEvent{{ID: "evt-6", Until: 1_790_000_300_000}}, Ended: []Waiter{waiter}},
		"event":        &KeptEvent{Value: []byte(`{"paid":4200}`), Time: 1_790_000_000_290},
		"event-traced": &KeptEvent{Value: []byte(`{}`), Trace: trace},
		"message-subscribe": &InboxMessage{Kind: InboxSubscribe, To: correlation, From: Waiter{Instance: sampleID, Node: 5, Execution: 2},
			Definition: "place-order", Topic: "payments", Type: "PaymentSettled", Key: "pay-9"},
		"message-offer":  offer,
		"message-traced": &InboxMessage{Kind: InboxOffer, To: sampleID, Correlation: correlation, EventID: "evt-8", Trace: trace},
		"message-action": &InboxMessage{Kind: InboxAction, To: sampleID, Action: &Action{ID: "act-1", Kind: ActionResolve, Who: "alice", Why: "paid by hand", Time: 1_790_000_000_200,
			Definition: "place-order", Key: "order-7", Step: "authorize", Name: "before-payment", Undo: true, Outcome: "done", Payload: []byte(`{"auth":"X"}`), PastPivot: true}},
	}
}

// decodeAs decodes by the name of a golden file, up to its first hyphen: a row, a message, or else a record.
func decodeAs(name string, b []byte) (interface{ Encode([]byte) []byte }, error) {
	switch kindOf(name) {
	case "head":
		return DecodeHead(b)
	case "node":
		return DecodeNode(b)
	case "entry":
		return DecodeEntry(b)
	case "queued":
		return DecodeQueued(b)
	case "answer":
		return DecodeAnswer(b)
	case "key":
		return DecodeKeyState(b)
	case "correlation":
		return DecodeCorrelation(b)
	case "event":
		return DecodeKeptEvent(b)
	case "message":
		return DecodeInboxMessage(b)
	}
	return DecodeRecord(b)
}

func kindOf(name string) string {
	kind, _, _ := strings.Cut(path.Base(name), "-")
	return kind
}

func readGolden(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(goldenDir, "*", "*.hex"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files in %s (%v)", goldenDir, err)
	}
	out := make(map[string][]byte, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name, err := filepath.Rel(goldenDir, strings.TrimSuffix(file, ".hex"))
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(filepath.ToSlash(name), "format-1/")] = b
	}
	return out
}

func writeGolden(t *testing.T) {
	for name, sample := range samples() {
		file := goldenFile(name) + ".hex"
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err == nil {
			continue
		}
		var text strings.Builder
		for b := sample.Encode(nil); len(b) > 0; {
			n := min(32, len(b))
			text.WriteString(hex.EncodeToString(b[:n]) + "\n")
			b = b[n:]
		}
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range readGolden(t) {
		v, err := decodeAs(name, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := os.WriteFile(goldenFile(name)+".txt", []byte(printed(reflect.ValueOf(v))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoldenFilesKeepTheirMeaningAndTheirBytes(t *testing.T) {
	if *rewrite {
		writeGolden(t)
	}
	for name, b := range readGolden(t) {
		v, err := decodeAs(name, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := os.ReadFile(goldenFile(name) + ".txt")
		if err != nil {
			t.Error(err)
		}
		if got := printed(reflect.ValueOf(v)); got != string(want) {
			t.Errorf("%s is read as\n%s\nnot as\n%s", name, got, want)
		}
		if again := v.Encode(nil); !bytes.Equal(again, b) {
			t.Errorf("%s is written again as\n%x\nnot as\n%x", name, again, b)
		}
	}
}

func TestTodaysEncoderWritesTheGoldenBytes(t *testing.T) {
	golden := readGolden(t)
	for name, sample := range samples() {
		if b, ok := golden[name]; !ok {
			t.Errorf("%s has no golden file: go test ./events -run Golden -rewrite", name)
		} else if got := sample.Encode(nil); !bytes.Equal(got, b) {
			t.Errorf("%s is written as\n%x\nnot as\n%x", name, got, b)
		}
	}
}

func TestDecodingGivesBackWhatWasEncoded(t *testing.T) {
	for name, sample := range samples() {
		got, err := decodeAs(name, sample.Encode(nil))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, sample) {
			t.Errorf("%s comes back as\n%+v\nnot as\n%+v", name, got, sample)
		}
	}
}
