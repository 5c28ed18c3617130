// SPDX-License-Identifier: Apache-2.0

// Package feed is the authority's side of the connection to its gateways: it
// makes bulletins of the record, has them signed and numbered, and tells
// gateways at once what happened.
//
//	f, err := feed.New(feed.Config{Store: store, Book: book, Root: root, Signer: key, …})
//	go f.Run(ctx)                  // publishes, and wakes the streams
//	mux.Handle("/", f.Handler())   // /feed/v1/…, /manifest, /bulletin
//
// The listener must ask for a client certificate and not demand one:
// tls.Config.ClientAuth = [ClientAuth]. Gateways identify themselves by the
// certificate that the authority issued them; everybody else needs none for the
// other paths.
//
// A bulletin is published when a statement about standings was recorded, and at
// each heartbeat. Its number is taken in the database, so two processes publish
// one of them between them. A statement reaches gateways as a leaf of the
// record, before any checkpoint or bulletin covers it: a token that is dead
// delays bulletins and checkpoints and no suspension.
//
// A gateway that proves that it knows more than this database, by a checkpoint
// or bulletin of ours, turns the authority read-only until it has given back
// what is missing. A database that was restored from a backup is read-only from
// the start, until as many gateways as configured were asked.
//
// Never sign a bulletin anywhere else.
package feed

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"valise/bulletin"
	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/manifest"
	"valise/record"
	"valise/statement"
)

// ClientAuth is what the listener's tls.Config needs for gateways to be known.
const ClientAuth = tls.RequestClientCert

// A Config holds what a Feed needs. Store, Book, Root and Domain are required.
type Config struct {
	Store  *authority.Store
	Book   *book.Book
	Root   *x509.Certificate
	Domain string

	// Signer is the bulletin key, in the HSM. Without one this process serves
	// bulletins that another one publishes.
	Signer crypto.Signer

	// Heartbeat is the longest time between two bulletins; zero means 30 s.
	Heartbeat time.Duration

	// Gateways is how many different gateways, that know of this authority, must
	// have been asked after a restore before it goes on; zero means 1. Negative
	// asks nobody: for an operator who knows that none is left.
	Gateways int

	// Devices, if set, finds the devices behind a card's serial number or a
	// vendor's root, of which statements list only the first ones. What it adds
	// can only take standing away.
	Devices func(ctx context.Context, t statement.Target) ([]identity.DeviceID, error)

	// Distrusted, if set, returns the devices whose evidence the rules in force do
	// not accept any more: they are suspended until it is accepted again.
	Distrusted func() []bulletin.DeviceStanding

	// Event writes the audit stream; nil: none.
	Event func(ctx context.Context, event string, attrs ...slog.Attr) error
	Log   *slog.Logger
	Now   func() time.Time
}

// A Feed serves gateways. Its methods may be called by any goroutine.
type Feed struct {
	cfg      Config
	trust    *identity.Trust
	patience time.Duration // writeLimit, but for tests
	examined int64         // leaves that no bulletin is due for; Run's alone

	mu        sync.Mutex
	changed   chan struct{}                // guarded by mu; closed with the next change
	closed    bool                         // guarded by mu; Run has ended
	newest    *issued                      // guarded by mu; nil: none is known
	forwarded [][]byte                     // guarded by mu
	streams   map[identity.DeviceID]*entry // guarded by mu
	heard     map[identity.DeviceID]bool   // guarded by mu; asked since the restore
	failed    error                        // guarded by mu; why no bulletin could be published
	fork      error                        // guarded by mu; a gateway's record contradicts ours
}

// An entry is one gateway's stream.
type entry struct{ cancel context.CancelFunc }

// issued is a bulletin that is in the database.
type issued struct {
	bulletin *bulletin.Bulletin
	raw      []byte
}

