// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
)

// openToken opens the token of the configured key.
func (c *Config) openToken(ctx context.Context) (*keys.URI, hsm.Token, error) {
	uri, err := keys.Parse(c.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration: key: %w", err)
	}
	if uri.Ref == "" {
		return nil, nil, errors.New(`configuration: key names no object: add ";object=tls" to the token's part of the URI`)
	}
	pin := keys.PINPrompt(nil)
	if c.PINSource != "" {
		pin = keys.PINFromFile(c.PINSource)
	}
	token, err := uri.OpenToken(ctx, pin)
	return uri, token, err
}

// readCertificates reads all certificates of a PEM file.
func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: holds a %q, want certificates only", path, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: holds no certificate", path)
	}
	return certs, nil
}

func (c *Config) trust() (*identity.Trust, error) {
	roots, err := readCertificates(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	return identity.NewTrust(identity.Authority{Domain: c.Domain, Roots: roots}), nil
}

// certificate joins the chain to the key, and refuses what devices would refuse:
// an operator learns it here, not from people who cannot connect.
func (c *Config) certificate(trust *identity.Trust, key crypto.Signer) (*tls.Certificate, error) {
	certs, err := readCertificates(c.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	chain := make([][]byte, len(certs))
	for i, cert := range certs {
		chain[i] = cert.Raw
	}
	leaf, err := trust.Gateway(chain, c.Name, now())
	if err != nil {
		return nil, fmt.Errorf("certificate: %s: %w", c.Certificate, err)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("certificate: %s is for another key than the one in the token: run csr and have it certified", c.Certificate)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}
