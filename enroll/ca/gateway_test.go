// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/testenv"
)

func TestIssueGateway(t *testing.T) {
	o := newOffice(t, elliptic.P384())
	key := newFakeKey(t, elliptic.P256())
	csr := enrolltest.CSR(t, key.PrivateKey)
	names := []string{"gateway.interieur.example", "192.0.2.7"}
	i, err := o.ca.IssueGateway(t.Context(), csr, names)
	if err != nil {
		t.Fatal(err)
	}
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{o.ca.Root()}})
	chain := append([][]byte{i.Certificate}, o.ca.Chain()...)
	for _, name := range names {
		if _, err := trust.Gateway(chain, name, o.now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := trust.Device(chain, o.now); err == nil {
		t.Error("a gateway's certificate passes for a device's")
	}
	if o.leaves(t) != 1 {
		t.Errorf("%d leaves", o.leaves(t))
	}
	for _, bad := range [][]string{nil, {"Gateway.example"}, {"a_b"}} {
		if _, err := o.ca.IssueGateway(t.Context(), csr, bad); err == nil {
			t.Errorf("names %q were accepted", bad)
		}
	}
	if _, err := o.ca.IssueGateway(t.Context(), append(csr, 0), names); err == nil {
		t.Error("a CSR with something behind it was accepted")
	}

	// A crash before the signature: the same request gets the same certificate.
	o.ca.interrupt = func(at string) error {
		if at == "recorded" {
			return errors.New("crash")
		}
		return nil
	}
	csr = enrolltest.CSR(t, newFakeKey(t, elliptic.P256()).PrivateKey)
	left, err := o.ca.IssueGateway(t.Context(), csr, names)
	if err == nil || o.leaves(t) != 2 {
		t.Fatalf("%v, %d leaves", err, o.leaves(t))
	}
	after, err := o.open(t).IssueGateway(t.Context(), csr, names)
	if err != nil || after.Ref != left.Ref || o.leaves(t) != 2 {
		t.Errorf("%v: %s after %s, %d leaves", err, after.Ref, left.Ref, o.leaves(t))
	}
}

func TestIssueServerIsReused(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	key := newFakeKey(t, elliptic.P256())
	names := []string{"enroll.interieur.example"}
	first, err := o.ca.IssueServer(t.Context(), key.Public(), names)
	if err != nil {
		t.Fatal(err)
	}
	second, err := o.ca.IssueServer(t.Context(), key.Public(), names)
	if err != nil || second.Ref != first.Ref {
		t.Errorf("a second start made a second certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(first.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(o.ca.Root())
	between.AddCert(o.chain[0])
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, DNSName: names[0]}); err != nil {
		t.Error(err)
	}
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{o.ca.Root()}})
	if _, err := trust.Gateway(append([][]byte{first.Certificate}, o.ca.Chain()...), names[0], o.now); err == nil {
		t.Error("the enrollment server's certificate passes for a gateway's")
	}
	o.now = o.now.Add(61 * day)
	third, err := o.ca.IssueServer(t.Context(), key.Public(), names)
	if err != nil || third.Ref == first.Ref {
		t.Errorf("not renewed at two thirds: %v", err)
	}
}

// A template that breaks a rule of RFC 5280 is stopped before anything is recorded,
// and the HSM's key is not needed to find out.
func TestLintStopsBeforeTheLedger(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	profile := identity.DeviceProfile{
		Address: o.alice, PublicKey: o.card.Key.Public(), Tier: identity.TierHardware,
		EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2}, Serial: newSerial(),
	}
	profile.NotBefore, profile.NotAfter = o.ca.validity(day)
	template, err := profile.Template()
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := o.ca.issuer.build(template)
	if err != nil {
		t.Fatalf("control: %v", err)
	}
	if o.key.signed.Load() != 0 {
		t.Error("the HSM's key was used for linting")
	}
	if len(tbs) == 0 {
		t.Error("no TBSCertificate")
	}
	template.EmailAddresses = []string{"alice@interieur.example "} // RFC 5280, Section 4.2.1.6
	template.IsCA, template.KeyUsage = true, x509.KeyUsageDigitalSignature
	template.MaxPathLen = 3
	var lint *LintError
	if _, err := o.ca.issuer.build(template); !errors.As(err, &lint) {
		t.Errorf("got %v", err)
	}
}

