// SPDX-License-Identifier: Apache-2.0

// Package lean is a device that costs as little as it can: certificates from an
// authority with software keys, real groups and sealed messages from package mls,
// frames of package wire, and no vault, no card and no engine behind them. It is
// what loads a gateway in the benchmarks, where the clients share the processors
// with the server. First call:
//
//	authority, err := lean.NewAuthority("interieur.example")
//	device, err := authority.NewDevice("official1")
//	conn, err := device.Connect(ctx, "127.0.0.1:4433")
//
// It keeps nothing: a device that ends has lost its ratchets and its place in the
// order of its mail. Never use it for anything but load.
package lean

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"valise/identity"
)

// An Authority certifies devices and gateways with keys in software.
type Authority struct {
	Domain string

	root, issuer *x509.Certificate
	key          *ecdsa.PrivateKey // the issuer's
	rootKey      *ecdsa.PrivateKey // nil after Load
	law          *Law              // nil: there is none
	trust        func() *identity.Trust
}

const lifetime = 24 * time.Hour

// NewAuthority makes a root and an issuer below it.
func NewAuthority(domain string) (*Authority, error) {
	rootKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	profile := identity.CAProfile{
		Domain: domain, PublicKey: rootKey.Public(), Serial: serial(),
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * lifetime),
	}
	rootTemplate, err1 := identity.RootTemplate(profile)
	profile.PublicKey, profile.Serial = key.Public(), serial()
	template, err2 := identity.IssuerTemplate(profile)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	root, err := certify(rootTemplate, rootTemplate, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	issuer, err := certify(template, root, key.Public(), rootKey)
	a := &Authority{Domain: domain, root: root, issuer: issuer, key: key, rootKey: rootKey}
	a.remember()
	return a, err
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand.Reader never fails
	}
	return n.Add(n, big.NewInt(1))
}

func certify(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Roots is the file that gateways are told to trust.
const Roots = "roots.pem"

// Save writes the authority, but for the root's key, into a folder, for other processes to Load.
func (a *Authority) Save(dir string) error {
	key, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(filepath.Join(dir, Roots), "CERTIFICATE", a.root.Raw),
		writePEM(filepath.Join(dir, "issuer.pem"), "CERTIFICATE", a.issuer.Raw),
		writePEM(filepath.Join(dir, "issuer.key"), "EC PRIVATE KEY", key),
		a.saveLaw(dir),
	)
}

func writePEM(path, kind string, der ...[]byte) error {
	var text []byte
	for _, d := range der {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: d})...)
	}
	return os.WriteFile(path, text, 0o600)
}

// Load reads what Save has written.
func Load(dir, domain string) (*Authority, error) {
	root, err1 := readPEM(filepath.Join(dir, Roots))
	issuer, err2 := readPEM(filepath.Join(dir, "issuer.pem"))
	key, err3 := readPEM(filepath.Join(dir, "issuer.key"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	a := &Authority{Domain: domain}
	a.root, err1 = x509.ParseCertificate(root)
	a.issuer, err2 = x509.ParseCertificate(issuer)
	a.key, err3 = x509.ParseECPrivateKey(key)
	a.remember()
	return a, errors.Join(err1, err2, err3, a.loadLaw(dir))
}

func readPEM(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: holds no PEM", path)
	}
	return block.Bytes, nil
}

// Trust is what a device or gateway believes that pins this authority's root: one for
// all, so that the issuer is verified once, as in a gateway.
func (a *Authority) Trust() *identity.Trust { return a.trust() }

func (a *Authority) remember() {
	a.trust = sync.OnceValue(func() *identity.Trust {
		return identity.NewTrust(identity.Authority{Domain: a.Domain, Roots: []*x509.Certificate{a.root}})
	})
}

// publicOf is the key of a certificate request.
func publicOf(request string) (any, error) {
	block, _ := pem.Decode([]byte(strings.TrimSpace(request)))
	if block == nil {
		return nil, errors.New("the certificate request holds no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return csr.PublicKey, nil
}

// CertifyGateway writes the chain for the key of a certificate request (PEM) into a file.
func (a *Authority) CertifyGateway(path, name, request string) error {
	public, err := publicOf(request)
	if err != nil {
		return err
	}
	profile := identity.GatewayProfile{
		Name: name, PublicKey: public, Tier: identity.TierWitnessed, EvidenceHash: [32]byte{3}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
	}
	template, err := profile.Template()
	if err != nil {
		return err
	}
	leaf, err := certify(template, a.issuer, public, a.key)
	if err != nil {
		return err
	}
	return writePEM(path, "CERTIFICATE", leaf.Raw, a.issuer.Raw)
}

// chain certifies a device's key.
func (a *Authority) chain(local string, public any) ([][]byte, error) {
	address, err := identity.ParseAddress(local + "@" + a.Domain)
	if err != nil {
		return nil, err
	}
	profile := identity.DeviceProfile{
		Address: address, PublicKey: public, Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
	}
	if profile.Clearance, err = a.clearance(); err != nil {
		return nil, err
	}
	template, err := profile.Template()
	if err != nil {
		return nil, err
	}
	leaf, err := certify(template, a.issuer, public, a.key)
	if err != nil {
		return nil, err
	}
	return [][]byte{leaf.Raw, a.issuer.Raw}, nil
}

// Server is a certificate for a TLS server that is no gateway of ours.
func (a *Authority) Server() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	profile := identity.GatewayProfile{
		Name: "127.0.0.1", PublicKey: key.Public(), Tier: identity.TierWitnessed, EvidenceHash: [32]byte{3}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
	}
	template, err := profile.Template()
	if err != nil {
		return nil, err
	}
	leaf, err := certify(template, a.issuer, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.issuer.Raw}, PrivateKey: key}, nil
}

// Pool is the root for crypto/tls.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}
