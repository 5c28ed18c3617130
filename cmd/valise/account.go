// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"

	"valise/client/vault"
)

// accountKey is the software key of the ACME account, sealed in the vault. It obtains
// nothing without the card.
func accountKey(ctx context.Context, v *vault.Vault) (*ecdsa.PrivateKey, error) {
	var der []byte
	err := v.Update(ctx, func(tx *vault.Tx) (err error) {
		if der, err = tx.Get("account", nil, []byte("key")); err != nil || der != nil {
			return err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return err
		}
		return tx.Put("account", nil, []byte("key"), der)
	})
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	own, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the account key in the vault is of another kind")
	}
	return own, nil
}

// errForeignTrust says that the profile was changed by somebody without the card.
var errForeignTrust = &hintError{
	text: "profile.json names another person or authority than this device was enrolled with",
	hint: "somebody changed it; tell your security officer, and do not use this device",
}

// pinProfile keeps in the vault whom this device is enrolled as, and with which
// authority: the profile is readable before the card is there, and so it can be
// exchanged by somebody who has the disk for an hour.
func pinProfile(ctx context.Context, v *vault.Vault, p *profile) error {
	return v.Update(ctx, func(tx *vault.Tx) error { return tx.Put("account", nil, []byte("profile"), p.fixed()) })
}

// pinRecord keeps that the authority keeps a public record, which is demanded from then
// on.
func pinRecord(ctx context.Context, v *vault.Vault) error {
	return v.Update(ctx, func(tx *vault.Tx) error { return tx.Put("account", nil, []byte("record"), []byte{1}) })
}

// recordPinned says whether a public record is demanded.
func recordPinned(ctx context.Context, v *vault.Vault) (pinned bool, err error) {
	err = v.View(ctx, func(tx *vault.Tx) error {
		pinned, err = tx.Has("account", nil, []byte("record"))
		return err
	})
	return pinned, err
}

// checkProfile compares the profile with what was pinned.
func checkProfile(ctx context.Context, v *vault.Vault, p *profile) error {
	return v.View(ctx, func(tx *vault.Tx) error {
		pinned, err := tx.Get("account", nil, []byte("profile"))
		if err == nil && !bytes.Equal(pinned, p.fixed()) {
			err = errForeignTrust
		}
		return err
	})
}

// fixed is what of a profile never changes after enrolling. The chain is renewed, and
// a gateway may move: it has to show a certificate of this authority in any case.
func (p *profile) fixed() []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(p.Address.String()), p.Device[:], []byte(p.Authority), p.RootHash, p.Root} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return h.Sum(nil)
}
