package machine

import (
	"fmt"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/skald-io/skald/events"
	"github.com/skald-io/skald/internal/mutant"
)

// try runs a user function. The answer is empty when all went well, else the error's text, or the panic's
// and its stack, at most events.MaxMessage bytes.
func try(fn func() error) (trouble string) {
	defer func() {
		if p := recover(); p != nil {
			if mutant.On("machine-panic-escapes") {
				panic(p)
			}
			trouble = events.Cut(clean("panic: "+said(p)+"\n"+stack()), events.MaxMessage)
		}
	}()
	if err := fn(); err != nil {
		return events.Cut(clean(text(err)), events.MaxMessage)
	}
	return ""
}

// said prints what was panicked with; a value that could print an address is named by its type alone.
func said(p any) string {
	switch p.(type) {
	case error, string, fmt.Stringer, int, bool:
		return fmt.Sprint(p)
	}
	return fmt.Sprintf("a %T", p)
}

// text is err.Error(), never empty.
func text(err error) string {
	if s := err.Error(); s != "" {
		return s
	}
	return "an error without a text"
}

// clean makes text of whatever a user function said.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// stack names the functions under a panic with file and line, innermost first. It holds no goroutine and
// no address, so that the same panic gives the same text.
func stack() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	var b strings.Builder
	for {
		f, more := frames.Next()
		switch {
		case strings.HasSuffix(f.Function, "/machine.try"):
			return b.String()
		case strings.HasPrefix(f.Function, "runtime."):
		default:
			dir, file := path.Split(f.File)
			b.WriteString(f.Function + " " + path.Join(path.Base(dir), file) + ":" + strconv.Itoa(f.Line) + "\n")
		}
		if !more {
			return b.String()
		}
	}
}
