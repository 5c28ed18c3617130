// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package keys

import (
	"context"
	"fmt"

	"valise/hsm"
	"valise/hsm/piv"
	"valise/hsm/pkcs11"
)

func openToken(ctx context.Context, u *URI, pin hsm.PINFunc) (hsm.Token, error) {
	if u.Scheme == "piv" {
		return pivToken(piv.Open(ctx, piv.Config{Serial: u.Serial, Reader: u.Reader, PIN: pin}))
	}
	if u.Module == "" {
		return nil, fmt.Errorf("%w: module-path is missing", hsm.ErrNoModule)
	}
	return pkcs11Token(pkcs11.Open(ctx, pkcs11.Config{
		Module: u.Module, Label: u.Token, Serial: u.Serial,
		Manufacturer: u.Manufacturer, Model: u.Model, PIN: pin,
	}))
}

// A nil pointer in an interface is not nil.

func pivToken(t *piv.Token, err error) (hsm.Token, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}

func pkcs11Token(t *pkcs11.Token, err error) (hsm.Token, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}
