// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"os"
)

// A Disk is what a journal does to its files. Tests put one in its place that
// loses what was not synced.
type Disk interface {
	WriteAt(f *os.File, p []byte, at int64) error
	// Sync returns when all that was written to a file is on disk.
	Sync(f *os.File) error
	// SyncDir returns when a folder's entries are.
	SyncDir(name string) error
}

// realDisk leaves it to the operating system.
type realDisk struct{}

func (realDisk) WriteAt(f *os.File, p []byte, at int64) error {
	_, err := f.WriteAt(p, at)
	return err
}

func (realDisk) Sync(f *os.File) error { return datasync(f) }

func (realDisk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