func TestNewChecksTheChain(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	other := newOffice(t, elliptic.P256())
	for name, spoil := range map[string]func(*Config){
		"another key":    func(c *Config) { c.Signer = other.key },
		"another root":   func(c *Config) { c.Chain = []*x509.Certificate{o.chain[0], other.chain[1]} },
		"root only":      func(c *Config) { c.Chain = o.chain[1:] },
		"expired":        func(c *Config) { c.Now = func() time.Time { return o.now.Add(21 * 365 * day) } },
		"bad policy":     func(c *Config) { c.Appraiser = &Appraiser{Policy: &attest.AppraisalPolicy{MinFirmware: "x"}} },
		"wrong way up":   func(c *Config) { c.Chain = []*x509.Certificate{o.chain[1], o.chain[0]} },
		"no self-signed": func(c *Config) { c.Chain = []*x509.Certificate{o.chain[0], o.chain[0]} },
		"no founding":    func(c *Config) { c.Book = o.ca.cfg.Book },
	} {
		cfg := o.ca.cfg
		cfg.Book = nil
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	cfg := o.ca.cfg
	cfg.Book = nil
	if _, err := New(cfg); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestCheckCSR(t *testing.T) {
	key := newFakeKey(t, elliptic.P256())
	good := enrolltest.CSR(t, key.PrivateKey)
	if _, err := CheckCSR(good); err != nil {
		t.Fatalf("control: %v", err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"empty": nil, "cut": good[:20], "signature": bad, "longer": append(bytes.Clone(good), 0), "curve": enrolltest.CSR(t, p521),
	} {
		if _, err := CheckCSR(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// OpenSSL, which shares no code with us, agrees about the chain.
func TestOpenSSLVerifies(t *testing.T) {
	openssl := testenv.Need(t, "openssl", "openssl")
	o := newOffice(t, elliptic.P384())
	o.order(t, "a")
	i, err := o.ca.IssueDevice(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	leaf, issuer, root := write("leaf", i.Certificate), write("issuer", o.chain[0].Raw), write("root", o.chain[1].Raw)
	out, err := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, "-untrusted", issuer, leaf).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	other := newOffice(t, elliptic.P384())
	foreign := write("foreign", other.chain[1].Raw)
	if out, err := exec.Command(openssl, "verify", "-CAfile", foreign, "-untrusted", issuer, leaf).CombinedOutput(); err == nil {
		t.Errorf("verified under another root:\n%s", out)
	}
}

// What algorithmOf and assemble take is stored by us, but a damaged row must be an
// error and not a panic.
func FuzzAssemble(f *testing.F) {
	o := newOffice(f, elliptic.P256())
	f.Add(o.chain[0].RawTBSCertificate, o.chain[0].Signature)
	f.Add([]byte{0x30, 0}, []byte{})
	f.Fuzz(func(t *testing.T, tbs, signature []byte) {
		der, err := assemble(tbs, signature)
		if err != nil {
			return
		}
		if cert, err := x509.ParseCertificate(der); err == nil && !bytes.Equal(cert.RawTBSCertificate, tbs) {
			t.Error("another TBSCertificate came out")
		}
	})
}

func TestSerialNumbers(t *testing.T) {
	seen := make(map[[32]byte]bool)
	for range 100 {
		n := newSerial()
		if n.Sign() <= 0 || n.BitLen() != 159 {
			t.Fatalf("%x has %d bits", n, n.BitLen())
		}
		seen[sha256.Sum256(n.Bytes())] = true
	}
	if len(seen) != 100 {
		t.Error("a serial number came twice")
	}
}
