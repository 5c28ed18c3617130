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
)

func now() time.Time { return time.Now() }

type csrCommand struct {
	Config    string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	Algorithm string `enum:"P-384,P-256" default:"P-384" help:"Curve of a key that has to be made: ${enum}."`
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
	key, err := uri.Key(ctx, token)
	if errors.Is(err, hsm.ErrNoKey) {
		algorithm := hsm.P384
		if c.Algorithm == hsm.P256.String() {
			algorithm = hsm.P256
		}
		key, err = token.Generate(ctx, uri.Ref, hsm.GenerateOptions{Algorithm: algorithm, Name: "valise gateway"})
		fmt.Fprintf(os.Stderr, "valise-gatewayd: made a %v key %q in token %q\n", algorithm, uri.Ref, token.Info().Label)
	}
	if err != nil {
		return err
	}
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
