package events

import (
	"bytes"
	"testing"
)

func TestRowKeysSortByInstancePartAndNumber(t *testing.T) {
	low, high := sampleID, sampleID
	high[15]++
	var before []byte
	for _, id := range []InstanceID{low, high} {
		for _, ref := range []RowRef{{PartHead, 0}, {PartData, 0}, {PartNode, 0}, {PartNode, 255}, {PartNode, 256}, {PartHistory, 1<<64 - 1}} {
			k := RowKey(id, ref)
			if bytes.Compare(before, k) >= 0 {
				t.Errorf("the key of %v sorts before the one of a lower row", ref)
			}
			before = k
			gotID, gotRef, ok := ParseRowKey(k)
			if !ok || gotID != id || gotRef != ref {
				t.Errorf("the key of %s %v is read as %s %v %v", id, ref, gotID, gotRef, ok)
			}
			from, to := InstanceRange(id)
			if bytes.Compare(k, from) < 0 || bytes.Compare(k, to) >= 0 {
				t.Errorf("the key of %v lies outside its instance's range", ref)
			}
			if other, _ := InstanceRange(high); id == low && bytes.Compare(k, other) >= 0 {
				t.Errorf("the key of %v lies in the next instance's range", ref)
			}
		}
	}
}

func TestTheRangeOfTheLastInstanceEndsWithItsFamily(t *testing.T) {
	var last InstanceID
	for i := range last {
		last[i] = 0xff
	}
	from, to := InstanceRange(last)
	k := RowKey(last, RowRef{255, 1<<64 - 1})
	if bytes.Compare(from, k) > 0 || bytes.Compare(k, to) >= 0 || !bytes.Equal(to, []byte{FamilyInstance + 1}) {
		t.Errorf("range %x to %x", from, to)
	}
}

func TestForeignKeysAreNotReadAsRowKeys(t *testing.T) {
	k := RowKey(sampleID, RowRef{PartNode, 1})
	for _, bad := range [][]byte{nil, k[:25], append(bytes.Clone(k), 0), append([]byte{FamilyTimer}, k[1:]...)} {
		if _, _, ok := ParseRowKey(bad); ok {
			t.Errorf("%x is read as a row's key", bad)
		}
	}
}

func TestOnlyThreeStatesAreFinal(t *testing.T) {
	for s := State(0); s < 12; s++ {
		if want := s == Completed || s == Compensated || s == Terminated; s.Final() != want {
			t.Errorf("%s: final is %v", s, s.Final())
		}
	}
}

func TestEveryValueHasAName(t *testing.T) {
	for name, got := range map[string]string{
		"running": Running.String(), "terminated": Terminated.String(), "state-9": State(9).String(),
		"forward": Forward.String(), "compensate": Compensate.String(), "phase-0": Phase(0).String(),
		"claim": KindClaim.String(), "checkpoint": KindCheckpoint.String(), "kind-5": Kind(5).String(),
		"started": EntryStarted.String(), "discharged": EntryDischarged.String(), "entry-0": EntryKind(0).String(), "entry-99": EntryKind(99).String(),
		"active": NodeActive.String(), "undone": NodeUndone.String(), "closing": NodeClosing.String(), "status-0": NodeStatus(0).String(), "status-99": NodeStatus(99).String(),
		"chosen": EntryChosen.String(), "scope": EntryScope.String(), "action": EntryAction.String(), "queued": EntryQueued.String(), "undelivered": EntryUndelivered.String(),
		"queue": PartQueue.String(), "answer": PartAnswer.String(), "correlation": PartCorrelation.String(), "key": PartKey.String(),
		"subscribe": InboxSubscribe.String(), "unsubscribe": InboxUnsubscribe.String(), "offer": InboxOffer.String(), "taken": InboxTaken.String(), "message-0": InboxKind(0).String(), "denied": InboxDenied.String(), "message-8": InboxKind(8).String(),
		"head": PartHead.String(), "history": PartHistory.String(), "part-0": Part(0).String(),
		"applied": Applied.String(), "progress": Progressed.String(), "outcome-0": Outcome(0).String(),
		"event": InputEvent.String(), "refused": InputRefused.String(), "command": EmitCommand.String(), "lifecycle": EmitLifecycle.String(), "emit-0": EmitKind(0).String(), "input-77": InputKind(77).String(), "message": InputMessage.String(),
		"done": ReplyDone.String(), "outcome-9": ReplyOutcome(9).String(),
	} {
		if got != name {
			t.Errorf("%q is named %q", name, got)
		}
	}
}
