// SPDX-License-Identifier: Apache-2.0

package bulletin_test

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/internal/jws"
	"valise/internal/testenv/paper"
	"valise/manifest"
)

const domain = "interieur.example"

var policyID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

func clearance(t testing.TB, classes ...int) *identity.Clearance {
	t.Helper()
	list, err := identity.NewClassList(classes...)
	if err != nil {
		t.Fatal(err)
	}
	return &identity.Clearance{PolicyID: policyID, ClassList: list}
}

// full is a bulletin with a line of every kind.
func full(t testing.TB, a *paper.Authority, number uint64) *bulletin.Bulletin {
	b := a.Bulletin(number)
	b.Bundle, b.LedgerSize, b.LedgerRoot = [32]byte{5}, 17, [32]byte{6}
	b.Devices = []bulletin.DeviceStanding{
		{ID: identity.DeviceID{1}, State: bulletin.Suspended, Since: b.Time, Reason: "leaf:12"},
		{ID: identity.DeviceID{2}, State: bulletin.Revoked, Since: b.Time},
	}
	b.People = []bulletin.PersonStanding{
		{Address: a.Address("alice"), State: bulletin.Active, Since: b.Time, Ceiling: clearance(t, 1, 2)},
		{Address: a.Address("bob"), State: bulletin.Suspended, Since: b.Time},
		{Address: a.Address("carol"), State: bulletin.Removed, Since: b.Time},
	}
	b.Officers = []bulletin.OfficerStanding{
		{Key: identity.DeviceID{8}, Address: a.Address("olga"), Role: identity.RoleOfficer, State: bulletin.Active},
		{Key: identity.DeviceID{9}, Address: a.Address("otto"), Role: identity.RoleAdministrator, State: bulletin.Dismissed},
	}
	return b
}

func TestBulletin(t *testing.T) {
	a := paper.New(t, domain)
	_, m := a.First()
	b := full(t, a, 3)
	raw := a.SignBulletin(b)
	got, err := bulletin.Verify(raw, m)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, b) {
		t.Errorf("got %+v, want %+v", got, b)
	}
	if n, err := bulletin.NumberOf(raw); n != 3 || err != nil {
		t.Errorf("number %d, %v", n, err)
	}
}

