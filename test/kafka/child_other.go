//go:build !linux

package kafka

import "syscall"

const diesWithParent = false

func childAttr() *syscall.SysProcAttr { return nil }
