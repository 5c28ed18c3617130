// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

// Generate makes a key pair that cannot leave the token by its attributes. The
// label must be free; Overwrite has no effect, because a token can hold any
// number of keys.
func (t *Token) Generate(ctx context.Context, ref string, o hsm.GenerateOptions) (hsm.Key, error) {
	if ref == "" {
		return nil, fmt.Errorf("pkcs11: generate in token %q: %w", t.cfg.Label, hsm.ErrEmptyLabel)
	}
	params, mechanism, err := marshalParams(o.Algorithm)
	if err == nil && o.Agree && o.Algorithm.Curve() == nil {
		err = fmt.Errorf("%v signs only: %w", o.Algorithm, hsm.ErrAlgorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("pkcs11: generate key %q: %w", ref, err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	made := false // a second run after a lost session must not see its own key as somebody else's
	err = t.useWritable(ctx, func(s p11.SessionHandle) error {
		if made {
			return nil
		}
		if err := vacant(t.module.ctx, s, ref); err != nil {
			return err
		}
		public, private, err := t.module.ctx.GenerateKeyPair(s,
			[]*p11.Mechanism{p11.NewMechanism(mechanism, nil)},
			publicTemplate(ref, id, params, o), privateTemplate(ref, id, o))
		if err != nil {
			return err
		}
		made = true
		return alone(t.module.ctx, s, ref, public, private)
	})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: generate key %q: %w", ref, err)
	}
	return t.Find(ctx, ref, id)
}

// vacant makes sure that no key has this label.
func vacant(ctx *p11.Ctx, s p11.SessionHandle, label string) error {
	for _, kind := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} {
		objects, err := find(ctx, s, p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_CLASS, kind))
		if err != nil {
			return err
		}
		if len(objects) > 0 {
			return hsm.ErrOccupied
		}
	}
	return nil
}

// alone takes the new key back if another process made one with the same label
// at the same time: of two, both may go, but never do both stay.
func alone(ctx *p11.Ctx, s p11.SessionHandle, label string, public, private p11.ObjectHandle) error {
	objects, err := find(ctx, s, p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY))
	if err != nil || len(objects) <= 1 {
		return err
	}
	return errors.Join(hsm.ErrOccupied, ctx.DestroyObject(s, private), ctx.DestroyObject(s, public))
}

func publicTemplate(label string, id, params []byte, o hsm.GenerateOptions) []*p11.Attribute {
	template := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_ID, id),
		p11.NewAttribute(p11.CKA_VERIFY, true),
		p11.NewAttribute(p11.CKA_EC_PARAMS, params),
	}
	if o.Agree {
		template = append(template, p11.NewAttribute(p11.CKA_DERIVE, true))
	}
	return template
}

func privateTemplate(label string, id []byte, o hsm.GenerateOptions) []*p11.Attribute {
	template := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_ID, id),
		p11.NewAttribute(p11.CKA_SIGN, true),
		p11.NewAttribute(p11.CKA_DERIVE, o.Agree),
	}
	return template
}
