package telemetry

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// other stands for every value of a label beyond its bound.
const other = "other"

// maxLabel bounds a label's value, in bytes.
const maxLabel = 120

// names are the values of one label seen so far. What comes from outside, or from another build's journal, must
// not make series without end.
type names struct {
	mu   sync.RWMutex
	most int
	seen map[string]string
}

func newNames(most int) *names { return &names{most: most, seen: map[string]string{}} }

// of gives the label's value for a name: itself, made presentable, or other.
func (n *names) of(name []byte) string {
	n.mu.RLock()
	s, ok := n.seen[string(name)] // does not allocate
	n.mu.RUnlock()
	if ok {
		return s
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if s, ok := n.seen[string(name)]; ok {
		return s
	}
	if len(n.seen) >= n.most || len(name) > maxLabel {
		return other
	}
	s = valid(string(name))
	n.seen[string(name)] = s
	return s
}

// valid is s as it may be exported: protobuf refuses a whole batch for one string that is not UTF-8.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// planName is the step's name in its plan: a label in a loop has the turn in brackets behind it, and no name has
// brackets.
func planName(label string) string {
	if i := strings.IndexByte(label, '['); i >= 0 {
		return label[:i]
	}
	return label
}
