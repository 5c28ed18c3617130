// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// holdName is the file whose lock keeps batches from being released.
const holdName = "hold"

func (j *Journal) openHold() (err error) {
	j.hold, err = os.OpenFile(filepath.Join(j.cfg.Dir, holdName), os.O_RDWR|os.O_CREATE, 0o600)
	return err
}

// Hold keeps a folder's journal, which another process may be writing to, from
// releasing anything until the returned function is called.
func Hold(dir string) (release func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, holdName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// lockAlone takes the lock for a moment, unless somebody holds it.
func lockAlone(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

func unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// ReadAfter calls f for each batch after a number in a folder that another process
// may be writing to; the caller has taken Hold. A batch that is being written is
// left out. body is f's only until it returns.
func ReadAfter(dir string, id [16]byte, after uint64, f func(seq uint64, body []byte) error) (err error) {
	j := &Journal{cfg: Config{Dir: dir, ID: id}, live: true}
	defer func() { err = errors.Join(err, j.Close()) }()
	names, err := filepath.Glob(filepath.Join(dir, "segment-*")) // in order
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := j.loadSegment(name); err != nil {
			return fmt.Errorf("journal: %s: %w", filepath.Base(name), err)
		}
	}
	for i, s := range j.segments {
		if i == 0 && s.first > after+1 || i > 0 && s.first != j.segments[i-1].last+1 {
			return fmt.Errorf("%w: file %d begins at batch %d", ErrDamaged, s.number, s.first)
		}
		_, err := j.scan(s, func(seq uint64, _ Place, body []byte) error {
			if seq <= after {
				return nil
			}
			return f(seq, body)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
