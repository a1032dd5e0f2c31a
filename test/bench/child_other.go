//go:build unix && !linux

package main

import "syscall"

const maxrssUnit = 1

func childAttr() *syscall.SysProcAttr { return nil }
