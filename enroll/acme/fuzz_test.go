// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"valise/identity"
	"valise/internal/store/authority"
)

const base = "https://enroll.example"

// paper is a Backend that knows one account, takes every nonce and grants what is
// asked: what reaches it has passed the front. It counts what it was asked.
type paper struct {
	account authority.Account
	asked   int
}

func (p *paper) NewNonce() string                       { return "n" }
func (p *paper) CheckNonce(string) error                { return nil }
func (p *paper) UseNonce(context.Context, string) error { return nil }
func (p *paper) UseNonceOf(context.Context, string, int64) (authority.Account, error) {
	return p.account, nil
}

func (p *paper) UseNonceNow(context.Context, authority.Account) (authority.Account, error) {
	return p.account, nil
}

func (p *paper) order() (authority.Order, authority.Authorization) {
	p.asked++
	return authority.Order{ID: "o", Status: authority.Pending}, authority.Authorization{ID: "z", Status: authority.Pending}
}

func (p *paper) Register(_ context.Context, _ string, jwk []byte, b *Binding) (authority.Account, bool, error) {
	p.asked++
	if b != nil && b.Verify(bytes.Repeat([]byte{7}, 32)) != nil {
		return authority.Account{}, false, Refuse(InvitationKey, "wrong key")
	}
	return p.account, true, nil
}

func (p *paper) Account(_ context.Context, id int64) (authority.Account, error) {
	if id != p.account.ID {
		return authority.Account{}, Refuse(UnknownAccount, "none")
	}
	return p.account, nil
}
func (p *paper) Deactivate(context.Context, authority.Account) error { p.asked++; return nil }
func (p *paper) NewOrder(context.Context, authority.Account, identity.DeviceID) (authority.Order, authority.Authorization, error) {
	o, z := p.order()
	return o, z, nil
}

func (p *paper) Order(context.Context, authority.Account, string) (authority.Order, authority.Authorization, error) {
	o, z := p.order()
	return o, z, nil
}

func (p *paper) Orders(context.Context, authority.Account, int) ([]authority.Order, error) {
	p.asked++
	return nil, nil
}

func (p *paper) Authorization(context.Context, authority.Account, string) (authority.Order, authority.Authorization, error) {
	o, z := p.order()
	return o, z, nil
}

func (p *paper) Attest(context.Context, authority.Account, string, []byte) (authority.Authorization, error) {
	_, z := p.order()
	return z, nil
}

func (p *paper) Finalize(context.Context, authority.Account, string, []byte) (authority.Order, authority.Authorization, error) {
	o, z := p.order()
	return o, z, nil
}

func (p *paper) Certificate(context.Context, authority.Account, string) ([][]byte, error) {
	p.asked++
	return [][]byte{{1}}, nil
}

func (p *paper) ChangeKey(context.Context, authority.Account, string, []byte) (int64, error) {
	p.asked++
	return 0, nil
}

func (p *paper) RenewalInfo(context.Context, CertID) (Window, error) {
	p.asked++
	return Window{}, nil
}

func (p *paper) MayReplace(context.Context, authority.Account, identity.DeviceID, CertID) error {
	p.asked++
	return nil
}
func (p *paper) Replace(context.Context, string, CertID) error { p.asked++; return nil }

func (p *paper) Activate(context.Context, authority.Account, string, [][]byte, []byte) ([]byte, []byte, error) {
	p.asked++
	return []byte{1}, []byte{2}, nil
}

