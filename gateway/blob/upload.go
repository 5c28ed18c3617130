// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"valise/gateway/mailbox"
)

// An Upload names a file that is about to arrive.
type Upload struct {
	ID    [32]byte // SHA-256 of the whole
	Group []byte
	Size  uint64
	Owner mailbox.Device
}

// A Writer receives one file. It belongs to one goroutine.
type Writer struct {
	s      *Store
	ctx    context.Context
	up     Upload
	name   string
	done   bool // complete: there is nothing to receive
	file   *os.File
	hash   hash.Hash
	offset uint64
	synced uint64
}

// Put begins or resumes an upload. The caller calls Close in any case.
func (s *Store) Put(ctx context.Context, up Upload) (*Writer, error) {
	if up.Size == 0 || up.Size > MaxSize {
		return nil, ErrTooLarge
	}
	name := nameOf(up.Group, up.ID)
	if !s.claim(name) {
		return nil, ErrBusy
	}
	w := &Writer{s: s, ctx: ctx, up: up, name: name, hash: sha256.New()}
	if err := w.begin(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Writer) begin() error {
	now := w.s.cfg.Now()
	record, err := w.s.cfg.Store.BeginBlob(w.ctx, mailbox.Blob{
		ID: w.up.ID, Group: w.up.Group, Size: w.up.Size, Owner: w.up.Owner, Name: w.name,
		Created: now.Unix(), Expires: now.Add(partialExpiry).Unix(),
	}, w.s.cfg.Quota)
	switch {
	case errors.Is(err, mailbox.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, mailbox.ErrQuota):
		return ErrQuota
	case err != nil:
		return err

	case record.Size != w.up.Size:
		return ErrTooLarge
	case record.Complete && w.present():
		// Brought again it stays as long as a new one: its time may be nearly over.
		w.done, w.offset = true, record.Size
		return w.s.cfg.Store.FinishBlob(w.ctx, w.name, w.expires())
	}
	return w.resume()
}

// present says whether a complete file is on disk as its record says; if the two
// have come apart, the file is received again.
func (w *Writer) present() bool {
	info, err := os.Stat(w.s.path(w.name))
	return err == nil && uint64(info.Size()) == w.up.Size
}

// resume opens the partial file and hashes what it holds.
func (w *Writer) resume() error {
	// A crash between the rename and the record's change leaves the whole file
	// under its final name: it becomes the partial file again.
	if err := os.Rename(w.s.path(w.name), w.s.partial(w.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: %w", err)
	}
	f, err := os.OpenFile(w.s.partial(w.name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	w.file = f
	n, err := io.Copy(w.hash, io.LimitReader(f, int64(w.up.Size)))
	if err != nil {
		return fmt.Errorf("blob: read the partial file: %w", err)
	}
	w.offset, w.synced = uint64(n), uint64(n)
	return nil
}

// Offset is where the sender goes on; the size when nothing is missing.
func (w *Writer) Offset() uint64 { return w.offset }

// Append adds bytes at the end.
func (w *Writer) Append(data []byte) error {
	if w.done || uint64(len(data)) > w.up.Size-w.offset {
		return ErrLength
	}
	n, err := w.file.WriteAt(data, int64(w.offset))
	w.hash.Write(data[:n])
	w.offset += uint64(n)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	if w.offset-w.synced >= syncEvery {
		return w.sync()
	}
	return nil
}

func (w *Writer) sync() error {
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	w.synced = w.offset
	return nil
}

// Finish checks length and hash and makes the file available. With ErrHash the
// partial file is gone: the next upload begins at 0.
func (w *Writer) Finish() error {
	if w.done {
		return nil
	}
	if w.offset != w.up.Size {
		return ErrLength
	}
	// The work of this moment must not be cut off by the end of a connection.
	ctx := context.WithoutCancel(w.ctx)
	if [32]byte(w.hash.Sum(nil)) != w.up.ID {
		return errors.Join(ErrHash, w.s.drop(ctx, w.name))
	}
	if err := w.sync(); err != nil {
		return err
	}
	if err := os.Rename(w.s.partial(w.name), w.s.path(w.name)); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	if err := syncDir(w.s.dir); err != nil {
		return err
	}
	if err := w.s.cfg.Store.FinishBlob(ctx, w.name, w.expires()); err != nil {
		return err
	}
	w.done = true
	return nil
}

// never is past any clock of ours.
const never = 1 << 52

func (w *Writer) expires() int64 {
	if w.s.cfg.Expiry == 0 {
		return never
	}
	return w.s.cfg.Now().Add(w.s.cfg.Expiry).Truncate(time.Second).Unix()
}

// Close ends the upload and keeps what has arrived.
func (w *Writer) Close() error {
	var err error
	if w.file != nil {
		if w.offset > w.synced {
			err = w.file.Sync()
		}
		err = errors.Join(err, w.file.Close())
		w.file = nil
	}
	w.s.release(w.name)
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}
