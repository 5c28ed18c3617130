// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"

	"valise/client/vault"
	"valise/identity"
)

// What names person and authority in a profile cannot be changed without the card; a
// renewed certificate and a gateway that moved are fine.
func TestProfileIsPinned(t *testing.T) {
	card, err := ecdh.P384().GenerateKey(rand.Reader) // the double of a card's 9d
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Create(t.Context(), filepath.Join(t.TempDir(), vaultFile), [32]byte{1}, card)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Lock()
	address := func(text string) identity.Address {
		a, err := identity.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	honest := profile{
		Address: address("alice@a.example"), Device: [32]byte{1}, Authority: "https://ca.a.example",
		Root: []byte("root"), RootHash: bytes.Repeat([]byte{2}, 32), Chain: [][]byte{{1}}, Gateway: "gw.a.example:1",
	}
	if err := checkProfile(t.Context(), v, &honest); !errors.Is(err, errForeignTrust) {
		t.Errorf("a vault that pins nothing: %v", err)
	}
	if err := pinProfile(t.Context(), v, &honest); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(p *profile)
		want   error
	}{
		"as it was":         {func(*profile) {}, nil},
		"renewed":           {func(p *profile) { p.Chain = [][]byte{{2}} }, nil},
		"a gateway moved":   {func(p *profile) { p.Gateway = "gw2.a.example:1" }, nil},
		"another person":    {func(p *profile) { p.Address = address("bob@a.example") }, errForeignTrust},
		"another device":    {func(p *profile) { p.Device = [32]byte{2} }, errForeignTrust},
		"another authority": {func(p *profile) { p.Authority = "https://ca.b.example" }, errForeignTrust},
		"another root":      {func(p *profile) { p.Root = []byte("evil") }, errForeignTrust},
		"another hash":      {func(p *profile) { p.RootHash = bytes.Repeat([]byte{3}, 32) }, errForeignTrust},
	} {
		p := honest
		c.change(&p)
		if err := checkProfile(t.Context(), v, &p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
