// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
)

// load finds the files, and the end of the last one.
func (j *Journal) load() error {
	names, err := filepath.Glob(filepath.Join(j.cfg.Dir, "segment-*"))
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		if err := j.loadSegment(name); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	if j.spare, err = filepath.Glob(filepath.Join(j.cfg.Dir, "spare-*")); err != nil {
		return err
	}
	if len(j.segments) == 0 {
		return j.next()
	}
	for i, s := range j.segments {
		last := i == len(j.segments)-1
		if i > 0 && (s.first != j.seq+1 || s.number != j.segments[i-1].number+1) {
			return fmt.Errorf("%w: file %d begins at batch %d, after batch %d", ErrDamaged, s.number, s.first, j.seq)
		}
		if i == 0 {
			j.seq = s.first - 1
		}
		end, err := j.scan(s, nil)
		if err != nil {
			return err
		}
		if !last {
			continue
		}
		j.end = end
	}
	return nil
}

func (j *Journal) loadSegment(name string) error {
	var number uint64
	if _, err := fmt.Sscanf(filepath.Base(name), "segment-%016x", &number); err != nil || name != j.path(number) {
		return fmt.Errorf("%w: not a name of ours", ErrDamaged)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	head := make([]byte, segmentHeader)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return errors.Join(err, f.Close())
	}
	if n < segmentHeader || !bytes.Equal(head[:8], segmentMagic[:]) {
		// A crash while the file was made: nothing was acknowledged in it. It
		// is made anew when there are others, and can only be the last.
		return errors.Join(f.Close(), os.Remove(name))
	}
	j.segments = append(j.segments, &segment{number: number, first: binary.BigEndian.Uint64(head[8:]), file: f})
	return nil
}

// scan goes through a segment's batches, sets j.seq and s.last, and returns where
// the last one ends. f, if not nil, is given each batch.
func (j *Journal) scan(s *segment, f func(seq uint64, at Place, body []byte) error) (int64, error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	size, at, want := info.Size(), int64(segmentHeader), s.first
	s.last = s.first - 1
	for {
		body, seq, ok, err := readRecord(s.file, at, size)
		if err != nil {
			return 0, err
		}
		if !ok || seq != want {
			if err := j.nothingFollows(s, at, size, want); err != nil {
				return 0, err
			}
			j.seq = max(j.seq, s.last)
			return at, nil
		}
		if f != nil {
			if err := f(seq, Place{s.number, at + recordHeader}, body); err != nil {
				return 0, err
			}
		}
		s.last = seq
		want++
		at += int64(recordHeader + len(body))
	}
}

// readRecord reads what lies at an offset, and whether it is a whole batch.
func readRecord(f io.ReaderAt, at, size int64) (body []byte, seq uint64, ok bool, err error) {
	var h [recordHeader]byte
	if at+recordHeader > size {
		return nil, 0, false, nil
	}
	if _, err := f.ReadAt(h[:], at); err != nil {
		return nil, 0, false, err
	}
	length := int64(binary.BigEndian.Uint32(h[4:]))
	if binary.BigEndian.Uint32(h[0:]) != recordMagic || length > MaxBody || at+recordHeader+length > size {
		return nil, 0, false, nil
	}
	body = make([]byte, length)
	if _, err := f.ReadAt(body, at+recordHeader); err != nil {
		return nil, 0, false, err
	}
	ok = checksum(h[4:16], body) == binary.BigEndian.Uint32(h[16:])
	return body, binary.BigEndian.Uint64(h[8:]), ok, nil
}

// nothingFollows makes sure that a batch that cannot be read was the last one. A
// batch is written only when the one before it is on disk: a whole one behind it
// proves that it was acknowledged.
func (j *Journal) nothingFollows(s *segment, at, size int64, want uint64) error {
	for _, other := range j.segments {
		if other.number == s.number+1 && other.first != want {
			return fmt.Errorf("%w: batch %d in file %d, with a file behind it", ErrDamaged, want, s.number)
		}
	}
	var magic [4]byte
	binary.BigEndian.PutUint32(magic[:], recordMagic)
	const window = 1 << 20
	buf := make([]byte, window)
	for from := at + 1; from < size; from += window - recordHeader {
		n, err := s.file.ReadAt(buf[:min(window, size-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := 0; ; {
			k := bytes.Index(buf[i:n], magic[:])
			if k < 0 {
				break
			}
			i += k
			_, seq, ok, err := readRecord(s.file, from+int64(i), size)
			if err != nil {
				return err
			}
			if ok && seq > want {
				return fmt.Errorf("%w: batch %d in file %d, with batch %d behind it", ErrDamaged, want, s.number, seq)
			}
			i++
		}
	}
	return nil
}

// Replay calls f for each batch after a number, in order. body is f's to keep.
// Call it before the first Append.
func (j *Journal) Replay(after uint64, f func(seq uint64, at Place, body []byte) error) error {
	if first := j.segments[0].first; first > after+1 {
		return fmt.Errorf("%w: it begins at batch %d, and the database has only %d", ErrDamaged, first, after)
	}
	if j.seq < after {
		return fmt.Errorf("%w: it ends at batch %d, and the database has %d", ErrDamaged, j.seq, after)
	}
	for _, s := range j.segments {
		if s.last <= after {
			continue
		}
		_, err := j.scan(s, func(seq uint64, at Place, body []byte) error {
			if seq <= after {
				return nil
			}
			return f(seq, at, body)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
