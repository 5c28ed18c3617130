// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
)

// The files of a copy, beside the tiles.
const (
	fileCheckpoint = "checkpoint"
	fileEntries    = "entries"
	filePayloads   = "payloads"
)

// WriteCopy writes a record to a directory, new or empty, that anybody can
// check with OpenCopy (or "valise audit verify"), and any web server can serve
// as a log of tiles:
//
//	checkpoint               the signed checkpoint
//	entries                  opaque entry<1..2^16-1>, for each leaf
//	payloads                 opaque payload<1..2^32-1>, for each leaf
//	tile/<L>/<N>[.p/<W>]     hashes, tile/entries/<N>[.p/<W>] leaves (C2SP tlog-tiles)
//
// It takes as many items as the checkpoint covers, in order and from the first
// on, and fails if they are not the checkpoint's tree. The checkpoint comes
// last: a copy that was interrupted has none.
func WriteCopy(dir string, checkpoint []byte, items iter.Seq2[Item, error]) error {
	_, head, err := ParseCheckpoint(checkpoint)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("ledger: writing a copy: %w", err)
	}
	if found, err := os.ReadDir(dir); err != nil || len(found) > 0 {
		return errors.Join(fmt.Errorf("ledger: writing a copy: %s is not an empty directory", dir), err)
	}
	w := &copyWriter{dir: dir}
	w.tiles.put = w.writeTile
	if err := errors.Join(w.write(head.N, items), w.close()); err != nil {
		return fmt.Errorf("ledger: writing a copy: %w", err)
	}
	if got := w.tree.Head(); got != head {
		return fmt.Errorf("ledger: writing a copy: the items are a tree of %d leaves with the root %v, the checkpoint names %d with %v",
			got.N, got.Hash, head.N, head.Hash)
	}
	return writeFile(filepath.Join(dir, fileCheckpoint), checkpoint)
}

// copyWriter writes all but the checkpoint.
type copyWriter struct {
	dir      string
	tree     Builder
	tiles    tiler
	made     string // the directory that was made last
	files    []*os.File
	buffers  []*bufio.Writer
	entries  *bufio.Writer
	payloads *bufio.Writer
}

func (w *copyWriter) create(name string) (*bufio.Writer, error) {
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	b := bufio.NewWriterSize(f, 1<<16)
	w.files, w.buffers = append(w.files, f), append(w.buffers, b)
	return b, nil
}

// write writes size items. Errors of the buffered writers stay with them until
// close.
func (w *copyWriter) write(size int64, items iter.Seq2[Item, error]) (err error) {
	if w.entries, err = w.create(fileEntries); err != nil {
		return err
	}
	if w.payloads, err = w.create(filePayloads); err != nil {
		return err
	}
	if size > 0 {
		for item, err := range items {
			if err != nil {
				return err
			}
			if err := w.add(item); err != nil {
				return err
			}
			if w.tree.Size() == size {
				break
			}
		}
	}
	return w.tiles.finish()
}

func (w *copyWriter) add(i Item) error {
	if i.Index != w.tree.Size() || i.Entry == nil || len(i.Payload) == 0 || len(i.Payload) > MaxPayload {
		return fmt.Errorf("item %d with a payload of %d bytes where item %d is due", i.Index, len(i.Payload), w.tree.Size())
	}
	entry := i.Entry.Marshal()
	w.entries.Write(binary.BigEndian.AppendUint16(nil, uint16(len(entry))))
	w.entries.Write(entry)
	w.payloads.Write(binary.BigEndian.AppendUint32(nil, uint32(len(i.Payload))))
	w.payloads.Write(i.Payload)
	leaf := i.Entry.Leaf()
	return errors.Join(w.tree.Add(leaf), w.tiles.add(leaf))
}

func (w *copyWriter) writeTile(t tile, data []byte) error {
	name := filepath.Join(w.dir, filepath.FromSlash(t.path()))
	if dir := filepath.Dir(name); dir != w.made {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		w.made = dir
	}
	return writeFile(name, data)
}

func (w *copyWriter) close() (err error) {
	for i, b := range w.buffers {
		err = errors.Join(err, b.Flush(), w.files[i].Sync(), w.files[i].Close())
	}
	return err
}

// writeFile writes a new file; never over one that exists.
func writeFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
