// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"valise/hsm"
	"valise/internal/keys"
	"valise/manifest"
)

// Which of the keys of a label is in use (keys.Successor) says the manifest, and of the
// HTTPS keys, which it does not name, it is the last one.

// A wanted says which of the keys of a label it is.
type wanted = func(crypto.PublicKey) bool

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
	key, err := keys.FindSuccessor(ctx, token, label, inUse(m, use))
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
		if key, err := keys.FindSuccessor(ctx, token, label, named); key != nil || err != nil {
			return key, err
		}
	}
	key, _, err := keys.LastSuccessor(ctx, token, label)
	if err == nil && key == nil {
		err = hsm.ErrNoKey
	}
	return key, err
}
