// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

const origin = "interieur.example/valise"

// ledgerKey is the double of a token's key.
func ledgerKey(t testing.TB) (ed25519.PrivateKey, note.Verifier) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verifier(origin, pub)
	if err != nil {
		t.Fatal(err)
	}
	return key, v
}

func checkpoint(t testing.TB, key crypto.Signer, h Head) []byte {
	t.Helper()
	text, err := SignCheckpoint(t.Context(), origin, h, key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The note package of the Go checksum database reads what we sign, and we read
// what it signs (C2SP signed-note).
func TestCheckpointIsSignedNote(t *testing.T) {
	key, _ := ledgerKey(t)
	h := Head{N: 7, Hash: Empty.Hash}
	text := checkpoint(t, key, h)
	vkey := VerifierKey(origin, key.Public().(ed25519.PublicKey))
	theirs, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(text, note.VerifierList(theirs))
	if err != nil {
		t.Fatal(err)
	}
	if want := origin + "\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"; n.Text != want {
		t.Errorf("text %q, want %q", n.Text, want)
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	text, err = note.Sign(n, signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(text, verifier); err != nil || got != h {
		t.Errorf("theirs: %v, %v", got, err)
	}
}

func TestOpenCheckpointRefuses(t *testing.T) {
	key, v := ledgerKey(t)
	other, otherV := ledgerKey(t)
	h := Head{N: 300, Hash: Empty.Hash}
	honest := string(checkpoint(t, key, h))
	if got, err := OpenCheckpoint([]byte(honest), v); err != nil || got != h {
		t.Fatalf("honest checkpoint: %v, %v", got, err)
	}
	// With an old key's signature beside it, as when keys change.
	if got, err := OpenCheckpoint([]byte(honest), otherV, v); err != nil || got != h {
		t.Fatalf("honest checkpoint, two keys known: %v, %v", got, err)
	}
	elsewhere, err := Verifier("b.example/valise", key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := strings.Cut(honest, "\n\n")
	signed := func(text string) string {
		out, err := note.Sign(&note.Note{Text: text}, noteSigner{v, key})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for name, text := range map[string]string{
		"another size":     strings.Replace(honest, "\n300\n", "\n301\n", 1),
		"another key":      string(checkpoint(t, other, h)),
		"no signature":     body + "\n",
		"no signatures":    body + "\n\n",
		"cut short":        honest[:len(honest)-9],
		"leading zero":     signed(strings.Replace(body, "300", "0300", 1) + "\n"),
		"plus sign":        signed(strings.Replace(body, "300", "+300", 1) + "\n"),
		"negative":         signed(strings.Replace(body, "300", "-300", 1) + "\n"),
		"huge":             signed(strings.Replace(body, "300", "281474976710657", 1) + "\n"),
		"other base64":     signed(strings.Replace(body, "uFU=", "uFV=", 1) + "\n"),
		"short hash":       signed(strings.Replace(body, "G3hSuFU=", "G3hS", 1) + "\n"),
		"extension":        signed(body + "\nmore\n"),
		"a second text":    signed(body + "\n\nmore\n"),
		"a line too few":   signed(origin + "\n300\n"),
		"space in origin":  signed("a b" + strings.TrimPrefix(body, origin) + "\n"),
		"other log":        signed("b.example/valise" + strings.TrimPrefix(body, origin) + "\n"),
		"carriage returns": strings.ReplaceAll(honest, "\n", "\r\n"),
		"too long":         honest + strings.Repeat(honest[strings.Index(honest, "—"):], 100),
		"nothing":          "",
	} {
		if got, err := OpenCheckpoint([]byte(text), v); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: %v, %v, want ErrCheckpoint", name, got, err)
		}
	}
	// Whoever reads their own checkpoint is not told a tree in two ways either.
	for _, size := range []string{"0300", "+300", "-300", " 300", "300 "} {
		if _, h, err := ParseCheckpoint([]byte(strings.Replace(honest, "300", size, 1))); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("size %q: %v, %v, want ErrCheckpoint", size, h, err)
		}
	}
	if _, err := OpenCheckpoint([]byte(honest), elsewhere); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("a verifier of another log: %v", err)
	}
	if _, err := OpenCheckpoint([]byte(honest)); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("no verifier: %v", err)
	}
}

// A key that signs something else than it was given.
type liar struct{ ed25519.PrivateKey }

func (l liar) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	return l.PrivateKey.Sign(r, append([]byte("x"), msg...), o)
}

func TestSignCheckpointRefuses(t *testing.T) {
	key, _ := ledgerKey(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, f := range map[string]func() ([]byte, error){
		"an ECDSA key":        func() ([]byte, error) { return SignCheckpoint(t.Context(), origin, Empty, ec) },
		"a log without name":  func() ([]byte, error) { return SignCheckpoint(t.Context(), "", Empty, key) },
		"a name with a plus":  func() ([]byte, error) { return SignCheckpoint(t.Context(), "a+b", Empty, key) },
		"a negative size":     func() ([]byte, error) { return SignCheckpoint(t.Context(), origin, Head{N: -1}, key) },
		"a wrong signature":   func() ([]byte, error) { return SignCheckpoint(t.Context(), origin, Empty, liar{key}) },
		"a caller who is off": func() ([]byte, error) { return SignCheckpoint(gone, origin, Empty, key) },
	} {
		if text, err := f(); err == nil {
			t.Errorf("%s: signed %q", name, text)
		}
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	key, v := ledgerKey(f)
	text, err := SignCheckpoint(context.Background(), origin, Head{N: 3, Hash: Empty.Hash}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— a AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name, h, err := ParseCheckpoint(data)
		if err == nil && !strings.HasPrefix(string(data), checkpointText(name, h)+"\n") {
			t.Errorf("%q reads as %q %v", data, name, h)
		}
		// Nobody but the key makes a checkpoint that opens.
		if got, err := OpenCheckpoint(data, v); err == nil && got != (Head{N: 3, Hash: Empty.Hash}) {
			t.Errorf("%q opens as %v", data, got)
		}
	})
}
