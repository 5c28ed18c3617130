// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"valise/gateway/mailbox"
)

// Errors that callers act on.
var (
	ErrNotFound = errors.New("blob: no such file")
	ErrTooLarge = errors.New("blob: file is larger than allowed, or its size is not the one announced first")
	ErrQuota    = errors.New("blob: the device's quota is used up")
	ErrRoom     = errors.New("blob: there is no room for a file of this size")
	ErrBusy     = errors.New("blob: the file is being uploaded by another stream")
	ErrHash     = errors.New("blob: what arrived does not hash to the file's id")
	ErrLength   = errors.New("blob: upload ended before the announced size, or went beyond it")
)

// A Config says where files lie. Place and Store are required.
type Config struct {
	Place Place
	Store mailbox.Blobs
	// Shared is for a place that several gateways use, with one database.
	Shared bool
	Quota  uint64        // bytes of one owner's files; 0 means no bound
	Total  uint64        // bytes of all files; 0 means no bound
	Floor  uint64        // bytes that the place's disk keeps free; 0 means DefaultFloor
	Expiry time.Duration // of complete files; 0 means never
	Now    func() time.Time
	// Ended is told of each file that this process has ended. It may be nil.
	Ended func(mailbox.Blob)
}

// A Store keeps files.
type Store struct {
	cfg    Config
	holder [16]byte // names this process in claims

	mu    sync.Mutex
	busy  map[string]bool // guarded by mu; names with an upload running here
	swept time.Time       // guarded by mu; when the place was swept last
}

