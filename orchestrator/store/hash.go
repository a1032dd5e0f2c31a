package store

import (
	"crypto/sha256"
	"encoding/binary"
)

// Scanner is the part of Store and Snapshot that reads the logical rows.
type Scanner interface {
	Scan(from, to []byte, fn func(Row) bool) error
}

// Hash counts and hashes the logical rows in order of key: key, due time and value of each. Two stores
// that followed the same journal to the same position agree on it, whether the journal was compacted or
// not; the base of a row does not count, for compaction changes it, nor does the shard's own state.
func Hash(s Scanner) (rows int, sum [32]byte, err error) {
	h := sha256.New()
	var b []byte
	err = s.Scan(nil, nil, func(r Row) bool {
		b = binary.AppendUvarint(b[:0], uint64(len(r.Key)))
		b = append(b, r.Key...)
		b = binary.AppendVarint(b, r.Due)
		b = binary.AppendUvarint(b, uint64(len(r.Value)))
		h.Write(b)
		h.Write(r.Value)
		rows++
		return true
	})
	h.Sum(sum[:0])
	return rows, sum, err
}
