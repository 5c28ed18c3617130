// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// A path is a chain with its root, and the domain that the root speaks for.
type path struct {
	certs  []*x509.Certificate // leaf first, root last
	domain string
}

func (p *path) leaf() *x509.Certificate { return p.certs[0] }

// build parses a chain, unless it comes parsed, and finds its way to one of our roots
// (RFC 5280, Section 6.1, without the parts that our profile excludes: policies and
// name constraints). Times and what the leaf is for are left to the caller.
func (t *Trust) build(chain [][]byte, parsed []*x509.Certificate) (*path, error) {
	if err := checkSizes(chain); err != nil {
		return nil, err
	}
	above := chainKey(chain[1:])
	if known := t.issuersOf(above); known != nil {
		leaf, err := ofProfile(0, chain, parsed)
		if err != nil {
			return nil, err
		}
		return known.with(leaf)
	}
	certs := make([]*x509.Certificate, len(chain))
	for i := range chain {
		var err error
		if certs[i], err = ofProfile(i, chain, parsed); err != nil {
			return nil, err
		}
	}
	for i := range len(certs) - 1 {
		if !bytes.Equal(certs[i].RawIssuer, certs[i+1].RawSubject) {
			return nil, refuse(i, ReasonChainOrder, "its issuer is %q, but the next certificate is %q", clip(certs[i].Issuer.String()), clip(certs[i+1].Subject.String()))
		}
	}
	p, err := t.anchor(certs)
	if err != nil {
		return nil, err
	}
	for i := range len(p.certs) - 1 {
		if err := checkIssuer(p.certs, i+1); err != nil {
			return nil, err
		}
		if err := checkSignature(i, p.certs[i], p.certs[i+1]); err != nil {
			return nil, err
		}
	}
	if p.leaf().IsCA {
		return nil, refuse(0, ReasonWrongUsage, "an authority's certificate is no device's and no gateway's")
	}
	if len(chain) > 1 {
		t.rememberIssuers(above, &path{p.certs[1:], p.domain})
	}
	return p, nil
}

// issuersOf returns what stands above leaves that came with the same issuers, nil if
// none has yet.
func (t *Trust) issuersOf(key [32]byte) *path {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.issuers[key]
}

// rememberIssuers keeps the part above the leaf of a path that is in order: the next
// leaf of the same issuers costs one signature, and shares their certificates.
func (t *Trust) rememberIssuers(key [32]byte, above *path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.issuers) >= maxIssuers {
		clear(t.issuers)
	}
	t.issuers[key] = above
}

// with puts another leaf below issuers whose signatures, and places in a path, were
// checked before. What is left is between the leaf and the one above it.
func (p *path) with(leaf *x509.Certificate) (*path, error) {
	issuer := p.certs[0]
	if !bytes.Equal(leaf.RawIssuer, issuer.RawSubject) {
		return nil, refuse(0, ReasonChainOrder, "its issuer is %q, but the next certificate is %q", clip(leaf.Issuer.String()), clip(issuer.Subject.String()))
	}
	if err := checkSignature(0, leaf, issuer); err != nil {
		return nil, err
	}
	if leaf.IsCA {
		return nil, refuse(0, ReasonWrongUsage, "an authority's certificate is no device's and no gateway's")
	}
	return &path{append([]*x509.Certificate{leaf}, p.certs...), p.domain}, nil
}

// checkSizes applies the bounds of limits.go, before anything is hashed or
// parsed.
func checkSizes(chain [][]byte) error {
	if len(chain) == 0 || len(chain) > MaxChainLength {
		return refuse(0, ReasonChainLength, "%d certificates, want 1 to %d", len(chain), MaxChainLength)
	}
	for i, der := range chain {
		if len(der) > MaxCertificateSize {
			return refuse(i, ReasonMalformed, "%d bytes, at most %d are allowed", len(der), MaxCertificateSize)
		}
	}
	return nil
}

// anchor completes certs with the root of ours that stands above the last one,
// or recognises the last one as that root.
func (t *Trust) anchor(certs []*x509.Certificate) (*path, error) {
	last := certs[len(certs)-1]
	selfIssued := bytes.Equal(last.RawIssuer, last.RawSubject)
	for _, authority := range t.authorities {
		for _, root := range authority.Roots {
			switch {
			case len(certs) > 1 && bytes.Equal(root.Raw, last.Raw):
				return &path{certs, authority.Domain}, nil
			case !selfIssued && bytes.Equal(root.RawSubject, last.RawIssuer) && sameKeyID(root, last):
				return &path{append(slices.Clone(certs), root), authority.Domain}, nil
			}
		}
	}
	if len(certs) == 1 && selfIssued {
		return nil, refuse(0, ReasonSelfSigned, "it was not issued by any authority")
	}
	return nil, refuse(len(certs)-1, ReasonUnknownAuthority, "no known root is called %q with its key", clip(last.Issuer.String()))
}

// sameKeyID reports whether child names root's key as its issuer's (RFC 5280,
// Section 4.2.1.1); all certificates of our profiles do.
func sameKeyID(root, child *x509.Certificate) bool {
	return len(root.SubjectKeyId) > 0 && bytes.Equal(root.SubjectKeyId, child.AuthorityKeyId)
}

