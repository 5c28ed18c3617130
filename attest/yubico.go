// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// Yubico, "PIV attestation": a certificate made by the card for a key that was
// generated in one of its slots, signed by the key in F9, which Yubico's roots
// certify. The slot stands in the common name, everything else in extensions.
const slotNamePrefix = "YubiKey PIV Attestation "

// yubico returns Yubico's extension 1.3.6.1.4.1.41482.3.n.
func yubico(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n}
}

// pivSlots are the slots whose keys a card attests: SP 800-73-4 Part 1, Table
// 4b, without F9 itself.
var pivSlots = func() []string {
	slots := []string{"9a", "9c", "9d", "9e"}
	for n := 0x82; n <= 0x95; n++ {
		slots = append(slots, fmt.Sprintf("%02x", n))
	}
	return slots
}()

// RetiredSlots returns the slots for retired key management keys, 82 to 95,
// where Valise's key lives when 9a is taken.
func RetiredSlots() []string {
	return slices.DeleteFunc(slices.Clone(pivSlots), func(slot string) bool { return slot[0] == '9' && slot[1] > '9' })
}

// verifyYubico is Verify for FormatYubicoPIV.
func verifyYubico(ev Evidence, endorsements *Endorsements, now time.Time) (*Claims, error) {
	key, f9, err := verifyPIV(ev.Chain, endorsements, now)
	if err != nil {
		return nil, err
	}
	claims := &Claims{Key: *key}
	if len(ev.KeyManagement) > 0 {
		second, secondF9, err := verifyPIV(ev.KeyManagement, endorsements, now)
		if err != nil {
			return nil, fmt.Errorf("key management key: %w", err)
		}
		claims.KeyManagement = second
		claims.SameCard = sameCard(key, second, f9, secondF9)
	}
	return claims, nil
}

// sameCard compares serial numbers and attestation certificates; f9 differs
// from card to card.
func sameCard(a, b *KeyClaims, f9a, f9b *x509.Certificate) Truth {
	if !f9a.Equal(f9b) {
		return False
	}
	if !a.Serial.Said || !b.Serial.Said {
		return Unstated
	}
	return truth(a.Serial.Value == b.Serial.Value)
}

// verifyPIV checks one slot's chain.
func verifyPIV(chain [][]byte, endorsements *Endorsements, now time.Time) (*KeyClaims, *x509.Certificate, error) {
	slot, f9, err := parsePIVChain(chain, endorsements)
	if err != nil {
		return nil, nil, err
	}
	if slot.IsCA {
		return nil, nil, refuse(ReasonMalformed, "the slot's certificate is a certification authority")
	}
	if len(slot.UnhandledCriticalExtensions) > 0 {
		return nil, nil, refuse(ReasonMalformed, "critical extension %v is not known", slot.UnhandledCriticalExtensions[0])
	}
	if !bytes.Equal(slot.RawIssuer, f9.RawSubject) {
		return nil, nil, refuse(ReasonMalformed, "the slot's certificate was issued by %.80q, but the second one is %.80q", slot.Issuer, f9.Subject)
	}
	if err := mayIssue(f9, 0); err != nil {
		return nil, nil, refuse(ReasonMalformed, "the card's attestation certificate (f9): %w", err)
	}
	if err := checkSignature(slot, f9); err != nil {
		return nil, nil, refuse(ReasonBadSignature, "the slot's certificate: %w", err)
	}
	path, root := endorsements.extend([]*x509.Certificate{slot, f9})
	if path == nil {
		return nil, nil, refuse(ReasonUnknownRoot, "no endorsed root stands above %.80q, issued by %.80q", f9.Subject, f9.Issuer)
	}
	if err := checkDates(path, now); err != nil {
		return nil, nil, err
	}
	claims, err := pivClaims(slot)
	if err != nil {
		return nil, nil, err
	}
	claims.BuiltIn, claims.Path = root.builtIn, links(path)
	return claims, f9, nil
}

