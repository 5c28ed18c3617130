// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"valise/hsm"
	"valise/manifest"
)

// A key that rotates has successors under its label with a number: "valise-bulletin",
// "valise-bulletin-2", "valise-bulletin-3" and so on. So no configuration changes when one
// does: which of them is in use says the manifest, and of the HTTPS keys, which it does
// not name, it is the last one. Those of before may be removed from the token.

// maxGenerations bounds where a key is looked for; a manifest names at most 16 of a kind.
const maxGenerations = 32

func generation(label string, n int) string {
	if n == 1 {
		return label
	}
	return fmt.Sprintf("%s-%d", label, n)
}

// A wanted says which of the keys of a label it is.
type wanted func(crypto.PublicKey) bool

// findKey opens the wanted key among those of a label; nil if there is none.
func findKey(ctx context.Context, token hsm.Token, label string, is wanted) (hsm.Key, error) {
	for n := 1; n <= maxGenerations; n++ {
		key, err := token.Key(ctx, generation(label, n))
		switch {
		case errors.Is(err, hsm.ErrNoKey):
			continue
		case err != nil:
			return nil, fmt.Errorf("key %q: %w", generation(label, n), err)
		case is(key.Public()):
			return key, nil
		}
		if err := key.Close(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// lastKey opens the last key of a label, nil if there is none, and returns its number.
func lastKey(ctx context.Context, token hsm.Token, label string) (last hsm.Key, number int, err error) {
	for n := 1; n <= maxGenerations; n++ {
		key, err := token.Key(ctx, generation(label, n))
		if errors.Is(err, hsm.ErrNoKey) {
			continue
		}
		if last != nil {
			err = errors.Join(err, last.Close())
		}
		if err != nil {
			return nil, 0, fmt.Errorf("key %q: %w", generation(label, n), err)
		}
		last, number = key, n
	}
	return last, number, nil
}

// inUse says which keys a manifest names as those in use; nil for the uses of which it
// says nothing.
func inUse(m *manifest.Manifest, use string) wanted {
	if m == nil {
		return nil
	}
	switch use {
	case useIssuing:
		cert, err := x509.ParseCertificate(m.Issuers[0].Certificate)
		return func(k crypto.PublicKey) bool { return err == nil && same(k, cert.PublicKey) }
	case useBulletin:
		return func(k crypto.PublicKey) bool {
			der, err := x509.MarshalPKIXPublicKey(k)
			return err == nil && bytes.Equal(der, m.Bulletin[0].SPKI)
		}
	case useLedger:
		return func(k crypto.PublicKey) bool { return same(k, m.Ledger[0].Public) }
	}
	return nil
}

// openNamed opens the key that the manifest names for a use.
func openNamed(ctx context.Context, token hsm.Token, m *manifest.Manifest, use, label string) (hsm.Key, error) {
	key, err := findKey(ctx, token, label, inUse(m, use))
	if err == nil && key == nil {
		err = fmt.Errorf("%s key: the token %q holds none, under the label %q or as its successor, that manifest %d names: "+
			"check token and label, or sign a new manifest", use, token.Info().Label, label, m.Number)
	}
	return key, err
}

// keyInUse opens the key that the manifest names for a use, or the last one where it names
// none of them.
func keyInUse(ctx context.Context, token hsm.Token, m *manifest.Manifest, use, label string) (hsm.Key, error) {
	if named := inUse(m, use); named != nil {
		if key, err := findKey(ctx, token, label, named); key != nil || err != nil {
			return key, err
		}
	}
	key, _, err := lastKey(ctx, token, label)
	if err == nil && key == nil {
		err = hsm.ErrNoKey
	}
	return key, err
}
