package events

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/skald-io/skald/internal/mutant"
)

// SlotsPerShard is how many slots an application has for each shard it is created with. The number of
// slots never changes afterwards, so that shards can be split later without touching an instance.
const SlotsPerShard = 64

// MaxShards is the largest number of shards of one application: a slot is written in two bytes.
const MaxShards = 65536 / SlotsPerShard

// InstanceID names one saga instance: two bytes of slot (big endian), then fourteen bytes of hash. It is
// printed as 32 lower-case hexadecimal digits. The zero value names no instance.
type InstanceID [16]byte

// NewInstanceID derives the id of the instance that the message messageID starts (rule L18): a hash of
// application, definition, business key and starting message, so that the same business key started
// again is another instance, and the same message delivered again is the same one. slots is the
// application's number of slots, from SlotsPerShard to 65,536.
func NewInstanceID(app, definition, key, messageID string, slots int) InstanceID {
	if mutant.On("events-instance-without-message") {
		messageID = ""
	}
	return entityID(key, slots, app, definition, key, messageID)
}

// CorrelationID is the id of the entity that keeps, for one definition, the events of a topic and type that
// carry one correlation key, and the waits for them (rule L20). It lives in the slot of that key.
func CorrelationID(app, definition, topic, typ, key string, slots int) InstanceID {
	return entityID(key, slots, app, "correlation", definition, topic, typ, key)
}

// KeyID is the id of the entity that knows the live instance of a definition for a business key. It lives in
// the slot of that key, as the instance does.
func KeyID(app, definition, key string, slots int) InstanceID {
	return entityID(key, slots, app, "key", definition, key, "")
}

// entityID hashes parts, each with its length before it, into the slot of key.
func entityID(key string, slots int, parts ...string) InstanceID {
	h := sha256.New()
	for _, s := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	var sum [32]byte
	h.Sum(sum[:0])
	var id InstanceID
	copy(id[2:], sum[:])
	binary.BigEndian.PutUint16(id[:], Slot([]byte(key), slots))
	return id
}

// Slot is the slot the instance lives in.
func (id InstanceID) Slot() uint16 { return binary.BigEndian.Uint16(id[:]) }

// Shard is the shard the instance lives on, of shards in all.
func (id InstanceID) Shard(shards int) int32 { return int32(int(id.Slot()) % shards) }

// IsZero reports whether id names no instance.
func (id InstanceID) IsZero() bool { return id == InstanceID{} }

func (id InstanceID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText makes ids readable in JSON.
func (id InstanceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseInstanceID.
func (id *InstanceID) UnmarshalText(b []byte) error {
	p, err := ParseInstanceID(string(b))
	*id = p
	return err
}

// ErrInstanceID says that a text is not an instance id.
var ErrInstanceID = errors.New("an instance id is 32 hexadecimal digits")

// ParseInstanceID reads what String printed.
func ParseInstanceID(s string) (InstanceID, error) {
	var id InstanceID
	if len(s) != 32 {
		return id, fmt.Errorf("%w, not %.40q", ErrInstanceID, s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return InstanceID{}, fmt.Errorf("%w, not %.40q", ErrInstanceID, s)
	}
	return id, nil
}

// Slot hashes a business key to one of slots slots, by the murmur2 of Kafka's Java client, so that a
// topic keyed by the business key, with as many partitions as there are shards, needs no forwarding.
func Slot(key []byte, slots int) uint16 {
	return uint16(int(murmur2(key)&0x7fffffff) % slots)
}

// murmur2 is the 32-bit MurmurHash2 with the seed of org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for len(b) >= 4 {
		k := binary.LittleEndian.Uint32(b)
		b = b[4:]
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
