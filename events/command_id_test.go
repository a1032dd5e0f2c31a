package events

import (
	"encoding/base64"
	"errors"
	"math"
	"strings"
	"testing"
)

var sampleCommand = CommandID{Instance: sampleID, Node: 2, Execution: 1, Attempt: 3, Phase: Compensate}

func TestCommandIDsComeBackWhole(t *testing.T) {
	for _, c := range []CommandID{
		sampleCommand,
		{Phase: Forward},
		{Instance: repeat16(0xf0), Node: math.MaxUint32, Execution: math.MaxUint32, Attempt: math.MaxUint32, Phase: Forward},
	} {
		text := c.Text("shop")
		got, err := ParseCommandID("shop", text)
		if err != nil || got != c {
			t.Errorf("%+v is printed as %q and read as %+v (%v)", c, text, got, err)
		}
		if len(text) > 56 {
			t.Errorf("%q has %d bytes", text, len(text))
		}
	}
	// Pinned: commands under way are answered to a later build.
	if got := sampleCommand.Text("shop"); got != "cAQABfyAg9W_r6pKlF-Jl8ZcCAQMC7aiZIg" {
		t.Errorf("the sample is now printed as %q", got)
	}
}

func TestOnlyTheOwnUndamagedTextOfACommandIDIsTaken(t *testing.T) {
	text := sampleCommand.Text("shop")
	bad := map[string]string{
		"of another application": sampleCommand.Text("bank"),
		"empty":                  "",
		"prefix alone":           "c",
		"without prefix":         text[1:],
		"of another prefix":      "d" + text[1:],
		"padded":                 text + "=",
		"with a line's end":      text + "\n",
		"longer":                 text + "AA",
		"huge":                   "c" + strings.Repeat("A", 1<<20),
	}
	for i := range text {
		bad["cut at "+text[:i]] = text[:i]
		damaged := []byte(text)
		damaged[i] ^= 1
		bad["damaged: "+string(damaged)] = string(damaged)
	}
	// With a checksum that fits, but not as Text prints it: whoever knows the format can do that.
	forge := func(change func(body []byte) []byte) string {
		raw, _ := base64.RawURLEncoding.DecodeString(text[1:])
		body := change(raw[: len(raw)-4 : len(raw)-4])
		sum := commandIDSum("shop", body)
		return "c" + base64.RawURLEncoding.EncodeToString(append(body, sum[:]...))
	}
	if got := forge(func(b []byte) []byte { return b }); got != text {
		t.Fatalf("the forger does not work: %q", got)
	}
	set := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	bad["of a newer version"] = forge(set(0, 2))
	bad["of phase 0"] = forge(set(len("v")+16+3, 0))
	bad["of phase 3"] = forge(set(len("v")+16+3, 3))
	bad["of a number too many"] = forge(func(b []byte) []byte { return append(b[:20:20], 1, 2) })
	bad["of a number too few"] = forge(func(b []byte) []byte { return append(b[:19:19], 2) })
	bad["of a padded number"] = forge(func(b []byte) []byte { return append(b[:17:17], 0x82, 0x00, 1, 3, 2) })
	bad["of a number beyond 32 bits"] = forge(func(b []byte) []byte { return append(b[:17:17], 0x80, 0x80, 0x80, 0x80, 0x10, 1, 3, 2) })
	bad["of an endless number"] = forge(func(b []byte) []byte {
		return append(b[:17:17], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 3, 2)
	})
	for why, s := range bad {
		c, err := ParseCommandID("shop", s)
		if !errors.Is(err, ErrCommandID) || c != (CommandID{}) {
			t.Errorf("an id %.80s is taken: %+v (%v)", why, c, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("an id %.80s gives an error of %d bytes", why, len(err.Error()))
		}
	}
}

func TestAnIdempotencyKeyIsTheSameForAllAttemptsAndNothingElse(t *testing.T) {
	base := CommandID{Instance: sampleID, Node: 2, Execution: 1, Attempt: 1, Phase: Forward}
	retry, edited, undo, other := base, base, base, base
	retry.Attempt = 2
	edited.Execution = 2
	undo.Phase = Compensate
	other.Instance[15]++
	key := base.IdempotencyKey("authorize")
	if want := sampleID.String() + "/authorize/1"; key != want {
		t.Errorf("the key is %q, not %q", key, want)
	}
	if retry.IdempotencyKey("authorize") != key {
		t.Error("another attempt has another key")
	}
	for why, k := range map[string]string{"a new execution": edited.IdempotencyKey("authorize"), "the undo": undo.IdempotencyKey("authorize"),
		"another instance": other.IdempotencyKey("authorize"), "another step": base.IdempotencyKey("capture")} {
		if k == key {
			t.Errorf("%s has the same key", why)
		}
	}
}
