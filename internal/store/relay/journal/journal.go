// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
)

const (
	// DefaultSegment is the size of a file: large enough that changing files is
	// rare, small enough to be released soon.
	DefaultSegment = 64 << 20

	// MaxBody bounds one batch, above mailbox.DefaultBatchBytes.
	MaxBody = 32 << 20

	// keptFiles is how many released files wait to be used again.
	keptFiles = 2

	// A segment begins with
	//
	//	opaque magic[8] = "VALJRNL1"; uint64 first;
	//
	// and goes on with records,
	//
	//	uint32 magic; uint32 length; uint64 seq; uint32 crc; opaque body[length];
	//
	// the crc being CRC-32C of length, seq and body. A file that is used again
	// holds older records behind the newer ones, with smaller numbers.
	segmentHeader = 16
	recordHeader  = 20
	recordMagic   = 0x564a5201
)

var (
	segmentMagic = [8]byte{'V', 'A', 'L', 'J', 'R', 'N', 'L', '1'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)

	// ErrDamaged is wrapped by errors about batches that were acknowledged and
	// cannot be read any more.
	ErrDamaged = errors.New("journal: damaged: restore the newest backup, and let devices and gateway compare their counters")
	// ErrReleased is returned for a place that has been released.
	ErrReleased = errors.New("journal: released")
	// errFailed is returned once a write has failed: what the disk holds is
	// unknown until the journal is opened anew.
	errFailed = errors.New("journal: an earlier write failed; restart the gateway")
)

// A Config says where a journal is.
type Config struct {
	Dir     string
	Segment int64 // bytes of a file; 0 means DefaultSegment
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
	spare    []string   // guarded by mu; files to be used again

	// Owned by the caller of Append.
	seq    uint64 // of the last batch
	end    int64  // of the last segment
	failed bool
	buffer []byte
}

type segment struct {
	number uint64 // also its file's name
	first  uint64 // seq of its first batch
	last   uint64 // owned by Append's caller and read under mu: seq of its last batch, first-1 if it has none
	file   *os.File
}

// Open opens a folder's journal, or makes one. The folder must exist.
func Open(cfg Config) (*Journal, error) {
	if cfg.Segment == 0 {
		cfg.Segment = DefaultSegment
	}
	j := &Journal{cfg: cfg}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %s: %w", cfg.Dir, err), j.Close())
	}
	return j, nil
}

// Last returns the number of the last batch, 0 if there is none.
func (j *Journal) Last() uint64 { return j.seq }

// Append writes a batch and returns when it is on disk, with its number and the
// place of its first byte. After an error nothing more can be appended: whether
// the batch is on disk is known when the journal is opened anew.
func (j *Journal) Append(body []byte) (uint64, Place, error) {
	if j.failed {
		return 0, Place{}, errFailed
	}
	if len(body) > MaxBody {
		return 0, Place{}, fmt.Errorf("journal: a batch of %d bytes, at most %d are allowed", len(body), MaxBody)
	}
	seq, at, err := j.append(body)
	if err != nil {
		j.failed = true
		return 0, Place{}, fmt.Errorf("journal: %w", err)
	}
	return seq, at, nil
}

func (j *Journal) append(body []byte) (uint64, Place, error) {
	size := int64(recordHeader + len(body))
	if j.end+size > j.cfg.Segment && j.end > segmentHeader {
		if err := j.next(); err != nil {
			return 0, Place{}, err
		}
	}
	s, seq := j.current(), j.seq+1
	j.buffer = appendRecord(j.buffer[:0], seq, body)
	if _, err := s.file.WriteAt(j.buffer, j.end); err != nil {
		return 0, Place{}, err
	}
	if err := j.sync(s.file); err != nil {
		return 0, Place{}, err
	}
	at := Place{s.number, j.end + recordHeader}
	j.end += size
	j.seq = seq
	j.mu.Lock()
	s.last = seq
	j.mu.Unlock()
	if cap(j.buffer) > 4<<20 {
		j.buffer = nil // one large batch must not stay in memory
	}
	return seq, at, nil
}

func appendRecord(b []byte, seq uint64, body []byte) []byte {
	var h [recordHeader]byte
	binary.BigEndian.PutUint32(h[0:], recordMagic)
	binary.BigEndian.PutUint32(h[4:], uint32(len(body)))
	binary.BigEndian.PutUint64(h[8:], seq)
	binary.BigEndian.PutUint32(h[16:], checksum(h[4:16], body))
	return append(append(b, h[:]...), body...)
}

func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, head), castagnoli, body)
}

func (j *Journal) current() *segment {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.segments[len(j.segments)-1]
}

// next begins another file.
func (j *Journal) next() error {
	j.mu.Lock()
	number := uint64(1)
	if n := len(j.segments); n > 0 {
		number = j.segments[n-1].number + 1
	}
	spare := ""
	if n := len(j.spare); n > 0 {
		spare, j.spare = j.spare[n-1], j.spare[:n-1]
	}
	j.mu.Unlock()
	s, err := j.create(number, spare)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.segments = append(j.segments, s)
	j.mu.Unlock()
	j.end = segmentHeader
	return nil
}

func (j *Journal) create(number uint64, spare string) (_ *segment, err error) {
	path := j.path(number)
	if spare != "" {
		if err := os.Rename(spare, path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := allocate(f, j.cfg.Segment); err != nil {
		return nil, err
	}
	head := make([]byte, segmentHeader)
	copy(head, segmentMagic[:])
	binary.BigEndian.PutUint64(head[8:], j.seq+1)
	if _, err := f.WriteAt(head, 0); err != nil {
		return nil, err
	}
	if err := j.sync(f); err != nil {
		return nil, err
	}
	return &segment{number: number, first: j.seq + 1, last: j.seq, file: f}, j.syncDir()
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

// Release gives up the batches up to a number, file by file.
func (j *Journal) Release(seq uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []error
	for len(j.segments) > 1 && j.segments[0].last <= seq {
		s := j.segments[0]
		j.segments = j.segments[1:]
		all = append(all, s.file.Close())
		if len(j.spare) == keptFiles {
			all = append(all, os.Remove(j.path(s.number)))
			continue
		}
		name := filepath.Join(j.cfg.Dir, fmt.Sprintf("spare-%016x", s.number))
		if err := os.Rename(j.path(s.number), name); err != nil {
			all = append(all, err)
			continue
		}
		j.spare = append(j.spare, name)
	}
	return errors.Join(all...)
}

// Size returns how many bytes are not released.
func (j *Journal) Size() int64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return int64(len(j.segments)) * j.cfg.Segment
}

// Close closes the files.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []error
	for _, s := range j.segments {
		all = append(all, s.file.Close())
	}
	j.segments = nil
	j.failed = true
	return errors.Join(all...)
}

func (j *Journal) path(number uint64) string {
	return filepath.Join(j.cfg.Dir, fmt.Sprintf("segment-%016x", number))
}

func (j *Journal) sync(f *os.File) error {
	if j.cfg.UnsafeNoSync {
		return nil
	}
	return datasync(f)
}

func (j *Journal) syncDir() error {
	if j.cfg.UnsafeNoSync {
		return nil
	}
	d, err := os.Open(j.cfg.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
