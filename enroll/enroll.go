// SPDX-License-Identifier: Apache-2.0

// Package enroll decides who gets a certificate: it keeps the roster, makes
// invitations, and leads an order from its first request to the HSM's signature.
// Package acme translates the network's requests for it, package ca signs.
//
// First call: New, once the CA is open; its Authority is the acme.Backend, and Work
// must run beside it:
//
//	authority, err := enroll.New(enroll.Config{Store: store, CA: ca, Appraiser: appraiser, …})
//	front, err := acme.New(acme.Config{Backend: authority, …})
//	go authority.Work(ctx)
//
// An order's life, in RFC 8555's words (Section 7.1.6):
//
//	pending     until the attested key has answered the challenge
//	ready       until its CSR comes
//	processing  until the profile's approvals are in and the HSM has signed
//	valid       the certificate can be fetched
//	invalid     evidence refused, or too late: begin a new order
//
// Everything that may happen once (invitation, nonce, challenge, order) is made so
// by a conditional change in one transaction, never by a look before.
//
// Where there are officers, the Authority is also the desk.Backend: Submit takes what
// they sign into the record, at once and with all that follows from it, and orders
// stay "processing" until enough of them have approved exactly what would be issued.
// Rows of the database are copies of the record there; they grant nothing.
//
// Never take an address or a right from what a request says. The address comes from
// the invitation, the clearance from the roster, the key from the evidence.
package enroll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"valise/enroll/acme"
	"valise/enroll/ca"
	"valise/enroll/desk"
	"valise/identity"
	"valise/internal/store/authority"
)

// A Config holds what an Authority needs. Store, CA, Domain and Event are required,
// and where there are officers URL.
type Config struct {
	Store     *authority.Store
	CA        *ca.CA
	Appraiser *ca.Appraiser // as in the CA's; the CA's counts
	Domain    string        // of all addresses
	URL       string        // under which devices find the authority; it stands in invitations
	// Event writes the audit stream. Nothing is issued while it fails.
	Event func(ctx context.Context, event string, attrs ...slog.Attr) error
	Log   *slog.Logger
	Now   func() time.Time
	// Hardware, if set, says whether the issuing token is there, from what is known
	// and at once. While it is not, nothing new is begun.
	Hardware func() error
	// Forward, if set, tells gateways of an order to stop something that the record
	// cannot take at present, like feed.Feed's.
	Forward func(raw []byte)
	// Issued, if set, is called after each certificate; it counts.
	Issued func(kind string)
}

// An Authority decides. Its methods may be called by any goroutine.
type Authority struct {
	cfg Config

	// announced are the orders that wait for the token and whose "issuing" line
	// stands in the audit stream: id to nothing.
	announced sync.Map

	led     bool        // by officers
	stirred atomic.Bool // the record changed since Work last looked at orders
	hurt    atomic.Bool // the audit stream knows that the record is damaged
	trust   distrust
	recent  recent
}

var (
	_ acme.Backend = (*Authority)(nil)
	_ desk.Backend = (*Authority)(nil)
)

// New returns an authority.
func New(cfg Config) (*Authority, error) {
	if cfg.Store == nil || cfg.CA == nil || cfg.Event == nil {
		return nil, errors.New("enroll: store, CA and event must be given")
	}
	if err := identity.CheckDomain(cfg.Domain); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Hardware == nil {
		cfg.Hardware = func() error { return nil }
	}
	if cfg.Issued == nil {
		cfg.Issued = func(string) {}
	}
	a := &Authority{cfg: cfg, led: cfg.CA.HasOfficers()}
	a.stirred.Store(true)
	return a, nil
}

// NewNonce implements acme.Backend.
func (a *Authority) NewNonce() string { return a.cfg.Store.NewNonce(a.cfg.Now()) }

// CheckNonce implements acme.Backend.
func (a *Authority) CheckNonce(nonce string) error {
	return nonceError(a.cfg.Store.CheckNonce(nonce, a.cfg.Now()))
}

// UseNonce implements acme.Backend.
func (a *Authority) UseNonce(ctx context.Context, nonce string) error {
	return nonceError(a.cfg.Store.UseNonce(ctx, nonce, a.cfg.Now()))
}

func nonceError(err error) error {
	if errors.Is(err, authority.ErrNonce) {
		return fmt.Errorf("%w (%w)", acme.Refuse(acme.BadNonce, "the nonce is unknown, expired or was used before"), desk.ErrNonce)
	}
	return err
}

// ready refuses what needs the issuing token while that is away, before anything is
// changed. What was accepted before is finished when the token is back.
func (a *Authority) ready() error {
	err := a.cfg.Hardware()
	if err == nil {
		return nil
	}
	a.cfg.Log.Warn("refused while the issuing token is away", "error", err.Error())
	return acme.Refuse(acme.HSMUnavailable, "the authority's hardware does not answer; nothing was changed, and what was accepted before is not lost: try again")
}

// event writes one line of the audit stream about an account.
func (a *Authority) event(ctx context.Context, event string, account *authority.Account, attrs ...slog.Attr) error {
	attrs = append([]slog.Attr{
		slog.String("address", account.Address.String()), slog.Int64("account", account.ID),
	}, attrs...)
	return a.cfg.Event(ctx, event, attrs...)
}
