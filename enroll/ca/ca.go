// SPDX-License-Identifier: Apache-2.0

// Package ca issues certificates with a key in hardware. It builds the exact bytes
// first, lints them, records them in the ledger, and only then has the HSM sign them.
//
// First call, with the chain that init made (issuing certificate, root) and the
// issuing key:
//
//	authority, err := ca.New(ca.Config{Store: store, Chain: chain, Signer: key, …})
//	issuance, err := authority.IssueDevice(ctx, orderID)
//
// One issuance is three steps, and a crash between any two of them loses nothing:
//
//	tx 1   claim the order, append the ledger's leaf, store the TBSCertificate
//	sign   the HSM signs the TBSCertificate; no transaction is open
//	tx 2   store the certificate, order "valid"
//
// After a crash the stored TBSCertificate is signed again, the same bytes under the
// same leaf: no leaf, no certificate, and never two leaves for one.
//
// What is issued is decided from what is stored and proven, not from what a request
// says. Where there are officers, it is decided from what they signed: address from
// their invitation, clearance from their roster, endorsements, policy and profile from
// their record, and two approvals of exactly this certificate, whose bytes are verified
// once more in tx 1. Rows of the database can only take something away. In a lone
// authority roster and configuration count.
//
// Never sign anything with the issuing key but through this package.
package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
)

// A Profile says how certificates of one kind are issued.
type Profile struct {
	// Name stands in orders, so that an order keeps to the rules it was made under.
	Name string
	// Validity is the certificates' life; zero means 7 days for devices, 90 days
	// for gateways and for the authority's own server.
	Validity time.Duration
	// Approvals is how many officers must approve. Where there are officers it can
	// only ask for more than the profile in their record does; a lone authority has
	// nobody who could approve, and with more than 0 its orders stay "processing".
	Approvals int
}

// A Config holds what a CA needs; all but Now, Book and the profiles is required. The
// appraiser may be left out where there are officers; there its policy counts beside
// theirs, if it is not the zero one, and its endorsements not at all.
type Config struct {
	Store *authority.Store
	// Book is the record of this process, which must hold the founding. Left out, the
	// CA opens one of its own, so that nobody forgets the officers, and an authority
	// of which nothing is recorded yet counts as lone.
	Book      *book.Book
	Domain    string
	Chain     []*x509.Certificate // issuing certificate, then root
	Signer    crypto.Signer       // the issuing key
	Appraiser *Appraiser
	Device    Profile
	Gateway   Profile
	Now       func() time.Time
}

// A CA issues certificates. Its methods may be called by any goroutine.
type CA struct {
	cfg     Config
	life    time.Duration // that the configuration asks for; zero: it does not
	led     bool          // by officers: the founding never changes
	issuer  *issuer
	memory  memory
	flights singleflight.Group // one signature at a time for each issuance

	// interrupt, if set by a test, is called between steps; its error ends the
	// issuance there, as a crash would.
	interrupt func(step string) error
}

const day = 24 * time.Hour

// backdate allows for clocks that are behind ours.
const backdate = time.Minute

// New checks that key and chain belong together.
func New(cfg Config) (*CA, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	life := cfg.Device.Validity
	if cfg.Device.Validity == 0 {
		cfg.Device.Validity = 7 * day
	}
	if cfg.Gateway.Validity == 0 {
		cfg.Gateway.Validity = 90 * day
	}
	if cfg.Store == nil || cfg.Signer == nil {
		return nil, errors.New("ca: store and signer must be given")
	}
	if err := checkChain(cfg.Chain, cfg.Signer.Public(), cfg.Now()); err != nil {
		return nil, err
	}
	is, err := newIssuer(cfg.Chain[0], cfg.Signer)
	if err != nil {
		return nil, err
	}
	led, err := cfg.openBook()
	if err != nil {
		return nil, err
	}
	return &CA{cfg: cfg, life: life, led: led, issuer: is}, nil
}

// openBook sees to it that there is a record, and that what it does not say is in the
// configuration.
func (cfg *Config) openBook() (officers bool, err error) {
	given := cfg.Book != nil
	if !given {
		if cfg.Book, err = book.Open(context.Background(), book.Config{Store: cfg.Store, Root: cfg.Chain[1], Now: cfg.Now}); err != nil {
			return false, err
		}
	}
	founded := false
	cfg.Book.View(func(s *record.State) { officers, founded = hasOfficers(s), s.Founding() != nil })
	if given && !founded {
		// Else whoever empties the ledger would be rid of the officers.
		return officers, errors.New("ca: the record does not say how this authority was founded: restore its database, or run init")
	}
	if !officers && cfg.Appraiser == nil {
		return officers, errors.New("ca: an authority without officers needs an appraiser")
	}
	if cfg.Appraiser != nil {
		if err := cfg.Appraiser.Policy.Check(); err != nil {
			return officers, fmt.Errorf("ca: %w", err)
		}
	}
	return officers, nil
}

