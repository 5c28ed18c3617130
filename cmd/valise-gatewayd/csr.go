// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
)

func now() time.Time { return time.Now() }

type csrCommand struct {
	Config    string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	Algorithm string `enum:"P-384,P-256" default:"P-384" help:"Curve of a key that has to be made: ${enum}."`
	Next      bool   `help:"Ask for a certificate for the next key, and make that if there is none."`
}

// Help is what --help prints below the usage.
func (*csrCommand) Help() string {
	return `To replace the gateway's key while it runs: csr --next makes its successor in the token
(LABEL-2, LABEL-3 and so on) and prints the request; the authority certifies it as any
gateway's; put the certificate in the place of the former one and send SIGHUP. Whoever is
connected stays so, and new connections see the new key. Then let two officers revoke the
former key, by the fingerprint that this command prints without --next before the change,
and remove it from the token with its own tool.`
}

// Run prints a certificate request for the gateway's key.
func (c *csrCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	uri, token, err := cfg.openToken(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	algorithm := hsm.P384
	if c.Algorithm == hsm.P256.String() {
		algorithm = hsm.P256
	}
	if c.Next {
		return c.request(ctx, cfg, uri, token, algorithm)
	}
	key, err := cfg.openKey(ctx, uri, token)
	if errors.Is(err, hsm.ErrNoKey) {
		key, err = token.Generate(ctx, uri.Ref, hsm.GenerateOptions{Algorithm: algorithm, Name: "valise gateway"})
		fmt.Fprintf(os.Stderr, "valise-gatewayd: made a %v key %q in token %q\n", algorithm, uri.Ref, token.Info().Label)
	}
	if err != nil {
		return err
	}
	return printRequest(cfg, key)
}

// request prints the request for the next key.
func (c *csrCommand) request(ctx context.Context, cfg *Config, uri *keys.URI, token hsm.Token, algorithm hsm.Algorithm) error {
	key, label, err := cfg.nextKey(ctx, uri, token, algorithm)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "valise-gatewayd: the next key is %q in token %q\n", label, token.Info().Label)
	return printRequest(cfg, key)
}

func printRequest(cfg *Config, key hsm.Key) error {
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "valise-gatewayd: the key's fingerprint, for officers to compare: %s\n", id)
	template := new(x509.CertificateRequest)
	if addr, parseErr := netip.ParseAddr(cfg.Name); parseErr == nil {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else if err := identity.CheckDomain(cfg.Name); err != nil {
		return fmt.Errorf("configuration: name: %w", err)
	} else {
		template.DNSNames = []string{cfg.Name}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return fmt.Errorf("sign the certificate request: %w", err)
	}
	return pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
