// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"

	"valise/hsm"
	"valise/hsm/tpm"
)

// OpenToken opens the token that a URI names; a key in the URI is ignored. The
// PIN comes from the URI's pin-source if there is one, else from pin.
func OpenToken(ctx context.Context, uri string, pin hsm.PINFunc) (hsm.Token, error) {
	u, err := Parse(uri)
	if err != nil {
		return nil, err
	}
	return u.OpenToken(ctx, pin)
}

// OpenToken is the function OpenToken for a parsed URI.
func (u *URI) OpenToken(ctx context.Context, pin hsm.PINFunc) (hsm.Token, error) {
	if u.PINSource != "" {
		pin = PINFromFile(u.PINSource)
	}
	token, err := u.openToken(ctx, pin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	return token, nil
}

// openToken opens what needs no cgo itself, and leaves the rest to openToken.
func (u *URI) openToken(ctx context.Context, pin hsm.PINFunc) (hsm.Token, error) {
	if u.Scheme != "tpm" {
		return openToken(ctx, u, pin)
	}
	token, err := tpm.Open(ctx, tpm.Config{Path: u.Path, PIN: pin})
	if err != nil {
		return nil, err // a nil pointer in an interface is not nil
	}
	return token, nil
}

// OpenKey opens the key that a URI names. Closing the key closes its token.
func OpenKey(ctx context.Context, uri string, pin hsm.PINFunc) (hsm.Key, error) {
	u, err := Parse(uri)
	if err != nil {
		return nil, err
	}
	if u.Ref == "" && len(u.ID) == 0 {
		return nil, fmt.Errorf("%s: it names no key: %w", u, ErrURI)
	}
	token, err := u.OpenToken(ctx, pin)
	if err != nil {
		return nil, err
	}
	key, err := u.Key(ctx, token)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", u, err), token.Close())
	}
	owner := ownedKey{key, token}
	if agrees, ok := key.(ecdh.KeyExchanger); ok {
		return struct {
			ownedKey
			exchanger
		}{owner, agrees}, nil
	}
	return owner, nil
}

// Key finds the URI's key in a token that is open.
func (u *URI) Key(ctx context.Context, token hsm.Token) (hsm.Key, error) {
	byID, ok := token.(interface {
		Find(ctx context.Context, label string, id []byte) (hsm.Key, error)
	})
	if len(u.ID) > 0 && ok {
		return byID.Find(ctx, u.Ref, u.ID)
	}
	return token.Key(ctx, u.Ref)
}

// An ownedKey closes its token with itself.
type ownedKey struct {
	hsm.Key
	token hsm.Token
}

func (k ownedKey) Close() error { return errors.Join(k.Key.Close(), k.token.Close()) }

type exchanger = ecdh.KeyExchanger
