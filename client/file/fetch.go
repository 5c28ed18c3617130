// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"valise/wire"
)

// An OpenFunc begins to read a file's ciphertext at an offset.
type OpenFunc func(ctx context.Context, offset uint64) (io.ReadCloser, error)

// Fetch brings a file into a folder and returns its path there. What an earlier,
// broken attempt left in the folder is gone on from. If the folder holds the very
// file under its name already, that one is returned.
func Fetch(ctx context.Context, ref *wire.FileReference, dir string, open OpenFunc, progress Progress) (string, error) {
	if err := Check(ref); err != nil {
		return "", err
	}
	want := filepath.Join(dir, CleanName(string(ref.Name)))
	if same(want, ref) {
		return want, nil
	}
	part := filepath.Join(dir, ".valise-"+hex.EncodeToString(ref.Blob[:8])+".part")
	f, err := openPart(part)
	if err != nil {
		return "", err
	}
	defer f.Close()
	resumed, err := fill(ctx, f, ref, open, progress)
	if resumed && errors.Is(err, errHash) {
		// What an earlier attempt left may have been damaged on this disk.
		if err = f.Truncate(0); err == nil {
			_, err = fill(ctx, f, ref, open, progress)
		}
	}
	if errors.Is(err, ErrAltered) || errors.Is(err, ErrGone) {
		// Nothing of it can be used; another attempt begins afresh.
		return "", errors.Join(err, f.Close(), os.Remove(part))
	}
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return settle(part, want)
}

// openPart opens the unfinished file, which must be a plain file of ours: another
// could have been put there to lead the bytes elsewhere.
func openPart(path string) (*os.File, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file: remove it", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// Looked at again: it may have been exchanged between the look and the opening.
	opened, err := f.Stat()
	if err == nil {
		var named fs.FileInfo
		if named, err = os.Lstat(path); err == nil && !os.SameFile(opened, named) {
			err = fmt.Errorf("%s was exchanged while it was opened", path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

var errHash = fmt.Errorf("%w: its SHA-256 differs", ErrAltered)

// fill brings the unfinished file to its full size and compares its SHA-256. It says
// whether some of it was there before.
func fill(ctx context.Context, f *os.File, ref *wire.FileReference, open OpenFunc, progress Progress) (resumed bool, err error) {
	c, err := newCutter(&ref.Key, ref.ChunkSize, ref.PlainSize)
	if err != nil {
		return resumed, err
	}
	info, err := f.Stat()
	if err != nil {
		return resumed, err
	}
	first := min(uint64(info.Size()), ref.PlainSize) / c.chunk // whole chunks that are there
	if first == c.count() {
		first--
	}
	if err := f.Truncate(int64(first * c.chunk)); err != nil {
		return resumed, err
	}
	if err := roomFor(filepath.Dir(f.Name()), ref.PlainSize-first*c.chunk, freeIn); err != nil {
		return false, err
	}
	resumed = first > 0
	h := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return resumed, err
	}
	if _, err := io.Copy(h, f); err != nil {
		return resumed, err
	}
	body, err := open(ctx, first*(c.chunk+overhead))
	if err != nil {
		return resumed, err
	}
	defer body.Close()
	sum, err := c.receive(ctx, body, &synced{Writer: f}, h, first, progress)
	if err == nil && !bytes.Equal(sum, ref.PlainHash[:]) {
		err = errHash
	}
	return resumed, err
}

// synced is what a file's bytes are written to: a file is synced now and then.
type synced struct {
	io.Writer
	unsynced int
}

func (s *synced) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if s.unsynced += n; err != nil || s.unsynced < syncEvery {
		return n, err
	}
	s.unsynced = 0
	if f, ok := s.Writer.(interface{ Sync() error }); ok {
		err = f.Sync()
	}
	return n, err
}

func (c *cutter) receive(ctx context.Context, body io.Reader, f io.Writer, h hash.Hash, first uint64, progress Progress) ([]byte, error) {
	box := make([]byte, c.chunk+overhead)
	text := make([]byte, 0, c.chunk)
	for i := first; i < c.count(); i++ {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		part := box[:c.length(i)+overhead]
		if _, err := io.ReadFull(body, part); err != nil {
			return nil, fmt.Errorf("the file broke off after %d of %d bytes: %w", i*c.chunk, c.plain, err)
		}
		plain, err := c.open(text[:0], i, part)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(plain); err != nil {
			return nil, err
		}
		h.Write(plain)
		progress.tell(i*c.chunk+uint64(len(plain)), c.plain)
	}
	if n, _ := body.Read(make([]byte, 1)); n > 0 {
		return nil, fmt.Errorf("%w: it goes on after its last chunk", ErrAltered)
	}
	return h.Sum(nil), nil
}

// settle gives the finished file its name, or the next free one like it.
func settle(part, want string) (string, error) {
	ext := filepath.Ext(want)
	stem := strings.TrimSuffix(want, ext)
	for n := range maxNumbered {
		path := want
		if n > 0 {
			path = fmt.Sprintf("%s (%d)%s", stem, n, ext)
		}
		switch err := place(part, path); {
		case err == nil:
			return path, syncDir(filepath.Dir(path))
		case !errors.Is(err, fs.ErrExist):
			return "", err
		}
	}
	return "", fmt.Errorf("%s: %w", want, ErrNames)
}

// place moves part to path unless there is something. A hard link does it in one
// step; file systems without links get an empty file first.
func place(part, path string) error {
	err := os.Link(part, path)
	if err == nil {
		return os.Remove(part)
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Rename(part, path))
}

// same says whether path already is the file that ref describes.
func same(path string, ref *wire.FileReference) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || uint64(info.Size()) != ref.PlainSize {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	return bytes.Equal(h.Sum(nil), ref.PlainHash[:])
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return err // Windows cannot sync a folder and says "access denied"
	}
	return nil
}
