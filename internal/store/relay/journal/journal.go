// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

var (
	// ErrDamaged is wrapped by errors about batches that were acknowledged and
	// cannot be read any more.
	ErrDamaged = errors.New("journal: damaged: restore the newest backup into an empty folder")
	// ErrForeign is wrapped when a file belongs to another journal.
	ErrForeign = errors.New("journal: it belongs to another database: put back the one that it was made with")
	// ErrReleased is returned for a place that has been released.
	ErrReleased = errors.New("journal: released")
	// ErrFailed is wrapped when a write has failed: a crash may now leave the
	// batch behind, or not. Nothing else is written before it is erased.
	ErrFailed = errors.New("journal: the disk does not take what is written: make room, or replace it")
	errClosed = errors.New("journal: closed")
)

// A Config says where a journal is. Dir is required.
type Config struct {
	Dir     string
	ID      [16]byte // of the database that it belongs to
	Segment int64    // bytes of a file; 0 means DefaultSegment
	Disk    Disk     // nil means the operating system's
	// UnsafeNoSync switches syncing off. It is for the control of durability
	// tests, which must lose data with it.
	UnsafeNoSync bool
}

// A Place is where bytes lie.
type Place struct {
	Segment uint64
	Offset  int64
}

// Plus returns the place n bytes behind p, in the same batch.
func (p Place) Plus(n int) Place { return Place{p.Segment, p.Offset + int64(n)} }

// A Journal is open. See the package's comment for who may call what.
type Journal struct {
	cfg Config

	mu       sync.RWMutex
	segments []*segment // guarded by mu; ascending, the last one is written to

	// Owned by the caller of Append.
	seq    uint64 // of the last batch
	end    int64  // of the last segment
	ahead  bool   // the file after this one is to be made when enough of it is written
	torn   bool   // a batch that failed may stand at end
	closed bool

	store spares
	hold  *os.File // owned by Release's caller
	live  bool     // another process writes it
}

type segment struct {
	header
	number uint64 // also its file's name
	size   int64
	used   int64  // changed together with last: bytes up to the end of that batch
	last   uint64 // changed by Append's caller under mu: seq of its last batch, first-1 if it has none
	file   *os.File
}

// Open opens a folder's journal, or makes one. The folder must exist.
func Open(cfg Config) (*Journal, error) {
	if cfg.Segment == 0 {
		cfg.Segment = DefaultSegment
	}
	if cfg.Disk == nil {
		cfg.Disk = realDisk{}
	}
	j := &Journal{cfg: cfg}
	err := j.openHold()
	if err == nil {
		err = j.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %s: %w", cfg.Dir, err), j.Close())
	}
	j.store.begin(j.makeSpare)
	return j, nil
}

// ID returns the id of the database that the journal belongs to.
func (j *Journal) ID() [16]byte { return j.cfg.ID }

// Last returns the number of the last batch, 0 if there is none. It is for
// Append's caller.
func (j *Journal) Last() uint64 { return j.seq }