func newPaper(t testing.TB) (*Server, *paper, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := (&jose.JSONWebKey{Key: key.Public()}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := thumbprint(&jose.JSONWebKey{Key: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	p := &paper{account: authority.Account{ID: 1, JWK: jwk, Thumbprint: sum, Status: authority.Valid}}
	s, err := New(Config{BaseURL: base, Backend: p, Log: slog.New(slog.DiscardHandler), PerSecond: 1e9, Burst: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	return s, p, key
}

// signedBody makes an honest JWS for a path.
func signedBody(t testing.TB, key *ecdsa.PrivateKey, path string, payload []byte, jwk bool) []byte {
	t.Helper()
	opts := (&jose.SignerOptions{EmbedJWK: jwk}).WithHeader("url", base+path).WithHeader("nonce", "n")
	if !jwk {
		opts = opts.WithHeader("kid", base+pathAccount+"/1")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(jws.FullSerialize())
}

func post(s *Server, path string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, base+path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/jose+json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

var paths = []string{
	pathNewAccount, pathNewOrder, pathAccount + "/1", pathAccount + "/1/orders", pathOrder + "/o",
	pathOrder + "/o/finalize", pathAuthorization + "/z", pathChallenge + "/z", pathCertificate + "/o",
	pathKeyChange, pathRevoke, pathTPM,
}

// Whatever body arrives: an answer with a problem document, no panic, and nothing
// reaches the backend that the account's key did not sign for this path.
func FuzzBody(f *testing.F) {
	_, _, key := newPaper(f)
	for i, path := range paths {
		f.Add(i, signedBody(f, key, path, []byte("{}"), i == 0))
	}
	f.Add(0, []byte(`{"protected":"e30","payload":"","signature":""}`))
	f.Add(1, []byte(`{"protected":"eyJhbGciOiJub25lIn0","payload":"","signature":""}`))
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		s, p, _ := newPaper(t) // its key signed none of this
		path := paths[uint(i)%uint(len(paths))]
		w := post(s, path, body)
		if path != pathNewAccount && p.asked != 0 {
			t.Errorf("%s reached the backend unsigned: %s", path, body)
		}
		if w.Code < 400 && path != pathNewAccount {
			t.Errorf("%d for %s", w.Code, body)
		}
		if w.Code >= 400 {
			var doc problem
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.Reason == "" || !strings.HasPrefix(doc.Type, problemPrefix) {
				t.Errorf("%d without a problem document: %s", w.Code, w.Body)
			}
		}
	})
}

// Payloads that the account signed but that are hostile all the same.
func FuzzPayload(f *testing.F) {
	for i, seed := range []string{
		`{"externalAccountBinding":{"protected":"e30","payload":"e30","signature":""}}`,
		`{"identifiers":[{"type":"permanent-identifier","value":"` + strings.Repeat("0", 64) + `"}]}`,
		`{"status":"deactivated"}`, ``, `{}`, `{"csr":"AAAA"}`, ``, `{"attObj":"AAAA"}`, `[]`,
		`{"protected":"eyJhbGciOiJFUzI1NiJ9","payload":"e30","signature":""}`, `{"certificate":"AAAA","reason":1}`,
		`{"authorization":"` + base + pathAuthorization + `/z","x5c":["AAAA"],"ak":"AAAA"}`,
	} {
		f.Add(i, []byte(seed))
	}
	s, _, key := newPaper(f)
	jwk, err := (&jose.JSONWebKey{Key: key.Public()}).MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	s.cfg.Backend.(*paper).account.JWK = jwk
	f.Fuzz(func(t *testing.T, i int, payload []byte) {
		if payload == nil {
			payload = []byte{}
		}
		path := paths[uint(i)%uint(len(paths))]
		w := post(s, path, signedBody(t, key, path, payload, path == pathNewAccount))
		if w.Code >= 500 {
			t.Errorf("%d for %q", w.Code, payload)
		}
	})
}

func FuzzBinding(f *testing.F) {
	_, _, key := newPaper(f)
	account := &jose.JSONWebKey{Key: key.Public()}
	jwk, err := account.MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	opts := (&jose.SignerOptions{}).WithHeader("url", base+pathNewAccount).WithHeader("kid", "k")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: bytes.Repeat([]byte{7}, 32)}, opts)
	if err != nil {
		f.Fatal(err)
	}
	jws, err := signer.Sign(jwk)
	if err != nil {
		f.Fatal(err)
	}
	honest := []byte(jws.FullSerialize())
	if b, err := parseBinding(honest, base+pathNewAccount, account); err != nil || b.Verify(bytes.Repeat([]byte{7}, 32)) != nil {
		f.Fatalf("control: %v", err)
	}
	f.Add(honest)
	f.Add([]byte(`{"protected":"e30","payload":"e30","signature":"AA"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBinding(raw, base+pathNewAccount, account)
		if err != nil {
			return
		}
		if b.Verify(bytes.Repeat([]byte{8}, 32)) == nil {
			t.Error("verified with another key")
		}
	})
}

func TestBindingNeeds128Bits(t *testing.T) {
	_, _, key := newPaper(t)
	account := &jose.JSONWebKey{Key: key.Public()}
	jwk, err := account.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 15, 32} {
		mac := bytes.Repeat([]byte{7}, n)
		b := &Binding{KID: "k"}
		if n == 32 {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: mac}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b.jws, err = signer.Sign(jwk); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Verify(mac); (err == nil) != (n == 32) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestNewChecksBaseURL(t *testing.T) {
	for _, bad := range []string{"", "http://x.example", "https://", "https://x.example/", "https://x.example/acme", "https://x.example?", "https://u@x.example"} {
		if _, err := New(Config{BaseURL: bad, Backend: new(paper), Log: slog.New(slog.DiscardHandler)}); err == nil && bad != "https://x.example?" {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := New(Config{BaseURL: base, Backend: new(paper), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("control: %v", err)
	}
}

// RFC 7638, Section 3: the required members of an EC key, in order, hashed.
func TestThumbprint(t *testing.T) {
	_, _, key := newPaper(t)
	jwk := &jose.JSONWebKey{Key: key.Public()}
	got, err := thumbprint(jwk)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	h := crypto.SHA256.New()
	h.Write([]byte(`{"crv":"P-256","kty":"EC","x":"` + enc(raw[1:33]) + `","y":"` + enc(raw[33:]) + `"}`))
	if got != enc(h.Sum(nil)) {
		t.Errorf("got %s", got)
	}
}
