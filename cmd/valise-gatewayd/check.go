// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"

	"valise/hsm"
	"valise/internal/check"
	"valise/internal/keys"
	"valise/internal/store/relay"
	"valise/wire"
)

// checkLimit is how long the whole may take: a hung HSM or database is a finding.
const checkLimit = 2 * time.Minute

type checkCommand struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"Configuration file."`
	JSON   bool   `name:"json" help:"Print JSON, for programs."`
}

// Run says what is as it has to be and what is not.
func (c *checkCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	r := new(check.Report)
	cfg, err := loadConfig(c.Config)
	if err == nil {
		err = cfg.checkServe()
	}
	// Whose data it is comes first: what another user makes or finds is not the daemon's.
	if check.Configuration(r, c.Config, err) && check.Owner(r, cfg.Data) {
		cfg.look(ctx, r)
	}
	return r.Write(os.Stdout, c.JSON)
}

func (c *Config) look(ctx context.Context, r *check.Report) {
	check.Secret(r, "pin_source", c.PINSource)
	check.Secret(r, "database_source", c.DatabaseSource)
	check.Readable(r, "deny", c.Deny, "make it, empty, or take the line out of the configuration")
	check.Directory(r, "data", c.Data)
	check.Appendable(r, "audit", c.Audit)
	check.Syslog(ctx, r, c.Syslog.Config("valise-gatewayd"))
	check.Disk(r, "data", c.Data)
	if filepath.Dir(c.Audit) != c.Data {
		check.Disk(r, "audit", filepath.Dir(c.Audit))
	}
	leaf := c.checkCertificate(r)
	c.checkToken(ctx, r, leaf)
	database := c.lookDatabase(ctx, r)
	authority := c.checkAuthority(ctx, r)
	check.Clock(r, time.Now, database, authority, check.Written("the audit stream", c.Audit))
	check.Buffers(r)
	check.Files(r, c.wantedFiles())
	check.Ports(ctx, r, c.ports(leaf)...)
}

// checkCertificate verifies the chain, without the key.
func (c *Config) checkCertificate(r *check.Report) *x509.Certificate {
	trust, err := c.trust()
	if err != nil {
		r.Fail("certificate", "roots_unreadable", "copy root.pem from the authority, by a way that nobody else can write to", "%v", err)
		return nil
	}
	certs, err := readCertificates(c.Certificate)
	if err != nil {
		r.Fail("certificate", "certificate_unreadable", "run csr, have the request certified, and put the answer there", "%v", err)
		return nil
	}
	const renew = "run csr, have the request certified, replace the file, and send SIGHUP"
	chain := make([][]byte, len(certs))
	for i, cert := range certs {
		chain[i] = cert.Raw
	}
	// Its chain and names are judged as of a moment at which it is valid; how long it
	// is valid still is a line of its own.
	at := now()
	if leaf := certs[0]; at.After(leaf.NotAfter) || at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	leaf, err := trust.Gateway(chain, c.Name, at)
	if err != nil {
		r.Fail("certificate", "certificate_refused", "compare roots, name and domain with what the authority issued; "+renew, "%s: %v", c.Certificate, err)
		return certs[0]
	}
	r.OK("certificate", "it leads to the root and is for %s", c.Name)
	check.Expiry(r, "the certificate", leaf, now(), renew)
	for _, above := range certs[1:] {
		check.Expiry(r, "the certificate of "+above.Subject.CommonName, above, now(), "have the authority issue under its present key")
	}
	return leaf
}

// checkToken opens the token once: a wrong PIN costs one attempt.
func (c *Config) checkToken(ctx context.Context, r *check.Report, leaf *x509.Certificate) {
	uri, err := keys.Parse(c.Key)
	if err != nil {
		r.Fail("configuration", "config_invalid", "correct the URI", "key: %v", err)
		return
	}
	check.Module(r, uri.Module)
	uri, token, err := c.openToken(ctx)
	if err != nil {
		check.Token(r, "token", err)
		return
	}
	defer token.Close()
	key, err := c.openKey(ctx, uri, token)
	if err != nil {
		check.Token(r, "key", err)
		return
	}
	defer func(key hsm.Key) { _ = key.Close() }(key)
	check.Sign(r, "the TLS key", key, leaf)
}

// lookDatabase looks at the database, beside a gateway that uses it.
func (c *Config) lookDatabase(ctx context.Context, r *check.Report) check.Reference {
	database, err := c.postgreSQL()
	if err != nil {
		r.Fail("configuration", "config_invalid", "correct the file", "%v", err)
		return check.Reference{}
	}
	if database == "" {
		database = filepath.Join(c.Data, "relay.db")
	}
	facts, err := relay.Inspect(ctx, database)
	return check.Database(r, facts, err, "")
}

// checkAuthority asks for the bulletin, which everybody may.
func (c *Config) checkAuthority(ctx context.Context, r *check.Report) check.Reference {
	if c.Authority.URL == "" {
		r.Warn("authority", "authority_none", "set [authority] url; without it standings come by hand and by the deny list only", "no authority is followed")
		return check.Reference{}
	}
	certs, err := readCertificates(c.Roots)
	if err != nil {
		return check.Reference{} // said above
	}
	roots := x509.NewCertPool()
	for _, cert := range certs {
		roots.AddCert(cert)
	}
	return check.Authority(ctx, r, c.Authority.URL+"/bulletin", &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots})
}

// wantedFiles is a descriptor for each connection over TCP, and some for files on their
// way, the database and the log.
func (c *Config) wantedFiles() int {
	connections := c.Limits.Connections
	if connections == 0 {
		connections = 50_000
	}
	return connections + 1000
}

func (c *Config) ports(leaf *x509.Certificate) (all []check.Port) {
	for _, address := range c.Listen {
		all = append(all, check.Port{Network: "udp", Address: address, Ours: overQUIC(leaf)})
	}
	for _, address := range c.tcpAddresses() {
		all = append(all, check.Port{Network: "tcp", Address: address, Ours: overTCP(leaf)})
	}
	if c.Admin != "" {
		all = append(all, check.Port{Network: "tcp", Address: c.Admin, Ours: check.Healthz})
	}
	return all
}

var errOurs = errors.New("it is the gateway's own certificate")

// showing takes a handshake as far as the other side's certificate.
func showing(leaf *x509.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wire.Protocol},
		InsecureSkipVerify: true, // what is shown is compared with one certificate
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if leaf != nil && len(raw) > 0 {
				if shown, err := x509.ParseCertificate(raw[0]); err == nil && bytes.Equal(shown.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) {
					return errOurs
				}
			}
			return errors.New("it shows another certificate")
		},
	}
}

// shown turns the end of such a handshake into an answer.
func shown(err error) error {
	switch {
	case errors.Is(err, errOurs):
		return nil
	case err == nil:
		return errors.New("it shows no certificate")
	}
	return err
}

func overTCP(leaf *x509.Certificate) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		return shown(tls.Client(conn, showing(leaf)).HandshakeContext(ctx))
	}
}

func overQUIC(leaf *x509.Certificate) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		conn, err := quic.DialAddr(ctx, address, showing(leaf), nil)
		if err == nil {
			_ = conn.CloseWithError(0, "")
		}
		return shown(err)
	}
}
