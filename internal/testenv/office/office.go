// SPDX-License-Identifier: Apache-2.0

// Package office is a small authority in memory for tests of the officers'
// side: a root and an issuing key, certificates for officers' cards, and a
// backend of the desk that verifies and counts what it is handed.
//
//	o := office.New(t)
//	chain := o.Appoint(t, "olga", identity.RoleOfficer, card.Public())
//	url := o.Serve(t)                       // the real desk, over real TLS
//	id := o.Order(t, "alice")               // somebody wants a certificate
//
// It knows nothing of the ledger's proofs, of bulletins and of issuing: never
// take a passing test here for one of package enroll.
package office

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// Domain is the office's.
const Domain = "interieur.example"

// An Office is an authority and the desk's backend.
type Office struct {
	Root     *x509.Certificate
	RootHash [32]byte
	Trust    *identity.Trust
	Now      func() time.Time

	issuer    *x509.Certificate
	issuerKey *ecdsa.PrivateKey

	mu        sync.Mutex // guards all below
	serial    int64
	nonces    map[string]bool // true: used
	officers  map[identity.DeviceID]*call.Officer
	requests  map[string]*call.Request
	order     []string
	people    map[identity.Address]*call.Person
	standings []call.Standing
	proposals []*proposal
	bundle    *statement.Bundle // in force; nil: none
	gateways  []call.Gateway
	leaves    []ledger.Item
	seen      map[string]call.Outcome
	events    []string
}

// New founds an authority without officers.
func New(t testing.TB) *Office {
	t.Helper()
	o := &Office{
		Now: time.Now, issuerKey: newKey(t), nonces: map[string]bool{}, officers: map[identity.DeviceID]*call.Officer{},
		requests: map[string]*call.Request{}, people: map[identity.Address]*call.Person{}, seen: map[string]call.Outcome{},
	}
	rootKey, now := newKey(t), time.Now()
	profile := func(key *ecdsa.PrivateKey, serial int64) identity.CAProfile {
		return identity.CAProfile{Domain: Domain, PublicKey: key.Public(), Serial: big.NewInt(serial), NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(9, 0, 0)}
	}
	root, err := identity.RootTemplate(profile(rootKey, 1))
	must(t, err)
	o.Root = certify(t, root, root, rootKey)
	o.RootHash = sha256.Sum256(o.Root.Raw)
	issuer, err := identity.IssuerTemplate(profile(o.issuerKey, 2))
	must(t, err)
	o.issuer = certify(t, issuer, o.Root, rootKey)
	o.Trust = identity.NewTrust(identity.Authority{Domain: Domain, Roots: []*x509.Certificate{o.Root}})
	o.serial = 2
	return o
}

// Address returns name@Domain.
func Address(t testing.TB, name string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(name + "@" + Domain)
	must(t, err)
	return a
}

// Appoint gives a person a role and returns the certificates for their key.
func (o *Office) Appoint(t testing.TB, name string, role identity.Role, key crypto.PublicKey) [][]byte {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serial++
	now := time.Now()
	p := identity.OfficerProfile{
		Address: Address(t, name), PublicKey: key, Role: role, Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: big.NewInt(o.serial), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
	template, err := p.Template()
	must(t, err)
	chain := [][]byte{certify(t, template, o.issuer, o.issuerKey).Raw, o.issuer.Raw}
	id, err := identity.DeviceIDOf(key)
	must(t, err)
	o.officers[id] = &call.Officer{Address: p.Address, Role: role, Key: id, State: "active", Expires: p.NotAfter, Chain: chain}
	return chain
}

// Dismiss ends what Appoint began.
func (o *Office) Dismiss(key crypto.PublicKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id, err := identity.DeviceIDOf(key); err == nil && o.officers[id] != nil {
		o.officers[id].State = "dismissed"
	}
}

// Enlist puts somebody on the roster without anybody's signature.
func (o *Office) Enlist(t testing.TB, name string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	a := Address(t, name)
	o.people[a] = &call.Person{Address: a, Name: name, State: "active"}
}

// Order has a person ask for a certificate, and returns the request.
func (o *Office) Order(t testing.TB, name string) *call.Request {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	must(t, err)
	a := &statement.Approval{Request: rand.Text(), Template: statement.Template{
		Address: Address(t, name), Device: sha256.Sum256(spki), CSRKey: spki, Role: statement.RoleDevice, Profile: "device", ProfileVersion: 1,
		Tier: identity.TierHardware, Validity: 7 * 24 * time.Hour, Evidence: [32]byte{3}, Appraisal: [32]byte{4},
	}}
	signable, err := call.NewSignable(a)
	must(t, err)
	now := time.Now().UTC().Truncate(time.Second)
	r := &call.Request{
		ID: a.Request, State: call.StateWaiting, Created: now, Expires: now.Add(24 * time.Hour), Address: a.Address, Device: a.Device, Needs: 2, Approval: &signable,
		Evidence: &call.Evidence{
			Format: "yubico-piv", Claims: []call.Claim{{Name: "firmware", Value: "5.7.1"}, {Name: "slot", Value: "9a"}},
			Reasons: []call.Reason{{Rule: "generated", Passed: true, Detail: "the key was made in the card"}},
		},
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests[r.ID] = r
	o.order = append(o.order, r.ID)
	return r
}

// Gateway has a gateway ask for a certificate.
func (o *Office) Gateway(t testing.TB, name string) call.Gateway {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	must(t, err)
	body := &statement.Gateway{Change: statement.NewID(), Names: []string{name}, CSRKey: spki, Tier: identity.TierWitnessed, Validity: 90 * 24 * time.Hour}
	change, err := call.NewSignable(body)
	must(t, err)
	g := call.Gateway{
		Key: body.Key(), Names: body.Names, State: call.StateWaiting, Created: time.Now().UTC().Truncate(time.Second), Tier: body.Tier,
		Approvals: []call.Signed{}, Needs: 2, Change: &change,
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gateways = append(o.gateways, g)
	return g
}

// Handler is the desk of this office, called url.
func (o *Office) Handler(t testing.TB, url string, change ...func(*desk.Config)) http.Handler {
	t.Helper()
	cfg := desk.Config{
		URL: url, Trust: o.Trust, Root: o.RootHash, Backend: o, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.Now() },
		Refused: func(_ context.Context, r *desk.Refusal, _ ...slog.Attr) { o.note("refused " + r.Reason) },
		Event:   func(_ context.Context, what string, _ ...slog.Attr) error { o.note(what); return nil },
	}
	for _, c := range change {
		c(&cfg)
	}
	server, err := desk.New(cfg)
	must(t, err)
	return server
}

func (o *Office) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, what)
}

// Events returns what the audit stream was told.
func (o *Office) Events() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.events...)
}

// Serve runs the desk over TLS with a certificate of this authority, and
// returns its URL.
func (o *Office) Serve(t testing.TB, change ...func(*desk.Config)) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	url := "https://" + server.Listener.Addr().String()
	key := newKey(t)
	now := time.Now()
	leaf := certify(t, &x509.Certificate{
		PublicKey: key.Public(), SerialNumber: big.NewInt(99), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, o.issuer, o.issuerKey)
	server.Config.Handler = o.Handler(t, url, change...)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, o.issuer.Raw, o.Root.Raw}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return url
}

func certify(t testing.TB, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, template.PublicKey, signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("office: %w", err))
	}
}
