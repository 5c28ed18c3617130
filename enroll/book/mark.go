// SPDX-License-Identifier: Apache-2.0

package book

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxMark bounds the file with the newest checkpoint; one has some 300 octets.
const maxMark = 64 << 10

// checkMark compares the ledger with the newest checkpoint that this machine has
// seen. Whoever exchanges the database for an older copy of itself, checkpoints
// included, would bring back what was suspended since.
func (b *Book) checkMark(ctx context.Context, text []byte) error {
	if text == nil {
		return nil
	}
	if err := b.holds(ctx, text, b.cfg.Mark); err != nil {
		return fmt.Errorf("%w: this is not the database that this machine worked with last. "+
			"If an older copy was put in its place on purpose, make a backup of it and restore that, so that gateways are asked for what it lacks", err)
	}
	head, err := b.open(text)
	b.marked.Store(head.N)
	return err
}

// readMark returns the file's text, nil if there is none.
func (b *Book) readMark() ([]byte, error) {
	if b.cfg.Mark == "" {
		return nil, nil
	}
	f, err := os.Open(b.cfg.Mark)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("book: the newest checkpoint that was seen: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMark+1))
	if err == nil && len(text) > maxMark {
		err = fmt.Errorf("%s is larger than %d octets", b.cfg.Mark, maxMark)
	}
	if err != nil {
		return nil, fmt.Errorf("book: the newest checkpoint that was seen: %w", err)
	}
	return text, nil
}

// mark keeps a checkpoint that was verified, or just signed, and is in the database:
// whole on the disk, or the one before.
func (b *Book) mark(text []byte, size int64) error {
	if b.cfg.Mark != "" && size > b.marked.Load() {
		if err := writeMark(b.cfg.Mark, text); err != nil {
			return fmt.Errorf("book: the newest checkpoint could not be kept: %w", err)
		}
	}
	b.marked.Store(max(size, b.marked.Load()))
	return nil
}

func writeMark(path string, text []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
