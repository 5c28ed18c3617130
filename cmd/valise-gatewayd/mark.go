// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"valise/internal/store/relay"
)

// markEvery is how often it is noted how far the store has come.
const markEvery = time.Minute

// marked is a store that says how far it has come, and counts what is noted of that.
type marked interface {
	Mark(context.Context) (relay.Mark, error)
	Beat(context.Context) (relay.Mark, error)
}

// markFile lies beside the audit stream, not in the data directory: whoever copies an
// older data directory back does not copy it with it.
func (c *Config) markFile() string { return c.Audit + ".mark" }

// mark is the file.
type mark struct {
	Store string `json:"store"`
	Seen  uint64 `json:"seen"`
}

// A copiedError says that the store is not the one that was noted.
type copiedError struct{ err error }

func (e *copiedError) Error() string { return e.err.Error() }
func (e *copiedError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *copiedError) Hint() string {
	return "put back the newest one; or if there is none, restore a backup into an empty data directory (valise-gatewayd restore), or say that this is an older one (valise-gatewayd restored)"
}

// checkMark compares the store with what was noted of it when a gateway last used it.
func (c *Config) checkMark(ctx context.Context, s marked) error {
	data, err := os.ReadFile(c.markFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var m mark
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err = d.Decode(&m)
	id, hexErr := hex.DecodeString(m.Store)
	if err = errors.Join(err, hexErr); err != nil || len(id) != 16 {
		return &copiedError{fmt.Errorf("%s does not say how far the store had come: %w", c.markFile(), err)}
	}
	now, err := s.Mark(ctx)
	if err != nil {
		return err
	}
	err = now.Check(relay.Mark{Store: [16]byte(id), Seen: m.Seen})
	if shared, ok := s.(interface {
		Was(context.Context, [16]byte) (bool, error)
	}); ok && err != nil {
		switch was, wasErr := shared.Was(ctx, [16]byte(id)); {
		case wasErr != nil:
			return wasErr
		case was: // restored since, and said so at another gateway
			return nil
		}
	}
	if err != nil {
		return &copiedError{err}
	}
	return nil
}

// noteMark notes how far the store has come.
func (c *Config) noteMark(ctx context.Context, s marked) error {
	if info, err := os.Stat(c.Audit); err != nil || !info.Mode().IsRegular() {
		return err // nothing can lie beside a pipe
	}
	now, err := s.Beat(ctx)
	if err != nil {
		return err
	}
	data, err := json.Marshal(mark{hex.EncodeToString(now.Store[:]), now.Seen})
	if err != nil {
		return err
	}
	part := c.markFile() + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(part, c.markFile())
}

// watchMark notes it now and then until ctx ends. A disk that is full, or a database
// that is away, is no reason to stop: the older mark stays true.
func (s *server) watchMark(ctx context.Context) error {
	store, ok := s.store.(marked)
	if !ok {
		return nil
	}
	ticker := time.NewTicker(markEvery)
	defer ticker.Stop()
	for {
		if err := s.cfg.noteMark(ctx, store); err != nil && ctx.Err() == nil {
			s.log.Warn("how far the store has come was not noted", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
