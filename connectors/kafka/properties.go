package kafka

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// property is one entry of a Java properties file.
type property struct {
	key, value string
	line       int
}

// parseProperties reads what java.util.Properties reads: ISO-8859-1, comments with # and !, lines continued
// by a backslash, and its escapes. A later entry of a key is one more entry.
func parseProperties(data []byte) ([]property, error) {
	// Logical lines first: without comments, blank lines and continuations, which an odd number of
	// backslashes at the end makes.
	var out []property
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data)), "\n")
	for i := 0; i < len(lines); i++ {
		at := i + 1
		line := strings.TrimLeft(lines[i], " \t\f")
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		var whole strings.Builder
		for {
			n := len(line) - len(strings.TrimRight(line, `\`))
			if n%2 == 0 {
				whole.WriteString(line)
				break
			}
			whole.WriteString(line[:len(line)-1])
			if i++; i == len(lines) {
				break
			}
			line = strings.TrimLeft(lines[i], " \t\f")
		}
		p, err := parseProperty(whole.String())
		if err != nil {
			return nil, &propertiesError{at, err}
		}
		p.line = at
		out = append(out, p)
	}
	return out, nil
}

type propertiesError struct {
	line int
	err  error
}

func (e *propertiesError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }

// parseProperty splits at the first =, : or white space that no backslash precedes.
func parseProperty(s string) (p property, err error) {
	end, i := len(s), 0
	for ; i < len(s); i++ {
		if s[i] == '\\' {
			i++
			continue
		}
		if strings.IndexByte("=: \t\f", s[i]) >= 0 {
			end = i
			break
		}
	}
	rest := strings.TrimLeft(s[end:], " \t\f")
	if rest != "" && (rest[0] == '=' || rest[0] == ':') {
		rest = strings.TrimLeft(rest[1:], " \t\f")
	}
	if p.key, err = unescapeProperty(s[:end]); err != nil {
		return p, err
	}
	p.value, err = unescapeProperty(rest)
	return p, err
}

func unescapeProperty(s string) (string, error) {
	// As UTF-16, as Java has it: an escape may be half of a character.
	out := make([]uint16, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\\' || i+1 == len(s) {
			if c != '\\' {
				out = append(out, uint16(c)) // ISO-8859-1
			}
			continue
		}
		i++
		switch c = s[i]; c {
		case 't':
			c = '\t'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 'f':
			c = '\f'
		case 'u':
			if len(s)-i <= 4 {
				return "", errors.New(`a \u has fewer than four digits behind it`)
			}
			n, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", errors.New(`a \u has no four hexadecimal digits behind it`)
			}
			out = append(out, uint16(n))
			i += 4
			continue
		}
		out = append(out, uint16(c))
	}
	return string(utf16.Decode(out)), nil
}

// jaas is one entry of a JAAS configuration as sasl.jaas.config has it.
type jaas struct {
	module  string
	options map[string]string
}

// parseJAAS reads `org.example.Module required name="value" ... ;` as Kafka's JaasConfig does, with the
// quirks of java.io.StreamTokenizer: values in single or double quotes with C's escapes; a bare value is a
// word, and so must not begin with a digit; / begins a comment.
func parseJAAS(s string) (j jaas, err error) {
	t := &jaasTokens{s: s}
	next := func() (jaasToken, error) { return t.next() }
	tok, err := next()
	if err != nil {
		return j, err
	}
	if tok.kind != jaasWord {
		return j, errors.New("it does not begin with the class of a login module")
	}
	j.module, j.options = tok.text, map[string]string{}
	if tok, err = next(); err != nil {
		return j, err
	}
	switch strings.ToLower(tok.text) {
	case "required", "requisite", "sufficient", "optional":
	default:
		return j, errors.New(`"required" does not stand behind the login module`)
	}
	for {
		key, err := next()
		if err != nil {
			return j, err
		}
		switch key.kind {
		case ';':
			if tok, err = next(); err != nil {
				return j, err
			}
			if tok.kind != jaasEnd {
				return j, errors.New("it has more than one login module")
			}
			return j, nil
		case jaasEnd:
			return j, errors.New("it does not end with a semicolon")
		case jaasWord, jaasString:
		default:
			return j, errors.New("an option's name is missing; quote values that are not plain words")
		}
		eq, err := next()
		if err != nil {
			return j, err
		}
		value, verr := next()
		if verr != nil {
			return j, verr
		}
		if eq.kind != '=' || value.kind != jaasWord && value.kind != jaasString {
			return j, fmt.Errorf("option %.40q has no value; quote it", key.text)
		}
		j.options[key.text] = value.text
	}
}

const (
	jaasEnd = iota
	jaasWord
	jaasString
	jaasNumber // any other kind is the character itself
)

type jaasToken struct {
	kind int
	text string
}

type jaasTokens struct {
	s string
	i int
}

func (t *jaasTokens) next() (jaasToken, error) {
	for t.i < len(t.s) {
		c := t.s[t.i]
		switch {
		case c <= ' ':
			t.i++
		case c == '/' && strings.HasPrefix(t.s[t.i:], "/*"):
			n := strings.Index(t.s[t.i+2:], "*/")
			if n < 0 {
				t.i = len(t.s)
			} else {
				t.i += n + 4
			}
		case c == '/':
			n := strings.IndexAny(t.s[t.i:], "\r\n")
			if n < 0 {
				t.i = len(t.s)
			} else {
				t.i += n
			}
		case c == '"' || c == '\'':
			return t.quoted(c)
		case jaasLetter(c) && c != '-':
			from := t.i
			for t.i < len(t.s) && (jaasLetter(t.s[t.i]) || t.s[t.i] == '.' || t.s[t.i] >= '0' && t.s[t.i] <= '9') {
				t.i++
			}
			return jaasToken{jaasWord, t.s[from:t.i]}, nil
		case c >= '0' && c <= '9' || c == '.' || c == '-':
			for t.i++; t.i < len(t.s) && (t.s[t.i] == '.' || t.s[t.i] >= '0' && t.s[t.i] <= '9'); {
				t.i++
			}
			return jaasToken{kind: jaasNumber}, nil
		default:
			t.i++
			return jaasToken{kind: int(c)}, nil
		}
	}
	return jaasToken{kind: jaasEnd}, nil
}

func jaasLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-' || c == '$' || c >= 0xa0
}

func (t *jaasTokens) quoted(quote byte) (jaasToken, error) {
	var b strings.Builder
	for t.i++; t.i < len(t.s); t.i++ {
		c := t.s[t.i]
		switch {
		case c == quote:
			t.i++
			return jaasToken{jaasString, b.String()}, nil
		case c == '\n' || c == '\r':
			return jaasToken{}, errors.New("a quote is not closed on its line")
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		if t.i++; t.i == len(t.s) {
			break
		}
		switch c = t.s[t.i]; c {
		case 'a':
			b.WriteByte(7)
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'v':
			b.WriteByte('\v')
		default:
			if c < '0' || c > '7' {
				b.WriteByte(c)
				continue
			}
			n, most := 0, 3 // octal, up to 377
			if c > '3' {
				most = 2
			}
			k := 0
			for ; k < most && t.i+k < len(t.s) && t.s[t.i+k] >= '0' && t.s[t.i+k] <= '7'; k++ {
				n = n*8 + int(t.s[t.i+k]-'0')
			}
			b.WriteRune(rune(n))
			t.i += k - 1
		}
	}
	return jaasToken{}, errors.New("a quote is not closed")
}
