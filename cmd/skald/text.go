package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// sanitize makes text from outside safe for a terminal: whatever is not printable, escape sequences and
// changes of direction included, is shown as Go would write it in a string. At most max runes are kept; 0
// is no bound.
func sanitize(s string, max int) string {
	var b strings.Builder
	for n := 0; len(s) > 0; n++ {
		if max > 0 && n == max {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x`)
			b.WriteString(hex2(s[0]))
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[size:]
	}
	return b.String()
}

func hex2(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

// lines is sanitize for text of several lines: errors that were joined.
func lines(s string) string {
	parts := strings.Split(s, "\n")
	for i := range parts {
		parts[i] = sanitize(parts[i], 0)
	}
	return strings.Join(parts, "\n  ")
}
