// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"valise/attest"
	"valise/identity"
)

// An Occasion is what an application is made for: the founding of an authority, by
// the name of its ceremony, or an appointment later, by the nonce that the
// authority gave out for it.
type Occasion struct {
	purpose purpose
	name    string
}

type purpose string

const (
	purposeFounding    purpose = "founding"
	purposeAppointment purpose = "appointment"
)

// Founding is the occasion of a ceremony. Its name is chosen by whoever convenes
// it, and best used once: "Founding of interieur.example, 2026-11-22".
func Founding(name string) Occasion { return Occasion{purposeFounding, name} }

// Appointment is the occasion of an officer who is appointed later. The nonce is
// the authority's, drawn for this appointment.
func Appointment(nonce string) Occasion { return Occasion{purposeAppointment, nonce} }

// String says what the occasion is.
func (o Occasion) String() string { return string(o.purpose) + " " + o.name }

func (o Occasion) check() error {
	if o.purpose != purposeFounding && o.purpose != purposeAppointment {
		return fmt.Errorf("purpose %.40q is neither %q nor %q", string(o.purpose), purposeFounding, purposeAppointment)
	}
	return checkName(o.name)
}

// checkName holds names to one printable line without spaces around it, so that
// what is signed is what is read.
func checkName(name string) error {
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name {
		return fmt.Errorf("name %.100q: want 1 to %d bytes with no space at either end", name, maxName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return fmt.Errorf("name %.100q holds a character that does not show on paper", name)
		}
	}
	return nil
}

// An Application is a person's request to be an officer with the key in slot 9c of
// their card.
type Application struct {
	Occasion Occasion
	Address  identity.Address
	Role     identity.Role
	Key      []byte // SubjectPublicKeyInfo, DER
	Evidence []byte // attestation object in CBOR: attest.AttestationObject
}

// applicationType is the first member of the file, and names the challenge.
const applicationType = "valise officer application 1"

// file is the form of an application on disk, in this order.
type file struct {
	Type     string `json:"type"`
	Purpose  string `json:"purpose"`
	For      string `json:"for"`
	Address  string `json:"address"`
	Role     string `json:"role"`
	Key      string `json:"key"`      // base64url of the SubjectPublicKeyInfo
	Evidence string `json:"evidence"` // base64url of the attestation object
}

// Challenge returns what the key in 9c signs: SHA-256 over the type and, each behind
// its length as uint32, purpose, name or nonce, address and role. The signature
// is the attested key's own, so that it names the key as well.
func Challenge(o Occasion, address identity.Address, role identity.Role) []byte {
	b := []byte(applicationType + "\x00")
	for _, s := range []string{string(o.purpose), o.name, address.String(), string(role)} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// Apply has key, which is in slot 9c, sign the challenge. The card asks for its PIN.
// evidence is what the card says about the key.
func Apply(o Occasion, address identity.Address, role identity.Role, key crypto.Signer, evidence attest.Evidence) (*Application, error) {
	a := &Application{Occasion: o, Address: address, Role: role}
	var err error
	if a.Key, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("application: %w", err)
	}
	if err := a.checkFields(); err != nil {
		return nil, fmt.Errorf("application: %w", err)
	}
	answer, err := attest.Answer(key, Challenge(o, address, role))
	if err != nil {
		return nil, fmt.Errorf("application: %w", err)
	}
	evidence.KeyManagement = nil // an officer's key has no second one
	if a.Evidence, err = attest.MarshalAttestationObject(attest.NewAttestationObject(evidence, answer)); err != nil {
		return nil, fmt.Errorf("application: %w", err)
	}
	return a, nil
}

// checkFields looks at everything but the evidence.
func (a *Application) checkFields() error {
	if err := a.Occasion.check(); err != nil {
		return err
	}
	if a.Address.IsZero() {
		return errors.New("no address")
	}
	if _, err := identity.ParseRole(string(a.Role)); err != nil {
		return err
	}
	_, err := a.PublicKey()
	return err
}

// PublicKey is the key that a certificate is asked for.
func (a *Application) PublicKey() (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(a.Key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if err := identity.CheckKey(key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if der, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(der, a.Key) {
		return nil, errors.New("key: it is not in its canonical encoding")
	}
	return key, nil
}

var encoding = base64.RawURLEncoding.Strict()

// Marshal writes the file: JSON with one member a line, so that a person can read it.
func (a *Application) Marshal() ([]byte, error) {
	if err := a.checkFields(); err != nil {
		return nil, fmt.Errorf("application: %w", err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(file{
		Type: applicationType, Purpose: string(a.Occasion.purpose), For: a.Occasion.name,
		Address: a.Address.String(), Role: string(a.Role),
		Key: encoding.EncodeToString(a.Key), Evidence: encoding.EncodeToString(a.Evidence),
	})
	return b.Bytes(), err
}

// ParseApplication reads a file. It accepts exactly what Marshal writes.
func ParseApplication(data []byte) (*Application, error) {
	a, err := parseApplication(data)
	if err != nil {
		return nil, fmt.Errorf("application: %w: have it made again with valise officer apply", err)
	}
	return a, nil
}

func parseApplication(data []byte) (*Application, error) {
	if len(data) > MaxApplicationSize {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), MaxApplicationSize)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if f.Type != applicationType {
		return nil, fmt.Errorf("type %.60q, want %q", f.Type, applicationType)
	}
	a := &Application{Occasion: Occasion{purpose(f.Purpose), f.For}, Role: identity.Role(f.Role)}
	var err error
	if a.Address, err = identity.ParseAddress(f.Address); err != nil {
		return nil, err
	}
	if a.Key, err = encoding.DecodeString(f.Key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if a.Evidence, err = encoding.DecodeString(f.Evidence); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	again, err := a.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("it is not in its canonical form")
	}
	return a, nil
}

// Appraise judges the application as one for occasion: the evidence is sound, is for
// this key, was answered for this occasion, address and role, and meets the policy,
// which is one that OfficerPolicy returned. The error says what is wrong with the
// application itself; what the hardware lacks stands in the result.
func (a *Application) Appraise(o Occasion, endorsements *attest.Endorsements, policy *attest.AppraisalPolicy, now time.Time) (*attest.Result, error) {
	if a.Occasion != o {
		return nil, fmt.Errorf("the application of %s is for another occasion: %s, not %s", a.Address, a.Occasion, o)
	}
	if err := checkOfficerPolicy(policy); err != nil {
		return nil, err
	}
	key, err := a.PublicKey()
	if err != nil {
		return nil, err
	}
	object, err := attest.ParseAttestationObject(a.Evidence)
	if err != nil {
		return nil, err
	}
	if len(object.KeyManagement) > 0 {
		return nil, errors.New("the application's evidence speaks of a second key, and an officer has one")
	}
	claims, err := attest.Verify(object.Evidence(), object.Challenge(Challenge(o, a.Address, a.Role)), endorsements, now)
	if err != nil {
		return nil, err
	}
	return policy.Appraise(claims, attest.Input{PublicKey: key, Now: now}), nil
}
