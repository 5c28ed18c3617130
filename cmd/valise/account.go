// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
