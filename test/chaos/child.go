package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	log   string        // the file with its stderr
}

// spawn starts a child. Its stderr goes to a file in logs.
func spawn(name, logs string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return spawnOf(self, name, logs, env...)
}

// spawnOf starts a child from another build of this program.
func spawnOf(program, name, logs string, env ...string) (*child, error) {
	var err error
	c := &child{name: name, said: make(chan string, 64), ended: make(chan struct{}), log: filepath.Join(logs, name+".log")}
	stderr, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	c.cmd = exec.Command(program)
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stderr = stderr
	c.cmd.SysProcAttr = childAttr()
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
		defer stderr.Close()
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
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

func (c *child) tell(format string, args ...any) error {
	_, err := fmt.Fprintf(c.in, format+"\n", args...)
	return err
}

func (c *child) signal(s syscall.Signal) error { return c.cmd.Process.Signal(s) }

// kill is SIGKILL; it returns when the process is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	for {
		select {
		case <-c.said: // so that its end is seen
		case <-c.ended:
			return
		}
	}
}

// term asks the child to end, and kills it when it does not.
func (c *child) term(timeout time.Duration) error {
	_ = c.signal(syscall.SIGTERM)
	late := time.After(timeout)
	for {
		select {
		case <-c.said:
		case <-c.ended:
			if c.cmd.ProcessState.Success() {
				return nil
			}
			return fmt.Errorf("%s: %w (%s)", c.name, c.err, c.log)
		case <-late:
			c.kill()
			return fmt.Errorf("%s did not end within %v of SIGTERM (%s)", c.name, timeout, c.log)
		}
	}
}

func (c *child) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}
