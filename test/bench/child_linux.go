package main

import "syscall"

const maxrssUnit = 1024 // Linux counts in KiB

// childAttr: a child is killed when its parent dies, however it dies, and a Ctrl-C is for the parent alone.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
