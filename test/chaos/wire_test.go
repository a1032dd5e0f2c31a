package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// wired gives both ends of a connection over a network that can be troubled.
func wired(t *testing.T) (w *wire, here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	w = &wire{}
	here = w.over(out)
	t.Cleanup(func() { here.Close(); there.Close() })
	return w, here, there
}

func TestALateNetworkDelivers(t *testing.T) {
	w, here, there := wired(t)
	w.set(30*time.Millisecond, false)
	began := time.Now()
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := here.Read(make([]byte, 1)); n != 1 || err != nil || time.Since(began) < 30*time.Millisecond {
		t.Errorf("%d bytes (%v) after %v", n, err, time.Since(began))
	}
	if n := w.set(0, false); n != 1 {
		t.Errorf("it says that %d reads were late", n)
	}
}

func TestADeafNodeSendsAndHearsNothing(t *testing.T) {
	w, here, there := wired(t)
	w.set(0, true)
	if _, err := here.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if n, err := there.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("what it sends does not arrive: %v", err)
	}
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := here.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it hears, or waits beyond its deadline: %v", err)
	}
	if n := w.set(0, false); n != 1 {
		t.Errorf("it says that %d reads were kept back", n)
	}
}

func TestAResetBreaksEveryConnection(t *testing.T) {
	w, here, there := wired(t)
	if n := w.reset(); n != 1 {
		t.Errorf("%d connections were broken, there is 1", n)
	}
	if _, err := there.Read(make([]byte, 1)); err == nil {
		t.Error("the other side goes on")
	}
	if _, err := here.Read(make([]byte, 1)); err == nil {
		t.Error("this side goes on")
	}
	if n := w.reset(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestOnlyARunThatCouldNotBeJudgedEndsWithTwo(t *testing.T) {
	for _, x := range []struct {
		err  error
		want int
	}{{errors.New("a node ended by itself"), 1}, {unjudged{errors.New("no broker")}, 2}, {context.Canceled, 2}} {
		if got := statusOf(fmt.Errorf("chaos: %w", x.err)); got != x.want {
			t.Errorf("%v: status %d, want %d", x.err, got, x.want)
		}
	}
}

func TestStrikesAreNamed(t *testing.T) {
	got, err := scheduleOf("pause,random", 2)
	if err != nil || len(got) != 4 || got[2] != "pause" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := scheduleOf("pause,typhoon", 1); err == nil {
		t.Error("it takes a trouble that nobody knows")
	}
	for _, what := range schedule {
		if _, err := scheduleOf(what, 1); err != nil {
			t.Error(err)
		}
	}
}
