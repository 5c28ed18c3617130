// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"valise/hsm"
	"valise/internal/keys"
	"valise/manifest"
)

// The uses of an authority's keys.
const (
	useRoot     = "root"
	useIssuing  = "issuing"
	useTLS      = "tls"
	useBulletin = "bulletin"
	useLedger   = "ledger"
)

// A place is where a key is, or is to be made.
type place struct {
	use       string
	label     string
	algorithm hsm.Algorithm
}

// places are all keys of an authority, the root's first.
func (c *Config) places() ([]place, error) {
	algorithm, err := c.algorithm()
	return []place{
		{useRoot, c.Token.RootKey, algorithm},
		{useIssuing, c.Token.IssuerKey, algorithm},
		{useTLS, c.Token.TLSKey, algorithm},
		{useBulletin, c.Token.BulletinKey, algorithm},
		{useLedger, c.Token.LedgerKey, hsm.Ed25519},
	}, err
}

// Hardware is the tokens of an authority with the keys that are open. Only init and
// the manifest commands open the root's.
type hardware struct {
	places []place
	tokens map[string]hsm.Token // by use; those without one of their own have the token ""
	keys   map[string]hsm.Key
	made   map[string]bool
}

func openHardware(ctx context.Context, cfg *Config, withRoot bool) (*hardware, error) {
	h := &hardware{tokens: make(map[string]hsm.Token), keys: make(map[string]hsm.Key), made: make(map[string]bool)}
	var err error
	if h.places, err = cfg.places(); err != nil {
		return nil, err
	}
	if h.tokens[""], err = openToken(ctx, cfg); err != nil {
		return nil, err
	}
	for use, other := range map[string]*OtherTokenConfig{useRoot: &cfg.RootToken, useTLS: &cfg.TLSToken} {
		if !other.Apart() || use == useRoot && !withRoot {
			continue
		}
		token, err := other.open(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s token: %w", use, err), h.close())
		}
		for _, known := range h.tokens {
			if a, b := token.Info(), known.Info(); a.Kind == b.Kind && a.Serial == b.Serial && a.Label == b.Label {
				err = fmt.Errorf("%s-token: %q is the other token: name another one, or leave it out", use, a.Label)
			}
		}
		h.tokens[use] = token
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (c *OtherTokenConfig) open(ctx context.Context) (hsm.Token, error) {
	var pin hsm.PINFunc
	if c.PINSource != "" {
		pin = keys.PINFromFile(c.PINSource)
	}
	return keys.OpenToken(ctx, c.URI, pin)
}

// tokenOf returns the token that a key belongs in.
func (h *hardware) tokenOf(use string) hsm.Token {
	if own := h.tokens[use]; own != nil {
		return own
	}
	return h.tokens[""]
}

// open finds the keys that are there: those that the manifest names as in use, and of
// the others the last ones.
func (h *hardware) open(ctx context.Context, m *manifest.Manifest) error {
	for _, p := range h.places {
		key, err := h.find(ctx, p, m)
		if err != nil {
			return err
		}
		if key == nil {
			continue
		}
		h.keys[p.use] = key
		if got, _ := hsm.AlgorithmOf(key.Public()); got != p.algorithm && (got == hsm.Ed25519 || p.algorithm == hsm.Ed25519) {
			return fmt.Errorf("key %q is a %v key: the %s key cannot be one", p.label, got, p.use)
		}
	}
	return nil
}

func (h *hardware) find(ctx context.Context, p place, m *manifest.Manifest) (hsm.Key, error) {
	token := h.tokenOf(p.use)
	if p.use == useRoot { // it never changes
		key, err := token.Key(ctx, p.label)
		if errors.Is(err, hsm.ErrNoKey) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", p.label, err)
		}
		return key, nil
	}
	key, err := keyInUse(ctx, token, m, p.use, p.label)
	if errors.Is(err, hsm.ErrNoKey) {
		return nil, nil
	}
	return key, err
}

// succeed takes a new key for a use: one that a rotation left which did not come to its
// end, or one that is made now.
func (h *hardware) succeed(ctx context.Context, use string) error {
	for _, p := range h.places {
		if p.use != use {
			continue
		}
		token := h.tokenOf(use)
		last, n, err := keys.LastSuccessor(ctx, token, p.label)
		if err != nil {
			return err
		}
		now := h.keys[use]
		if last != nil && (use == useTLS || now != nil && same(last.Public(), now.Public())) {
			if err := last.Close(); err != nil {
				return err
			}
			last = nil
		}
		if last == nil {
			if n == keys.MaxSuccessors {
				return fmt.Errorf("%s key: %q has %d successors, as many as there can be: give the configuration another label and run manifest renew --replace", use, p.label, n-1)
			}
			label := keys.Successor(p.label, n+1)
			if last, err = token.Generate(ctx, label, hsm.GenerateOptions{Algorithm: p.algorithm, Name: label}); err != nil {
				return fmt.Errorf("make key %q: %w", label, err)
			}
		}
		h.keys[use], h.made[use] = last, true
		if now != nil {
			return now.Close()
		}
	}
	return nil
}

// vacant makes sure that all labels are free before the first key is made.
func (h *hardware) vacant() error {
	for _, p := range h.places {
		if h.keys[p.use] != nil {
			return fmt.Errorf("key %q is in the token already: name other labels, or remove it with the HSM's own tool", p.label)
		}
	}
	return nil
}

// fill makes the keys that are not there.
func (h *hardware) fill(ctx context.Context) error {
	for _, p := range h.places {
		if h.keys[p.use] != nil {
			continue
		}
		key, err := h.tokenOf(p.use).Generate(ctx, p.label, hsm.GenerateOptions{Algorithm: p.algorithm, Name: p.label})
		if err != nil {
			return fmt.Errorf("make key %q: %w", p.label, err)
		}
		h.keys[p.use], h.made[p.use] = key, true
	}
	return nil
}

func (h *hardware) close() error {
	var all []error
	for _, key := range h.keys {
		all = append(all, key.Close())
	}
	for _, token := range h.tokens {
		all = append(all, token.Close())
	}
	return errors.Join(all...)
}

// spki is a key's SubjectPublicKeyInfo with its SHA-256.
func spki(key hsm.Key) (der []byte, sum [32]byte, err error) {
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	return der, sha256.Sum256(der), err
}
