package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/internal/mutant"
)

// decompressor bounds what compressed batches may become. franz-go's own bounds a batch, but a fetch of a
// few megabytes can hold thousands of batches that each stay just below that; so this one also bounds the
// sum, by a budget that is filled anew whenever what it was spent on has been delivered.
type decompressor struct {
	max    int
	budget *budget // nil: none
	gzips  sync.Pool
	lz4s   sync.Pool
	zstds  sync.Pool
}

// errOverBudget says that a batch is to be fetched again, later.
var errOverBudget = errors.New("too much decompressed and not yet delivered")

type budget struct {
	size int64
	left atomic.Int64
}

func newBudget(size int64) *budget {
	b := &budget{size: size}
	b.fill()
	return b
}

func (b *budget) fill() { b.left.Store(b.size) }

func newDecompressor(max int, b *budget) *decompressor {
	if mutant.On("kafka-bomb-is-unpacked") {
		max = 1 << 30
	}
	return &decompressor{max: max, budget: b}
}

// Decompress gives an error that wraps kgo.ErrMaxDecompress for a batch that is too large by itself; the
// bytes are allocated for the caller.
func (d *decompressor) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if d.budget != nil && d.budget.left.Load() <= 0 {
		return nil, errOverBudget
	}
	out, err := d.decode(src, codec)
	if err != nil {
		return nil, err
	}
	if d.budget != nil {
		d.budget.left.Add(-int64(len(out))) // over by one batch at most, for each broker
	}
	return out, nil
}

func (d *decompressor) decode(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	switch codec {
	case kgo.CodecNone:
		return src, nil
	case kgo.CodecGzip:
		r, _ := d.gzips.Get().(*gzip.Reader)
		if r == nil {
			r = new(gzip.Reader)
		}
		defer d.gzips.Put(r)
		if err := r.Reset(bytes.NewReader(src)); err != nil {
			return nil, err
		}
		return d.readAll(r)
	case kgo.CodecLz4:
		r, _ := d.lz4s.Get().(*lz4.Reader)
		if r == nil {
			r = lz4.NewReader(nil)
		}
		defer d.lz4s.Put(r)
		r.Reset(bytes.NewReader(src))
		return d.readAll(r)
	case kgo.CodecZstd:
		r, _ := d.zstds.Get().(*zstd.Decoder)
		if r == nil {
			var err error
			r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(uint64(d.max)))
			if err != nil {
				return nil, err
			}
		}
		defer d.zstds.Put(r)
		out, err := r.DecodeAll(src, nil)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return nil, fmt.Errorf("%w: %w", kgo.ErrMaxDecompress, err)
		}
		return out, err
	case kgo.CodecSnappy:
		return d.snappy(src)
	}
	return nil, fmt.Errorf("compression %d is not known", codec)
}

func (d *decompressor) readAll(r io.Reader) ([]byte, error) {
	var out bytes.Buffer
	n, err := out.ReadFrom(io.LimitReader(r, int64(d.max)+1))
	if err != nil {
		return nil, err
	}
	if n > int64(d.max) {
		return nil, kgo.ErrMaxDecompress
	}
	return out.Bytes(), nil
}

// xerial frames snappy blocks as the Java clients do: magic and two versions, then blocks with their length
// before them. librdkafka sends one bare block instead.
var xerial = []byte{130, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func (d *decompressor) snappy(src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, xerial) || len(src) <= 16 {
		return d.block(nil, src)
	}
	var out []byte
	for src = src[16:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(n) > uint64(len(src)) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if out, err = d.block(out, src[:n]); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return out, nil
}

// block appends a decoded block to out. A block says in front how long it becomes.
func (d *decompressor) block(out, src []byte) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, err
	}
	if n > d.max-len(out) {
		return nil, kgo.ErrMaxDecompress
	}
	decoded, err := s2.Decode(nil, src)
	if err != nil {
		return nil, err
	}
	if out == nil {
		return decoded, nil
	}
	return append(out, decoded...), nil
}