// checkIssuer checks that certificate i of a path may issue the one below it
// (RFC 5280, Section 6.1.4, steps k, l, m, n).
func checkIssuer(certs []*x509.Certificate, i int) error {
	cert := certs[i]
	if cert.Version != 3 || !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return refuse(i, ReasonNotCA, "%q may not issue certificates", clip(cert.Subject.String()))
	}
	below := i - 1 // CAs between it and the leaf
	if (cert.MaxPathLen > 0 || cert.MaxPathLenZero) && below > cert.MaxPathLen {
		return refuse(i, ReasonPathLength, "%d authorities below %q, which allows %d", below, clip(cert.Subject.String()), cert.MaxPathLen)
	}
	return nil
}

// checkSignature checks the signature of child under parent's key; the hash
// must be the one that belongs to the key's curve.
func checkSignature(i int, child, parent *x509.Certificate) error {
	key, ok := parent.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return refuse(i+1, ReasonAlgorithm, "%w", ErrKey)
	}
	want := x509.ECDSAWithSHA384
	if key.Curve == elliptic.P256() {
		want = x509.ECDSAWithSHA256
	}
	if child.SignatureAlgorithm != want {
		return refuse(i, ReasonAlgorithm, "signed with %v, want %v", child.SignatureAlgorithm, want)
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return refuse(i, ReasonBadSignature, "%w", err)
	}
	return nil
}

// parseCertificate parses one certificate and applies what holds for all of ours.
func parseCertificate(i int, der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(slices.Clone(der)) // it keeps them
	if err != nil {
		return nil, refuse(i, ReasonMalformed, "%w", err)
	}
	return cert, checkProfile(i, cert)
}

// ofProfile returns certificate i of a chain, as it was parsed before or parsed now,
// if what holds for all of ours holds for it.
func ofProfile(i int, chain [][]byte, parsed []*x509.Certificate) (*x509.Certificate, error) {
	if parsed == nil {
		return parseCertificate(i, chain[i])
	}
	return parsed[i], checkProfile(i, parsed[i])
}

// checkProfile applies what holds for all of our certificates: version, one of our
// curves, and no critical extension but the four that this package processes.
func checkProfile(i int, cert *x509.Certificate) error {
	if cert.Version != 3 {
		return refuse(i, ReasonMalformed, "version %d, want 3", cert.Version)
	}
	if err := checkSerial(cert.SerialNumber); err != nil {
		return refuse(i, ReasonMalformed, "%w", err)
	}
	if err := CheckKey(cert.PublicKey); err != nil {
		return refuse(i, ReasonAlgorithm, "%w", err)
	}
	processed := []asn1.ObjectIdentifier{oidBasicConstraints, oidKeyUsage, oidExtendedKeyUsage, oidSubjectAltName}
	for _, ext := range cert.Extensions {
		if ext.Critical && !slices.ContainsFunc(processed, ext.Id.Equal) {
			return refuse(i, ReasonCritical, "critical extension %v is not known", ext.Id)
		}
	}
	return nil
}

// checkUsage checks that a leaf is for exactly one purpose: the standard usage
// and ours, and signing (RFC 5280, Sections 4.2.1.3 and 4.2.1.12).
func checkUsage(leaf *x509.Certificate, standard x509.ExtKeyUsage, ours asn1.ObjectIdentifier) error {
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		return refuse(0, ReasonWrongUsage, "the key usage must be digitalSignature alone")
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != standard ||
		len(leaf.UnknownExtKeyUsage) != 1 || !leaf.UnknownExtKeyUsage[0].Equal(ours) {
		return refuse(0, ReasonWrongUsage, "the extended key usages must be %v and %v alone", standard.OID(), ours)
	}
	return nil
}

// validAt checks every certificate's validity, the root's too: an authority
// whose root ran out must not go on unnoticed.
func (p *path) validAt(at time.Time) error {
	for i, cert := range p.certs {
		if at.Before(cert.NotBefore) {
			return refuse(i, ReasonNotYetValid, "valid from %s, judged as of %s", cert.NotBefore.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
		}
		if at.After(cert.NotAfter) {
			return refuse(i, ReasonExpired, "expired %s, judged as of %s", cert.NotAfter.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// deviceAltName writes the value of a device's subjectAltName, in the order in
// which crypto/x509 writes it (RFC 5280, Section 4.2.1.6).
func deviceAltName(address Address, id DeviceID) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(address.String())) })
		b.AddASN1(tag.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(id.URL().String())) })
	})
	return b.Bytes()
}

func hasExtension(cert *x509.Certificate, id asn1.ObjectIdentifier, critical bool, value []byte) bool {
	return slices.ContainsFunc(cert.Extensions, func(ext pkix.Extension) bool {
		return ext.Id.Equal(id) && ext.Critical == critical && bytes.Equal(ext.Value, value)
	})
}

// chainKey is the cache's key; lengths keep two chains with the same bytes cut
// differently apart.
func chainKey(chain [][]byte) [32]byte {
	h := sha256.New()
	for _, der := range chain {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(der))))
		h.Write(der)
	}
	return [32]byte(h.Sum(nil))
}
