package main

import "testing"

func TestTextFromOutsideCannotSteerATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"card-declined":      "card-declined",
		"Zürich ✓":           "Zürich ✓",
		"\x1b[2J\x1b]0;x\a":  `\x1b[2J\x1b]0;x\a`,
		"a\r\nb":             `a\r\nb`,
		"\u009b31m":          `\u009b31m`,
		"user\u202etxt.exe":  `user\u202etxt.exe`,
		"\xff\xfe":           `\xff\xfe`,
		"tab\there\x00":      `tab\there\x00`,
		"zero\u200bwidth":    `zero\u200bwidth`,
		"no-break\u00a0here": `no-break\u00a0here`,
	} {
		if got := sanitize(in, 0); got != want {
			t.Errorf("sanitize(%q) = %q, want %q", in, got, want)
		}
	}
	if got := sanitize("abcdef", 3); got != "abc…" {
		t.Errorf("bounded to 3 runes: %q", got)
	}
	if got := sanitize("abc", 3); got != "abc" {
		t.Errorf("what fits is left alone: %q", got)
	}
	if got, want := lines("one\ntwo\x1b[m"), "one\n  two\\x1b[m"; got != want {
		t.Errorf("lines: %q, want %q", got, want)
	}
}
