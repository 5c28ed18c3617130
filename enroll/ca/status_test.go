// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"valise/enroll/ca"
	"valise/hsm"
	"valise/internal/store/authority"
)

// table is Standings with whatever a test wants.
type table map[string]ca.CertificateStanding

func (l table) Standing(_ context.Context, serial []byte, _ time.Time) (ca.CertificateStanding, bool, error) {
	c, ok := l[string(serial)]
	return c, ok, nil
}

func (l table) Listed(context.Context, time.Time) (all []ca.CertificateStanding, err error) {
	for serial, c := range l {
		if c.Bad {
			c.Serial = []byte(serial)
			all = append(all, c)
		}
	}
	return all, nil
}

// desk is a Status with a key that can be away and a clock that tests move.
type desk struct {
	*ca.Status
	cfg    ca.StatusConfig
	list   table
	issuer *x509.Certificate
	path   string
	away   bool
	signed int
	lies   bool // it signs something else than it was asked to
	now    time.Time
	t      *testing.T
}

type deskKey struct {
	crypto.Signer
	d *desk
}

func (k deskKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.d.away {
		return nil, hsm.ErrDevice
	}
	k.d.signed++
	if k.d.lies {
		digest = make([]byte, len(digest))
	}
	return k.Signer.Sign(r, digest, opts)
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	d := &desk{list: make(table), path: filepath.Join(t.TempDir(), "authority.db"), now: time.Now(), t: t}
	_, issuer, err := ca.Found("interieur.example", keys[0], keys[1], d.now)
	if err != nil {
		t.Fatal(err)
	}
	d.issuer = issuer
	d.cfg = ca.StatusConfig{Issuer: issuer, Signer: deskKey{keys[1], d}, Standings: d.list, Now: func() time.Time { return d.now }}
	d.restart()
	return d
}

// restart is another process on the same database.
func (d *desk) restart() {
	d.t.Helper()
	store, err := authority.Open(d.t.Context(), d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = store.Close() })
	d.cfg.Store = store
	if d.Status, err = ca.NewStatus(d.cfg); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) set(serial byte, bad bool, reason int) {
	d.list[string([]byte{serial})] = ca.CertificateStanding{Serial: []byte{serial}, Bad: bad, Since: d.now.Add(-time.Minute).UTC().Truncate(time.Second), Reason: reason}
	d.now = d.now.Add(time.Second) // the list is looked at once a second
}

func (d *desk) crl() *x509.RevocationList {
	d.t.Helper()
	list, err := d.CRL(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	parsed, err := x509.ParseRevocationList(list.DER)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := parsed.CheckSignatureFrom(d.issuer); err != nil {
		d.t.Fatal(err)
	}
	if parsed.Number.Int64() != list.Number || !parsed.NextUpdate.Equal(list.Until) {
		d.t.Errorf("list %d until %s says %s until %s", list.Number, list.Until, parsed.Number, parsed.NextUpdate)
	}
	return parsed
}

func TestCRL(t *testing.T) { // RFC 5280, Section 5
	d := newDesk(t)
	d.set(1, false, 0)
	first := d.crl()
	if len(first.RevokedCertificateEntries) != 0 || first.ThisUpdate.After(d.now) {
		t.Errorf("%+v", first)
	}
	d.set(1, true, 6)
	held := d.crl()
	if held.Number.Cmp(first.Number) <= 0 || len(held.RevokedCertificateEntries) != 1 || held.RevokedCertificateEntries[0].ReasonCode != 6 ||
		held.RevokedCertificateEntries[0].SerialNumber.Int64() != 1 {
		t.Errorf("held: %+v", held)
	}
	if again := d.crl(); !bytes.Equal(again.Raw, held.Raw) {
		t.Error("the same list was signed twice")
	}
	d.set(1, false, 0)
	resumed := d.crl()
	if resumed.Number.Cmp(held.Number) <= 0 || len(resumed.RevokedCertificateEntries) != 0 {
		t.Errorf("resumed: %+v", resumed)
	}
	// Half of its life later it is signed anew; a restart goes on with the numbers.
	d.now = d.now.Add(3*time.Hour + time.Minute)
	renewed := d.crl()
	if renewed.Number.Cmp(resumed.Number) <= 0 {
		t.Errorf("after half its life it still has number %s", renewed.Number)
	}
	d.restart()
	if after := d.crl(); !bytes.Equal(after.Raw, renewed.Raw) {
		t.Error("a restart forgot the list")
	}
	d.set(1, true, 1)
	if after := d.crl(); after.Number.Cmp(renewed.Number) <= 0 || after.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("%+v", after)
	}
}

