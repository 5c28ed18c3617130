// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// WriteNew makes a file of mode 0600 that is in place when it is complete, read back
// and on the disk, or not at all; it replaces nothing (fs.ErrExist). check reads what
// write wrote, from its beginning.
func WriteNew(path string, write func(io.Writer) error, check func(io.ReadSeeker) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = check(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a renaming, it replaces nothing
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir puts a directory's entries on the disk.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
