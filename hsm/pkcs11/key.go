// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

// A key is a private key that signs.
type key struct {
	token *Token
	label string
	id    []byte
	pub   crypto.PublicKey

	mu     sync.Mutex // guards what follows
	handle p11.ObjectHandle
	epoch  uint64 // the token's, when handle was found
}

// An agreeingKey can do ECDH too.
type agreeingKey struct {
	*key
	agree *ecdh.PublicKey
}

var (
	_ hsm.Key           = (*key)(nil)
	_ hsm.Key           = (*agreeingKey)(nil)
	_ ecdh.KeyExchanger = (*agreeingKey)(nil)
)

// Key finds the private key with a label, which must be the only one.
func (t *Token) Key(ctx context.Context, ref string) (hsm.Key, error) {
	return t.Find(ctx, ref, nil)
}

// Find finds the one private key with a label, an id (CKA_ID), or both.
func (t *Token) Find(ctx context.Context, label string, id []byte) (hsm.Key, error) {
	if label == "" && len(id) == 0 {
		return nil, fmt.Errorf("pkcs11: key in token %q: %w", t.cfg.Label, hsm.ErrEmptyLabel)
	}
	var found *pair
	var epoch uint64
	err := t.use(ctx, func(s p11.SessionHandle) (err error) {
		epoch = t.epoch
		found, err = findPair(t.module.ctx, s, label, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %s: %w", naturally(label, id), err)
	}
	return newKey(t, label, id, found, epoch)
}

// naturally names a key in messages.
func naturally(label string, id []byte) string {
	if label == "" {
		return fmt.Sprintf("with id %x", id)
	}
	return fmt.Sprintf("%q", label)
}

func newKey(t *Token, label string, id []byte, found *pair, epoch uint64) (hsm.Key, error) {
	k := &key{token: t, label: label, id: id, pub: found.pub, handle: found.private, epoch: epoch}
	ec, ok := found.pub.(*ecdsa.PublicKey)
	if !ok || !found.agrees {
		return k, nil
	}
	agree, err := ec.ECDH()
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %s: %w", naturally(label, id), err)
	}
	return &agreeingKey{k, agree}, nil
}

func (k *key) Public() crypto.PublicKey { return k.pub }
func (k *key) Close() error             { return nil }

// Evidence returns ErrNoEvidence: what a module says is no proof.
func (k *key) Evidence(context.Context) (hsm.Evidence, error) {
	return hsm.Evidence{}, fmt.Errorf("pkcs11: key %s: %w", naturally(k.label, k.id), hsm.ErrNoEvidence)
}

// Sign signs a digest with CKM_ECDSA (PKCS#11 v2.40 mechanisms, Section
// 2.3.6), or with an Ed25519 key a message with CKM_EDDSA.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	mechanism := uint(p11.CKM_ECDSA)
	h := opts.HashFunc()
	ec, ok := k.pub.(*ecdsa.PublicKey)
	switch {
	case !ok && (h != 0 || variant(opts)):
		return nil, fmt.Errorf("pkcs11: key %s: Ed25519 signs messages, not digests, and has no context", naturally(k.label, k.id))
	case !ok:
		mechanism = ckmEdDSA
	case h == 0 || len(digest) != h.Size():
		return nil, fmt.Errorf("pkcs11: key %s: a digest of %d bytes is not one of %v", naturally(k.label, k.id), len(digest), h)
	default:
		// Some tokens refuse a digest longer than the order (FIPS 186-5, Section 6.4).
		digest = digest[:min(len(digest), (ec.Curve.Params().BitSize+7)/8)]
	}
	var signature []byte
	err := k.do(func(s p11.SessionHandle, private p11.ObjectHandle) (err error) {
		if err = k.token.module.ctx.SignInit(s, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, private); err == nil {
			signature, err = k.token.module.ctx.Sign(s, digest)
		}
		return err
	})
	if err == nil && ok {
		signature, err = marshalSignature(signature, ec.Curve)
	}
	if err == nil && !ok && len(signature) != ed25519.SignatureSize {
		err = fmt.Errorf("the token gave a signature of %d bytes", len(signature))
	}
	if err != nil {
		return nil, fmt.Errorf("pkcs11: sign with key %s: %w", naturally(k.label, k.id), err)
	}
	return signature, nil
}

// variant tells whether a mode of RFC 8032 is asked for that is not plain Ed25519:
// the same bytes would be signed under another meaning.
func variant(opts crypto.SignerOpts) bool {
	o, ok := opts.(*ed25519.Options)
	return ok && (o.Hash != 0 || o.Context != "")
}

// do runs f with a session and the key's present handle.
func (k *key) do(f func(p11.SessionHandle, p11.ObjectHandle) error) error {
	return k.token.use(k.token.life, func(s p11.SessionHandle) error {
		private, err := k.object(s)
		if err != nil {
			return err
		}
		return f(s, private)
	})
}

// object returns the key's handle, and finds it again when the one at hand is
// from before a restart. The key must still be the same. Callers hold
// module.mu for reading.
func (k *key) object(s p11.SessionHandle) (p11.ObjectHandle, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch == k.token.epoch {
		return k.handle, nil
	}
	found, err := findPair(k.token.module.ctx, s, k.label, k.id)
	if err != nil {
		return 0, err
	}
	if same, ok := k.pub.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(found.pub) {
		return 0, fmt.Errorf("another key has taken its place: %w", hsm.ErrNoKey)
	}
	k.handle, k.epoch = found.private, k.token.epoch
	return k.handle, nil
}

func (k *agreeingKey) PublicKey() *ecdh.PublicKey { return k.agree }
func (k *agreeingKey) Curve() ecdh.Curve          { return k.agree.Curve() }

// ECDH agrees on a secret with CKM_ECDH1_DERIVE and CKD_NULL (PKCS#11 v2.40
// mechanisms, Section 2.3.9). The peer's point was checked when its
// *ecdh.PublicKey was made, and its curve is checked here: tokens differ in
// what they check.
func (k *agreeingKey) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != k.agree.Curve() {
		return nil, fmt.Errorf("pkcs11: ecdh with key %s: %w", naturally(k.label, k.id), hsm.ErrPoint)
	}
	size := (k.pub.(*ecdsa.PublicKey).Curve.Params().BitSize + 7) / 8
	var secret []byte
	err := k.do(func(s p11.SessionHandle, private p11.ObjectHandle) (err error) {
		secret, err = derive(k.token.module.ctx, s, private, peer.Bytes(), size)
		return err
	})
	if err == nil && len(secret) != size {
		err = errors.New("the token gave a secret of the wrong length")
	}
	if err != nil {
		return nil, fmt.Errorf("pkcs11: ecdh with key %s: %w", naturally(k.label, k.id), err)
	}
	return secret, nil
}

// derive makes the secret an object of the session, reads and destroys it.
func derive(ctx *p11.Ctx, s p11.SessionHandle, private p11.ObjectHandle, point []byte, size int) ([]byte, error) {
	mechanism := p11.NewMechanism(p11.CKM_ECDH1_DERIVE, p11.NewECDH1DeriveParams(p11.CKD_NULL, nil, point))
	object, err := ctx.DeriveKey(s, []*p11.Mechanism{mechanism}, private, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_SENSITIVE, false),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_VALUE_LEN, size),
	})
	if err != nil {
		return nil, err
	}
	secret, err := attribute(ctx, s, object, p11.CKA_VALUE)
	if end := ctx.DestroyObject(s, object); err == nil {
		err = end
	}
	return secret, err
}
