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

// openKey opens the gateway's key: of those of the configured label the one that the
// certificate is for. Where there is no such, it is the first one.
func (c *Config) openKey(ctx context.Context, uri *keys.URI, token hsm.Token) (hsm.Key, error) {
	if certs, err := readCertificates(c.Certificate); err == nil && len(uri.ID) == 0 {
		key, err := keys.FindSuccessor(ctx, token, uri.Ref, func(k crypto.PublicKey) bool { return samePublic(certs[0].PublicKey, k) })
		if key != nil || err != nil {
			return key, err
		}
	}
	return uri.Key(ctx, token)
}

func samePublic(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// nextKey is the key that is to be certified when the one in use is replaced: one that was
// made for that before, or one that is made now.
func (c *Config) nextKey(ctx context.Context, uri *keys.URI, token hsm.Token, algorithm hsm.Algorithm) (hsm.Key, string, error) {
	if len(uri.ID) > 0 {
		return nil, "", errors.New("configuration: key: it names its object by id: name it by a label, or change the id by hand")
	}
	now, err := c.openKey(ctx, uri, token)
	if err != nil {
		return nil, "", err
	}
	defer now.Close()
	last, n, err := keys.LastSuccessor(ctx, token, uri.Ref)
	if err != nil {
		return nil, "", err
	}
	if last != nil && !samePublic(last.Public(), now.Public()) {
		return last, keys.Successor(uri.Ref, n), nil
	}
	if last != nil {
		if err := last.Close(); err != nil {
			return nil, "", err
		}
	}
	if n == keys.MaxSuccessors {
		return nil, "", fmt.Errorf("the key %q has %d successors, as many as there can be: name another label in the configuration", uri.Ref, n-1)
	}
	label := keys.Successor(uri.Ref, n+1)
	key, err := token.Generate(ctx, label, hsm.GenerateOptions{Algorithm: algorithm, Name: "valise gateway"})
	return key, label, err
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
	if !samePublic(leaf.PublicKey, key.Public()) {
		return nil, fmt.Errorf("certificate: %s is for another key than the one in the token: run csr and have it certified", c.Certificate)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}
