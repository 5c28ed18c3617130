// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
)

// A key is a private key in a slot.
type key struct {
	token  *Token
	ref    string
	slot   pivgo.Slot
	pub    *ecdsa.PublicKey
	agree  *ecdh.PublicKey // pub again, for ECDH
	policy pivgo.PINPolicy // zero: piv-go finds out, on firmware before 5.3
}

var (
	_ hsm.Key           = (*key)(nil)
	_ ecdh.KeyExchanger = (*key)(nil)
)

func newKey(t *Token, ref string, slot pivgo.Slot, pub crypto.PublicKey, policy pivgo.PINPolicy) (*key, error) {
	ec, ok := pub.(*ecdsa.PublicKey)
	if _, known := hsm.AlgorithmOf(pub); !ok || !known {
		return nil, fmt.Errorf("it holds a %T: %w", pub, hsm.ErrAlgorithm)
	}
	agree, err := ec.ECDH() // refuses a point that is not on the curve
	if err != nil {
		return nil, fmt.Errorf("the card's public key: %w", err)
	}
	return &key{token: t, ref: ref, slot: slot, pub: ec, agree: agree, policy: policy}, nil
}

func (k *key) Public() crypto.PublicKey   { return k.pub }
func (k *key) PublicKey() *ecdh.PublicKey { return k.agree }
func (k *key) Curve() ecdh.Curve          { return k.agree.Curve() }
func (k *key) Close() error               { return nil }

// Sign signs a digest and returns ECDSA in ASN.1 DER (SP 800-73-4, Part 2,
// Section 3.2.4). It checks the signature before giving it away: a fault in
// the card, or another card, must not be published.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h := opts.HashFunc(); h == 0 || len(digest) != h.Size() {
		return nil, fmt.Errorf("piv: slot %s: a digest of %d bytes is not one of %v", k.ref, len(digest), opts.HashFunc())
	}
	var signature []byte
	err := k.do(func(private *pivgo.ECDSAPrivateKey) (err error) {
		signature, err = private.Sign(nil, k.fill(digest), opts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("piv: sign with slot %s: %w", k.ref, err)
	}
	if !ecdsa.VerifyASN1(k.pub, digest, signature) {
		return nil, fmt.Errorf("piv: sign with slot %s: %w: the signature is wrong", k.ref, errUnexpected)
	}
	return signature, nil
}

// fill pads a digest that is shorter than the curve's order on the left, which
// does not change its value: cards want it at full length.
func (k *key) fill(digest []byte) []byte {
	size := (k.pub.Curve.Params().BitSize + 7) / 8
	if len(digest) >= size {
		return digest
	}
	full := make([]byte, size)
	copy(full[size-len(digest):], digest)
	return full
}

// ECDH agrees on a secret with the holder of peer (SP 800-56A, Section
// 5.7.1.2; SP 800-73-4, Part 2, Section 3.2.4).
func (k *key) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != k.agree.Curve() {
		return nil, fmt.Errorf("piv: ecdh with slot %s: %w", k.ref, hsm.ErrPoint)
	}
	var secret []byte
	err := k.do(func(private *pivgo.ECDSAPrivateKey) (err error) {
		secret, err = private.ECDH(peer)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("piv: ecdh with slot %s: %w", k.ref, err)
	}
	if want := (k.pub.Curve.Params().BitSize + 7) / 8; len(secret) != want {
		return nil, fmt.Errorf("piv: ecdh with slot %s: %w: a secret of %d bytes", k.ref, errUnexpected, len(secret))
	}
	return secret, nil
}

// do runs f with the private key, asking for the PIN where the key wants it.
func (k *key) do(f func(*pivgo.ECDSAPrivateKey) error) error {
	return k.token.use(context.Background(), func(ctx context.Context, yk *pivgo.YubiKey) error {
		var refused error // piv-go flattens the prompt's error to text
		auth := pivgo.KeyAuth{PINPolicy: k.policy, PINPrompt: func() (pin string, err error) {
			pin, refused = k.token.askPIN(ctx, yk)
			return pin, refused
		}}
		private, err := yk.PrivateKey(k.slot, k.pub, auth)
		if err != nil {
			return err
		}
		ec, ok := private.(*pivgo.ECDSAPrivateKey)
		if !ok {
			return fmt.Errorf("%w: %T", hsm.ErrAlgorithm, private)
		}
		err = f(ec)
		if refused != nil {
			return refused
		}
		return err
	})
}

// askPIN obtains a PIN that may be sent to the card.
func (t *Token) askPIN(ctx context.Context, yk *pivgo.YubiKey) (string, error) {
	retries, err := yk.Retries()
	if err != nil {
		retries = -1 // a card that was shown the PIN does not tell
	}
	if retries == 0 {
		return "", hsm.ErrLocked
	}
	if t.pin == nil {
		return "", hsm.ErrNoPIN
	}
	pin, err := t.pin(ctx, hsm.PINRequest{Token: t.info.Label, Serial: t.info.Serial, Retries: retries})
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("the card was locked or removed meanwhile: %w", err)
	}
	if len(pin) < minPIN || len(pin) > maxPIN {
		return "", fmt.Errorf("%w: it has %d characters", hsm.ErrPINFormat, len(pin))
	}
	t.shown = true // it may be: from here on the card is reset when let go
	return pin, nil
}

// Evidence returns the card's attestation of this key and the certificate of
// the key that signed it (slot f9).
func (k *key) Evidence(ctx context.Context) (hsm.Evidence, error) {
	var chain [][]byte
	err := k.token.use(ctx, func(_ context.Context, yk *pivgo.YubiKey) error {
		leaf, err := yk.Attest(k.slot)
		if err != nil {
			return err
		}
		f9, err := yk.AttestationCertificate()
		if err != nil {
			return err
		}
		chain = [][]byte{leaf.Raw, f9.Raw}
		return nil
	})
	if sw, ok := statusOf(err); errors.Is(err, pivgo.ErrNotFound) || ok && (sw == swNoIns || sw == swBadData) {
		err = fmt.Errorf("%w (%v)", hsm.ErrNoEvidence, err)
	}
	if err != nil {
		return hsm.Evidence{}, fmt.Errorf("piv: attest slot %s: %w", k.ref, err)
	}
	return hsm.Evidence{Format: "yubico-piv", Chain: chain}, nil
}
