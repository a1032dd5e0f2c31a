package kafka

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed pom.xml
var pom []byte

// EnvDir names the directory of the jars; without it they are in the user's cache directory.
const EnvDir = "SKALD_KAFKA_DIR"

// Jars gives the directory of the jars and fetches them first when they are not there. Processes that need
// them at the same time fetch once.
func Jars(ctx context.Context) (string, error) {
	dir := os.Getenv(EnvDir)
	if dir == "" {
		var err error
		if dir, err = cacheDir("kafka-4.1.1"); err != nil {
			return "", err
		}
	}
	return fetch(ctx, "kafka", dir, pom)
}

// Fetch is Jars for another program than Kafka: name, with its version, is its folder in the same cache, and pom names
// its artifacts.
func Fetch(ctx context.Context, name string, pom []byte) (string, error) {
	dir := filepath.Join(os.Getenv(EnvDir), name)
	if os.Getenv(EnvDir) == "" {
		var err error
		if dir, err = cacheDir(name); err != nil {
			return "", err
		}
	}
	return fetch(ctx, name, dir, pom)
}

func cacheDir(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w; name a directory for the jars in %s", err, EnvDir)
	}
	return filepath.Join(cache, "skald", name), nil
}

func fetch(ctx context.Context, what, dir string, pom []byte) (string, error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("%s needs java, 17 or newer, on the PATH (Debian: apt-get install default-jre-headless)", what)
	}
	libs := filepath.Join(dir, "libs")
	if isDir(libs) {
		return libs, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"), true)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if isDir(libs) {
		return libs, nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", fmt.Errorf("the jars of %s are not in %s and there is no mvn on the PATH to fetch them (Debian: apt-get install maven)", what, libs)
	}
	// Fetched aside and renamed: what is in libs is always complete.
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "pom.xml")
	if err := os.WriteFile(file, pom, 0o644); err != nil {
		return "", err
	}
	fetched := filepath.Join(tmp, "libs")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", file, "dependency:copy-dependencies", "-DoutputDirectory="+fetched)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch the jars of %s with mvn: %w\n%s", what, err, tail(out))
	}
	if err := os.Rename(fetched, libs); err != nil {
		return "", err
	}
	return libs, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

const tempPrefix = "skald-kafka-"

// tempDir makes a directory for one cluster, locked while this process lives, and removes those whose
// process was killed before it could.
func tempDir() (string, *os.File, error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*"))
	for _, dir := range old {
		if lock, err := lockFile(filepath.Join(dir, "lock"), false); err == nil {
			os.RemoveAll(dir)
			lock.Close()
		}
	}
	// It gets its name only when it is locked, or another process might take it for one left behind.
	fresh, err := os.MkdirTemp("", "skald-new-kafka-")
	if err != nil {
		return "", nil, err
	}
	lock, err := lockFile(filepath.Join(fresh, "lock"), true)
	if err != nil {
		return "", nil, err
	}
	dir := filepath.Join(filepath.Dir(fresh), strings.Replace(filepath.Base(fresh), "-new", "", 1))
	return dir, lock, os.Rename(fresh, dir)
}
