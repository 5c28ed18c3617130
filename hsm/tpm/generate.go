// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"valise/hsm"
)

// Generate makes a key below the storage key and keeps it at the handle that ref
// names. The PIN becomes its authorization value. A key that is to agree on secrets
// can do that and sign. ManagementKey is the owner's password.
func (t *Token) Generate(ctx context.Context, ref string, o hsm.GenerateOptions) (hsm.Key, error) {
	k, err := t.generate(ctx, ref, o)
	if err != nil {
		return nil, fmt.Errorf("tpm: generate %.20q: %w", ref, err)
	}
	return k, nil
}

func (t *Token) generate(ctx context.Context, ref string, o hsm.GenerateOptions) (hsm.Key, error) {
	handle, err := handleOf(ref)
	if err != nil {
		return nil, err
	}
	template, err := templateOf(o)
	if err != nil {
		return nil, err
	}
	done, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	old, err := t.read(handle)
	if err == nil && o.Overwrite != ref {
		return nil, hsm.ErrOccupied
	}
	if err != nil && !errors.Is(err, hsm.ErrNoKey) {
		return nil, err
	}
	pin, err := t.askPIN(ctx)
	if err != nil {
		return nil, err
	}
	owner := authority(tpm2.TPMRHOwner, o.ManagementKey)
	if err := t.provision(owner); err != nil {
		return nil, err
	}
	fresh, err := t.create(template, pin)
	if err != nil {
		return nil, err
	}
	defer t.flush(fresh)
	if old != nil {
		if err := t.evict(owner, old, handle); err != nil {
			return nil, err
		}
	}
	if err := t.evict(owner, fresh, handle); err != nil {
		return nil, err
	}
	t.pin = pin
	kept, err := t.read(handle)
	if err != nil {
		return nil, err
	}
	return t.key(ref, kept)
}

// evict moves an object to a persistent handle, or away from there.
func (t *Token) evict(owner tpm2.AuthHandle, o *object, handle tpm2.TPMHandle) error {
	_, err := tpm2.EvictControl{
		Auth: owner, ObjectHandle: tpm2.NamedHandle{Handle: o.handle, Name: o.name}, PersistentHandle: handle,
	}.Execute(t.tpm)
	return asOwner(err)
}

// create makes and loads a key. The PIN goes to the TPM encrypted.
func (t *Token) create(template tpm2.TPMTPublic, pin string) (*object, error) {
	srk, err := t.storage()
	if err != nil {
		return nil, err
	}
	parent := func() tpm2.AuthHandle {
		return tpm2.AuthHandle{Handle: srk.handle, Name: srk.name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16,
			tpm2.Salted(srk.handle, *srk.public), tpm2.AESEncryption(128, tpm2.EncryptIn))}
	}
	made, err := tpm2.Create{
		ParentHandle: parent(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: []byte(pin)},
		}},
		InPublic: tpm2.New2B(template),
	}.Execute(t.tpm)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	loaded, err := tpm2.Load{ParentHandle: parent(), InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(t.tpm)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return &object{handle: loaded.ObjectHandle, name: loaded.Name, transient: true}, nil
}

// templateOf describes a key that cannot leave the TPM, was made in it, signs
// whatever its holder wants, and whose PIN cannot be guessed at will.
func templateOf(o hsm.GenerateOptions) (tpm2.TPMTPublic, error) {
	curve, name := tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384
	switch o.Algorithm {
	case hsm.P384:
	case hsm.P256:
		curve, name = tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256
	default:
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: %v", hsm.ErrAlgorithm, o.Algorithm)
	}
	if o.Touch {
		return tpm2.TPMTPublic{}, errors.New("a TPM has nothing to touch")
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: name,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
			SignEncrypt: true, Decrypt: o.Agree,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve}),
	}, nil
}
