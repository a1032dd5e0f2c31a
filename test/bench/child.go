package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// child is a copy of this program in another role. Its methods are used by one goroutine.
type child struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	said  chan string   // lines of its stdout
	ended chan struct{} // closed when it has ended
	err   error         // why; to be read after ended
}

// answer is the line a child says to each word it is told.
type answer struct {
	Error string          `json:"error,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

func spawn(o *options, mode string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: mode, said: make(chan string, 1), ended: make(chan struct{})}
	c.cmd = exec.Command(self, o.args(mode)...)
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = childAttr()
	// See orchestrator.LimitMemory. Of two values of a variable the last counts, so what is set already stays.
	c.cmd.Env = append([]string{"MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=16384"}, os.Environ()...)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() {
		// The kernel ties a child's life to the thread that forked it, so that thread has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			c.said <- lines.Text()
		}
		if c.err = c.cmd.Wait(); c.err == nil {
			c.err = errors.New("exit status 0")
		}
		close(c.ended)
	}()
	return c, <-started
}

// ask tells the child a word and waits for its answer.
func (c *child) ask(word string, into any) error { return c.askWithin(time.Minute, word, into) }

func (c *child) askWithin(patience time.Duration, word string, into any) error {
	if _, err := fmt.Fprintln(c.in, word); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	select {
	case line := <-c.said:
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return fmt.Errorf("%s said %q: %w", c.name, line, err)
		}
		if a.Error != "" {
			return fmt.Errorf("%s: %s", c.name, a.Error)
		}
		return json.Unmarshal(a.Value, into)
	case <-c.ended:
		return fmt.Errorf("the %s ended: %w", c.name, c.err)
	case <-time.After(patience):
		return fmt.Errorf("the %s did not answer %q within %s", c.name, word, patience)
	}
}

// stop ends the child: by the end of its input, and by force when that does not help.
func (c *child) stop() {
	c.in.Close()
	select {
	case <-c.ended:
	case <-time.After(15 * time.Second):
		c.cmd.Process.Kill()
		<-c.ended
	}
}

// serve answers words on stdin with lines on stdout, until stdin ends, which tells the child to end, or ended
// says that its work did.
func serve(ctx context.Context, ended <-chan error, on func(word string) (any, error)) error {
	words := make(chan string)
	go func() {
		defer close(words)
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			words <- in.Text()
		}
	}()
	out := json.NewEncoder(os.Stdout)
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("it ended by itself")
			}
			return err
		case <-ctx.Done():
			return nil
		case word, more := <-words:
			if !more {
				return nil
			}
			var a answer
			v, err := on(word)
			if err == nil {
				a.Value, err = json.Marshal(v)
			}
			if err != nil {
				a.Error = err.Error()
			}
			if err := out.Encode(a); err != nil {
				return err
			}
		}
	}
}

// sample is what a process says of itself.
type sample struct {
	CPU     int64 `json:"cpu_us"`   // user and system time since its start
	RSS     int64 `json:"rss"`      // resident now, in bytes; 0 where that is not known
	RSSPeak int64 `json:"rss_peak"` // and at most
}

func processSample() sample {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return sample{}
	}
	s := sample{CPU: int64(u.Utime.Sec+u.Stime.Sec)*1e6 + int64(u.Utime.Usec+u.Stime.Usec), RSSPeak: int64(u.Maxrss) * maxrssUnit}
	var pages, resident int64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if n, _ := fmt.Sscan(string(b), &pages, &resident); n == 2 {
			s.RSS = resident * int64(os.Getpagesize())
		}
	}
	return s
}

// counter adds up sizes, from any goroutine.
type counter struct{ n, bytes, headers atomic.Int64 }

// tally is a counter as read.
type tally struct {
	N       int64 `json:"n"`
	Bytes   int64 `json:"bytes"`
	Headers int64 `json:"headers"`
}

func (c *counter) add(size, headers int) {
	c.n.Add(1)
	c.bytes.Add(int64(size))
	c.headers.Add(int64(headers))
}

func (c *counter) read() tally { return tally{c.n.Load(), c.bytes.Load(), c.headers.Load()} }

// meanSince is the mean size of what was counted since an earlier reading.
func (t tally) meanSince(before tally) float64 {
	if t.N == before.N {
		return 0
	}
	return float64(t.Bytes-before.Bytes) / float64(t.N-before.N)
}

// headersSince is the mean number of headers of what was counted since an earlier reading.
func (t tally) headersSince(before tally) float64 {
	return per(float64(t.Headers-before.Headers), float64(t.N-before.N))
}
