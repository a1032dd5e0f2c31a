package store

import (
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/skald-io/skald/internal/mutant"
)

// freezer is a file system that stops at the first write that fails: from then on nothing reaches the
// disk, and everything that writes is told that it did. On disk it looks as if the process had been killed
// at that moment, which Pebble recovers from by design.
//
// Why lie to Pebble (as of v2.1.7): when its write-ahead log fails it panics in such a way that a deferred
// unlock of a mutex not held ends the process, whoever recovers; on a failing manifest it calls Fatalf; a
// failing flush it tries again without a pause; and of a failed log write it learns only when a later block of
// 32 KiB fills up. With the lie it closes in an orderly way, and the store knows at once.
//
// An operation that began before the freeze may still end after it. One that began because another one had
// returned does not: the freeze is set before the failing operation returns.
//
// Failing reads are passed on. Files that were created after the freeze do not exist.
type freezer struct {
	vfs.FS
	frozen atomic.Bool
	onFail func(error) // called for every failing write
}

func (f *freezer) freeze() { f.frozen.Store(true) }

// write runs a writing operation, unless frozen; its error freezes.
func (f *freezer) write(name, op string, do func() error) {
	if f.frozen.Load() {
		return
	}
	if err := do(); err != nil {
		f.failed(name, op, err)
	}
}

func (f *freezer) failed(name, op string, err error) {
	if mutant.On("store-blind-to-write-errors") {
		return
	}
	// The cause is told before anything can be noticed to be missing.
	f.onFail(fmt.Errorf("%s %s: %w", op, name, err))
	f.freeze()
}

// file hides where a file comes from: a failed or refused creation gives one that swallows what is written.
func (f *freezer) file(name, op string, open func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	f.write(name, op, func() (err error) {
		file, err = open()
		return err
	})
	if file == nil {
		return nowhere{}, nil
	}
	return &freezingFile{file, f, name}, nil
}

func (f *freezer) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(name, "create", func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *freezer) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.file(name, "open", func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *freezer) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(to, "reuse", func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) })
}

func (f *freezer) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &freezingFile{d, f, name}, nil
}

func (f *freezer) Link(from, to string) error {
	f.write(to, "link", func() error { return f.FS.Link(from, to) })
	return nil
}

func (f *freezer) Rename(from, to string) error {
	f.write(to, "rename", func() error { return f.FS.Rename(from, to) })
	return nil
}

func (f *freezer) MkdirAll(dir string, perm fs.FileMode) error {
	f.write(dir, "mkdir", func() error { return f.FS.MkdirAll(dir, perm) })
	return nil
}

// A file that cannot be removed harms nobody, so that is no reason to stop.

func (f *freezer) Remove(name string) error {
	if f.frozen.Load() {
		return nil
	}
	return f.FS.Remove(name)
}

func (f *freezer) RemoveAll(name string) error {
	if f.frozen.Load() {
		return nil
	}
	return f.FS.RemoveAll(name)
}

func (f *freezer) Unwrap() vfs.FS { return f.FS }

type freezingFile struct {
	vfs.File
	fs   *freezer
	name string
}

func (f *freezingFile) Write(p []byte) (int, error) {
	f.fs.write(f.name, "write", func() error { _, err := f.File.Write(p); return err })
	return len(p), nil
}

func (f *freezingFile) WriteAt(p []byte, at int64) (int, error) {
	f.fs.write(f.name, "write", func() error { _, err := f.File.WriteAt(p, at); return err })
	return len(p), nil
}

func (f *freezingFile) Sync() error {
	f.fs.write(f.name, "sync", f.File.Sync)
	return nil
}

func (f *freezingFile) SyncData() error {
	f.fs.write(f.name, "sync", f.File.SyncData)
	return nil
}

func (f *freezingFile) SyncTo(n int64) (full bool, err error) {
	f.fs.write(f.name, "sync", func() error {
		full, err = f.File.SyncTo(n)
		return err
	})
	return full, nil
}

// Stat must not fail either: Pebble asks for the size of a log that it uses again, in rotating it.
func (f *freezingFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err == nil {
		return info, nil
	}
	f.fs.write(f.name, "stat", func() error { return err })
	return noInfo{}, nil
}

// Preallocate is a hint: without the space, the write that needs it fails.
func (f *freezingFile) Preallocate(at, n int64) error {
	if !f.fs.frozen.Load() {
		_ = f.File.Preallocate(at, n)
	}
	return nil
}

func (f *freezingFile) Close() error {
	if err := f.File.Close(); err != nil && !f.fs.frozen.Load() {
		f.fs.failed(f.name, "close", err)
	}
	return nil
}

// nowhere is a file that was never made.
type nowhere struct{}

func gone(op string) error {
	return &fs.PathError{Op: op, Path: "(not written: the store failed)", Err: fs.ErrNotExist}
}

func (nowhere) Read([]byte) (int, error)               { return 0, gone("read") }
func (nowhere) ReadAt([]byte, int64) (int, error)      { return 0, gone("read") }
func (nowhere) Write(p []byte) (int, error)            { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Stat() (vfs.FileInfo, error)            { return noInfo{}, nil }
func (nowhere) Preallocate(int64, int64) error         { return nil }
func (nowhere) Sync() error                            { return nil }
func (nowhere) SyncTo(int64) (bool, error)             { return false, nil }
func (nowhere) SyncData() error                        { return nil }
func (nowhere) Prefetch(int64, int64) error            { return nil }
func (nowhere) Close() error                           { return nil }
func (nowhere) Fd() uintptr                            { return vfs.InvalidFd }

// noInfo describes a file that was never made: it is empty.
type noInfo struct{}

func (noInfo) Name() string           { return "" }
func (noInfo) Size() int64            { return 0 }
func (noInfo) Mode() fs.FileMode      { return 0o644 }
func (noInfo) ModTime() time.Time     { return time.Time{} }
func (noInfo) IsDir() bool            { return false }
func (noInfo) Sys() any               { return nil }
func (noInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
