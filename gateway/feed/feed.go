// SPDX-License-Identifier: Apache-2.0

// Package feed is the gateway's side of the connection to its authority. It
// follows the authority's record, verifies all of it against the pinned root,
// keeps a copy on disk, and says who is in good standing.
//
//	f, err := feed.Open(ctx, feed.Config{Path: "record.db", Root: root, Domain: domain, URL: url, …})
//	g, err := gateway.New(gateway.Config{Standings: f.Set(), Record: f, …})
//	f.Apply(g.SetStandings)  // now, and whenever somebody's standing changes
//	go f.Run(ctx)
//
// A suspension is obeyed when its leaf arrives, or when somebody lays its file
// into the spool directory, before any checkpoint or bulletin covers it. What is
// known outlives a restart: the gateway goes on where it was, without an
// authority.
//
// The gateway holds what the authority might lose. When a restored authority
// asks, the copy gives back leaves, checkpoint and bulletin.
//
// Numbers and sizes only go up. A checkpoint or bulletin that contradicts what
// is held is refused and [Feed.Check] fails from then on: one of the two was
// rewritten, and people must look. The document that says something else lies beside
// the copy, and the check passes again when somebody took it away. Never delete the copy to make that go away:
// it is the evidence.
package feed

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"valise/bulletin"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
	"valise/statement"
)

// Errors that callers tell apart.
var (
	// ErrFork is wrapped when what the authority's keys signed contradicts what
	// is held.
	ErrFork = errors.New("feed: the authority's record contradicts this gateway's copy: keep both, and find out who rewrote it")
	// ErrRefused is wrapped by errors of documents that do not verify.
	ErrRefused = errors.New("feed: document refused")
)

// A Config says whom to follow. Path, Root and Domain are required.
type Config struct {
	Path   string            // of the copy, an SQLite file
	Root   *x509.Certificate // pinned
	Domain string

	// URL is the authority's, https://HOST:PORT; empty: nothing is followed, and
	// all that is known comes by hand.
	URL string

	// Certificate returns the gateway's own, by which the authority knows it.
	Certificate func() *tls.Certificate

	// Spool is a directory that is watched for documents that came by hand;
	// empty: none.
	Spool string

	// Grace is how much later than announced a bulletin may come before Check
	// fails; zero means 90 s.
	Grace time.Duration

	// Event writes the audit stream; nil: none.
	Event   func(ctx context.Context, event, reason string, attrs ...slog.Attr) error
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
}

// A Feed follows one authority. Its methods may be called by any goroutine.
type Feed struct {
	cfg       Config
	url       *url.URL // nil: none
	copy      *mirror
	trust     *identity.Trust
	root      [32]byte
	set       atomic.Pointer[bulletin.Set]
	connected atomic.Bool
	hurry     chan struct{} // ends a pause between two connections

	// mu orders everything that is taken in.
	mu       sync.Mutex
	manifest *manifest.Manifest  // guarded by mu; nil: none yet
	apply    func(*bulletin.Set) // guarded by mu
	fork     error               // guarded by mu
	missed   bool                // guarded by mu; a leaf's order found no room beside the bulletin
}

// Open opens or creates the copy, verifies what it says about standings again,
// and takes up where it was.
func Open(ctx context.Context, cfg Config) (*Feed, error) {
	if cfg.Path == "" || cfg.Root == nil || cfg.Domain == "" {
		return nil, errors.New("feed: path, root and domain must be given")
	}
	if cfg.Grace == 0 {
		cfg.Grace = 90 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Event == nil {
		cfg.Event = func(context.Context, string, string, ...slog.Attr) error { return nil }
	}
	f := &Feed{
		cfg: cfg, root: sha256.Sum256(cfg.Root.Raw), apply: func(*bulletin.Set) {}, trust: trustOf(cfg), hurry: make(chan struct{}, 1),
	}
	if cfg.URL != "" {
		var err error
		if f.url, err = checkURL(cfg); err != nil {
			return nil, err
		}
	}
	var err error
	if f.copy, err = openMirror(ctx, cfg.Path); err != nil {
		return nil, err
	}
	if err := f.load(ctx); err != nil {
		return nil, errors.Join(err, f.copy.close())
	}
	f.register()
	return f, nil
}

func trustOf(cfg Config) *identity.Trust {
	return identity.NewTrust(identity.Authority{Domain: cfg.Domain, Roots: []*x509.Certificate{cfg.Root}})
}

func checkURL(cfg Config) (*url.URL, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("feed: the authority's URL: %w", err)
	case u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "":
		return nil, fmt.Errorf("feed: the authority's URL %q: want https://HOST or https://HOST:PORT", cfg.URL)
	case cfg.Certificate == nil:
		return nil, errors.New("feed: following an authority takes the gateway's certificate")
	}
	return u, nil
}

// Close closes the copy. Run must have ended.
func (f *Feed) Close() error { return f.copy.close() }

// Set returns the standings as they are known now.
func (f *Feed) Set() *bulletin.Set { return f.set.Load() }

// Apply sets what is called with the standings, now and after every change, one
// call after the other.
func (f *Feed) Apply(apply func(*bulletin.Set)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.apply = apply
	apply(f.set.Load())
}

// Stale tells how old the authority's newest word is.
func (f *Feed) Stale() bulletin.Staleness { return f.Set().Stale(f.cfg.Now(), f.cfg.Grace) }

