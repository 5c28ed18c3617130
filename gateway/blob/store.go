// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"valise/gateway/mailbox"
)

// Errors that callers act on.
var (
	ErrNotFound = errors.New("blob: no such file")
	ErrTooLarge = errors.New("blob: file is larger than allowed, or its size is not the one announced first")
	ErrQuota    = errors.New("blob: the device's quota is used up")
	ErrBusy     = errors.New("blob: the file is being uploaded by another stream")
	ErrHash     = errors.New("blob: what arrived does not hash to the file's id")
	ErrLength   = errors.New("blob: upload ended before the announced size, or went beyond it")
)

// A Config says where files lie. Dir and Store are required.
type Config struct {
	Dir    string // files go to its subdirectory "blobs"
	Store  mailbox.Store
	Quota  uint64        // bytes of one owner's files; 0 means no bound
	Expiry time.Duration // of complete files; 0 means never
	Now    func() time.Time
}

// A Store keeps files.
type Store struct {
	cfg Config
	dir string

	mu   sync.Mutex
	busy map[string]bool // guarded by mu; names with an upload running
}

// Open makes the directory if it is missing.
func Open(cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dir := filepath.Join(cfg.Dir, "blobs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &Store{cfg: cfg, dir: dir, busy: make(map[string]bool)}, nil
}

// nameOf is the file's name: the same file in two groups is two files, so that
// each group's members have to bring it themselves.
func nameOf(group []byte, id [32]byte) string {
	h := sha256.New()
	h.Write(id[:])
	h.Write(group)
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Store) path(name string) string    { return filepath.Join(s.dir, name) }
func (s *Store) partial(name string) string { return filepath.Join(s.dir, name+".part") }

// claim takes the right to write a file.
func (s *Store) claim(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[name] {
		return false
	}
	s.busy[name] = true
	return true
}

func (s *Store) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, name)
}

// Get opens a complete file that belongs to a group which allowed accepts. A
// file that exists for other groups only is not found: its existence is none
// of the asker's business.
func (s *Store) Get(ctx context.Context, id [32]byte, allowed func(group []byte) bool) (*os.File, uint64, error) {
	records, err := s.cfg.Store.Blobs(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	now := s.cfg.Now().Unix()
	for _, b := range records {
		if !b.Complete || b.Expires <= now || !allowed(b.Group) {
			continue
		}
		f, err := os.Open(s.path(b.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return f, b.Size, err
	}
	return nil, 0, ErrNotFound
}

// Expire removes files whose time is over.
func (s *Store) Expire(ctx context.Context, now time.Time) error {
	list, err := s.cfg.Store.ExpiredBlobs(ctx, now, expireAtOnce)
	if err != nil {
		return err
	}
	for _, b := range list {
		if !s.claim(b.Name) {
			continue // being uploaded: next time
		}
		err := s.dropExpired(ctx, b, now)
		s.release(b.Name)
		if err != nil {
			return err
		}
	}
	return nil
}

// dropExpired looks again before it drops a file, with the name's claim held: an
// upload may have completed it since it was listed.
func (s *Store) dropExpired(ctx context.Context, listed mailbox.Blob, now time.Time) error {
	records, err := s.cfg.Store.Blobs(ctx, listed.ID)
	if err != nil {
		return err
	}
	for _, b := range records {
		if b.Name == listed.Name && b.Expires <= now.Unix() {
			return s.drop(ctx, b.Name)
		}
	}
	return nil
}

// drop forgets a file: first the record, so that a crash in between leaves an
// orphan on disk and never a record without its file. The name's claim is held.
func (s *Store) drop(ctx context.Context, name string) error {
	if err := s.cfg.Store.DropBlob(ctx, name); err != nil {
		return err
	}
	for _, path := range []string{s.path(name), s.partial(name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
