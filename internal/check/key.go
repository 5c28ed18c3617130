// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// Module says whether a PKCS#11 library is where the configuration says. Empty: the key
// is somewhere else.
func Module(r *Report, path string) {
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		r.Fail("hsm", "module_missing", "install the HSM's library, or correct module-path in the key's URI", "there is no PKCS#11 library %s", path)
		return
	}
	r.OK("hsm", "the PKCS#11 library %s is there", path)
}

// Sign lets a key sign something fresh and verifies it with the public key of its
// certificate, or with the key's own where there is none. took is how long the token
// needed.
func Sign(r *Report, what string, key crypto.Signer, certificate *x509.Certificate) (took time.Duration) {
	public := key.Public()
	if certificate != nil {
		public = certificate.PublicKey
		if same, ok := public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(key.Public()) {
			r.Fail("hsm", "key_not_certified", "run csr and have this key certified, or name the right key", "%s: the certificate is for another key than the one in the token", what)
			return 0
		}
	}
	began := time.Now()
	if err := signed(key, public); err != nil {
		r.Fail("hsm", "key_unusable", "look at the HSM: it does not sign with the key that it has", "%s: %v", what, err)
		return 0
	}
	took = time.Since(began)
	r.OK("hsm", "%s: signed in %v, and the signature verifies", what, took.Round(10*time.Microsecond))
	return took
}

// signed signs random bytes and verifies the signature.
func signed(key crypto.Signer, public crypto.PublicKey) error {
	var message [32]byte
	if _, err := rand.Read(message[:]); err != nil {
		return err
	}
	switch public := public.(type) {
	case ed25519.PublicKey:
		signature, err := key.Sign(rand.Reader, message[:], crypto.Hash(0))
		if err != nil {
			return err
		}
		if !ed25519.Verify(public, message[:], signature) {
			return errSignature
		}
	case *ecdsa.PublicKey:
		hash, digest := crypto.SHA256, sha256.New()
		if public.Curve.Params().BitSize > 256 {
			hash, digest = crypto.SHA384, sha512.New384()
		}
		digest.Write(message[:])
		sum := digest.Sum(nil)
		signature, err := key.Sign(rand.Reader, sum, hash)
		if err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(public, sum, signature) {
			return errSignature
		}
	default:
		return fmt.Errorf("a key of type %T cannot be checked", public)
	}
	return nil
}

var errSignature = errors.New("what the token signed does not verify")

// Expiry says how long a certificate is valid still.
func Expiry(r *Report, what string, certificate *x509.Certificate, now time.Time, renew string) {
	left, life := certificate.NotAfter.Sub(now), certificate.NotAfter.Sub(certificate.NotBefore)
	switch {
	case now.Before(certificate.NotBefore):
		r.Fail("certificate", "certificate_early", "set the clock right, or wait", "%s is valid from %s on", what, certificate.NotBefore.UTC().Format(time.RFC3339))
	case left <= 0:
		r.Fail("certificate", "certificate_expired", renew, "%s expired at %s", what, certificate.NotAfter.UTC().Format(time.RFC3339))
	case left < life/expiring:
		r.Warn("certificate", "certificate_expires", renew, "%s expires in %v, at %s", what, left.Round(time.Minute), certificate.NotAfter.UTC().Format(time.RFC3339))
	default:
		r.OK("certificate", "%s is valid until %s", what, certificate.NotAfter.UTC().Format(time.RFC3339))
	}
}
