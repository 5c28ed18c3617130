// SPDX-License-Identifier: Apache-2.0

package judges

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/enroll/ca"
	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
	"valise/internal/store/authority"
	"valise/internal/testenv"
)

// A registry says how the certificates of a test stand, as the record would.
type registry struct {
	mu   sync.Mutex
	list map[string]ca.CertificateStanding // guarded by mu
}

func (r *registry) set(serial *big.Int, c ca.CertificateStanding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Serial = serial.Bytes()
	r.list[string(c.Serial)] = c
}

func (r *registry) Standing(_ context.Context, serial []byte, _ time.Time) (ca.CertificateStanding, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.list[string(serial)]
	return c, ok, nil
}

func (r *registry) Listed(context.Context, time.Time) (all []ca.CertificateStanding, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.list {
		if c.Bad {
			all = append(all, c)
		}
	}
	return all, nil
}

// An office issues with keys in SoftHSM and answers about it over HTTP.
type office struct {
	registry
	issuing     *x509.Certificate
	key         hsm.Key
	url         string
	dir         string
	root, chain string // PEM files: the root; issuing certificate and root
	issuer      string

	shift atomic.Int64 // of the answers' clock
}

func newOffice(t *testing.T, token hsm.Token, algorithm hsm.Algorithm) *office {
	t.Helper()
	unique := rand.Text()
	generate := func(label string) hsm.Key {
		key, err := token.Generate(t.Context(), label+unique, hsm.GenerateOptions{Algorithm: algorithm})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	o := &office{dir: t.TempDir(), key: generate("issuing"), registry: registry{list: make(map[string]ca.CertificateStanding)}}
	root, issuing, err := ca.Found("interieur.example", generate("root"), o.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.issuing = issuing
	store, err := authority.Open(t.Context(), filepath.Join(o.dir, "authority.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	status, err := ca.NewStatus(ca.StatusConfig{
		Store: store, Issuer: issuing, Signer: o.key, Standings: o, Now: func() time.Time { return time.Now().Add(time.Duration(o.shift.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(status.Handler(http.NotFoundHandler()))
	t.Cleanup(server.Close)
	o.url = server.URL
	o.root, o.issuer = o.file(t, "root.pem", root.Raw), o.file(t, "issuing.pem", issuing.Raw)
	o.chain = o.file(t, "chain.pem", issuing.Raw, root.Raw)
	return o
}

func (o *office) file(t *testing.T, name string, certs ...[]byte) string {
	t.Helper()
	var text []byte
	for _, der := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return o.write(t, name, text)
}

func (o *office) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// device issues a device's certificate, as it is issued in earnest.
func (o *office) device(t *testing.T, name string) (*x509.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	address, err := identity.ParseAddress(name + "@interieur.example")
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		t.Fatal(err)
	}
	profile := identity.DeviceProfile{
		Address: address, PublicKey: key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: serial.SetBit(serial, 158, 1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	template, err := profile.Template()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, o.issuing, key.Public(), crypto.Signer(o.key))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, o.file(t, name+".pem", der)
}

func (o *office) get(t *testing.T, path string) []byte {
	t.Helper()
	res, err := http.Get(o.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, res.Status, err)
	}
	return body
}

// says runs a program to its end and gives all that it said.
func says(t *testing.T, program string, args ...string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s does not end\n%s", program, out)
	}
	return string(out), err == nil
}

// want complains unless every text was said, and none of those after "!".
func want(t *testing.T, who, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		unwanted, not := strings.CutPrefix(text, "!")
		if strings.Contains(out, unwanted) == not {
			t.Errorf("%s: want %q in\n%s", who, text, out)
		}
	}
}

// OpenSSL and GnuTLS on what we say about a certificate through its life: good,
// suspended, resumed, revoked; and about one that we have not issued.
func TestStatusJudges(t *testing.T) {
	openssl := testenv.Need(t, "openssl", "openssl")
	certtool := testenv.Need(t, "certtool", "gnutls-bin")
	ocsptool := testenv.Need(t, "ocsptool", "gnutls-bin")
	soft := testenv.SoftHSM(t)
	token, err := keys.OpenToken(t.Context(), soft.URI(), keys.PINFromFile(soft.PINFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = token.Close() })
	for _, algorithm := range []hsm.Algorithm{hsm.P256, hsm.P384} {
		t.Run(algorithm.String(), func(t *testing.T) {
			o := newOffice(t, token, algorithm)
			alice, aliceFile := o.device(t, "alice")
			bob, bobFile := o.device(t, "bob")
			stranger, strangerFile := o.device(t, "stranger")
			o.set(bob.SerialNumber, ca.CertificateStanding{})
			since := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
			number := 0
			for i, life := range []struct {
				name     string
				standing ca.CertificateStanding
				reason   string
				openssl  string
				gnutls   string
			}{
				{"good", ca.CertificateStanding{}, "", "good", "good"},
				{"suspended", ca.CertificateStanding{Bad: true, Since: since, Reason: 6}, "certificateHold", "revoked", "revoked"},
				{"resumed", ca.CertificateStanding{}, "", "good", "good"},
				{"revoked", ca.CertificateStanding{Bad: true, Since: since, Reason: 1}, "keyCompromise", "revoked", "revoked"},
			} {
				o.set(alice.SerialNumber, life.standing)
				o.shift.Store(int64(time.Duration(2*i) * time.Second)) // the list is looked at once a second
				judge := listJudge{t, o, openssl, certtool, life.name}
				number = judge.list(number, life.reason)
				judge.certificate(aliceFile, life.standing.Bad)
				judge.certificate(bobFile, false)

				out, _ := says(t, openssl, "ocsp", "-issuer", o.issuer, "-cert", aliceFile, "-url", o.url+"/ocsp", "-CAfile", o.root)
				want(t, life.name+", openssl ocsp", out, "Response verify OK", aliceFile+": "+life.openssl)
				if life.reason != "" {
					want(t, life.name+", openssl ocsp", out, "Reason: "+life.reason)
				}
				out, _ = says(t, ocsptool, "--ask="+o.url+"/ocsp", "--no-nonce", "--load-cert", aliceFile, "--load-issuer", o.issuer, "--load-trust", o.chain)
				want(t, life.name+", ocsptool", out, "Certificate Status: "+life.gnutls, "Verifying OCSP Response: Success.")
				judge.get(aliceFile, life.openssl)
			}
			out, _ := says(t, openssl, "ocsp", "-issuer", o.issuer, "-cert", strangerFile, "-url", o.url+"/ocsp", "-CAfile", o.root)
			want(t, "openssl ocsp, not issued", out, "Response verify OK", strangerFile+": unknown")
			out, _ = says(t, ocsptool, "--ask="+o.url+"/ocsp", "--no-nonce", "--load-cert", strangerFile, "--load-issuer", o.issuer, "--load-trust", o.chain)
			want(t, "ocsptool, not issued", out, "Certificate Status: unknown")
			if stranger.SerialNumber.Cmp(alice.SerialNumber) == 0 {
				t.Fatal("two certificates have one serial number")
			}
			// Both can say no: to an answer with one other bit in its signature, and to
			// another authority's.
			spoilt, err := os.ReadFile(filepath.Join(o.dir, "response.der"))
			if err != nil {
				t.Fatal(err)
			}
			spoilt[len(spoilt)-1] ^= 1
			out, _ = says(t, openssl, "ocsp", "-issuer", o.issuer, "-cert", aliceFile, "-respin", o.write(t, "spoilt.der", spoilt), "-CAfile", o.root)
			want(t, "openssl ocsp, spoilt", out, "Response Verify Failure", "!Response verify OK")
			other := newOffice(t, token, algorithm)
			out, _ = says(t, ocsptool, "--ask="+o.url+"/ocsp", "--no-nonce", "--load-cert", aliceFile, "--load-issuer", o.issuer, "--load-trust", other.chain)
			want(t, "ocsptool, another root", out, "!Verifying OCSP Response: Success.")
		})
	}
}

// A listJudge has the revocation list judged at one moment.
type listJudge struct {
	t                 *testing.T
	o                 *office
	openssl, certtool string
	when              string
}

// list fetches the list and has both programs read it; its number must be above the
// one before.
func (j *listJudge) list(before int, reason string) int {
	j.t.Helper()
	der := j.o.get(j.t, "/crl")
	path := j.o.write(j.t, "crl.der", der)
	j.o.write(j.t, "crl.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	out, _ := says(j.t, j.openssl, "crl", "-inform", "DER", "-in", path, "-CAfile", j.o.chain, "-noout", "-crlnumber", "-text")
	want(j.t, j.when+", openssl crl", out, "verify OK", "Version 2")
	out2, ok := says(j.t, j.certtool, "--verify-crl", "--load-ca-certificate", j.o.issuer, "--infile", filepath.Join(j.o.dir, "crl.pem"))
	if !ok {
		j.t.Errorf("%s, certtool --verify-crl:\n%s", j.when, out2)
	}
	want(j.t, j.when+", certtool --verify-crl", out2, "Verified", "!Not verified")
	words := map[string]string{"certificateHold": "Certificate Hold", "keyCompromise": "Key Compromise"}
	if reason == "" {
		want(j.t, j.when+", openssl crl", out, "No Revoked Certificates")
	} else {
		want(j.t, j.when+", openssl crl", out, words[reason])
	}
	info, _ := says(j.t, j.certtool, "--crl-info", "--inder", "--infile", path)
	var number int
	for line := range strings.Lines(out) {
		if text, found := strings.CutPrefix(strings.TrimSpace(line), "crlNumber=0x"); found {
			if _, err := fmt.Sscanf(text, "%x", &number); err != nil {
				j.t.Fatal(err)
			}
		}
	}
	if number <= before {
		j.t.Errorf("%s: number %d after %d\n%s", j.when, number, before, out)
	}
	want(j.t, j.when+", certtool --crl-info", info, fmt.Sprintf("CRL Number (not critical): %02x", number))
	return number
}

// certificate has both programs check a certificate against the list.
func (j *listJudge) certificate(file string, revoked bool) {
	j.t.Helper()
	crl := filepath.Join(j.o.dir, "crl.pem")
	out, ok := says(j.t, j.openssl, "verify", "-crl_check", "-CAfile", j.o.root, "-untrusted", j.o.issuer, "-CRLfile", crl, file)
	if ok == revoked || revoked != strings.Contains(out, "certificate revoked") {
		j.t.Errorf("%s, openssl verify -crl_check %s:\n%s", j.when, filepath.Base(file), out)
	}
	out, ok = says(j.t, j.certtool, "--verify", "--load-ca-certificate", j.o.chain, "--load-crl", crl, "--infile", file)
	if ok == revoked || revoked != strings.Contains(out, "revoked") {
		j.t.Errorf("%s, certtool --verify %s:\n%s", j.when, filepath.Base(file), out)
	}
}

// get has OpenSSL make a request and read an answer that came by GET.
func (j *listJudge) get(file, status string) {
	j.t.Helper()
	request := filepath.Join(j.o.dir, "request.der")
	if out, ok := says(j.t, j.openssl, "ocsp", "-issuer", j.o.issuer, "-cert", file, "-no_nonce", "-reqout", request); !ok {
		j.t.Fatal(out)
	}
	der, err := os.ReadFile(request)
	if err != nil {
		j.t.Fatal(err)
	}
	text := strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(der))
	response := j.o.write(j.t, "response.der", j.o.get(j.t, "/ocsp/"+text))
	out, _ := says(j.t, j.openssl, "ocsp", "-issuer", j.o.issuer, "-cert", file, "-respin", response, "-CAfile", j.o.root)
	want(j.t, j.when+", by GET", out, "Response verify OK", file+": "+status)
}
