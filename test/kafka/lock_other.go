//go:build !unix

package kafka

import (
	"errors"
	"os"
)

// lockFile does not exclude here: jars may be fetched twice, and the directories of killed processes stay.
func lockFile(path string, wait bool) (*os.File, error) {
	if !wait {
		return nil, errors.ErrUnsupported
	}
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
}
