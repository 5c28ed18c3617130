// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"valise/hsm"
	"valise/internal/check"
	"valise/internal/keys"
	"valise/internal/store/authority"
	"valise/manifest"
)

// checkLimit is how long the whole may take: a hung HSM or database is a finding.
const checkLimit = 2 * time.Minute

type checkCmd struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"Configuration in TOML."`
	JSON   bool   `name:"json" help:"Print JSON, for programs."`
}

// Run says what is as it has to be and what is not.
func (cmd *checkCmd) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	r := new(check.Report)
	cfg, err := loadConfig(cmd.Config)
	// Whose data it is comes first: what another user makes or finds is not the daemon's.
	if check.Configuration(r, cmd.Config, err) && check.Owner(r, cfg.Data) {
		cfg.look(ctx, r)
	}
	return r.Write(os.Stdout, cmd.JSON)
}

func (c *Config) look(ctx context.Context, r *check.Report) {
	check.Secret(r, "token.pin-source", c.Token.PINSource)
	check.Secret(r, "tls-token.pin-source", c.TLSToken.PINSource)
	check.Secret(r, "database-source", c.DatabaseSource)
	if _, err := loadEndorsements(&c.Endorsements); err != nil {
		r.Fail("configuration", "config_invalid", "put the vendors' roots there, PEM", "%v", err)
	}
	check.Directory(r, "data", c.Data)
	check.Appendable(r, "audit", c.Audit)
	check.Syslog(ctx, r, c.Syslog.Config("valise-enrolld"))
	check.Disk(r, "data", c.Data)
	if filepath.Dir(c.Audit) != c.Data {
		check.Disk(r, "audit", filepath.Dir(c.Audit))
	}
	chain, m := c.checkChain(r)
	tlsKey := c.checkKeys(ctx, r, chain, m)
	database := c.lookDatabase(ctx, r)
	check.Clock(r, time.Now, database, check.Written("the audit stream", c.Audit), check.Written("the newest checkpoint", c.path(markFile)))
	check.Files(r, c.Limits.Connections+1000)
	ports := []check.Port{{Network: "tcp", Address: c.Listen, Ours: servedWith(tlsKey)}}
	if c.Admin != "" {
		ports = append(ports, check.Port{Network: "tcp", Address: c.Admin, Ours: check.Healthz})
	}
	check.Ports(ctx, r, ports...)
}

// checkChain verifies what init left in the data directory; nil where it does not hold.
func (c *Config) checkChain(r *check.Report) ([]*x509.Certificate, *manifest.Manifest) {
	chain, err := readChain(c.path(chainFile))
	if err != nil {
		r.Fail("certificate", "certificate_unreadable", "before the first start: run init; afterwards: restore a backup", "%v", err)
		return nil, nil
	}
	if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
		r.Fail("certificate", "certificate_refused", "restore "+chainFile+" from a backup", "the issuing certificate is not the root's: %v", err)
		return nil, nil
	}
	const renew = "bring the root's token, and run manifest renew"
	check.Expiry(r, "the root's certificate", chain[1], time.Now(), "found a new authority in time: nothing leads out of an expired root")
	check.Expiry(r, "the issuing certificate", chain[0], time.Now(), renew)
	raw, err := os.ReadFile(c.path(manifestFile))
	if err == nil {
		var m *manifest.Manifest
		if m, err = manifest.ParseManifest(raw, chain[1]); err == nil && !bytes.Equal(m.Issuers[0].Certificate, chain[0].Raw) {
			err = errors.New("it names another issuing certificate than " + chainFile)
		}
		if err == nil {
			r.OK("certificate", "manifest %d is the root's, and names this issuing certificate", m.Number)
			return chain, m
		}
	}
	r.Fail("certificate", "manifest_refused", "finish what was begun with manifest renew, or restore a backup", "%s: %v", manifestFile, err)
	return chain, nil
}

// checkKeys opens each token once, since a wrong PIN costs one attempt, and lets each key
// sign. It returns the HTTPS key's public half.
func (c *Config) checkKeys(ctx context.Context, r *check.Report, chain []*x509.Certificate, m *manifest.Manifest) []byte {
	token := c.checkToken(ctx, r, "token", c.Token.URI, func(ctx context.Context) (hsm.Token, error) { return openToken(ctx, c) })
	if token == nil {
		return nil
	}
	defer token.Close()
	c.useKeys(ctx, r, token, chain, m)
	if c.TLSToken.Apart() {
		if token = c.checkToken(ctx, r, "tls-token", c.TLSToken.URI, c.TLSToken.open); token == nil {
			return nil
		}
		defer token.Close()
	}
	key, err := keyInUse(ctx, token, nil, useTLS, c.Token.TLSKey)
	if err != nil {
		check.Token(r, "the HTTPS key "+c.Token.TLSKey, err)
		return nil
	}
	defer key.Close()
	check.Sign(r, "the HTTPS key", key, nil)
	der, _, err := spki(key)
	if err != nil {
		return nil
	}
	return der
}

func (c *Config) checkToken(ctx context.Context, r *check.Report, what, uri string, open func(context.Context) (hsm.Token, error)) hsm.Token {
	parsed, err := keys.Parse(uri)
	if err != nil {
		r.Fail("configuration", "config_invalid", "correct the URI", "%s: %v", what, err)
		return nil
	}
	check.Module(r, parsed.Module)
	token, err := open(ctx)
	if err != nil {
		check.Token(r, what, err)
		return nil
	}
	return token
}

// useKeys lets the keys sign that certificates, bulletins and checkpoints need, and
// compares them with what the root signed.
func (c *Config) useKeys(ctx context.Context, r *check.Report, token hsm.Token, chain []*x509.Certificate, m *manifest.Manifest) {
	for _, use := range []struct{ use, label string }{{useIssuing, c.Token.IssuerKey}, {useBulletin, c.Token.BulletinKey}, {useLedger, c.Token.LedgerKey}} {
		key, err := keyInUse(ctx, token, m, use.use, use.label)
		if err != nil {
			check.Token(r, "the "+use.use+" key "+use.label, err)
			continue
		}
		var certificate *x509.Certificate
		if use.use == useIssuing && chain != nil {
			certificate = chain[0]
		}
		if m != nil && !inManifest(use.use, key, m) {
			r.Fail("hsm", "key_not_certified", "check its label, or sign a new manifest (manifest renew)", "the %s key %q is not the one in manifest %d", use.use, use.label, m.Number)
		} else {
			check.Sign(r, "the "+use.use+" key", key, certificate)
		}
		_ = key.Close()
	}
}

// inManifest says whether the root signed that this key is in use. An issuing key is
// compared with its certificate.
func inManifest(use string, key hsm.Key, m *manifest.Manifest) bool {
	switch use {
	case useBulletin:
		der, _, err := spki(key)
		return err == nil && bytes.Equal(m.Bulletin[0].SPKI, der)
	case useLedger:
		public, ok := key.Public().(ed25519.PublicKey)
		return ok && public.Equal(m.Ledger[0].Public)
	}
	return true
}

// lookDatabase looks at the database, beside a daemon that uses it.
func (c *Config) lookDatabase(ctx context.Context, r *check.Report) check.Reference {
	database, err := c.database()
	if err != nil {
		r.Fail("configuration", "config_invalid", "correct the file", "%v", err)
		return check.Reference{}
	}
	facts, err := authority.Inspect(ctx, database)
	return check.Database(r, facts, err, "init")
}

var errOurs = errors.New("it is the authority's own key")

// servedWith asks whether whoever answers at an address has the authority's HTTPS key.
func servedWith(key []byte) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		err = tls.Client(conn, &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
			InsecureSkipVerify: true, // what is shown is compared with one key
			VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
				if len(raw) > 0 {
					if shown, err := x509.ParseCertificate(raw[0]); err == nil && bytes.Equal(shown.RawSubjectPublicKeyInfo, key) {
						return errOurs
					}
				}
				return errors.New("it shows another key")
			},
		}).HandshakeContext(ctx)
		switch {
		case errors.Is(err, errOurs):
			return nil
		case err == nil:
			return errors.New("it shows no certificate")
		}
		return err
	}
}
