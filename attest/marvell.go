// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"regexp"
	"slices"
	"time"
)

// Google Cloud HSM hands out, for a key in it, a statement that a partition of a
// Marvell LiquidSecurity HSM signed, and certificates for that partition's key
// from two sides (Google, "Verifying attestations"):
//
//	maker:  partition  <-  card  <-  Marvell's root   (card and root: X.509 version 1)
//	owner:  partition  <-  Google's root
//	        card       <-  Google's root
//
// Both sides must certify the same partition key and the same card key: the
// maker says that it is an HSM, the owner that it is one of its own. Neither root
// is built in; the operator endorses both.
//
// Evidence of FormatMarvell has in Chain the statement as it was downloaded
// (gzip, or unpacked), then the certificates in any order. It holds no nonce:
// whoever asks for a certificate shows possession by signing the request.
//
// The statement has no date. The partition's certificates must be valid now;
// those above them when the partition's were made, since Marvell's root ran out
// in November 2025 and takes nothing back.

// verifyMarvell is Verify for FormatMarvell.
func verifyMarvell(ev Evidence, endorsements *Endorsements, now time.Time) (*Claims, error) {
	if len(ev.KeyManagement) != 0 {
		return nil, refuse(ReasonMalformed, "an HSM's key comes alone, with nothing about another one")
	}
	statement, err := parseMarvell(ev.Chain[0])
	if err != nil {
		return nil, err
	}
	certs, err := marvellCertificates(ev.Chain[1:], endorsements)
	if err != nil {
		return nil, err
	}
	signers := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return !statement.signedBy(c) })
	if len(signers) == 0 {
		return nil, refuse(ReasonBadSignature, "no certificate is for the key that signed the statement")
	}
	claims, err := statement.claims()
	if err != nil {
		return nil, err
	}
	maker, owner := endorsements.marvellPaths(signers, certs)
	if maker == nil || owner == nil {
		return nil, refuse(ReasonUnknownRoot, "the partition is not certified from both sides: under the maker's endorsed root %v, under its owner's %v", maker != nil, owner != nil)
	}
	for _, path := range [][]*x509.Certificate{maker, owner} {
		if err := checkValid(path, now); err != nil {
			return nil, err
		}
	}
	card, fips, err := marvellNames(maker)
	if err != nil {
		return nil, err
	}
	claims.Hardware, claims.FIPS = state(card), truth(fips)
	claims.Path, claims.OwnerPath = links(maker), links(owner)
	return &Claims{Key: *claims}, nil
}

func marvellCertificates(chain [][]byte, endorsements *Endorsements) (certs []*x509.Certificate, err error) {
	if len(chain) == 0 || len(chain) > maxMarvellCertificates {
		return nil, refuse(ReasonMalformed, "%d certificates beside the statement, want those of partition and card, and at most %d", len(chain), maxMarvellCertificates)
	}
	for i, der := range chain {
		if len(der) > MaxCertificateSize {
			return nil, refuse(ReasonMalformed, "certificate %d has %d bytes, at most %d are allowed", i, len(der), MaxCertificateSize)
		}
		if endorsements.holds(der) {
			continue // a copy; the endorsed one is taken
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, refuse(ReasonMalformed, "certificate %d: %w", i, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// signedBy reports whether cert's key made the statement's signature: RSA PKCS
// #1 v1.5 with SHA-256.
func (s *marvellStatement) signedBy(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	sum := sha256.Sum256(s.signed)
	return ok && key.Size() == marvellSignature && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], s.signature) == nil
}

// marvellPaths looks for the two sides: maker is partition, card, root; owner is
// partition, root, with a certificate for the same card under the same root.
func (e *Endorsements) marvellPaths(signers, certs []*x509.Certificate) (maker, owner []*x509.Certificate) {
	for _, partition := range signers {
		for _, card := range certs {
			if !issued(card, partition) {
				continue
			}
			for _, root := range e.roots {
				if !root.builtIn && issued(root.cert, card) {
					maker = []*x509.Certificate{partition, card, root.cert}
					if owner = e.marvellOwner(maker, signers, certs); owner != nil {
						return maker, owner
					}
				}
			}
		}
	}
	return maker, nil
}

// marvellOwner looks for the owner's side that belongs to a maker's.
func (e *Endorsements) marvellOwner(maker, signers, certs []*x509.Certificate) []*x509.Certificate {
	for _, root := range e.roots {
		if root.builtIn || sameKey(root.cert, maker[2]) {
			continue
		}
		under := func(of *x509.Certificate) func(*x509.Certificate) bool {
			return func(c *x509.Certificate) bool {
				return sameKey(c, of) && bytes.Equal(c.RawSubject, of.RawSubject) && signs(root.cert, c, 0)
			}
		}
		if i := slices.IndexFunc(signers, under(maker[0])); i >= 0 && slices.ContainsFunc(certs, under(maker[1])) {
			return []*x509.Certificate{signers[i], root.cert}
		}
	}
	return nil
}

func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// issued reports whether parent issued child: with a proper authority's
// certificate, or one of X.509 version 1, which only this vendor still uses.
func issued(parent, child *x509.Certificate) bool {
	if parent.Version != 1 {
		return signs(parent, child, 0)
	}
	return bytes.Equal(parent.RawSubject, child.RawIssuer) && checkSignature(child, parent) == nil
}

// The partition's common name is the card's with the partition's number in it.
var (
	marvellPartition = regexp.MustCompile(`^HSM:([0-9A-Za-z.-]{1,64}):PARTN:[0-9]{1,4}(, for FIPS mode)?$`)
	marvellCard      = regexp.MustCompile(`^HSM:([0-9A-Za-z.-]{1,64})(, for FIPS mode)?$`)
)

// marvellNames returns the card's serial number, and whether maker certified the
// partition for FIPS mode.
func marvellNames(maker []*x509.Certificate) (card string, fips bool, err error) {
	p := marvellPartition.FindStringSubmatch(maker[0].Subject.CommonName)
	c := marvellCard.FindStringSubmatch(maker[1].Subject.CommonName)
	if p == nil || c == nil || !slices.Equal(p[1:], c[1:]) {
		return "", false, refuse(ReasonMalformed, "the names of partition (%.80q) and card (%.80q) do not fit each other", maker[0].Subject.CommonName, maker[1].Subject.CommonName)
	}
	return p[1], p[2] != "", nil
}