// Append writes a batch, for which Head bytes are left free at the beginning of
// buf, and returns when it is on disk, with its number and the place of its
// first byte. An error that wraps ErrFailed says that a crash before the next
// Append may leave the batch behind; any other, that it is not on disk.
func (j *Journal) Append(buf []byte) (uint64, Place, error) {
	if err := j.Mend(); err != nil {
		return 0, Place{}, err
	}
	if n := len(buf) - Head; n < 0 || n > MaxBody {
		return 0, Place{}, fmt.Errorf("journal: a batch of %d bytes is too large", n)
	}
	if need := blocks(int64(len(buf))); j.end+need > j.current().size {
		if err := j.next(block + need); err != nil {
			return 0, Place{}, fmt.Errorf("journal: begin a file: %w", err)
		}
	}
	seq, at, err := j.append(buf)
	if err != nil {
		j.torn = true
		return 0, Place{}, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return seq, at, nil
}

// Mend erases what a write that failed may have left, so that the next batch can take
// its place: a sync that failed says nothing of what the disk holds, and the number of
// the batch that failed will be another's. It is for Append's caller, who need not call
// it; nil says that the disk takes what is written.
func (j *Journal) Mend() error {
	if j.closed {
		return errClosed
	}
	if !j.torn {
		return nil
	}
	s := j.current()
	if err := errors.Join(j.cfg.Disk.WriteAt(s.file, make([]byte, block), j.end), j.sync(s.file)); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	j.torn = false
	return nil
}

func (j *Journal) append(buf []byte) (uint64, Place, error) {
	s, seq := j.current(), j.seq+1
	buf = seal(buf, s.salt, seq)
	if err := j.cfg.Disk.WriteAt(s.file, buf, j.end); err != nil {
		return 0, Place{}, err
	}
	if err := j.sync(s.file); err != nil {
		return 0, Place{}, err
	}
	at := Place{s.number, j.end + Head}
	j.end += int64(len(buf))
	j.seq = seq
	if j.ahead && j.end >= s.size/aheadAfter {
		j.ahead = false
		j.store.want()
	}
	j.mu.Lock()
	s.last, s.used = seq, j.end
	j.mu.Unlock()
	return seq, at, nil
}

func (j *Journal) current() *segment {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.segments[len(j.segments)-1]
}

// Oldest returns the last batch of the oldest file with batches behind a number,
// and how many such files there are, counted as files of the usual size; the newest one
// always counts, for as much of it as has been written.
func (j *Journal) Oldest(after uint64) (last uint64, files int) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for i, s := range j.segments {
		if s.last > after || i == len(j.segments)-1 {
			size := int64(0)
			for _, each := range j.segments[i : len(j.segments)-1] {
				size += each.size
			}
			size += j.segments[len(j.segments)-1].used
			return s.last, int((size + j.cfg.Segment - 1) / j.cfg.Segment)
		}
	}
	return 0, 0
}

// ReadAt fills p with what lies at a place.
func (j *Journal) ReadAt(p []byte, at Place) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, s := range j.segments {
		if s.number == at.Segment {
			_, err := s.file.ReadAt(p, at.Offset)
			return err
		}
	}
	return ErrReleased
}

// Release gives up the batches up to a number, file by file. While somebody
// holds the journal it gives up nothing: the next call does.
func (j *Journal) Release(seq uint64) error {
	j.mu.RLock()
	due := len(j.segments) > 1 && j.segments[0].last <= seq
	j.mu.RUnlock()
	if !due || !lockAlone(j.hold) {
		return nil
	}
	defer unlock(j.hold)
	var all []error
	j.mu.Lock()
	var released []*segment
	for len(j.segments) > 1 && j.segments[0].last <= seq {
		released = append(released, j.segments[0])
		j.segments = j.segments[1:]
	}
	j.mu.Unlock()
	for _, s := range released {
		all = append(all, s.file.Close(), os.Rename(j.path(s.number), j.spare(s)))
	}
	// Before one of them is used again its former name has to be gone: a loss of power
	// could bring that back, with what was written under the next one.
	if err := errors.Join(append(all, j.syncDir())...); err != nil {
		return err
	}
	for _, s := range released {
		if name := j.spare(s); s.size < j.cfg.Segment || !j.store.put(name) {
			all = append(all, os.Remove(name))
		}
	}
	return errors.Join(all...)
}

// spare is the name of a released file that waits to be used again.
func (j *Journal) spare(s *segment) string {
	return filepath.Join(j.cfg.Dir, fmt.Sprintf("spare-%016x", s.number))
}

// Close closes the files.
func (j *Journal) Close() error {
	j.store.end()
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []error
	for _, s := range j.segments {
		all = append(all, s.file.Close())
	}
	if j.hold != nil {
		all = append(all, j.hold.Close())
		j.hold = nil
	}
	j.segments = nil
	j.closed = true
	return errors.Join(all...)
}

func (j *Journal) path(number uint64) string {
	return filepath.Join(j.cfg.Dir, fmt.Sprintf("segment-%016x", number))
}

func (j *Journal) sync(f *os.File) error {
	if j.cfg.UnsafeNoSync {
		return nil
	}
	return j.cfg.Disk.Sync(f)
}

func (j *Journal) syncDir() error {
	if j.cfg.UnsafeNoSync {
		return nil
	}
	return j.cfg.Disk.SyncDir(j.cfg.Dir)
}
