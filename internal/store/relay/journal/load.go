// SPDX-License-Identifier: Apache-2.0

package journal

import (
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
	if err := j.loadSpares(); err != nil {
		return err
	}
	if len(j.segments) == 0 {
		return j.next(0)
	}
	for i, s := range j.segments {
		if i > 0 && (s.first != j.seq+1 || s.number != j.segments[i-1].number+1) {
			return fmt.Errorf("%w: file %d begins at batch %d, after batch %d", ErrDamaged, s.number, s.first, j.seq)
		}
		if i == 0 {
			j.seq = s.first - 1
		}
		if j.end, err = j.scan(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// loadSpares keeps what was released, and removes what was not finished, or is shorter
// than a file is made ahead.
func (j *Journal) loadSpares() error {
	names, err := filepath.Glob(filepath.Join(j.cfg.Dir, "spare-*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		var number uint64
		_, notOurs := fmt.Sscanf(filepath.Base(name), "spare-%016x", &number)
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if notOurs == nil && info.Size() >= j.cfg.Segment && j.store.put(name) {
			continue
		}
		if err := os.Remove(name); err != nil {
			return err
		}
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
	head := make([]byte, headerSize)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return errors.Join(err, f.Close())
	}
	h, err := parseHeader(head)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrDamaged, err), f.Close())
	}
	if h.id != j.cfg.ID {
		return errors.Join(ErrForeign, f.Close())
	}
	j.segments = append(j.segments, &segment{header: h, number: number, file: f})
	return nil
}

// scan goes through a segment's batches, sets j.seq and s.last, and returns where
// the last one ends. f, if not nil, is given each batch, whose bytes it may not
// keep.
func (j *Journal) scan(s *segment, f func(seq uint64, at Place, body []byte) error) (int64, error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	s.size = info.Size()
	size, at, want := s.size, int64(block), s.first
	s.last, s.used = s.first-1, at
	var buf []byte
	for {
		body, seq, ok, err := readRecord(s.file, s.salt, at, size, buf)
		if err != nil {
			return 0, err
		}
		if !ok || seq != want {
			if j.live {
				return at, nil
			}
			if err := j.nothingFollows(s, at, size, want); err != nil {
				return 0, err
			}
			j.seq = max(j.seq, s.last)
			return at, nil
		}
		if f != nil {
			if err := f(seq, Place{s.number, at + Head}, body); err != nil {
				return 0, err
			}
		}
		s.last = seq
		want++
		at += blocks(Head + int64(len(body)))
		s.used = at
		if buf = body; cap(buf) > keptBuffer {
			buf = nil
		}
	}
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
	var buf []byte
	for from := at + block; from < size; from += block {
		body, seq, ok, err := readRecord(s.file, s.salt, from, size, buf)
		if err != nil {
			return err
		}
		if ok {
			return fmt.Errorf("%w: batch %d in file %d, with batch %d behind it", ErrDamaged, want, s.number, seq)
		}
		if body != nil {
			buf = body
		}
	}
	return nil
}

// Replay calls f for each batch after a number, in order; body is f's only until
// it returns. Call it before the first Append.
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
