// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package keys

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/hsm"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

func signs(t *testing.T, key hsm.Key) {
	t.Helper()
	digest := sha256.Sum256([]byte("bag"))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature) {
		t.Fatal("the signature does not verify")
	}
}

func never(context.Context, hsm.PINRequest) (string, error) {
	return "", errors.New("asked, although the URI names a file")
}

func TestOpenPIV(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte(card.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	base := fmt.Sprintf("serial=%d&pin-source=%s", card.Serial, pin)
	token, err := OpenToken(ctx, "piv:?"+base, never)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Generate(ctx, "9d", hsm.GenerateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := token.(hsm.CertificateStore); !ok {
		t.Error("a PIV token stores no certificates")
	}
	token.Close()

	key, err := OpenKey(ctx, "piv:9d?"+base, never)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, key)
	if _, ok := key.(ecdh.KeyExchanger); !ok {
		t.Error("the key cannot agree")
	}
	if evidence, err := key.Evidence(ctx); err != nil || len(evidence.Chain) != 2 {
		t.Errorf("evidence: %v", err)
	}
	if err := key.Close(); err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]error{
		"piv:9d?" + base:                    nil, // the card is free again
		"piv:9a?" + base:                    hsm.ErrNoKey,
		"piv:?" + base:                      ErrURI,
		"piv:9d?serial=1&pin-source=" + pin: hsm.ErrNoCard,
	} {
		key, err := OpenKey(ctx, uri, never)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", uri, err, want)
		}
		if err == nil {
			key.Close()
		} else if hsm.Hint(err) == "" {
			t.Errorf("%v has no hint", err)
		}
	}
}

func TestOpenPKCS11(t *testing.T) {
	soft := testenv.SoftHSM(t)
	ctx := t.Context()
	source := "&pin-source=" + soft.PINFile
	token, err := OpenToken(ctx, soft.URI()+source, never)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Generate(ctx, "issuing ca", hsm.GenerateOptions{Algorithm: hsm.P256, Agree: true}); err != nil {
		t.Fatal(err)
	}
	token.Close()

	key, err := OpenKey(ctx, soft.URI("object=issuing%20ca")+source, never)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, key)
	if _, ok := key.(ecdh.KeyExchanger); !ok {
		t.Error("the key cannot agree")
	}
	key.Close()

	wrong := func(context.Context, hsm.PINRequest) (string, error) { return "739154", nil }
	module := "?module-path=" + soft.Module
	var pin *hsm.PINError
	for uri, fits := range map[string]func(error) bool{
		soft.URI("object=other"):           func(err error) bool { return errors.As(err, &pin) },
		soft.URI("object=other") + source:  func(err error) bool { return errors.Is(err, hsm.ErrNoKey) },
		soft.URI("id=%01") + source:        func(err error) bool { return errors.Is(err, hsm.ErrNoKey) },
		"pkcs11:token=x;object=k" + module: func(err error) bool { return errors.Is(err, hsm.ErrNoToken) },
		"pkcs11:object=k" + module:         func(err error) bool { return errors.Is(err, hsm.ErrEmptyLabel) },
		"pkcs11:token=x;object=k":          func(err error) bool { return errors.Is(err, hsm.ErrNoModule) },
		soft.URI():                         func(err error) bool { return errors.Is(err, ErrURI) },
	} {
		_, err := OpenKey(ctx, uri, wrong)
		if err == nil || !fits(err) || hsm.Hint(err) == "" {
			t.Errorf("%s: %v", uri, err)
		}
		if err != nil && strings.Contains(err.Error(), "739154") {
			t.Errorf("the message repeats the PIN: %v", err)
		}
	}
}
