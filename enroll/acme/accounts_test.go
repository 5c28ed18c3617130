// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"valise/internal/store/authority"
)

// What a front remembers of an account gives nobody a right that another process has
// taken: neither a key that was changed nor an account that was closed there.
func TestRememberedAccounts(t *testing.T) {
	s, p, old := newPaper(t)
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := pathOrder + "/o"
	ask := func(key *ecdsa.PrivateKey) (int, Reason) {
		t.Helper()
		w := post(s, path, signedBody(t, key, path, []byte{}, false))
		var doc problem
		if w.Code != http.StatusOK {
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, doc.Reason
	}
	expect := func(when string, key *ecdsa.PrivateKey, want Reason) {
		t.Helper()
		before := p.asked
		code, reason := ask(key)
		if reason != want || (code == http.StatusOK) != (want == "") || (p.asked > before) != (want == "") {
			t.Errorf("%s: %d %q, want %q; the backend was asked %d times", when, code, reason, want, p.asked-before)
		}
	}
	expect("the account's key", old, "")
	expect("another key", next, BadSignature)

	jwk := jose.JSONWebKey{Key: next.Public()}
	if p.account.JWK, err = jwk.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	if p.account.Thumbprint, err = thumbprint(&jwk); err != nil {
		t.Fatal(err)
	}
	expect("the key before, which is remembered", old, BadSignature)
	expect("the new key", next, "")
	expect("the key before", old, BadSignature)
	expect("the new key, remembered", next, "")

	p.account.Status = authority.Deactivated
	expect("closed meanwhile", next, AccountDeactivated)
	expect("closed", next, AccountDeactivated)
	p.account.Status = authority.Valid
	expect("control", next, "")
}

// A new key is found although the one before is remembered.
func TestRememberedAccountsNewKeyFirst(t *testing.T) {
	s, p, old := newPaper(t)
	path := pathOrder + "/o"
	if w := post(s, path, signedBody(t, old, path, []byte{}, false)); w.Code != http.StatusOK {
		t.Fatalf("control: %s", w.Body)
	}
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: next.Public()}
	if p.account.JWK, err = jwk.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	if p.account.Thumbprint, err = thumbprint(&jwk); err != nil {
		t.Fatal(err)
	}
	if w := post(s, path, signedBody(t, next, path, []byte{}, false)); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