// Check fails when the bulletin is too old or missing, or when the authority
// contradicted itself, for /healthz.
func (f *Feed) Check(context.Context) error {
	f.mu.Lock()
	fork := f.fork
	f.mu.Unlock()
	if fork != nil {
		return fork
	}
	switch f.Stale() {
	case bulletin.Missing:
		return errors.New("there has been no bulletin of the authority yet")
	case bulletin.Stale:
		b := f.Set().Bulletin()
		return fmt.Errorf("bulletin %d is of %s, and the next one was due %s", b.Number, b.Time.Format(time.RFC3339), b.Next.Format(time.RFC3339))
	}
	return nil
}

// load takes up what the copy holds. Signatures are verified again: a file on a
// disk is nobody's word.
func (f *Feed) load(ctx context.Context) error {
	held, err := f.copy.held(ctx)
	if err != nil {
		return err
	}
	if held.manifest != nil {
		if f.manifest, err = manifest.ParseManifest(held.manifest, f.cfg.Root); err != nil {
			return fmt.Errorf("feed: %s: %w", f.cfg.Path, err)
		}
	}
	if held.checkpoint != nil {
		err := f.heldUnder(ctx, func(m *manifest.Manifest) error {
			_, err := openCheckpoint(held.checkpoint, m, time.Time{})
			return err
		})
		if err != nil {
			return fmt.Errorf("feed: %s: %w", f.cfg.Path, err)
		}
	}
	if f.fork, err = readEvidence(f.cfg.Path); err != nil {
		return err
	}
	set, err := f.rebuild(ctx, held)
	if err != nil {
		return fmt.Errorf("feed: %s: %w", f.cfg.Path, err)
	}
	f.set.Store(set)
	return nil
}

// heldUnder verifies what is held by the newest manifest that does: a later one may
// not name its key any more, or end its use before, and what it took away stays away.
func (f *Feed) heldUnder(ctx context.Context, verify func(*manifest.Manifest) error) error {
	all, err := f.copy.manifests(ctx)
	if err != nil {
		return err
	}
	err = verify(f.manifest)
	for _, raw := range all {
		if err == nil {
			return nil
		}
		if m, bad := manifest.ParseManifest(raw, f.cfg.Root); bad == nil && verify(m) == nil {
			return nil
		}
	}
	return err
}

// rebuild makes the standings of the copy: the newest bulletin, then all
// statements that it does not know.
func (f *Feed) rebuild(ctx context.Context, held *held) (*bulletin.Set, error) {
	set := bulletin.NewSet()
	if f.manifest != nil {
		set = set.WithManifest(f.manifest)
	}
	from := int64(0)
	if held.bulletin != nil {
		var b *bulletin.Bulletin
		err := f.heldUnder(ctx, func(m *manifest.Manifest) (err error) {
			b, err = bulletin.Verify(held.bulletin, m)
			return err
		})
		if err != nil {
			return nil, err
		}
		if set, err = set.WithBulletin(b); err != nil {
			return nil, err
		}
		from = b.LedgerSize
	}
	for _, s := range held.statements {
		st, err := statement.Verify(s.raw, f.trust, f.root, s.seen)
		if err != nil {
			return nil, err
		}
		leaf, err := f.copy.leafOf(ctx, s.raw)
		if err != nil {
			return nil, err
		}
		if set, err = set.WithObeyed(st, leaf); err != nil {
			return nil, err
		}
	}
	err := f.copy.eachStatement(ctx, from, func(i ledger.Item) {
		set = f.obey(ctx, set, i.Payload, i.Index, i.Entry.Time)
	})
	return set, err
}

// obey returns the standings under a statement that was made before a time. One
// that does not hold changes nothing, and neither does one that is recorded a second
// time: what it ordered may have ended since. The caller holds f.mu, or opens f.
func (f *Feed) obey(ctx context.Context, set *bulletin.Set, raw []byte, leaf int64, at time.Time) *bulletin.Set {
	if first, err := f.copy.leafOf(ctx, raw); err == nil && first != bulletin.Unrecorded && first < leaf {
		f.cfg.Log.Warn("a statement is recorded twice", "leaf", leaf, "first", first)
		f.event(ctx, "statement refused", "replayed", slog.Int64("leaf", leaf))
		return set
	}
	next, _, err := f.weigh(set, raw, leaf, at)
	if errors.Is(err, bulletin.ErrFull) {
		f.missed = true
	}
	if err != nil {
		f.cfg.Log.Warn("a statement is not obeyed", "leaf", leaf, "error", err.Error())
		f.event(ctx, "statement refused", "not_verified", slog.Int64("leaf", leaf), slog.String("detail", err.Error()))
	}
	return next
}

// weigh returns the standings under a statement, and whether it is one that bears on
// them and holds.
func (f *Feed) weigh(set *bulletin.Set, raw []byte, leaf int64, at time.Time) (next *bulletin.Set, holds bool, err error) {
	st, err := statement.Parse(raw)
	if err != nil {
		return set, false, err
	}
	if !bulletin.Concerns(st.Body) {
		return set, false, nil // not about standings: the record's business
	}
	if st, err = statement.Verify(raw, f.trust, f.root, at); err != nil {
		return set, false, err
	}
	next, err = set.WithStatement(st, leaf)
	return next, err == nil, err
}

func (f *Feed) event(ctx context.Context, event, reason string, attrs ...slog.Attr) {
	if err := f.cfg.Event(ctx, event, reason, attrs...); err != nil {
		f.cfg.Log.Error("audit stream", "error", err.Error())
	}
}
