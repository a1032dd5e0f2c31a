package kafka

import "syscall"

const diesWithParent = true

// childAttr: the child is killed when its parent dies, however it dies, and a Ctrl-C at the terminal is for
// the parent alone, which then stops the child in its own way.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
