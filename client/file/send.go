// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"path/filepath"

	"valise/wire"
)

// Progress is told how far a transfer is, in bytes. It may be nil.
type Progress func(done, total uint64)

func (p Progress) tell(done, total uint64) {
	if p != nil {
		p(done, total)
	}
}

// A Plan is a measured file: everything that is needed to send it, now or after
// a restart. It holds the file's key: keep it sealed.
type Plan struct {
	Reference wire.FileReference
	Digests   [][]byte // SHA-256 of each sealed chunk, cut to 16 bytes
}

// A Name is what a recipient is told about a file.
type Name struct{ Name, MediaType string }

// Named derives a Name from a path.
func Named(path string) Name {
	base := CleanName(filepath.Base(path))
	kind := mime.TypeByExtension(filepath.Ext(base))
	if len(kind) > 127 {
		kind = ""
	}
	return Name{base, kind}
}

// Measure reads the source once, seals every chunk under a new key without keeping
// it, and returns what the second pass and the message need.
func Measure(ctx context.Context, source io.ReaderAt, size uint64, name Name, progress Progress) (*Plan, error) {
	if size > MaxSize {
		return nil, ErrTooLarge
	}
	p := &Plan{Reference: wire.FileReference{
		PlainSize: size, ChunkSize: chunkFor(size), Name: []byte(name.Name), MediaType: name.MediaType,
	}}
	rand.Read(p.Reference.Key[:])
	c, err := newCutter(&p.Reference.Key, p.Reference.ChunkSize, size)
	if err != nil {
		return nil, err
	}
	plain, sealed := sha256.New(), sha256.New()
	err = c.each(ctx, source, 0, func(i uint64, text, box []byte) error {
		plain.Write(text)
		sealed.Write(box)
		p.Digests = append(p.Digests, digest(box))
		progress.tell(i*c.chunk+uint64(len(text)), size)
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.Reference.Size = c.sealed()
	plain.Sum(p.Reference.PlainHash[:0])
	sealed.Sum(p.Reference.Blob[:0])
	return p, nil
}

// chunkFor is what a file of a size is cut into.
func chunkFor(size uint64) uint32 {
	if size > largeFile {
		return LargeChunk
	}
	return ChunkSize
}

// Write seals the source again and writes the ciphertext from offset on.
func (p *Plan) Write(ctx context.Context, source io.ReaderAt, w io.Writer, offset uint64, progress Progress) error {
	ref := &p.Reference
	if err := Check(ref); err != nil {
		return err
	}
	c, err := newCutter(&ref.Key, ref.ChunkSize, ref.PlainSize)
	if err != nil {
		return err
	}
	if offset > ref.Size || uint64(len(p.Digests)) != c.count() {
		return fmt.Errorf("%w: offset %d of %d", ErrReference, offset, ref.Size)
	}
	if offset == ref.Size {
		return nil
	}
	step := c.chunk + overhead
	skip := offset % step
	return c.each(ctx, source, offset/step, func(i uint64, _, box []byte) error {
		if !bytes.Equal(digest(box), p.Digests[i]) {
			return ErrSourceChanged
		}
		if _, err := w.Write(box[skip:]); err != nil {
			return err
		}
		skip = 0
		progress.tell(min(ref.Size, (i+1)*step), ref.Size)
		return nil
	})
}

// each reads and seals the chunks from first on.
func (c *cutter) each(ctx context.Context, source io.ReaderAt, first uint64, f func(i uint64, text, box []byte) error) error {
	text := make([]byte, c.chunk)
	box := make([]byte, 0, c.chunk+overhead)
	for i := first; i < c.count(); i++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		part := text[:c.length(i)]
		n, err := source.ReadAt(part, int64(i*c.chunk))
		if n < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				return ErrSourceChanged
			}
			return err
		}
		if err := f(i, part, c.seal(box[:0], i, part)); err != nil {
			return err
		}
	}
	// A source that has grown is another file.
	if n, _ := source.ReadAt(make([]byte, 1), int64(c.plain)); n > 0 {
		return ErrSourceChanged
	}
	return nil
}

func digest(box []byte) []byte {
	sum := sha256.Sum256(box)
	return sum[:16]
}

// planRecord is a Plan at rest.
type planRecord struct {
	Reference []byte `json:"reference"`
	Digests   []byte `json:"digests"`
}

// Marshal encodes a Plan for a sealed store.
func (p *Plan) Marshal() ([]byte, error) {
	ref, err := p.Reference.Marshal()
	if err != nil {
		return nil, err
	}
	return json.Marshal(planRecord{ref, bytes.Join(p.Digests, nil)})
}

// ParsePlan decodes what Marshal wrote.
func ParsePlan(data []byte) (*Plan, error) {
	var r planRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("file: malformed plan: %w", err)
	}
	ref, err := wire.ParseFileReference(r.Reference)
	if err != nil {
		return nil, err
	}
	if len(r.Digests)%16 != 0 {
		return nil, errors.New("file: malformed plan: digests are cut short")
	}
	p := &Plan{Reference: *ref}
	for d := r.Digests; len(d) > 0; d = d[16:] {
		p.Digests = append(p.Digests, d[:16])
	}
	return p, Check(ref)
}
