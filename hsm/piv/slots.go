// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
)

// Key finds the key in a slot. A key in 9c that does not ask for the PIN every
// time is refused with ErrPINPolicy.
func (t *Token) Key(ctx context.Context, ref string) (hsm.Key, error) {
	slot, err := parseSlot(ref)
	if err != nil {
		return nil, err
	}
	var k *key
	err = t.use(ctx, func(_ context.Context, yk *pivgo.YubiKey) error {
		pub, policy, err := inspect(yk, slot)
		if err != nil {
			return err
		}
		if err := checkPolicy(slot, policy); err != nil {
			return err
		}
		k, err = newKey(t, ref, slot, pub, policy)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("piv: slot %s: %w", ref, err)
	}
	return k, nil
}

// inspect reads a slot's public key and PIN policy: from the card's metadata,
// or on firmware before 5.3 from attestation or certificate.
func inspect(yk *pivgo.YubiKey, slot pivgo.Slot) (crypto.PublicKey, pivgo.PINPolicy, error) {
	info, err := yk.KeyInfo(slot)
	if err == nil && info.PublicKey != nil {
		return info.PublicKey, info.PINPolicy, nil
	}
	if errors.Is(err, pivgo.ErrNotFound) {
		return nil, 0, hsm.ErrNoKey
	}
	if sw, ok := statusOf(err); err != nil && (!ok || sw != swNoIns) {
		return nil, 0, err
	}
	cert, err := yk.Attest(slot)
	if err == nil {
		return cert.PublicKey, attestedPolicy(cert), nil
	}
	cert, err = yk.Certificate(slot)
	if errors.Is(err, pivgo.ErrNotFound) {
		return nil, 0, hsm.ErrNoKey
	}
	if err != nil {
		return nil, 0, err
	}
	return cert.PublicKey, 0, nil
}

// oidPolicies is Yubico's extension of attestation certificates that holds PIN
// and touch policy, a byte each.
var oidPolicies = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}

// attestedPolicy reads the PIN policy from an attestation certificate: zero if
// it is not there. The values are piv-go's own.
func attestedPolicy(cert *x509.Certificate) pivgo.PINPolicy {
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(oidPolicies) && len(ext.Value) == 2 {
			return pivgo.PINPolicy(ext.Value[0])
		}
	}
	return 0
}

// occupied tells whether making a key in slot could destroy something. Only a
// clear "nothing there" counts as free. A certificate without a key counts as
// occupied: firmware before 5.3 shows imported keys in no other way.
func occupied(yk *pivgo.YubiKey, slot pivgo.Slot) error {
	switch _, _, err := inspect(yk, slot); {
	case err == nil:
		return hsm.ErrOccupied
	case !errors.Is(err, hsm.ErrNoKey):
		return fmt.Errorf("%w, of a kind that cannot be read: %v", hsm.ErrOccupied, err)
	}
	switch _, err := yk.Certificate(slot); {
	case err == nil:
		return fmt.Errorf("%w: a certificate", hsm.ErrOccupied)
	case !errors.Is(err, pivgo.ErrNotFound):
		return fmt.Errorf("%w: data that cannot be read: %v", hsm.ErrOccupied, err)
	}
	return nil
}

// Generate makes a key on the card, with PIN policy "always" in 9c and "once"
// elsewhere.
func (t *Token) Generate(ctx context.Context, ref string, o hsm.GenerateOptions) (hsm.Key, error) {
	slot, err := parseSlot(ref)
	if err != nil {
		return nil, err
	}
	spec, err := keySpec(slot, o)
	if err != nil {
		return nil, err
	}
	var k *key
	err = t.use(ctx, func(_ context.Context, yk *pivgo.YubiKey) error {
		if !strings.EqualFold(o.Overwrite, ref) {
			if err := occupied(yk, slot); err != nil {
				return err
			}
		}
		pub, err := yk.GenerateKey(managementKey(o.ManagementKey), slot, spec)
		if o.TouchOffered && !o.Touch && refusesTouch(err) {
			spec.TouchPolicy = pivgo.TouchPolicyNever
			pub, err = yk.GenerateKey(managementKey(o.ManagementKey), slot, spec)
		}
		if err != nil {
			return managementError(err)
		}
		k, err = newKey(t, ref, slot, pub, spec.PINPolicy)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("piv: generate in slot %s: %w", ref, err)
	}
	return k, nil
}

func keySpec(slot pivgo.Slot, o hsm.GenerateOptions) (pivgo.Key, error) {
	spec := pivgo.Key{PINPolicy: pinPolicyFor(slot), TouchPolicy: pivgo.TouchPolicyNever}
	if o.Touch || o.TouchOffered {
		spec.TouchPolicy = pivgo.TouchPolicyAlways
	}
	switch o.Algorithm {
	case hsm.P256:
		spec.Algorithm = pivgo.AlgorithmEC256
	case hsm.P384:
		spec.Algorithm = pivgo.AlgorithmEC384
	default:
		return spec, fmt.Errorf("piv: %v: %w", o.Algorithm, hsm.ErrAlgorithm)
	}
	return spec, nil
}

// refusesTouch tells whether a card has no such policy: it refuses the command's
// data, and makes no key.
func refusesTouch(err error) bool {
	sw, ok := statusOf(err)
	return ok && sw == swBadData
}

// managementKey is the key that cards are delivered with, unless one is given.
func managementKey(given []byte) []byte {
	if given == nil {
		return pivgo.DefaultManagementKey
	}
	return given
}

// Certificate returns the certificate stored in a slot.
func (t *Token) Certificate(ctx context.Context, ref string) ([]byte, error) {
	slot, err := parseSlot(ref)
	if err != nil {
		return nil, err
	}
	var der []byte
	err = t.use(ctx, func(_ context.Context, yk *pivgo.YubiKey) error {
		cert, err := yk.Certificate(slot)
		if errors.Is(err, pivgo.ErrNotFound) {
			return hsm.ErrNoCertificate
		}
		if err == nil {
			der = cert.Raw
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("piv: certificate in slot %s: %w", ref, err)
	}
	return der, nil
}

// StoreCertificate stores a certificate in a slot, for other programs to find
// (SP 800-73-4, Part 1, Section 3.1). It must certify the slot's key.
func (t *Token) StoreCertificate(ctx context.Context, ref string, der, management []byte) error {
	slot, err := parseSlot(ref)
	if err != nil {
		return err
	}
	if len(der) > maxCertificate {
		return fmt.Errorf("piv: a certificate of %d bytes does not fit on a card (%d)", len(der), maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("piv: certificate for slot %s: %w", ref, err)
	}
	err = t.use(ctx, func(_ context.Context, yk *pivgo.YubiKey) error {
		pub, _, err := inspect(yk, slot)
		if err != nil {
			return err
		}
		if same, ok := pub.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(cert.PublicKey) {
			return errors.New("the certificate is for another key")
		}
		return managementError(yk.SetCertificate(managementKey(management), slot, cert))
	})
	if err != nil {
		return fmt.Errorf("piv: store certificate in slot %s: %w", ref, err)
	}
	return nil
}
