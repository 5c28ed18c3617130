// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"valise/attest"
	"valise/enroll/book"
	"valise/enroll/ca"
	"valise/hsm"
	"valise/internal/daemon"
	"valise/internal/keys"
	"valise/internal/store/authority"
	"valise/manifest"
)

const (
	databaseFile = "authority.db"
	rootFile     = "root.pem"
	chainFile    = "chain.pem"  // issuing certificate, root
	markFile     = "checkpoint" // the newest that this machine has seen; no backup holds it
)

// An office is everything that is open of an authority. Which parts are set depends
// on what the command needs.
type office struct {
	cfg   *Config
	store *authority.Store
	audit *daemon.Audit
	log   *slog.Logger // nil but for serve

	watch     *daemon.Watch // nil but for serve
	appraised func(took time.Duration, passed bool)
	chain     []*x509.Certificate
	token     hsm.Token
	tlsToken  hsm.Token // the same, unless the HTTPS key is apart
	issuerKey hsm.Key

	manifest               *manifest.Manifest // whose keys these are
	bulletinKey, ledgerKey hsm.Key
	book                   *book.Book
	ca                     *ca.CA
	appraiser              *ca.Appraiser
}

// openDesk opens what needs no token: configuration, database, audit stream, chain.
func openDesk(ctx context.Context, path string) (*office, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	o := &office{cfg: cfg}
	if o.chain, err = readChain(cfg.path(chainFile)); err != nil {
		return nil, err
	}
	if o.audit, err = cfg.openAudit(); err != nil {
		return nil, err
	}
	// Only init and restore make a database: an empty one in the place of one that
	// is lost would begin roster and ledger anew under the same root.
	if o.store, err = cfg.openDatabase(ctx); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// openOffice opens the token and the CA as well.
func openOffice(ctx context.Context, path string) (*office, error) {
	o, err := openDesk(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := o.openCA(ctx); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

func (o *office) openCA(ctx context.Context) error {
	if _, err := os.Stat(o.cfg.path(manifestFile)); errors.Is(err, fs.ErrNotExist) {
		return notFounded(o.cfg) // before a key is missed that such an authority does not have
	}
	endorsements, err := loadEndorsements(&o.cfg.Endorsements)
	if err != nil {
		return err
	}
	activation, err := activationKey(o.cfg.path(activationFile))
	if err != nil {
		return fmt.Errorf("activation key: %w", err)
	}
	o.appraiser = &ca.Appraiser{Endorsements: endorsements, Policy: &o.cfg.Appraisal, ActivationKey: activation, Observe: o.appraised}
	if o.token, err = openToken(ctx, o.cfg); err != nil {
		return err
	}
	if o.book, err = book.Open(ctx, book.Config{Store: o.store, Root: o.chain[1], Mark: o.cfg.path(markFile), Log: o.log}); err != nil {
		return err
	}
	if err := o.adopt(ctx); err != nil {
		return err
	}
	if err := o.book.Sign(o.ledgerKey); err != nil {
		return err
	}
	o.ca, err = ca.New(ca.Config{
		Store: o.store, Book: o.book, Domain: o.cfg.Domain, Chain: o.chain, Signer: o.issuerKey, Appraiser: o.appraiser,
		Device:  ca.Profile{Name: o.cfg.Device.Profile, Validity: o.cfg.Device.Validity.Duration, Approvals: o.cfg.Device.Approvals},
		Gateway: ca.Profile{Name: "gateway", Validity: o.cfg.Gateway.Validity.Duration},
	})
	return err
}

func (o *office) close() error {
	var all []error
	for _, key := range []hsm.Key{o.issuerKey, o.bulletinKey, o.ledgerKey} {
		if key != nil {
			all = append(all, key.Close())
		}
	}
	if o.tlsToken != nil && o.tlsToken != o.token {
		all = append(all, o.tlsToken.Close())
	}
	if o.token != nil {
		all = append(all, o.token.Close())
	}
	if o.store != nil {
		all = append(all, o.store.Close())
	}
	if o.audit != nil {
		all = append(all, o.audit.Close())
	}
	return errors.Join(all...)
}

func openToken(ctx context.Context, cfg *Config) (hsm.Token, error) {
	token, err := keys.OpenToken(ctx, cfg.Token.URI, keys.PINFromFile(cfg.Token.PINSource))
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	return token, nil
}

func loadEndorsements(cfg *EndorsementConfig) (*attest.Endorsements, error) {
	var sets []*attest.Endorsements
	if cfg.BuiltIn {
		sets = append(sets, attest.BuiltIn())
	}
	for _, path := range cfg.Roots {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("endorsements: %w", err)
		}
		set, err := attest.Configured(data)
		if err != nil {
			return nil, fmt.Errorf("endorsements: %s: %w", path, err)
		}
		sets = append(sets, set)
	}
	return attest.Join(sets...)
}

func readChain(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(path), unfinishedFile)); err == nil {
			return nil, fmt.Errorf("%s does not exist: an init that began did not finish: run init, which says what to do", path)
		}
		return nil, fmt.Errorf("%s does not exist: run init first, or check data in the configuration", path)
	}
	if err != nil {
		return nil, err
	}
	return parseChain(path, data)
}

// parseChain reads chain.pem.
func parseChain(path string, data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) != 2 {
		return nil, fmt.Errorf("%s holds %d certificates, want the issuing one and the root", path, len(chain))
	}
	return chain, nil
}

func encodePEM(certs ...[]byte) []byte {
	var out []byte
	for _, der := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
