package events

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/skald-io/skald/internal/mutant"
)

// Phase tells a step's effect from its compensation.
type Phase uint8

const (
	Forward    Phase = 1
	Compensate Phase = 2
)

func (p Phase) String() string {
	switch p {
	case Forward:
		return "forward"
	case Compensate:
		return "compensate"
	}
	return "phase-" + strconv.Itoa(int(p))
}

// CommandID is the id of one attempt of a step, and its own return address: a reply that names it finds
// its instance from any partition of any topic, without a look-up.
type CommandID struct {
	Instance  InstanceID
	Node      uint32 // the step's node in the plan
	Execution uint32 // from 1; a retry with edited input is another execution, under another idempotency key
	Attempt   uint32 // from 1, within the execution and phase
	Phase     Phase
}

const commandIDVersion = 1

// Lengths of what is printed, at most.
const (
	maxCommandID      = 1 + (1+16+3*binary.MaxVarintLen32+1+4)*4/3 + 1
	maxIdempotencyKey = 32 + 1 + 1 + 10 + len("/undo") // without the step's name
)

// commandIDEncoding refuses what it would not have printed itself.
var commandIDEncoding = base64.RawURLEncoding.Strict()

// Text prints the id as it stands in ce_id: "c" and the unpadded URL-safe base64 of a version byte, the
// instance, node, execution and attempt as varints, the phase, and four bytes of checksum over all of
// that and the application's name. The checksum finds ids of other applications and damaged ones; it is
// not a secret.
func (c CommandID) Text(app string) string {
	return string(c.appendText(make([]byte, 0, 64), app))
}

func (c CommandID) appendText(dst []byte, app string) []byte {
	b := c.appendBody(make([]byte, 0, 40))
	sum := commandIDSum(app, b)
	return base64.RawURLEncoding.AppendEncode(append(dst, 'c'), append(b, sum[:]...))
}

// appendBody appends what the checksum is over, beside the application's name.
func (c CommandID) appendBody(b []byte) []byte {
	b = append(b, commandIDVersion)
	b = append(b, c.Instance[:]...)
	b = binary.AppendUvarint(b, uint64(c.Node))
	b = binary.AppendUvarint(b, uint64(c.Execution))
	b = binary.AppendUvarint(b, uint64(c.Attempt))
	return append(b, byte(c.Phase))
}

func commandIDSum(app string, b []byte) [4]byte {
	in := append(append(append(make([]byte, 0, 128), app...), 0), b...)
	h := sha256.Sum256(in)
	return [4]byte(h[:4])
}

// ErrCommandID says that a text is not a command id of the application.
var ErrCommandID = errors.New("not a command id of this application")

// ParseCommandID reads what Text printed for the same application. Any other text gets an error that
// wraps ErrCommandID.
func ParseCommandID(app, s string) (CommandID, error) { return parseCommandID(app, []byte(s)) }

func parseCommandID(app string, s []byte) (CommandID, error) {
	var c CommandID
	bad := func(why string) (CommandID, error) {
		return CommandID{}, fmt.Errorf("%w: %.64q: %s", ErrCommandID, s, why)
	}
	const most = 80
	if len(s) < 1 || s[0] != 'c' || len(s) > 1+most || bytes.ContainsAny(s, "\r\n") { // the decoder passes over line ends
		return bad("wrong shape")
	}
	var buf [most * 3 / 4]byte
	n, err := commandIDEncoding.Decode(buf[:], s[1:])
	b := buf[:n]
	if err != nil || len(b) < 1+16+3+1+4 {
		return bad("wrong shape")
	}
	body := b[:len(b)-4]
	if commandIDSum(app, body) != [4]byte(b[len(b)-4:]) && !mutant.On("events-command-id-unchecked") {
		return bad("the checksum does not match")
	}
	if body[0] != commandIDVersion {
		return bad("a newer version of ids")
	}
	copy(c.Instance[:], body[1:17])
	rest2 := body[17 : len(body)-1]
	for _, p := range []*uint32{&c.Node, &c.Execution, &c.Attempt} {
		v, n := binary.Uvarint(rest2)
		if n <= 0 || v > 1<<32-1 {
			return bad("wrong shape")
		}
		*p, rest2 = uint32(v), rest2[n:]
	}
	c.Phase = Phase(body[len(body)-1])
	if len(rest2) != 0 || (c.Phase != Forward && c.Phase != Compensate) || !bytes.Equal(c.appendBody(make([]byte, 0, 40)), body) {
		return bad("wrong shape")
	}
	return c, nil
}

// IdempotencyKey names the effect that a participant must apply at most once: the same for every attempt
// of one execution, another one for its compensation. step is the step's name.
func (c CommandID) IdempotencyKey(step string) string {
	return string(c.appendIdempotencyKey(make([]byte, 0, 64), step))
}

func (c CommandID) appendIdempotencyKey(k []byte, step string) []byte {
	k = hex.AppendEncode(k, c.Instance[:])
	k = append(append(append(k, '/'), step...), '/')
	k = strconv.AppendUint(k, uint64(c.Execution), 10)
	if mutant.On("events-idempotency-key-per-attempt") {
		k = strconv.AppendUint(append(k, '.'), uint64(c.Attempt), 10)
	}
	if c.Phase == Compensate {
		k = append(k, "/undo"...)
	}
	return k
}
