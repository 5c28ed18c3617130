// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Paths are built by hand and not by x509.Verify: cards' certificates carry no
// key usages for it, and what is checked should stand in one place. RFC 5280,
// Section 6.1, without policies and name constraints, which these vendors do
// not use; a critical extension that crypto/x509 did not process is refused.

// extend completes path (slot, f9, …) up to a root. Every candidate by name is
// tried, since vendors re-use names.
func (e *Endorsements) extend(path []*x509.Certificate) ([]*x509.Certificate, *endorsed) {
	top := path[len(path)-1]
	if len(path) >= maxPath {
		return nil, nil
	}
	for i, root := range e.roots {
		if signs(root.cert, top, len(path)-1) {
			return append(slices.Clone(path), root.cert), &e.roots[i]
		}
	}
	for _, between := range e.intermediates {
		if !slices.ContainsFunc(path, between.Equal) && signs(between, top, len(path)-1) {
			if full, root := e.extend(append(slices.Clone(path), between)); full != nil {
				return full, root
			}
		}
	}
	return nil, nil
}

// signs reports whether parent is a CA that issued child, with below CAs
// between parent and the end of the path.
func signs(parent, child *x509.Certificate, below int) bool {
	return bytes.Equal(parent.RawSubject, child.RawIssuer) &&
		mayIssue(parent, below) == nil && checkSignature(child, parent) == nil
}

// mayIssue checks basic constraints, key usage and path length (RFC 5280,
// Sections 4.2.1.3 and 4.2.1.9). A missing key usage extension allows all: the
// attestation certificates of real cards have none.
func mayIssue(cert *x509.Certificate, below int) error {
	switch {
	case len(cert.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("critical extension %v is not known", cert.UnhandledCriticalExtensions[0])
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("not a certification authority")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage excludes signing certificates")
	case (cert.MaxPathLen > 0 || cert.MaxPathLenZero) && below > cert.MaxPathLen:
		return fmt.Errorf("%d authorities below, its path length allows %d", below, cert.MaxPathLen)
	}
	return nil
}

// allowed are the signature algorithms of vendors' hierarchies that are still
// sound: Yubico's use RSA PKCS #1 v1.5 throughout.
var allowed = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
}

func checkSignature(child, parent *x509.Certificate) error {
	if !slices.Contains(allowed, child.SignatureAlgorithm) {
		return fmt.Errorf("signature algorithm %v is not accepted", child.SignatureAlgorithm)
	}
	switch key := parent.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return fmt.Errorf("signed with RSA-%d, at least %d bits are needed", key.N.BitLen(), minRSABits)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return fmt.Errorf("signed on curve %s", key.Curve.Params().Name)
		}
	default:
		return fmt.Errorf("signed with a key of type %T", key)
	}
	return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
}

// checkDates judges a path at the slot certificate's own date. Such evidence
// never ends, and a vendor's root that runs out later takes nothing back; but
// every certificate must have been valid when the lower one says it was made,
// and a date in the verifier's future is wrong in any case.
func checkDates(path []*x509.Certificate, now time.Time) error {
	made := path[0].NotBefore
	if now.Before(made) {
		return refuse(ReasonNotYetValid, "dated %s, which is in the future: check this machine's clock", made.UTC().Format(time.RFC3339))
	}
	for _, cert := range path {
		if made.Before(cert.NotBefore) || made.After(cert.NotAfter) {
			return refuse(ReasonMalformed, "%q was not valid at %s, the date of the key's certificate", cert.Subject, made.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// checkValid is checkDates for evidence whose first certificate does end.
func checkValid(path []*x509.Certificate, now time.Time) error {
	if end := path[0].NotAfter; now.After(end) {
		return refuse(ReasonExpired, "%q ran out on %s", path[0].Subject, end.UTC().Format(time.RFC3339))
	}
	return checkDates(path, now)
}

// links names the certificates of a path.
func links(path []*x509.Certificate) (all []Link) {
	for _, cert := range path {
		all = append(all, Link{cert.Subject.String(), fingerprint(cert)})
	}
	return all
}
