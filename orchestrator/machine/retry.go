package machine

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/sagas"
)

// Attempts of a policy that names no number.
const (
	stepAttempts      = 3
	retriableAttempts = 20
	undoAttempts      = 20
)

// Delays of a policy that names none.
const (
	defaultBackoff = 100 * time.Millisecond
	defaultCap     = time.Minute
)

// usedUp reports whether a policy allows no attempt after the given number.
func usedUp(p *sagas.Retry, byRole int, attempts uint32) bool {
	most := p.Attempts
	if most == 0 {
		most = byRole
	}
	return most > 0 && int64(attempts) >= int64(most)
}

func attemptsOf(r sagas.Role) int {
	if r == sagas.Compensatable {
		return stepAttempts
	}
	return retriableAttempts
}

func final(p *sagas.Retry, code string) bool { return code != "" && slices.Contains(p.NotCodes, code) }

// delay is the time in ms between attempt and the next: the backoff doubled for each attempt made, at most
// the cap, spread evenly over ± jitter by a hash, so that neighbours do not come back together and a
// second owner computes the same.
func delay(p *sagas.Retry, id events.InstanceID, node uint32, phase events.Phase, attempt uint32) int64 {
	base, limit := p.Backoff, p.Cap
	if base <= 0 {
		base = defaultBackoff
	}
	if limit <= 0 {
		limit = max(defaultCap, base)
	}
	d := limit
	if n := attempt - 1; n < 62 && base <= limit>>n {
		d = base << n
	}
	ms := max(millis(d), 1)
	spread := ms / 1000 * int64(1000*p.Jitter)
	if ms < 1<<40 {
		spread = ms * int64(1000*p.Jitter) / 1000
	}
	if spread <= 0 {
		return ms
	}
	spread = min(spread, ms)
	return ms - spread + int64(hash(id, node, phase, attempt)%uint64(2*spread+1))
}

// hash is FNV-1a of 64 bits, finished by the mixer of splitmix64 so that its low bits are even.
func hash(id events.InstanceID, node uint32, phase events.Phase, attempt uint32) uint64 {
	var b [25]byte
	copy(b[:], id[:])
	binary.BigEndian.PutUint32(b[16:], node)
	b[20] = byte(phase)
	binary.BigEndian.PutUint32(b[21:], attempt)
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