// New returns a Feed. It does nothing before Run.
func New(cfg Config) (*Feed, error) {
	if cfg.Store == nil || cfg.Book == nil || cfg.Root == nil || cfg.Domain == "" {
		return nil, errors.New("feed: store, book, root and domain must be given")
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 30 * time.Second
	}
	if cfg.Heartbeat < time.Second {
		return nil, errors.New("feed: a heartbeat takes at least a second: bulletins have times in seconds")
	}
	if cfg.Gateways == 0 {
		cfg.Gateways = 1
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Event == nil {
		cfg.Event = func(context.Context, string, ...slog.Attr) error { return nil }
	}
	return &Feed{
		cfg: cfg, changed: make(chan struct{}), patience: writeLimit,
		trust:   identity.NewTrust(identity.Authority{Domain: cfg.Domain, Roots: []*x509.Certificate{cfg.Root}}),
		streams: make(map[identity.DeviceID]*entry), heard: make(map[identity.DeviceID]bool),
	}, nil
}

// Run publishes bulletins and wakes streams until ctx ends; then it ends the
// streams.
func (f *Feed) Run(ctx context.Context) error {
	defer f.close()
	if f.cfg.Gateways < 0 && errors.Is(f.cfg.Store.View(ctx, (*authority.Tx).Writable), authority.ErrRestored) {
		f.cfg.Log.Warn("restored, and configured to ask no gateway: what they know may come back as a contradiction")
		if err := f.goOn(ctx, 0); err != nil {
			return err
		}
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var (
		seen  position
		dirty = true // leaves came since the last look at what to publish
		retry time.Time
		pause = firstPause
	)
	for {
		record := f.cfg.Book.Watch()
		now, err := f.look(ctx)
		if err != nil && ctx.Err() == nil {
			f.cfg.Log.Error("the feed cannot read the database", "error", err.Error())
		}
		if err == nil && now != seen {
			dirty = dirty || now.leaves != seen.leaves
			seen = now
			f.wake() // first: what is recorded waits for no token
		}
		if err == nil && (dirty || f.beat()) && !f.cfg.Now().Before(retry) {
			switch err := f.publish(ctx); {
			case err == nil:
				dirty, retry, pause = false, time.Time{}, firstPause
			case errors.Is(err, authority.ErrRestored):
				retry = f.cfg.Now().Add(pollEvery)
			case ctx.Err() == nil:
				f.cfg.Log.Error("the bulletin waits", "error", err.Error(), "pause", pause.String())
				retry, pause = f.cfg.Now().Add(pause), min(2*pause, lastPause)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-record:
			// Changes that come close together are one: a busy authority records a
			// hundred leaves a second, and each round asks the database.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(gather):
			}
		case <-poll.C:
		}
	}
}

// beat tells whether the heartbeat is due.
func (f *Feed) beat() bool {
	last := f.latest()
	return last == nil || !f.cfg.Now().Before(last.bulletin.Time.Add(f.cfg.Heartbeat))
}

// A position is how far the database is.
type position struct {
	leaves, checkpoint int64
	bulletin           uint64
}

// look reads the position of the database, and the newest bulletin if it is new.
func (f *Feed) look(ctx context.Context) (p position, err error) {
	var signed authority.SignedBulletin
	err = f.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		p, signed = position{}, authority.SignedBulletin{}
		if p.leaves, err = tx.LedgerSize(); err != nil {
			return err
		}
		checkpoint, err := tx.LatestCheckpoint()
		if err != nil && !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		p.checkpoint = checkpoint.Size
		signed, err = tx.LatestBulletin()
		if err != nil && !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		p.bulletin = signed.Number
		return nil
	})
	if err != nil {
		return p, err
	}
	return p, f.know(signed)
}

// know reads a bulletin of the database. Nothing that our own keys did not sign
// leaves this process.
func (f *Feed) know(signed authority.SignedBulletin) error {
	if newest := f.latest(); signed.Number == 0 || newest != nil && newest.bulletin.Number >= signed.Number {
		return nil
	}
	m, _ := f.manifest()
	b, err := bulletin.Verify(signed.JWS, m)
	if err == nil && b.Number != signed.Number {
		err = errors.New("it has another number than its row")
	}
	if err != nil {
		f.cfg.Log.Error("the newest bulletin in the database is not ours; it is not passed on", "number", signed.Number, "error", err.Error())
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = &issued{b, signed.JWS}
	return nil
}

func (f *Feed) latest() *issued {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newest
}

// manifest returns the newest manifest of the record, nil if there is none.
func (f *Feed) manifest() (m *manifest.Manifest, raw []byte) {
	f.cfg.Book.View(func(s *record.State) { m, raw = s.Manifest() })
	return m, raw
}

// Forward tells all gateways of a statement that the record cannot take at
// present. They judge it for themselves.
func (f *Feed) Forward(raw []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.forwarded) < maxForwarded && !slices.ContainsFunc(f.forwarded, func(told []byte) bool { return bytes.Equal(told, raw) }) {
		f.forwarded = append(f.forwarded, raw)
	}
	f.wakeLocked()
}

// Check says whether bulletins come out, for /healthz.
func (f *Feed) Check(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.fork, f.failed)
}

// State says which bulletin is the newest, of what time (zero: there is none), and how many
// gateways follow.
func (f *Feed) State() (number uint64, at time.Time, gateways int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.newest != nil {
		number, at = f.newest.bulletin.Number, f.newest.bulletin.Time
	}
	return number, at, len(f.streams)
}

// wait returns a channel that is closed with the next change; ok is false after
// the end of Run.
func (f *Feed) wait() (changed <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed, !f.closed
}

func (f *Feed) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
}

func (f *Feed) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.wakeLocked()
}
