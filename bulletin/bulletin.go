// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"valise/identity"
	"valise/internal/jws"
	"valise/manifest"
)

// ErrRefused is wrapped by every error of a bulletin or statement that must not
// be believed.
var ErrRefused = errors.New("bulletin refused")

// bulletinType is the header's typ (RFC 7515, Section 4.1.9).
const bulletinType = "valise-bulletin+jws"

// A State is somebody's standing.
type State string

// The states, from good to bad.
const (
	Active    State = "active"
	Suspended State = "suspended" // until two officers resume
	Dismissed State = "dismissed" // officers only
	Revoked   State = "revoked"   // for ever
	Removed   State = "removed"   // people only
)

var severity = map[State]int{Active: 1, Suspended: 2, Dismissed: 3, Revoked: 4, Removed: 5}

// A Bulletin is one issue of the list. Times are whole seconds. Lists are in
// ascending order and name nobody twice.
type Bulletin struct {
	Number uint64    // from 1
	Time   time.Time // of signing
	Next   time.Time // the heartbeat: the next one is due

	Manifest uint64   // number of the manifest in force; its key signs this
	Bundle   [32]byte // of the policy bundle in force; zero: none

	// LedgerSize and LedgerRoot name the record that this was made from: what
	// its leaves say is in here.
	LedgerSize int64
	LedgerRoot [32]byte

	Devices  []DeviceStanding  // by ID
	People   []PersonStanding  // by address
	Officers []OfficerStanding // by key; all there are, the good ones too
}

// A DeviceStanding says that a device is suspended or revoked.
type DeviceStanding struct {
	ID     identity.DeviceID
	State  State
	Since  time.Time
	Reason string // a word, as "statement" or "serial"; may be empty
}

// A PersonStanding says that a person is suspended, revoked, removed, or active
// with a clearance that may be below what certificates still say.
type PersonStanding struct {
	Address identity.Address
	State   State
	Since   time.Time
	Ceiling *identity.Clearance // nil: none at all
}

// An OfficerStanding says who signs statements, with which key.
type OfficerStanding struct {
	Key     identity.DeviceID
	Address identity.Address
	Role    identity.Role
	State   State // Active, Suspended, Dismissed
}

// body is a bulletin's payload. See spec/bulletin.md, Section 4.
type body struct {
	Number     uint64        `json:"number"`
	Time       int64         `json:"time"`
	Next       int64         `json:"next"`
	Manifest   uint64        `json:"manifest"`
	Bundle     jws.Hash      `json:"bundle"`
	LedgerSize int64         `json:"ledger_size"`
	LedgerRoot jws.Hash      `json:"ledger_root"`
	Devices    []deviceBody  `json:"devices"`
	People     []personBody  `json:"people"`
	Officers   []officerBody `json:"officers"`
}

type deviceBody struct {
	ID     jws.Hash `json:"id"`
	State  State    `json:"state"`
	Since  int64    `json:"since"`
	Reason string   `json:"reason"`
}

type personBody struct {
	Address string `json:"address"`
	State   State  `json:"state"`
	Since   int64  `json:"since"`
	Ceiling []byte `json:"ceiling"`
}

type officerBody struct {
	Key     jws.Hash      `json:"key"`
	Address string        `json:"address"`
	Role    identity.Role `json:"role"`
	State   State         `json:"state"`
}

func (b *Bulletin) payload() (*body, error) {
	out := &body{
		Number: b.Number, Time: b.Time.Unix(), Next: b.Next.Unix(), Manifest: b.Manifest, Bundle: b.Bundle,
		LedgerSize: b.LedgerSize, LedgerRoot: b.LedgerRoot,
		Devices: []deviceBody{}, People: []personBody{}, Officers: []officerBody{},
	}
	for _, d := range b.Devices {
		out.Devices = append(out.Devices, deviceBody{jws.Hash(d.ID), d.State, d.Since.Unix(), d.Reason})
	}
	for _, p := range b.People {
		ceiling := []byte{}
		if p.Ceiling != nil {
			var err error
			if ceiling, err = p.Ceiling.Marshal(); err != nil {
				return nil, err
			}
		}
		out.People = append(out.People, personBody{p.Address.String(), p.State, p.Since.Unix(), ceiling})
	}
	for _, o := range b.Officers {
		out.Officers = append(out.Officers, officerBody{jws.Hash(o.Key), o.Address.String(), o.Role, o.State})
	}
	return out, nil
}

// encode writes a bulletin's payload.
func encode(b *Bulletin) ([]byte, error) {
	out, err := b.payload()
	if err != nil {
		return nil, err
	}
	return jws.Encode(out)
}

