// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A FolderConfig says where a Folder lies.
type FolderConfig struct {
	Dir string
	// Shared is for a folder that several gateways use, on a network file system. It must
	// be there: one that is not mounted is not to be made.
	Shared bool
}

// A Folder is a Place on a file system: one file each, and NAME.part until it is whole.
type Folder struct {
	root    *os.Root
	path    string
	syncing chan struct{} // holds one element while a file is being synced
}

var _ Place = (*Folder)(nil)

// OpenFolder opens a folder, and makes one that is not shared if it is missing.
func OpenFolder(cfg FolderConfig) (*Folder, error) {
	if !cfg.Shared {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("blob: %w", err)
		}
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("blob: the folder of the files: %w: mount or make it", err)
	}
	return &Folder{root: root, path: cfg.Dir, syncing: make(chan struct{}, 1)}, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error { return f.root.Close() }

func partial(name string) string { return name + ".part" }

// Draft implements Place.
func (f *Folder) Draft(_ context.Context, name string, size, have uint64, _ []byte) (Draft, error) {
	// A crash between the rename and the record's change leaves the whole file
	// under its final name: it becomes the partial file again.
	if err := f.root.Rename(name, partial(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob: %w", err)
	}
	file, err := f.root.OpenFile(partial(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	d := &folderDraft{folder: f, name: name, file: file}
	info, err := file.Stat()
	if err == nil {
		// What is beyond the last save may be anything after a loss of power.
		if d.offset = min(have, size); uint64(info.Size()) < d.offset {
			d.offset = 0
		}
		err = file.Truncate(int64(d.offset))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("blob: %w", err), file.Close())
	}
	return d, nil
}

// Has implements Place.
func (f *Folder) Has(_ context.Context, name string, size uint64) (bool, error) {
	info, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	return uint64(info.Size()) == size, nil
}

// Open implements Place.
func (f *Folder) Open(_ context.Context, name string, offset, _ uint64) (io.ReadCloser, error) {
	file, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	if _, err := file.Seek(int64(offset), io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("blob: %w", err), file.Close())
	}
	return file, nil
}

// Delete implements Place.
func (f *Folder) Delete(_ context.Context, name string) error {
	for _, n := range []string{name, partial(name)} {
		if err := f.root.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("blob: %w", err)
		}
	}
	return f.syncDir()
}

// sync syncs one file at a time: a disk that also takes messages has then one such request
// in front of theirs, however many files arrive.
func (f *Folder) sync(file *os.File) error {
	f.syncing <- struct{}{}
	defer func() { <-f.syncing }()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

func (f *Folder) syncDir() error {
	d, err := f.root.Open(".")
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return errors.Join(f.sync(d), d.Close())
}

// folderDraft is a partial file.
type folderDraft struct {
	folder *Folder
	name   string
	file   *os.File
	offset uint64
}

// Offset implements Draft.
func (d *folderDraft) Offset() uint64 { return d.offset }

// Write implements Draft.
func (d *folderDraft) Write(p []byte) (int, error) {
	n, err := d.file.WriteAt(p, int64(d.offset))
	d.offset += uint64(n)
	if err != nil {
		err = fmt.Errorf("blob: %w", err)
	}
	return n, err
}

// Save implements Draft.
func (d *folderDraft) Save(context.Context) (uint64, []byte, error) {
	return d.offset, nil, d.folder.sync(d.file)
}

// Whole implements Draft.
func (d *folderDraft) Whole() (io.Reader, error) {
	return io.NewSectionReader(d.file, 0, int64(d.offset)), nil
}

// Commit implements Draft.
func (d *folderDraft) Commit(context.Context) error {
	if err := d.folder.sync(d.file); err != nil {
		return err
	}
	if err := d.folder.root.Rename(partial(d.name), d.name); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return d.folder.syncDir()
}

// Close implements Draft.
func (d *folderDraft) Close() error {
	if err := d.file.Close(); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}