// parsePIVChain returns the slot's and the card's certificate. What follows
// them must be copies of endorsed certificates, which are taken from there.
func parsePIVChain(chain [][]byte, endorsements *Endorsements) (slot, f9 *x509.Certificate, err error) {
	if len(chain) < 2 || len(chain) > MaxEvidenceCertificates {
		return nil, nil, refuse(ReasonMalformed, "%d certificates, want the slot's and the card's (f9)", len(chain))
	}
	var certs [2]*x509.Certificate
	for i, der := range chain {
		if len(der) > MaxCertificateSize {
			return nil, nil, refuse(ReasonMalformed, "certificate %d has %d bytes, at most %d are allowed", i, len(der), MaxCertificateSize)
		}
		if i >= 2 {
			if !endorsements.holds(der) {
				return nil, nil, refuse(ReasonMalformed, "certificate %d is neither the slot's nor the card's nor an endorsed one", i)
			}
			continue
		}
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, nil, refuse(ReasonMalformed, "certificate %d: %w", i, err)
		}
	}
	return certs[0], certs[1], nil
}

// pivClaims reads a slot's certificate. An extension that is missing leaves
// its claim unstated; one with another shape than Yubico documents is refused.
func pivClaims(slot *x509.Certificate) (*KeyClaims, error) {
	name, err := slotOf(slot)
	if err != nil {
		return nil, err
	}
	claims := &KeyClaims{
		PublicKey: slot.PublicKey,
		Algorithm: algorithmOf(slot.PublicKey),
		Generated: True, // a card attests no key that was imported
		Slot:      state(name),
	}
	for _, ext := range slot.Extensions {
		if err := claims.read(ext.Id, ext.Value); err != nil {
			return nil, refuse(ReasonMalformed, "extension %v: %w", ext.Id, err)
		}
	}
	return claims, nil
}

// read takes one extension in. FIPS is stated either way by the form factor's
// byte, and by an extension of its own; CSPN only by an extension.
func (k *KeyClaims) read(id asn1.ObjectIdentifier, value []byte) error {
	raw := func(n int) error {
		if len(value) != n {
			return fmt.Errorf("%d bytes, want %d", len(value), n)
		}
		return nil
	}
	switch {
	case id.Equal(yubico(3)):
		if err := raw(3); err != nil {
			return err
		}
		k.Firmware = state(Firmware{value[0], value[1], value[2]})
	case id.Equal(yubico(7)):
		var serial uint64
		der := cryptobyte.String(value)
		if !der.ReadASN1Integer(&serial) || !der.Empty() {
			return fmt.Errorf("not a serial number")
		}
		k.Serial = state(serial)
	case id.Equal(yubico(8)):
		if err := raw(2); err != nil {
			return err
		}
		k.PINPolicy, k.TouchPolicy = state(PINPolicy(value[0])), state(TouchPolicy(value[1]))
	case id.Equal(yubico(9)):
		if err := raw(1); err != nil {
			return err
		}
		k.FormFactor = state(FormFactor(value[0] &^ fipsBit))
		if k.FIPS != True {
			k.FIPS = truth(value[0]&fipsBit != 0)
		}
	case id.Equal(yubico(10)):
		k.FIPS = True
	case id.Equal(yubico(11)):
		k.CSPN = True
	}
	return nil
}

// fipsBit marks the FIPS series in the form factor's byte. What else stands in
// its upper half makes the form factor an unknown one.
const fipsBit = 0x80

// slotOf reads the slot from the subject, which must be one common name.
func slotOf(cert *x509.Certificate) (string, error) {
	slot, found := strings.CutPrefix(cert.Subject.CommonName, slotNamePrefix)
	if !found || len(cert.Subject.Names) != 1 || !slices.Contains(pivSlots, slot) {
		return "", refuse(ReasonUnknownFormat, "not YubiKey PIV evidence: the subject is %.80q, want \"CN=%s<slot>\"", cert.Subject, slotNamePrefix)
	}
	return slot, nil
}

func algorithmOf(key crypto.PublicKey) string {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", key.N.BitLen())
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", key), "*")
}
