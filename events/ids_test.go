package events

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestMurmur2IsThatOfKafkasJavaClient(t *testing.T) {
	// From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, in Java %d", key, got, want)
		}
	}
}

func TestATopicKeyedByTheBusinessKeyLinesUpWithTheShards(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 12, 100, MaxShards} {
		for _, key := range []string{"", "a", "order-1", "order-2", "€uro", strings.Repeat("k", 1000)} {
			id := NewInstanceID("shop", "place-order", key, "m", shards*SlotsPerShard)
			partition := int32(murmur2([]byte(key))&0x7fffffff) % int32(shards) // Java's default partitioner
			if got := id.Shard(shards); got != partition {
				t.Errorf("key %.10q: shard %d of %d, and partition %d", key, got, shards, partition)
			}
		}
	}
}

func TestInstanceIDsDifferInWhateverNamesThem(t *testing.T) {
	slots := 4 * SlotsPerShard
	seen := map[InstanceID][4]string{}
	for _, x := range [][4]string{
		{"shop", "place-order", "order-1", "m-1"},
		{"shop", "place-order", "order-1", "m-2"}, // started again
		{"shop", "place-order", "order-2", "m-1"},
		{"shop", "return-order", "order-1", "m-1"},
		{"bank", "place-order", "order-1", "m-1"},
		{"shop", "place-order", "order-1m", "-1"}, // the same letters, otherwise divided
		{"shopplace-order", "", "order-1", "m-1"},
	} {
		id := NewInstanceID(x[0], x[1], x[2], x[3], slots)
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q are both %s", x, other, id)
		}
		seen[id] = x
		if id != NewInstanceID(x[0], x[1], x[2], x[3], slots) {
			t.Errorf("%q: the same message gave another id", x)
		}
		if id.IsZero() || int(id.Slot()) != int(Slot([]byte(x[2]), slots)) {
			t.Errorf("%q: slot %d", x, id.Slot())
		}
	}
	// Pinned: ids of instances that run must not change with a build.
	if got := NewInstanceID("shop", "place-order", "order-1", "m-1", 768).String(); got != "01f6e7d94e97419b6d82431bcbaf7d2b" {
		t.Errorf("the id of the first instance is now %s", got)
	}
}

func TestInstanceIDsSurviveText(t *testing.T) {
	b, err := json.Marshal(sampleID)
	if err != nil {
		t.Fatal(err)
	}
	var id InstanceID
	if err := json.Unmarshal(b, &id); err != nil || id != sampleID {
		t.Errorf("%s came back as %s (%v)", sampleID, id, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("g", 32), strings.Repeat("é", 16)} {
		if id, err := ParseInstanceID(bad); !errors.Is(err, ErrInstanceID) || !id.IsZero() {
			t.Errorf("%q is read as %s (%v)", bad, id, err)
		}
	}
}
