// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// spares are files that were released, or made ahead: whole on the disk, to be
// used without a wait.
type spares struct {
	mu     sync.Mutex
	names  []string // guarded by mu
	made   int      // guarded by mu; numbers files made ahead
	ending bool     // guarded by mu
	low    chan struct{}
	done   chan struct{}
}

// begin keeps a spare file in store, made in the background.
func (s *spares) begin(produce func(number int) (string, error)) {
	s.low, s.done = make(chan struct{}, 1), make(chan struct{})
	s.low <- struct{}{}
	go func() {
		defer close(s.done)
		for range s.low {
			s.mu.Lock()
			enough := len(s.names) > 0 || s.ending
			s.made++
			number := s.made
			s.mu.Unlock()
			if enough {
				continue
			}
			// What cannot be made ahead is made when it is needed, by a caller
			// who can say why it could not.
			if name, err := produce(number); err == nil && !s.put(name) {
				_ = os.Remove(name) // released ones have come in meanwhile
			}
		}
	}()
}

func (s *spares) end() {
	s.mu.Lock()
	begun := s.low != nil && !s.ending
	s.ending = true
	if begun {
		close(s.low)
	}
	s.mu.Unlock()
	if begun {
		<-s.done
	}
}

func (s *spares) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// put takes a file in, unless there are enough.
func (s *spares) put(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.names) >= keptFiles {
		return false
	}
	s.names = append(s.names, name)
	return true
}

// take returns a file, or "".
func (s *spares) take() (name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.names); n > 0 {
		name, s.names = s.names[n-1], s.names[:n-1]
	}
	return name
}

// want has a file made ahead, unless there is one.
func (s *spares) want() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.names) == 0 && s.low != nil && !s.ending {
		select {
		case s.low <- struct{}{}:
		default:
		}
	}
}

// makeSpare fills a file with zeros, so that a later write allocates nothing. It
// goes in small steps: a commit that syncs meanwhile must not wait for all of it. The
// zeros go past the kernel's cache where they can: nobody will read them, and copying
// them takes as much time as copying mail.
func (j *Journal) makeSpare(number int) (_ string, err error) {
	name := filepath.Join(j.cfg.Dir, fmt.Sprintf("spare-new-%d", number))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(name)
		}
	}()
	if err := allocate(f, j.cfg.Segment); err != nil {
		return "", err
	}
	zeros := make([]byte, min(j.cfg.Segment, 2<<20)) // at the beginning of a page, in practice
	cached := direct(f, true) != nil
	for at := int64(0); at < j.cfg.Segment; at += int64(len(zeros)) {
		if j.store.stopping() {
			return "", errors.New("journal: closing")
		}
		part := zeros[:min(int64(len(zeros)), j.cfg.Segment-at)]
		_, err := f.WriteAt(part, at)
		if err != nil && !cached { // this file system, or this memory, wants it otherwise
			cached = true
			if err = direct(f, false); err == nil {
				_, err = f.WriteAt(part, at)
			}
		}
		if err != nil {
			return "", err
		}
		if err := datasync(f); err != nil {
			return "", err
		}
	}
	return name, nil
}

// next begins another file: one that was made ahead, of the usual size, or else a short
// one; larger where a batch needs it. It gets its name only when its header is on disk: a
// file with a name of ours and no header is damaged, never half made.
func (j *Journal) next(atLeast int64) error {
	j.mu.RLock()
	number := uint64(1)
	if n := len(j.segments); n > 0 {
		number = j.segments[n-1].number + 1
	}
	j.mu.RUnlock()
	taken := j.store.take()
	name, size := taken, j.cfg.Segment
	if taken == "" {
		name, size = filepath.Join(j.cfg.Dir, "spare-next"), min(size, unfilled)
	}
	s, err := j.create(number, name, max(atLeast, size))
	if err != nil {
		if taken != "" && !j.store.put(taken) {
			err = errors.Join(err, os.Remove(taken))
		}
		return err
	}
	j.mu.Lock()
	j.segments = append(j.segments, s)
	j.mu.Unlock()
	j.end = block
	// A burst that ends soon is not to share the disk with zeros.
	if j.ahead = taken != ""; !j.ahead {
		j.store.want()
	}
	return nil
}

func (j *Journal) create(number uint64, name string, size int64) (_ *segment, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = errors.Join(f.Truncate(0), allocate(f, size))
	}
	if err != nil {
		return nil, err
	}
	s := &segment{header: newHeader(j.cfg.ID, j.seq+1), number: number, size: size, used: block, last: j.seq, file: f}
	if err := j.cfg.Disk.WriteAt(f, s.marshal(), 0); err != nil {
		return nil, err
	}
	if err := errors.Join(j.sync(f), os.Rename(name, j.path(number))); err != nil {
		return nil, err
	}
	if err := j.syncDir(); err != nil {
		return nil, errors.Join(err, os.Remove(j.path(number)))
	}
	return s, nil
}
