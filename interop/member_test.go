// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"valise/mls"
)

// A member is one device in a group, on either implementation.
type member interface {
	// keyPackage makes a new one and keeps its secrets.
	keyPackage() []byte
	found(group []byte)
	join(welcome, tree []byte) error
	// info makes a GroupInfo, and the tree that goes with it.
	info(withTree bool) (info, tree []byte)
	external(info, tree []byte, resync bool) ([]byte, error)
	// commit makes a commit and moves to the epoch after it.
	commit(change) (committed, error)
	// propose makes a PublicMessage with the first proposal of a change.
	propose(change) []byte
	encrypt(text, data []byte) []byte
	// receive opens a message of another member, and applies a commit.
	receive(message []byte) (received, error)
	status() status
}

// A change is what a commit shall do beside the proposals that are pending.
type change struct {
	add     [][]byte // key packages
	remove  []uint32
	psk     [][]byte // IDs of external keys
	private bool
	tree    bool // in the Welcome
	data    []byte
}

type committed struct{ commit, welcome, tree []byte }

type received struct {
	kind mls.ContentType // 0 where ts-mls does not tell a proposal from a commit
	text []byte
}

// A status is what members of one epoch must agree about; leaf and active are
// each one's own.
type status struct {
	epoch                   uint64
	authenticator, exported string
	keys                    string // signature keys of all leaves, in order

	leaf   uint32
	active bool
}

const exportLabel = "interop"

var exportContext = []byte("of both")

// Credentials are basic ("member NAME") or X.509, of one root per test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "interop root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ok(t, err)
	cert, err := x509.ParseCertificate(der)
	ok(t, err)
	return &authority{cert, key}
}

func (a *authority) issue(t testing.TB, name string, key crypto.PublicKey) [][]byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	ok(t, err)
	return [][]byte{der}
}

// Authenticate approves what the peer's service approves.
func (a *authority) Authenticate(c mls.Credential, _ []byte) error {
	if c.Type == mls.CredentialBasic {
		if !strings.HasPrefix(string(c.Identity), "member ") {
			return errors.New("no member")
		}
		return nil
	}
	leaf, err := x509.ParseCertificate(c.Certificates[0])
	if err != nil {
		return err
	}
	return leaf.CheckSignatureFrom(a.cert)
}

// A device is a name with a key and a credential.
type device struct {
	t      testing.TB
	suite  mls.Suite
	name   string
	signer crypto.Signer
	cred   mls.Credential
	root   *authority
	psks   map[string][]byte
}

func newDevice(t testing.TB, suite mls.Suite, name string, root *authority, certified bool, psks map[string][]byte) device {
	t.Helper()
	d := device{t: t, suite: suite, name: name, root: root, psks: psks}
	if curve := curveOf(suite); curve == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		ok(t, err)
		d.signer = key
	} else {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		ok(t, err)
		d.signer = key
	}
	d.cred = mls.BasicCredential([]byte("member " + name))
	if certified {
		d.cred = mls.X509Credential(root.issue(t, name, d.signer.Public()))
	}
	return d
}

func curveOf(s mls.Suite) elliptic.Curve {
	switch s {
	case mls.SuiteX25519:
		return nil
	case mls.SuiteP256:
		return elliptic.P256()
	}
	return elliptic.P384()
}

// raw returns the private and the public key in the encodings of RFC 9420,
// Section 5.1.1: what ts-mls takes.
func (d *device) raw() (private, public []byte) {
	switch k := d.signer.(type) {
	case ed25519.PrivateKey:
		return k.Seed(), k.Public().(ed25519.PublicKey)
	case *ecdsa.PrivateKey:
		private, err := k.Bytes()
		ok(d.t, err)
		public, err = k.PublicKey.Bytes()
		ok(d.t, err)
		return private, public
	}
	d.t.Fatal("no such key")
	return nil, nil
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
