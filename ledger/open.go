// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrCopy is wrapped by every error of a copy whose files are not what
// WriteCopy writes.
var ErrCopy = errors.New("ledger: the copy is damaged")

// A Copy is a record in a directory, as WriteCopy leaves it or as somebody
// else changed it since: nothing in it is believed. It is a Source.
type Copy struct {
	dir        string
	checkpoint []byte
	origin     string
	head       Head
}

// OpenCopy opens a copy and reads its checkpoint, whose signature nobody has
// looked at: see Open.
func OpenCopy(dir string) (*Copy, error) {
	text, err := readFile(filepath.Join(dir, fileCheckpoint), MaxCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCopy, err)
	}
	c := &Copy{dir: dir, checkpoint: text}
	if c.origin, c.head, err = ParseCheckpoint(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCopy, err)
	}
	return c, nil
}

// Origin returns the log's name, and Claimed the head, as the checkpoint says.
func (c *Copy) Origin() string { return c.origin }

// Claimed returns the head that the checkpoint names.
func (c *Copy) Claimed() Head { return c.head }

// Open checks the checkpoint's signature.
func (c *Copy) Open(verifiers ...note.Verifier) (Head, error) {
	return OpenCheckpoint(c.checkpoint, verifiers...)
}

// Items yields the record, item after item, and ends after the first error. An
// item is well-formed; that its entry is of its payload, and what either says,
// is the reader's to check. The files must hold exactly what the checkpoint
// covers.
func (c *Copy) Items() iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		entries, err := openFile(filepath.Join(c.dir, fileEntries), math.MaxInt64)
		if err != nil {
			yield(Item{}, fmt.Errorf("%w: %w", ErrCopy, err))
			return
		}
		defer entries.Close()
		payloads, err := openFile(filepath.Join(c.dir, filePayloads), math.MaxInt64)
		if err != nil {
			yield(Item{}, fmt.Errorf("%w: %w", ErrCopy, err))
			return
		}
		defer payloads.Close()
		readItems(entries, payloads, c.head.N, yield)
	}
}

// readItems yields size items from what WriteCopy wrote to two files.
func readItems(entries, payloads io.Reader, size int64, yield func(Item, error) bool) {
	e, p := bufio.NewReaderSize(entries, 1<<16), bufio.NewReaderSize(payloads, 1<<16)
	for index := range size {
		item, err := readItem(e, p, index)
		if err != nil {
			yield(Item{Index: index}, fmt.Errorf("%w: leaf %d: %w", ErrCopy, index, err))
			return
		}
		if !yield(item, nil) {
			return
		}
	}
	for name, r := range map[string]*bufio.Reader{fileEntries: e, filePayloads: p} {
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			yield(Item{Index: size}, fmt.Errorf("%w: %s goes on after the checkpoint's %d leaves", ErrCopy, name, size))
			return
		}
	}
}

func readItem(e, p *bufio.Reader, index int64) (Item, error) {
	var length [4]byte
	if _, err := io.ReadFull(e, length[:2]); err != nil {
		return Item{}, noEOF(err)
	}
	if n := binary.BigEndian.Uint16(length[:2]); n > EntrySize {
		return Item{}, fmt.Errorf("entry of %d bytes", n)
	}
	data := make([]byte, binary.BigEndian.Uint16(length[:2]))
	if _, err := io.ReadFull(e, data); err != nil {
		return Item{}, noEOF(err)
	}
	entry, err := ParseEntry(data)
	if err != nil {
		return Item{}, err
	}
	if _, err := io.ReadFull(p, length[:]); err != nil {
		return Item{}, noEOF(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > MaxPayload {
		return Item{}, fmt.Errorf("payload of %d bytes", n)
	}
	// Not make: a length is only a claim until the bytes are there.
	payload, err := io.ReadAll(io.LimitReader(p, int64(n)))
	if err != nil || len(payload) < int(n) {
		return Item{}, noEOF(err)
	}
	return Item{index, entry, payload}, nil
}

// noEOF says of a file that ends too early that it does.
func noEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Checkpoint implements Source.
func (c *Copy) Checkpoint(context.Context) ([]byte, error) { return bytes.Clone(c.checkpoint), nil }

// Hashes implements Source from the tiles.
func (c *Copy) Hashes(_ context.Context, indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		t := tlog.TileForIndex(tileHeight, index)
		ours := tile{t.L, t.N, width(c.head.N, t.L, t.N)}
		data, err := c.readTile(ours)
		if err != nil {
			return nil, err
		}
		t.W = ours.W
		if out[i], err = tlog.HashFromTile(t, data, index); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrCopy, ours.path(), err)
		}
	}
	return out, nil
}

// Leaves implements Source from the entry bundles.
func (c *Copy) Leaves(_ context.Context, from, to int64) ([]Leaf, error) {
	if from < 0 || from > to || to > c.head.N {
		return nil, fmt.Errorf("ledger: no leaves %d to %d in a copy of %d", from, to, c.head.N)
	}
	var out []Leaf
	for at := from; at < to; {
		n := at / tileWidth
		data, err := c.readTile(tile{entriesLevel, n, width(c.head.N, entriesLevel, n)})
		if err != nil {
			return nil, err
		}
		for ; at < min(to, (n+1)*tileWidth); at++ {
			out = append(out, Leaf(data[(at-n*tileWidth)*(2+LeafSize)+2:]))
		}
	}
	return out, nil
}

// readTile reads a tile, which has exactly the size it should have.
func (c *Copy) readTile(t tile) ([]byte, error) {
	size := t.W * tlog.HashSize
	if t.L == entriesLevel {
		size = t.W * (2 + LeafSize)
	}
	data, err := readFile(filepath.Join(c.dir, filepath.FromSlash(t.path())), int64(size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCopy, err)
	}
	if size == 0 || len(data) != size {
		return nil, fmt.Errorf("%w: %s has %d bytes, it should have %d", ErrCopy, t.path(), len(data), size)
	}
	return data, nil
}

// A TileCheck compares a copy's tiles with those of the leaves that it is
// told: somebody may be served from these tiles.
type TileCheck struct {
	copy  *Copy
	tiles tiler
	wrong []error
}

// CheckTiles begins a comparison.
func (c *Copy) CheckTiles() *TileCheck {
	t := &TileCheck{copy: c}
	t.tiles.put = func(want tile, data []byte) error {
		if got, err := c.readTile(want); err != nil {
			t.wrong = append(t.wrong, err)
		} else if !bytes.Equal(got, data) {
			t.wrong = append(t.wrong, fmt.Errorf("%w: %s is not of these entries", ErrCopy, want.path()))
		}
		return nil
	}
	return t
}

// Add tells it the next leaf.
func (t *TileCheck) Add(leaf Leaf) { _ = t.tiles.add(leaf) } // put never fails

// Finish returns every tile that is missing or wrong.
func (t *TileCheck) Finish() []error {
	_ = t.tiles.finish() // put never fails
	return t.wrong
}

// openFile opens a regular file of at most limit bytes: no link to elsewhere,
// and no pipe that would keep the reader waiting.
func openFile(name string, limit int64) (*os.File, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("not a file of at most %d bytes", limit)}
	}
	return os.Open(name)
}

// readFile reads such a file.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := openFile(name, limit)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
