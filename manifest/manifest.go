// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"time"

	"valise/identity"
	"valise/internal/jws"
)

// A Manifest names the keys that speak for an authority. Times are whole
// seconds. Until is the end of a key's use; the zero time leaves it open until a
// later manifest says otherwise.
type Manifest struct {
	Number   uint64 // from 1
	Domain   string
	Time     time.Time // of signing
	Issuers  []Issuer  // the one in use first
	Bulletin []Key     // the one in use first
	Ledger   []LedgerKey
	Origin   string   // first line of the ledger's checkpoints
	Previous [32]byte // Digest of the manifest before; zero for number 1

	digest [32]byte // of the payload; set by ParseManifest
}

// An Issuer is a certificate, DER, that the root issued and that issues
// certificates of devices, gateways and officers.
type Issuer struct {
	Certificate []byte
	Until       time.Time
}

// A Key signs bulletins: its SubjectPublicKeyInfo in DER, ECDSA on P-256 or
// P-384.
type Key struct {
	SPKI  []byte
	Until time.Time
}

// ID returns the name of the key in a bulletin's header, the hexadecimal
// SHA-256 of its SubjectPublicKeyInfo.
func (k Key) ID() string {
	text, _ := jws.Hash(sha256.Sum256(k.SPKI)).MarshalText() // cannot fail
	return string(text)
}

// A LedgerKey signs checkpoints.
type LedgerKey struct {
	Public ed25519.PublicKey
	Until  time.Time
}

// manifestBody is a manifest's payload. See spec/bulletin.md, Section 3.
type manifestBody struct {
	Number   uint64       `json:"number"`
	Domain   string       `json:"domain"`
	Time     int64        `json:"time"`
	Issuers  []issuerBody `json:"issuers"`
	Bulletin []keyBody    `json:"bulletin"`
	Ledger   []keyBody    `json:"ledger"`
	Origin   string       `json:"origin"`
	Previous jws.Hash     `json:"previous"`
}

type issuerBody struct {
	Certificate []byte `json:"certificate"`
	Until       int64  `json:"until"`
}

type keyBody struct {
	Key   []byte `json:"key"`
	Until int64  `json:"until"`
}

func (m *Manifest) typ() string { return manifestType }
func (m *Manifest) limit() int  { return maxManifest }

func (m *Manifest) payload() any {
	b := manifestBody{
		Number: m.Number, Domain: m.Domain, Time: seconds(m.Time), Issuers: []issuerBody{}, Bulletin: []keyBody{}, Ledger: []keyBody{},
		Origin: m.Origin, Previous: m.Previous,
	}
	for _, i := range m.Issuers {
		b.Issuers = append(b.Issuers, issuerBody{i.Certificate, seconds(i.Until)})
	}
	for _, k := range m.Bulletin {
		b.Bulletin = append(b.Bulletin, keyBody{k.SPKI, seconds(k.Until)})
	}
	for _, k := range m.Ledger {
		b.Ledger = append(b.Ledger, keyBody{k.Public, seconds(k.Until)})
	}
	return b
}

// ParseManifest verifies a manifest's signature by the pinned root and all that
// it says. Whether it is newer than what the caller holds is [Manifest.Follows].
func ParseManifest(raw []byte, root *x509.Certificate) (*Manifest, error) {
	payload, err := open(raw, root, new(Manifest))
	if err != nil {
		return nil, err
	}
	return decodeManifest(payload, root)
}

func decodeManifest(payload []byte, root *x509.Certificate) (*Manifest, error) {
	var b manifestBody
	if err := jws.Decode(payload, &b); err != nil {
		return nil, refuse("payload: %w", err)
	}
	m := &Manifest{Number: b.Number, Domain: b.Domain, Time: fromSeconds(b.Time), Origin: b.Origin, Previous: b.Previous}
	for _, i := range b.Issuers {
		m.Issuers = append(m.Issuers, Issuer{i.Certificate, fromSeconds(i.Until)})
	}
	for _, k := range b.Bulletin {
		m.Bulletin = append(m.Bulletin, Key{k.Key, fromSeconds(k.Until)})
	}
	for _, k := range b.Ledger {
		m.Ledger = append(m.Ledger, LedgerKey{k.Key, fromSeconds(k.Until)})
	}
	m.digest = sha256.Sum256(payload)
	return m, m.check(root)
}

// Digest returns the name that the next manifest calls this one by. It is zero
// unless m came from ParseManifest.
func (m *Manifest) Digest() [32]byte { return m.digest }

// Follows reports whether m, which was verified, may take the place of older:
// for the same domain and ledger, with a higher number; the next number names
// older as its predecessor. A jump over several numbers is allowed, because
// someone who was away need not see each of them.
func (m *Manifest) Follows(older *Manifest) error {
	switch {
	case older == nil:
		return nil
	case m.Domain != older.Domain || m.Origin != older.Origin:
		return refuse("it is for %s and %s, ours is for %s and %s", m.Domain, m.Origin, older.Domain, older.Origin)
	case m.Number <= older.Number:
		return refuse("number %d is no higher than ours, %d", m.Number, older.Number)
	case m.Time.Before(older.Time):
		return refuse("number %d was signed before number %d", m.Number, older.Number)
	case m.Number == older.Number+1 && m.Previous != older.digest:
		return refuse("number %d names another predecessor than ours", m.Number)
	}
	return nil
}

