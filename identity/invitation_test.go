// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testInvitation(t testing.TB) Invitation {
	t.Helper()
	address, err := ParseAddress("alice@interieur.example")
	if err != nil {
		t.Fatal(err)
	}
	return Invitation{
		URL: "https://enroll.interieur.example:8443", KID: "k-1", Key: bytes.Repeat([]byte{7}, 32),
		Root: [32]byte{1, 2, 3}, Address: address, Expires: time.Unix(1_800_000_000, 0).UTC(),
	}
}

func TestInvitationRoundTrip(t *testing.T) {
	want := testInvitation(t)
	code, err := want.Code()
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(code, " \n=") || !strings.HasPrefix(code, "valise1:") {
		t.Errorf("code %q", code)
	}
	got, err := ParseInvitation("  " + code + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.URL != want.URL || got.KID != want.KID || !bytes.Equal(got.Key, want.Key) || got.Root != want.Root ||
		got.Address != want.Address || !got.Expires.Equal(want.Expires) {
		t.Errorf("got %+v", got)
	}
}

func TestInvitationRefusesEveryChangedCharacter(t *testing.T) {
	inv := testInvitation(t)
	code, err := inv.Code()
	if err != nil {
		t.Fatal(err)
	}
	for i := range code {
		changed := []byte(code)
		changed[i] = 'A'
		if string(changed) == code {
			changed[i] = 'B'
		}
		if _, err := ParseInvitation(string(changed)); !errors.Is(err, ErrInvitation) {
			t.Errorf("position %d: got %v", i, err)
		}
		if _, err := ParseInvitation(code[:i]); !errors.Is(err, ErrInvitation) {
			t.Errorf("cut at %d: got %v", i, err)
		}
	}
}

func TestInvitationCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Invitation){
		"http":       func(i *Invitation) { i.URL = "http://enroll.example" },
		"path":       func(i *Invitation) { i.URL = "https://enroll.example/" },
		"query":      func(i *Invitation) { i.URL = "https://enroll.example?" },
		"user":       func(i *Invitation) { i.URL = "https://me@enroll.example" },
		"no host":    func(i *Invitation) { i.URL = "https://" },
		"long url":   func(i *Invitation) { i.URL = "https://" + strings.Repeat("a", 250) },
		"no kid":     func(i *Invitation) { i.KID = "" },
		"kid spaces": func(i *Invitation) { i.KID = "a b" },
		"short key":  func(i *Invitation) { i.Key = i.Key[:15] },
		"long key":   func(i *Invitation) { i.Key = make([]byte, 65) },
		"no address": func(i *Invitation) { i.Address = Address{} },
		"no expiry":  func(i *Invitation) { i.Expires = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			inv := testInvitation(t)
			if _, err := inv.Code(); err != nil {
				t.Fatalf("control: %v", err)
			}
			spoil(&inv)
			if code, err := inv.Code(); err == nil {
				t.Errorf("got %s", code)
			}
		})
	}
}

// What parses is written back as the same code.
func FuzzParseInvitation(f *testing.F) {
	inv := testInvitation(f)
	code, err := inv.Code()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(code)
	f.Add("valise1:")
	f.Add("valise1:AAAA")
	f.Fuzz(func(t *testing.T, code string) {
		got, err := ParseInvitation(code)
		if err != nil {
			return
		}
		again, err := got.Code()
		if err != nil || again != strings.TrimSpace(code) {
			t.Errorf("%q became %q, %v", code, again, err)
		}
	})
}

// spec/enrollment.md, Section 2.
func TestInvitationVectors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "spec", "vectors", "enrollment.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Invitations []struct {
			Code, URL, KID, Key, Root, Address string
			Expires                            int64
		}
		Refused []struct{ Code, Why string }
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Invitations) == 0 || len(vectors.Refused) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range vectors.Invitations {
		inv, err := ParseInvitation(v.Code)
		if err != nil {
			t.Errorf("%s: %v", v.Code, err)
			continue
		}
		if inv.URL != v.URL || inv.KID != v.KID || hex.EncodeToString(inv.Key) != v.Key || hex.EncodeToString(inv.Root[:]) != v.Root ||
			inv.Address.String() != v.Address || inv.Expires.Unix() != v.Expires {
			t.Errorf("%s: got %+v", v.Code, inv)
		}
		if code, err := inv.Code(); err != nil || code != v.Code {
			t.Errorf("written as %s, %v", code, err)
		}
	}
	for _, v := range vectors.Refused {
		if _, err := ParseInvitation(v.Code); !errors.Is(err, ErrInvitation) {
			t.Errorf("%s: got %v", v.Why, err)
		}
	}
}