// What nobody of the manifest signed, in the time of their key, is refused.
func TestBulletinSigner(t *testing.T) {
	a := paper.New(t, domain)
	_, m := a.First()
	b := full(t, a, 3)
	if _, err := bulletin.Verify(a.SignBulletin(b), m); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	stranger, err := bulletin.Sign(t.Context(), paper.NewKey(t), b)
	if err != nil {
		t.Fatal(err)
	}
	kid, err := bulletin.KeyID(a.BulletinKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	message, err := jws.Parse(a.SignBulletin(b), bulletin.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(h jws.Header) []byte {
		raw, err := jws.Sign(t.Context(), a.BulletinKey, h, message.Payload)
		return paper.Must(t, raw, err)
	}
	borrowed, err := jws.Sign(t.Context(), paper.NewKey(t), jws.Header{Typ: "valise-bulletin+jws", KID: kid}, message.Payload)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"a stranger's key":   stranger,
		"a borrowed name":    borrowed,
		"another type":       sign(jws.Header{Typ: "valise-manifest+jws", KID: kid}),
		"a chain, no name":   sign(jws.Header{Typ: "valise-bulletin+jws", X5C: [][]byte{a.Issuer.Raw}}),
		"neither":            sign(jws.Header{Typ: "valise-bulletin+jws"}),
		"changed":            bytes.Replace(a.SignBulletin(b), []byte("."), []byte(".A"), 1),
		"nothing":            nil,
		"another's manifest": paper.New(t, domain).SignBulletin(b),
	} {
		if _, err := bulletin.Verify(raw, m); !errors.Is(err, bulletin.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := bulletin.Verify(a.SignBulletin(b), nil); !errors.Is(err, bulletin.ErrRefused) {
		t.Errorf("no manifest: %v", err)
	}
}

// A key that was replaced signs nothing after the end of its use.
func TestBulletinKeyEnded(t *testing.T) {
	a := paper.New(t, domain)
	b := full(t, a, 3)
	until := func(end time.Time) *manifest.Manifest {
		m := a.Manifest(1, [32]byte{})
		m.Bulletin[0].Until = end
		m, err := manifest.ParseManifest(a.SignRoot(m), a.Root)
		return paper.Must(t, m, err)
	}
	if _, err := bulletin.Verify(a.SignBulletin(b), until(b.Time)); err != nil {
		t.Errorf("honest control: %v", err)
	}
	if _, err := bulletin.Verify(a.SignBulletin(b), until(b.Time.Add(-time.Second))); !errors.Is(err, bulletin.ErrRefused) {
		t.Errorf("after its end: %v", err)
	}
}

func TestBulletinContents(t *testing.T) {
	a := paper.New(t, domain)
	for name, change := range map[string]func(*bulletin.Bulletin){
		"honest control":     func(*bulletin.Bulletin) {},
		"number 0":           func(b *bulletin.Bulletin) { b.Number = 0 },
		"manifest 0":         func(b *bulletin.Bulletin) { b.Manifest = 0 },
		"no time":            func(b *bulletin.Bulletin) { b.Time = time.Time{} },
		"next before":        func(b *bulletin.Bulletin) { b.Next = b.Time },
		"negative record":    func(b *bulletin.Bulletin) { b.LedgerSize = -1 },
		"an active device":   func(b *bulletin.Bulletin) { b.Devices[0].State = bulletin.Active },
		"device's order":     func(b *bulletin.Bulletin) { b.Devices[1].ID = identity.DeviceID{1} },
		"device's time":      func(b *bulletin.Bulletin) { b.Devices[0].Since = time.Time{} },
		"device's reason":    func(b *bulletin.Bulletin) { b.Devices[0].Reason = "Alice lost it" },
		"a dismissed person": func(b *bulletin.Bulletin) { b.People[0].State = bulletin.Dismissed },
		"people's order":     func(b *bulletin.Bulletin) { b.People[1].Address = b.People[0].Address },
		"no address":         func(b *bulletin.Bulletin) { b.People[0].Address = identity.Address{} },
		"person's time":      func(b *bulletin.Bulletin) { b.People[0].Since = time.Time{} },
		"a removed officer":  func(b *bulletin.Bulletin) { b.Officers[0].State = bulletin.Removed },
		"officers' order":    func(b *bulletin.Bulletin) { b.Officers[1].Key = b.Officers[0].Key },
		"officer's role":     func(b *bulletin.Bulletin) { b.Officers[0].Role = "king" },
		"officer's address":  func(b *bulletin.Bulletin) { b.Officers[0].Address = identity.Address{} },
	} {
		b := full(t, a, 3)
		change(b)
		_, err := bulletin.Sign(t.Context(), a.BulletinKey, b)
		if honest := name == "honest control"; honest != (err == nil) || !honest && !errors.Is(err, bulletin.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signature would keep the fuzzer out: what it would cover is fuzzed. What is
// accepted marshals back to the same bytes.
func FuzzParse(f *testing.F) {
	a := paper.New(f, domain)
	for _, b := range []*bulletin.Bulletin{full(f, a, 3), a.Bulletin(1)} {
		message, err := jws.Parse(a.SignBulletin(b), bulletin.MaxSize)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message.Payload)
		f.Add([]byte(strings.Replace(string(message.Payload), "suspended", "active", 1)))
		f.Add([]byte(strings.Replace(string(message.Payload), `"people":[]`, `"people":null`, 1)))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := bulletin.Parse(payload)
		if err != nil {
			return
		}
		if again, err := bulletin.Encode(b); err != nil || !bytes.Equal(again, payload) {
			t.Errorf("%s comes back as %s, %v", payload, again, err)
		}
	})
}
