// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"valise/hsm"
	"valise/manifest"
	"valise/record"
)

// errChangeOver ends a round of serve: the next one uses other keys.
var errChangeOver = errors.New("changing over to other keys")

// lookAgain is how often missing keys are looked for.
const lookAgain = 5 * time.Second

// A follower waits for the record to name other keys than those in use.
type follower struct {
	office  *office
	path    string  // of the configuration
	text    []byte  // of the same, as it is in use
	tls     hsm.Key // in use
	log     *slog.Logger
	hangups <-chan os.Signal

	mu      sync.Mutex
	missing error // guarded by mu; why the keys that the record names are not used
}

// check is for /healthz.
func (f *follower) check(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.missing
}

// work ends with errChangeOver when other keys can be used, or when SIGHUP finds another
// configuration or HTTPS key. While the token does not hold what the record names, the former keys are used as
// long as they count.
func (f *follower) work(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		changed := f.office.book.Watch()
		if f.changes(ctx) {
			return errChangeOver
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		case <-f.hangups:
			switch differs, err := f.differs(ctx); {
			case err != nil:
				f.log.Error("SIGHUP: everything stays as it is", "error", err.Error())
			case differs:
				f.log.Info("changing over", "why", "SIGHUP")
				return errChangeOver
			}
		}
	}
}

// differs reports whether the configuration or the HTTPS key is another one than in use.
func (f *follower) differs(ctx context.Context) (bool, error) {
	if _, err := loadConfig(f.path); err != nil {
		return false, err
	}
	text, err := os.ReadFile(f.path)
	if err != nil || !bytes.Equal(text, f.text) {
		return err == nil, err
	}
	key, err := keyInUse(ctx, f.office.tlsToken, nil, useTLS, f.office.cfg.Token.TLSKey)
	if err != nil {
		return false, err
	}
	return !same(key.Public(), f.tls.Public()), key.Close()
}

// changes reports whether the record names other keys, and the token holds them.
func (f *follower) changes(ctx context.Context) bool {
	var m *manifest.Manifest
	f.office.book.View(func(s *record.State) { m, _ = s.Manifest() })
	digest, now := m.Digest(), f.office.manifest.Digest()
	if bytes.Equal(digest[:], now[:]) {
		f.note(nil)
		return false
	}
	var issuing, bulletin, ledger hsm.Key
	err := f.office.openKeys(ctx, m, &issuing, &bulletin, &ledger)
	for _, key := range []hsm.Key{issuing, bulletin, ledger} {
		if key != nil {
			err = errors.Join(err, key.Close())
		}
	}
	if err != nil {
		f.note(fmt.Errorf("manifest %d is not followed: %w", m.Number, err))
		return false
	}
	f.log.Info("changing over", "why", "the root named other keys", "manifest", m.Number)
	return true
}

func (f *follower) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && (f.missing == nil || f.missing.Error() != err.Error()) {
		f.log.Error("keys", "error", err.Error())
	}
	f.missing = err
}

// A door is the listener, which outlives a change of keys: between two rounds those who
// connect wait in the system's queue.
type door struct {
	address string
	ln      *net.TCPListener
}

// open listens, unless it does so already.
func (d *door) open(address string) (net.Listener, error) {
	if d.ln != nil && d.address == address {
		return doorway{d.ln}, d.ln.SetDeadline(time.Time{})
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	err = d.shut()
	d.address, d.ln = address, ln.(*net.TCPListener)
	return doorway{d.ln}, err
}

func (d *door) shut() error {
	if d.ln == nil {
		return nil
	}
	ln := d.ln
	d.ln = nil
	return ln.Close()
}

// A doorway is the listener as one round has it: closed, it lets nobody in any more, and
// keeps those who come for the next one.
type doorway struct{ *net.TCPListener }

// Close ends Accept.
func (d doorway) Close() error { return d.SetDeadline(time.Unix(1, 0)) }