func (in *body) bulletin() (*Bulletin, error) {
	b := &Bulletin{
		Number: in.Number, Time: fromSeconds(in.Time), Next: fromSeconds(in.Next), Manifest: in.Manifest, Bundle: in.Bundle,
		LedgerSize: in.LedgerSize, LedgerRoot: in.LedgerRoot,
	}
	if in.Devices == nil || in.People == nil || in.Officers == nil {
		return nil, refuse("a list is null")
	}
	for _, d := range in.Devices {
		b.Devices = append(b.Devices, DeviceStanding{identity.DeviceID(d.ID), d.State, fromSeconds(d.Since), d.Reason})
	}
	for _, p := range in.People {
		address, err := identity.ParseAddress(p.Address)
		if err != nil {
			return nil, refuse("%w", err)
		}
		standing := PersonStanding{Address: address, State: p.State, Since: fromSeconds(p.Since)}
		if p.Ceiling == nil || len(p.Ceiling) > maxCeiling {
			return nil, refuse("%s: a clearance of %d bytes, or null", address, len(p.Ceiling))
		}
		if len(p.Ceiling) > 0 {
			if standing.Ceiling, err = identity.ParseClearance(p.Ceiling); err != nil {
				return nil, refuse("%s: %w", address, err)
			}
		}
		b.People = append(b.People, standing)
	}
	for _, o := range in.Officers {
		address, err := identity.ParseAddress(o.Address)
		if err != nil {
			return nil, refuse("%w", err)
		}
		b.Officers = append(b.Officers, OfficerStanding{identity.DeviceID(o.Key), address, o.Role, o.State})
	}
	return b, nil
}

// KeyID returns the name of a bulletin key in headers: the hexadecimal SHA-256
// of its SubjectPublicKeyInfo.
func KeyID(key crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("bulletin key: %w", err)
	}
	text, err := jws.Hash(sha256.Sum256(spki)).MarshalText()
	return string(text), err
}

// Sign has a bulletin key sign b, after the checks that a reader makes.
func Sign(ctx context.Context, signer crypto.Signer, b *Bulletin) ([]byte, error) {
	kid, err := KeyID(signer.Public())
	if err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	payload, err := encode(b)
	if err != nil {
		return nil, err
	}
	raw, err := jws.Sign(ctx, signer, jws.Header{Typ: bulletinType, KID: kid}, payload)
	if err != nil {
		return nil, fmt.Errorf("bulletin %d: %w", b.Number, err)
	}
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("bulletin %d: %d bytes, at most %d are allowed", b.Number, len(raw), MaxSize)
	}
	return raw, nil
}

// Verify reads a bulletin and checks that a key of the manifest signed it while
// that key was in use. Whether it is the newest is for a [Set] to say.
func Verify(raw []byte, m *manifest.Manifest) (*Bulletin, error) {
	if m == nil {
		return nil, refuse("no manifest to check it with")
	}
	message, err := jws.Parse(raw, MaxSize)
	if err != nil {
		return nil, refuse("%w", err)
	}
	if message.Header.Typ != bulletinType || len(message.Header.X5C) != 0 {
		return nil, refuse("its typ is %.40q, want %q, and no x5c", message.Header.Typ, bulletinType)
	}
	key, err := m.BulletinKey(message.Header.KID, time.Time{})
	if err != nil {
		return nil, refuse("%w", err)
	}
	if err := message.Verify(key); err != nil {
		return nil, refuse("%w", err)
	}
	b, err := parse(message.Payload)
	if err != nil {
		return nil, err
	}
	// The end of the key's use is judged by what it signed: only now is that known.
	if _, err := m.BulletinKey(message.Header.KID, b.Time); err != nil {
		return nil, refuse("%w", err)
	}
	return b, nil
}

func parse(payload []byte) (*Bulletin, error) {
	var in body
	if err := jws.Decode(payload, &in); err != nil {
		return nil, refuse("%w", err)
	}
	b, err := in.bulletin()
	if err != nil {
		return nil, err
	}
	return b, b.check()
}

// NumberOf returns the number that a bulletin claims, unverified: to name it
// before the manifest that verifies it is there.
func NumberOf(raw []byte) (uint64, error) {
	message, err := jws.Parse(raw, MaxSize)
	if err != nil {
		return 0, refuse("%w", err)
	}
	b, err := parse(message.Payload)
	if err != nil {
		return 0, err
	}
	return b.Number, nil
}

func fromSeconds(n int64) time.Time { return time.Unix(n, 0).UTC() }

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}