// Open returns a store on a place.
func Open(cfg Config) (*Store, error) {
	if cfg.Place == nil || cfg.Store == nil {
		return nil, errors.New("blob: a place and a store must be given")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Floor == 0 {
		cfg.Floor = DefaultFloor
	}
	if cfg.Ended == nil {
		cfg.Ended = func(mailbox.Blob) {}
	}
	s := &Store{cfg: cfg, busy: make(map[string]bool)}
	rand.Read(s.holder[:])
	return s, nil
}

// nameOf is the file's name: the same file in two groups is two files, so that
// each group's members have to bring it themselves.
func nameOf(group []byte, id [32]byte) string {
	h := sha256.New()
	h.Write(id[:])
	h.Write(group)
	return hex.EncodeToString(h.Sum(nil))
}

// placeOf is the name of a file's bytes in its present life.
func placeOf(b *mailbox.Blob) string {
	if b.Life == 0 {
		return b.Name
	}
	return fmt.Sprintf("%s-%d", b.Name, b.Life)
}

// take takes the right to write a file, within this process.
func (s *Store) take(name string) bool {
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

// claim is what this process says to write a file from now on.
func (s *Store) claim() mailbox.Claim {
	now := s.cfg.Now()
	return mailbox.Claim{Holder: s.holder, Now: now.Unix(), Until: now.Add(claimFor).Unix(), Alone: !s.cfg.Shared}
}

// limits are what may be announced now.
func (s *Store) limits(ctx context.Context) mailbox.BlobLimits {
	l := mailbox.BlobLimits{Owner: s.cfg.Quota, Total: s.cfg.Total}
	if free, ok := s.cfg.Place.Free(ctx); ok {
		l.Room = 1 // 0 means no bound
		if free > s.cfg.Floor {
			l.Room = min(free-s.cfg.Floor, math.MaxInt64)
		}
	}
	return l
}

// A File is a complete one, to be read.
type File struct {
	Size uint64

	s    *Store
	name string
}

// From reads the file from an offset on.
func (f *File) From(ctx context.Context, offset uint64) (io.ReadCloser, error) {
	return f.s.cfg.Place.Open(ctx, f.name, offset, f.Size)
}

// Get finds a complete file that belongs to a group which allowed accepts. A
// file that exists for other groups only is not found: its existence is none
// of the asker's business.
func (s *Store) Get(ctx context.Context, id [32]byte, allowed func(group []byte) bool) (*File, error) {
	records, err := s.cfg.Store.Blobs(ctx, id)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now().Unix()
	for _, b := range records {
		if !b.Complete || b.End != mailbox.BlobKept || b.Expires <= now || !allowed(b.Group) {
			continue
		}
		has, err := s.cfg.Place.Has(ctx, placeOf(&b), b.Size)
		if err != nil {
			return nil, err
		}
		if has {
			return &File{Size: b.Size, s: s, name: placeOf(&b)}, nil
		}
	}
	return nil, ErrNotFound
}

// Done notes that a device is done with a file (spec/wire.md, Section 8.2). The file ends,
// and its bytes are deleted, when that was the last one.
func (s *Store) Done(ctx context.Context, id [32]byte, device mailbox.Device) error {
	ended, err := s.cfg.Store.BlobDone(ctx, id, device, s.cfg.Now().Add(toldFor).Unix())
	if errors.Is(err, mailbox.ErrNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	// What is done is done: should the bytes stay, the next round deletes them.
	_ = s.end(context.WithoutCancel(ctx), ended)
	return nil
}

// Standing says what became of a file that a device brought.
func (s *Store) Standing(ctx context.Context, id [32]byte, owner mailbox.Device) (mailbox.BlobStanding, error) {
	st, err := s.cfg.Store.BlobStanding(ctx, id, owner)
	if errors.Is(err, mailbox.ErrNotFound) {
		err = ErrNotFound
	}
	return st, err
}

// Expire ends files whose time is over and those that nobody is waited for any more,
// deletes what is left of all that have ended, and forgets those that nobody is to
// be told of. Several gateways may do it at the same time.
func (s *Store) Expire(ctx context.Context, now time.Time) error {
	until := now.Add(toldFor).Unix()
	list, err := s.cfg.Store.ExpiredBlobs(ctx, now, endAtOnce)
	if err != nil {
		return err
	}
	for _, b := range list {
		// Of an upload that nobody finished nobody is told.
		remember := until
		if !b.Complete {
			remember = 0
		}
		mine, err := s.cfg.Store.ExpireBlob(ctx, b, now, remember)
		if err != nil {
			return err
		}
		if mine {
			b.End = mailbox.BlobExpired
			s.cfg.Ended(b)
		}
	}
	fetched, err := s.cfg.Store.FetchedBlobs(ctx, until, endAtOnce)
	if err != nil {
		return err
	}
	for _, b := range fetched {
		s.cfg.Ended(b)
	}
	litter, err := s.cfg.Store.LitteredBlobs(ctx, endAtOnce)
	if err != nil {
		return err
	}
	var all []error
	for _, b := range litter {
		all = append(all, s.wipe(ctx, b))
	}
	return errors.Join(append(all, s.cfg.Store.ForgetBlobs(ctx, now, endAtOnce), s.sweep(ctx, now))...)
}

// sweep has the place look for what no record knows, now and then.
func (s *Store) sweep(ctx context.Context, now time.Time) error {
	place, ok := s.cfg.Place.(Sweeper)
	if !ok {
		return nil
	}
	s.mu.Lock()
	due := now.Sub(s.swept).Abs() >= sweepEvery
	if due {
		s.swept = now
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	return place.Sweep(ctx, now)
}

// end tells of files that have ended, and deletes their bytes.
func (s *Store) end(ctx context.Context, list []mailbox.Blob) error {
	var all []error
	for _, b := range list {
		s.cfg.Ended(b)
		all = append(all, s.wipe(ctx, b))
	}
	return errors.Join(all...)
}

// wipe deletes the bytes of a file that has ended.
func (s *Store) wipe(ctx context.Context, b mailbox.Blob) error {
	if err := s.cfg.Place.Delete(ctx, placeOf(&b)); err != nil {
		return err
	}
	return s.cfg.Store.WipedBlob(ctx, b)
}