// Numbers increase although the token failed, and although another process signed.
func TestCRLNumbers(t *testing.T) { // RFC 5280, Section 5.2.3
	d := newDesk(t)
	first := d.crl()
	other := *d
	other.restart()
	d.set(1, true, 1)
	d.away = true
	if same := d.crl(); !bytes.Equal(same.Raw, first.Raw) {
		t.Error("without the token there was another list")
	}
	d.away = false
	d.now = d.now.Add(3 * time.Second)
	second := d.crl()
	if second.Number.Int64() < first.Number.Int64()+2 {
		t.Errorf("number %s, want it above the one that was reserved", second.Number)
	}
	other.now = d.now
	other.cfg.Standings = d.list
	if third := other.crl(); !bytes.Equal(third.Raw, second.Raw) {
		t.Error("another process did not find the list that is there")
	}
}

func TestCRLWithoutToken(t *testing.T) {
	d := newDesk(t)
	first := d.crl()
	d.away = true
	d.now = d.now.Add(5 * time.Hour)
	d.restart() // nothing in memory
	if later := d.crl(); !bytes.Equal(later.Raw, first.Raw) {
		t.Error("the valid list was not given out")
	}
	d.now = d.now.Add(2 * time.Hour)
	var signing *ca.SigningError
	if _, err := d.CRL(t.Context()); !errors.As(err, &signing) {
		t.Errorf("an expired list: %v", err)
	}
	w := httptest.NewRecorder()
	d.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/crl", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	d.away = false
	d.now = d.now.Add(3 * time.Second)
	if fresh := d.crl(); fresh.Number.Cmp(first.Number) <= 0 {
		t.Errorf("number %s", fresh.Number)
	}
}

// A token that signs something else than it was asked to gets nothing published.
func TestStatusChecksToken(t *testing.T) {
	d := newDesk(t)
	d.set(1, false, 0)
	d.lies = true
	var signing *ca.SigningError
	if _, err := d.CRL(t.Context()); !errors.As(err, &signing) {
		t.Errorf("a wrong list: %v", err)
	}
	d.now = d.now.Add(3 * time.Second)
	if got, _ := d.OCSP(t.Context(), d.request(1, crypto.SHA1)); !bytes.Equal(got, ocsp.TryLaterErrorResponse) {
		t.Errorf("a wrong response: %x", got)
	}
	d.lies = false
	d.now = d.now.Add(3 * time.Second)
	d.crl()
	d.expect(1, ocsp.Good, 0)
}

// request is what other people's code makes.
func (d *desk) request(serial byte, hash crypto.Hash) []byte {
	d.t.Helper()
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: big.NewInt(int64(serial))}, d.issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		d.t.Fatal(err)
	}
	return der
}

func (d *desk) expect(serial byte, status, reason int) *ocsp.Response {
	d.t.Helper()
	der, until := d.OCSP(d.t.Context(), d.request(serial, crypto.SHA256))
	r, err := ocsp.ParseResponseForCert(der, &x509.Certificate{SerialNumber: big.NewInt(int64(serial))}, d.issuer)
	if err != nil {
		d.t.Fatalf("%v: %x", err, der)
	}
	if r.Status != status || r.RevocationReason != reason || !r.NextUpdate.Equal(until) || r.IssuerHash != crypto.SHA256 {
		d.t.Errorf("status %d reason %d until %s, want %d %d %s", r.Status, r.RevocationReason, r.NextUpdate, status, reason, until)
	}
	return r
}

func TestOCSP(t *testing.T) { // RFC 6960
	d := newDesk(t)
	d.set(1, false, 0)
	good := d.expect(1, ocsp.Good, 0)
	if again := d.expect(1, ocsp.Good, 0); !bytes.Equal(again.Raw, good.Raw) {
		t.Error("the same response was signed twice")
	}
	d.set(1, true, 6)
	d.expect(1, ocsp.Revoked, ocsp.CertificateHold)
	d.set(1, false, 0)
	d.expect(1, ocsp.Good, 0)
	d.set(1, true, 1)
	d.expect(1, ocsp.Revoked, ocsp.KeyCompromise)
	d.expect(2, ocsp.Unknown, 0)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA384, crypto.SHA512} {
		der, _ := d.OCSP(t.Context(), d.request(1, hash))
		if r, err := ocsp.ParseResponse(der, d.issuer); err != nil || r.IssuerHash != hash {
			t.Errorf("%v: %v", hash, err)
		}
	}
}