func hasOfficers(s *record.State) bool { return s.Founding() != nil && !s.Lone() }

func checkChain(chain []*x509.Certificate, key crypto.PublicKey, now time.Time) error {
	if len(chain) != 2 {
		return fmt.Errorf("ca: the chain has %d certificates, want the issuing one and the root", len(chain))
	}
	pub, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key) {
		return errors.New("ca: the issuing certificate is not for the key in the token: check the key's label and the data directory")
	}
	if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
		return fmt.Errorf("ca: the issuing certificate is not signed by the root: %w", err)
	}
	if err := chain[1].CheckSignatureFrom(chain[1]); err != nil {
		return fmt.Errorf("ca: the root is not self-signed: %w", err)
	}
	for _, c := range chain {
		if now.After(c.NotAfter) {
			return fmt.Errorf("ca: %s expired on %s", c.Subject, c.NotAfter.Format(time.DateOnly))
		}
	}
	return nil
}

// Chain returns the issuing certificate and the root, DER.
func (c *CA) Chain() [][]byte { return [][]byte{c.cfg.Chain[0].Raw, c.cfg.Chain[1].Raw} }

// Root returns the root's certificate.
func (c *CA) Root() *x509.Certificate { return c.cfg.Chain[1] }

// Device returns the profile of devices' certificates.
func (c *CA) Device() Profile { return c.cfg.Device }

// validity returns a certificate's first and last moment, within the issuer's own.
func (c *CA) validity(life time.Duration) (notBefore, notAfter time.Time) {
	now := c.cfg.Now().UTC().Truncate(time.Second)
	notBefore, notAfter = now.Add(-backdate), now.Add(life)
	if from := c.cfg.Chain[0].NotBefore; notBefore.Before(from) {
		notBefore = from
	}
	if until := c.cfg.Chain[0].NotAfter; notAfter.After(until) {
		notAfter = until
	}
	return notBefore, notAfter
}

// finish signs a recorded issuance and stores the certificate. It may be called any
// number of times for the same reference; all callers get the same certificate. last,
// if not nil, runs in tx 2 on the record as of then: its error keeps the certificate
// from anybody's eyes.
func (c *CA) finish(ctx context.Context, i authority.Issuance, last func(*authority.Tx, *record.State) error) (authority.Issuance, error) {
	if i.Done() {
		return i, nil
	}
	der, err := c.issuer.sign(i.TBS)
	if err != nil {
		return i, err
	}
	if err := c.step("signed"); err != nil {
		return i, err
	}
	err = c.cfg.Book.Look(ctx, func(tx *authority.Tx, s *record.State) error {
		if last != nil {
			if err := last(tx, s); err != nil {
				return err
			}
		}
		return tx.Later().CompleteIssuance(i.Ref, der)
	})
	if errors.Is(err, authority.ErrState) { // another process was faster: its certificate counts
		if i, err = c.lookup(ctx, i.Ref); err == nil && !i.Done() {
			err = ErrOrder // the order came to an end meanwhile
		}
		return i, err
	}
	if err != nil {
		return i, err
	}
	i.Certificate = der
	return i, c.step("stored")
}

func (c *CA) lookup(ctx context.Context, ref string) (i authority.Issuance, err error) {
	err = c.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		i, err = tx.Issuance(ref)
		return err
	})
	return i, err
}

func (c *CA) step(name string) error {
	if c.interrupt == nil {
		return nil
	}
	return c.interrupt(name)
}

// enter appends the leaf for a TBSCertificate and stores both: all of tx 1 that is
// the same for devices, officers and gateways.
func enter(tx *authority.Tx, add book.Append, i authority.Issuance, now time.Time) (authority.Issuance, error) {
	leaf, err := add(ledger.KindIssuance, i.TBS)
	if err != nil {
		return i, err
	}
	i.Leaf, i.Created = leaf, now
	return i, tx.AddIssuance(i)
}

// CheckCSR is CheckCSR that verifies the same bytes once, when a request comes in and
// its certificate is built moments later.
func (c *CA) CheckCSR(der []byte) (*x509.CertificateRequest, error) {
	sum := sha256.Sum256(der)
	if c.memory.accepted(sum) {
		return x509.ParseCertificateRequest(der)
	}
	csr, err := CheckCSR(der)
	if err == nil {
		c.memory.accept(sum)
	}
	return csr, err
}

// CheckCSR parses a certificate signing request (RFC 2986) and checks what holds for
// all of ours: a signature by its own key, which is one that Valise uses.
func CheckCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("ca: malformed CSR: %w", err)
	}
	if !bytes.Equal(csr.Raw, der) {
		return nil, errors.New("ca: something follows the CSR")
	}
	if err := identity.CheckKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("ca: the CSR's key: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("ca: the CSR is not signed by its own key: %w", err)
	}
	return csr, nil
}

func digest(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}