// Certificates returns the issuing certificates whose use has not ended at a
// time. The error is of a manifest that was not parsed.
func (m *Manifest) Certificates(at time.Time) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, i := range m.Issuers {
		if ended(i.Until, at) {
			continue
		}
		cert, err := x509.ParseCertificate(i.Certificate)
		if err != nil {
			return nil, refuse("issuing certificate: %w", err)
		}
		all = append(all, cert)
	}
	return all, nil
}

// BulletinKey returns the key of this name for a bulletin of a time.
func (m *Manifest) BulletinKey(id string, at time.Time) (crypto.PublicKey, error) {
	for _, k := range m.Bulletin {
		if k.ID() != id {
			continue
		}
		if ended(k.Until, at) {
			return nil, refuse("bulletin key %.16s… was in use until %s", id, k.Until.Format(time.RFC3339))
		}
		return parseKey(k.SPKI)
	}
	return nil, refuse("bulletin key %.16s… is not in manifest %d", id, m.Number)
}

// LedgerKeys returns the keys whose checkpoints count at a time.
func (m *Manifest) LedgerKeys(at time.Time) []ed25519.PublicKey {
	var all []ed25519.PublicKey
	for _, k := range m.Ledger {
		if !ended(k.Until, at) {
			all = append(all, k.Public)
		}
	}
	return all
}

func ended(until, at time.Time) bool { return !until.IsZero() && at.After(until) }

// check applies what holds for every manifest, to ours before we sign it too.
func (m *Manifest) check(root *x509.Certificate) error {
	if m.Number == 0 || m.Number > 1<<53 {
		return refuse("number %d, they count from 1", m.Number)
	}
	if (m.Number == 1) != (m.Previous == [32]byte{}) {
		return refuse("number %d: the first and only the first has no predecessor", m.Number)
	}
	if err := identity.CheckDomain(m.Domain); err != nil {
		return refuse("%w", err)
	}
	if err := checkTime("time", m.Time, false); err != nil {
		return err
	}
	// C2SP signed notes: key names hold neither spaces nor plus signs.
	if !strings.HasPrefix(m.Origin, m.Domain+"/") || len(m.Origin) > maxOrigin || strings.IndexFunc(m.Origin, notPlain) >= 0 {
		return refuse("origin %.80q: want the domain, a slash and a name in lower case", m.Origin)
	}
	return m.checkKeys(root)
}

func notPlain(r rune) bool {
	return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("./-", r))
}

// checkKeys also sees to it that no key has two offices: a bulletin key that
// could issue would make the one who keeps it the authority.
func (m *Manifest) checkKeys(root *x509.Certificate) error {
	for what, n := range map[string]int{"issuing certificates": len(m.Issuers), "bulletin keys": len(m.Bulletin), "ledger keys": len(m.Ledger)} {
		if n == 0 || n > MaxKeys {
			return refuse("%d %s, want 1 to %d", n, what, MaxKeys)
		}
	}
	seen := map[string]bool{string(root.RawSubjectPublicKeyInfo): true}
	take := func(what string, key []byte, until time.Time) error {
		if seen[string(key)] {
			return refuse("%s: this key has an office already", what)
		}
		seen[string(key)] = true
		return checkTime(what, until, true)
	}
	for _, i := range m.Issuers {
		cert, err := checkIssuer(i.Certificate, root)
		if err != nil {
			return err
		}
		if err := take("issuing certificate", cert.RawSubjectPublicKeyInfo, i.Until); err != nil {
			return err
		}
	}
	for _, k := range m.Bulletin {
		if _, err := parseKey(k.SPKI); err != nil {
			return err
		}
		if err := take("bulletin key", k.SPKI, k.Until); err != nil {
			return err
		}
	}
	for _, k := range m.Ledger {
		if len(k.Public) != ed25519.PublicKeySize {
			return refuse("ledger key of %d bytes, Ed25519 has %d", len(k.Public), ed25519.PublicKeySize)
		}
		if err := take("ledger key", k.Public, k.Until); err != nil {
			return err
		}
	}
	return nil
}

// checkIssuer checks that the root issued the certificate for issuing (RFC
// 5280, Sections 4.2.1.3 and 4.2.1.9), with nothing below it but leaves.
func checkIssuer(der []byte, root *x509.Certificate) (*x509.Certificate, error) {
	if len(der) > identity.MaxCertificateSize {
		return nil, refuse("issuing certificate of %d bytes, at most %d are allowed", len(der), identity.MaxCertificateSize)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse("issuing certificate: %w", err)
	}
	if err := cert.CheckSignatureFrom(root); err != nil {
		return nil, refuse("issuing certificate: not of this root: %w", err)
	}
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero:
		return nil, refuse("issuing certificate: it must be an authority's, with a path length of 0")
	case cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, refuse("issuing certificate: its key usage does not let it sign certificates")
	case bytes.Equal(cert.RawSubject, root.RawSubject):
		return nil, refuse("issuing certificate: it has the root's name")
	}
	if err := identity.CheckKey(cert.PublicKey); err != nil {
		return nil, refuse("issuing certificate: %w", err)
	}
	return cert, nil
}

// parseKey reads a SubjectPublicKeyInfo in its one encoding.
func parseKey(spki []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, refuse("bulletin key: %w", err)
	}
	if err := identity.CheckKey(key); err != nil {
		return nil, refuse("bulletin key: %w", err)
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, spki) {
		return nil, refuse("bulletin key: not in its canonical encoding")
	}
	return key, nil
}