// While the token is away: what is true and valid is given out, what is known to be
// wrong is not.
func TestOCSPWithoutToken(t *testing.T) {
	d := newDesk(t)
	d.set(1, false, 0)
	good := d.expect(1, ocsp.Good, 0)
	d.away = true
	d.now = d.now.Add(50 * time.Minute)
	d.restart() // nothing in memory
	if later := d.expect(1, ocsp.Good, 0); !bytes.Equal(later.Raw, good.Raw) {
		t.Error("the valid response was not given out")
	}
	later := func(why string) {
		t.Helper()
		if der, until := d.OCSP(t.Context(), d.request(1, crypto.SHA256)); !bytes.Equal(der, ocsp.TryLaterErrorResponse) || !until.IsZero() {
			t.Errorf("%s: %x", why, der)
		}
	}
	d.set(1, true, 6)
	later("suspended meanwhile")
	d.list["\x01"] = ca.CertificateStanding{Serial: []byte{1}}
	d.now = d.now.Add(3 * time.Second)
	d.expect(1, ocsp.Good, 0)
	d.now = d.now.Add(time.Hour)
	later("the response has ended")
	d.away = false
	d.now = d.now.Add(3 * time.Second)
	d.expect(1, ocsp.Good, 0)
}

// A row in the database is not an answer.
func TestOCSPForgedRow(t *testing.T) {
	d := newDesk(t)
	stranger := newDesk(t)
	d.set(1, true, 1)
	revoked := d.expect(1, ocsp.Revoked, 1)
	d.set(1, false, 0)
	d.expect(1, ocsp.Good, 0)
	// The stranger's key says good, and so does what is known.
	stranger.set(1, false, 0)
	stranger.expect(1, ocsp.Good, 0)
	var id, state, der []byte
	err := stranger.cfg.Store.View(t.Context(), func(tx *authority.Tx) error {
		id = []byte("5:01")
		r, err := tx.OCSP(id)
		state, der = r.State, r.DER
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	d.set(1, true, 1)
	err = d.cfg.Store.Update(t.Context(), func(tx *authority.Tx) error {
		return tx.PutOCSP(authority.StoredOCSP{ID: id, State: state, Until: d.now.Add(time.Hour), DER: der}, d.now)
	})
	if err != nil {
		t.Fatal(err)
	}
	d.set(1, false, 0)
	d.restart()
	got, _ := d.OCSP(t.Context(), d.request(1, crypto.SHA256))
	if r, err := ocsp.ParseResponse(got, d.issuer); err != nil || bytes.Equal(got, der) || bytes.Equal(got, revoked.Raw) {
		t.Errorf("%+v, %v", r, err)
	}
}

// edited puts a request together by hand.
func (d *desk) edited(change func(b *cryptobyte.Builder)) []byte {
	d.t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1(tag.SEQUENCE, change) })
	der, err := b.Bytes()
	if err != nil {
		d.t.Fatal(err)
	}
	return der
}

