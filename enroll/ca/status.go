// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"valise/internal/store/authority"
)

// A StatusConfig holds what a Status needs; Store, Issuer, Signer and Standings are
// required.
type StatusConfig struct {
	Store     *authority.Store
	Issuer    *x509.Certificate // the issuing certificate
	Signer    crypto.Signer     // its key
	Standings Standings
	Now       func() time.Time
	Log       *slog.Logger

	// ListLife is how long a CRL is valid, default 6 hours; ResponseLife the same
	// for an OCSP response, default 1 hour. Each is signed anew after half of it, or
	// as soon as it is not true any more.
	ListLife, ResponseLife time.Duration
	// SignPerSecond and SignBurst bound the signatures that OCSP requests cost; zero
	// means 50 and 100. Questions about certificates that do not exist have a fifth
	// of it to themselves, so that they are in nobody else's way.
	SignPerSecond float64
	SignBurst     int
}

// A Status tells everybody who does not read bulletins how certificates stand: as a
// CRL (RFC 5280) and by OCSP (RFC 6960), signed by the issuing key. Gateways and
// devices of our own do not use it: they are told within seconds.
//
// Answers are signed once and given out until they are half over, so that a flood of
// questions is no flood of signatures; nonces in requests are therefore not repeated
// (RFC 6960, Section 4.4.1 lets a responder do so). While the token is away, what is
// still valid and still true is given out. An answer that is known to be wrong never
// is: then OCSP says tryLater.
type Status struct {
	cfg     StatusConfig
	known   *rate.Limiter // signatures about certificates of ours
	unknown *rate.Limiter
	flights singleflight.Group
	ids     []certIDHash // of the issuer, by hash algorithm

	mu        sync.Mutex
	list      authority.StoredCRL             // guarded by mu; the newest
	checked   time.Time                       // guarded by mu; when list was last compared with the standings
	failed    time.Time                       // guarded by mu; when the token last did not sign
	responses map[string]authority.StoredOCSP // guarded by mu
}

// NewStatus returns a Status.
func NewStatus(cfg StatusConfig) (*Status, error) {
	if cfg.Store == nil || cfg.Issuer == nil || cfg.Signer == nil || cfg.Standings == nil {
		return nil, errors.New("ca: store, issuer, signer and standings must be given")
	}
	if cfg.Issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, errors.New("ca: the issuing certificate may not sign revocation lists")
	}
	if pub, ok := cfg.Issuer.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(cfg.Signer.Public()) {
		return nil, errors.New("ca: the issuing certificate is not for the key in the token")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ListLife == 0 {
		cfg.ListLife = 6 * time.Hour
	}
	if cfg.ResponseLife == 0 {
		cfg.ResponseLife = time.Hour
	}
	if cfg.SignPerSecond == 0 {
		cfg.SignPerSecond = 50
	}
	if cfg.SignBurst == 0 {
		cfg.SignBurst = 100
	}
	ids, err := issuerHashes(cfg.Issuer)
	if err != nil {
		return nil, err
	}
	return &Status{
		cfg: cfg, ids: ids, responses: make(map[string]authority.StoredOCSP),
		known:   rate.NewLimiter(rate.Limit(cfg.SignPerSecond), cfg.SignBurst),
		unknown: rate.NewLimiter(rate.Limit(cfg.SignPerSecond/5), max(1, cfg.SignBurst/5)),
	}, nil
}

// errBusy says that there is no signature to be had now.
var errBusy = errors.New("ca: the token is away, or too much is asked of it: try again later")

// maySign spares a token that is away, and one that is asked too much. A nil limiter
// is for what nobody can ask for twice.
func (s *Status) maySign(limiter *rate.Limiter, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.failed) < afterFailure && !now.Before(s.failed) {
		return errBusy
	}
	if limiter != nil && !limiter.AllowN(now, 1) {
		return errBusy
	}
	return nil
}

func (s *Status) signingFailed(what string, err error) error {
	s.mu.Lock()
	s.failed = s.cfg.Now()
	s.mu.Unlock()
	s.cfg.Log.Error("the issuing token did not sign "+what, "error", err.Error())
	return &SigningError{err}
}

// fresh reports whether an answer is good for half of its life yet; usable, whether
// it is valid at all.
func fresh(until time.Time, life time.Duration, now time.Time) bool {
	return now.Before(until.Add(-life / 2))
}

func usable(until, now time.Time) bool { return !until.IsZero() && now.Before(until) }