func TestOCSPRefusals(t *testing.T) {
	d := newDesk(t)
	stranger := newDesk(t)
	d.set(1, false, 0)
	honest := d.request(1, crypto.SHA1)
	var outer, tbs, list cryptobyte.String
	s := cryptobyte.String(honest)
	if !s.ReadASN1(&outer, tag.SEQUENCE) || !outer.ReadASN1(&tbs, tag.SEQUENCE) || !tbs.ReadASN1(&list, tag.SEQUENCE) {
		t.Fatal("the honest request cannot be taken apart")
	}
	requests := func(n int) func(*cryptobyte.Builder) {
		return func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				for range n {
					b.AddBytes(list)
				}
			})
		}
	}
	nonce := func(b *cryptobyte.Builder) { // RFC 8954
		requests(1)(b)
		b.AddASN1(tag.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2})
					b.AddASN1OctetString([]byte("\x04\x10sixteen bytes ok"))
				})
			})
		})
	}
	for name, c := range map[string]struct{ request, want []byte }{
		"control":         {d.edited(requests(1)), nil},
		"with a nonce":    {d.edited(nonce), nil},
		"two requests":    {d.edited(requests(2)), ocsp.MalformedRequestErrorResponse},
		"none":            {d.edited(requests(0)), ocsp.MalformedRequestErrorResponse},
		"nothing":         {nil, ocsp.MalformedRequestErrorResponse},
		"more behind it":  {append(bytes.Clone(honest), 0), ocsp.MalformedRequestErrorResponse},
		"cut":             {honest[:len(honest)-1], ocsp.MalformedRequestErrorResponse},
		"large":           {append(bytes.Clone(honest), make([]byte, 4096)...), ocsp.MalformedRequestErrorResponse},
		"MD5":             {bytes.Replace(honest, []byte{0x2b, 0x0e, 3, 2, 0x1a}, []byte{0x2b, 0x0e, 3, 2, 0x1b}, 1), ocsp.MalformedRequestErrorResponse},
		"negative serial": {bytes.Replace(honest, []byte{2, 1, 1}, []byte{2, 1, 0x81}, 1), ocsp.MalformedRequestErrorResponse},
		"another issuer":  {stranger.request(1, crypto.SHA1), ocsp.UnauthorizedErrorResponse},
	} {
		got, _ := d.OCSP(t.Context(), c.request)
		if c.want != nil && !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x", name, got)
		}
		if c.want == nil {
			if r, err := ocsp.ParseResponse(got, d.issuer); err != nil || r.Status != ocsp.Good {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A flood of questions about what does not exist costs few signatures, and none of
// those that others need.
func TestOCSPFlood(t *testing.T) {
	d := newDesk(t)
	d.set(200, false, 0)
	d.cfg.SignPerSecond, d.cfg.SignBurst = 1, 20
	d.restart()
	later := 0
	for serial := byte(1); serial < 100; serial++ {
		if der, _ := d.OCSP(t.Context(), d.request(serial, crypto.SHA256)); bytes.Equal(der, ocsp.TryLaterErrorResponse) {
			later++
		}
	}
	if d.signed > 5 || later < 90 {
		t.Errorf("%d signatures, %d told to come later", d.signed, later)
	}
	d.expect(200, ocsp.Good, 0)
}

func TestStatusHTTP(t *testing.T) { // RFC 6960, Appendix A; RFC 5019, Section 5
	d := newDesk(t)
	d.set(1, false, 0)
	h := d.Handler(http.NotFoundHandler())
	ask := func(method, target, kind string, body []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, bytes.NewReader(body))
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	request := d.request(1, crypto.SHA1)
	text := base64.StdEncoding.EncodeToString(request)
	escaped := strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(text)
	for name, w := range map[string]*httptest.ResponseRecorder{
		"POST":         ask("POST", "/ocsp", "application/ocsp-request", request),
		"GET escaped":  ask("GET", "/ocsp/"+escaped, "", nil),
		"GET as it is": ask("GET", "/ocsp/"+text, "", nil),
	} {
		if _, err := ocsp.ParseResponse(w.Body.Bytes(), d.issuer); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/ocsp-response" ||
			!strings.Contains(w.Header().Get("Cache-Control"), "max-age=60") {
			t.Errorf("%s: %d %v %v", name, w.Code, w.Header(), err)
		}
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"GET junk":  ask("GET", "/ocsp/!!!", "", nil),
		"GET empty": ask("GET", "/ocsp", "", nil),
		"GET large": ask("GET", "/ocsp/"+strings.Repeat("AAAA", 2000), "", nil),
		"large":     ask("POST", "/ocsp", "application/ocsp-request", make([]byte, 1<<20)),
		"junk":      ask("POST", "/ocsp", "application/ocsp-request", []byte("junk")),
	} {
		if !bytes.Equal(w.Body.Bytes(), ocsp.MalformedRequestErrorResponse) || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %x", name, w.Code, w.Body)
		}
	}
	if w := ask("POST", "/ocsp", "text/plain", request); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: %d", w.Code)
	}
	if w := ask("PUT", "/ocsp", "application/ocsp-request", request); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", w.Code)
	}
	if w := ask("POST", "/crl", "", nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST of a list: %d", w.Code)
	}
	w := ask("GET", "/crl", "", nil)
	if _, err := x509.ParseRevocationList(w.Body.Bytes()); err != nil || w.Header().Get("Content-Type") != "application/pkix-crl" || w.Header().Get("ETag") == "" {
		t.Errorf("%d %v %v", w.Code, w.Header(), err)
	}
	if head := ask("HEAD", "/crl", "", nil); head.Body.Len() != 0 || head.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
		t.Errorf("HEAD: %v", head.Header())
	}
	if other := ask("GET", "/crl/x", "", nil); other.Code != http.StatusNotFound {
		t.Errorf("another path: %d", other.Code)
	}
}
